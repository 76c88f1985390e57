"""Files of columns: their names at once, their values in blocks, so that memory does not grow with rows.

Arrow reads the files. It is strict where other readers guess: a line with a field too many or too few
is an error that names the row, and never a row that is shifted or filled up. Rows are counted as a
spreadsheet does: in a CSV file the header is row 1, and lines with nothing on them do not count.

In numbers and dates nothing, `NA`, `NaN`, `NaT`, `none` and null are missing values; in text only
nothing and null are, since "NA" may be a name. Further texts may be declared missing in all three.
In a CSV file every id is text: "007" and 7 are two ids (`rows.canonical_id` states the rule).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from vfl.data.builtin import builtin_columns, load_builtin
from vfl.data.rows import canonical_id
from vfl.data.separator import separator_of
from vfl.data.text import MISSING_WORDS, canonical_text, parse_date, parse_number, shown
from vfl.errors import DataError, StorageError

Kind = Literal["id", "number", "text", "date"]
_Arrow = Any  # an array, a record batch or a table: Arrow brings no types
_Reader = Callable[[Sequence[str]], Iterable[_Arrow]]

BLOCK_ROWS: Final = 65_536

_FORMATS: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_CSV_BYTES: Final = 16 * 2**20  # read at a time; a CSV row must fit
_PAGE_BYTES: Final = 64 * 1024  # read at a time of each Parquet column: without it, a whole row group is
_MISSING_SPELT: Final = sorted(
    {spelt for w in MISSING_WORDS for spelt in (w, w.upper(), w.title())} | {"NaN"}
)


@dataclass(frozen=True, eq=False)
class File:
    """Is a source whose columns are known and whose values are not yet read.

    Attributes:
        source: how errors call it: the path as the user wrote it, `builtin:NAME` or `dataset:NAME/PARTY`.
        names: its columns, each once, in its own order.
        first_row: the number of the first row of values: 2 where a header is row 1.
        separated: whether it is text in which a sign separates the values.
        missing: canonical texts that mean missing, beside those that always do.
        date_format: how dates that are text are written, as for strptime; None for ISO 8601.
    """

    source: str
    names: list[str]
    first_row: int
    separated: bool
    missing: frozenset[str]
    date_format: str | None
    _read: _Reader

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns from the start, up to 65,536 rows (m) at a time.

        Args:
            kinds: for each column what to read it as: "id" gives [m] object, canonical ids, none missing;
                "number" [m] float64, NaN where missing; "text" [m] object, canonical text, "" where
                missing; "date" [m] datetime64[s] in UTC, NaT where missing.

        Raises:
            DataError: the file is garbled, or a value is not what it is to be read as.
        """
        ids_first = sorted(kinds, key=lambda name: kinds[name] != "id")  # errors about the others name them
        row = self.first_row
        for batch in self._batches(list(kinds)):
            block: dict[str, np.ndarray] = {}
            ids = None
            for name in ids_first:
                with _readable(self.source):
                    at = _Place(self, row, name, ids)
                    block[name] = _READERS[kinds[name]](at, _plain(batch.column(name)))
                if kinds[name] == "id":
                    ids = block[name]
            yield block
            row += batch.num_rows

    def as_written(self, name: str, places: Iterable[int]) -> list[object]:
        """Reads the values of one column as they stand in the file, at these places (0 is the first row)."""
        wanted, start = set(places), 0
        found: dict[int, object] = {}
        for batch in self._batches([name]):
            here = [place for place in wanted if start <= place < start + batch.num_rows]
            found |= {place: batch.column(name)[place - start].as_py() for place in here}
            start += batch.num_rows
        return [found[place] for place in sorted(found)]

    def _batches(self, names: Sequence[str]) -> Iterator[_Arrow]:
        batches = iter(self._read(names))
        while True:
            with _readable(self.source):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # a garbled page can decode to text that is not UTF-8
            for start in range(0, batch.num_rows, BLOCK_ROWS):
                yield batch.slice(start, BLOCK_ROWS)


def open_file(
    source: str,
    folder: Path,
    *,
    overlap: float | None = None,
    missing: Sequence[str] = (),
    date_format: str | None = None,
) -> File:
    """Finds out which columns a source has, and reads no value.

    Args:
        source: a path, relative to `folder`, that ends in .csv, .tsv (either may be gzipped) or
            .parquet; or `builtin:NAME`; or `dataset:NAME/PARTY`.
        folder: where relative paths begin.
        overlap: for `dataset:` only, the share of people whom every party is to hold.
        missing: texts that mean that a value is missing, in every column but the id.
        date_format: how dates that are text are written, as for strptime; None for ISO 8601.

    Raises:
        DataError: there is no such table, or it cannot be read.
    """
    if overlap is not None and not source.startswith("dataset:"):
        _refuse(source, "table.overlap is for dataset: sources only: take it out, or name a data set")
    separated = False
    if source.startswith(("builtin:", "dataset:")):
        names, read = _named(source, overlap)
    else:
        path = _existing(source, folder)
        separated = not path.name.lower().endswith(".parquet")
        with _readable(source):
            names = list((_csv(path).schema if separated else pa.parquet.read_schema(path)).names)
        read = partial(_read_csv if separated else _read_parquet, path)
    for name in names:
        if names.count(name) > 1:
            _refuse(source, f"two columns are called {name!r}: rename one of them")
    texts = frozenset(canonical_text(text) for text in missing)
    return File(source, names, 2 if separated else 1, separated, texts, date_format, read)


