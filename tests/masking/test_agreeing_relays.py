"""An aggregator that passes on something else than it heard is found out before anything is masked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from agreeing_roles import ABC, OTHER_KEY, STRANGE, contributor, honest, noting, play, sessions

from vfl.crypto.pairs import KEY_BYTES, Ends, new_secret, tag
from vfl.errors import RemoteProtocolError
from vfl.masking.agreeing import (
    KINDS,
    Confirmation,
    Confirmations,
    Keys,
    KeyShare,
    Roster,
    _pair_keys,
    relay_keys,
)
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse

Alter = Callable[[str, Message], Message]


def altering(roster: Roster, alter: Alter) -> Any:  # noqa: ANN401 - a role
    """Relays as is due, but says what `alter` makes of each message."""

    class Altering(Line):
        async def say(self, to: str, message: Message) -> None:
            await super().say(to, alter(to, message))

    async def role(line: Line) -> None:
        await relay_keys(Altering(line.me), roster)

    return role


def swapped(values: tuple[bytes, ...], one: int, other: int) -> tuple[bytes, ...]:
    order = list(range(len(values)))
    order[one], order[other] = other, one
    return tuple(values[place] for place in order)


def altered_keys(change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]], *, only: str = "") -> Alter:
    def alter(to: str, message: Message) -> Message:
        if isinstance(message, Keys) and only in ("", to):
            return Keys(message.number, change(message.keys))
        return message

    return alter


def put(values: tuple[bytes, ...], place: int, value: bytes) -> tuple[bytes, ...]:
    return (*values[:place], value, *values[place + 1 :])


@pytest.mark.parametrize(
    ("change", "only", "words"),
    [
        (lambda keys: put(keys, 1, STRANGE), "a", f"{OTHER_KEY} b's own"),
        (lambda keys: put(keys, 1, STRANGE), "c", f"{OTHER_KEY}"),
        (lambda keys: put(keys, 0, STRANGE), "", f"{OTHER_KEY} a's own to a itself"),
        (lambda keys: swapped(keys, 1, 2), "a", f"{OTHER_KEY} b's own"),
        (lambda keys: swapped(keys, 0, 2), "", f"{OTHER_KEY} a's own to a itself"),
        (lambda keys: put(keys, 1, keys[0]), "a", "hub: passed on one key as that of two"),
        (lambda keys: put(keys, 1, keys[2]), "a", "hub: passed on one key as that of two"),
        (lambda keys: put(keys, 1, bytes(32)), "a", "hub: passed on as b's a key that is none"),
        (lambda keys: put(keys, 2, b"\1" + bytes(31)), "b", "hub: passed on as c's a key that is none"),
        (lambda keys: put(keys, 1, keys[1][:31]), "a", "hub: passed on as b's a key that is none"),
        (lambda keys: put(keys, 1, keys[1] + b"\0"), "a", "hub: passed on as b's a key that is none"),
        (lambda keys: put(keys, 1, b""), "a", "hub: passed on as b's a key that is none"),
        # The same point, written otherwise: all products are the same, and still it is not what b said.
        (lambda keys: put(keys, 1, keys[1][:31] + bytes([keys[1][31] | 128])), "a", f"{OTHER_KEY} b's own"),
        (lambda keys: keys[:2], "a", "hub: passed on 2 keys of 3 contributors"),
        (lambda keys: (*keys, STRANGE), "a", "hub: passed on 4 keys of 3 contributors"),
        (lambda keys: (), "a", "hub: passed on 0 keys of 3 contributors"),
    ],
)
def test_a_relay_that_passes_on_other_keys_is_found_out(change: Any, only: str, words: str) -> None:  # noqa: ANN401
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        play(altering(Roster(1, ABC), altered_keys(change, only=only)))
    assert caught.value.peer == "hub"


def flipped(tags: tuple[bytes, ...], place: int) -> tuple[bytes, ...]:
    return put(tags, place, bytes([tags[place][0] ^ 1]) + tags[place][1:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tags: flipped(tags, 0), f"{OTHER_KEY} a's own"),
        (lambda tags: flipped(tags, 1), f"{OTHER_KEY} c's own"),
        (lambda tags: swapped(tags, 0, 1), f"{OTHER_KEY} a's own"),
        (lambda tags: tuple(bytes(16) for _ in tags), f"{OTHER_KEY} a's own"),
        (lambda tags: (tags[0][:15], tags[1]), "hub: sent tags that are none: 2 of 16 bytes"),
        (lambda tags: tags[:1], "hub: sent tags that are none"),
        (lambda tags: (*tags, tags[0]), "hub: sent tags that are none"),
        (lambda tags: (), "hub: sent tags that are none"),
    ],
)
def test_a_relay_that_passes_on_other_tags_is_found_out(change: Any, words: str) -> None:  # noqa: ANN401
    def alter(to: str, message: Message) -> Message:
        is_its = to == "b" and isinstance(message, Confirmations)
        return Confirmations(message.number, change(message.tags)) if is_its else message  # type: ignore[attr-defined]

    with pytest.raises(RemoteProtocolError, match=words) as caught:
        play(altering(Roster(1, ABC), alter))
    assert caught.value.peer == "hub"


def test_a_tag_is_good_one_way_only() -> None:
    """A relay that hands each contributor its own tag back, for the other's, is found out."""

    async def hub(line: Line) -> None:
        for name in "ab":
            await line.say(name, Roster(1, ("a", "b")))
        keys = [(await line.hear(name, KeyShare)).key for name in "ab"]
        for name in "ab":
            await line.say(name, Keys(1, tuple(keys)))
            mirrored = await line.hear(name, Confirmation)
            await line.say(name, Confirmations(1, mirrored.tags))

    with pytest.raises(RemoteProtocolError, match=f"{OTHER_KEY} b's own"):
        play(hub, "ab")


