"""What one participant holds: its ratings along its own axis and the shared one, parted by split.

With by = "user" the shared entities are the items and a participant's own are its users; with by = "item"
it is the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from vfl.data.rows import derive_key, digests
from vfl.data.text import shown
from vfl.errors import ConfigError, DataError
from vfl.ratings.catalogue import Catalogue
from vfl.ratings.splits import TEST, TRAIN, VALID, Split, pair_hashes, split_ratings
from vfl.ratings.table import Ratings, check_scale

By = Literal["user", "item"]

#: The parts of a holding's ratings.
SPLITS: Final = ("train", "valid", "test")
_FEWEST: Final = 2


@dataclass(frozen=True, eq=False)
class Part:
    """Is the ratings of one split, by own entity, then by shared one: the canonical order of sums.

    Attributes:
        own: [n] int64, places on the own axis.
        shared: [n] int64, places on the shared axis.
        value: [n] float64.
    """

    own: np.ndarray
    shared: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.value)


def part_places(part: Part, places: np.ndarray) -> Part:
    """Takes some ratings of a part: `places` ascend, or is a mask."""
    return Part(part.own[places], part.shared[places], part.value[places])


@dataclass(frozen=True, eq=False)
class RatingsHolding:
    """Is a participant's ratings as it trains on them.

    Attributes:
        source: how errors call the table.
        by: what parts the participants.
        scale: the lowest and the highest rating there can be.
        own_ids: [o], sorted.
        shared_ids: [m], in the order common to all participants.
        seed: the job's, under which ids are hashed.
        parts: the ratings of each split.
        left_out: how many ratings are of users whom not all participants share, and are not used.
    """

    source: str
    by: By
    scale: tuple[float, float]
    own_ids: tuple[str, ...]
    shared_ids: tuple[str, ...]
    seed: int
    parts: dict[str, Part]
    left_out: int = 0

    @property
    def n_own(self) -> int:
        """How many own entities there are."""
        return len(self.own_ids)

    @property
    def m(self) -> int:
        """How many shared entities there are."""
        return len(self.shared_ids)

    @property
    def train(self) -> Part:
        """The ratings that train."""
        return self.parts["train"]

    @property
    def valid(self) -> Part:
        """The ratings that validate."""
        return self.parts["valid"]

    @property
    def test(self) -> Part:
        """The ratings that test."""
        return self.parts["test"]

    @cached_property
    def own_hash(self) -> np.ndarray:
        """The keyed digests of the own ids, [o] uint64."""
        return digests(self.own_ids, _id_key(self.seed, "user" if self.by == "user" else "item"))

    @cached_property
    def shared_hash(self) -> np.ndarray:
        """The keyed digests of the shared ids, [m] uint64."""
        return digests(self.shared_ids, _id_key(self.seed, "item" if self.by == "user" else "user"))

    @cached_property
    def _own_places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.own_ids)}

    @cached_property
    def _shared_places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.shared_ids)}

    def own_place(self, name: str) -> int:
        """Finds an own entity.

        Raises:
            DataError: it is not here.
        """
        return self._found(self._own_places, name, self.by)

    def shared_place(self, name: str) -> int:
        """Finds a shared entity.

        Raises:
            DataError: it is not here.
        """
        return self._found(self._shared_places, name, "item" if self.by == "user" else "user")

    def _found(self, places: dict[str, int], name: str, kind: str) -> int:
        if name not in places:
            raise DataError(f"{self.source}: there is no {kind} {shown(name)} here: name one of its {kind}s")
        return places[name]

    def check_trainable(self) -> None:
        """Checks that there is something to train on and to hide it among.

        Raises:
            DataError: there is no rating that trains, or one.
        """
        check_enough_ratings(self.source, len(self.train))


def check_enough_ratings(source: str, n: int) -> None:
    """Checks that so many ratings are enough to train on, and to hide among each other.

    Raises:
        DataError: there is none, or one.
    """
    if n < _FEWEST:
        has = "has no rating" if n == 0 else "has one rating only"
        raise DataError(
            f"{source}: it {has} to train on, and {_FEWEST} are the least that a participant can hide among "
            f"each other: add ratings, lower valid and test in split, or leave this participant out"
        )


def hold(
    ratings: Ratings,
    *,
    by: By,
    shared_ids: Sequence[str],
    split: Split,
    seed: int,
    scale: tuple[float, float],
) -> RatingsHolding:
    """Lays a table's ratings out along the two axes and parts them.

    Args:
        ratings: what the table holds.
        by: "user" or "item".
        shared_ids: the shared axis, in the order common to all participants.
        split: how ratings are parted.
        seed: the job's.
        scale: the lowest and the highest rating there can be.

    Raises:
        DataError: a rating is outside the scale, or of an item that is not on the shared axis.
        ConfigError: `by` is unknown, or the split goes by time and there are no times.
    """
    if by not in ("user", "item"):
        raise ConfigError(f'by = {by!r} is unknown: set "user" or "item"')
    check_scale(ratings, scale)
    user_ids, item_ids = ratings.user_ids, ratings.item_ids
    if by == "user":
        item = _places(ratings.item, item_ids, shared_ids)
        _check_known(ratings, item)
        own_ids, user = _sorted(ratings.user, user_ids)
        shared, own = item, user
    else:
        user = _places(ratings.user, user_ids, shared_ids)
        own_ids, item = _sorted(ratings.item, item_ids)
        shared, own = user, item
    kept = np.flatnonzero(shared >= 0)  # all, but for users whom not all participants share
    kept = kept[np.lexsort((shared[kept], own[kept]))]
    made = RatingsHolding(
        ratings.source, by, scale, own_ids, tuple(shared_ids), seed, {}, len(ratings) - len(kept)
    )
    whole = Part(own[kept], shared[kept], ratings.value[kept])
    times = None if ratings.times is None else ratings.times[kept]
    hashes = pair_hashes(*_user_first(made, whole), seed, "split")
    split_of = split_ratings(split, user[kept], times, hashes)
    for name, code in zip(SPLITS, (TRAIN, VALID, TEST), strict=True):
        made.parts[name] = part_places(whole, split_of == code)
    return made


def check_items(ratings: Ratings, catalogue: Catalogue) -> None:
    """Checks that a catalogue has all items that are rated.

    Raises:
        DataError: naming the first row whose item it lacks, and the catalogue.
    """
    _check_known(ratings, _places(ratings.item, ratings.item_ids, catalogue.ids), catalogue.source)


def _user_first(holding: RatingsHolding, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Gives the digests of each rating's user and of its item, whichever of the two is shared."""
    own, shared = holding.own_hash[part.own], holding.shared_hash[part.shared]
    return (own, shared) if holding.by == "user" else (shared, own)


