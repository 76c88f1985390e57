"""Rows that several parties share: one order, one split and one check, from the ids alone.

Each function gives the same answer at every party that holds the same ids and the same key, in
whatever order its own table lists them, and under every version of every library: all of them rest
on hashes that are standardised (BLAKE2b, RFC 7693; SHAKE-256, FIPS 202), none on a statistics RNG.

The hashes are keyed so that a digest that leaves a party says nothing to whoever lacks the key. They
do not hide ids from the other *parties*: who holds the key can hash a guess.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from vfl.errors import ConfigError

#: Ids as `Table.read_ids` gives them, or any others that can be iterated as text.
Ids = Sequence[str] | np.ndarray

_SPAN: Final = 2**64
_EXACT_BELOW: Final = 2**53  # from here on a float no longer holds every whole number


def canonical_id(value: object) -> str | None:
    """Writes an id as text: "" where it is missing, None where it cannot be an id.

    Text keeps every character ("007" stays "007") but the blanks around it, in Unicode's composed form
    (NFC); whole numbers become decimals, floats too where they hold one exactly.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value.strip())
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT_BELOW else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def derive_key(seed: int, purpose: str) -> bytes:
    """Derives a key of 32 bytes from a seed; keys for distinct purposes are independent."""
    # The decimal digits end at the NUL, so no two pairs of arguments are written alike.
    return hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=32, person=b"vfl key").digest()


def digests(ids: Ids, key: bytes) -> np.ndarray:
    """Hashes each id under the key: [n] uint64."""
    keyed = hashlib.blake2b(key=key, digest_size=8)
    found = bytearray()
    for name in ids:
        one = keyed.copy()  # the key's own block is hashed once, not once a row
        one.update(name.encode())
        found += one.digest()
    return np.frombuffer(bytes(found), dtype="<u8").astype(np.uint64)  # [n]


def common_order(ids: Ids, key: bytes) -> np.ndarray:
    """Orders rows by the keyed hash of their ids: [n] int64, such that `ids[order]` is common.

    Parties with equal sets of ids get equal `ids[order]`, however their tables are sorted, and the
    order says nothing about where in a table a row stood.
    """
    return _by_digest_then_id(digests(ids, key), ids)


def split_rows(ids: Ids, fractions: Mapping[str, float], key: bytes) -> dict[str, np.ndarray]:
    """Splits rows into "train", "valid" and "test": for each the indices into `ids`, ascending.

    A row's part is read off the keyed hash of its own id, so it stays where it is when other rows
    come or go, and the parts have *about* the asked-for sizes.

    Args:
        ids: [n] canonical ids.
        fractions: of "valid" and "test", each 0 where it is left out; the rest trains.
        key: 32 bytes that all parties share.

    Raises:
        ConfigError: a fraction is unknown, outside [0, 1), or nothing is left to train on.
    """
    _check_fractions(fractions)
    test = int(fractions.get("test", 0.0) * _SPAN)
    valid = test + int(fractions.get("valid", 0.0) * _SPAN)
    # Its own key: with that of the order, the test rows would all stand at the front.
    own = hashlib.blake2b(key=key, digest_size=32, person=b"vfl split").digest()
    drawn = digests(ids, own)  # [n]
    part = np.searchsorted(np.array([test, valid], dtype=np.uint64), drawn, side="right")  # [n]
    return {name: np.flatnonzero(part == at) for at, name in ((2, "train"), (1, "valid"), (0, "test"))}


def rows_digest(digests: np.ndarray, key: bytes) -> str:
    """Hashes the ordered rows, [n] uint64, to 32 hexadecimal digits under a session's key."""
    raw = digests.astype("<u8").tobytes()
    return hashlib.blake2b(raw, key=key, digest_size=16).hexdigest()


def mark_key(digests: np.ndarray) -> bytes:
    """Hashes all rows, [n] uint64: a key for `mark` that only who has all of them can know.

    A coordinator, who has no rows, hears each batch's mark. Without this key it could try out which ids
    make a batch of few rows.
    """
    return hashlib.blake2b(digests.astype("<u8").tobytes(), digest_size=32, person=b"vfl marks").digest()


def mark(digests: np.ndarray, key: bytes) -> int:
    """Hashes the rows of one batch, [b] uint64, in order, to an int in [0, 2**63)."""
    raw = digests.astype("<u8").tobytes()
    return int.from_bytes(hashlib.blake2b(raw, key=key, digest_size=8).digest(), "little") >> 1


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Shuffles `n` rows for one epoch: [n] int64, equal at all parties.

    Rows are sorted by 64 bits each of a SHAKE-256 stream (ties, one pair in 2**64, by row). The
    generators of torch and NumPy would be quicker to write, but both reserve the right to draw
    another permutation in their next release, and two parties need not run the same one.
    """
    stream = hashlib.shake_256(f"vfl epoch order\0{seed}\0{epoch}".encode())
    drawn = np.frombuffer(stream.digest(8 * n), dtype="<u8")  # [n]
    return np.argsort(drawn, kind="stable").astype(np.int64)


def _by_digest_then_id(digests: np.ndarray, ids: Ids) -> np.ndarray:
    order = np.argsort(digests, kind="stable").astype(np.int64)  # [n]
    ordered = digests[order]
    if not np.any(ordered[1:] == ordered[:-1]):
        return order
    # Two ids with one hash: by id, since a stable sort would keep each party's own order.
    plain = digests.tolist()
    return np.array(sorted(range(len(ids)), key=lambda row: (plain[row], str(ids[row]))), dtype=np.int64)


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for name, value in fractions.items():
        if name not in ("valid", "test"):
            raise ConfigError(f'split: there is no part {name!r}: name "valid" and "test"; the rest trains')
        if not 0 <= value < 1:
            raise ConfigError(f"split: {name} is {value}: give a fraction from 0 up to, not including, 1")
    if sum(fractions.values()) >= 1:
        raise ConfigError(
            f"split: valid and test take {sum(fractions.values()):g} of the rows: leave some to train on"
        )