def write_file(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns, each [n], to a .csv or .parquet file; a crash leaves the old file as it was.

    Raises:
        StorageError: the file cannot be written there.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise StorageError(f"{path}: this kind of file is unknown: give one that ends in .csv or .parquet")
    table = _table(columns)
    partial_path = path.with_name(f"{path.name}.partial")  # one name, so that crashes leave one file at most
    try:
        if suffix == ".csv":
            pa.csv.write_csv(table, partial_path, pa.csv.WriteOptions(quoting_style="needed"))
        else:
            pa.parquet.write_table(table, partial_path)
        os.replace(partial_path, path)
    except OSError as error:
        with suppress(OSError):
            partial_path.unlink()
        why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise StorageError(f"{path}: it cannot be written ({why}): free space or choose another") from error


def _refuse(source: str, why: str) -> NoReturn:
    raise DataError(f"{source}: {why}")


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turns whatever a reader raises for a garbled file into one line."""
    try:
        yield
    except PermissionError as error:
        raise DataError(f"{source}: it may not be read: give this user the right to read it") from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        what = " ".join(str(error).split())[:200]
        if isinstance(error, UnicodeError) or "invalid utf8" in what.lower():
            what = "it is not UTF-8 text"
        raise DataError(f"{source}: it cannot be read ({what}): mend the file or write it anew") from error


def _existing(source: str, folder: Path) -> Path:
    path = folder / source
    if not path.name.lower().endswith(_FORMATS):
        _refuse(source, f"this kind of file is unknown: give one that ends in {', '.join(_FORMATS)}")
    with _readable(source):
        if not path.is_file():
            what = "this is a folder" if path.is_dir() else f"there is no such file in {path.parent}"
            _refuse(source, f"{what}: give the path of a table, relative to the file that names it")
    return path


def _named(source: str, overlap: float | None) -> tuple[list[str], _Reader]:
    """Opens a table that is no file of the user's: these are small and held whole once they are read."""
    kind, _, name = source.partition(":")
    if kind == "builtin":
        names = builtin_columns(name)
        whole = functools.cache(lambda: _table(load_builtin(name, names)))
    else:
        from vfl.datasets import (
            dataset_columns,
            load_dataset,
        )  # here: a table that is a file needs none of it

        names = dataset_columns(name, overlap)
        whole = functools.cache(lambda: _table(load_dataset(name, overlap)))
    return names, lambda wanted: whole().select(list(wanted)).to_batches()


def _table(columns: Mapping[str, np.ndarray]) -> _Arrow:
    """Turns NumPy columns into Arrow's; NaN and NaT become null."""
    arrays = {}
    for name, values in columns.items():
        plain = values.astype(object) if values.dtype.kind in "TU" else values
        arrays[name] = pa.array(plain, from_pandas=True)
    return pa.table(arrays)


def _read_parquet(path: Path, names: Sequence[str]) -> Iterator[_Arrow]:
    with pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_PAGE_BYTES) as file:
        yield from file.iter_batches(BLOCK_ROWS, columns=list(names), use_threads=False)


def _csv(path: Path, **convert: _Arrow) -> _Arrow:
    return pa.csv.open_csv(
        pa.input_stream(path, compression="gzip" if path.name.lower().endswith(".gz") else None),
        # One thread: the cores are shared with the other parties of this machine, and only a reader
        # with one thread can say in which row a file goes wrong.
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BYTES),
        parse_options=pa.csv.ParseOptions(delimiter=separator_of(path), newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(**convert),
    )


def _read_csv(path: Path, names: Sequence[str]) -> Iterator[_Arrow]:
    # All as text: what a value is to be is known here, so nothing is guessed from the first rows.
    types = dict.fromkeys(names, pa.string())
    with _csv(path, column_types=types, include_columns=list(names)) as reader:
        yield from reader


@dataclass(frozen=True)
class _Place:
    """Says where a block of one column stands, for errors about its values."""

    file: File
    row: int
    name: str
    ids: np.ndarray | None

    def refuse(self, index: int, value: object, why: str) -> NoReturn:
        where = f"in row {self.row + index}" if self.ids is None else f"at id {shown(self.ids[index])}"
        _refuse(self.file.source, f"{shown(value)} in column {self.name!r} {where} {why}")

    def refuse_kind(self, kind: _Arrow, why: str) -> NoReturn:
        _refuse(self.file.source, f"column {self.name!r} holds {kind}, not {why}")


