"""Parties in a ring: who is next, and how much may be under way.

For each set at most `ahead` pieces and credits are under way together, 32 over all sets. A link leaves up
to 31 messages unacknowledged that were taken: 63 in all, one less than a window, so nobody ever waits to
say something, and no ring of waiting parties can close. What comes before the sets is less than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MOST_AHEAD: Final = 3  # one being worked on, one on its way there and one back
_MOST_UNDER_WAY: Final = 32


def pieces_ahead(k: int) -> int:
    """Returns how many pieces of each of `k` sets may be under way, so that all are 32 at most."""
    return min(_MOST_AHEAD, _MOST_UNDER_WAY // k)


@dataclass(frozen=True)
class Ring:
    """Knows who stands where, and what the parties agreed on before the first set goes round."""

    me: str
    hub: str
    roster: tuple[str, ...]
    rows: Mapping[str, int]
    salt: bytes

    @property
    def ahead(self) -> int:
        """How many pieces of each set may be under way."""
        return pieces_ahead(len(self.roster))

    def after(self, name: str) -> str:
        """Returns the next party: the one that it says points to, and whose set it keeps."""
        return self.roster[(self.roster.index(name) + 1) % len(self.roster)]

    def keeper(self, owner: str) -> str:
        """Returns who keeps the owner's set: the party before it."""
        return self.roster[self.roster.index(owner) - 1]
