from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import zmq
from wire_messages import KINDS, Matrix, Number
from wire_network import LOOPBACK, Session, play

from vfl.errors import (
    ConfigError,
    Refused,
    RemoteProtocolError,
    RoleError,
    VflError,
)
from vfl.wire.channel import Abort, Join
from vfl.wire.codec import NO_SESSION, encode, open_envelope, stamp
from vfl.wire.line import Line, Role
from vfl.wire.link import Link
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