def _plain(column: _Arrow) -> _Arrow:
    """Undoes a column's encoding: what is left of text is a string column, also where all is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    text = kind in (pa.null(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
    return column.cast(pa.string()) if text else column


def _read_ids(at: _Place, column: _Arrow) -> np.ndarray:
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    text = pa.types.is_string(column.type) and not column.null_count
    values = column.to_numpy(zero_copy_only=False).tolist() if text else column.to_pylist()
    if text and "".join(values).isascii():
        ids = [value.strip() for value in values]  # as canonical_id does: ASCII is composed as it is
    else:
        ids = [canonical_id(value) for value in values]
    if None in ids:
        what = f"{shown(values[ids.index(None)])} in row {at.row + ids.index(None)}"
        _refuse(at.file.source, f"{at.name} {what} is no id: use text or whole numbers")
    if "" in ids:
        what = f"the {at.name} in row {at.row + ids.index('')} is missing"
        _refuse(at.file.source, f"{what}: give every row an id, or drop the row")
    return np.array(ids, dtype=object)  # [m]


def _read_numbers(at: _Place, column: _Arrow) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind):
        numbers = _numbers_of_text(at, column)
    elif pa.types.is_boolean(kind):
        numbers = column.cast(pa.uint8()).cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # Unsafe only in that a whole number above 2**53 is rounded, as any float is.
        numbers = column.cast(pa.float64(), safe=False)
    else:
        at.refuse_kind(kind, "numbers: turn it into numbers, or leave it out")
    if isinstance(numbers, pa.Array):
        numbers = numbers.to_numpy(zero_copy_only=False)
    found = np.array(numbers, dtype=np.float64)  # [m]
    marks = [mark for mark in map(parse_number, at.file.missing) if mark is not None and not math.isnan(mark)]
    if marks:
        found[np.isin(found, marks)] = math.nan
    return found


def _numbers_of_text(at: _Place, column: _Arrow) -> _Arrow:
    with suppress(pa.ArrowInvalid):
        return column.cast(pa.float64())
    column = _trimmed(at.file, column)
    with suppress(pa.ArrowInvalid):
        return column.cast(pa.float64())
    why = "is not a number: correct it, list it under missing, or name the column under categorical"
    return _by_distinct(at, column, parse_number, math.nan, why).astype(np.float64)


def _read_texts(at: _Place, column: _Arrow) -> np.ndarray:
    if pa.types.is_nested(column.type):
        at.refuse_kind(column.type, "text: turn it into text or numbers, or leave it out")
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.string())

    def read(value: object) -> str:
        text = canonical_text(value)
        return "" if text in at.file.missing else text

    return _by_distinct(at, column, read, "")


def _read_dates(at: _Place, column: _Arrow) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind):
        return _dates_of_text(at, column)
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        at.refuse_kind(kind, "dates: write them as dates or as ISO 8601 text, or take it out of dates")
    unit = "D" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    counts = (
        column.cast(pa.int32()) if unit == "D" else column
    )  # a timestamp counts in UTC, whatever its zone
    ticks = counts.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()  # [m], the least is NaT
    return np.asarray(ticks).view(f"datetime64[{unit}]").astype("datetime64[s]")  # [m]


def _dates_of_text(at: _Place, column: _Arrow) -> np.ndarray:
    column = _trimmed(at.file, column)
    form = at.file.date_format
    if form is None:
        with suppress(pa.ArrowInvalid):
            return _read_dates(at, column.cast(pa.timestamp("us")))
        why = 'is not a date as ISO 8601 has it: correct it, or set table.date_format, as in "%d.%m.%Y"'
    else:
        why = f"is not a date as table.date_format = {form!r} has it: correct the one or the other"
    # By Python: Arrow's own strptime takes the 31st of February for the 2nd of March.
    return _by_distinct(at, column, partial(parse_date, form=form), None, why).astype("datetime64[s]")


def _trimmed(file: File, column: _Arrow) -> _Arrow:
    """Takes the blanks around texts off and makes those that mean missing null."""
    column = pc.utf8_trim_whitespace(column)
    words = pa.array([*_MISSING_SPELT, *file.missing], pa.string())
    return pc.if_else(pc.is_in(column, value_set=words), pa.scalar(None, pa.string()), column)


def _by_distinct(
    at: _Place, column: _Arrow, read: Callable[[_Arrow], object], missing: object, why: str = ""
) -> np.ndarray:
    """Reads each distinct value once, [m] object; `read` says None where it cannot."""
    coded = column.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    values = np.empty(len(distinct) + 1, dtype=object)
    for code, value in enumerate(distinct):
        values[code] = read(value)
        if values[code] is None:
            at.refuse(pc.index(coded.indices, code).as_py(), value, why)
    values[-1] = missing
    return np.asarray(values[coded.indices.fill_null(len(distinct)).to_numpy()])  # [m]


_READERS: Final[dict[Kind, Callable[[_Place, _Arrow], np.ndarray]]] = {
    "id": _read_ids,
    "number": _read_numbers,
    "text": _read_texts,
    "date": _read_dates,
}
