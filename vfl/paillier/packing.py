"""Many signed fixed-point numbers in one plaintext: slots so wide that no sum can reach its neighbour.

A row of integers v becomes Σ v_i · 2^(s·i): adding such numbers adds slot by slot, multiplying one by a
plain integer multiplies every slot. A negative slot borrows from the next, and reading gives it back. Only
the *last* result must fit its slots: on the way there numbers of any size are right modulo n, such as the
two shares of a weight, whose products with an activation sum to the weight's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from gmpy2 import mpz

from vfl.errors import ConfigError
from vfl.paillier.noise import Draws

#: Wide enough for sums of 63 bits under noise of 64 more.
MOST_SLOT_BITS: Final = 128

#: A slot of so many bits is read into an int64, with a bit to spare; a wider one into Python's integers.
MOST_INT64_SLOT_BITS: Final = 63

#: So many slots at a time are spread to their bits, a byte each.
_SLOTS_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True)
class FixedPoint:
    """Is how real numbers become integers: multiples of 2^-fraction_bits of `bits` bits with their sign.

    Raises:
        ConfigError: if integers of so many bits cannot be rounded from float64.
    """

    bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 53:
            raise ConfigError(f"value bits = {self.bits}: set 2 to 53")
        if not 0 <= self.fraction_bits <= 512:
            raise ConfigError(f"fraction_bits = {self.fraction_bits}: set 0 to 512")

    @property
    def limit(self) -> int:
        """The largest magnitude of an integer."""
        return (1 << (self.bits - 1)) - 1

    def encode(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """Rounds values to int64, half to even; returns them and how many were clamped.

        Raises:
            ValueError: if one is no number.
        """
        if np.isnan(values).any():
            raise ValueError("holds what is no number")
        with np.errstate(over="ignore"):
            scaled = np.rint(np.asarray(values, np.float64) * 2.0**self.fraction_bits)
        n_clamped = int(np.count_nonzero(np.abs(scaled) > self.limit))
        return np.clip(scaled, -self.limit, self.limit).astype(np.int64), n_clamped


@dataclass(frozen=True)
class Packing:
    """Is how a plaintext is divided: `slots` numbers of `slot_bits` bits with their sign.

    Raises:
        ConfigError: if slots would be wider than is of use, or there are none.
    """

    slot_bits: int
    slots: int

    def __post_init__(self) -> None:
        if not 2 <= self.slot_bits <= MOST_SLOT_BITS:
            raise ConfigError(
                f"slots of {self.slot_bits} bits: set fewer value bits, multiplier bits or additions, so "
                f"that a slot needs 2 to {MOST_SLOT_BITS}"
            )
        if self.slots < 1:
            raise ConfigError(
                f"slots = {self.slots}: a plaintext must hold one at least; set a larger key_bits"
            )

    @classmethod
    def fitting(
        cls,
        key_bits: int,
        *,
        value_bits: int,
        multiplier_bits: int = 1,
        additions: int = 1,
        noise_bits: int = 0,
    ) -> Packing:
        """Sizes slots for sums of so many products of a value and a plain integer.

        Args:
            key_bits: of the modulus that plaintexts are read by.
            value_bits: of a value, with its sign: |v| < 2^(value_bits - 1).
            multiplier_bits: of a plain integer, with its sign: |x| < 2^(multiplier_bits - 1); 1 for a
                multiplication by nothing.
            additions: how many products are summed in one slot.
            noise_bits: room for `noise` that hides a sum but for 2^-noise_bits; 0 for none.

        Raises:
            ConfigError: if the slots cannot be read, with what to set.
        """
        if value_bits < 2 or multiplier_bits < 1 or additions < 1 or noise_bits < 0:
            raise ConfigError(
                f"value_bits = {value_bits}, multiplier_bits = {multiplier_bits}, additions = {additions}, "
                f"noise_bits = {noise_bits}: set 2 or more, 1 or more, 1 or more and 0 or more"
            )
        most = additions * ((1 << (value_bits - 1)) - 1) * _magnitude(multiplier_bits)
        slot_bits = (most + (most << noise_bits if noise_bits else 0)).bit_length() + 1
        return cls(slot_bits, (key_bits - 1) // slot_bits)  # so that |Σ| < 2^(key_bits - 2) <= n / 2

    @property
    def limit(self) -> int:
        """The largest magnitude that a slot holds."""
        return (1 << (self.slot_bits - 1)) - 1

    def check(self, bound: int, what: str) -> int:
        """Returns a bound that slots hold.

        Raises:
            ConfigError: if they do not, with how many bits would.
        """
        if bound > self.limit:
            raise ConfigError(
                f"{what} may reach {bound.bit_length() + 1} bits where slots hold {self.slot_bits}: declare "
                "more additions or multiplier bits, or set fewer value bits"
            )
        return bound

    def noise(self, bound: int, *shape: int, draws: Draws | None = None) -> np.ndarray:
        """Draws uniform integers that, added to sums within ±bound, stay within their slots: an object array.

        One such sum differs from another under its noise with probability bound / (limit - bound) at most.

        Args:
            bound: of the sums' magnitudes.
            shape: of the array.
            draws: where they come from; None draws them afresh.

        Raises:
            ConfigError: if there is no room beside the bound.
        """
        room = self.limit - self.check(bound + 1, "a sum and its noise") + 1
        source = draws or Draws(None)
        drawn = [source.within(room) for _ in range(math.prod(shape))]
        return np.array(drawn, object).reshape(shape)

    def pack(self, rows: np.ndarray) -> list[mpz]:
        """Turns [r, m] integers, m <= slots, into r numbers, each Σ v_i · 2^(slot_bits · i).

        Integers of int64 must fit their slots; an object array may hold any, and is right modulo n.
        """
        if rows.dtype == object:
            return [self._summed(row) for row in rows]
        self.check(_largest(rows), "a value")
        if self.slot_bits > MOST_INT64_SLOT_BITS:
            return [self._summed(row) for row in rows]
        packed: list[mpz] = []
        at_once = max(1, _SLOTS_AT_ONCE // max(1, rows.shape[1]))
        for start in range(0, len(rows), at_once):
            packed += self._packed(rows[start : start + at_once])
        return packed

    def unpack(self, numbers: Sequence[mpz], n: mpz, width: int) -> np.ndarray:
        """Reads plaintexts in [0, n) as [r, width] int64, or an object array where slots are wider.

        Raises:
            ValueError: if one is none of what so many slots can hold: a peer computed something else.
        """
        offset, lifted = self._offset(width), []
        for number in numbers:
            lifted.append((number - n if 2 * number > n else number) + offset)
            if lifted[-1] < 0 or lifted[-1].bit_length() > width * self.slot_bits:
                raise ValueError("a plaintext that its slots cannot hold")
        read = self._read_wide if self.slot_bits > MOST_INT64_SLOT_BITS else self._read
        return read(lifted, width) - (1 << (self.slot_bits - 1))

    def _read(self, lifted: list[mpz], width: int) -> np.ndarray:
        n_bytes = (width * self.slot_bits + 7) // 8
        raw = b"".join(one.to_bytes(n_bytes, "little") for one in lifted)
        spread = np.unpackbits(
            np.frombuffer(raw, np.uint8).reshape(len(lifted), n_bytes),
            axis=1,
            count=width * self.slot_bits,
            bitorder="little",
        ).reshape(-1, self.slot_bits)  # [r · width, slot_bits]
        padded = np.zeros((len(spread), 64), np.uint8)
        padded[:, : self.slot_bits] = spread
        return np.packbits(padded, axis=1, bitorder="little").view("<i8").reshape(len(lifted), width)

    def _read_wide(self, lifted: list[mpz], width: int) -> np.ndarray:
        mask, shifts = (1 << self.slot_bits) - 1, range(0, width * self.slot_bits, self.slot_bits)
        read = np.empty((len(lifted), width), object)
        for place, number in enumerate(lifted):
            read[place] = [int(number >> shift) & mask for shift in shifts]
        return read

    def _packed(self, rows: np.ndarray) -> list[mpz]:
        lifted = np.ascontiguousarray(rows, "<i8") + (1 << (self.slot_bits - 1))
        spread = np.unpackbits(lifted.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        kept = spread[:, : self.slot_bits].reshape(len(rows), -1)  # [r, m · slot_bits]
        raw, offset = np.packbits(kept, axis=1, bitorder="little"), self._offset(rows.shape[1])
        return [mpz.from_bytes(row.tobytes(), "little") - offset for row in raw]

    def _summed(self, row: np.ndarray) -> mpz:
        total = mpz(0)
        for value in reversed(row.tolist()):
            total = (total << self.slot_bits) + value
        return total

    def _offset(self, width: int) -> mpz:
        """Returns 2^(slot_bits - 1) in every slot, which makes all of them positive."""
        return self._offsets[width]

    @cached_property
    def _offsets(self) -> list[mpz]:
        half = mpz(1) << (self.slot_bits - 1)
        ones = [
            ((mpz(1) << (self.slot_bits * m)) - 1) // ((mpz(1) << self.slot_bits) - 1)
            for m in range(self.slots + 1)
        ]
        return [half * one for one in ones]


@dataclass(frozen=True)
class Layout:
    """Is how a matrix [rows, width] lies in plaintexts: row after row.

    A row wider than the slots takes several plaintexts (`blocks`). Narrow rows may share one
    (`rows_each`); as the factor of a product, which cannot move slots, a narrow row may instead be there
    several times, once at each place in the plaintext (`copies`), so that the product's rows share one.

    Raises:
        ConfigError: if so many narrow rows or copies do not fit one plaintext.
    """

    packing: Packing
    rows: int
    width: int
    rows_each: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        together = self.rows_each * self.copies
        if self.rows < 1 or self.width < 1 or self.rows_each < 1 or self.copies < 1:
            raise ConfigError(f"a matrix of {self.rows} × {self.width}: all sizes must be 1 or more")
        if self.rows_each > 1 < self.copies or (together > 1 and together * self.width > self.packing.slots):
            raise ConfigError(
                f"{together} rows of {self.width} do not fit the {self.packing.slots} slots of a plaintext: "
                f"set {max(1, self.packing.slots // self.width)} or fewer"
            )

    @property
    def blocks(self) -> int:
        """How many plaintexts a row takes."""
        return math.ceil(self.width / self.packing.slots)

    @property
    def n_cells(self) -> int:
        """How many plaintexts the matrix takes."""
        return math.ceil(self.rows / self.rows_each) * self.blocks * self.copies

    @property
    def cell_slots(self) -> int:
        """How many slots are filled in one plaintext; copies are the same slots elsewhere."""
        return min(self.width * self.rows_each, self.packing.slots)

    def pack(self, values: np.ndarray) -> list[mpz]:
        """Turns [rows, width] integers into `n_cells` numbers.

        Raises:
            ValueError: if the shape is another.
            ConfigError: if an int64 does not fit its slot.
        """
        if values.shape != (self.rows, self.width):
            raise ValueError(f"{list(values.shape)} where {[self.rows, self.width]} is due")
        groups = math.ceil(self.rows / self.rows_each)
        filled = np.zeros(
            (groups * self.rows_each, self.blocks * self.cell_slots // self.rows_each), values.dtype
        )
        filled[: self.rows, : self.width] = values
        cells = self.packing.pack(filled.reshape(-1, self.cell_slots))
        shifts = [copy * self.width * self.packing.slot_bits for copy in range(self.copies)]
        return [cell << shift for cell in cells for shift in shifts] if self.copies > 1 else cells

    def unpack(self, numbers: Sequence[mpz], n: mpz) -> np.ndarray:
        """Reads `n_cells` plaintexts in [0, n) as [rows, width], as `Packing.unpack` does.

        Raises:
            ValueError: if they are of another count, or hold what slots cannot.
        """
        if len(numbers) != self.n_cells or self.copies > 1:
            raise ValueError(f"{len(numbers)} plaintexts where {self.n_cells} are due")
        slots = self.packing.unpack(numbers, n, self.cell_slots)
        groups = math.ceil(self.rows / self.rows_each)
        return slots.reshape(groups * self.rows_each, -1)[: self.rows, : self.width].copy()


def _magnitude(multiplier_bits: int) -> int:
    return max(1, (1 << (multiplier_bits - 1)) - 1)


def _largest(values: np.ndarray) -> int:
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0
