"""A party's own table: the columns it asks for, and no others, checked before anything else begins.

Arrow reads the files. It is strict where other readers guess: a line with a field too many or too few
is an error that names the row, and never a row that is shifted or filled up.

`rows.canonical_id` says what makes an id; in a CSV file every id is text.

In a numeric column nothing, `NA`, `NaN` and null are missing values; in every other column only nothing
and null are, since "NA" may be a name. Rows are counted as a spreadsheet does: in a CSV file the header
is row 1, and lines with nothing on them do not count.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from vfl.data.builtin import builtin_columns, load_builtin
from vfl.data.rows import canonical_id
from vfl.data.separator import separator_of
from vfl.errors import DataError

_FORMATS: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
_WHOLE: Final = re.compile(r"[+-]?\d+\.0*")
_BLOCK_BYTES: Final = 16 * 2**20  # a CSV row must fit into one block


def read_table(
    source: str,
    *,
    folder: Path,
    id_column: str | None = None,
    columns: Sequence[str] = (),
    categorical: Sequence[str] = (),
    label: str | None = None,
    label_optional: bool = False,
) -> Table:
    """Reads the asked-for columns of a table and checks every value of them.

    Features come in the order asked for; those of one pattern in the table's own. A column that both
    `columns` and `categorical` ask for is categorical. The id and the label are never features.

    Args:
        source: a path, relative to `folder`, that ends in .csv, .tsv (either may be gzipped) or
            .parquet; or `builtin:breast_cancer`, `builtin:digits`.
        folder: where relative paths begin.
        id_column: the column of ids; "id" where it is None.
        columns: names or glob patterns ("mean *") of the columns to read as numbers.
        categorical: names or glob patterns of the columns to read as categories.
        label: the column of labels, where this party has them.
        label_optional: a label that is not there, or not in every row, is left out and no error.

    Raises:
        DataError: the table, a column or a value cannot be used.
    """
    opened = _open(source, Path(folder))
    choice = _choose(source, opened.names, id_column or "id", columns, categorical, label, label_optional)
    with _readable(source):
        raw = opened.read(choice)
    if raw.num_rows == 0:
        _refuse(source, "the table has no rows: give it at least one")
    ids = _read_ids(source, raw.column(choice.id), choice.id, opened.first_row)
    numeric = [_read_numbers(source, raw.column(name), name, ids) for name in choice.numeric]
    texts = [_read_categories(source, raw.column(name), name, ids) for name in choice.categorical]
    labels = None
    if choice.label is not None:
        labels = _read_labels(source, raw.column(choice.label), choice.label, ids, label_optional)
    return Table(
        source=source,
        ids=ids,
        numeric=np.stack(numeric, axis=1) if numeric else np.empty((len(ids), 0)),  # [n, p]
        numeric_names=choice.numeric,
        categorical=np.stack(texts, axis=1) if texts else np.empty((len(ids), 0), dtype=object),  # [n, q]
        categorical_names=choice.categorical,
        label=labels,
        label_name=choice.label if labels is not None else None,
    )


def canonical_text(value: object) -> str:
    """Writes a category or a class as text, so that 1, 1.0, "1" and "1.0" are all "1".

    Text loses the blanks around it and is composed (NFC); "007" and "0.50" stay as they are. Missing
    values (None, NaN) are "".
    """
    if value is None:
        return ""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    text = unicodedata.normalize("NFC", str(value).strip())
    if _WHOLE.fullmatch(text):
        text = text.partition(".")[0]
        return "0" if text in ("-0", "+0") else text
    return text


def shown(value: object) -> str:
    """Quotes a value for an error: on one line and not longer than one."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Names the closest of the known names, or else the first few of them."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    some = ", ".join(repr(other) for other in known[:6])
    return f"there is {some}" + (f" and {len(known) - 6} more" if len(known) > 6 else "")


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
        if isinstance(error, UnicodeError) or "invalid UTF8" in what:
            what = "it is not UTF-8 text"
        raise DataError(f"{source}: it cannot be read ({what}): mend the file or write it anew") from error


