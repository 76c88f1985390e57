from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import zmq
from wire_messages import KINDS, Foreign, Matrix, Number
from wire_network import LOOPBACK, Session, play

from vfl.errors import (
    ConfigError,
    Interrupted,
    PeerAborted,
    PeerTimeout,
    Refused,
    RemoteProtocolError,
    RoleError,
    VflError,
)
from vfl.wire.channel import Abort, Join, Waiting
from vfl.wire.codec import NO_SESSION, encode, open_envelope, stamp
from vfl.wire.line import Line, Role
from vfl.wire.link import Link, Timing
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse
from vfl.wire.zeromq import Port, keys_from_secret, make_keys

N_STEPS = 20


async def hub_role(line: Line) -> torch.Tensor:
    """Adds what the spokes say and tells them the sum, step by step."""
    total = torch.zeros(8, 8)
    with line.during("training"):
        for step in range(N_STEPS):
            for peer in ("bank", "shop"):
                total = total + torch.tanh((await line.hear(peer, Matrix)).x)
            for peer in ("bank", "shop"):
                await line.say(peer, Matrix(step, total))
    return total


def spoke_role(seed: int) -> Role[Any]:
    async def role(line: Line) -> torch.Tensor:
        x = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
        other = "shop" if line.me == "bank" else "bank"
        for step in range(N_STEPS):
            await line.say("label", Matrix(step, x))
            reply = await line.hear("label", Matrix)
            assert reply.step == step
            x = x @ reply.x / 10
        with line.during("aside"):
            await line.say(other, Matrix(0, x))
            return x + (await line.hear(other, Matrix)).x

    return role


ROLES = {"label": hub_role, "bank": spoke_role(1), "shop": spoke_role(2)}


def told(outcome: object) -> VflError:
    assert isinstance(outcome, VflError), outcome
    return outcome


async def idle(line: Line) -> None:
    return None


async def hear_the_hub(line: Line) -> int:
    return (await line.hear("label", Number)).n


async def hear_the_bank(line: Line) -> int:
    return (await line.hear("bank", Number)).n


