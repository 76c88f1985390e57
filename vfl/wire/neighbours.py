"""The connections of one party, and what leaves on them.

The parties form a star: the hub is everybody's neighbour, and every other party's only one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from vfl.wire.channel import Abort, Ack, Channel, Waiting
from vfl.wire.codec import NO_SESSION, Frames, encode
from vfl.wire.messages import Message
from vfl.wire.zeromq import Arrival, Port


class Neighbours:
    """Holds one channel a neighbour, and knows over which connection each can be reached.

    `open` tells whether every party has joined; `session` is the hub's random name for this run, which
    the others learn when they join. Who is in `dismissed` was a neighbour and is none any more.
    """

    def __init__(self, port: Port, me: str, hub: str, peers: Sequence[str]) -> None:
        self.me = me
        self.hub = hub
        self.is_hub = me == hub
        self.open = False
        self.session = secrets.token_bytes(16) if self.is_hub else NO_SESSION
        self.channels = {name: Channel(name) for name in (peers if self.is_hub else (hub,))}
        self.dismissed: set[str] = set()
        self._port = port
        self._by_route: dict[bytes, Channel] = {}

    def towards(self, party: str) -> Channel:
        """Returns the channel on which a party is reached: its own, or the hub's."""
        return self.channels[party if self.is_hub else self.hub]

    def origin(self, arrival: Arrival) -> Channel | None:
        """Returns the channel of the neighbour that a message came from; None if it has not joined."""
        if not self.is_hub:
            return self.channels[self.hub]
        channel = self._by_route.get(arrival.route)
        if channel is not None and arrival.name not in (None, channel.neighbour):
            return None  # another's key over a route that this neighbour had before a cut
        return channel

    def attach(self, channel: Channel, route: bytes) -> None:
        """Notes that a neighbour is reached over this connection, and no longer over another."""
        self._by_route.pop(channel.route or b"", None)
        self._by_route[route] = channel
        channel.route, channel.lost_at = route, None

    def detach(self, channel: Channel) -> None:
        """Notes that a neighbour cannot be reached."""
        self._by_route.pop(channel.route or b"", None)
        channel.route = None

    def lose(self, channel: Channel) -> None:
        """Starts the time within which a neighbour may come back."""
        channel.lost_at = channel.lost_at or time.monotonic()

    def dismiss(self, name: str) -> None:
        """Lets a neighbour go for good; it is told so, now if it can be reached, else should it come back."""
        channel = self.channels.pop(name)
        self.dismissed.add(name)
        self.tell(channel, Abort("dismissed", name))
        self.detach(channel)
        for creditor in channel.creditors:  # what they said to it needs no room any more
            if creditor.taken(0):
                self.tell(creditor, Ack())

    def is_deaf(self, channel: Channel) -> bool:
        """Tells whether a neighbour takes nothing more; a hub that has ended still passes things on."""
        return self.is_hub and channel.ended

    def send(self, channel: Channel, frames: Frames) -> None:
        """Sends a numbered message, now if the neighbour can be reached, else when it is back."""
        if self.is_deaf(channel):
            return
        channel.number(frames)
        if channel.route is not None and not self._port.transmit(channel.route, channel.latest(self.session)):
            self.lose(channel)

    def resend(self, channel: Channel, received: int, *first: Message) -> None:
        """Sends words of the link's own and then all that a neighbour that is back has not received.

        Raises:
            RemoteProtocolError: if it says that it received what was never sent.
        """
        lacking = channel.resend(self.session, received)
        for message in first:
            self.tell(channel, message)
        for frames in lacking:
            if channel.route is not None and not self._port.transmit(channel.route, frames):
                self.lose(channel)

    def tell(self, channel: Channel, message: Message) -> None:
        """Says one of the link's own words, if the neighbour can be reached."""
        route = channel.route if self.is_hub else b""
        if route is None:
            return
        frames = encode(message, to=channel.neighbour, sender=self.me)
        if not self._port.transmit(route, channel.control(frames, self.session)):
            self.lose(channel)

    def excuse(self, awaited: Sequence[str]) -> None:
        """Tells those who may wait for this party that it waits itself, so that they blame the right one."""
        for channel in self.channels.values():
            if self.open and channel.neighbour not in awaited and channel.route is not None:
                self.tell(channel, Waiting(tuple(awaited)))

    def excused_at(self, awaited: Sequence[str]) -> float:
        """Tells when one of `awaited` last said that it waits for others."""
        return max((self.channels[name].excused_at for name in awaited if name in self.channels), default=0.0)

    def busy_at(self, awaited: Sequence[str]) -> float:
        """Tells when one of `awaited` last said something to another party, through this one."""
        return max((self.channels[name].relayed_at for name in awaited if name in self.channels), default=0.0)

    def refuse(self, route: bytes, name: str, abort: Abort, session: bytes = NO_SESSION) -> None:
        """Turns someone away who has not joined; the session's name is told to those alone who know it."""
        frames = encode(abort, to=name, sender=self.me)
        self._port.transmit(route, Channel(name).control(frames, session))

    def probe(self) -> None:
        """Sends every neighbour a word: the one that cannot be reached is the one that has gone."""
        for channel in self.channels.values():
            if channel.route is not None:
                self.tell(channel, Ack())

    def let_on(self) -> None:
        """Acknowledges all that has arrived, taken or not.

        Whoever waits does this after a moment: what it waits for may be held up behind a full window,
        its own or that of another party which waits for it in turn.
        """
        for channel in self.channels.values():
            channel.promise()
            if self.open and channel.untold and channel.route is not None:
                self.tell(channel, Ack())
