"""On which line of its file a row stands: found by reading the file once more, and only to tell an error.

Lines count as an editor counts them, with those that have nothing on them; a row that goes on over several,
within quotes, stands on its first. Readers of tables pass over empty lines, and do not say how many.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vfl.data.separator import separator_of

_LONGEST_FIELD: Final = 2**24


def line_of(path: Path, place: int) -> int | None:
    """Finds the line of a separated file's row, where 0 is the header; None where it cannot be found."""
    with suppress(OSError, EOFError, zlib.error, csv.Error):
        return next((line for line, _ in itertools.islice(_rows(path), place, None)), None)
    return None


def first_uneven(path: Path) -> tuple[int, int, int, int] | None:
    """Finds the first row of a separated file that has more values than its header, or fewer.

    Returns:
        Its line, how many values it has, how many the header has, and the header's line; None where there is
        no such row.
    """
    with suppress(OSError, EOFError, zlib.error, csv.Error):
        rows = _rows(path)
        header, due = next(rows, (1, 0))
        return next(((line, n, due, header) for line, n in rows if n != due), None)
    return None


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets a field be as long as the readers of tables let it be."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(path: Path) -> Iterator[tuple[int, int]]:
    """Yields each row's line and its number of values, the header first."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with (
        _long_fields(),
        opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file,
    ):
        reader = csv.reader(file, delimiter=separator_of(path))
        line = 1
        for values in reader:
            if values:
                yield line, len(values)
            line = reader.line_num + 1
