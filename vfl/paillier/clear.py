"""A key that hides nothing, under which every computation is the same: for debugging and for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from gmpy2 import mpz

from vfl.paillier.keys import Products


@dataclass(frozen=True)
class ClearKey:
    """Is a modulus for plaintexts, n = 2^bits - 1, and nothing else: a ciphertext is its plaintext.

    It is both halves of a key, and a source of obfuscators, each of which is zero.
    """

    bits: int

    @cached_property
    def n(self) -> mpz:
        """The modulus of plaintexts."""
        return (mpz(1) << self.bits) - 1

    @property
    def public(self) -> ClearKey:
        """The other half."""
        return self

    @property
    def plain_bytes(self) -> int:
        """The width of a plaintext on the wire."""
        return self.bits // 8

    @property
    def cipher_bytes(self) -> int:
        """The width of what stands for a ciphertext on the wire."""
        return self.plain_bytes

    def lift(self, number: mpz) -> mpz:
        """Returns a number modulo n."""
        return number % self.n

    def combine(self, one: mpz, other: mpz) -> mpz:
        """Adds modulo n."""
        return (one + other) % self.n

    def repeat(self, cell: mpz, times: mpz) -> mpz:
        """Multiplies modulo n."""
        return cell * times % self.n

    def products(self, cells: Sequence[mpz], x: np.ndarray, multiply: Products) -> list[mpz]:
        """Returns Σ_i x[j, i] · cells_i modulo n for each row of x, multiplied in the plain way."""
        return [
            sum((mpz(times) * cell for times, cell in zip(row, cells, strict=True)), mpz(0)) % self.n
            for row in x.tolist()
        ]

    def check(self, cells: Sequence[mpz]) -> None:
        """Checks that these are numbers modulo n.

        Raises:
            ValueError: if one is not.
        """
        for place, cell in enumerate(cells):
            if cell >= self.n:
                raise ValueError(f"number {place} is not below n")

    def decrypt_all(self, ciphertexts: list[mpz], threads: int = 1) -> list[mpz]:
        """Returns what it is given."""
        return list(ciphertexts)

    def draw(self) -> mpz:
        """Returns zero."""
        return mpz(0)