def counts(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    keys = ("peer", "phase", "sent_bytes", "sent_messages", "received_bytes", "received_messages")
    return sorted(tuple(row[key] for key in keys) for row in rows if row["phase"] != "relayed")


@pytest.mark.parametrize("curve", [True, False], ids=["CURVE", "clear"])
def test_results_and_ledgers_over_zeromq_are_those_of_a_rehearsal(curve: bool) -> None:
    expected = rehearse(ROLES, KINDS)
    session = play(ROLES, curve=curve)
    for name in ROLES:
        assert torch.equal(session.outcomes[name], expected.results[name])
        assert counts(session.links[name].ledger.rows()) == counts(expected.ledgers[name].rows())


def test_the_hub_books_what_it_relays() -> None:
    rows = play(ROLES).links["label"].ledger.rows()
    relayed = {row["peer"]: row for row in rows if row["phase"] == "relayed"}
    assert {name: (r["sent_messages"], r["received_messages"]) for name, r in relayed.items()} == {
        "bank": (1, 1),
        "shop": (1, 1),
    }


@pytest.mark.parametrize("order", list(itertools.permutations(ROLES)), ids="-".join)
def test_parties_may_start_in_any_order(order: tuple[str, ...]) -> None:
    session = play(ROLES, order=order)
    assert all(isinstance(session.outcomes[name], torch.Tensor) for name in ROLES)


def test_parties_may_start_before_the_hub_has_its_port() -> None:
    session = Session("label", "bank", curve=False)
    session.hub_port.close(0)
    session.start("bank", hear_the_hub)

    async def role(line: Line) -> None:
        await line.say("bank", Number(5))

    session.start("label", role, session.port("label", session.address))
    assert session.join()["bank"] == 5


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_both_may_say_a_thousand_messages_before_either_hears_one(relayed: bool) -> None:
    def talker(other: str) -> Role[Any]:
        async def role(line: Line) -> int:
            for n in range(1000):
                await line.say(other, Number(n))
            heard = [(await line.hear(other, Number)).n for _ in range(1000)]
            assert heard == list(range(1000))
            return sum(heard)

        return role

    roles = {"label": idle, "bank": talker("shop"), "shop": talker("bank")}
    if not relayed:
        roles = {"label": talker("bank"), "bank": talker("label")}
    session = play(roles)
    assert session.outcomes["bank"] == sum(range(1000))


def test_a_full_window_of_one_peer_does_not_hold_up_another() -> None:
    async def label(line: Line) -> int:
        await line.hear("shop", Number)  # the shop comes to it only after it has flooded the bank
        await line.say("bank", Number(1))
        return 1

    async def bank(line: Line) -> int:
        await line.hear("label", Number)
        return sum([(await line.hear("shop", Number)).n for _ in range(300)])

    async def shop(line: Line) -> None:
        for _ in range(300):
            await line.say("bank", Number(2))
        await line.say("label", Number(0))

    assert play({"label": label, "bank": bank, "shop": shop}).outcomes["bank"] == 600


def test_a_large_tensor_crosses_both_ways() -> None:
    async def label(line: Line) -> torch.Tensor:
        message = await line.hear("bank", Matrix)
        await line.say("bank", Matrix(1, message.x + 1))
        return message.x

    async def bank(line: Line) -> torch.Tensor:
        await line.say("label", Matrix(0, torch.arange(2**24, dtype=torch.float32)))  # 64 MiB
        return (await line.hear("label", Matrix)).x

    session = play({"label": label, "bank": bank})
    assert torch.equal(session.outcomes["bank"], torch.arange(2**24, dtype=torch.float32) + 1)


def test_all_that_was_said_arrives_although_its_sender_has_ended() -> None:
    async def bank(line: Line) -> None:
        for n in range(500):
            await line.say("label", Number(n))

    async def label(line: Line) -> list[int]:
        return [(await line.hear("bank", Number)).n for _ in range(500)]

    assert play({"label": label, "bank": bank}).outcomes["label"] == list(range(500))


def test_the_hub_relays_on_after_its_own_role_has_ended() -> None:
    async def bank(line: Line) -> int:
        total = 0
        for n in range(50):
            await line.say("shop", Number(n))
            total += (await line.hear("shop", Number)).n
        return total

    async def shop(line: Line) -> None:
        for _ in range(50):
            await line.say("bank", await line.hear("bank", Number))

    assert play({"label": idle, "bank": bank, "shop": shop}).outcomes["bank"] == sum(range(50))


# --- who may come in -----------------------------------------------------------------------------------


def test_a_stranger_is_refused_and_the_others_go_on() -> None:
    session = Session("label", "bank")
    keys = make_keys()

    async def label(line: Line) -> int:
        session.join("stranger")
        await line.say("bank", Number(3))
        return 1

    session.start("label", label)
    session.start("bank", hear_the_hub)
    session.start("bank", hear_the_hub, session.port("bank", keys=keys), alias="stranger")
    outcomes = session.join()
    assert isinstance(outcomes["stranger"], Refused)
    assert "does not know this key" in str(outcomes["stranger"])
    assert outcomes["bank"] == 3
    assert keys.public in session.strangers


def test_a_party_with_another_key_for_the_hub_is_told_to_check_it() -> None:
    session = Session("label", "bank")
    assert session.keys
    wrong = Port(
        session.address, hub=False, keys=session.keys["bank"], allowed={}, hub_key=make_keys().public
    )
    session.start("bank", idle, wrong)
    error = told(session.join()["bank"])
    assert isinstance(error, Refused)
    assert "its public key in the job" in str(error)
    session.hub_port.close(0)


def test_a_second_process_under_one_name_is_refused() -> None:
    session = Session("label", "bank")

    async def bank(line: Line) -> None:
        session.start("bank", idle, alias="twin")
        session.join("twin")
        await line.say("label", Number(3))

    session.start("label", hear_the_bank)
    session.start("bank", bank)
    outcomes = session.join("label", "bank")
    assert "already has a party named bank" in str(told(outcomes["twin"]))
    assert isinstance(outcomes["twin"], Refused)
    assert outcomes["label"] == 3


def test_a_listed_party_cannot_take_anothers_name() -> None:
    session = Session("label", "bank", "shop")
    assert session.keys
    session.start("bank", idle)
    session.start("label", idle)
    session.start("bank", idle, session.port("bank", keys=session.keys["shop"]), alias="thief")
    assert "knows this key as shop's" in str(told(session.join("thief")["thief"]))
    session.start("shop", idle)
    assert session.join()["label"] is None


def test_a_name_that_the_hub_does_not_know_is_refused() -> None:
    session = Session("label", "bank", curve=False)
    session.names = ("label", "bank", "club")
    session.start("club", idle)
    session.names = ("label", "bank")
    session.start("label", idle)
    assert "knows no party named club" in str(told(session.join("club")["club"]))
    session.start("bank", idle)
    assert session.join()["label"] is None


def test_a_strangers_garbage_in_clear_text_does_not_end_the_run() -> None:
    session = Session("label", "bank", curve=False)
    session.start("label", idle)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(session.address)
        for frames in ([b"x"], [b"", b""], [b"y" * 70_000], [b"VFL\x01" + bytes(60)] * 80):
            socket.send_multipart(frames)
            assert open_envelope(socket.recv_multipart(), "label").body.kind == "Abort"
    session.start("bank", idle)
    assert session.join() == {"label": None, "bank": None}
    assert len(session.strangers) == 4


def _raw(message: Message, version: int = 1, session: bytes = NO_SESSION, sequence: int = 0) -> list[bytes]:
    frames = stamp(
        encode(message, to="label", sender="bank"), session=session, sequence=sequence, acknowledged=0
    )
    header = bytes(frames[0])
    return [header[:3] + bytes([version]) + header[4:], *(bytes(frame) for frame in frames[1:])]


def test_another_wire_version_is_named_on_both_sides() -> None:
    session = Session("label", "bank")
    assert session.keys
    session.start("label", idle)
    keys = session.keys["bank"]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.curve_secretkey, socket.curve_publickey = keys.secret.encode(), keys.public.encode()
        socket.curve_serverkey = session.keys["label"].public.encode()
        socket.connect(session.address)
        socket.send_multipart(_raw(Join("bank", 0), version=2))
        answer = socket.recv_multipart()
    error = told(session.join()["label"])
    assert isinstance(error, RemoteProtocolError)
    assert "bank: speaks wire version 2, this side speaks 1" in str(error)
    assert answer[0][:4] == b"VFL\x01"

    session = Session("label", "bank", curve=False)
    session.hub_port.close(0)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        session.start("bank", idle, session.port("bank", f"tcp://127.0.0.1:{port}"))
        route = socket.recv_multipart()[0]
        socket.send_multipart([route, *_raw(Abort("protocol", "bank"), version=2)])
        assert "label: speaks wire version 2, this side speaks 1" in str(told(session.join()["bank"]))


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
    assert "shop: has not joined for 3 s" in str(outcomes["label"])
    assert isinstance(outcomes["label"], PeerTimeout)
    assert told(outcomes["bank"]).exit_code == 5
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


# --- ports and keys ------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    first = Port(LOOPBACK, hub=True, keys=None, allowed={})
    with pytest.raises(ConfigError, match="the port is in use; end the other process"):
        Port(first.address, hub=True, keys=None, allowed={})
    first.close(0)


@pytest.mark.parametrize(
    "address", ["nonsense", "tcp://127.0.0.1", "tcp://203.0.113.7:5555", "ftp://x:1", ""]
)
def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="address = "):
        Port(address, hub=True, keys=make_keys(), allowed={})


def test_a_key_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="'short' is no public key"):
        Port("tcp://127.0.0.1:9", hub=False, keys=make_keys(), allowed={}, hub_key="short")
    with pytest.raises(ConfigError, match=r"bank\.secret: holds no secret key"):
        keys_from_secret("short", "bank.secret")


def test_a_key_pair_is_completed_from_its_secret_half_and_hides_it() -> None:
    keys = make_keys()
    assert keys_from_secret(keys.secret, "x") == keys
    assert keys.secret not in repr(keys)


@dataclass(frozen=True, eq=False)
class Bye(Message):
    """Bears the name of one of the link's own words."""


def test_a_protocol_may_not_call_a_message_bye() -> None:
    port = Port(LOOPBACK, hub=True, keys=None, allowed={})
    with pytest.raises(RoleError, match="two kinds of message are called Bye"):
        Link(port, "label", "label", ["bank"], [Bye])
    port.close(0)
