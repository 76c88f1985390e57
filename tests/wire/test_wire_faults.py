"""Links that are cut, blackholed or lose their process, over a real way between real sockets."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from wire_messages import KINDS, Matrix, Number
from wire_network import Session, Way

from vfl.errors import Interrupted, PeerAborted, PeerLost
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse
from vfl.wire.timing import Timing

N_STEPS = 60
FAST = Timing(join_s=20, hear_s=20, reconnect_s=2, heartbeat_s=1)
FORGIVING = Timing(join_s=20, hear_s=30, reconnect_s=15, heartbeat_s=1)


async def label_role(line: Line) -> torch.Tensor:
    w = torch.eye(16)
    for step in range(N_STEPS):
        message = await line.hear("bank", Matrix)
        assert message.step == step
        w = torch.tanh(w + message.x @ w / 10)
        await line.say("bank", Matrix(step, w))
    return w


async def bank_role(line: Line) -> torch.Tensor:
    x = torch.arange(256, dtype=torch.float32).reshape(16, 16) / 256
    for step in range(N_STEPS):
        await line.say("label", Matrix(step, x))
        message = await line.hear("label", Matrix)
        assert message.step == step
        x = torch.sin(x + message.x)
    return x


async def for_ever(line: Line) -> None:
    other = "label" if line.me == "bank" else "bank"
    while True:
        await line.say(other, Number(1))
        await line.hear(other, Number)


async def hear_the_hub(line: Line) -> None:
    await line.hear("label", Number)


@pytest.mark.parametrize("curve", [True, False], ids=["CURVE", "clear"])
def test_several_cuts_cost_no_message_and_no_duplicate(curve: bool) -> None:
    expected = rehearse({"label": label_role, "bank": bank_role}, KINDS).results
    session = Session("label", "bank", curve=curve, timing=FORGIVING)
    way = Way(session.address)

    async def cutting(line: Line) -> torch.Tensor:
        x = torch.arange(256, dtype=torch.float32).reshape(16, 16) / 256
        for step in range(N_STEPS):
            await line.say("label", Matrix(step, x))
            if step % 20 == 10:
                way.cut()
            message = await line.hear("label", Matrix)
            assert message.step == step
            x = torch.sin(x + message.x)
        return x

    session.start("label", label_role)
    session.start("bank", cutting, session.port("bank", way.address))
    outcomes = session.join()
    assert torch.equal(outcomes["bank"], expected["bank"])
    assert torch.equal(outcomes["label"], expected["label"])
    assert way.connections >= 3


def test_a_link_that_is_cut_for_a_second_under_full_windows_loses_nothing() -> None:
    session = Session("label", "bank", timing=FORGIVING)
    way = Way(session.address)

    async def label(line: Line) -> list[int]:
        heard = []
        for n in range(600):
            await line.say("bank", Number(n))
            if n in (150, 400):
                way.close()
                threading.Timer(1.0, way.open).start()
            heard.append((await line.hear("bank", Number)).n)
        return heard

    async def bank(line: Line) -> list[int]:
        for n in range(600):
            await line.say("label", Number(n))
        return [(await line.hear("label", Number)).n for _ in range(600)]

    session.start("label", label)
    session.start("bank", bank, session.port("bank", way.address))
    outcomes = session.join()
    assert outcomes["label"] == outcomes["bank"] == list(range(600))


@pytest.mark.parametrize("restored", [True, False], ids=["for a moment", "for good"])
def test_a_way_that_swallows_everything(restored: bool) -> None:
    session = Session("label", "bank", timing=FAST)
    way = Way(session.address)
    swallowed_at: list[float] = []

    async def label(line: Line) -> str:
        await line.hear("bank", Number)
        way.swallow()
        swallowed_at.append(time.monotonic())
        if restored:
            way.restore()
        else:
            way.refuse_newcomers()
        await line.say("bank", Number(2))
        await line.hear("bank", Number)
        return "all heard"

    async def bank(line: Line) -> str:
        await line.say("label", Number(1))
        await line.hear("label", Number)
        await line.say("label", Number(3))
        return "all heard"

    session.start("label", label)
    session.start("bank", bank, session.port("bank", way.address))
    outcomes = session.join()
    if restored:
        assert outcomes["label"] == outcomes["bank"] == "all heard"
    else:
        assert isinstance(outcomes["label"], PeerLost)
        assert isinstance(outcomes["bank"], PeerLost)
        assert time.monotonic() - swallowed_at[0] < 8  # 2.5 + 2, the last word's second, a loaded machine


CHILD = """
import sys
sys.path.insert(0, {folder!r})
from test_wire_faults import FAST, KINDS, for_ever
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.zeromq import KeyPair, Port
port = Port({address!r}, hub=False, keys=KeyPair({public!r}, {secret!r}), allowed={{}}, hub_key={hub!r})
perform(for_ever, Link(port, "bank", "label", ["label", "shop"], KINDS, timing=FAST))
"""


def bank_process(session: Session) -> subprocess.Popen[bytes]:
    assert session.keys
    keys = session.keys["bank"]
    folder = str(Path(__file__).parent)
    script = CHILD.format(
        folder=folder,
        address=session.address,
        public=keys.public,
        secret=keys.secret,
        hub=session.keys["label"].public,
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)


def with_a_bank_process(number: signal.Signals) -> tuple[Session, float, str]:
    """Runs a session whose bank is a process that gets a signal in the middle; returns it and the delay."""
    session = Session("label", "bank", "shop", timing=FAST)
    process = bank_process(session)
    killed_at: list[float] = []

    async def label(line: Line) -> None:
        for step in range(10**6):
            await line.hear("bank", Number)
            await line.say("bank", Number(step))
            if step == 5:
                process.send_signal(number)
                killed_at.append(time.monotonic())

    session.start("shop", hear_the_hub)
    session.start("label", label)
    session.join()
    delay = time.monotonic() - killed_at[0]
    if process.poll() is None and number is signal.SIGSTOP:
        process.kill()
    stderr = process.communicate(timeout=20)[1].decode()
    return session, delay, stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_process_that_is_gone_is_lost_in_seconds_and_all_learn_who(
    number: signal.Signals,
) -> None:
    session, delay, _ = with_a_bank_process(number)
    assert isinstance(session.outcomes["label"], PeerLost)
    assert session.outcomes["label"].peer == "bank"
    error = session.outcomes["shop"]
    assert isinstance(error, PeerAborted)
    assert (error.code, error.culprit, error.exit_code) == ("lost", "bank", 4)
    assert delay < 8  # 4.5 by the clock of an idle machine


def test_ctrl_c_ends_the_run_for_everyone() -> None:
    session, _, stderr = with_a_bank_process(signal.SIGINT)
    assert Interrupted.__name__ in stderr
    assert (session.outcomes["label"].code, session.outcomes["label"].culprit) == ("interrupted", "bank")
    assert session.outcomes["shop"].culprit == "bank"
