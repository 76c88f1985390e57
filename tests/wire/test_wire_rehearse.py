from __future__ import annotations

from typing import Any

import pytest
import torch
from wire_messages import KINDS, Foreign, Matrix, Number

from vfl.errors import Deadlock, RemoteProtocolError, RoleError
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse


async def say_one(line: Line) -> str:
    await line.say("b", Number(1))
    return "said"


async def hear_one(line: Line) -> int:
    return (await line.hear("a", Number)).n


def test_results_transcript_view_and_ledgers_come_of_a_rehearsal() -> None:
    played = rehearse({"a": say_one, "b": hear_one}, KINDS)
    assert played.results == {"a": "said", "b": 1}
    assert [(said.sender, said.to, said.phase) for said in played.transcript] == [("a", "b", "session")]
    assert played.view("b") == played.transcript
    assert played.view("a") == []
    n_bytes = played.transcript[0].n_bytes
    assert played.ledgers["a"].sent_bytes == played.ledgers["b"].received_bytes == n_bytes
    assert rehearse({"a": say_one, "b": hear_one}, KINDS, record=False).transcript == []


def test_a_deadlock_names_who_waits_for_what_from_whom() -> None:
    async def a(line: Line) -> None:
        await line.hear("b", Number)

    async def b(line: Line) -> None:
        await line.hear_any(("a", "c"), Number, Matrix)

    async def c(line: Line) -> None:
        return None

    with pytest.raises(Deadlock) as caught:
        rehearse({"a": a, "b": b, "c": c}, KINDS)
    assert str(caught.value) == (
        "nobody can go on: a waits for Number from b; "
        "b waits for Number or Matrix from a or c (which has ended)"
    )


def test_every_role_has_random_numbers_and_a_grad_mode_of_its_own() -> None:
    def role(other: str) -> Any:  # noqa: ANN401 - a role
        async def play(line: Line) -> list[Any]:
            seen: list[Any] = [torch.rand(1).item()]
            with torch.no_grad():
                await line.say(other, Number(1))
                await line.hear(other, Number)
                seen += [torch.rand(1).item(), torch.is_grad_enabled()]
            await line.say(other, Number(1))
            await line.hear(other, Number)
            return [*seen, torch.is_grad_enabled(), torch.rand(1).item()]

        return play

    torch.manual_seed(0)
    before = torch.get_rng_state()
    results = rehearse({"a": role("b"), "b": role("a")}, KINDS).results
    assert torch.equal(torch.get_rng_state(), before)
    for place, name in enumerate("ab"):
        torch.manual_seed(place)
        expected = [torch.rand(1).item() for _ in range(3)]
        assert results[name] == [expected[0], expected[1], False, True, expected[2]]


def test_a_role_ended_by_anothers_error_changes_no_grad_mode() -> None:
    async def a(line: Line) -> None:
        with torch.no_grad():
            await line.hear("b", Number)

    async def b(line: Line) -> None:
        raise RoleError("x")

    with torch.no_grad():
        with pytest.raises(RoleError):
            rehearse({"a": a, "b": b}, KINDS)
        assert not torch.is_grad_enabled()


def test_a_message_of_another_session_or_kind_is_blamed_on_who_said_it() -> None:
    async def foreign(line: Line) -> None:
        await line.say("b", Foreign(1))

    async def other(line: Line) -> None:
        await line.say("b", Matrix(1, torch.zeros(1)))

    with pytest.raises(RemoteProtocolError, match="a: said 'Foreign'"):
        rehearse({"a": foreign, "b": hear_one}, KINDS)
    with pytest.raises(RemoteProtocolError, match="a: said Matrix where Number was due") as caught:
        rehearse({"a": other, "b": hear_one}, KINDS)
    assert caught.value.__notes__ == ["in the role of b"]


def test_whatever_a_role_raises_the_note_names_the_role() -> None:
    async def a(line: Line) -> None:
        raise ZeroDivisionError("x")

    with pytest.raises(ZeroDivisionError) as caught:
        rehearse({"a": a, "b": hear_one}, KINDS)
    assert caught.value.__notes__ == ["in the role of a"]


@pytest.mark.parametrize("to", ["a", "c"])
def test_saying_to_a_stranger_or_oneself_is_the_roles_fault(to: str) -> None:
    async def a(line: Line) -> None:
        await line.say(to, Number(1))

    with pytest.raises(RoleError, match=f"a would say Number to '{to}', who is no peer"):
        rehearse({"a": a, "b": hear_one}, KINDS)


def test_waiting_for_nobody_or_nothing_is_the_roles_fault() -> None:
    async def a(line: Line) -> None:
        await line.hear_any((), Number)

    with pytest.raises(RoleError, match="a would wait for nobody or for nothing"):
        rehearse({"a": a}, KINDS)


def test_a_stream_that_nobody_hears_yet_stays_short() -> None:
    ahead: list[int] = []
    said = heard = 0

    async def a(line: Line) -> None:
        nonlocal said
        for _ in range(1000):
            await line.say("b", Number(1))
            said += 1

    async def b(line: Line) -> None:
        nonlocal heard
        for _ in range(1000):
            await line.hear("a", Number)
            heard += 1
            ahead.append(said - heard)

    rehearse({"a": a, "b": b}, KINDS)
    assert max(ahead) <= 32


def test_an_endless_stream_ends_when_its_hearer_fails() -> None:
    async def a(line: Line) -> None:
        while True:
            await line.say("b", Number(1))

    async def b(line: Line) -> None:
        await line.hear("c", Number)

    async def c(line: Line) -> None:
        for _ in range(100):
            await line.hear("a", Number) if line.me == "b" else await line.say("a", Number(1))
        raise RoleError("enough")

    with pytest.raises(RoleError, match="enough"):
        rehearse({"a": a, "b": b, "c": c}, KINDS)


def test_hearing_any_takes_the_first_who_spoke() -> None:
    async def speak(line: Line) -> None:
        await line.say("c", Number(1))

    async def c(line: Line) -> list[str]:
        return [(await line.hear_any(("b", "a"), Number))[0] for _ in range(2)]

    assert rehearse({"a": speak, "b": speak, "c": c}, KINDS).results["c"] == ["a", "b"]


def test_the_ledger_books_by_peer_and_phase() -> None:
    async def a(line: Line) -> None:
        with line.during("one"):
            await line.say("b", Number(1))
        await line.say("b", Number(2))

    async def b(line: Line) -> None:
        await line.hear("a", Number)
        await line.hear("a", Number)

    ledgers = rehearse({"a": a, "b": b}, KINDS).ledgers
    rows = [(row["peer"], row["phase"], row["sent_messages"]) for row in ledgers["a"].rows()]
    assert rows == [("b", "one", 1), ("b", "session", 1)]
    ledgers["b"].waited("a", "session", 1.5)
    assert ledgers["b"].rows()[0]["waited_s"] == 1.5
    assert ledgers["b"].rows()[0]["received_messages"] == 2
