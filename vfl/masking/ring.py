"""Fixed-point numbers in the integers modulo 2^32 or 2^64, where a sum is exact and masks cancel.

A float32 h becomes q = rint(h · 2^f), clamped to what the head-room allows, so that the sum of all
contributors' q cannot leave the signed range: wrapping is what masks do, never what values do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from vfl.errors import ConfigError

#: 2^-126 is the smallest float32 with all its digits: no value here is ever below it, but zero.
_MOST_FRACTION_BITS: Final = 126
_SIGNED: Final = {32: torch.int32, 64: torch.int64}
_SIGNED_NP: Final = {32: np.int32, 64: np.int64}
_UNSIGNED: Final[dict[int, type[np.unsignedinteger]]] = {32: np.uint32, 64: np.uint64}


@dataclass(frozen=True)
class Ring:
    """Is the integers modulo 2^bits, read as multiples of 2^-fraction_bits.

    Attributes:
        bits: 32 or 64.
        fraction_bits: f; a value is kept to the nearest multiple of 2^-f.
        clip: values beyond ±clip are clamped, and counted.

    Raises:
        ConfigError: if one clipped value does not fit.
    """

    bits: int
    fraction_bits: int
    clip: float

    def __post_init__(self) -> None:
        _check(self.bits, self.clip)
        _check_fraction(self.fraction_bits)
        _check_room(self.bits, self.fraction_bits, self.clip, 1)

    @classmethod
    def fitting(cls, bits: int, clip: float, contributors: int, fraction_bits: int | None = None) -> Ring:
        """Makes the ring in which the sum of so many clipped values fits.

        Args:
            bits: 32 or 64.
            clip: the bound of a single value.
            contributors: how many are summed, at most.
            fraction_bits: None takes as many as fit.

        Raises:
            ConfigError: if contributors · clip · 2^fraction_bits does not fit, with what would.
        """
        _check(bits, clip)
        if contributors < 1:
            raise ConfigError(f"contributors = {contributors}: a sum needs one at least")
        if fraction_bits is None:
            fraction_bits = max(_most_bits(bits, clip, contributors), 0)
        _check_fraction(fraction_bits)
        _check_room(bits, fraction_bits, clip, contributors)
        return cls(bits, fraction_bits, clip)

    @property
    def dtype(self) -> torch.dtype:
        """The signed type in which elements cross the wire."""
        return _SIGNED[self.bits]

    @property
    def np_dtype(self) -> type[np.unsignedinteger]:
        """The unsigned type in which elements are summed: its overflow is defined as wrapping."""
        return _UNSIGNED[self.bits]

    @cached_property
    def limit(self) -> int:
        """The largest element that a value becomes; a float32 holds it exactly."""
        return _limit(self.clip, self.fraction_bits)

    @cached_property
    def _scale(self) -> np.float32:
        return np.float32(2.0**self.fraction_bits)

    @cached_property
    def _most(self) -> np.float32:
        return np.float32(self.clip)

    def encode(self, h: Tensor) -> tuple[Tensor, int]:
        """Rounds values to elements, half to even; returns them and how many were clamped.

        Scaling by 2^f and rounding are exact in float32, or give infinity, which is clamped.

        Raises:
            ValueError: if h is not float32, or holds what is not finite.
        """
        if h.dtype != torch.float32:
            raise ValueError(f"{h.dtype} where float32 is due")
        values, n_clamped = h.detach().numpy(), 0
        if values.size and not max(-values.min(), values.max()) <= self._most:  # as for what is no number
            if not np.isfinite(values).all():
                raise ValueError("holds what is not finite")
            with np.errstate(over="ignore"):
                scaled = np.rint(values * self._scale)
            n_clamped = int(np.count_nonzero(np.abs(scaled) > self.limit))
            values = np.clip(values, -self._most, self._most)
        scaled = np.empty(values.shape, np.float32)
        np.rint(np.multiply(values, self._scale, out=scaled), out=scaled)
        return torch.from_numpy(scaled.astype(_SIGNED_NP[self.bits])), n_clamped

    def decode(self, total: Tensor) -> Tensor:
        """Reads elements as values: the one rounding is from the integer to float32."""
        elements = total.numpy()
        # A multiple of 2^-126 at least, so the product has no fewer digits than its factor.
        values = elements.astype(np.float32) * np.float32(2.0**-self.fraction_bits)
        return torch.from_numpy(np.asarray(values))

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """Sums elements in the ring, into memory of its own.

        Raises:
            ValueError: if there are none, or one is of another type or shape.
        """
        if not parts:
            raise ValueError("a sum of nothing has no shape")
        for part in parts:
            if part.dtype != self.dtype or part.shape != parts[0].shape:
                raise ValueError(
                    f"{part.dtype} {list(part.shape)} where {self.dtype} {list(parts[0].shape)} is due"
                )
        elements = [part.numpy().view(self.np_dtype) for part in parts]
        total = np.array(elements[0]) if len(elements) == 1 else np.add(elements[0], elements[1])
        for other in elements[2:]:
            np.add(total, other, out=total)
        return self.tensor(total)

    def add(self, mine: Tensor, other: Tensor) -> Tensor:
        """Adds elements of the same shape to `mine`, in its own memory, and returns it."""
        elements = mine.numpy().view(self.np_dtype)
        np.add(elements, other.numpy().view(self.np_dtype), out=elements)
        return mine

    def tensor(self, elements: np.ndarray) -> Tensor:
        """Shows elements, without copying them, in the type in which they cross the wire."""
        return torch.from_numpy(elements.view(_SIGNED_NP[self.bits]))

    def error_bound(self, contributors: int) -> float:
        """Bounds |decoded sum - sum of h| before decoding rounds once, where no value was clamped."""
        return math.ldexp(contributors, -self.fraction_bits - 1)


def _check(bits: int, clip: float) -> None:
    if bits not in _SIGNED:
        raise ConfigError(f"bits = {bits}: set 32 or 64")
    if not (math.isfinite(clip) and clip > 0):
        raise ConfigError(f"clip = {clip}: set a bound above 0 that few values pass, such as 16.0")
    single = _single(clip)
    if not np.finfo(np.float32).tiny <= single < np.inf:
        raise ConfigError(f"clip = {clip}: is no float32; set a bound that few values pass, such as 16.0")


def _check_fraction(fraction_bits: int) -> None:
    if not 0 <= fraction_bits <= _MOST_FRACTION_BITS:
        raise ConfigError(f"fraction_bits = {fraction_bits}: set 0 to {_MOST_FRACTION_BITS}, or leave it out")


def _single(clip: float) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(clip)


def _limit(clip: float, fraction_bits: int) -> int:
    """Returns rint(clip · 2^f), for the float32 nearest to clip: values are rounded in float32."""
    return round(Fraction(float(_single(clip))) * (1 << fraction_bits))


def _most_bits(bits: int, clip: float, contributors: int) -> int:
    """Returns the most fraction bits that leave room for the sum; -1 if none do."""
    fitting = (f for f in range(_MOST_FRACTION_BITS, -1, -1) if _has_room(bits, f, clip, contributors))
    return next(fitting, -1)


def _has_room(bits: int, fraction_bits: int, clip: float, contributors: int) -> bool:
    return contributors * _limit(clip, fraction_bits) < 1 << (bits - 1)


def _check_room(bits: int, fraction_bits: int, clip: float, contributors: int) -> None:
    if _has_room(bits, fraction_bits, clip, contributors):
        return
    most = _most_bits(bits, clip, contributors)
    fewer = f"fraction_bits = {most} or fewer, " if most >= 0 else ""
    wider = " or bits = 64" if bits == 32 else ""
    raise ConfigError(
        f"clip = {clip}, fraction_bits = {fraction_bits} and {contributors} contributors may sum to more "
        f"than {bits} bits hold: set {fewer}a smaller clip{wider}"
    )
