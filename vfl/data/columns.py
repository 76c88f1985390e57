"""Which columns of a table a party brings, and as what: chosen by name or pattern before a value is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NoReturn

from vfl.data.files import File
from vfl.data.text import did_you_mean
from vfl.errors import DataError


@dataclass(frozen=True)
class Choice:
    """The columns of a table that are read, by what they are read as; each is in one place only."""

    id: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    dates: tuple[str, ...]
    label: str | None


def choose(
    file: File,
    *,
    id_column: str,
    columns: Sequence[str],
    categorical: Sequence[str],
    dates: Sequence[str],
    label: str | None,
    label_optional: bool,
) -> Choice:
    """Resolves names and patterns to the columns of a file.

    A list is read from left to right: a name or a glob pattern ("mean *") adds columns, those of one
    pattern in the table's own order, and "!" before either takes out of what the list has so far. A
    column that several lists ask for is a date before it is a category before it is a number. The id and
    the label are never features.

    Raises:
        DataError: a column is not there, is asked for as two things, or nothing is asked for.
    """
    _check_id(file, id_column)
    if label == id_column:
        _refuse(file, f"column {label!r} is both the id and the label: name another for one of them")
    if label is None and not (columns or categorical or dates):
        _refuse(file, "no column is asked for: name at least one feature, or the label")
    if label is not None and label not in file.names and not label_optional:
        _refuse(file, f"there is no label column {label!r}: {did_you_mean(label, file.names)}")
    reserved = {id_column: "id"} | ({} if label is None else {label: "label"})
    times = _matching(file, dates, reserved)
    categories = _matching(file, categorical, reserved)
    numbers = _matching(file, columns, reserved)
    return Choice(
        id=id_column,
        numeric=tuple(name for name in numbers if name not in times and name not in categories),
        categorical=tuple(name for name in categories if name not in times),
        dates=tuple(times),
        label=label if label in file.names else None,
    )


def _refuse(file: File, why: str) -> NoReturn:
    raise DataError(f"{file.source}: {why}")


def _check_id(file: File, id_column: str) -> None:
    if id_column in file.names:
        return
    if file.separated and len(file.names) == 1:
        what = f"there is no id column {id_column!r}: only one column was found, {file.names[0][:60]!r}"
        remedy = "write it with commas (.csv) or tabs (.tsv)"
        _refuse(file, f"{what}; the separator may be another than comma, semicolon or tab: {remedy}")
    _refuse(file, f"there is no id column {id_column!r}: {did_you_mean(id_column, file.names)}")


def _matching(file: File, patterns: Sequence[str], reserved: Mapping[str, str]) -> dict[str, None]:
    """Resolves names and patterns to columns, each once, in the order asked for."""
    free = [name for name in file.names if name not in reserved]
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern in reserved:
            _refuse(file, f"column {pattern!r} is the {reserved[pattern]}: take it out of the features")
        hits = _hits(pattern, free)
        if not hits and pattern.startswith("!"):
            _take_out(file, pattern, found)
            continue
        if not hits:
            kind = "column matches" if any(sign in pattern for sign in "*?[") else "column is called"
            _refuse(file, f"no {kind} {pattern!r}: {did_you_mean(pattern, free or file.names)}")
        found.update(dict.fromkeys(hits))
    return found


def _hits(pattern: str, names: Sequence[str]) -> list[str]:
    # A name first: "x[0]" is also a pattern, which matches "x0".
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def _take_out(file: File, pattern: str, found: dict[str, None]) -> None:
    hits = _hits(pattern.removeprefix("!"), list(found))
    if not hits:
        before = did_you_mean(pattern.removeprefix("!"), list(found)) if found else "there is none"
        _refuse(file, f"{pattern!r} takes out none of the columns that stand before it in its list: {before}")
    for name in hits:
        del found[name]
