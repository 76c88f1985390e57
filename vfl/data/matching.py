"""Finds a preparation's columns among those of a table, and says which value cannot be prepared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from vfl.config.prepare import DatePart
from vfl.data.dates import date_part
from vfl.data.table import Chunk
from vfl.data.text import did_you_mean, shown
from vfl.errors import DataError


def number_columns(
    chunk: Chunk, numeric: Sequence[str], dates: Sequence[str], parts: Sequence[Sequence[DatePart]]
) -> np.ndarray:
    """Lays the named numeric columns and the parts of the named dates side by side: [n, s] float64.

    Raises:
        DataError: a column is missing, or holds an infinite value.
    """
    places = places_of(chunk, chunk.numeric_names, numeric, "numeric")
    same = places == list(range(chunk.numeric.shape[1]))
    numbers = chunk.numeric if same else chunk.numeric[:, places]
    if np.isinf(numbers).any():
        row, place = (int(at[0]) for at in np.nonzero(np.isinf(numbers)))
        refuse_number(chunk, row, numeric[place], numbers[row, place])
    columns = [
        date_part(chunk.dates[:, place], part)
        for place, some in zip(places_of(chunk, chunk.date_names, dates, "date"), parts, strict=True)
        for part in some
    ]
    return np.column_stack([numbers, *columns]) if columns else numbers


def places_of(chunk: Chunk, names: Sequence[str], wanted: Sequence[str], kind: str) -> list[int]:
    """Finds where the wanted columns stand among a chunk's columns of one kind.

    Raises:
        DataError: one of them is missing.
    """
    missing = [name for name in wanted if name not in names]
    if missing:
        listed = ", ".join(map(repr, missing))
        hint = did_you_mean(missing[0], names) if names else f"there is no {kind} column"
        raise DataError(
            f"{chunk.source}: trained with {kind} columns that are missing here: {listed}: {hint}"
        )
    return [names.index(name) for name in wanted]


def refuse_number(chunk: Chunk, row: int, name: str, value: float) -> NoReturn:
    """Raises for a number that is too large, or becomes so."""
    raise DataError(
        f"{chunk.source}: {shown(value)} {_at(chunk, row, name)} does not fit into float32: correct it, or "
        f"standardise the columns"
    )


def refuse_missing(chunk: Chunk, row: int, name: str, key: str, way: str) -> NoReturn:
    """Raises for a value that is missing, and names the key and a way to fill it in."""
    raise DataError(
        f"{chunk.source}: missing value {_at(chunk, row, name)}: fill it in or drop the row; or, before "
        f'training, set prepare.{key} to "{way}", or {key_of(name, key)} for this column only'
    )


def refuse_unknown(chunk: Chunk, row: int, name: str, text: str) -> NoReturn:
    """Raises for a category outside the vocabulary."""
    raise DataError(
        f"{chunk.source}: category {shown(text)} {_at(chunk, row, name)} is one that no training row had, or "
        f"fewer than min_frequency: correct it or drop the row; or, before training, set prepare.unknown to "
        f'"own", or {key_of(name, "unknown")} for this column only'
    )


def key_of(name: str, key: str) -> str:
    """Writes the key of a column's own rule as TOML has it."""
    return f"prepare.columns.{json.dumps(name, ensure_ascii=False)}.{key}"


def _at(chunk: Chunk, row: int, name: str) -> str:
    return f"in column {name!r} at id {shown(chunk.ids[row])}"
