"""What a hub still does for a party that it has dismissed: nothing but to tell it so."""

from __future__ import annotations

from typing import Any

import pytest
from wire_messages import KINDS, Number
from wire_network import Session
from wire_scripted import Hub, Word

from vfl.errors import PeerAborted, RoleError
from vfl.wire.channel import WINDOW_MESSAGES, Abort, Ack, Bye, Join
from vfl.wire.codec import NO_SESSION, Buffer, Envelope, decode, open_envelope
from vfl.wire.joining import CONTROL_KINDS
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse


def words_to(hub: Hub, name: str) -> list[tuple[bytes, Any]]:
    """Returns what the hub has sent to a party of the link's own words: each one's session and itself."""
    words = [e for e in map(opened, hub.port.sent) if e.to == name and e.sequence == 0]
    return [(word.session, decode(word, CONTROL_KINDS, "label")) for word in words]


def opened(frames: list[Buffer]) -> Envelope:
    return open_envelope(frames, "label")


def test_nothing_is_said_to_or_heard_of_a_party_that_was_dismissed() -> None:
    hub = Hub()
    hub.arrives(Word(1))
    hub.arrives(Word(2), sequence=2)
    hub.link.hear(["mean"], "train")
    hub.arrives(Word(9), sender="worst", key="worst", route=b"worst")
    hub.link.hear(["worst"], "train")  # takes in the second word of mean on its way
    hub.link.dismiss("mean")
    with pytest.raises(RoleError, match="label would say Word to 'mean', whom it has dismissed"):
        hub.link.say("mean", Word(1), "train")
    for senders in (["mean"], ["worst", "mean"]):
        with pytest.raises(RoleError, match="label would hear 'mean', whom it has dismissed"):
            hub.link.hear(senders, "train")
    assert hub.link._inbox.take(["mean"]) is None
    assert hub.link.peers == ("worst",)
    hub.link.dismiss("mean")  # once more changes nothing
    assert [word.about for _, word in words_to(hub, "mean") if isinstance(word, Abort)] == ["mean"]


def test_only_a_hub_dismisses_and_only_a_peer() -> None:
    hub = Hub()
    with pytest.raises(RoleError, match="label would dismiss 'nobody', who is no peer"):
        hub.link.dismiss("nobody")

    async def bank(line: Line) -> None:
        await line.dismiss("label")

    async def label(line: Line) -> None:
        await line.hear("bank", Number)

    session = Session("label", "bank")
    session.start("label", label)
    session.start("bank", bank)
    why = r"bank would dismiss 'label', which only the hub \(label\) can"
    with pytest.raises(RoleError, match=why):
        raise session.join()["bank"]
    with pytest.raises(RoleError, match=why):
        rehearse({"label": label, "bank": bank}, KINDS, hub="label")


def test_the_end_does_not_wait_for_a_party_that_was_dismissed() -> None:
    hub = Hub()
    hub.link.dismiss("mean")
    hub.arrives(Bye(), sender="worst", key="worst", route=b"worst")
    hub.link.finish()
    numbered = [e for e in map(opened, hub.port.sent) if e.sequence]
    assert [envelope.to for envelope in numbered] == ["worst"]


def test_whoever_gave_up_meanwhile_is_not_forgotten_with_the_one_that_was_dismissed() -> None:
    hub = Hub()
    hub.arrives(Abort("interrupted", "mean"), sequence=0)
    hub.arrives(Abort("data", "worst"), sequence=0, sender="worst", key="worst", route=b"worst")
    with pytest.raises(PeerAborted, match="mean: ended the run: it was interrupted"):
        hub.link.hear(["worst"], "train")
    hub.link.dismiss("mean")
    with pytest.raises(PeerAborted, match="worst: ended the run: its own table"):
        hub.link.hear(["worst"], "train")


def test_what_others_say_to_a_party_that_was_dismissed_is_dropped_and_acknowledged() -> None:
    hub = Hub()
    hub.link.dismiss("mean")
    hub.port.sent.clear()
    n = WINDOW_MESSAGES // 2
    for sequence in range(1, n + 1):
        hub.arrives(Word(sequence), sequence, to="mean", sender="worst", key="worst", route=b"worst")
    hub.arrives(Word(0), n + 1, sender="worst", key="worst", route=b"worst")
    hub.link.hear(["worst"], "train")
    acknowledged = [envelope.acknowledged for envelope in map(opened, hub.port.sent)]
    assert acknowledged == [n]
    assert not hub.link.ledger.sent_bytes


def test_who_waited_for_room_at_a_party_is_let_on_when_that_is_dismissed() -> None:
    hub = Hub()
    n = WINDOW_MESSAGES + WINDOW_MESSAGES // 2
    for sequence in range(1, n + 1):
        hub.arrives(Word(sequence), sequence, to="mean", sender="worst", key="worst", route=b"worst")
        if sequence == WINDOW_MESSAGES:
            hub.arrives(Word(0), 1)
            hub.link.hear(["mean"], "train")
    hub.arrives(Word(0), 2)
    hub.link.hear(["mean"], "train")
    assert max(envelope.acknowledged for envelope in map(opened, hub.port.sent)) == WINDOW_MESSAGES
    hub.link.dismiss("mean")
    assert opened(hub.port.sent[-1]).acknowledged == n
    assert isinstance(words_to(hub, "worst")[-1][1], Ack)


@pytest.mark.parametrize("key", ["mean", None], ids=["by its key", "in clear text"])
def test_whoever_was_dismissed_is_told_in_the_session_that_it_knows_and_can_do_no_harm(
    key: str | None,
) -> None:
    hub = Hub()
    hub.link.dismiss("mean")
    hub.port.sent.clear()
    hub.arrives(Join("mean", 0), 0, key=key, route=b"again")
    hub.arrives(Join("mean", 0), 0, key=key, route=b"anew", session=NO_SESSION)
    for route in (b"mean", b"again"):  # what follows is dropped
        hub.arrives(Word(1), 7, key=key, route=route, sender="worst")
        hub.arrives(Abort("failed", "mean"), 0, key=key, route=route)
        hub.arrives(Word(1), key=key, route=route).frames[0] = b"garbage"
    later = hub.arrives(Join("mean", 0), 0, key=key, route=b"later")
    later.frames[0] = b"VFL\x07" + bytes(later.frames[0])[4:]
    hub.arrives(Word(3), sender="worst", key="worst" if key else None, route=b"worst")
    assert hub.link.hear(["worst"], "train")[0] == "worst"
    told = [(session, word) for session, word in words_to(hub, "mean") if isinstance(word, Abort)]
    dismissals = [(session, word.about) for session, word in told if word.code == "dismissed"]
    assert dismissals == [(hub.neighbours.session, "mean"), (NO_SESSION, "mean")]


def test_a_party_cannot_tell_the_hub_that_it_is_done_without() -> None:
    hub = Hub()
    hub.arrives(Abort("dismissed", "label"), 0)
    with pytest.raises(PeerAborted, match="mean: ended the run: it failed"):
        hub.link.hear(["worst"], "train")
