from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_network import Session

from vfl.errors import PeerAborted, Refused, RemoteProtocolError, RoleError
from vfl.wire.handshake import KINDS, Hello, agree, compare_rows, differences
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse
from vfl.wire.timing import Timing

FACTS = {"release": "0.1.0", "batch_size": 256, "seed": 7, "rate": 0.5, "shuffle": True, "cap": None}
NAMES = ("label", "bank", "shop")
values = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=9))
facts = st.dictionaries(st.text(max_size=9), values, max_size=9)


def greeting(own: Any = FACTS, rows: str = "same", count: int = 9) -> Any:  # noqa: ANN401 - facts and a role
    async def role(line: Line) -> str:
        peers = [name for name in NAMES if name != line.me]
        nonce = await agree(line, "label", peers, own, b"n" * 16)
        await compare_rows(line, "label", peers, count, rows + nonce.hex())
        return "agreed"

    return role


def play(**others: Any) -> dict[str, Any]:  # noqa: ANN401 - roles
    session = Session(*NAMES, curve=False, kinds=KINDS)
    for name in NAMES:
        session.start(name, others.get(name, greeting()))
    return session.join()


@given(facts=facts)
def test_a_party_agrees_with_itself(facts: dict[str, Any]) -> None:
    assert differences(facts, dict(facts)) == []


