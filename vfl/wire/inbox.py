"""What has arrived for a role and has not been heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from vfl.wire.messages import Message

Entry = tuple[str, Message, int]  # sender, message, bytes

#: A party that waits takes in what others say meanwhile, since what it waits for may be held up behind
#: it; but not without end, or a fast peer's whole table would pile up beside a slow one.
MOST_MESSAGES: Final = 1024
MOST_BYTES: Final = 64 * 1024 * 1024


class Inbox:
    """Keeps messages in the order of their arrival."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def put(self, sender: str, message: Message, n_bytes: int) -> None:
        """Adds a message."""
        self._entries.append((sender, message, n_bytes))
        self._bytes += n_bytes

    def take(self, senders: Sequence[str]) -> Entry | None:
        """Takes the first message of any of `senders`, if there is one."""
        for place, entry in enumerate(self._entries):
            if entry[0] in senders:
                del self._entries[place]
                self._bytes -= entry[2]
                return entry
        return None

    def forget(self, sender: str) -> None:
        """Drops all messages of one party."""
        self._bytes -= sum(entry[2] for entry in self._entries if entry[0] == sender)
        self._entries = deque(entry for entry in self._entries if entry[0] != sender)

    @property
    def has_room(self) -> bool:
        """Whether more may be asked for while nothing is taken."""
        return len(self._entries) < MOST_MESSAGES and self._bytes < MOST_BYTES
