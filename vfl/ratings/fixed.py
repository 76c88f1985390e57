"""Fixed-point sums over a participant's own ratings: whole numbers, so that no order matters.

Each rating's contribution to a shared entity is rounded to a multiple of 2^-f *before* it is summed. How
ratings are spread over participants can then not change a total, in whichever order it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
from torch import Tensor

from vfl.errors import ConfigError
from vfl.masking.ring import Ring

#: Where few numbers a participant are summed: residuals, errors, ranks; up to 2,047 participants.
SUMS: Final = Ring(64, 20, 2.0**32)

#: How many ratings are worked on at a time: [r + 1] numbers each stay within the caches.
CHUNK: Final = 65_536

_CLIP: Final = {"als": 2.0**20, "sgd": 2.0**12}
_BITS: Final = {"als": 64, "sgd": 32}
#: As many as leave room for 2,047 participants at the 64-bit ring of "als".
_FRACTION_BITS: Final = 30
_SAFE: Final = 2.0**62


@lru_cache(maxsize=16)  # in one process many participants ask for the same
def default_ring(
    solver: str,
    contributors: int,
    *,
    bits: int | None = None,
    clip: float | None = None,
    fraction_bits: int | None = None,
) -> Ring:
    """Makes the ring that a solver's sums are taken in; what is None has its default.

    With 64 bits the default number of fraction bits does not hang on how many contribute, so that the model
    does not, either. With 32 bits there is no room for that: as many are taken as fit.

    Raises:
        ConfigError: the sum of so many contributors does not fit, with what would.
    """
    bits = _BITS[solver] if bits is None else bits
    clip = _CLIP[solver] if clip is None else clip
    if fraction_bits is None and bits == 64:
        fraction_bits = _FRACTION_BITS
    return Ring.fitting(bits, clip, contributors, fraction_bits)


def chunks(n: int, size: int = CHUNK) -> Iterator[slice]:
    """Cuts n ratings into runs of at most `size`, where it does not matter between which of them."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


class FixedSums:
    """Adds up contributions by group, [groups, t] whole numbers.

    Args:
        groups: how many groups.
        t: how many numbers each contribution has.
        ring: where the sums go from here.
        most: how many contributions the largest group has.
    """

    def __init__(self, groups: int, t: int, ring: Ring, most: int) -> None:
        self._sums = np.zeros((t, groups), np.int64)
        self._ring, self._scale = ring, 2.0**ring.fraction_bits
        self._bound = _SAFE / self._scale / max(most, 1)  # beyond it, 64 bits might not hold a group's sum

    def add(self, column: int, values: np.ndarray, starts: np.ndarray, groups: np.ndarray) -> None:
        """Adds one number of each contribution; `values` [n] are in the order of their groups.

        Args:
            column: which of the t numbers.
            values: [n] float64.
            starts: where each run of one group begins in `values`.
            groups: the group of each run.

        Raises:
            ConfigError: a value is not finite, or far beyond what is ever clipped: training has diverged.
        """
        if values.size:
            self._sums[column, groups] += np.add.reduceat(self._fixed(values), starts)

    def add_all(self, values: np.ndarray, starts: np.ndarray, groups: np.ndarray) -> None:
        """Adds all t numbers of each contribution, `values` [n, t], as `add` does one."""
        if values.size:
            self._sums[:, groups] += np.add.reduceat(self._fixed(values), starts, axis=0).T

    def _fixed(self, values: np.ndarray) -> np.ndarray:
        if not max(-values.min(), values.max()) <= self._bound:  # so for what is no number
            refuse_diverged("contributions")
        fixed: np.ndarray = np.rint(values * self._scale).astype(np.int64)
        return fixed

    def elements(self) -> tuple[Tensor, int]:
        """Gives the sums as the ring's elements [groups, t], clamped to its clip, and how many were."""
        limit = self._ring.limit
        n_clamped = int(np.count_nonzero(np.abs(self._sums) > limit))
        if n_clamped:
            np.clip(self._sums, -limit, limit, out=self._sums)
        unsigned = np.ascontiguousarray(self._sums.T).astype(self._ring.np_dtype)
        return self._ring.tensor(unsigned), n_clamped


def fixed_total(values: np.ndarray) -> int:
    """Sums values [n], each rounded to a multiple of SUMS's 2^-f first.

    Raises:
        ConfigError: a value is not finite: training has diverged.
    """
    if not np.isfinite(values).all():
        refuse_diverged("residuals")
    return int(np.rint(values * 2.0**SUMS.fraction_bits).astype(np.int64).sum())


def scalar_elements(sums: list[int]) -> tuple[Tensor, int]:
    """Gives a few sums as SUMS's elements [k], clamped to its clip, and how many were."""
    clamped = [min(max(one, -SUMS.limit), SUMS.limit) for one in sums]
    n_clamped = sum(one != kept for one, kept in zip(sums, clamped, strict=True))
    return SUMS.tensor(np.array(clamped, np.int64).view(SUMS.np_dtype)), n_clamped


def decode(total: Tensor, ring: Ring) -> np.ndarray:
    """Reads elements as float64 values: the one rounding is from the integer."""
    values: np.ndarray = total.numpy().astype(np.float64)
    values *= math.ldexp(1.0, -ring.fraction_bits)
    return values


def refuse_diverged(what: str) -> None:
    """Raises for numbers that no longer are any."""
    raise ConfigError(
        f"training has diverged (its {what} are not finite, or without bound): raise regularisation or lower "
        "lr"
    )