@pytest.mark.parametrize("kind", [Keys, Confirmations])
@pytest.mark.parametrize("number", [0, 2, 2**62, -1])
def test_an_answer_of_another_roster_is_refused(kind: Any, number: int) -> None:  # noqa: ANN401
    def alter(to: str, message: Message) -> Message:
        return dataclasses.replace(message, number=number) if isinstance(message, kind) else message

    with pytest.raises(RemoteProtocolError, match=f"hub: said {kind.__name__} of roster {number}, not 1"):
        play(altering(Roster(1, ABC), alter))


@pytest.mark.parametrize("number", [-1, 0, 4, 5])
def test_a_roster_that_does_not_ascend_is_refused(number: int) -> None:
    async def hub(line: Line) -> None:
        await line.say("a", Roster(5, ABC))
        await line.say("a", Roster(number, ABC))

    with pytest.raises(RemoteProtocolError, match=f"hub: said roster {number} after roster 5"):
        rehearse({"hub": hub, "a": contributor(sessions(ABC)["a"])}, KINDS)


@pytest.mark.parametrize(
    ("roster", "words"),
    [
        (Roster(1, ("b", "c")), "a itself is missing"),
        (Roster(1, ()), "a itself is missing"),
        (Roster(1, ("a",)), "said a roster of 1: a mask takes two at least"),
        (Roster(1, ("a", "b", "b")), "a number or a name is wrong"),
        (Roster(-1, ABC), "a number or a name is wrong"),
        (Roster(1, ("a", "b", "nobody")), "with 'nobody', who is in no job"),
        (Roster(1, ("a", "b", "hub")), "with 'hub', who aggregates itself"),
    ],
)
def test_a_roster_that_no_keys_can_be_agreed_for_is_refused(roster: Roster, words: str) -> None:
    async def hub(line: Line) -> None:
        await line.say("a", roster)

    with pytest.raises(RemoteProtocolError, match=words):
        rehearse({"hub": hub, "a": contributor(sessions(ABC)["a"])}, KINDS)


def lying(rosters: Mapping[str, Roster], keys: Callable[[str, dict[str, bytes]], tuple[bytes, ...]]) -> Any:  # noqa: ANN401 - a role
    """Shows each contributor a roster and keys of its own, and passes tags on as far as they go."""

    async def role(line: Line) -> None:
        for name, roster in rosters.items():
            await line.say(name, roster)
        shares = {name: (await line.hear(name, KeyShare)).key for name in rosters}
        tags: dict[tuple[str, str], bytes] = {}
        for name, roster in rosters.items():
            await line.say(name, Keys(roster.number, keys(name, shares)))
            said = await line.hear(name, Confirmation)
            others = [other for other in roster.names if other != name]
            tags |= {(name, other): one for other, one in zip(others, said.tags, strict=True)}
        for name, roster in rosters.items():
            theirs = [tags.get((other, name), bytes(16)) for other in roster.names if other != name]
            await line.say(name, Confirmations(roster.number, tuple(theirs)))

    return role


