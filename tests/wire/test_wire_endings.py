from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import zmq
from wire_messages import Foreign, Matrix, Number
from wire_network import Session, play

from vfl.errors import (
    ConfigError,
    Interrupted,
    PeerAborted,
    PeerTimeout,
    RemoteProtocolError,
    RoleError,
    VflError,
)
from vfl.wire.channel import Join, Waiting
from vfl.wire.codec import NO_SESSION, encode, open_envelope, stamp
from vfl.wire.line import Line
from vfl.wire.messages import Message
from vfl.wire.timing import Timing


def told(outcome: object) -> VflError:
    assert isinstance(outcome, VflError), outcome
    return outcome


async def idle(line: Line) -> None:
    return None


async def hear_the_hub(line: Line) -> int:
    return (await line.hear("label", Number)).n


async def hear_the_bank(line: Line) -> int:
    return (await line.hear("bank", Number)).n


def _raw(message: Message, version: int = 1, session: bytes = NO_SESSION, sequence: int = 0) -> list[bytes]:
    frames = stamp(
        encode(message, to="label", sender="bank"), session=session, sequence=sequence, acknowledged=0
    )
    header = bytes(frames[0])
    return [header[:3] + bytes([version]) + header[4:], *(bytes(frame) for frame in frames[1:])]


# --- how it ends when something is wrong ---------------------------------------------------------------


def test_a_silent_peer_is_a_timeout_and_everyone_learns_who() -> None:
    session = Session("label", "bank", "shop", timing=Timing(join_s=20, hear_s=1.0))
    stop = threading.Event()

    async def silent(line: Line) -> None:
        stop.wait(30)

    session.start("shop", silent)
    session.start("bank", hear_the_hub)

    async def label(line: Line) -> None:
        await line.hear("shop", Number)

    session.start("label", label)
    outcomes = session.join("label", "bank")
    stop.set()
    session.join()
    assert isinstance(outcomes["label"], PeerTimeout)
    assert "shop: has said nothing for 1 s" in str(outcomes["label"])
    assert isinstance(outcomes["bank"], PeerAborted)
    assert (outcomes["bank"].code, outcomes["bank"].culprit, outcomes["bank"].exit_code) == (
        "timeout",
        "shop",
        5,
    )


def test_a_party_that_waits_excuses_itself_to_those_who_wait_for_it() -> None:
    """The bank began to wait first, and would else blame the label party, which only waits too."""
    session = Session("label", "bank", "shop", timing=Timing(join_s=20, hear_s=1.5))
    begun, stop = threading.Event(), threading.Event()

    async def bank(line: Line) -> None:
        begun.set()
        await line.hear("label", Number)

    async def silent(line: Line) -> None:
        stop.wait(30)

    async def label(line: Line) -> None:
        begun.wait(20)
        await line.hear("shop", Number)

    for name, role in {"bank": bank, "shop": silent, "label": label}.items():
        session.start(name, role)
    outcomes = session.join("label", "bank")
    stop.set()
    session.join()
    assert "shop" in str(outcomes["label"])
    assert outcomes["bank"].culprit == "shop"


def test_a_party_that_never_joins_is_named() -> None:
    session = Session("label", "bank", "shop", timing=Timing(join_s=3.0))
    session.start("label", idle)
    session.start("bank", idle)
    outcomes = session.join()
    # Both have waited equally long: whoever gives up first tells the other.
    whys = [str(outcomes[name]) for name in ("label", "bank")]
    assert any("shop: has not joined for 3 s" in why for why in whys)
    assert all("shop" in why for why in whys)
    assert [told(outcomes[name]).exit_code for name in ("label", "bank")] == [5, 5]
    assert ("shop",) in session.waits["label"]