@given(mine=facts, theirs=facts)
def test_two_parties_find_the_same_keys_to_differ(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    here, there = differences(mine, theirs), differences(theirs, mine)
    assert len(here) == len(there)
    assert (not here) == (repr(sorted(mine.items())) == repr(sorted(theirs.items())))


def test_a_difference_names_key_and_both_values() -> None:
    assert differences({"a": 1, "b": 2}, {"a": 3, "c": True}) == [
        "a: yours 1, theirs 3",
        "b: yours 2, theirs nothing",
        "c: yours nothing, theirs True",
    ]
    assert differences({"a": 1}, {"a": True}) == ["a: yours 1, theirs True"]


def test_a_peers_words_are_shortened_and_made_printable() -> None:
    (line,) = differences({}, {"k\x1b[2J" + "x" * 500: "v" * 500})
    assert len(line) < 250
    assert "\x1b" not in line


def test_parties_with_one_job_and_the_same_rows_agree() -> None:
    played = rehearse(dict.fromkeys(NAMES, greeting()), KINDS)
    assert set(played.results.values()) == {"agreed"}
    assert {said.phase for said in played.transcript} == {"handshake"}


def test_a_differing_key_is_named_with_both_values_on_both_sides() -> None:
    outcomes = play(bank=greeting({**FACTS, "batch_size": 512}))
    assert "bank: batch_size: yours 256, theirs 512; agree on one job" in str(outcomes["label"])
    assert "label: batch_size: yours 512, theirs 256; agree on one job" in str(outcomes["bank"])
    assert isinstance(outcomes["label"], Refused)
    assert isinstance(outcomes["bank"], Refused)
    assert isinstance(outcomes["shop"], PeerAborted)
    assert (outcomes["shop"].code, outcomes["shop"].exit_code) == ("refused", 3)


def test_other_rows_are_named_on_both_sides() -> None:
    outcomes = play(shop=greeting(rows="other"))
    assert "shop: rows: as many as yours, but not the same ids" in str(outcomes["label"])
    assert "label: rows: as many as yours, but not the same ids" in str(outcomes["shop"])
    assert {error.exit_code for error in outcomes.values()} == {3}


def test_another_number_of_rows_is_named_on_both_sides_with_both_numbers() -> None:
    outcomes = play(shop=greeting(count=8))
    assert "shop: rows: yours 9, theirs 8; " in str(outcomes["label"])
    assert "label: rows: yours 8, theirs 9; " in str(outcomes["shop"])
    assert 'align = "psi"' in str(outcomes["shop"])


def test_a_party_may_read_its_table_for_longer_than_it_may_say_nothing_later() -> None:
    session = Session(*NAMES, curve=False, kinds=KINDS, timing=Timing(join_s=20, hear_s=0.5))

    async def reader(line: Line) -> str:
        peers = [name for name in NAMES if name != line.me]
        nonce = await agree(line, "label", peers, FACTS, b"n" * 16)
        for _ in range(400):
            if session.waits["label"]:  # the hub has waited for two seconds
                break
            threading.Event().wait(0.05)
        await compare_rows(line, "label", peers, 9, "same" + nonce.hex())
        return "agreed"

    for name in NAMES:
        session.start(name, reader if name == "bank" else greeting())
    assert session.join() == dict.fromkeys(NAMES, "agreed")
    assert session.waits["label"]


def test_many_differences_are_counted_not_listed() -> None:
    many = {**FACTS, **{f"key{n}": n for n in range(9)}}
    with pytest.raises(Refused, match=r"\(and 5 more\)"):
        rehearse({"label": greeting(many), "bank": greeting(), "shop": greeting()}, KINDS)


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", '{"a": [1]}', '{"a": {"b": 1}}', "[" * 30_000])
def test_facts_that_cannot_be_read_break_the_protocol(text: str) -> None:
    async def bank(line: Line) -> None:
        await line.say("label", Hello(text, b""))
        await line.hear("label", Hello)

    with pytest.raises(RemoteProtocolError, match="bank: sent facts that cannot be read"):
        rehearse({"label": greeting(), "bank": bank, "shop": greeting()}, KINDS)


# --- a hub without rows ------------------------------------------------------------------------------


def comparing(**said: tuple[int, str] | None) -> dict[str, Any]:
    """Returns roles that compare their rows; the coordinator is the hub, and has none."""

    def role(own: tuple[int, str] | None) -> Any:  # noqa: ANN401
        async def compares(line: Line) -> int:
            rows, digest = own or (None, None)
            peers = [name for name in said if name != line.me]
            return await compare_rows(line, "coordinator", peers, rows, digest)

        return compares

    return {"coordinator": role(None)} | {name: role(own) for name, own in said.items()}


def outcomes_of(roles: dict[str, Any]) -> dict[str, Any]:
    session = Session(
        "coordinator", *(name for name in roles if name != "coordinator"), curve=False, kinds=KINDS
    )
    for name, role in roles.items():
        session.start(name, role)
    return session.join()


def test_a_hub_without_rows_learns_how_many_the_others_agree_on() -> None:
    roles = comparing(bank=(9, "a"), shop=(9, "a"), zoo=(9, "a"))
    assert rehearse(roles, KINDS).results == dict.fromkeys(roles, 9)


@pytest.mark.parametrize(
    ("said", "odd", "words"),
    [
        ({"bank": (9, "a"), "shop": (8, "b"), "zoo": (9, "a")}, ["shop"], "the other parties' 9, theirs 8"),
        ({"bank": (9, "b"), "shop": (9, "a"), "zoo": (9, "a")}, ["bank"], "as many as the other parties'"),
        ({"bank": (9, "a"), "shop": (9, "b")}, ["shop"], "as many as the other parties'"),
        ({"bank": (9, "a"), "shop": (8, "b"), "zoo": (7, "c")}, ["shop", "zoo"], "parties' 9, theirs 8"),
        ({"bank": (9, "a"), "shop": (8, "a")}, ["shop"], "the other parties' 9, theirs 8"),
        (
            {"a": (1, "a"), "b": (2, "b"), "c": (1, "a"), "d": (2, "b"), "e": (2, "b")},
            ["a", "c"],
            "the other parties' 2, theirs 1",
        ),
    ],
)
def test_a_hub_without_rows_names_the_first_whose_rows_are_not_those_of_most(
    said: dict[str, tuple[int, str]], odd: list[str], words: str
) -> None:
    outcomes = outcomes_of(comparing(**said))
    assert isinstance(outcomes["coordinator"], Refused)
    assert outcomes["coordinator"].peer == odd[0]
    assert words in str(outcomes["coordinator"])
    for name in said:
        if name in odd:
            assert isinstance(outcomes[name], Refused)
            assert outcomes[name].peer == "coordinator"
            assert "yours" in str(outcomes[name])
        else:
            assert isinstance(outcomes[name], PeerAborted)
            assert (outcomes[name].code, outcomes[name].culprit) == ("refused", odd[0])


def test_only_a_hub_may_have_no_rows() -> None:
    with pytest.raises(RoleError, match="bank has no rows to compare"):
        rehearse(comparing(bank=None, shop=(9, "a")), KINDS)
