"""Parties in a ring: who is next, how much may be under way, and what goes past the hub unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from vfl.intersection.hidden import seal

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
    secrets: Mapping[str, bytes]
    """What only this party and that one can compute."""

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

    def sealed(self, points: np.ndarray, sender: str, to: str, owner: str, number: int) -> np.ndarray:
        """Seals a chunk on a hop that the hub relays, or opens it again."""
        if self.hub in (sender, to):
            return points
        secret = self.secrets[to if sender == self.me else sender]
        return seal(points, self.salt + secret, sender, to, owner, str(number))
