"""Parties that die in a rehearsal: who learns of it, when, and what is still heard."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from wire_messages import KINDS, Number

from vfl.errors import Deadlock, PeerAborted, PeerLost, RoleError
from vfl.wire.line import Line, Role
from vfl.wire.rehearse import Gone, rehearse


async def say_two_and_die(line: Line) -> None:
    await line.say("hub", Number(1))
    await line.say("hub", Number(2))
    raise Gone


async def idle(line: Line) -> None:
    return None


@pytest.mark.parametrize("hub", ["hub", None])
def test_what_was_said_before_is_heard_first_and_then_every_wait_ends_with_the_loss(hub: str | None) -> None:
    async def role(line: Line) -> list[Any]:
        heard: list[Any] = [(await line.hear("a", Number)).n, (await line.hear("a", Number)).n]
        for _ in range(3):
            with pytest.raises(PeerLost, match="a: its process has ended") as caught:
                await line.hear("a", Number)
            heard.append(caught.value.peer)
        await line.dismiss("a")
        await line.dismiss("a")
        return heard

    played = rehearse({"hub": role, "a": say_two_and_die}, KINDS, hub=hub)
    assert played.results == {"hub": [1, 2, "a", "a", "a"]}
    assert [said.message.n for said in played.transcript] == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["hub first", "hub last"])
def test_a_hub_learns_of_a_loss_while_it_waits_for_another_and_misses_nothing(order: str) -> None:
    async def role(line: Line) -> list[int]:
        await line.say("a", Number(0))
        with pytest.raises(PeerLost, match=r"^a: "):
            await line.hear("b", Number)
        await line.dismiss("a")
        await line.say("b", Number(0))
        return [(await line.hear("b", Number)).n for _ in range(100)]

    async def a(line: Line) -> None:
        await line.hear("hub", Number)
        raise Gone

    async def b(line: Line) -> None:
        await line.hear("hub", Number)
        for n in range(100):
            await line.say("hub", Number(n))

    roles = {"hub": role, "a": a, "b": b}
    roles = roles if order == "hub first" else dict(reversed(roles.items()))
    assert rehearse(roles, KINDS, hub="hub").results == {"b": None, "hub": list(range(100))}


def test_without_a_hub_a_loss_shows_only_to_those_who_wait_for_the_lost() -> None:
    async def b(line: Line) -> int:
        heard = (await line.hear("c", Number)).n
        with pytest.raises(PeerLost, match=r"^a: "):
            await line.hear_any(("c", "a"), Number)
        await line.dismiss("a")
        return heard

    async def c(line: Line) -> None:
        await line.say("b", Number(3))

    async def a(line: Line) -> None:
        raise Gone

    assert rehearse({"a": a, "b": b, "c": c}, KINDS).results == {"b": 3, "c": None}


def test_a_loss_that_no_role_survives_is_what_the_rehearsal_raises() -> None:
    async def role(line: Line) -> None:
        await line.hear("b", Number)

    with pytest.raises(PeerLost, match=r"^a: ") as caught:
        rehearse({"hub": role, "a": say_two_and_die, "b": idle}, KINDS, hub="hub")
    assert caught.value.__notes__ == ["in the role of hub"]


def test_a_spoke_learns_of_no_loss_but_the_hubs() -> None:
    async def die(line: Line) -> None:
        raise Gone

    async def hear_a(line: Line) -> None:
        await line.hear("a", Number)

    with pytest.raises(Deadlock, match=r"^nobody can go on: b waits for Number from a \(which has gone\)$"):
        rehearse({"hub": idle, "a": die, "b": hear_a}, KINDS, hub="hub")
    with pytest.raises(PeerLost, match=r"^hub: ") as caught:
        rehearse({"hub": die, "a": idle, "b": hear_a}, KINDS, hub="hub")
    assert caught.value.__notes__ == ["in the role of b"]


def test_what_is_said_to_the_lost_fills_a_window_and_is_in_no_ones_view() -> None:
    async def role(line: Line) -> int:
        said = 0
        with pytest.raises(PeerLost, match=r"^a: "):  # noqa: PT012 - which of them meets a full window is open
            for _ in range(1000):
                await line.say("a", Number(0))
                said += 1
        await line.dismiss("a")
        return said

    async def a(line: Line) -> None:
        await line.hear("hub", Number)
        raise Gone

    for hub in ("hub", None):
        played = rehearse({"hub": role, "a": a}, KINDS, hub=hub)
        assert 32 <= played.results["hub"] <= 65
        assert len(played.view("a")) <= 32  # what was said before it died


def test_others_go_on_speaking_to_a_party_that_was_dismissed_and_hear_what_it_said_before() -> None:
    async def role(line: Line) -> int:
        await line.hear("b", Number)
        await line.say("a", Number(0))
        with pytest.raises(PeerLost, match=r"^a: "):
            await line.hear("b", Number)
        await line.dismiss("a")
        return (await line.hear("b", Number)).n

    async def a(line: Line) -> None:
        await line.say("b", Number(5))
        await line.hear("hub", Number)
        raise Gone

    async def b(line: Line) -> int:
        await line.say("hub", Number(0))
        for _ in range(1000):
            await line.say("a", Number(1))
        await line.say("hub", Number(7))
        return (await line.hear("a", Number)).n

    played = rehearse({"hub": role, "a": a, "b": b}, KINDS, hub="hub")
    assert played.results == {"hub": 7, "b": 5}
    assert played.ledgers["b"].entries["a", "session"].sent_messages == 1000


def test_what_the_lost_said_and_nobody_heard_is_forgotten_with_it() -> None:
    async def role(line: Line) -> list[str]:
        await line.say("b", Number(0))
        await line.hear("b", Number)
        await line.dismiss("a")
        await line.say("b", Number(0))
        why = []
        for senders in (("a",), ("b", "a")):
            try:
                await line.hear_any(senders, Number)
            except RoleError as error:
                why.append(str(error))
        return why

    async def b(line: Line) -> None:
        for _ in range(2):
            await line.hear("hub", Number)
            await line.say("hub", Number(0))

    with pytest.raises(RoleError, match="hub would say to or hear 'a', whom it has dismissed"):
        rehearse({"hub": role, "a": say_two_and_die, "b": b}, KINDS, hub="hub")

    async def say_to_it(line: Line) -> None:
        await line.dismiss("a")
        await line.say("a", Number(0))

    with pytest.raises(RoleError, match="hub would say to or hear 'a', whom it has dismissed"):
        rehearse({"hub": say_to_it, "a": idle}, KINDS)


@pytest.mark.parametrize("whom", ["hub", "nobody"])
def test_only_a_peer_can_be_dismissed(whom: str) -> None:
    async def role(line: Line) -> None:
        await line.dismiss(whom)

    with pytest.raises(RoleError, match=f"hub would dismiss '{whom}', who is no peer"):
        rehearse({"hub": role, "a": idle}, KINDS)


def test_a_party_that_gives_up_says_why_when_it_plays_an_interruption() -> None:
    async def role(line: Line) -> tuple[str, str]:
        with pytest.raises(PeerAborted) as caught:
            await line.hear("a", Number)
        await line.dismiss("a")
        return caught.value.code, caught.value.about

    async def a(line: Line) -> None:
        raise Gone("interrupted")

    assert rehearse({"hub": role, "a": a}, KINDS, hub="hub").results == {"hub": ("interrupted", "a")}


def test_a_party_that_was_dismissed_while_it_was_there_may_tidy_up_before_it_ends() -> None:
    cleared: list[str] = []

    async def role(line: Line) -> None:
        await line.say("b", Number(1))  # is not heard any more
        await line.dismiss("a")
        await line.dismiss("b")

    async def a(line: Line) -> None:
        try:
            await line.hear("b", Number)
        finally:
            cleared.append("a")

    async def b(line: Line) -> str:
        for _ in range(100):
            await line.say("hub", Number(1))
        try:
            await line.hear("hub", Number)
        except PeerAborted as error:
            return error.code
        return "heard"

    played = rehearse({"hub": role, "a": a, "b": b}, KINDS, hub="hub")
    assert played.results == {"hub": None, "b": "dismissed"}
    assert cleared == ["a"]
    assert [said.to for said in played.transcript] == ["b"]


async def draw_with_whoever_is_there(line: Line) -> list[float]:
    names = ["a", "b", "c"]
    numbers = []
    for step in range(20):
        for name in tuple(names):
            await line.say(name, Number(step))
        while True:
            try:
                numbers.append(float((await line.hear_any(names, Number))[1].n))
                break
            except PeerLost as error:
                names.remove(error.peer)
                await line.dismiss(error.peer)
        numbers.append(torch.rand(1).item())
    return numbers


async def draw_and_perhaps_die(line: Line) -> float:
    for step in range(20):
        await line.hear("hub", Number)
        if line.me == "b" and step == 7:
            torch.rand(3)
            raise Gone
        await line.say("hub", Number(int(torch.randint(1000, (1,)))))
    return torch.rand(1).item()


def test_a_rehearsal_with_a_loss_comes_out_alike_each_time_and_changes_no_random_state() -> None:
    roles: dict[str, Role[Any]] = {
        "hub": draw_with_whoever_is_there,
        **dict.fromkeys("abc", draw_and_perhaps_die),
    }

    def numbers() -> tuple[Any, list[tuple[str, str, int]]]:
        played = rehearse(roles, KINDS, hub="hub")
        return played.results, [(said.sender, said.to, said.message.n) for said in played.transcript]  # type: ignore[attr-defined]

    before = torch.get_rng_state()
    results, transcript = numbers()
    assert torch.equal(torch.get_rng_state(), before)
    assert set(results) == {"hub", "a", "c"}
    assert (results, transcript) == numbers()