@pytest.mark.parametrize(
    ("fault", "code", "exit_code"),
    [
        (ConfigError("x"), "config", 8),
        (Interrupted("x"), "interrupted", 8),
        (ZeroDivisionError("x"), "failed", 8),
        (KeyboardInterrupt(), "interrupted", 8),
        (RemoteProtocolError("label", "x"), "protocol", 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_party_that_fails_tells_all_the_reason_and_nothing_else(
    fault: BaseException, code: str, exit_code: int
) -> None:
    async def bank(line: Line) -> None:
        raise fault

    roles = {"label": hear_the_bank, "bank": bank, "shop": hear_the_hub}
    outcomes = play(roles).outcomes
    culprit = "label" if code == "protocol" else "bank"
    for name, peer in (("label", "bank"), ("shop", "label")):
        error = outcomes[name]
        assert isinstance(error, PeerAborted)
        assert (error.peer, error.code, error.culprit, error.exit_code) == (peer, code, culprit, exit_code)
    assert type(outcomes["bank"]) is (Interrupted if code == "interrupted" else type(fault))


def test_what_a_peer_said_before_it_gave_up_is_still_heard() -> None:
    session = Session("label", "bank")
    heard: list[int] = []

    async def bank(line: Line) -> None:
        await line.say("label", Number(4))
        raise ConfigError("x")

    async def label(line: Line) -> None:
        session.join("bank")
        heard.append((await line.hear("bank", Number)).n)

    session.start("label", label)
    session.start("bank", bank)
    session.join()
    assert heard == [4]
    assert isinstance(session.outcomes["label"], PeerAborted)  # once there is nothing left to hear


def test_a_role_may_go_on_without_the_peer_that_it_lost() -> None:
    async def label(line: Line) -> str:
        with pytest.raises(PeerAborted):
            await line.hear("bank", Number)
        return "went on"

    async def bank(line: Line) -> None:
        raise ConfigError("x")

    # The run as a whole has failed all the same: `finish` says so.
    assert isinstance(play({"label": label, "bank": bank}).outcomes["label"], PeerAborted)


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_a_message_of_another_session_is_blamed_on_who_said_it(relayed: bool) -> None:
    async def bank(line: Line) -> None:
        await line.say("shop" if relayed else "label", Foreign(1))
        await line.hear("label", Number)

    roles = {"label": hear_the_bank, "bank": bank, "shop": hear_the_bank}
    outcomes = play(roles).outcomes
    error = outcomes["shop" if relayed else "label"]
    assert isinstance(error, RemoteProtocolError)
    assert "bank: said 'Foreign'" in str(error)
    assert {told(outcome).exit_code for outcome in outcomes.values()} == {6}


def test_a_message_of_another_kind_than_due_is_blamed_on_who_said_it() -> None:
    async def bank(line: Line) -> None:
        await line.say("label", Matrix(1, torch.zeros(1)))
        await line.hear("label", Number)

    outcomes = play({"label": hear_the_bank, "bank": bank}).outcomes
    assert str(outcomes["label"]) == "bank: said Matrix where Number was due"
    assert outcomes["bank"].culprit == "bank"


def test_who_has_ended_where_more_was_due_is_named() -> None:
    outcomes = play({"label": hear_the_bank, "bank": idle}).outcomes
    assert str(outcomes["label"]) == "bank: has ended its part where more was due"


def test_saying_to_a_stranger_is_the_roles_own_fault() -> None:
    async def label(line: Line) -> None:
        await line.say("club", Number(1))

    outcomes = play({"label": label, "bank": hear_the_hub}).outcomes
    assert isinstance(outcomes["label"], RoleError)
    assert outcomes["bank"].code == "failed"


def test_a_party_that_cannot_take_part_tells_the_others() -> None:
    session = Session("label", "bank", "shop")

    def decline() -> None:
        with session.link("bank") as link:
            link.decline("data", "bank", 20.0)

    session.start("label", hear_the_bank)
    session.start("shop", hear_the_hub)
    session.call("bank", decline)
    outcomes = session.join()
    assert (outcomes["label"].code, outcomes["label"].culprit) == ("data", "bank")
    assert (outcomes["shop"].code, outcomes["shop"].culprit) == ("data", "bank")


def test_a_hub_that_cannot_take_part_tells_the_others() -> None:
    session = Session("label", "bank")

    def decline() -> None:
        with session.link("label") as link:
            link.decline("data", "label", 20.0)

    session.start("bank", idle)
    session.call("label", decline)
    assert session.join()["bank"].culprit == "label"


def _rogue(session: Session, *messages: tuple[Any, int]) -> None:
    """Joins as the bank in clear text and says what no link would; answers with the session's name."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 2000
        socket.connect(session.address)
        socket.send_multipart(_raw(Join("bank", 0)))
        name = open_envelope(socket.recv_multipart(), "label").session
        for message, sequence in messages:
            if isinstance(message, bytes):
                socket.send(message)
            else:
                socket.send_multipart(_raw(message, session=name, sequence=sequence))
        session.join("label")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([(b"garbage" * 9, 0)], "no message of this framework"),
        ([(Number(1), 2)], "left out a message"),
        ([(Waiting(("x",)), 1)], "'Waiting', which is not part of this session"),
        ([(Number(1), 0)], "'Number', which is not part of this session"),
        ([(Matrix(1, torch.zeros(1)), 1)], "said Matrix where Number was due"),
    ],
    ids=["garbage", "gap", "a word with a number", "no number", "kind"],
)
def test_a_rogue_peer_ends_the_run_with_its_name(messages: list[Any], why: str) -> None:
    session = Session("label", "bank", curve=False)
    session.start("label", hear_the_bank)
    _rogue(session, *messages)
    error = told(session.outcomes["label"])
    assert isinstance(error, RemoteProtocolError)
    assert error.peer == "bank"
    assert why in error.why
