"""The encrypted baseline: sums of ciphertexts under one key that all participants have.

Source: Chai, Wang, Chen and Yang, "Secure Federated Matrix Factorization", arXiv 1906.05108 (IEEE
Intelligent Systems 2020): there, too, whoever sums has not the key and every participant has. Here several
numbers share a ciphertext, and every one is re-randomised before it is shown.

This module alone needs the extra `paillier`.
"""

from __future__ import annotations

import numpy as np
import torch
from gmpy2 import mpz
from torch import Tensor

from protocols.fedmmf.messages import Ciphertexts
from vfl.errors import RemoteProtocolError
from vfl.masking.ring import Ring
from vfl.paillier.keys import PrivateKey, PublicKey
from vfl.paillier.obfuscation import Covering, ShortExponent
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.shipping import receive, ship
from vfl.paillier.vector import EncryptedMatrix

Shape = tuple[int, int]


def layout_of(key: PublicKey, shape: Shape, ring: Ring, contributors: int, *, rows_alone: bool) -> Layout:
    """Lays a contribution [rows, width] out, with room for the sum of so many."""
    rows, width = shape
    packing = Packing.fitting(key.bits, value_bits=ring.limit.bit_length() + 1, additions=contributors)
    each = 1 if rows_alone or width > packing.slots else min(packing.slots // width, rows)
    return Layout(packing, rows, width, rows_each=each)


class Encrypting:
    """Is a participant's: encrypts what it contributes, and reads sums.

    Args:
        hub: who sums.
        key: everybody's but the hub's.
        contributors: how many contribute, at the most.
        rated_only: whether shared entities without ratings are left out.
    """

    def __init__(self, hub: str, key: PrivateKey, contributors: int, *, rated_only: bool) -> None:
        self._hub, self._key, self._contributors = hub, key, contributors
        self._rated_only = rated_only
        self._obfuscators = ShortExponent(key.public)

    def encrypt(self, elements: Tensor, ring: Ring, *, rows: bool) -> tuple[Tensor, Tensor]:
        """Encrypts a ring's elements [rows, width]; returns which rows, none for all, and the ciphertexts."""
        values = elements.numpy().astype(np.int64)
        alone = rows and self._rated_only
        kept = np.flatnonzero((values != 0).any(axis=1)) if alone else np.arange(len(values))
        if not len(kept):
            return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.uint8)
        shape = (len(kept), values.shape[1])
        layout = layout_of(self._key.public, shape, ring, self._contributors, rows_alone=alone)
        matrix = EncryptedMatrix.encrypt(self._key.public, layout, values[kept], ring.limit)
        cells = _as_tensor(ship(matrix, self._obfuscators))
        return torch.from_numpy(kept) if alone else torch.empty(0, dtype=torch.int64), cells

    def read(self, cells: Tensor, shape: Shape, ring: Ring, *, rows: bool) -> Tensor:
        """Opens a sum; returns the ring's elements [rows, width].

        Raises:
            RemoteProtocolError: if it is none.
        """
        alone = rows and self._rated_only
        layout = layout_of(self._key.public, shape, ring, self._contributors, rows_alone=alone)
        bound = ring.limit * self._contributors
        try:
            matrix = receive(_as_bytes(cells), self._key.public, layout, bound)
            values = matrix.decrypt(self._key)
            if max(abs(int(values.min())), abs(int(values.max()))) > bound:
                raise ValueError("holds what no sum comes to")
        except ValueError as error:
            raise RemoteProtocolError(
                self._hub, f"says a sum of ciphertexts that is none: {error}"
            ) from error
        signed = np.ascontiguousarray(
            values.astype(np.int64).astype(torch.empty(0, dtype=ring.dtype).numpy().dtype)
        )
        return torch.from_numpy(signed)


class Adding:
    """Is the coordinator's: adds ciphertexts that it cannot read, one contribution after the other.

    Args:
        key: whose private half it has not.
        contributors: how many contribute, at the most.
        rated_only: as for `Encrypting`.
    """

    def __init__(self, key: PublicKey, contributors: int, *, rated_only: bool) -> None:
        self._key, self._contributors, self._rated_only = key, contributors, rated_only
        self._obfuscators = Covering(key)

    def begin(self, shape: Shape, ring: Ring, *, rows: bool) -> Adding.Sum:
        """Begins a sum of contributions [rows, width]."""
        return Adding.Sum(self, shape, ring, alone=rows and self._rated_only)

    class Sum:
        """Is one sum."""

        def __init__(self, adding: Adding, shape: Shape, ring: Ring, *, alone: bool) -> None:
            self._adding, self._shape, self._ring, self._alone = adding, shape, ring, alone
            self._layout = self._layout_of(shape[0])
            self._cells = [mpz(1)] * self._layout.n_cells  # each is zero, encrypted without randomness

        def add(self, name: str, said: Ciphertexts) -> None:
            """Adds one contribution.

            Raises:
                RemoteProtocolError: if it is none.
            """
            key, blocks = self._adding._key, self._layout.blocks
            try:
                rows = self._rows(said.rows)
                if not len(rows) and self._alone:
                    if said.cells.numel():
                        raise ValueError("has ciphertexts of no row")
                    return
                layout = self._layout_of(len(rows)) if self._alone else self._layout
                cells = receive(_as_bytes(said.cells), key, layout, self._ring.limit).cells
            except ValueError as error:
                raise RemoteProtocolError(name, f"contributes ciphertexts that are none: {error}") from error
            places = (row * blocks + block for row in rows for block in range(blocks))
            for place, cell in zip(places if self._alone else range(len(cells)), cells, strict=True):
                self._cells[place] = key.combine(self._cells[place], cell)

        def ship(self) -> Tensor:
            """Turns the sum into bytes, re-randomised."""
            bound = self._ring.limit * self._adding._contributors
            matrix = EncryptedMatrix(self._adding._key, self._layout, tuple(self._cells), bound)
            return _as_tensor(ship(matrix, self._adding._obfuscators))

        def _layout_of(self, rows: int) -> Layout:
            shape = (max(rows, 1), self._shape[1])
            adding = self._adding
            return layout_of(adding._key, shape, self._ring, adding._contributors, rows_alone=self._alone)

        def _rows(self, rows: Tensor) -> list[int]:
            if rows.dtype != torch.int64 or rows.dim() != 1 or (not self._alone and len(rows)):
                raise ValueError("the rows that it is of are none")
            places: list[int] = rows.tolist()
            if any(b <= a for a, b in zip([-1, *places], places, strict=False)) or (
                places and places[-1] >= self._shape[0]
            ):
                raise ValueError("the rows that it is of do not ascend, or are beyond the last")
            return places


def _as_tensor(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _as_bytes(cells: Tensor) -> memoryview:
    if cells.dtype != torch.uint8 or cells.dim() != 1 or not len(cells):
        raise ValueError("no bytes")
    return memoryview(cells.numpy().data)
