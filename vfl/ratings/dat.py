"""Tables whose values stand between double colons, without a header: `.dat`, as rating data sets have it.

Their columns are called by their places: "1", "2", and so on.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final, NoReturn, Protocol

import numpy as np

from vfl.data.files import BLOCK_ROWS, File, Kind, open_file
from vfl.data.rows import canonical_id
from vfl.data.text import canonical_text, parse_date, parse_number, shown
from vfl.errors import DataError
from vfl.ratings.lines import first_uneven, line_of

_SEPARATOR: Final = "::"
_ENDINGS: Final = (".dat", ".dat.gz")
_MAX_LINE: Final = 1024 * 1024


class Source(Protocol):
    """Is a file of columns, as `vfl.data.files.File` is one."""

    @property
    def source(self) -> str:
        """How errors call it."""

    @property
    def names(self) -> list[str]:
        """Its columns."""

    @property
    def first_row(self) -> int:
        """The number of the first row of values, where no line before it is empty."""

    def row(self, place: int) -> int:
        """Finds the number of a row in the file, empty lines counted; 0 is the first row of values."""

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns from the start, some rows at a time."""


def open_source(source: str, folder: Path) -> Source:
    """Opens a `.dat` file, or whatever `vfl.data.files.open_file` opens.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if source.lower().endswith(_ENDINGS):
        return DatFile(source, folder)
    with nullcontext() if source.lower().endswith(".parquet") else _naming_uneven(source, folder):
        file = open_file(source, folder)
    return _Separated(file, folder) if file.separated else _Counted(file)


class _Counted:
    """Is a file whose rows follow each other without gaps."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.source, self.names, self.first_row = file.source, file.names, file.first_row

    def row(self, place: int) -> int:
        """Gives the number of a row."""
        return self.first_row + int(place)

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns as `File.blocks` does."""
        return self._file.blocks(kinds)


class _Separated(_Counted):
    """Is a text file with a header: whose reader passes over empty lines, and counts without them."""

    def __init__(self, file: File, folder: Path) -> None:
        super().__init__(file)
        self._folder = folder

    def row(self, place: int) -> int:
        """Finds the line that a row begins on."""
        return line_of(self._folder / self.source, int(place) + 1) or super().row(place)

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns as `File.blocks` does, but for the rows that errors name."""
        try:
            with _naming_uneven(self.source, self._folder):
                yield from self._file.blocks(kinds)
        except DataError:
            for name in (name for name, kind in kinds.items() if kind == "id"):
                self._name_missing(name)
            raise

    def _name_missing(self, name: str) -> None:
        start = 0
        for block in self._file.blocks({name: "text"}):
            texts = block[name].tolist()
            if "" in texts:
                row = self.row(start + texts.index(""))
                what = f"the {name} in row {row} is missing: give every row an id, or drop the row"
                raise DataError(f"{self.source}: {what}")
            start += len(texts)


@contextmanager
def _naming_uneven(source: str, folder: Path) -> Iterator[None]:
    """Names the row that has values too many or too few, where that is why a file cannot be read."""
    try:
        yield
    except DataError as error:
        uneven = first_uneven(folder / source) if error.__cause__ is not None else None
        if uneven is None:
            raise
        raise DataError(f"{source}: {_uneven_words(*uneven)}") from error


def _uneven_words(row: int, n: int, due: int, first: int) -> str:
    has = "1 value" if n == 1 else f"{n} values"
    return f"row {row} has {has} where {due} are due, as in row {first}: mend the file"


class DatFile:
    """Is a `.dat` file, which may be gzipped.

    Args:
        source: its path, relative to `folder`, and how errors call it.
        folder: where relative paths begin.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """

    first_row = 1

    def __init__(self, source: str, folder: Path) -> None:
        self.source = source
        self._path = folder / source
        if not self._path.is_file():
            self._refuse(f"there is no such file in {self._path.parent}: give the path of a table")
        first = next(self._lines(), None)
        if first is None:
            what = f"one row a line is due, with {_SEPARATOR} between its values"
            self._refuse(f"there is nothing in it, where {what}: name the file that has the rows")
        self.names = [str(place + 1) for place in range(first[1].count(_SEPARATOR) + 1)]

    def row(self, place: int) -> int:
        """Finds the line that a row stands on."""
        found = itertools.islice(self._lines(), int(place), None)
        return next((line for line, _ in found), self.first_row + int(place))

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns from the start, up to 65,536 rows (m) at a time, as `File.blocks` does.

        Raises:
            DataError: the file is garbled, or a value is not what it is to be read as.
        """
        start, lines = 0, self._lines()
        while some := list(itertools.islice(lines, BLOCK_ROWS)):
            cells = [text.split(_SEPARATOR) for _, text in some]
            wrong = next((at for at, values in enumerate(cells) if len(values) != len(self.names)), None)
            if wrong is not None:
                n, due = len(cells[wrong]), len(self.names)
                self._refuse(_uneven_words(some[wrong][0], n, due, self.row(0)))
            columns = dict(zip(self.names, zip(*cells, strict=True), strict=True))
            yield {name: self._read(name, kind, columns[name], start) for name, kind in kinds.items()}
            start += len(some)

    def _read(self, name: str, kind: Kind, texts: tuple[str, ...], start: int) -> np.ndarray:
        read, dtype = _READERS[kind]
        distinct = {text: read(text) for text in dict.fromkeys(texts)}
        for text, value in distinct.items():
            if value is None or (kind == "id" and value == ""):
                what = (
                    "the id is missing: give every row one" if kind == "id" else f"is no {kind}: correct it"
                )
                row = self.row(start + texts.index(text))
                self._refuse(f"{shown(text)} in column {name!r} in row {row}: {what}")
        found = np.empty(len(texts), dtype=dtype)
        found[:] = [distinct[text] for text in texts]
        return found

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yields the lines that have something on them, each with its number."""
        with (
            self._readable(),
            (gzip.open if self.source.lower().endswith(".gz") else open)(
                self._path, "rt", encoding="utf-8"
            ) as file,
        ):
            for number in itertools.count(1):
                line = file.readline(_MAX_LINE)
                if not line:
                    return
                if text := line.rstrip("\r\n"):
                    yield number, text

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            what = "it is not UTF-8 text" if isinstance(error, UnicodeError) else " ".join(str(error).split())
            raise DataError(
                f"{self.source}: it cannot be read ({what}): mend the file or write it anew"
            ) from error

    def _refuse(self, why: str) -> NoReturn:
        raise DataError(f"{self.source}: {why}")


_READERS: Final[Mapping[Kind, tuple[Callable[[str], object], str]]] = {
    "id": (canonical_id, "O"),
    "text": (canonical_text, "O"),
    "number": (parse_number, "f8"),
    "date": (lambda text: parse_date(text, None), "M8[s]"),
}


def number_or_none(text: str) -> float | None:
    """Reads a finite number; None for anything else, what means missing included."""
    value = parse_number(text)
    return None if value is None or not math.isfinite(value) else value
