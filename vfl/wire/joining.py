"""How parties come together, at the start and again after a cut: the hub's side and the others'.

    spoke --Join--> hub      who it is, the session if it knows one, the last number it received
    hub --Joined--> spoke    the session, the last number received here, who is still missing

Once nobody is missing the session is open. A party that comes back with the session's name is the same
process after a cut, and both sides resend; one that comes without it is a second process, and refused.
Whoever was dismissed is told so, however often it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from vfl.errors import PeerLost, Refused, RemoteProtocolError
from vfl.wire.channel import CONTROL, Abort, Ack, Channel, Join, Joined
from vfl.wire.codec import NO_SESSION, Envelope, decode, open_envelope
from vfl.wire.messages import kinds_by_name
from vfl.wire.neighbours import Neighbours
from vfl.wire.zeromq import Arrival

CONTROL_KINDS: Final = kinds_by_name(CONTROL)
_STRANGER: Final = "a stranger"
#: A hub with another key breaks every handshake off at once; one that is just starting does not.
_GIVE_UP_AFTER_S: Final = 2.0


def printable(text: str) -> str:
    """Keeps a word from a peer short and free of control characters before a person reads it."""
    return "".join(letter for letter in text[:60] if letter.isprintable())


class HubJoining:
    """Is the hub's side: takes in whoever is expected, and tells all who is still missing."""

    def __init__(self, neighbours: Neighbours, on_stranger: Callable[[str], None]) -> None:
        self.missing = tuple(neighbours.channels)
        self._neighbours = neighbours
        self._on_stranger = on_stranger
        neighbours.open = not self.missing

    def admit(self, arrival: Arrival) -> None:
        """Takes in a connection that has not joined yet; anything but `Join` is dropped unread.

        Raises:
            RemoteProtocolError: if a listed party sends what is no message of this wire version.
        """
        peer = arrival.name or _STRANGER
        try:
            envelope = open_envelope(arrival.frames, peer)
            # Whatever else comes first was on its way when the link was cut; it will be sent again.
            if envelope.sequence != 0 or envelope.body.kind != Join.__name__:
                return
            join = decode(envelope, CONTROL_KINDS, peer)
        except RemoteProtocolError as error:
            # The answer bears this side's wire version, so that another release can name both.
            self._neighbours.refuse(arrival.route, peer, Abort("protocol", peer))
            if arrival.name in self._neighbours.channels:
                raise
            self._on_stranger(error.why)  # on an open port anybody may knock; nobody may end the run
            return
        assert isinstance(join, Join)  # noqa: S101 - its kind was just compared
        name = arrival.name or join.name
        channel = self._neighbours.channels.get(name)
        if name in self._neighbours.dismissed:  # in the words of the session that it has joined, if any
            self._neighbours.refuse(arrival.route, name, Abort("dismissed", name), envelope.session)
        elif channel is None:
            self._refuse(arrival, join, "")
        elif join.name != name or not self._may_join(channel, envelope.session):
            self._refuse(arrival, join, name)
        else:
            self._take_in(channel, arrival.route, join)

    def drop(self, channel: Channel) -> None:
        """Waits anew for one that has left before all were there."""
        self._neighbours.detach(channel)
        channel.lost_at = None
        self._call_the_roll()

    def _may_join(self, channel: Channel, session: bytes) -> bool:
        if session == self._neighbours.session:
            return True
        if self._neighbours.open or session != NO_SESSION:
            return False
        if channel.route is not None:  # is the one who joined under this name before still there?
            self._neighbours.tell(channel, Ack())
        return channel.route is None or channel.lost_at is not None

    def _refuse(self, arrival: Arrival, join: Join, about: str) -> None:
        self._neighbours.refuse(arrival.route, printable(join.name), Abort("refused", about))

    def _take_in(self, channel: Channel, route: bytes, join: Join) -> None:
        self._neighbours.attach(channel, route)
        if self._neighbours.open:
            self._neighbours.resend(channel, join.received, Joined(channel.received, ()))
        else:
            self._call_the_roll()

    def _call_the_roll(self) -> None:
        channels = self._neighbours.channels
        self.missing = tuple(name for name, channel in channels.items() if channel.route is None)
        self._neighbours.open = not self.missing
        for channel in channels.values():
            if channel.route is not None:
                self._neighbours.tell(channel, Joined(channel.received, self.missing))


