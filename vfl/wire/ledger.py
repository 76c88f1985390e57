"""What a run cost: bytes, messages and waiting, by peer and phase."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Entry:
    """Counts the messages that passed between this party and one peer in one phase."""

    sent_bytes: int = 0
    sent_messages: int = 0
    received_bytes: int = 0
    received_messages: int = 0
    waited_s: float = 0.0


@dataclass
class Ledger:
    """Books true frame lengths: the header and tensor frames of every message of the dialogue.

    What ZeroMQ and CURVE add beneath (about 50 bytes a frame) and the link's own acknowledgements
    are not in it, so that the same run books the same bytes in memory and over a network.
    """

    entries: dict[tuple[str, str], Entry] = field(default_factory=lambda: defaultdict(Entry))

    def sent(self, peer: str, phase: str, n_bytes: int) -> None:
        """Books one message said to `peer`."""
        entry = self.entries[peer, phase]
        entry.sent_bytes += n_bytes
        entry.sent_messages += 1

    def received(self, peer: str, phase: str, n_bytes: int) -> None:
        """Books one message heard from `peer`."""
        entry = self.entries[peer, phase]
        entry.received_bytes += n_bytes
        entry.received_messages += 1

    def waited(self, peer: str, phase: str, seconds: float) -> None:
        """Books time spent with nothing to do but wait for `peer`."""
        self.entries[peer, phase].waited_s += seconds

    @property
    def sent_bytes(self) -> int:
        """All bytes said, to all peers."""
        return sum(entry.sent_bytes for entry in self.entries.values())

    @property
    def received_bytes(self) -> int:
        """All bytes heard, from all peers."""
        return sum(entry.received_bytes for entry in self.entries.values())

    def rows(self) -> list[dict[str, Any]]:
        """Returns one JSON-able row a peer and phase, in the order in which they first spoke."""
        entries = self.entries.items()
        return [{"peer": peer, "phase": phase, **asdict(entry)} for (peer, phase), entry in entries]
