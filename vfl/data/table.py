"""A party's own table: the columns it asks for, and no others, read a chunk of rows at a time.

Nothing but the ids is ever held for all rows. What is missing stays missing here (NaN, "", NaT): whether
that is an error is for the preparation to say. Only an id may not be missing, and a number not infinite.

An id stands for one row: `rows.canonical_id` says how it is written, and two that are written alike in
that form are an error, whether they were so in the file or not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import numpy as np

from vfl.data.columns import Choice, choose
from vfl.data.files import File, Kind, open_file
from vfl.data.text import shown
from vfl.errors import DataError


def open_table(
    source: str,
    *,
    folder: Path,
    id_column: str | None = None,
    columns: Sequence[str] = (),
    categorical: Sequence[str] = (),
    dates: Sequence[str] = (),
    date_format: str | None = None,
    missing: Sequence[str] = (),
    overlap: float | None = None,
    label: str | None = None,
    label_optional: bool = False,
) -> Table:
    """Chooses the columns of a table, and reads no value.

    Features come in the order asked for; `columns.choose` says how names, patterns and "!pattern" are
    resolved.

    Args:
        source: a path, relative to `folder`, that ends in .csv, .tsv (either may be gzipped) or
            .parquet; or `builtin:NAME`; or `dataset:NAME/PARTY`.
        folder: where relative paths begin.
        id_column: the column of ids; "id" where it is None.
        columns: names or patterns of the columns to read as numbers.
        categorical: names or patterns of the columns to read as categories.
        dates: names or patterns of the columns to read as dates.
        date_format: how dates that are text are written, as for strptime; None for ISO 8601.
        missing: texts that mean that a value is missing, in every column but the id.
        overlap: for `dataset:` only, the share of people whom every party is to hold.
        label: the column of labels, where this party has them.
        label_optional: a label that is not there is left out and no error.

    Raises:
        DataError: the table or a column cannot be used.
    """
    file = open_file(source, Path(folder), overlap=overlap, missing=missing, date_format=date_format)
    choice = choose(
        file,
        id_column="id" if id_column is None else id_column,
        columns=columns,
        categorical=categorical,
        dates=dates,
        label=label,
        label_optional=label_optional,
    )
    return Table(file, choice)


class Table:
    """A party's own rows: n of them, with p numeric and q categorical columns and t dates."""

    def __init__(self, file: File, choice: Choice) -> None:
        self._file = file
        self._choice = choice

    @property
    def source(self) -> str:
        """How errors call the table: the path as the user wrote it, or `builtin:NAME` and the like."""
        return self._file.source

    @property
    def id_name(self) -> str:
        """The ids' column."""
        return self._choice.id

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The p columns that are read as numbers."""
        return self._choice.numeric

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """The q columns that are read as categories."""
        return self._choice.categorical

    @property
    def date_names(self) -> tuple[str, ...]:
        """The t columns that are read as dates."""
        return self._choice.dates

    @property
    def label_name(self) -> str | None:
        """The label's column; None without."""
        return self._choice.label

    def read_ids(self) -> np.ndarray:
        """Reads all ids: [n] StringDType, canonical, each once, in the file's order.

        Short ids take 16 bytes each and no Python object.

        Raises:
            DataError: the file is garbled or has no rows, or an id is missing, none, or there twice.
        """
        texts, hashes = [], []
        for block in self._file.blocks({self.id_name: "id"}):
            ids = block[self.id_name]
            texts.append(ids.astype(np.dtypes.StringDType()))
            hashes.append(np.fromiter(map(hash, ids), np.int64, len(ids)))
        if not texts:
            _refuse_empty(self.source)
        found = _joined_texts(texts)  # [n]
        again = _first_twice(found, np.concatenate(hashes))
        if again is not None:
            self._refuse_twice(*again, str(found[again[0]]))
        return found

    def chunks(
        self, *, features: bool = True, label: Literal["text", "number"] | None = None
    ) -> Iterator[Chunk]:
        """Reads the table from its first row, up to 65,536 rows at a time.

        Args:
            features: whether to read the features; without them a chunk has no such columns.
            label: what to read the label as, where the table has one; None leaves it out.

        Raises:
            DataError: the file is garbled or has no rows, or a value cannot be read or is infinite.
        """
        choice = self._choice if features else replace(self._choice, numeric=(), categorical=(), dates=())
        if label is None:
            choice = replace(choice, label=None)
        kinds: dict[str, Kind] = {choice.id: "id"}
        kinds |= cast(dict[str, Kind], dict.fromkeys(choice.numeric, "number"))
        kinds |= cast(dict[str, Kind], dict.fromkeys(choice.categorical, "text"))
        kinds |= cast(dict[str, Kind], dict.fromkeys(choice.dates, "date"))
        if choice.label is not None and label is not None:
            kinds[choice.label] = label
        start = 0
        for block in self._file.blocks(kinds):
            chunk = _chunk(self.source, start, choice, block)
            _check_finite(chunk)
            yield chunk
            start += len(chunk)
        if not start:
            _refuse_empty(self.source)

    def _refuse_twice(self, first: int, second: int, one: str) -> NoReturn:
        rows = [self._file.first_row + place for place in (first, second)]
        written = self._file.as_written(self.id_name, (first, second))
        once, twice = map(shown, written)
        if once == twice:
            what = f"{self.id_name} {once} is in row {rows[0]} and again in row {rows[1]}: keep one"
        else:
            if unicodedata.normalize("NFC", once) == unicodedata.normalize("NFC", twice):
                once, twice = ascii(once[1:-1]), ascii(twice[1:-1])  # they look alike
            both = f"{once} in row {rows[0]} and {twice} in row {rows[1]}"
            what = f"{self.id_name} {both} both become {shown(one)}: keep one, or rename one"
        raise DataError(f"{self.source}: {what}")


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of a table: m of them.

    Attributes:
        source: how errors call the table.
        start: the place in the table of the first row, from 0; -1 where these rows do not follow there.
        ids: [m] object, canonical ids.
        numeric: [m, p] float64, NaN where missing, never infinite.
        numeric_names: p names.
        categorical: [m, q] object, canonical text, "" where missing.
        categorical_names: q names.
        dates: [m, t] datetime64[s] in UTC, NaT where missing.
        date_names: t names.
        label: [m] object, canonical text, "" where missing; or float64, NaN where missing; or None.
        label_name: the label's column; None without.
    """

    source: str
    start: int
    ids: np.ndarray
    numeric: np.ndarray
    numeric_names: tuple[str, ...]
    categorical: np.ndarray
    categorical_names: tuple[str, ...]
    dates: np.ndarray
    date_names: tuple[str, ...]
    label: np.ndarray | None = None
    label_name: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Chunk:
        """Returns these rows, indices into the chunk, in this order."""
        return replace(
            self,
            start=-1,
            ids=self.ids[rows],
            numeric=self.numeric[rows],
            categorical=self.categorical[rows],
            dates=self.dates[rows],
            label=None if self.label is None else self.label[rows],
        )


def join_chunks(chunks: Sequence[Chunk]) -> Chunk:
    """Puts the rows of one or more chunks of one table under one another.

    Raises:
        ValueError: there is no chunk, or they have other columns.
    """
    if not chunks:
        raise ValueError("there is no chunk to join: without one the columns are unknown")
    first = chunks[0]
    names = [(one.numeric_names, one.categorical_names, one.date_names, one.label_name) for one in chunks]
    if any(other != names[0] for other in names):
        raise ValueError("chunks with other columns cannot be joined")
    ends = [one.start + len(one) for one in chunks]
    follow = all(one.start == end for one, end in zip(chunks[1:], ends[:-1], strict=True))
    labels = [one.label for one in chunks if one.label is not None]
    return replace(
        first,
        start=first.start if follow and first.start >= 0 else -1,
        ids=np.concatenate([one.ids for one in chunks]),
        numeric=np.concatenate([one.numeric for one in chunks]),
        categorical=np.concatenate([one.categorical for one in chunks]),
        dates=np.concatenate([one.dates for one in chunks]),
        label=np.concatenate(labels) if labels else None,
    )


def _chunk(source: str, start: int, choice: Choice, block: dict[str, np.ndarray]) -> Chunk:
    ids = block[choice.id]

    def beside(names: tuple[str, ...], dtype: Any) -> np.ndarray:  # noqa: ANN401
        found = np.empty((len(ids), len(names)), dtype=dtype)
        for column, name in enumerate(names):
            found[:, column] = block[name]
        return found

    return Chunk(
        source=source,
        start=start,
        ids=ids,
        numeric=beside(choice.numeric, np.float64),
        numeric_names=choice.numeric,
        categorical=beside(choice.categorical, object),
        categorical_names=choice.categorical,
        dates=beside(choice.dates, "datetime64[s]"),
        date_names=choice.dates,
        label=None if choice.label is None else block[choice.label],
        label_name=choice.label,
    )


def _check_finite(chunk: Chunk) -> None:
    columns = [(name, chunk.numeric[:, at]) for at, name in enumerate(chunk.numeric_names)]
    if chunk.label_name is not None and chunk.label is not None and chunk.label.dtype == np.float64:
        columns.append((chunk.label_name, chunk.label))
    for name, numbers in columns:
        endless = np.isinf(numbers)  # [m]
        if endless.any():
            where = f"in column {name!r} at id {shown(chunk.ids[int(np.argmax(endless))])}"
            raise DataError(f"{chunk.source}: infinite value {where}: put a finite number or drop the row")


def _joined_texts(parts: list[np.ndarray]) -> np.ndarray:
    """Joins arrays of StringDType and empties the list: each part goes as soon as it is copied."""
    found = np.empty(sum(map(len, parts)), dtype=np.dtypes.StringDType())  # [n]
    end = len(found)
    while parts:
        part = parts.pop()
        found[end - len(part) : end] = part
        end -= len(part)
    return found


def _first_twice(ids: np.ndarray, hashes: np.ndarray) -> tuple[int, int] | None:
    """Finds the first id that was there before: its earlier place and its own.

    Only hashes are sorted; texts are looked at where two hashes are equal.
    """
    order = np.argsort(hashes, kind="stable")  # [n]
    ordered = hashes[order]
    equal = np.flatnonzero(ordered[1:] == ordered[:-1])
    suspects = np.union1d(order[equal], order[equal + 1])  # ascending
    seen: dict[str, int] = {}
    for place in suspects.tolist():
        earlier = seen.setdefault(str(ids[place]), place)
        if earlier != place:
            return earlier, place
    return None


def _refuse_empty(source: str) -> NoReturn:
    raise DataError(f"{source}: the table has no rows: give it at least one")
