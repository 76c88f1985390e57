"""Random numbers that stay in a result: afresh, or so that a run can be repeated bit for bit."""

from __future__ import annotations

import hashlib
import secrets
from statistics import NormalDist
from typing import Final

import numpy as np

from vfl.crypto.pairs import BLOCK_BYTES, Stream

_CHUNK_BYTES: Final = 1 << 14
_STANDARD: Final = NormalDist()

#: As many places as a float64 tells apart below 1: normal numbers end beyond ±8.
_PLACES: Final = 1 << 52


class Draws:
    """Draws uniform integers and normal numbers, from the system's source or from a key stream.

    What only hides (keys, masks, obfuscators) must never come from here: it is fresh in any case.

    Args:
        seed: what the stream follows from, of any length; None draws from the system's source.
    """

    def __init__(self, seed: bytes | None) -> None:
        self._stream = None if seed is None else Stream(hashlib.sha256(seed).digest())
        self._ready, self._at, self._n_chunks = b"", 0, 0

    def below(self, n: int) -> int:
        """Returns a uniform integer in [0, n): of the fewest bits, until one is below n.

        Raises:
            ValueError: if there is none.
        """
        if self._stream is None:
            return secrets.randbelow(n)
        if n < 1:
            raise ValueError(f"no number in [0, {n})")
        bits = (n - 1).bit_length()
        while True:
            drawn = int.from_bytes(self._take((bits + 7) // 8), "little") & ((1 << bits) - 1)
            if drawn < n:
                return drawn

    def within(self, bound: int) -> int:
        """Returns a uniform integer of magnitude `bound` at the most."""
        return self.below(2 * bound + 1) - bound

    def key(self) -> bytes:
        """Returns 32 uniform bytes."""
        return self.below(1 << 256).to_bytes(32, "little")

    def normal(self) -> float:
        """Returns a normal number of mean 0 and variance 1, by the inverse of its distribution function."""
        return _STANDARD.inv_cdf((self.below(_PLACES) + 0.5) / _PLACES)

    def _take(self, n_bytes: int) -> bytes:
        while len(self._ready) - self._at < n_bytes:
            chunk = bytearray(_CHUNK_BYTES)
            assert self._stream is not None  # noqa: S101 - asked for in `below`
            block = self._n_chunks * (_CHUNK_BYTES // BLOCK_BYTES)
            self._stream.fill(memoryview(chunk), block.to_bytes(BLOCK_BYTES, "big"))
            self._ready, self._at = self._ready[self._at :] + bytes(chunk), 0
            self._n_chunks += 1
        self._at += n_bytes
        return self._ready[self._at - n_bytes : self._at]


def blur(key: bytes, about: bytes, rows: np.ndarray, width: int, bound: int) -> np.ndarray:
    """Returns noise for numbers that follow from rows of integers: the same for the same row.

    So nobody can ask again and take the mean, and what is computed again comes out again.

    Args:
        key: 32 bytes that only who adds the noise knows.
        about: what else the numbers follow from; for other such the noise is another.
        rows: [b, n] int64.
        width: how many numbers each row gives.
        bound: the noise's largest magnitude, below 2^44.

    Returns:
        [b, width] int64, uniform but for 2^-19 (SHAKE-256, FIPS 202).
    """
    begun = hashlib.shake_256(key + hashlib.sha256(about).digest())
    drawn = bytearray()
    for row in np.ascontiguousarray(rows, "<i8"):
        hashed = begun.copy()
        hashed.update(row.data)
        drawn += hashed.digest(8 * width)
    places = np.frombuffer(bytes(drawn), "<u8") % np.uint64(2 * bound + 1)
    return places.astype(np.int64).reshape(len(rows), width) - bound
