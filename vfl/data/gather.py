"""Brings a party's shared rows from its table into the common order, prepared, in a few passes over it.

Memory holds one block of the table at a time, the prepared features and a few numbers a row. Features
that are larger than `IN_MEMORY_BYTES` lie in a scratch file without a name, mapped into memory: what is
not in use there is the system's to take back, and nothing is left when the process ends.

Letters: n rows of a table, of which m are shared; p numeric features, q categorical ones.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import numpy as np
import torch

from vfl.config.prepare import ColumnRules
from vfl.data.labels import LabelColumn, gather_labels
from vfl.data.preparation import Features, Preparation, fit_preparation
from vfl.data.table import Chunk, Table, join_chunks
from vfl.errors import DataError, StorageError

#: So many values at the most are looked at to fit scales, ranks and fills, of the first training rows in
#: the common order, which is that of a hash and so a random sample; but never fewer rows than these.
FIT_VALUES: Final = 2**22
FIT_ROWS: Final = 2**12
IN_MEMORY_BYTES: Final = 2**28


@dataclass(frozen=True, eq=False)
class Shared:
    """Is the rows of a party's table that all parties hold, in the order that they have in common.

    Attributes:
        table: the party's own.
        ids: [m] canonical ids.
        places: [m] where in the table each row stands.
        digests: [m] the keyed hash of each id, for what peers compare.
        of: how many rows the table has.
    """

    table: Table
    ids: np.ndarray
    places: np.ndarray
    digests: np.ndarray
    of: int

    @property
    def in_table_order(self) -> np.ndarray:
        """[m] The rows' numbers, in the order in which they stand in the table."""
        return np.argsort(self.places, kind="stable")


def fit(shared: Shared, train: np.ndarray, rules: Callable[[str], ColumnRules]) -> Preparation:
    """Fits a preparation on the training rows.

    Scales, ranks and fills are those of `FIT_VALUES` of their values, where there are more; categories are
    counted in all rows.

    Args:
        shared: this party's rows.
        train: the training rows, ascending numbers below m.
        rules: gives each column's.

    Raises:
        DataError: a value cannot be read, or cannot be used as the rules say.
    """
    table = shared.table
    columns = len(table.numeric_names) + len(table.categorical_names) + len(table.date_names)
    some = train[: max(FIT_ROWS, FIT_VALUES // max(1, columns))]
    counts = _counts(shared, train) if len(some) < len(train) and table.categorical_names else None
    return fit_preparation(read_rows(shared, some), rules, counts)


def _counts(shared: Shared, train: np.ndarray) -> dict[str, Counter[str]]:
    """Counts each column's categories in all training rows."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in shared.table.categorical_names}
    for chunk, _ in _chunks(shared, train, features=True, label=None):
        for place, name in enumerate(chunk.categorical_names):
            counts[name].update(chunk.categorical[:, place].tolist())
    return counts


def read_rows(shared: Shared, rows: np.ndarray) -> Chunk:
    """Reads the features of these rows, in this order, into memory.

    Raises:
        DataError: a value cannot be read.
    """
    found, numbers = [], []
    for chunk, of_these in _chunks(shared, rows, features=True, label=None):
        found.append(chunk)
        numbers.append(of_these)
    if not found:
        return next(iter(shared.table.chunks())).take(np.empty(0, dtype=np.int64))
    return join_chunks(found).take(np.argsort(np.concatenate(numbers), kind="stable"))


def prepare(shared: Shared, preparation: Preparation, scratch: Path | None) -> Features:
    """Prepares the shared rows in the common order.

    Args:
        shared: this party's rows.
        preparation: what was fitted.
        scratch: the folder for a scratch file where the features are large; None keeps them in memory.

    Raises:
        DataError: a value cannot be read or prepared.
        StorageError: the scratch file cannot be made.
    """
    m, q = len(shared.ids), len(preparation.category_sizes)
    x = _array((m, preparation.width), np.float32, scratch)  # [m, p]
    codes = _array((m, q), np.int64, scratch) if q else None  # [m, q]
    for chunk, rows in _chunks(shared, None, features=True, label=None):
        part = preparation.transform(chunk)
        x[rows] = part.x.numpy()
        _let_go(x)
        if codes is not None and part.codes is not None:
            codes[rows] = part.codes.numpy()
            _let_go(codes)
    return Features(x=torch.from_numpy(x), codes=None if codes is None else torch.from_numpy(codes))


def read_labels(shared: Shared, *, task: str) -> LabelColumn:
    """Reads the labels of the shared rows in the common order.

    Args:
        shared: the label party's rows, of a table with a label column.
        task: binary, multiclass or regression.

    Raises:
        DataError: a label cannot be read.
    """
    kind: Literal["text", "number"] = "number" if task == "regression" else "text"
    name = shared.table.label_name
    assert name is not None  # noqa: S101 - asked for only where there is one
    pieces = ((rows, chunk.label) for chunk, rows in _chunks(shared, None, features=False, label=kind))
    return gather_labels(
        shared.table.source, name, pieces, len(shared.ids), task=task, id_of=lambda row: str(shared.ids[row])
    )


def _chunks(
    shared: Shared, rows: np.ndarray | None, *, features: bool, label: Literal["text", "number"] | None
) -> Iterator[tuple[Chunk, np.ndarray]]:
    """Deals a table's blocks out, each with wanted rows only, and their numbers among these."""
    places = shared.places if rows is None else shared.places[rows]  # [m]
    ids = shared.ids if rows is None else shared.ids[rows]
    by_place = np.argsort(places, kind="stable")
    ordered, dealt = places[by_place], 0
    for chunk in shared.table.chunks(features=features, label=label):
        first, last = np.searchsorted(ordered, [chunk.start, chunk.start + len(chunk)])
        if first == last:
            continue
        numbers = by_place[first:last]
        found = chunk.take(ordered[first:last] - chunk.start)
        if not np.array_equal(found.ids, ids[numbers].astype(object)):
            _refuse_changed(shared.table)
        dealt += len(numbers)
        yield found, numbers
    if dealt < len(ordered):
        _refuse_changed(shared.table)


def _refuse_changed(table: Table) -> NoReturn:
    raise DataError(f"{table.source}: it has changed while it was read: start anew")


def _let_go(array: np.ndarray) -> None:
    """Gives the memory of a mapped array back; what it holds stays in the system's cache of the file.

    The rows of one block lie all over the array, so that each block would else leave much of it here.
    """
    base: object = array.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _reserve(file: int, size: int) -> None:
    """Takes the space now: a map into a file with holes ends the process where the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def _array(shape: tuple[int, int], kind: type[Any], scratch: Path | None) -> np.ndarray:
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    if scratch is None or size <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype=kind)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:  # the map keeps it until the process ends
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=kind, mode="r+", shape=shape)
    except OSError as error:
        raise StorageError(
            f"{scratch}: {size / 2**30:.1f} GiB of prepared rows cannot be kept there ({error.strerror}); "
            f"free some space, or choose another folder with --out"
        ) from error
