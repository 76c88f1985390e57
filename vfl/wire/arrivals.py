"""What arrives at one party: taken in, checked and put where it belongs, here or onward.

`Link` asks for the next events and waits for what it needs; everything that a neighbour can bring about,
by a message, a word of its link or a connection that changes, is in this file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from vfl.errors import REASONS, PeerAborted, RemoteProtocolError
from vfl.wire.channel import Abort, Ack, Bye, Channel, Joined, Waiting
from vfl.wire.codec import Envelope, decode, open_envelope
from vfl.wire.inbox import Inbox
from vfl.wire.joining import CONTROL_KINDS, HubJoining, SpokeJoining, printable
from vfl.wire.ledger import Ledger
from vfl.wire.messages import Message, Schema
from vfl.wire.neighbours import Neighbours
from vfl.wire.zeromq import Arrival, Change, Port

_LOOK_CLOSELY_S: Final = 1.0


class Arrivals:
    """Handles the events of a port.

    `aborts` holds the neighbours that gave up, with their reasons. Until `look_until` it is worth looking
    who has gone: libzmq tells that a neighbour has a little before it knows which.
    """

    def __init__(
        self,
        port: Port,
        neighbours: Neighbours,
        joining: HubJoining | SpokeJoining,
        inbox: Inbox,
        ledger: Ledger,
        kinds: Mapping[str, Schema],
        peers: Sequence[str],
        on_stranger: Callable[[str], None],
    ) -> None:
        self.aborts: dict[str, PeerAborted] = {}
        self.look_until = 0.0
        self._port = port
        self._neighbours = neighbours
        self._joining = joining
        self._inbox = inbox
        self._ledger = ledger
        self._kinds = kinds
        self._peers = peers
        self._on_stranger = on_stranger
        self._events: deque[Arrival | Change] = deque()

    def handle(self, patience_s: float) -> bool:
        """Handles the next events, waiting for them up to `patience_s`; tells whether there were any.

        Raises:
            RemoteError: if a neighbour broke the rules, or the hub will not have this party.
        """
        if not self._events:
            self._events.extend(self._port.wait(patience_s))
        some = bool(self._events)
        while self._events:  # what one event raises, a role may survive: the others must not be forgotten
            self._handle(self._events.popleft())
        return some

    def forget(self, name: str) -> None:
        """Drops what a neighbour that was dismissed said and nobody heard, and that it gave up."""
        self._inbox.forget(name)
        self.aborts.pop(name, None)

    def _handle(self, event: Arrival | Change) -> None:
        if isinstance(event, Change):
            return self._handle_change(event)
        channel = self._neighbours.origin(event)
        if channel is None:
            assert isinstance(self._joining, HubJoining)  # noqa: S101 - others hear the hub only
            return self._joining.admit(event)
        envelope = open_envelope(event.frames, channel.neighbour)
        if envelope.sequence == 0:
            self._heed(channel, decode(envelope, CONTROL_KINDS, channel.neighbour), envelope)
        elif envelope.session != self._neighbours.session:
            raise RemoteProtocolError(channel.neighbour, "speaks of another session")
        elif channel.accept(envelope, bounded=self._neighbours.is_hub):
            self._sort(channel, envelope)
        for creditor in channel.repay():
            if creditor.taken(0):
                self._neighbours.tell(creditor, Ack())

    def _handle_change(self, change: Change) -> None:
        if isinstance(self._joining, HubJoining):
            if change.what == "down":
                self.look_until = time.monotonic() + _LOOK_CLOSELY_S
            elif change.key:
                self._on_stranger(change.key)
        elif change.what == "up":
            self._joining.knock()
        elif change.what == "down":
            self._joining.disconnect()
        else:
            self._joining.fail(denied=change.what == "denied")

    def _heed(self, channel: Channel, message: Message, envelope: Envelope) -> None:
        """Acts on one of the link's own words."""
        spoke = self._joining if isinstance(self._joining, SpokeJoining) else None
        if spoke and not spoke.check_session(envelope):
            return
        if isinstance(message, Abort):
            if spoke:
                spoke.check_refusal(message)
            code = self._reason_of(message)
            error = PeerAborted(channel.neighbour, code, printable(message.about))
            self.aborts.setdefault(channel.neighbour, error)
        elif isinstance(message, Joined) and spoke:
            spoke.joined(message, envelope.session)
        elif isinstance(message, Waiting) and self._neighbours.me not in message.names and message.names:
            channel.excused_at = time.monotonic()
        elif isinstance(message, Ack):
            channel.acknowledge(envelope.acknowledged)

    def _reason_of(self, abort: Abort) -> str:
        known = abort.code in REASONS
        if abort.code == "dismissed":  # only a hub dismisses, and tells nobody but whom it dismissed
            known = not self._neighbours.is_hub and abort.about == self._neighbours.me
        return abort.code if known else "failed"

    def _sort(self, channel: Channel, envelope: Envelope) -> None:
        """Puts a numbered message where it belongs: here, or onward to another party."""
        me, sender = self._neighbours.me, envelope.sender
        if sender not in self._peers or (self._neighbours.is_hub and sender != channel.neighbour):
            raise RemoteProtocolError(channel.neighbour, f"speaks in the name of {printable(sender)!r}")
        if envelope.to != me:
            self._relay(channel, envelope)
            return
        message = decode(envelope, self._kinds, sender)
        if not isinstance(message, Bye):
            self._inbox.put(sender, message, envelope.n_bytes)
        elif sender == channel.neighbour:
            channel.ended = True
            channel.promise()
            self._neighbours.tell(channel, Ack())
        else:
            raise RemoteProtocolError(sender, "says Bye through another party")

    def _relay(self, channel: Channel, envelope: Envelope) -> None:
        onward = self._neighbours.channels.get(envelope.to)
        if onward is channel or (onward is None and envelope.to not in self._neighbours.dismissed):
            raise RemoteProtocolError(
                channel.neighbour, f"speaks to {printable(envelope.to)!r}, who is no peer"
            )
        self._ledger.received(channel.neighbour, "relayed", envelope.n_bytes)
        channel.relayed_at = time.monotonic()
        if onward is not None and onward.full and not onward.ended:
            onward.creditors.append(channel)  # acknowledged once there is room
        elif channel.taken(envelope.n_bytes):
            self._neighbours.tell(channel, Ack())
        if onward is not None:  # the sender may not know yet that the receiver was dismissed
            self._ledger.sent(envelope.to, "relayed", envelope.n_bytes)
            self._neighbours.send(onward, list(envelope.frames))
