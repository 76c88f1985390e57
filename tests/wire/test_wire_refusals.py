"""What a link refuses from a neighbour that is who it says and says what it must not."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import torch
from wire_scripted import Hub, Load, ScriptedPort, Word

from vfl.errors import PeerTimeout, RemoteProtocolError
from vfl.wire.channel import WINDOW_MESSAGES, Bye, Join, Waiting
from vfl.wire.codec import NO_SESSION, encode, open_envelope, stamp
from vfl.wire.handshake import KINDS, Hello, agree
from vfl.wire.inbox import MOST_MESSAGES
from vfl.wire.line import Line
from vfl.wire.link import Link
from vfl.wire.rehearse import rehearse
from vfl.wire.timing import Timing
from vfl.wire.zeromq import Arrival, Port


def test_a_word_of_this_session_is_heard() -> None:
    hub = Hub()
    hub.arrives(Word(3))
    sender, word = hub.link.hear(["mean"], "train")
    assert sender == "mean"
    assert isinstance(word, Word)
    assert word.step == 3


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sender": "worst"}, "speaks in the name of 'worst'"),
        ({"sender": "nobody"}, "speaks in the name of 'nobody'"),
        ({"to": "nobody"}, "speaks to 'nobody', who is no peer"),
        ({"to": "mean"}, "speaks to 'mean', who is no peer"),
        ({"session": b"another session!"}, "speaks of another session"),
        ({"sequence": 2}, "left out a message"),
    ],
    ids=["another's name", "no one's name", "to nobody", "to itself", "another session", "a number left out"],
)
def test_a_neighbour_that_breaks_the_links_rules_is_named(changed: dict[str, Any], why: str) -> None:
    hub = Hub()
    hub.arrives(Word(1), **changed)
    with pytest.raises(RemoteProtocolError, match=why) as caught:
        hub.link.hear(["mean"], "train")
    assert caught.value.peer == "mean"


def test_another_key_over_a_known_route_is_not_taken_for_its_former_owner() -> None:
    hub = Hub()
    hub.arrives(Word(1), key="worst")
    hub.arrives(Word(2))
    _, word = hub.link.hear(["mean"], "train")
    assert isinstance(word, Word)
    assert word.step == 2


def test_fewer_tensors_than_the_kind_has_are_refused() -> None:
    hub = Hub()
    load = encode(Load(1, torch.ones(2)), to="label", sender="mean")
    without = encode(Word(1), to="label", sender="mean")
    renamed = bytes(without[0]).replace(b"Word", b"Load")
    assert bytes(load[0]).count(b"Load") == 1
    frames = stamp([renamed], session=hub.neighbours.session, sequence=1, acknowledged=0)
    hub.port.arriving.append(Arrival(b"mean", "mean", frames))
    with pytest.raises(RemoteProtocolError, match="mean: sent 0 tensors in Load, which has 1"):
        hub.link.hear(["mean"], "train")


def test_a_party_cannot_say_bye_for_the_hub() -> None:
    port = ScriptedPort()
    link = Link(cast(Port, port), "mean", "label", ["label", "worst"], [Word], timing=Timing(hear_s=0.5))
    neighbours = link._neighbours
    neighbours.open, neighbours.session = True, b"s" * 16
    neighbours.channels["label"].route = b""
    frames = encode(Bye(), to="mean", sender="worst")
    port.arriving.append(Arrival(b"", None, stamp(frames, session=b"s" * 16, sequence=1, acknowledged=0)))
    with pytest.raises(RemoteProtocolError, match="worst: says Bye through another party"):
        link.hear(["label"], "train")


def test_a_neighbour_that_does_not_wait_for_room_is_named() -> None:
    hub = Hub()
    for sequence in range(1, WINDOW_MESSAGES + 3):
        hub.arrives(Word(sequence), sequence=sequence)
    with pytest.raises(RemoteProtocolError, match="mean: sends more than there is room for"):
        hub.link.hear(["worst"], "train")


def test_a_full_inbox_asks_for_no_more() -> None:
    hub = Hub()
    hub.arrives(Word(1))
    with pytest.raises(PeerTimeout):
        hub.link.hear(["worst"], "train")
    told = len(hub.port.sent)
    for _ in range(MOST_MESSAGES):
        hub.link._inbox.put("mean", Word(1), 10)
    hub.arrives(Word(2), sequence=2)
    with pytest.raises(PeerTimeout):
        hub.link.hear(["worst"], "train")
    assert not [frames for frames in hub.port.sent[told:] if open_envelope(frames, "label").acknowledged == 2]


@pytest.mark.parametrize("names", [(), ("label",), ("worst",)], ids=["nobody", "us", "another"])
def test_waiting_for_others_is_no_excuse_without_end(names: tuple[str, ...]) -> None:
    hub = Hub()
    hub.port.otherwise = hub.arrives(Waiting(names), sequence=0)
    started = time.monotonic()
    with pytest.raises(PeerTimeout, match="mean: has said nothing"):
        hub.link.hear(["mean"], "train")
    assert time.monotonic() - started < 10


def test_a_stranger_is_not_told_the_name_of_the_session() -> None:
    hub = Hub()
    hub.arrives(Join("nobody", 0), sequence=0, session=NO_SESSION, key=None, route=b"stranger")
    hub.arrives(Word(1))
    hub.link.hear(["mean"], "train")
    (refusal,) = hub.port.sent
    assert open_envelope(refusal, "label").session == NO_SESSION


def test_a_party_that_has_come_back_is_not_given_up_because_others_spoke_first() -> None:
    hub = Hub()
    hub.neighbours.channels["mean"].lost_at = time.monotonic() - 60
    worst = stamp(
        encode(Word(7), to="label", sender="worst"),
        session=hub.neighbours.session,
        sequence=1,
        acknowledged=0,
    )
    hub.port.arriving.append(Arrival(b"worst", "worst", worst))
    hub.arrives(Join("mean", 0), sequence=0, route=b"mean again")
    hub.arrives(Word(8), route=b"mean again")
    _, word = hub.link.hear(["mean"], "train")
    assert isinstance(word, Word)
    assert word.step == 8


@pytest.mark.parametrize("nonce", [b"", bytes(65)], ids=["none", "too long"])
def test_a_hub_whose_nonce_is_no_nonce_is_named(nonce: bytes) -> None:
    async def hub(line: Line) -> None:
        await line.say("mean", Hello("{}", nonce))
        await line.hear("mean", Hello)

    async def mean(line: Line) -> None:
        await agree(line, "label", ["label"], {}, b"")

    with pytest.raises(RemoteProtocolError, match=r"label: sent a nonce of \d+ bytes"):
        rehearse({"label": hub, "mean": mean}, KINDS)