def _open(source: str, folder: Path) -> _Opened:
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        return _Opened(builtin_columns(name), 1, lambda choice: pa.table(load_builtin(name, choice.names)))
    path = folder / source
    if not path.name.lower().endswith(_FORMATS):
        _refuse(source, f"this kind of file is unknown: give one that ends in {', '.join(_FORMATS)}")
    with _readable(source):
        if not path.is_file():
            what = "this is a folder" if path.is_dir() else f"there is no such file in {path.parent}"
            _refuse(source, f"{what}: give the path of a table, relative to the file that names it")
        if path.name.lower().endswith(".parquet"):
            opened = _Opened(pa.parquet.read_schema(path).names, 1, partial(_read_parquet, path))
        else:
            opened = _Opened(_csv_names(path), 2, partial(_read_csv, path))
    doubled = {name for name in opened.names if opened.names.count(name) > 1}
    if doubled:
        _refuse(source, f"two columns are called {min(doubled)!r}: rename one of them")
    return opened


def _read_parquet(path: Path, choice: _Choice) -> pa.Table:
    with pa.parquet.ParquetFile(path) as file:
        table = file.read(columns=list(choice.names), use_threads=False)
    table.validate(full=True)  # a garbled page can decode to text that is not UTF-8
    return table


def _csv_options(path: Path) -> dict[str, Any]:
    return {
        # One thread: the cores are shared with the other parties of this machine, and only a reader
        # with one thread can say in which row a file goes wrong.
        "read_options": pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        "parse_options": pa.csv.ParseOptions(delimiter=separator_of(path), newlines_in_values=True),
    }


def _csv_names(path: Path) -> list[str]:
    with pa.csv.open_csv(path, **_csv_options(path)) as reader:
        return list(reader.schema.names)


def _read_csv(path: Path, choice: _Choice) -> pa.Table:
    text = {name: pa.string() for name in choice.names}
    numbers = {name: pa.float64() for name in choice.numeric}
    try:
        return _read_csv_as(path, choice, {**text, **numbers})
    except pa.ArrowInvalid:
        # Something is not a number. Read again as text, to find out what it is and in which row, or
        # that all of it is true or false.
        return _read_csv_as(path, choice, text)


def _read_csv_as(path: Path, choice: _Choice, types: dict[str, Any]) -> pa.Table:
    convert = pa.csv.ConvertOptions(column_types=types, include_columns=list(choice.names))
    return pa.csv.read_csv(path, convert_options=convert, **_csv_options(path))


def _choose(
    source: str,
    names: Sequence[str],
    id_column: str,
    columns: Sequence[str],
    categorical: Sequence[str],
    label: str | None,
    label_optional: bool,
) -> _Choice:
    if id_column not in names:
        _refuse(source, f"there is no id column {id_column!r}: {did_you_mean(id_column, names)}")
    if label == id_column:
        _refuse(source, f"column {label!r} is both the id and the label: name another for one of them")
    if label is None and not columns and not categorical:
        _refuse(source, "no column is asked for: name at least one feature, or the label")
    if label is not None and label not in names and not label_optional:
        _refuse(source, f"there is no label column {label!r}: {did_you_mean(label, names)}")
    reserved = {id_column: "id", label: "label"}
    categories = _matching(source, names, categorical, reserved)
    numbers = _matching(source, names, columns, reserved)
    return _Choice(
        id=id_column,
        numeric=tuple(name for name in numbers if name not in categories),
        categorical=tuple(categories),
        label=label if label in names else None,
    )


def _matching(
    source: str, names: Sequence[str], patterns: Sequence[str], reserved: dict[str | None, str]
) -> dict[str, None]:
    """Resolves names and patterns to columns, each once, in the order asked for."""
    free = [name for name in names if name not in reserved]
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern in reserved:
            _refuse(source, f"column {pattern!r} is the {reserved[pattern]}: take it out of the features")
        # A name first: "x[0]" is also a pattern, which matches "x0".
        hits = [pattern] if pattern in free else [name for name in free if fnmatchcase(name, pattern)]
        if not hits:
            kind = "column matches" if any(sign in pattern for sign in "*?[") else "column is called"
            _refuse(source, f"no {kind} {pattern!r}: {did_you_mean(pattern, free)}")
        found.update(dict.fromkeys(hits))
    return found


def _read_ids(source: str, column: pa.ChunkedArray, name: str, first_row: int) -> list[str]:
    seen: dict[str, int] = {}
    for row, value in enumerate(column.to_pylist(), start=first_row):
        one = canonical_id(value)
        if one is None:
            _refuse(source, f"{name} {shown(value)} in row {row} is no id: use text or whole numbers")
        if not one:
            _refuse(source, f"the {name} in row {row} is missing: give every row an id, or drop the row")
        if one in seen:
            _refuse(source, f"{name} {shown(one)} is in row {seen[one]} and again in row {row}: keep one")
        seen[one] = row
    return list(seen)


