"""Powers of many bases at once, by the way that takes the fewest multiplications.

A product of powers, Π c_i^(x_i), shares its squarings (Straus 1964); windows of signed digits make the
powers of each base fewer (Bernstein, "Pippenger's exponentiation algorithm", 2002, tells the history). Where
bases serve several products, a table of their small powers is made once; where there are many bases for
few products, multiplying bases into one bucket a digit (Pippenger 1976) needs no table. `plan` counts both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import gmpy2
import numpy as np
from gmpy2 import mpz

#: Wider windows have tables that no number of products in this house pays for.
_WINDOWS: Final = range(2, 13)

#: int64 holds shifted digits of numbers of so many bits; beyond, Python's integers are used.
_MOST_INT64_BITS: Final = 61


class FixedBase:
    """Is a table for powers of one base: a multiplication a byte of the exponent, and no squaring.

    The method of Brickell, Gordon, McCurley and Wilson (EUROCRYPT 1992) with all multiples kept. Looking
    up a table at secret places is not the same for all exponents to who can watch this machine's memory.
    """

    def __init__(self, base: mpz, modulus: mpz, exponent_bits: int) -> None:
        self._modulus = modulus
        self._n_bytes = (exponent_bits + 7) // 8
        self._table: list[list[mpz]] = []
        for _ in range(self._n_bytes):
            row = [mpz(1)]
            for _ in range(255):
                row.append(row[-1] * base % modulus)
            self._table.append(row)
            base = row[-1] * base % modulus

    def power(self, exponent: int) -> mpz:
        """Returns base^exponent for 0 <= exponent < 2^exponent_bits."""
        product, modulus = mpz(1), self._modulus
        for row, digit in zip(self._table, exponent.to_bytes(self._n_bytes, "little"), strict=True):
            product = product * row[digit] % modulus
        return product


@dataclass(frozen=True)
class Plan:
    """Is how to compute products of powers.

    Attributes:
        method: tables of each base's small powers, or a bucket a digit.
        window: the bits of a digit, with its sign.
        multiplications: modulo n², squarings and the inversions of all bases included.
    """

    method: Literal["tables", "buckets"]
    window: int
    multiplications: int


def plan(n_bases: int, n_products: int, exponent_bits: int) -> Plan:
    """Counts multiplications for `n_products` products of powers of the same bases; returns the fewest.

    Args:
        n_bases: how many.
        n_products: how many products of powers of these bases.
        exponent_bits: of the largest exponent, without its sign.
    """
    inversions = 3 * n_bases
    plans = []
    for window in _WINDOWS:
        n_digits, half = _n_digits(exponent_bits, window), 1 << (window - 1)
        squarings = n_products * (n_digits - 1) * window
        used = n_products * n_digits * n_bases
        plans.append(Plan("tables", window, inversions + n_bases * 2 * (half - 1) + used + squarings))
        swept = n_products * n_digits * 2 * half
        plans.append(Plan("buckets", window, inversions + used + swept + squarings))
    return min(plans, key=lambda one: one.multiplications)


def products_of_powers(bases: Sequence[mpz], exponents: np.ndarray, modulus: mpz) -> list[mpz]:
    """Returns Π_i bases_i^(x[j, i]) modulo `modulus` for each row x[j] of signed integers.

    How long it takes depends on the exponents: they must be this party's to know, and the time its own.

    Args:
        bases: m units.
        exponents: [j, m] int64, or an object array of Python integers.
        modulus: odd.
    """
    bits = _bits(exponents)
    if not bits:
        return [mpz(1)] * len(exponents)
    chosen = plan(len(bases), len(exponents), bits)
    digits = signed_digits(exponents, chosen.window)  # [digit, j, m]
    inverses = inverted(bases, modulus) if (digits < 0).any() else list(bases)
    if chosen.method == "buckets":
        return [
            _by_buckets(bases, inverses, digits[:, row].tolist(), chosen.window, modulus)
            for row in range(len(exponents))
        ]
    tables = [
        _table(base, inverse, chosen.window, modulus) for base, inverse in zip(bases, inverses, strict=True)
    ]
    return [
        _by_tables(tables, digits[:, row].tolist(), chosen.window, modulus) for row in range(len(exponents))
    ]


def signed_digits(exponents: np.ndarray, window: int) -> np.ndarray:
    """Writes integers in base 2^window with digits in [-2^(window-1), 2^(window-1)): [digit, ...] int16."""
    rest = exponents.astype(object if _bits(exponents) > _MOST_INT64_BITS else np.int64)
    size, half = 1 << window, 1 << (window - 1)
    digits = []
    while rest.any():
        digit = (rest + half) % size - half
        digits.append(digit.astype(np.int16))
        rest = (rest - digit) // size
    return np.stack(digits) if digits else np.zeros((0, *exponents.shape), np.int16)


def inverted(units: Sequence[mpz], modulus: mpz) -> list[mpz]:
    """Inverts all with one inversion and three multiplications each (Montgomery 1987).

    Raises:
        ZeroDivisionError: if one has no inverse.
    """
    running = [mpz(1)]
    for unit in units:
        running.append(running[-1] * unit % modulus)
    inverse = gmpy2.invert(running.pop(), modulus)
    found = []
    for unit in reversed(units):
        found.append(inverse * running.pop() % modulus)
        inverse = inverse * unit % modulus
    return found[::-1]


def _n_digits(exponent_bits: int, window: int) -> int:
    """Returns how many digits the largest such number has: the highest digit is below 2^(window-1) - 1."""
    n_digits = 1
    while ((1 << (window - 1)) - 1) * ((1 << window * n_digits) - 1) < ((1 << exponent_bits) - 1) * (
        (1 << window) - 1
    ):
        n_digits += 1
    return n_digits


def _bits(exponents: np.ndarray) -> int:
    if not exponents.size:
        return 0
    return max(int(exponents.max()).bit_length(), int(exponents.min()).bit_length())


def _table(base: mpz, inverse: mpz, window: int, modulus: mpz) -> list[mpz]:
    """Lists base^d at place d for digits d of both signs: a negative place counts from the end."""
    half = 1 << (window - 1)
    powers, negative = [mpz(1), base], [inverse]
    while len(powers) < half:
        powers.append(powers[-1] * base % modulus)
    while len(negative) < half:
        negative.append(negative[-1] * inverse % modulus)
    return powers[:half] + negative[::-1]


def _by_tables(tables: list[list[mpz]], digits: list[list[int]], window: int, modulus: mpz) -> mpz:
    product, shift = mpz(1), mpz(1) << window
    for row in reversed(digits):
        if product != 1:
            product = gmpy2.powmod(product, shift, modulus)
        for table, digit in zip(tables, row, strict=True):
            if digit:
                product = product * table[digit] % modulus
    return product


def _by_buckets(
    bases: Sequence[mpz], inverses: Sequence[mpz], digits: list[list[int]], window: int, modulus: mpz
) -> mpz:
    product, shift = mpz(1), mpz(1) << window
    for row in reversed(digits):
        if product != 1:
            product = gmpy2.powmod(product, shift, modulus)
        buckets: dict[int, mpz] = {}
        for base, inverse, digit in zip(bases, inverses, row, strict=True):
            if digit:
                unit, place = (base, digit) if digit > 0 else (inverse, -digit)
                found = buckets.get(place)
                buckets[place] = unit if found is None else found * unit % modulus
        product = product * _swept(buckets, modulus) % modulus
    return product


def _swept(buckets: dict[int, mpz], modulus: mpz) -> mpz:
    """Returns Π bucket^place: every running product counts its buckets once more."""
    running, total = mpz(1), mpz(1)
    for place in range(max(buckets, default=0), 0, -1):
        if place in buckets:
            running = running * buckets[place] % modulus
        total = total * running % modulus
    return total
