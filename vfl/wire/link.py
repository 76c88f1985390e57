"""One party's line to all its peers: deadlines, relaying, ending well and giving up.

The parties form a star: the hub (the label party or a coordinator) has the one open port, every other
party connects to it, and what one of these says to another is relayed by the hub. `Link` is what
`perform` sends and receives through. It runs when the role asks it to, in the role's own thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from vfl.errors import PeerLost, PeerTimeout, RemoteError, RemoteProtocolError, RoleError
from vfl.wire.arrivals import Arrivals
from vfl.wire.channel import Abort, Ack, Bye, Channel
from vfl.wire.codec import NO_SESSION, encode, frames_bytes
from vfl.wire.inbox import Entry, Inbox
from vfl.wire.joining import HubJoining, SpokeJoining
from vfl.wire.ledger import Ledger
from vfl.wire.messages import Message, kinds_by_name
from vfl.wire.neighbours import Neighbours
from vfl.wire.timing import Timing
from vfl.wire.zeromq import Port

_LOOK_EVERY_S: Final = 0.25
_LOOK_OFTEN_S: Final = 0.05
_SAY_SO_AFTER_S: Final = 2.0
_SAY_SO_EVERY_S: Final = 1.0
_ABORT_LINGER_S: Final = 1.0

_MOST_DRAINED: Final = 10_000


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

        Raises:
            RoleError: if a kind cannot cross the wire, or two share a name.
        """
        self.me = me
        self.hub = hub
        self.peers = tuple(peers)
        self.ledger = Ledger()
        self._port = port
        self._timing = timing or Timing()
        self._on_wait = on_wait or (lambda names, seconds: None)
        on_stranger = on_stranger or (lambda key: None)
        self._neighbours = Neighbours(port, me, hub, peers)
        self._joining = (
            HubJoining(self._neighbours, on_stranger) if me == hub else SpokeJoining(self._neighbours)
        )
        self._inbox = Inbox()
        self._arrivals = Arrivals(
            port,
            self._neighbours,
            self._joining,
            self._inbox,
            self.ledger,
            kinds_by_name((*kinds, Bye)),
            self.peers,
            on_stranger,
        )
        self._probed_at = 0.0

    # --- what `perform` asks for -------------------------------------------------------------------

    def open(self) -> None:
        """Waits until every party has joined.

        Raises:
            PeerTimeout: if one has not within `join_s`.
            Refused: if the hub does not know this party's key, or has another one under its name.
        """
        self._until(
            lambda: self._neighbours.open,
            lambda: self._joining.missing,
            self._timing.join_s,
            "has not joined",
        )

    def say(self, to: str, message: Message, phase: str) -> None:
        """Sends a message to a peer, at once unless that peer is a whole window behind.

        Raises:
            RoleError: if there is no such peer, or the message cannot cross the wire.
            RemoteError: if a peer was lost, gave up or broke the rules while there was no room.
        """
        if to not in self.peers:
            raise RoleError(f"{self.me} would say {type(message).__name__} to {self._no_peer(to)}")
        channel = self._neighbours.towards(to)
        frames = encode(message, to=to, sender=self.me)
        if channel.full and not self._neighbours.is_deaf(channel):
            self._wait_for_room(channel)
        self.ledger.sent(to, phase, frames_bytes(frames))
        self._neighbours.send(channel, frames)

    def hear(self, senders: Sequence[str], phase: str) -> tuple[str, Message]:
        """Waits for the next message of any of `senders`.

        Raises:
            RoleError: if one of them is no peer.
            RemoteError: if a peer was lost, was silent too long, gave up or broke the rules.
        """
        strangers = [sender for sender in senders if sender not in self.peers]
        if strangers:
            raise RoleError(f"{self.me} would hear {self._no_peer(strangers[0])}")
        entry = self._inbox.take(senders)
        if entry is None:
            entry = self._wait_to_hear(senders, phase)
        sender, message, n_bytes = entry
        channel = self._neighbours.towards(sender)
        if channel.taken(n_bytes):
            self._neighbours.tell(channel, Ack())
        self.ledger.received(sender, phase, n_bytes)
        return sender, message

    def dismiss(self, name: str) -> None:
        """Goes on without a peer that vanished, and without what it said and nobody heard.

        Raises:
            RoleError: if this party is not the hub, or there is no such peer.
        """
        if self.me != self.hub:
            raise RoleError(f"{self.me} would dismiss {name!r}, which only the hub ({self.hub}) can")
        if name in self._neighbours.dismissed:
            return
        if name not in self.peers:
            raise RoleError(f"{self.me} would dismiss {self._no_peer(name)}")
        self.peers = tuple(peer for peer in self.peers if peer != name)
        self._neighbours.dismiss(name)
        self._arrivals.forget(name)

    def finish(self) -> None:
        """Tells all that this role has ended well, and waits until all that it said has arrived.

        The hub stays until every other party has ended too: it may have to relay.

        Raises:
            RemoteError: as for `hear`.
        """
        channels = self._neighbours.channels.values()
        for channel in channels:
            self._neighbours.send(channel, encode(Bye(), to=channel.neighbour, sender=self.me))
        self._neighbours.let_on()
        self._until(
            lambda: all(self._is_done_with(channel) for channel in channels),
            lambda: [channel.neighbour for channel in channels if not self._is_done_with(channel)],
            self._timing.hear_s,
            "has not ended its part",
        )
        self._neighbours.let_on()

    @property
    def is_open(self) -> bool:
        """Whether all parties have joined."""
        return self._neighbours.open

    def abort(self, code: str, about: str) -> None:
        """Tells all peers that the run is over and why; does not wait for an answer."""
        for channel in self._neighbours.channels.values():
            self._neighbours.tell(channel, Abort(code, about))

    def decline(self, code: str, about: str, patience_s: float) -> None:
        """Tells whoever can be reached within `patience_s` that there will be no run, and why.

        For a party that gives up before all have joined: whoever comes a moment later would else wait
        for it in vain.
        """
        deadline = time.monotonic() + patience_s
        while self._joining.missing and (left := deadline - time.monotonic()) > 0:
            with suppress(RemoteError):
                self._arrivals.handle(min(left, _LOOK_OFTEN_S))
            if self.me != self.hub and (self._arrivals.aborts or self._neighbours.session != NO_SESSION):
                break
        self.abort(code, about)

    def close(self) -> None:
        """Closes the port, giving what was said last a second to leave."""
        self._port.close(_ABORT_LINGER_S)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _no_peer(self, name: str) -> str:
        why = "whom it has dismissed" if name in self._neighbours.dismissed else "who is no peer"
        return f"{name!r}, {why}"

    # --- waiting -----------------------------------------------------------------------------------

    def _wait_to_hear(self, senders: Sequence[str], phase: str) -> Entry:
        started = time.monotonic()
        if self._neighbours.open and started >= self._arrivals.look_until:
            self._arrivals.handle(_LOOK_EVERY_S)  # what is nearly always enough, in as few steps as can be
            entry = self._inbox.take(senders)
            if entry is not None:
                self.ledger.waited(entry[0], phase, time.monotonic() - started)
                return entry
        found: list[Entry] = []

        def heard() -> bool:
            entry = self._inbox.take(senders)
            if entry is not None:
                found.append(entry)
            elif all(self._has_ended(sender) for sender in senders):
                raise RemoteProtocolError(senders[0], "has ended its part where more was due")
            return bool(found)

        self._until(heard, lambda: senders, self._timing.patience_s(phase), "has said nothing")
        self.ledger.waited(found[0][0], phase, time.monotonic() - started)
        return found[0]

    def _has_ended(self, sender: str) -> bool:
        channel = self._neighbours.towards(sender)
        return channel.neighbour == sender and channel.ended

    def _wait_for_room(self, channel: Channel) -> None:
        def room() -> bool:
            self._let_on()  # at once: two parties with full windows wait for each other
            return not channel.full or self._neighbours.is_deaf(channel)

        self._until(room, lambda: (channel.neighbour,), self._timing.hear_s, "has not taken what was said")

    def _is_done_with(self, channel: Channel) -> bool:
        if self.me == self.hub:
            return channel.ended
        if channel.clear:
            return True
        # The hub goes once all have ended, so one that is gone for good has got everything.
        lost_for = time.monotonic() - (channel.lost_at or time.monotonic())
        return channel.ended and lost_for > self._timing.reconnect_s

    def _until(
        self,
        done: Callable[[], bool],
        awaited: Callable[[], Sequence[str]],
        patience_s: float,
        complaint: str,
    ) -> None:
        if done():
            return
        started = time.monotonic()
        excuse_every_s = min(_SAY_SO_EVERY_S, patience_s / 4)
        said_at, excuse_at = started + _SAY_SO_AFTER_S, started + excuse_every_s
        while True:
            now = self._look()
            if done():  # first: what a peer said before it gave up is still heard
                return
            self._check_over(now)
            # Each of the parties that a peer waits for has as long; more is no excuse.
            excused_at = min(self._neighbours.excused_at(awaited()), started + len(self.peers) * patience_s)
            # A hub that only relays (while others align their rows, for hours) hears that they are at it.
            if now - max(started, excused_at, self._neighbours.busy_at(awaited())) > patience_s:
                raise PeerTimeout(_joint(awaited()), f"{complaint} for {patience_s:g} s")
            if now >= said_at:
                said_at = now + _SAY_SO_EVERY_S
                self._on_wait(tuple(awaited()), now - started)
            if now >= excuse_at:
                excuse_at = now + excuse_every_s
                self._neighbours.excuse(awaited())
            if now - started > _LOOK_EVERY_S:
                self._let_on()

    def _let_on(self) -> None:
        if self._inbox.has_room:
            self._neighbours.let_on()

    def _look(self) -> float:
        """Handles what has happened, waiting a moment for the first event; returns the time."""
        looking = not self._neighbours.open or time.monotonic() < self._arrivals.look_until
        self._arrivals.handle(_LOOK_OFTEN_S if looking else _LOOK_EVERY_S)
        now = time.monotonic()
        if now < self._arrivals.look_until and now - self._probed_at >= _LOOK_OFTEN_S:
            self._probed_at = now
            self._neighbours.probe()
        return now

    def _check_over(self, now: float) -> None:
        for abort in self._arrivals.aborts.values():
            raise abort
        for channel in self._neighbours.channels.values():
            if channel.lost_at is None or self._neighbours.is_deaf(channel):
                continue
            if not self._neighbours.open:
                self._joining.drop(channel)
            elif now - channel.lost_at > self._timing.reconnect_s and not self._has_come_back(channel):
                raise PeerLost(
                    channel.neighbour, "the connection was lost: its process has ended or the way is cut"
                )

    def _has_come_back(self, channel: Channel) -> bool:
        """Reads all that is there before a party is given up: its return may lie behind others' words."""
        for _ in range(_MOST_DRAINED):
            if not self._arrivals.handle(0.0):
                break
        return channel.lost_at is None


def _joint(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "a peer"