@pytest.mark.parametrize(
    "shown",
    [
        {"a": Roster(1, ("a", "b")), "b": Roster(1, ABC), "c": Roster(1, ABC)},
        {"a": Roster(1, ABC), "b": Roster(1, ("a", "b")), "c": Roster(1, ("a", "c"))},
        {"a": Roster(1, ABC), "b": Roster(1, ("b", "a", "c")), "c": Roster(1, ABC)},
        {"a": Roster(1, ABC), "b": Roster(1, ABC), "c": Roster(2, ABC)},
    ],
    ids=["one name less for one", "pairs", "another order", "another number"],
)
def test_contributors_that_are_shown_different_rosters_all_find_out(shown: dict[str, Roster]) -> None:
    given = sessions(ABC)
    hub = lying(shown, lambda name, shares: tuple(shares[other] for other in shown[name].names))
    played = rehearse({"hub": hub} | {name: noting(given[name]) for name in ABC}, KINDS)
    for name in ABC:
        assert str(played.results[name]).startswith(OTHER_KEY), name


def test_words_of_another_session_that_are_said_again_are_found_out() -> None:
    roster, old = Roster(1, ABC), {}
    before = play(honest(roster))
    for said in before.view("a"):
        old[type(said.message)] = said.message

    def all_old(to: str, message: Message) -> Message:
        return old.get(type(message), message) if to == "a" else message

    def all_but_its_own(to: str, message: Message) -> Message:
        if to == "a" and isinstance(message, Keys):
            return Keys(1, put(old[Keys].keys, 0, message.keys[0]))
        return all_old(to, message)

    with pytest.raises(RemoteProtocolError, match="a's own to a itself"):
        play(altering(roster, all_old))
    with pytest.raises(RemoteProtocolError, match=f"{OTHER_KEY} b's own"):
        play(altering(roster, all_but_its_own))


def test_contributors_of_two_sessions_that_a_relay_mixes_find_out() -> None:
    given = sessions(("a", "b"))
    other = dataclasses.replace(given["b"], nonce=b"m" * 16)
    roles = {
        "hub": honest(Roster(1, ("a", "b"))),
        "a": contributor(given["a"]),
        "b": contributor(other),
    }
    with pytest.raises(RemoteProtocolError, match=OTHER_KEY):
        rehearse(roles, KINDS)


def in_the_middle(given: Mapping[str, Session]) -> Any:  # noqa: ANN401 - a role
    """Relays between a and b with keys of its own, and answers each in the other's name."""

    async def role(line: Line) -> dict[str, bytes]:
        roster, found = Roster(1, ("a", "b")), {}
        for name in roster.names:
            await line.say(name, roster)
        shares = {name: (await line.hear(name, KeyShare)).key for name in roster.names}
        for me, peer in (("a", "b"), ("b", "a")):  # plays `me` towards `peer`
            identity = given[me].members[me].identity
            ends = Ends(new_secret(), identity and new_secret())
            ends.public_identity = identity  # all that it lacks of `me` is the pinned secret
            keys = tuple({me: ends.public, peer: shares[peer]}[name] for name in roster.names)
            key = _pair_keys(given[me], ends, "hub", roster, keys)[peer]
            await line.say(peer, Keys(1, keys))
            await line.hear(peer, Confirmation)
            forged = tag(key[KEY_BYTES:], b"confirms", me.encode(), peer.encode())
            await line.say(peer, Confirmations(1, (forged,)))
            found[peer] = key[:KEY_BYTES]
        return found

    return role


def test_a_relay_in_the_middle_that_lacks_the_pinned_secrets_is_found_out_by_both() -> None:
    given = sessions(("a", "b"))
    roles = {"hub": in_the_middle(given), "a": noting(given["a"]), "b": noting(given["b"])}
    played = rehearse(roles, KINDS)
    assert played.results["a"].startswith(f"{OTHER_KEY} b's own")
    assert played.results["b"].startswith(f"{OTHER_KEY} a's own")


def test_without_pinned_keys_a_relay_in_the_middle_is_not_found_out_and_reads_everything() -> None:
    """Is the limit that the documentation states: masks protect from an aggregator only with keys."""
    given = sessions(("a", "b"), identities=False)
    roles = {"hub": in_the_middle(given), "a": contributor(given["a"]), "b": contributor(given["b"])}
    played, ring = rehearse(roles, KINDS), Ring.fitting(32, 8.0, 2)
    keys = {name: played.results[name][0] for name in "ab"}
    assert keys["a"]["b"] == played.results["hub"]["a"]
    assert keys["b"]["a"] == played.results["hub"]["b"]
    h = torch.randn(5, 3)
    said = ring.total([ring.encode(h)[0], Masks("a", keys["a"], ring).take(Counter(0, 0, 0), h.shape)])
    mask = Masks("a", {"b": played.results["hub"]["a"]}, ring).take(Counter(0, 0, 0), h.shape)
    assert torch.equal(ring.decode(ring.total([said, -mask])), ring.decode(ring.encode(h)[0]))