class SpokeJoining:
    """Is every other party's side: knocks at the hub whenever the connection is there."""

    def __init__(self, neighbours: Neighbours) -> None:
        self.missing: tuple[str, ...] = (neighbours.hub,)
        self._neighbours = neighbours
        self._channel = neighbours.channels[neighbours.hub]
        self._failing_since: float | None = None
        self._failed_at = 0.0

    def knock(self) -> None:
        """Asks to be taken in, as the connection is up."""
        # No numbered word before the hub has answered: it says from where on.
        self._channel.route = self._channel.lost_at = None
        self._failing_since = None
        self._neighbours.tell(self._channel, Join(self._neighbours.me, self._channel.received))

    def disconnect(self) -> None:
        """Notes that the connection is down; libzmq keeps trying."""
        self._channel.route = None
        self._neighbours.lose(self._channel)

    def drop(self, channel: Channel) -> None:
        """Waits anew for the hub, which has left before all were there."""
        channel.lost_at = None
        self.missing = (self._neighbours.hub,)

    def fail(self, *, denied: bool) -> None:
        """Notes that a handshake has failed; in the middle of a run the time to come back rules.

        Raises:
            Refused: if the hub does not know this party's key, or seems to have another one itself.
        """
        if self._neighbours.open:
            return
        if denied:
            raise Refused(
                self._neighbours.hub,
                f"does not know this key; list it in the job as {self._neighbours.me}'s, at every party",
            )
        now = time.monotonic()
        if now - self._failed_at > _GIVE_UP_AFTER_S:  # a failure long ago has nothing to do with this one
            self._failing_since = None
        self._failing_since, self._failed_at = self._failing_since or now, now
        if now - self._failing_since > _GIVE_UP_AFTER_S:
            raise Refused(
                self._neighbours.hub,
                "breaks every connection off; check its address, and its public key in the job",
            )

    def joined(self, joined: Joined, session: bytes) -> None:
        """Takes the hub's answer.

        Raises:
            RemoteProtocolError: if the hub asks again for what it has acknowledged.
        """
        self._neighbours.session = session
        self.missing = tuple(printable(name) for name in joined.missing)
        if self.missing:
            return
        self._neighbours.attach(self._channel, b"")
        self._neighbours.resend(self._channel, joined.received)
        self._neighbours.open = True

    def check_session(self, envelope: Envelope) -> bool:
        """Tells whether a word is of the session that this party joined; if not, it joins another.

        Raises:
            PeerLost: if the run has begun: another process has taken the hub's place.
        """
        if self._neighbours.session in (NO_SESSION, envelope.session):
            return True
        if self._neighbours.open:
            raise PeerLost(self._neighbours.hub, "was started anew in the middle of the run")
        self._neighbours.session = NO_SESSION
        self.knock()
        return False

    def check_refusal(self, abort: Abort) -> None:
        """Tells a refusal to join from the end of a run.

        Raises:
            Refused: if the hub will not have this party.
        """
        if abort.code != "refused" or self._neighbours.session != NO_SESSION:
            return
        me, known_as = self._neighbours.me, printable(abort.about)
        if known_as == me:
            why = f"already has a party named {me}, or a run under way; end the other process"
        elif known_as:
            why = f"knows this key as {known_as}'s; start with {me}'s own key"
        else:
            why = f"knows no party named {me}; agree on one job"
        raise Refused(self._neighbours.hub, why)
