"""Which ratings train, which validate and which test: the same wherever a rating happens to be held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from vfl.data.rows import derive_key
from vfl.errors import ConfigError

SplitKind = Literal["fraction", "leave-one-out", "time"]

_SPAN: Final = 2**64
TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """Says how ratings are parted.

    Attributes:
        kind: "fraction" draws ratings by the keyed hash of their two ids; "leave-one-out" tests each user's
            latest rating and validates by the one before it; "time" takes each user's latest ratings, those
            for testing last. A user here is a user at one party: where parties hold different items of the
            same users, each parts the ratings that it has.
        valid: the share to validate by; for "leave-one-out" above 0 for one a user, or 0.
        test: the share to test by, likewise.

    Raises:
        ConfigError: a share or the kind cannot be.
    """

    kind: SplitKind = "fraction"
    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(SplitKind):
            kinds = ", ".join(repr(kind) for kind in get_args(SplitKind))
            raise ConfigError(f"split: kind = {self.kind!r} is unknown: set one of {kinds}")
        if not (0 <= self.valid < 1 and 0 <= self.test < 1 and self.valid + self.test < 1):
            raise ConfigError(
                f"split: valid = {self.valid} and test = {self.test}: give shares from 0 up that leave some "
                f"of the ratings to train on"
            )


def pair_hashes(users: np.ndarray, items: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Hashes pairs of two ids' digests, each [n] uint64, to [n] uint64, under a key of its own.

    The ids went through a keyed hash already; here two of them only need to be well mixed.
    """
    key = np.frombuffer(derive_key(seed, f"ratings {purpose}")[:16], "<u8")
    return _mixed(_mixed(users ^ key[0]) ^ items ^ key[1])


def _mixed(x: np.ndarray) -> np.ndarray:
    """Mixes 64 bits so that each hangs on all (the finaliser of SplitMix64; Steele, Lea, Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # arrays of uint64 wrap
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def split_ratings(split: Split, user: np.ndarray, times: np.ndarray | None, hashes: np.ndarray) -> np.ndarray:
    """Gives each rating's part [n]: 0 trains, 1 validates, 2 tests.

    Args:
        split: how.
        user: [n] int64, whose rating it is.
        times: [n] int64 if they are known; equal times are told apart by the hash.
        hashes: [n] uint64, what `pair_hashes` gives for this purpose.

    Raises:
        ConfigError: the split goes by time and there are no times.
    """
    if split.kind == "fraction":
        test = int(split.test * _SPAN)
        edges = np.array([test, test + int(split.valid * _SPAN)], dtype=np.uint64)
        return np.asarray(TEST - np.searchsorted(edges, hashes, side="right"))
    if split.kind == "time" and times is None:
        raise ConfigError(
            'split: kind = "time" needs the times of ratings: name their column, or take another'
        )
    late = np.zeros(len(user), np.int64) if times is None else times
    order = np.lexsort((hashes, late, user))
    counts = np.bincount(user)  # [users]
    firsts = np.cumsum(counts) - counts
    place = np.empty(len(user), np.int64)  # 0 for a user's latest rating
    place[order] = counts[user[order]] - 1 - (np.arange(len(user)) - firsts[user[order]])
    n_test, n_valid = _sizes(split, counts)
    tested, held = n_test[user], n_test[user] + n_valid[user]
    return np.where(place < tested, TEST, np.where(place < held, VALID, TRAIN))


def _sizes(split: Split, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives how many ratings of each user test and validate; one at least trains."""
    if split.kind == "leave-one-out":
        n_test = ((counts > 1) & (split.test > 0)).astype(np.int64)
        n_valid = ((counts > 1 + n_test) & (split.valid > 0)).astype(np.int64)
        return n_test, n_valid
    n_test = np.floor(counts * split.test + 0.5).astype(np.int64)
    n_test = np.minimum(n_test, np.maximum(counts - 1, 0))
    n_valid = np.floor(counts * split.valid + 0.5).astype(np.int64)
    return n_test, np.minimum(n_valid, np.maximum(counts - 1 - n_test, 0))
