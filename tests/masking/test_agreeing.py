"""Contributors agree on keys past any relay, or find out that they have not."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from agreeing_roles import ABC, OTHER_KEY, STRANGE, contributor, honest, noting, play, sessions

from vfl.crypto.pairs import KEY_BYTES, new_secret, public_of
from vfl.errors import RemoteProtocolError, RoleError
from vfl.masking.agreeing import (
    KINDS,
    Confirmation,
    Confirmations,
    Keys,
    KeyShare,
    Roster,
    relay_keys,
)
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.session import Member
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse

# --- all are honest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("identities", [True, False])
@pytest.mark.parametrize("k", [2, 3, 8])
def test_each_two_contributors_find_a_key_that_nobody_else_has(k: int, identities: bool) -> None:
    names = tuple(f"party{place}" for place in range(k))
    played = play(honest(Roster(1, names)), names, identities=identities)
    found = {name: played.results[name][0] for name in names}
    assert all(list(found[name]) == [other for other in names if other != name] for name in names)
    for one, other in itertools.combinations(names, 2):
        assert found[one][other] == found[other][one]
    keys = [found[one][other] for one, other in itertools.combinations(names, 2)]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert {said.phase for said in played.transcript} == {"keys"}
    said_bytes = b"".join(repr(dataclasses.astuple(said.message)).encode() for said in played.transcript)
    assert not any(repr(key)[2:-1].encode() in said_bytes for key in keys)


def test_a_second_agreement_of_one_session_and_the_same_one_of_another_give_other_keys() -> None:
    given = sessions(ABC)

    def twice(name: str) -> Any:  # noqa: ANN401
        async def role(line: Line) -> list[dict[str, bytes]]:
            return [(await contributor(given[name])(line))[0] for _ in range(2)]

        return role

    played = rehearse({"hub": honest(Roster(1, ABC), Roster(2, ABC))} | {n: twice(n) for n in ABC}, KINDS)
    one, two = played.results["a"]
    assert set(one.values()).isdisjoint(two.values())


def test_the_roster_may_stand_in_any_order() -> None:
    played = play(honest(Roster(7, ("c", "a", "b"))))
    (found, roster), (others, _) = played.results["a"], played.results["c"]
    assert (list(found), roster.names, roster.number) == (["c", "b"], ("c", "a", "b"), 7)
    assert found["c"] == others["a"]


def test_masks_of_agreed_keys_cancel() -> None:
    played, ring = play(honest(Roster(1, ABC))), Ring.fitting(32, 8.0, 3)
    taken = [Masks(name, played.results[name][0], ring).take(Counter(0, 0, 0), (9, 4)) for name in ABC]
    assert not ring.total(taken).any()
    assert all(mask.any() for mask in taken)


def test_64_contributors_agree() -> None:
    """How long that takes is printed by examples/benchmarks/sfa.py."""
    names = tuple(f"party{place}" for place in range(64))
    results = play(honest(Roster(1, names)), names).results
    for one, other in (("party0", "party63"), ("party17", "party42")):
        assert results[one][0][other] == results[other][0][one]


# --- a contributor vanishes -------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["Roster", "KeyShare", "Keys", "Confirmation", "Confirmations"])
def test_contributors_begin_again_with_a_roster_that_comes_in_between(after: str) -> None:
    first, second = Roster(1, ABC), Roster(2, ("a", "b"))
    checked: list[tuple[int, tuple[str, ...]]] = []
    given = sessions(ABC)

    async def hub(line: Line) -> None:
        await _break_off(line, first, after)
        await relay_keys(line, second)  # a's and b's words of the first are under way still

    def stays(name: str) -> Any:  # noqa: ANN401
        role = contributor(given[name], lambda roster: checked.append((roster.number, roster.names)))

        async def again(line: Line) -> Any:  # noqa: ANN401
            found, roster = await role(line)
            return (found, roster) if roster.number == 2 else await role(line)

        return again

    goes = {"Roster": _hears_a_roster, "KeyShare": _hears_a_roster, "Confirmations": contributor(given["c"])}
    roles = {"hub": hub, "a": stays("a"), "b": stays("b"), "c": goes.get(after, _hears_keys)}
    played = rehearse(roles, KINDS)
    (found, roster), (others, _) = played.results["a"], played.results["b"]
    assert (roster.number, roster.names) == (2, ("a", "b"))
    assert list(found) == ["b"]
    assert found["b"] == others["a"]
    assert checked == ([] if after == "Confirmations" else [(2, ("a", "b"))] * 2)
    shares = [said.message.key for said in played.transcript if isinstance(said.message, KeyShare)]
    assert len(set(shares)) == len(shares)  # nobody has used a key for two rosters


async def _hears_a_roster(line: Line) -> None:
    await line.hear("hub", Roster)


async def _hears_keys(line: Line) -> None:
    await line.hear("hub", Roster)
    await line.say("hub", KeyShare(1, public_of(new_secret())))
    await line.hear("hub", Keys)


async def _break_off(line: Line, roster: Roster, after: str) -> None:
    """Relays an agreement up to a point, as an aggregator does that loses a party there."""
    if after == "Confirmations":
        await relay_keys(line, roster)
        return
    for name in roster.names:
        await line.say(name, roster)
    if after == "Roster":
        return
    if after == "KeyShare":
        await line.hear("a", KeyShare)
        return
    shares = {name: (await line.hear(name, KeyShare)).key for name in roster.names}
    for name in roster.names:
        await line.say(name, Keys(roster.number, tuple(shares.values())))
    if after == "Confirmation":
        await line.hear("b", Confirmation)


def test_a_word_of_another_kind_before_the_roster_is_answered_is_refused_by_name() -> None:
    async def early(line: Line) -> Any:  # noqa: ANN401
        await line.say("hub", Confirmations(9, ()))  # stands for any word of the protocol around
        return await contributor(given["a"])(line)

    async def hub(line: Line) -> None:
        await relay_keys(line, Roster(1, ("a", "b")))

    given = sessions("ab")
    with pytest.raises(RemoteProtocolError, match="a: said Confirmations where"):
        rehearse({"hub": hub, "a": early, "b": contributor(given["b"])}, KINDS)


def test_a_further_roster_that_its_check_refuses_ends_the_agreement() -> None:
    def check(roster: Roster) -> None:
        raise RemoteProtocolError("hub", f"says {len(roster.names)}")

    async def hub(line: Line) -> None:
        await line.say("a", Roster(1, ABC))
        await line.say("a", Roster(2, ("a", "b")))

    with pytest.raises(RemoteProtocolError, match="hub: says 2"):
        rehearse({"hub": hub, "a": contributor(sessions(ABC)["a"], check)}, KINDS)


# --- a contributor lies -----------------------------------------------------------------------------


def saying(*words: Message) -> Any:  # noqa: ANN401 - a role
    """Answers the roster with the first word, and the keys with the second."""

    async def role(line: Line) -> None:
        for word, heard in zip(words, (Roster, Keys), strict=False):
            await line.hear("hub", heard)
            await line.say("hub", word)

    return role


TAGS = (bytes(16), bytes(16))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([KeyShare(2, STRANGE)], "b: answered roster 2 where the latest is 1"),
        ([KeyShare(1, STRANGE[:31])], "b: sent a key of 31 bytes, not 32"),
        ([KeyShare(1, b"")], "b: sent a key of 0 bytes, not 32"),
        ([Confirmation(1, TAGS)], "b: said Confirmation where KeyShare was due"),
        ([Keys(1, ())], "b: said Keys where KeyShare or Confirmation was due"),
        ([KeyShare(1, STRANGE), KeyShare(1, STRANGE)], "b: said KeyShare where Confirmation was due"),
        ([KeyShare(1, STRANGE), Confirmation(1, TAGS[:1])], "b: sent tags that are none"),
        ([KeyShare(1, STRANGE), Confirmation(1, (*TAGS, bytes(16)))], "b: sent tags that are none"),
        ([KeyShare(1, STRANGE), Confirmation(1, (bytes(16), bytes(17)))], "b: sent tags that are none"),
        ([KeyShare(1, STRANGE), Confirmation(3, TAGS)], "b: answered roster 3 where the latest is 1"),
    ],
)
def test_a_contributor_that_says_something_else_is_named_by_the_aggregator(
    words: list[Message], why: str
) -> None:
    given = sessions(ABC)
    roles = {"hub": honest(Roster(1, ABC)), "b": saying(*words)}
    with pytest.raises(RemoteProtocolError, match=why):
        rehearse(roles | {name: contributor(given[name]) for name in "ac"}, KINDS)


def test_a_contributor_without_the_pinned_secret_is_found_out_by_all_others() -> None:
    given = sessions(ABC)
    impostor = dataclasses.replace(given["b"], secret_key=new_secret())
    public = public_of(impostor.secret_key or b"")
    members = {**impostor.members, "b": Member("feature", 8, public)}
    roles = {name: noting(given[name]) for name in "ac"}
    roles["b"] = noting(dataclasses.replace(impostor, members=members))
    played = rehearse({"hub": honest(Roster(1, ABC))} | roles, KINDS)
    assert {played.results[name].partition(",")[0] for name in "ac"} == {f"{OTHER_KEY} b's own"}


# --- this party's own session is wrong --------------------------------------------------------------


def test_identities_of_some_and_not_of_others_are_refused() -> None:
    pinned, bare = sessions(ABC), sessions(ABC, identities=False)
    members = {**pinned["a"].members, "c": Member("feature", 8)}
    for session in (
        dataclasses.replace(pinned["a"], members=members),
        dataclasses.replace(bare["a"], members={**bare["a"].members, "c": pinned["a"].members["c"]}),
    ):
        with pytest.raises(RoleError, match="a and c: one has an identity and the other has none"):
            rehearse({"hub": honest(Roster(1, ABC)), **dict.fromkeys("abc", contributor(session))}, KINDS)


def test_a_secret_key_that_is_not_ones_own_identitys_is_refused() -> None:
    given = sessions(ABC)
    for secret in (new_secret(), None):
        wrong = dataclasses.replace(given["a"], secret_key=secret)
        with pytest.raises(RoleError, match="not that of its own identity"):
            rehearse({"hub": honest(Roster(1, ABC)), **dict.fromkeys("abc", contributor(wrong))}, KINDS)
