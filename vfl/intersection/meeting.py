"""Where sets of hidden values meet: gathers every party's, and tells which of each all hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vfl.intersection.hidden import VALUE_BYTES, are_in, as_values, common_values, is_ascending
from vfl.intersection.pieces import Incoming, refuse


class Meeting:
    """Holds the sets that are there and checks the others' pieces; 16 bytes a row of each set."""

    def __init__(self, rows: Mapping[str, int], piece: int) -> None:
        """Awaits a set of so many rows from each owner, in pieces of `piece` rows."""
        self.coming = {name: Incoming(name, n, piece, VALUE_BYTES) for name, n in rows.items() if n}
        nothing = np.empty(0, dtype=f"S{VALUE_BYTES}")
        self._sets: dict[str, np.ndarray] = {name: nothing for name, n in rows.items() if not n}

    def put(self, owner: str, values: np.ndarray) -> None:
        """Adds a whole set, ascending, [n] S16; nothing more is awaited of it."""
        self._sets[owner] = values
        self.coming.pop(owner, None)

    def take(self, sender: str, owner: str, number: int, content: Tensor) -> None:
        """Adds a piece.

        Raises:
            RemoteProtocolError: if the piece is not due, or its values do not go on ascending.
        """
        if owner not in self.coming:
            refuse(sender, f"says more of the set of {owner[:40]!r} than was due")
        coming = self.coming[owner]
        values = as_values(coming.take(sender, number, content))  # [m]
        before = coming.kept[-1][-1:] if coming.kept else values[:0]
        if not is_ascending(np.concatenate([before, values])):
            refuse(sender, f"says values of {owner}'s set that do not ascend, or says one twice")
        coming.kept.append(values)
        if coming.complete:
            self.put(owner, coming.all_kept())

    @property
    def complete(self) -> bool:
        """Whether every set is there."""
        return not self.coming

    def answers(self) -> dict[str, np.ndarray]:
        """Tells for each owner's values, in their order, which of them all hold; lets go of the sets."""
        shared = common_values(list(self._sets.values()))
        return {owner: are_in(self._sets.pop(owner), shared) for owner in list(self._sets)}
