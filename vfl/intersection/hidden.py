"""Values that say nothing of what they stand for: shuffled, sorted and compared.

A value is 16 bytes: the first half of a blinded point, or a keyed hash. Two of n differing values are
equal by chance with probability n² / 2^128 or so.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

VALUE_BYTES: Final = 16


def secret_order(n: int) -> np.ndarray:
    """Draws a permutation, [n] int64, from the system's secure source."""
    drawn = np.frombuffer(secrets.token_bytes(8 * n), dtype="<u8")  # [n]
    return np.argsort(drawn, kind="stable").astype(np.int64)


def as_values(raw: np.ndarray) -> np.ndarray:
    """Takes rows of bytes, [n, 16 or more] uint8, for values, [n] S16, by their first 16 bytes.

    NumPy leaves trailing zeros out of account, which tells values of one length apart all the same.
    """
    return np.ascontiguousarray(raw[:, :VALUE_BYTES]).view(f"S{VALUE_BYTES}")[:, 0]  # [n]


def as_tensor(values: np.ndarray) -> Tensor:
    """Writes values, [n] S16, as a tensor [n, 16] uint8."""
    return torch.from_numpy(values.view(np.uint8).reshape(-1, VALUE_BYTES).copy())


class Sorted:
    """Holds values, [n], sorted; `order`, [n] int64, is where each was before."""

    def __init__(self, values: np.ndarray) -> None:
        self.order: np.ndarray = np.argsort(values, kind="stable")
        self.values: np.ndarray = values[self.order]

    @property
    def repeats(self) -> bool:
        """Whether a value is there twice."""
        return not is_ascending(self.values)


def is_ascending(values: np.ndarray) -> bool:
    """Tells whether each value, [n], is greater than the one before: sorted, and none twice."""
    return bool(np.all(values[:-1] < values[1:]))


def common_values(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Intersects ascending sets of values: what all of them hold, ascending."""
    shared = min(sets, key=len)
    for values in sets:
        shared = shared[are_in(shared, values)]
    return shared


def are_in(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tells for each of `values`, [n], whether it is among the ascending `others`: [n] bool."""
    if not len(others):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(others, values), len(others) - 1)
    found: np.ndarray = others[places] == values
    return found


def pick(ids: Sequence[str] | np.ndarray, rows: np.ndarray) -> list[str]:
    """Picks ids by their places, [m] int64."""
    return ids[rows].tolist() if isinstance(ids, np.ndarray) else [ids[row] for row in rows.tolist()]


def fingerprints(points: np.ndarray) -> np.ndarray:
    """Keeps 8 bytes of each point, [m] uint64: enough to know one by that is said twice."""
    prints: np.ndarray = points[:, :8].copy().view("<u8")[:, 0]
    return prints
