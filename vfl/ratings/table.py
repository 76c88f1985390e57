"""A participant's table of ratings: who rated what, how, and maybe when; checked value by value.

It is read a block at a time; what is kept is two numbers, a rating and a time for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from vfl.data.files import Kind
from vfl.data.text import did_you_mean, parse_date, shown
from vfl.errors import ConfigError, DataError
from vfl.ratings.dat import Source, number_or_none, open_source

_NO_TIME: Final = np.iinfo(np.int64).min
_MAX_TIME: Final = 2.0**62


@dataclass(frozen=True, eq=False)
class Ratings:
    """Is a table of ratings, in the file's order.

    Attributes:
        source: how errors call the table.
        first_row: the file's number of the first rating's row, where no line before it is empty.
        user_ids: each user once, in order of appearance.
        item_ids: each item once, likewise.
        user: [n] int64, places among `user_ids`.
        item: [n] int64, places among `item_ids`.
        value: [n] float64.
        times: [n] int64, seconds; None where the table has none.
        find_row: finds the file's number of a rating's row; None where they follow each other from the first.
    """

    source: str
    first_row: int
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray
    times: np.ndarray | None
    find_row: Callable[[int], int] | None = None

    def __len__(self) -> int:
        return len(self.value)

    def row(self, place: int) -> int:
        """Finds the number of a rating's row in the file, empty lines counted."""
        return self.first_row + int(place) if self.find_row is None else self.find_row(int(place))


def read_ratings(
    source: str,
    folder: Path,
    *,
    user: str = "user",
    item: str = "item",
    rating: str = "rating",
    time: str | None = None,
    scale: tuple[float, float] | None = None,
) -> Ratings:
    """Reads a table of ratings.

    Args:
        source: a path, relative to `folder`: .csv, .tsv, .dat (each may be gzipped) or .parquet; or what
            else `open_file` knows. The columns of a .dat file are called "1", "2", and so on.
        folder: where relative paths begin.
        user: the column of users' ids.
        item: the column of items' ids.
        rating: the column of ratings.
        time: the column of times, numbers or dates; None where there is none.
        scale: the lowest and the highest rating there can be; None does not check.

    Raises:
        DataError: the table cannot be used; names the file, the row and what to do.
    """
    file = open_source(source, folder)
    named = {"user": user, "item": item, "rating": rating} | ({} if time is None else {"time": time})
    _check_columns(file, named)
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start, known = 0, dict[str, float]()
    for block in file.blocks({user: "id", item: "id", rating: "text"}):
        value = _numbers(file, rating, block[rating].tolist(), start, known)
        parts.append((_codes(block[user], users), _codes(block[item], items), value))
        start += len(value)
    if not start:
        _refuse(file, "there is no rating in it: name a table with ratings")
    who, what, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    times = None if time is None else _times(file, time)
    named_by = file.source, file.first_row, tuple(users), tuple(items)
    found = Ratings(*named_by, who, what, value, times, file.row)
    _check_pairs(found)
    if scale is not None:
        check_scale(found, scale)
    return found


def check_scale(ratings: Ratings, scale: tuple[float, float]) -> None:
    """Checks that all ratings are within a scale.

    Raises:
        ConfigError: the scale is none.
        DataError: naming the first row whose rating is outside.
    """
    low, high = scale
    if not -np.inf < low < high < np.inf:
        raise ConfigError(
            f"scale = [{low}, {high}]: give the lowest and the highest rating, such as [0.5, 5.0]"
        )
    outside = ~((ratings.value >= low) & (ratings.value <= high))  # so for what is no number
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{ratings.source}: the rating {ratings.value[at]:g} in row {ratings.row(at)} is outside the "
            f"scale from {low:g} to {high:g}: correct it, or set scale in the job"
        )


def _refuse(file: Source, why: str) -> NoReturn:
    raise DataError(f"{file.source}: {why}")


def _check_columns(file: Source, named: Mapping[str, str]) -> None:
    for what, name in named.items():
        if name not in file.names:
            _refuse(file, f"there is no column {name!r} for {what}: {did_you_mean(name, file.names)}")
        twin = next(other for other in named if named[other] == name)
        if twin != what:
            _refuse(file, f"column {name!r} is named for {twin} and for {what}: name another for one of them")


def _codes(ids: np.ndarray, known: dict[str, int]) -> np.ndarray:
    return np.array([known.setdefault(name, len(known)) for name in ids.tolist()], np.int64)


def _numbers(
    file: Source, name: str, texts: Sequence[str], start: int, known: dict[str, float]
) -> np.ndarray:
    """Reads ratings, each distinct text once."""
    for text in dict.fromkeys(texts):
        if text in known:
            continue
        number = number_or_none(text)
        if number is None:
            _refuse_value(file, "rating", name, start + texts.index(text), text, "number")
        known[text] = number
    return np.array([known[text] for text in texts], np.float64)


def _refuse_value(file: Source, what: str, name: str, place: int, text: str, kind: str) -> NoReturn:
    why = f"{shown(text)} is no {kind}" if text else "is missing"
    where = f"in column {name!r} in row {file.row(place)}"
    _refuse(file, f"the {what} {where} {why}: correct it, or drop the row")


def _times(file: Source, name: str) -> np.ndarray:
    """Reads times as seconds, [n] int64: as numbers if the first is one, else as dates."""
    first = next(iter(file.blocks({name: "text"})))[name][0]
    kind: Kind = "date" if number_or_none(first) is None else "number"
    try:
        found = np.concatenate([block[name] for block in file.blocks({name: kind})])
    except DataError:
        _name_bad_time(file, name, kind)
        raise
    if kind == "date":
        found = found.astype("M8[s]").astype(np.int64)
    missing = found == _NO_TIME if kind == "date" else ~(np.abs(found) <= _MAX_TIME)  # so for no number
    if missing.any():
        _name_bad_time(file, name, kind)
        at = file.row(int(np.flatnonzero(missing)[0]))
        _refuse(file, f"the time in column {name!r} in row {at} is out of range: correct it, or drop the row")
    return found.astype(np.int64)


def _name_bad_time(file: Source, name: str, kind: Kind) -> None:
    """Raises for the first time that is missing or none; a reader's own error has the wrong remedy."""
    start = 0
    for block in file.blocks({name: "text"}):
        for place, text in enumerate(block[name].tolist()):
            bad = number_or_none(text) is None if kind == "number" else not _is_date(text)
            if bad:
                _refuse_value(file, "time", name, start + place, text, kind)
        start += len(block[name])


def _is_date(text: str) -> bool:
    when = parse_date(text, None)
    return when is not None and not np.isnat(when)


def _check_pairs(ratings: Ratings) -> None:
    pairs = ratings.user * len(ratings.item_ids) + ratings.item  # [n]
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(again):
        return
    at = int(again[np.argmin(order[again + 1])])  # the first row that repeats one
    first, second = int(order[at]), int(order[at + 1])
    user, item = ratings.user_ids[ratings.user[first]], ratings.item_ids[ratings.item[first]]
    raise DataError(
        f"{ratings.source}: user {shown(user)} rates item {shown(item)} twice, in row {ratings.row(first)} "
        f"and in row {ratings.row(second)}: keep one of them"
    )