def _read_numbers(source: str, column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        numbers = _parse_numbers(source, column, name, ids)
    elif pa.types.is_boolean(kind):
        numbers = column.cast(pa.uint8()).cast(pa.float64()).to_numpy()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # Unsafe only in that a whole number above 2**53 is rounded, as any float is.
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
    else:
        _refuse(source, f"column {name!r} holds {kind}, not numbers: turn it into numbers, or leave it out")
    _check_finite(source, numbers, name, ids)
    return np.asarray(numbers, dtype=np.float64)  # [n]


def _parse_numbers(source: str, column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> np.ndarray:
    numbers = np.empty(len(ids))  # [n]
    for row, text in enumerate(column.to_pylist()):
        number = _parse_number(str(text or "").strip())
        if number is None:
            what = f"{shown(text)} in column {name!r} at id {shown(ids[row])} is not a number"
            _refuse(source, f"{what}: correct it, or name the column under categorical")
        numbers[row] = number
    return numbers


def _parse_number(text: str) -> float | None:
    if text.lower() in _MISSING:
        return math.nan
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        # Python alone would also take 1_000 and the digits of other scripts.
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _check_finite(source: str, numbers: np.ndarray, name: str, ids: Sequence[str]) -> None:
    finite = np.isfinite(numbers)  # [n]
    if finite.all():
        return
    row = int(np.argmin(finite))
    where = f"in column {name!r} at id {shown(ids[row])}"
    if np.isnan(numbers[row]):
        _refuse(source, f"missing value {where}: fill it in or drop the row")
    _refuse(source, f"infinite value {where}: put a finite number or drop the row")


def _read_categories(source: str, column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> np.ndarray:
    texts = [canonical_text(value) for value in column.to_pylist()]
    if "" in texts:
        where = f"in column {name!r} at id {shown(ids[texts.index('')])}"
        _refuse(source, f"missing value {where}: fill it in or drop the row")
    return np.array(texts, dtype=object)  # [n]


def _read_labels(
    source: str, column: pa.ChunkedArray, name: str, ids: Sequence[str], optional: bool
) -> np.ndarray | None:
    values = column.to_pylist()
    missing = [row for row, value in enumerate(values) if canonical_text(value) == ""]
    if missing and optional:
        return None
    if missing:
        where = f"in column {name!r} at id {shown(ids[missing[0]])} ({len(missing)} of {len(ids)} rows)"
        _refuse(source, f"missing label {where}: fill it in or drop the row")
    labels = np.empty(len(values), dtype=object)  # [n]
    labels[:] = values
    return labels


@dataclass(frozen=True)
class _Choice:
    """The columns of a table that are read, by what they are read as."""

    id: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str | None

    @property
    def names(self) -> tuple[str, ...]:
        label = () if self.label is None else (self.label,)
        return (self.id, *self.numeric, *self.categorical, *label)


@dataclass(frozen=True)
class _Opened:
    """A source whose columns are known and whose values are not yet read."""

    names: list[str]
    first_row: int
    read: Callable[[_Choice], pa.Table]


@dataclass(frozen=True, eq=False)
class Table:
    """A party's own rows: n of them, with p numeric and q categorical columns, all values present.

    Attributes:
        source: how errors call the table: the path as the user wrote it, or `builtin:NAME`.
        ids: [n] canonical ids, each once.
        numeric: [n, p] float64, finite.
        numeric_names: p names.
        categorical: [n, q] object, canonical text, never "".
        categorical_names: q names.
        label: [n] object, as read: text, whole numbers, fractions or truth values; None without.
        label_name: the label's column; None without.
    """

    source: str
    ids: list[str]
    numeric: np.ndarray
    numeric_names: tuple[str, ...]
    categorical: np.ndarray
    categorical_names: tuple[str, ...]
    label: np.ndarray | None
    label_name: str | None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Table:
        """Returns the table of these rows, [m] indices, in this order."""
        return replace(
            self,
            ids=[self.ids[row] for row in rows.tolist()],
            numeric=self.numeric[rows],
            categorical=self.categorical[rows],
            label=None if self.label is None else self.label[rows],
        )
