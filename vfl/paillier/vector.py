"""Matrices that a party computes with and cannot read.

`EncryptedMatrix` keeps the bound of what its slots may hold with the ciphertexts: an operation after which
a slot could overflow is refused before it is computed. One product serves all: plain X times encrypted M,
whose rows are packed. Enc(h)·W is Wᵀ times Enc(hᵀ), whose rows are features; Enc(h)ᵀ·δ is δᵀ times Enc(h).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from gmpy2 import mpz

from vfl.paillier.exponentiation import products_of_powers
from vfl.paillier.keys import Products
from vfl.paillier.packing import Layout
from vfl.paillier.workers import Workers


class Key(Protocol):
    """Is what matrices are under: a `keys.PublicKey`, or a `clear.ClearKey`, which hides nothing."""

    @property
    def n(self) -> mpz:
        """The modulus of plaintexts."""

    @property
    def plain_bytes(self) -> int:
        """The width of a plaintext on the wire."""

    @property
    def cipher_bytes(self) -> int:
        """The width of a ciphertext on the wire."""

    def lift(self, number: mpz) -> mpz:
        """Returns a number as a ciphertext, without randomness."""

    def combine(self, one: mpz, other: mpz) -> mpz:
        """Adds the plaintexts of two ciphertexts."""

    def repeat(self, cell: mpz, times: mpz) -> mpz:
        """Multiplies the plaintext of a ciphertext."""

    def products(self, cells: Sequence[mpz], x: np.ndarray, multiply: Products) -> list[mpz]:
        """Returns a ciphertext of Σ_i x[j, i] · m_i for each row of x."""

    def check(self, cells: Sequence[mpz]) -> None:
        """Raises ValueError unless these can be ciphertexts."""


class Opener(Protocol):
    """Is what decrypts: a `keys.PrivateKey`, or a `clear.ClearKey`."""

    @property
    def public(self) -> Key:
        """The other half."""

    def decrypt_all(self, ciphertexts: list[mpz], threads: int = 1) -> list[mpz]:
        """Returns plaintexts in [0, n)."""


@dataclass(frozen=True, repr=False)
class EncryptedMatrix:
    """Is a matrix of integers under a key.

    The ciphertexts are *not* random enough to show: encrypting and computing adds no randomness, and
    `shipping.ship`, which alone turns them into bytes, does. So every ciphertext pays for one obfuscator.

    Attributes:
        key: whose.
        layout: how the matrix lies in plaintexts.
        cells: the ciphertexts, modulo n².
        bound: the largest magnitude that a slot may hold.
    """

    key: Key
    layout: Layout
    cells: tuple[mpz, ...]
    bound: int

    @classmethod
    def encrypt(
        cls, key: Key, layout: Layout, values: np.ndarray, bound: int | None = None
    ) -> EncryptedMatrix:
        """Puts [rows, width] integers under a key.

        Args:
            key: whose.
            layout: how they are packed.
            values: int64, each of which fits its slot; or an object array of shares (see `add_plain`).
            bound: the largest magnitude that counts; None takes the largest here. Where values are shares,
                what they will sum to.

        Raises:
            ConfigError: if a slot does not hold the bound.
            ValueError: if the shape is another.
        """
        plain = layout.pack(values)
        if bound is None:
            bound = max((abs(int(value)) for value in (values.min(), values.max())), default=0)
        layout.packing.check(bound, "a value")
        return cls(key, layout, tuple(key.lift(number) for number in plain), bound)

    def add(self, other: EncryptedMatrix) -> EncryptedMatrix:
        """Adds two encrypted matrices.

        Raises:
            ConfigError: if a slot could overflow.
            ValueError: if key or layout differ.
        """
        if other.key.n != self.key.n or other.layout != self.layout:
            raise ValueError("two matrices of different keys or layouts")
        bound = self.layout.packing.check(self.bound + other.bound, "a sum")
        cells = tuple(self.key.combine(a, b) for a, b in zip(self.cells, other.cells, strict=True))
        return replace(self, cells=cells, bound=bound)

    def add_plain(self, values: np.ndarray, bound: int | None = None) -> EncryptedMatrix:
        """Adds [rows, width] plain integers.

        Args:
            values: int64, or an object array of integers of any size, which add up modulo n.
            bound: the largest magnitude of the *sum*; None adds the largest value to the bound so far.
                Where both summands are shares of something small, only the caller knows how small.

        Raises:
            ConfigError: if a slot could overflow.
            ValueError: if the shape is another.
        """
        if bound is None:
            bound = self.bound + max(abs(int(values.min())), abs(int(values.max())))
        bound = self.layout.packing.check(bound, "a sum")
        return replace(self, cells=self._plus(self.layout.pack(values)), bound=bound)

    def left_multiply(
        self, x: np.ndarray, bound: int | None = None, workers: Workers | None = None
    ) -> EncryptedMatrix:
        """Returns X · M for plain X [j, rows]: Σ_i x[j, i] · M[i] in the exponents of products of powers.

        Where M is there in several copies, as many rows of the product share one plaintext.

        Args:
            x: int64, or an object array of integers of any size.
            bound: the largest magnitude of the final result, where X or M are shares; None takes the
                largest x times the bound so far times the number of rows.
            workers: processes that share the work.

        Raises:
            ConfigError: if a slot could overflow.
            ValueError: if X has another width, or rows of M share a plaintext.
        """
        layout = self.layout
        if x.ndim != 2 or x.shape[1] != layout.rows or layout.rows_each > 1:
            raise ValueError(
                f"{list(x.shape)} times {layout.rows} × {layout.width}, {layout.rows_each} a plaintext"
            )
        if bound is None:
            bound = max(abs(int(x.min())), abs(int(x.max()))) * self.bound * layout.rows
        bound = layout.packing.check(bound, "a product")
        found = replace(layout, rows=len(x), rows_each=layout.copies, copies=1)
        multiply = workers.products_of_powers if workers else products_of_powers
        if layout.copies > 1:
            cells = self.key.products(self.cells, _grouped(x, layout.copies), multiply)
        else:
            blocks = [
                self.key.products(self.cells[block :: layout.blocks], x, multiply)
                for block in range(layout.blocks)
            ]
            cells = [cell for row in zip(*blocks, strict=True) for cell in row]
        return EncryptedMatrix(self.key, found, tuple(cells), bound)

    def fold(self, rows_each: int) -> EncryptedMatrix:
        """Moves so many narrow rows into one ciphertext: squarings here save obfuscators and decryptions.

        Raises:
            ConfigError: if they do not fit.
            ValueError: if rows share a plaintext already, or take several.
        """
        layout, key = self.layout, self.key
        if layout.blocks * layout.rows_each * layout.copies > 1:
            raise ValueError("only rows that have one plaintext each can be folded")
        found = replace(layout, rows_each=rows_each)
        shift = mpz(1) << (layout.width * layout.packing.slot_bits)
        cells = []
        for start in range(0, layout.rows, rows_each):
            *others, cell = self.cells[start : start + rows_each]
            for other in reversed(others):
                cell = key.combine(key.repeat(cell, shift), other)
            cells.append(cell)
        return replace(self, layout=found, cells=tuple(cells))

    def masked(self) -> tuple[EncryptedMatrix, list[mpz]]:
        """Adds a uniform number modulo n to each plaintext; returns the sum and those numbers.

        The plaintexts are then uniform too, whatever they were: who decrypts learns nothing, and who
        subtracts the numbers modulo n has lost nothing.
        """
        masks = [mpz(secrets.randbelow(int(self.key.n))) for _ in self.cells]
        return replace(self, cells=self._plus(masks)), masks

    def decrypt(self, key: Opener, threads: int = 1) -> np.ndarray:
        """Returns the matrix, [rows, width] int64, or Python's integers where slots are wide.

        Raises:
            ValueError: if the key is another, or a plaintext is none that its slots can hold.
        """
        return self.layout.unpack(self.plaintexts(key, threads), self.key.n)

    def plaintexts(self, key: Opener, threads: int = 1) -> list[mpz]:
        """Returns the numbers in [0, n) that the matrix lies in, masked or not.

        Raises:
            ValueError: if the key is another.
        """
        if key.public.n != self.key.n:
            raise ValueError("a matrix under another key")
        return key.decrypt_all(list(self.cells), threads)

    def _plus(self, numbers: Sequence[mpz]) -> tuple[mpz, ...]:
        lifted = (self.key.lift(number) for number in numbers)
        return tuple(self.key.combine(cell, one) for cell, one in zip(self.cells, lifted, strict=True))

    def __repr__(self) -> str:
        layout = self.layout
        return f"<EncryptedMatrix {layout.rows} × {layout.width} in {len(self.cells)} ciphertexts>"


def _grouped(x: np.ndarray, copies: int) -> np.ndarray:
    """Orders [j, rows] as [j / copies, rows · copies]: the row at a place goes with the copy there."""
    padded = np.zeros((-(-len(x) // copies) * copies, x.shape[1]), x.dtype)
    padded[: len(x)] = x
    return padded.reshape(-1, copies, x.shape[1]).transpose(0, 2, 1).reshape(len(padded) // copies, -1)
