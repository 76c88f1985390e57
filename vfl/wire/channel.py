"""One party's end of one connection: numbers, acknowledgements and what to resend. No I/O.

Messages to a neighbour are numbered from 1 and kept until they are acknowledged, so that after a cut
link both sides resend what the other has not got, and a message arrives once. Number 0 marks the
link's own words (`Join`, `Joined`, `Ack`, `Waiting`, `Abort`), which are neither kept nor resent.

A neighbour is acknowledged what the role here has taken (or what was passed on), not what has merely
arrived: that lets at most a window of messages pile up at a party that computes longer than its peers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from vfl.errors import RemoteProtocolError
from vfl.wire.codec import Buffer, Envelope, Frames, frames_bytes, stamp
from vfl.wire.messages import Message

#: A party may be this far ahead of its neighbour, whichever comes first; always at least one message.
WINDOW_MESSAGES: Final = 64
WINDOW_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Join(Message):
    """Is a connecting party's first word, also after a cut; `received` is the last number it got."""

    name: str
    received: int


@dataclass(frozen=True, eq=False)
class Joined(Message):
    """Answers `Join`: the session is open, or still waits for `missing`."""

    received: int
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ack(Message):
    """Carries nothing but the acknowledgement in its prefix."""


@dataclass(frozen=True, eq=False)
class Waiting(Message):
    """Excuses its sender's silence: it waits, in its turn, for the parties of these names."""

    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Bye(Message):
    """Is the last word of a party whose role has ended well; numbered, so it comes after all others."""


@dataclass(frozen=True, eq=False)
class Abort(Message):
    """Ends the run for everyone: a word from `errors.REASONS` and whom or what it is about."""

    code: str
    about: str


CONTROL: Final = (Join, Joined, Ack, Waiting, Abort)


class Channel:
    """Keeps the numbers of one connection; `route` is where the neighbour can be reached, if anywhere."""

    #: The neighbours whose messages were passed on here while there was no room: one entry a message.
    creditors: deque[Channel]

    def __init__(self, neighbour: str) -> None:
        self.neighbour = neighbour
        self.route: bytes | None = None
        self.lost_at: float | None = None
        self.excused_at = 0.0  # it last said that it waits for someone else
        self.relayed_at = 0.0  # it last said something to a third party
        self.ended = False  # the neighbour has said Bye
        self.creditors = deque()
        self.received = 0
        self.waiting = 0  # received and not yet taken by the role here
        self._told = 0  # the last acknowledgement that went out
        self._promised = 0  # acknowledged before it was taken
        self._taken_bytes = 0  # taken since the last acknowledgement
        self._sent = 0
        self._unacknowledged: deque[tuple[int, Frames]] = deque()
        self._held_bytes = 0

    def number(self, frames: Frames) -> None:
        """Takes a message over for sending; `latest` and `resend` give it back, stamped."""
        self._sent += 1
        self._unacknowledged.append((self._sent, frames))
        self._held_bytes += frames_bytes(frames)

    def latest(self, session: bytes) -> list[Buffer]:
        """Returns the frames of the message numbered last."""
        sequence, frames = self._unacknowledged[-1]
        return self._stamped(frames, session, sequence)

    def resend(self, session: bytes, received: int) -> list[list[Buffer]]:
        """Returns, in order, all that a neighbour which last got number `received` lacks.

        Raises:
            RemoteProtocolError: if the neighbour names a number that was never sent, or one so old
                that what follows it was acknowledged and let go.
        """
        self.acknowledge(received)
        if self._unacknowledged and self._unacknowledged[0][0] != received + 1:
            raise RemoteProtocolError(self.neighbour, "asks again for messages that it has acknowledged")
        return [self._stamped(frames, session, sequence) for sequence, frames in self._unacknowledged]

    def control(self, frames: Frames, session: bytes) -> list[Buffer]:
        """Stamps one of the link's own words."""
        return self._stamped(frames, session, 0)

    def accept(self, envelope: Envelope, *, bounded: bool = True) -> bool:
        """Books an arrived message; tells whether it is new (a duplicate after a cut is not).

        Args:
            envelope: the message.
            bounded: whether the neighbour has to keep to its window; a hub that relays may go beyond.

        Raises:
            RemoteProtocolError: if a number was left out, or the neighbour does not wait for room.
        """
        self.acknowledge(envelope.acknowledged)
        if envelope.sequence <= self.received:
            return False
        if envelope.sequence != self.received + 1:
            raise RemoteProtocolError(self.neighbour, "left out a message")
        if bounded and self.received - self._told > WINDOW_MESSAGES:  # one more: its Bye waits for no room
            raise RemoteProtocolError(self.neighbour, "sends more than there is room for")
        self.received += 1
        self.waiting += 1
        return True

    def acknowledge(self, number: int) -> None:
        """Lets go of what the neighbour has.

        Raises:
            RemoteProtocolError: if it acknowledges what was never sent.
        """
        if number > self._sent:
            raise RemoteProtocolError(self.neighbour, "acknowledges a message that was never sent")
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            _, frames = self._unacknowledged.popleft()
            self._held_bytes -= frames_bytes(frames)

    def taken(self, n_bytes: int) -> bool:
        """Books that the role here took a message; tells whether an `Ack` of its own is due."""
        self.waiting -= 1
        self._taken_bytes += n_bytes
        return self._due - self._told >= WINDOW_MESSAGES // 2 or self._taken_bytes >= WINDOW_BYTES // 2

    def repay(self) -> list[Channel]:
        """Returns, as far as there is room again, those whose messages were passed on without room."""
        n_repaid = min(len(self.creditors), max(0, WINDOW_MESSAGES - len(self._unacknowledged)))
        return [self.creditors.popleft() for _ in range(n_repaid)]

    def promise(self) -> None:
        """Counts what has arrived as taken: two parties with full windows would else wait for ever."""
        self._promised = self.received

    @property
    def untold(self) -> bool:
        """Whether the neighbour has not been told of all that was taken."""
        return self._due > self._told

    @property
    def clear(self) -> bool:
        """Whether everything that was sent has been acknowledged."""
        return not self._unacknowledged

    @property
    def full(self) -> bool:
        """Whether the window is used up."""
        return len(self._unacknowledged) >= WINDOW_MESSAGES or self._held_bytes >= WINDOW_BYTES

    @property
    def _due(self) -> int:
        return max(self._promised, self.received - self.waiting)

    def _stamped(self, frames: Frames, session: bytes, sequence: int) -> list[Buffer]:
        self._told = self._due
        self._taken_bytes = 0
        return stamp(frames, session=session, sequence=sequence, acknowledged=self._due)
