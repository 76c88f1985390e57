"""A hub that goes on without a party that vanished: the same in a rehearsal and over real sockets."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from test_wire_faults import FAST, bank_process
from wire_messages import KINDS, Matrix, Number
from wire_network import Session, Way

from vfl.errors import Interrupted, PeerAborted, PeerLost
from vfl.wire.channel import WINDOW_MESSAGES
from vfl.wire.line import Line, Role
from vfl.wire.messages import Message
from vfl.wire.rehearse import Gone, rehearse
from vfl.wire.timing import Timing

M = TypeVar("M", bound=Message)
Roles = dict[str, Role[Any]]
Vanish = Callable[[], None]

SHORT = Timing(join_s=20, hear_s=20, reconnect_s=0.5, heartbeat_s=1)
LONG = Timing(join_s=20, hear_s=20, reconnect_s=15, heartbeat_s=1)
N_STEPS = 30
#: More than a party that waits for someone else takes in unheard (1,024) and a window together.
MANY = 1300


async def say(line: Line, lost: list[str], to: str, message: Message) -> None:
    """Says a message, as often as it takes; notes and dismisses whoever is missed."""
    while to not in lost:
        try:
            return await line.say(to, message)
        except PeerLost as error:
            await dismiss(line, lost, error)


async def hear(line: Line, lost: list[str], sender: str, kind: type[M]) -> M | None:
    """Hears a party, unless it is the one that is missed."""
    while sender not in lost:
        try:
            return await line.hear(sender, kind)
        except PeerLost as error:
            await dismiss(line, lost, error)
    return None


async def dismiss(line: Line, lost: list[str], error: PeerLost) -> None:
    lost.append(error.peer)
    await line.dismiss(error.peer)


# --- scenes that both drivers play ----------------------------------------------------------------------


def a_spoke_dies_in_the_middle(vanish: Vanish) -> Roles:
    spokes = ("bank", "shop", "club")

    async def label(line: Line) -> tuple[list[str], list[list[str]], torch.Tensor]:
        lost: list[str] = []
        took_part = []
        w = torch.eye(8)
        for step in range(N_STEPS):
            for name in spokes:
                await say(line, lost, name, Matrix(step, w))
            heard = {name: await hear(line, lost, name, Matrix) for name in spokes}
            parts = {name: message for name, message in heard.items() if message is not None}
            assert {message.step for message in parts.values()} == {step}
            w = torch.tanh(w + torch.stack([message.x for message in parts.values()]).sum(0))
            took_part.append(sorted(parts))
        return lost, took_part, w

    async def spoke(line: Line) -> torch.Tensor:
        x = torch.full((8, 8), {"bank": 0.1, "shop": 0.2, "club": 0.3}[line.me])
        for step in range(N_STEPS):
            message = await line.hear("label", Matrix)
            assert message.step == step
            if line.me == "bank" and step == 10:
                vanish()
            x = torch.sin(x + message.x)
            await line.say("label", Matrix(step, x))
        return x

    return {"label": label, **dict.fromkeys(spokes, spoke)}


def a_loss_shows_while_another_is_awaited(vanish: Vanish) -> Roles:
    async def label(line: Line) -> tuple[list[str], list[int]]:
        await line.say("bank", Number(0))
        lost: list[str] = []
        try:
            await line.hear("shop", Number)
        except PeerLost as error:
            await dismiss(line, lost, error)
        await line.say("shop", Number(1))  # the shop was waiting for it: nothing can have been heard above
        return lost, [(await line.hear("shop", Number)).n for _ in range(100)]

    async def bank(line: Line) -> None:
        await line.hear("label", Number)
        vanish()

    async def shop(line: Line) -> str:
        await line.hear("label", Number)
        for n in range(100):
            await line.say("label", Number(n))
        return "said"

    return {"label": label, "bank": bank, "shop": shop}


def a_loss_shows_while_a_window_is_full(to: str) -> Callable[[Vanish], Roles]:
    def scene(vanish: Vanish) -> Roles:
        async def label(line: Line) -> list[str]:
            await line.say("bank", Number(0))
            n = 0
            with pytest.raises(PeerLost) as caught:  # noqa: PT012 - which of them meets a full window is open
                while n < MANY:
                    await line.say(to, Number(n))
                    n += 1
            await line.dismiss(caught.value.peer)
            await line.say("club", Number(0))  # only now does the shop begin to hear
            for again in range(n, MANY if to == "shop" else n):
                await line.say(to, Number(again))
            return [caught.value.peer]

        async def bank(line: Line) -> None:
            await line.hear("label", Number)
            vanish()

        async def shop(line: Line) -> list[int]:
            await line.hear("club", Number)
            return [(await line.hear("label", Number)).n for _ in range(MANY if to == "shop" else 0)]

        async def club(line: Line) -> str:
            await line.hear("label", Number)
            await line.say("shop", Number(0))
            return "said"

        return {"label": label, "bank": bank, "shop": shop, "club": club}

    return scene


def others_speak_with_the_lost(vanish: Vanish) -> Roles:
    async def label(line: Line) -> tuple[list[str], int]:
        lost: list[str] = []
        await line.hear("shop", Number)
        await line.say("bank", Number(0))
        assert (await hear(line, lost, "shop", Number)) is not None
        await hear(line, lost, "bank", Number)
        await line.say("shop", Number(0))
        return lost, (await line.hear("shop", Number)).n

    async def bank(line: Line) -> None:
        await line.say("shop", Number(5))
        await line.say("shop", Number(6))
        await line.hear("label", Number)
        vanish()

    async def shop(line: Line) -> list[int]:
        heard = [(await line.hear("bank", Number)).n]
        await line.say("label", Number(-1))
        for n in range(3 * WINDOW_MESSAGES):  # no window has room for them
            await line.say("bank", Number(n))
        await line.say("label", Number(n))
        await line.hear("label", Number)
        for n in range(3 * WINDOW_MESSAGES):
            await line.say("bank", Number(n))
        await line.say("label", Number(n))
        heard.append((await line.hear("bank", Number)).n)  # was passed on before the loss
        return heard

    return {"label": label, "bank": bank, "shop": shop}


def two_die_at_once(vanish: Vanish) -> Roles:
    async def label(line: Line) -> tuple[list[str], int]:
        lost: list[str] = []
        for name in ("bank", "club"):
            await line.say(name, Number(0))
        while len(lost) < 2:
            try:
                await line.hear_any([name for name in ("bank", "club", "shop") if name not in lost], Number)
            except PeerLost as error:
                await dismiss(line, lost, error)
        await line.say("shop", Number(0))
        return sorted(lost), (await line.hear("shop", Number)).n

    async def dying(line: Line) -> None:
        await line.hear("label", Number)
        vanish()

    async def shop(line: Line) -> None:
        await line.hear("label", Number)
        await line.say("label", Number(7))

    return {"label": label, "bank": dying, "club": dying, "shop": shop}


SCENES = {
    "in the middle": a_spoke_dies_in_the_middle,
    "another is awaited": a_loss_shows_while_another_is_awaited,
    "a window to another is full": a_loss_shows_while_a_window_is_full("shop"),
    "a window to the lost is full": a_loss_shows_while_a_window_is_full("bank"),
    "others speak with the lost": others_speak_with_the_lost,
    "two at once": two_die_at_once,
}


def vanish_in_a_rehearsal() -> None:
    raise Gone


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - whatever roles return
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize("curve", [True, False], ids=["CURVE", "clear"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=list(SCENES))
def test_the_others_go_on_over_a_network_as_in_a_rehearsal(
    scene: Callable[[Vanish], Roles], curve: bool
) -> None:
    rehearsed = rehearse(scene(vanish_in_a_rehearsal), KINDS, hub="label")
    session = Session(*scene(vanish_in_a_rehearsal), curve=curve, timing=SHORT)
    ways = {name: Way(session.address) for name in session.names if name not in rehearsed.results}
    assert ways
    gone_at: list[float] = []

    def vanish() -> None:
        ways[threading.current_thread().name].close()
        gone_at.append(time.monotonic())
        raise Gone

    for name, role in scene(vanish).items():
        session.start(name, role, session.port(name, ways[name].address) if name in ways else None)
    outcomes = session.join()
    for name, result in rehearsed.results.items():
        assert same(outcomes[name], result), (name, outcomes[name], result)
    assert all(isinstance(outcomes[name], Gone) for name in ways)
    assert time.monotonic() - gone_at[0] < 10


@pytest.mark.parametrize("fault", [Interrupted("x"), KeyboardInterrupt()], ids=["signal", "Ctrl-C"])
def test_the_others_go_on_without_a_party_that_was_interrupted(fault: BaseException) -> None:
    def vanish() -> None:
        raise fault

    def vanish_here() -> None:
        raise Gone("interrupted")

    def scene(vanish: Vanish) -> Roles:
        async def label(line: Line) -> tuple[str, int]:
            await line.say("bank", Number(0))
            with pytest.raises(PeerAborted) as caught:
                await line.hear("shop", Number)
            await line.dismiss("bank")
            await line.say("shop", Number(0))
            return f"{caught.value.code}: {caught.value}", (await line.hear("shop", Number)).n

        async def bank(line: Line) -> None:
            await line.hear("label", Number)
            vanish()

        async def shop(line: Line) -> None:
            await line.hear("label", Number)
            await line.say("label", Number(3))

        return {"label": label, "bank": bank, "shop": shop}

    rehearsed = rehearse(scene(vanish_here), KINDS, hub="label").results
    session = Session("label", "bank", "shop", timing=SHORT)
    for name, role in scene(vanish).items():
        session.start(name, role)
    outcomes = session.join()
    assert outcomes["label"] == rehearsed["label"]
    assert outcomes["label"] == ("interrupted: bank: ended the run: it was interrupted (bank)", 3)
    assert outcomes["shop"] is None
    assert isinstance(outcomes["bank"], Interrupted)


# --- what becomes of the lost one -----------------------------------------------------------------------


async def go_on_with_the_shop(line: Line) -> int:
    """Is the label party that loses the bank and hears the shop once the bank's fate is known."""
    while True:
        try:
            await line.hear("bank", Number)
        except PeerLost:
            break
    await line.dismiss("bank")
    await line.say("shop", Number(0))
    return (await line.hear("shop", Number)).n


