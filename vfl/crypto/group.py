"""The only file that knows rbcl: the group ristretto255 (RFC 9496), as libsodium computes it.

The group has prime order and an encoding of 32 bytes in which every element has one form and most
strings of bytes have none, so decoding is the whole of the check that a peer's point needs. Scalars
are not clamped (rbcl's documentation says that they are; the tests hold that they are not).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from vfl.errors import ConfigError

try:
    import rbcl
except OSError as error:  # it writes libsodium to the temporary folder and loads it from there
    raise ConfigError(
        f"private set intersection: libsodium cannot be loaded from the temporary folder ({error}); "
        "set TMPDIR to a folder that may hold programs"
    ) from error
with suppress(OSError):  # and leaves 3 MB behind each time; a loaded library needs its file no more
    Path(sys.modules["rbcl._sodium"].lib_path).unlink()

POINT_BYTES: Final = 32

_T = TypeVar("_T")
_NO_ELEMENT: Final = "is no element of the group, or the identity"
_TAG: Final = b"vfl ristretto255 id\0"

#: Fewer points than this a thread are not worth handing over.
_LEAST_A_THREAD: Final = 64


def random_scalar() -> bytes:
    """Draws a secret scalar, uniform and not zero."""
    return bytes(rbcl.crypto_core_ristretto255_scalar_random())


def multiply(point: bytes, scalar: bytes) -> bytes:
    """Multiplies one point.

    Raises:
        ValueError: if the bytes are no element of the group, or the identity.
    """
    if point[-1] & 0x80:  # no encoding has the last bit set, which libsodium 1.0.18 reads over
        raise ValueError(_NO_ELEMENT)
    try:
        return bytes(rbcl.crypto_scalarmult_ristretto255(scalar, point))
    except RuntimeError as error:
        raise ValueError(_NO_ELEMENT) from error


def hash_to_point(text: str, salt: bytes) -> bytes:
    """Hashes a text to a point whose logarithm nobody knows (RFC 9496, section 4.3.4)."""
    return _point_of(_hasher(salt), text)


class Blinder:
    """Multiplies points by one secret scalar, drawn here, on up to `threads` cores.

    Threads share the work well (`examples/benchmarks/psi.py --libraries` tells how well):
    ctypes lets go of the interpreter while libsodium computes.
    """

    def __init__(self, threads: int = 1) -> None:
        self._scalar = random_scalar()
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blinder") if threads > 1 else None

    def blind_ids(self, ids: Sequence[str], salt: bytes) -> np.ndarray:
        """Hashes ids to the group and multiplies them: [m, 32] uint8."""
        hasher = _hasher(salt)
        return self._shared_out(ids, lambda part: (self._blinded(_point_of(hasher, name)) for name in part))

    def blind(self, points: np.ndarray) -> np.ndarray:
        """Multiplies points, [m, 32] uint8, keeping their order.

        Raises:
            ValueError: if one is no element of the group, or the identity.
        """
        raw = points.tobytes()
        rows = [raw[at : at + POINT_BYTES] for at in range(0, len(raw), POINT_BYTES)]
        return self._shared_out(rows, lambda part: map(self._blinded, part))

    def close(self) -> None:
        """Ends the threads."""
        if self._pool:
            self._pool.shutdown()

    def __enter__(self) -> Blinder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _blinded(self, point: bytes) -> bytes:
        return multiply(point, self._scalar)

    def _shared_out(
        self, work: Sequence[_T], compute: Callable[[Sequence[_T]], Iterable[bytes]]
    ) -> np.ndarray:
        n_parts = max(1, min(self._threads, len(work) // _LEAST_A_THREAD))
        if self._pool is None or n_parts == 1:
            found = b"".join(compute(work))
        else:
            bounds = [len(work) * part // n_parts for part in range(n_parts + 1)]
            parts = [work[start:end] for start, end in pairwise(bounds)]
            found = b"".join(self._pool.map(lambda part: b"".join(compute(part)), parts))
        return np.frombuffer(bytearray(found), dtype=np.uint8).reshape(-1, POINT_BYTES)  # [m, 32]


def _hasher(salt: bytes) -> Any:  # noqa: ANN401 - hashlib names no type for what it returns
    """Begins the hash of one session; the salt's length keeps it apart from what follows."""
    return hashlib.sha512(_TAG + len(salt).to_bytes(2, "little") + salt)


def _point_of(hasher: Any, text: str) -> bytes:  # noqa: ANN401
    one = hasher.copy()  # the tag's and the salt's own block is hashed once, not once an id
    one.update(text.encode())
    return bytes(rbcl.crypto_core_ristretto255_from_hash(one.digest()))