def pairs_of(holding: RatingsHolding, part: Part, purpose: str) -> np.ndarray:
    """Hashes each rating's user and item, [n] uint64, for one purpose."""
    return pair_hashes(*_user_first(holding, part), holding.seed, purpose)


def merge(holdings: Sequence[RatingsHolding]) -> RatingsHolding:
    """Puts many participants' ratings into one holding, as if one had them all.

    Raises:
        DataError: an own entity is at two of them, or the shared axes differ.
    """
    first = holdings[0]
    names = sorted(name for holding in holdings for name in holding.own_ids)
    twice = next((name for name, after in itertools.pairwise(names) if name == after), None)
    if twice is not None:
        raise DataError(f"{first.by} {shown(twice)} is at two participants: give each its own {first.by}s")
    place = {name: at for at, name in enumerate(names)}
    parts = {split: _merged([(one, one.parts[split]) for one in holdings], place) for split in SPLITS}
    if any(one.shared_ids != first.shared_ids for one in holdings):
        raise DataError("the participants' shared ids differ: align them first")
    source = ", ".join(dict.fromkeys(one.source for one in holdings))
    return RatingsHolding(source, first.by, first.scale, tuple(names), first.shared_ids, first.seed, parts)


def _merged(given: Sequence[tuple[RatingsHolding, Part]], place: dict[str, int]) -> Part:
    moved = [np.array([place[name] for name in one.own_ids], np.int64)[part.own] for one, part in given]
    own, shared = np.concatenate(moved), np.concatenate([part.shared for _, part in given])
    order = np.lexsort((shared, own))
    value = np.concatenate([part.value for _, part in given])
    return Part(own[order], shared[order], value[order])


def _id_key(seed: int, kind: str) -> bytes:
    return derive_key(seed, f"ratings {kind} ids")


def _sorted(codes: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Sorts ids, and moves the places that name them along."""
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return tuple(names[at] for at in order), place[codes]


def _places(codes: np.ndarray, names: Sequence[str], shared_ids: Sequence[str]) -> np.ndarray:
    """Finds each rating's place on the shared axis, [n] int64; -1 where it has none."""
    places = {name: place for place, name in enumerate(shared_ids)}
    if len(places) < len(shared_ids):
        raise DataError("the shared axis names an id twice: give each once")
    return np.array([places.get(name, -1) for name in names], np.int64).take(codes)


def _check_known(ratings: Ratings, item: np.ndarray, catalogue: str = "") -> None:
    unknown = np.flatnonzero(item < 0)
    if len(unknown):
        at = int(unknown[0])
        name = ratings.item_ids[int(ratings.item[at])]
        where = "the catalogue" + (f" {catalogue}" if catalogue else "")
        raise DataError(
            f"{ratings.source}: item {shown(name)} in row {ratings.row(at)} is not in {where}: add it there, "
            f"or drop its ratings"
        )
