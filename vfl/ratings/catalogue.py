"""The items that can be rated: their ids, titles and features, the same at all participants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from vfl.data.files import Kind
from vfl.data.text import did_you_mean, shown
from vfl.errors import DataError
from vfl.ratings.dat import Source, open_source

#: Each is a column of numbers for every item; free text would make as many as there are items.
MOST_CATEGORIES: Final = 1_000

#: What is beyond it, either way, is a mistake. Up to it the squares of all items' features can be summed.
LARGEST_FEATURE: Final = 1e100


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Is the items, by id, so that the order of the file does not matter.

    Attributes:
        source: how errors call the table.
        ids: [m], sorted.
        titles: [m]; the ids where there are none.
        feature_names: [d].
        features: [m, d] float64: 0 or 1 for each category, a standardised number.
    """

    source: str
    ids: tuple[str, ...]
    titles: tuple[str, ...]
    feature_names: tuple[str, ...]
    features: np.ndarray

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each id stands."""
        return {name: place for place, name in enumerate(self.ids)}

    def features_of(self, ids: Sequence[str]) -> np.ndarray:
        """Gives the features of these items, [k, d].

        Raises:
            DataError: naming an item that is not in the catalogue.
        """
        unknown = next((name for name in ids if name not in self.places), None)
        if unknown is not None:
            raise DataError(f"{self.source}: item {shown(unknown)} is not in the catalogue: add it there")
        return np.asarray(self.features[[self.places[name] for name in ids]])

    def title_of(self, name: str) -> str:
        """Gives an item's title; its id where it has none or is not in the catalogue."""
        return self.titles[self.places[name]] if name in self.places else name


def bare_catalogue(ids: Sequence[str], source: str = "catalogue") -> Catalogue:
    """Makes a catalogue of ids alone."""
    ordered = tuple(sorted(ids))
    return Catalogue(source, ordered, ordered, (), np.zeros((len(ordered), 0)))


def read_catalogue(
    source: str,
    folder: Path,
    *,
    item: str = "item",
    title: str | None = None,
    features: Sequence[str] = (),
    separator: str = "|",
) -> Catalogue:
    """Reads a catalogue.

    Args:
        source: a path, relative to `folder`, of what `read_ratings` reads, too.
        folder: where relative paths begin.
        item: the column of ids.
        title: the column of titles; None where there is none.
        features: columns of numbers, or of text: there the categories stand between separators.
        separator: what stands between two categories.

    Raises:
        DataError: the table cannot be used; names the file, the row and what to do.
    """
    file = open_source(source, folder)
    _check_columns(file, [item, *([] if title is None else [title]), *features])
    ids = _whole(file, item, "id").tolist()
    if not ids:
        _refuse(file, "there is no item in it: name a table with items")
    _check_once(file, ids)
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    titles = ids if title is None else _whole(file, title, "text").tolist()
    named: list[str] = []
    columns = [np.zeros((len(ids), 0))]
    for name in dict.fromkeys(features):
        more, values = _feature(file, name, separator)
        named += more
        columns.append(values)
    return Catalogue(
        file.source,
        tuple(ids[at] for at in order),
        tuple(titles[at] or ids[at] for at in order),
        tuple(named),
        np.concatenate(columns, axis=1)[order],
    )


@dataclass(frozen=True, eq=False)
class ListedItems:
    """Is a catalogue's ids alone, as its file has them.

    Attributes:
        source: how errors call the table.
        places: where each id stands among the rows, 0 first.
        find_row: finds the file's number of a row.
    """

    source: str
    places: dict[str, int]
    find_row: Callable[[int], int]


def list_items(source: str, folder: Path, *, item: str = "item") -> ListedItems:
    """Reads a catalogue's ids alone; the arguments are as for `read_catalogue`.

    Raises:
        DataError: they cannot be read.
    """
    file = open_source(source, folder)
    _check_columns(file, [item])
    ids = _whole(file, item, "id").tolist()
    return ListedItems(file.source, {name: place for place, name in enumerate(ids)}, file.row)


def _refuse(file: Source, why: str) -> NoReturn:
    raise DataError(f"{file.source}: {why}")


def _check_columns(file: Source, wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in file.names:
            _refuse(file, f"there is no column {name!r}: {did_you_mean(name, file.names)}")


def _whole(file: Source, name: str, kind: Kind) -> np.ndarray:
    blocks = [block[name] for block in file.blocks({name: kind})]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _check_once(file: Source, ids: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(ids):
        if name in seen:
            rows = f"in row {file.row(seen[name])} and in row {file.row(place)}"
            _refuse(file, f"item {shown(name)} is there twice, {rows}: keep one of them")
        seen[name] = place


def _feature(file: Source, name: str, separator: str) -> tuple[list[str], np.ndarray]:
    """Reads one column as numbers, or else as categories: the names and [m, d]."""
    try:
        numbers = _whole(file, name, "number")
    except DataError:
        return _categories(file, name, separator)
    beyond = np.flatnonzero(np.abs(numbers) > LARGEST_FEATURE)
    if len(beyond):
        number, row = numbers[beyond[0]], file.row(beyond[0])
        why = "infinite" if np.isinf(number) else f"beyond {LARGEST_FEATURE:g}, either way"
        _refuse(
            file,
            f"the feature {number:g} in column {name!r} in row {row} is {why}: correct it, or leave it empty",
        )
    there = numbers[~np.isnan(numbers)]
    middle, spread = (there.mean(), there.std()) if len(there) else (0.0, 0.0)
    # One that is missing is as if it were the mean.
    standardised = np.where(np.isnan(numbers), 0.0, (numbers - middle) / (spread or 1.0))
    return [name], standardised[:, None]


def _categories(file: Source, name: str, separator: str) -> tuple[list[str], np.ndarray]:
    texts = _whole(file, name, "text").tolist()
    parted = [[word.strip() for word in text.split(separator) if word.strip()] for text in texts]
    known = sorted({word for words in parted for word in words})
    if len(known) > MOST_CATEGORIES:
        _refuse(
            file,
            f"column {name!r} holds {len(known)} categories and {MOST_CATEGORIES} are the most: set "
            f"separator to what parts them, or leave the column out of features",
        )
    place = {word: at for at, word in enumerate(known)}
    values = np.zeros((len(texts), len(known)))
    for row, words in enumerate(parted):
        values[row, [place[word] for word in words]] = 1.0
    return [f"{name} {word}" for word in known], values