def told_so(error: object) -> None:
    assert isinstance(error, PeerAborted), error
    assert str(error) == "label: goes on without this party, which was away too long"
    assert (error.code, error.exit_code, error.about) == ("dismissed", 4, "bank")


@pytest.mark.parametrize("curve", [True, False], ids=["CURVE", "clear"])
def test_a_party_that_comes_back_too_late_is_told(curve: bool) -> None:
    session = Session("label", "bank", "shop", curve=curve, timing=SHORT)
    way = Way(session.address)

    async def bank(line: Line) -> None:
        await line.say("label", Number(1))
        way.close()
        await line.hear("label", Number)

    async def shop(line: Line) -> None:
        await line.hear("label", Number)
        way.open()
        session.join("bank")
        await line.say("label", Number(4))

    session.start("label", go_on_with_the_shop)
    session.start("shop", shop)
    session.start("bank", bank, session.port("bank", way.address), timing=LONG)
    outcomes = session.join()
    told_so(outcomes["bank"])
    assert outcomes["label"] == 4
    assert outcomes["shop"] is None


def test_a_process_that_was_killed_is_done_without_and_its_successor_is_told() -> None:
    session = Session("label", "bank", "shop", timing=FAST)
    process = bank_process(session)
    killed_at: list[float] = []

    async def label(line: Line) -> int:
        for step in range(5):
            await line.hear("bank", Number)
            await line.say("bank", Number(step))
        process.send_signal(signal.SIGKILL)
        killed_at.append(time.monotonic())
        return await go_on_with_the_shop(line)

    async def bank_again(line: Line) -> None:
        raise AssertionError("nobody may take the place of a party that was dismissed")

    async def shop(line: Line) -> None:
        await line.hear("label", Number)
        assert time.monotonic() - killed_at[0] < 8
        session.start("bank", bank_again, alias="bank again")
        session.join("bank again")
        await line.say("label", Number(4))

    session.start("shop", shop)
    session.start("label", label)
    outcomes = session.join("shop", "label")
    process.communicate(timeout=20)
    told_so(outcomes["bank again"])
    assert outcomes["label"] == 4
    assert outcomes["shop"] is None


def test_a_party_that_is_dismissed_while_it_is_there_is_told_at_once() -> None:
    def scene(stop: Callable[[], object]) -> Roles:
        async def label(line: Line) -> str:
            await line.dismiss("bank")
            stop()
            return "went on"

        async def bank(line: Line) -> None:
            await line.hear("label", Number)

        return {"label": label, "bank": bank}

    rehearsed = rehearse(scene(lambda: None), KINDS, hub="label").results
    assert rehearsed == {"label": "went on"}
    session = Session("label", "bank", timing=SHORT)
    told = threading.Event()
    for name, role in scene(lambda: told.wait(20)).items():
        session.start(name, role)
    told_so(session.join("bank")["bank"])  # before the hub has ended
    told.set()
    assert session.join()["label"] == "went on"
