"""Tables whose values stand between double colons, without a header: `.dat`, as rating data sets have it.

Their columns are called by their places: "1", "2", and so on. Rows count from 1.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol

import numpy as np

from vfl.data.files import BLOCK_ROWS, Kind, open_file
from vfl.data.rows import canonical_id
from vfl.data.text import canonical_text, parse_date, parse_number, shown
from vfl.errors import DataError

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
        """The number of the first row of values."""

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns from the start, some rows at a time."""


def open_source(source: str, folder: Path) -> Source:
    """Opens a `.dat` file, or whatever `vfl.data.files.open_file` opens.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    return DatFile(source, folder) if source.lower().endswith(_ENDINGS) else open_file(source, folder)


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
        width = 0 if first is None else first.count(_SEPARATOR) + 1
        self.names = [str(place + 1) for place in range(width)]

    def blocks(self, kinds: Mapping[str, Kind]) -> Iterator[dict[str, np.ndarray]]:
        """Reads these columns from the start, up to 65,536 rows (m) at a time, as `File.blocks` does.

        Raises:
            DataError: the file is garbled, or a value is not what it is to be read as.
        """
        row = self.first_row
        lines = self._lines()
        while some := list(itertools.islice(lines, BLOCK_ROWS)):
            cells = [line.split(_SEPARATOR) for line in some]
            wrong = next((at for at, line in enumerate(cells) if len(line) != len(self.names)), None)
            if wrong is not None:
                due = f"{len(self.names)} are due, as in row 1: mend the file"
                self._refuse(f"row {row + wrong} has {len(cells[wrong])} values where {due}")
            columns = dict(zip(self.names, zip(*cells, strict=True), strict=True))
            yield {name: self._read(name, kind, columns[name], row) for name, kind in kinds.items()}
            row += len(some)

    def _read(self, name: str, kind: Kind, texts: tuple[str, ...], row: int) -> np.ndarray:
        read, dtype = _READERS[kind]
        distinct = {text: read(text) for text in dict.fromkeys(texts)}
        for text, value in distinct.items():
            if value is None or (kind == "id" and value == ""):
                what = (
                    "the id is missing: give every row one" if kind == "id" else f"is no {kind}: correct it"
                )
                self._refuse(f"{shown(text)} in column {name!r} in row {row + texts.index(text)}: {what}")
        found = np.empty(len(texts), dtype=dtype)
        found[:] = [distinct[text] for text in texts]
        return found

    def _lines(self) -> Iterator[str]:
        with (
            self._readable(),
            (gzip.open if self.source.lower().endswith(".gz") else open)(
                self._path, "rt", encoding="utf-8"
            ) as file,
        ):
            while line := file.readline(_MAX_LINE):
                if text := line.rstrip("\r\n"):
                    yield text

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
