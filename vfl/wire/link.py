"""One party's connections to all its peers: joining, deadlines, resending, relaying, giving up.

The parties form a star: the hub (the label party or a coordinator) has the one open port, every other
party connects to it, and what one of these says to another is relayed by the hub. `Link` is what
`perform` sends and receives through. It runs when the role asks it to, in the role's own thread.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from vfl.errors import (
    REASONS,
    PeerAborted,
    PeerLost,
    PeerTimeout,
    Refused,
    RemoteError,
    RemoteProtocolError,
    RoleError,
)
from vfl.wire.channel import CONTROL, NO_SESSION, Abort, Ack, Bye, Channel, Join, Joined
from vfl.wire.codec import Envelope, decode, encode, frames_bytes, open_envelope
from vfl.wire.ledger import Ledger
from vfl.wire.messages import Message, Schema, kinds_by_name
from vfl.wire.zeromq import Arrival, Change, Port

_CONTROL_KINDS: Final = kinds_by_name(CONTROL)
_LOOK_EVERY_S: Final = 0.25
_LOOK_OFTEN_S: Final = 0.05
_SAY_SO_AFTER_S: Final = 2.0
_ABORT_LINGER_S: Final = 1.0
_DENIALS_BEFORE_GIVING_UP: Final = 3


@dataclass(frozen=True)
class Timing:
    """How long to be patient, in seconds.

    A dead process is noticed at once, a cut cable after at most 2.5 `heartbeat_s`; either is given
    `reconnect_s` to come back before the run ends. All that, by default, stays under 5 seconds.
    """

    join_s: float = 600.0
    hear_s: float = 300.0
    reconnect_s: float = 2.0
    heartbeat_s: float = 1.0


@dataclass
class _Inbox:
    order: deque[tuple[str, Message, int]] = field(default_factory=deque)

    def take(self, senders: Sequence[str]) -> tuple[str, Message, int] | None:
        for place, entry in enumerate(self.order):
            if entry[0] in senders:
                del self.order[place]
                return entry
        return None


class Link:
    """Joins one party to its peers over a `Port`; use it in a `with` block, through `perform`."""

    def __init__(
        self,
        port: Port,
        me: str,
        hub: str,
        peers: Sequence[str],
        kinds: Sequence[type[Message]],
        *,
        timing: Timing | None = None,
        on_wait: Callable[[Sequence[str], float], None] | None = None,
        on_stranger: Callable[[str], None] | None = None,
    ) -> None:
        """Makes the link; nothing is said before `open`.

        Args:
            port: this party's open port.
            me: this party.
            hub: the party with the open port, possibly this one.
            peers: all other parties of the job.
            kinds: the messages that this session may carry.
            timing: how long to be patient.
            on_wait: called with (for whom, seconds so far) about once a second while waiting.
            on_stranger: called with the public key of anyone who is turned away.
        """
        self.me = me
        self.hub = hub
        self.peers = tuple(peers)
        self.ledger = Ledger()
        self._port = port
        self._kinds = kinds_by_name(kinds)
        self._timing = timing or Timing()
        self._on_wait = on_wait or (lambda names, seconds: None)
        self._on_stranger = on_stranger or (lambda key: None)
        self._is_hub = me == hub
        self._session = secrets.token_bytes(16) if self._is_hub else NO_SESSION
        self._channels = {name: Channel(name) for name in (self.peers if self._is_hub else (hub,))}
        self._by_route: dict[bytes, Channel] = {}
        self._missing: tuple[str, ...] = tuple(self._channels)
        self._inbox = _Inbox()
        self._denials = 0
        self._look_until = 0.0  # libzmq tells that a neighbour has gone a little before it knows which
        self._open = False
        self._aborted: PeerAborted | None = None

    # --- what `perform` asks for -------------------------------------------------------------------

    def open(self) -> None:
        """Waits until every party has joined.

        Raises:
            PeerTimeout: if one has not within `join_s`.
            Refused: if the hub does not know this party's key, or has another one under its name.
        """
        self._until(lambda: self._open, lambda: self._missing, self._timing.join_s, "has not joined")

    def say(self, to: str, message: Message, phase: str) -> None:
        """Sends a message to a peer, at once unless that peer is a whole window behind."""
        if to not in self.peers:
            raise RoleError(f"{self.me} would say {type(message).__name__} to {to!r}, who is no peer")
        channel = self._channels[to if self._is_hub else self.hub]
        if channel.full:
            self._wait_for_room(channel)
        frames = encode(message, to=to, sender=self.me)
        self.ledger.sent(to, phase, frames_bytes(frames))
        channel.number(frames)
        self._transmit_latest(channel)

    def hear(self, senders: Sequence[str], phase: str) -> tuple[str, Message]:
        """Waits for the next message of any of `senders`."""
        entry = self._inbox.take(senders)
        if entry is None:
            entry = self._wait_to_hear(senders, phase)
        sender, message, n_bytes = entry
        channel = self._channels[sender if self._is_hub else self.hub]
        if channel.taken(n_bytes):
            self._tell(channel, Ack())
        self.ledger.received(sender, phase, n_bytes)
        return sender, message

    def finish(self) -> None:
        """Tells all that this role has ended well, and waits until all that it said has arrived."""
        for channel in self._channels.values():
            channel.number(encode(Bye(), to=channel.neighbour, sender=self.me))
            self._transmit_latest(channel)
        open_ends = [channel for channel in self._channels.values() if not channel.ended]
        for channel in open_ends:
            channel.promise()
        self._until(
            lambda: all(c.clear or c.ended for c in open_ends),
            lambda: [c.neighbour for c in open_ends if not (c.clear or c.ended)],
            self._timing.hear_s,
            "has not taken what was said last",
        )
        for channel in self._channels.values():
            channel.promise()
            if channel.untold:
                self._tell(channel, Ack())

    def abort(self, code: str, about: str) -> None:
        """Tells all peers that the run is over and why; does not wait for an answer."""
        for channel in self._channels.values():
            self._tell(channel, Abort(code, about))

    def decline(self, code: str, about: str, patience_s: float) -> None:
        """Tells whoever can be reached within `patience_s` that this party cannot take part, and why."""
        deadline = time.monotonic() + patience_s
        while self._missing and not self._aborted and (left := deadline - time.monotonic()) > 0:
            try:
                for event in self._port.wait(min(left, _LOOK_EVERY_S)):
                    self._handle(event)
            except RemoteError:
                break
            if not self._is_hub and self._session != NO_SESSION:
                break
        self.abort(code, about)

    def close(self) -> None:
        """Closes the port, giving what was said last a second to leave."""
        self._port.close(_ABORT_LINGER_S)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- waiting -----------------------------------------------------------------------------------

    def _wait_to_hear(self, senders: Sequence[str], phase: str) -> tuple[str, Message, int]:
        started = time.monotonic()
        found: list[tuple[str, Message, int]] = []

        def heard() -> bool:
            entry = self._inbox.take(senders)
            if entry is not None:
                found.append(entry)
            elif all(self._has_ended(sender) for sender in senders):
                raise RemoteProtocolError(senders[0], "has ended its part where more was due")
            return bool(found)

        self._until(heard, lambda: senders, self._timing.hear_s, "has said nothing")
        self.ledger.waited(found[0][0], phase, time.monotonic() - started)
        return found[0]

    def _has_ended(self, sender: str) -> bool:
        return sender in self._channels and self._channels[sender].ended

    def _wait_for_room(self, channel: Channel) -> None:
        def room() -> bool:
            for other in self._channels.values():
                other.promise()
                if other.untold and other.waiting:
                    self._tell(other, Ack())
            return not channel.full

        self._until(room, lambda: (channel.neighbour,), self._timing.hear_s, "has not taken what was said")

    def _until(
        self, done: Callable[[], bool], awaited: Callable[[], Sequence[str]], patience_s: float, complaint: str
    ) -> None:
        started = time.monotonic()
        said_at = started + _SAY_SO_AFTER_S
        pause_s = 0.0
        while not done():
            for event in self._port.wait(pause_s):
                self._handle(event)
            now = time.monotonic()
            if now < self._look_until:
                self._look_who_is_gone()
            if done():  # first: what a peer said before it gave up is still heard
                return
            self._check_over(now)
            if now - started > patience_s:
                raise PeerTimeout(_first(awaited()), f"{complaint} for {patience_s:g} s")
            if now >= said_at:
                said_at = now + 1.0
                self._on_wait(tuple(awaited()), now - started)
            if now - started > _LOOK_EVERY_S:
                self._tell_what_was_taken()
            pause_s = _LOOK_EVERY_S if now >= self._look_until else _LOOK_OFTEN_S

    def _tell_what_was_taken(self) -> None:
        for channel in self._channels.values():
            if self._open and channel.untold and channel.route is not None:
                self._tell(channel, Ack())

    def _check_over(self, now: float) -> None:
        if self._aborted:
            raise self._aborted
        for channel in self._channels.values():
            if channel.lost_at is None or channel.ended:
                continue
            if not self._open:
                self._unjoin(channel)
            elif now - channel.lost_at > self._timing.reconnect_s:
                raise PeerLost(channel.neighbour, "the connection was lost: its process has ended or the way is cut")

    # --- what arrives ------------------------------------------------------------------------------

    def _handle(self, event: Arrival | Change) -> None:
        if isinstance(event, Change):
            self._handle_change(event)
            return
        channel = self._by_route.get(event.route) if self._is_hub else self._channels[self.hub]
        if channel is None:
            self._greet(event)
            return
        envelope = open_envelope(event.frames, channel.neighbour)
        if envelope.sequence == 0:
            self._heed(channel, decode(envelope, _CONTROL_KINDS, channel.neighbour), envelope)
        else:
            if envelope.session != self._session:
                raise RemoteProtocolError(channel.neighbour, "speaks of another session")
            if channel.accept(envelope):
                self._sort(channel, envelope)

    def _handle_change(self, change: Change) -> None:
        if change.what == "denied":
            self._handle_denial(change.detail)
        elif self._is_hub:
            if change.what == "down":
                self._look_until = time.monotonic() + 1.0
        elif change.what == "up":
            channel = self._channels[self.hub]
            channel.route, channel.lost_at = None, None  # no numbered word before the hub has answered
            self._port.transmit(b"", self._framed(channel, Join(self.me, channel.received)))
        else:
            channel = self._channels[self.hub]
            channel.route = None
            channel.lost_at = channel.lost_at or time.monotonic()

    def _handle_denial(self, detail: str) -> None:
        if self._is_hub:
            self._on_stranger(detail)
            return
        self._denials += 1
        if self._denials >= _DENIALS_BEFORE_GIVING_UP or detail == "HANDSHAKE_FAILED_AUTH":
            raise Refused(
                self.hub,
                "refuses this key; the job must list this party's public key under its name, and the hub's own",
            )

    def _greet(self, event: Arrival) -> None:
        """Takes in a connection that has not joined yet; anything but `Join` is dropped unread."""
        try:
            envelope = open_envelope(event.frames, event.name or "a stranger")
            if envelope.sequence != 0 or envelope.body.kind != Join.__name__:
                return
            join = decode(envelope, _CONTROL_KINDS, event.name or "a stranger")
        except RemoteProtocolError as error:
            if event.name:
                raise
            self._on_stranger(error.why)  # on an open port anybody may knock; nobody may end the run
            return
        assert isinstance(join, Join)  # noqa: S101 - its kind was just compared
        name = event.name or join.name
        channel = self._channels.get(name)
        resuming = self._open and envelope.session == self._session
        if channel is None or join.name != name or not (resuming or self._may_join(channel)):
            refusal = Channel(name).control(encode(Abort("refused", name), to=name, sender=self.me), self._session)
            self._port.transmit(event.route, refusal)
            return
        self._by_route = {route: c for route, c in self._by_route.items() if c is not channel}
        self._by_route[event.route] = channel
        channel.route, channel.lost_at = event.route, None
        if not resuming:
            self._call_the_roll()
            return
        lacking = channel.resend(self._session, join.received)
        self._tell(channel, Joined(channel.received, ()))
        for frames in lacking:
            self._port.transmit(event.route, frames)

    def _may_join(self, channel: Channel) -> bool:
        if self._open:
            return False
        if channel.route is not None:
            self._tell(channel, Ack())  # is the one who joined under this name before still there?
        return channel.route is None or channel.lost_at is not None

    def _call_the_roll(self) -> None:
        self._missing = tuple(name for name, channel in self._channels.items() if channel.route is None)
        self._open = not self._missing
        for channel in self._channels.values():
            if channel.route is not None:
                self._tell(channel, Joined(channel.received, self._missing))

    def _unjoin(self, channel: Channel) -> None:
        self._by_route.pop(channel.route or b"", None)
        channel.route = channel.lost_at = None
        if self._is_hub:
            self._call_the_roll()

    def _look_who_is_gone(self) -> None:
        """Sends every neighbour a word: the one that cannot be reached is the one that has gone."""
        for channel in self._channels.values():
            if channel.route is not None:
                self._tell(channel, Ack())

    def _heed(self, channel: Channel, message: Message, envelope: Envelope) -> None:
        if isinstance(message, Abort):
            code = message.code if message.code in REASONS else "failed"
            if not self._open and code == "refused" and message.about == self.me:
                raise Refused(channel.neighbour, f"already has a party named {self.me}, or a run under way")
            self._aborted = self._aborted or PeerAborted(channel.neighbour, code, _printable(message.about))
        elif isinstance(message, Joined) and not self._is_hub:
            self._join(channel, message, envelope.session)
        elif isinstance(message, Ack):
            channel.acknowledge(envelope.acknowledged)

    def _join(self, channel: Channel, joined: Joined, session: bytes) -> None:
        if self._open and session != self._session:
            raise PeerLost(channel.neighbour, "was started anew in the middle of the run")
        self._session = session
        self._missing = tuple(_printable(name) for name in joined.missing)
        if joined.missing:
            return
        channel.route, channel.lost_at = b"", None
        for frames in channel.resend(session, joined.received):
            self._port.transmit(b"", frames)
        self._open = True

    def _sort(self, channel: Channel, envelope: Envelope) -> None:
        """Puts a numbered message where it belongs: here, or onward to another party."""
        sender = envelope.sender
        if sender not in self.peers or (self._is_hub and sender != channel.neighbour):
            raise RemoteProtocolError(channel.neighbour, f"speaks in the name of {_printable(sender)!r}")
        if envelope.to != self.me:
            self._relay(channel, envelope)
            return
        if envelope.body.kind == Bye.__name__:
            channel.waiting -= 1
            channel.ended = True
            channel.promise()
            self._tell(channel, Ack())
            return
        self._inbox.order.append((sender, decode(envelope, self._kinds, sender), envelope.n_bytes))

    def _relay(self, channel: Channel, envelope: Envelope) -> None:
        onward = self._channels.get(envelope.to)
        if not self._is_hub or onward is None:
            raise RemoteProtocolError(channel.neighbour, f"speaks to {_printable(envelope.to)!r}, who is no peer")
        channel.waiting -= 1
        onward.number(list(envelope.frames))
        self.ledger.received(channel.neighbour, "relayed", envelope.n_bytes)
        self.ledger.sent(envelope.to, "relayed", envelope.n_bytes)
        self._transmit_latest(onward)

    # --- what leaves -------------------------------------------------------------------------------

    def _transmit_latest(self, channel: Channel) -> None:
        if channel.route is not None and not self._port.transmit(channel.route, channel.latest(self._session)):
            self._lose(channel)

    def _tell(self, channel: Channel, message: Message) -> None:
        route = channel.route if self._is_hub else b""
        if route is not None and not self._port.transmit(route, self._framed(channel, message)):
            self._lose(channel)

    def _framed(self, channel: Channel, message: Message) -> list[bytes | memoryview]:
        return channel.control(encode(message, to=channel.neighbour, sender=self.me), self._session)

    def _lose(self, channel: Channel) -> None:
        channel.lost_at = channel.lost_at or time.monotonic()


def _first(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "a peer"


def _printable(text: str) -> str:
    """Keeps a word from a peer short and free of control characters before a person reads it."""
    return "".join(letter for letter in text[:60] if letter.isprintable())

