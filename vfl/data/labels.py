"""The label party's labels: gathered from pieces of its table, and turned into what a loss reads.

What is fitted is a `LabelCode`, the classes among the training rows; it is JSON, so that it travels in a
checkpoint. A label that is missing is an error wherever a number has to stand for it; in prediction
`LabelColumn.is_complete` says beforehand whether there is something to score by.

Letters: n rows, m rows of one piece, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, get_args

import msgspec
import numpy as np
import torch

from vfl.data.fitted import NOT_SAVED
from vfl.data.text import canonical_text, shown
from vfl.errors import DataError

Task = Literal["binary", "multiclass", "regression"]

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_MISSING: Final = -1


@dataclass(frozen=True)
class LabelCode:
    """How labels become numbers: class i is `classes[i]`; a regression has none.

    Attributes:
        task: "binary", "multiclass" or "regression".
        classes: c names; of two, the positive one is the last.
        positive: the class that is called 1 in a binary task, else None.
    """

    task: Task
    classes: tuple[str, ...] = ()
    positive: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns lists and text only."""
        return {"task": self.task, "classes": list(self.classes), "positive": self.positive}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> LabelCode:
        """Returns what `to_json` wrote.

        Raises:
            DataError: it is not what `to_json` writes.
        """
        try:
            saved = msgspec.convert(found, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"labels: {NOT_SAVED} ({error})") from error
        if saved.task == "binary" and (len(saved.classes) != 2 or saved.positive != saved.classes[1]):
            raise DataError(f"labels: {NOT_SAVED} (of two classes the last must be the positive one)")
        if len(set(saved.classes)) < len(saved.classes):
            raise DataError(f"labels: {NOT_SAVED} (a class is named twice)")
        return saved


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """The labels of n rows in the common order, before anything is learned from them.

    Attributes:
        source: how errors call the table.
        name: the column.
        texts: the classes as canonical text, in the order in which they were met; none in a regression.
        codes: [n] int32 places in `texts`, -1 where missing; empty in a regression.
        numbers: [n] float64, NaN where missing, for a regression; else None.
        id_of: gives a row's id, for errors.
    """

    source: str
    name: str
    texts: tuple[str, ...]
    codes: np.ndarray
    numbers: np.ndarray | None = None
    id_of: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return len(self.codes if self.numbers is None else self.numbers)

    @property
    def missing(self) -> np.ndarray:
        """[n] where there is no label."""
        gone: np.ndarray = self.codes == _MISSING if self.numbers is None else np.isnan(self.numbers)
        return gone

    @property
    def is_complete(self) -> bool:
        """Whether every row has a label."""
        return not self.missing.any()


def gather_labels(
    source: str,
    name: str,
    pieces: Iterable[tuple[np.ndarray, np.ndarray | None]],
    n: int,
    *,
    task: str,
    id_of: Callable[[int], str] | None = None,
) -> LabelColumn:
    """Puts the labels of a table's pieces into the common order.

    For n rows it holds 4 bytes each and every class once; for a regression 8 bytes each.

    Args:
        source: how errors call the table.
        name: the column.
        pieces: for each the places [m] below n in the common order, and the labels [m] that go there:
            of any type, "", None and NaN are missing. A row that no piece has is missing, too.
        n: how many rows there are.
        task: "binary", "multiclass" or "regression".
        id_of: gives a row's id, for errors.

    Raises:
        DataError: a piece has no labels, or a label in a regression is no number.
    """
    if task not in get_args(Task):
        raise ValueError(f"there is no task {task!r}")
    numbers = np.full(n, np.nan) if task == "regression" else None  # [n]
    codes = np.full(0 if task == "regression" else n, _MISSING, dtype=np.int32)  # [n]
    column = LabelColumn(source, name, (), codes, numbers, id_of)
    found: dict[str, int] = {"": _MISSING}
    known: dict[str, int] = {}
    for rows, values in pieces:
        if values is None:
            _refuse_none(column)
        if numbers is not None:
            numbers[rows] = _numbers(column, rows, values)
        else:
            codes[rows] = _codes(values, known, found)
    return LabelColumn(source, name, tuple(found)[1:], codes, numbers, id_of)


def fit_labels(
    column: LabelColumn,
    train: np.ndarray,
    *,
    task: Task,
    classes: int | None = None,
    positive: str | None = None,
) -> LabelCode:
    """Finds the classes among the labels of the training rows.

    Classes are compared as canonical text, so 1, 1.0 and "1" are one class, and sorted: as numbers
    where all of them are, else as text. Of two, the last is the positive one unless `positive` names
    the other: 1 rather than 0, True rather than False, "yes" rather than "no".

    Args:
        column: the label party's own.
        train: indices of the training rows.
        task: "binary", "multiclass" or "regression", as the column was gathered for.
        classes: for "multiclass", how many there are to be; None takes what is there.
        positive: for "binary", the class that is called 1.

    Raises:
        DataError: a label is missing, or the labels do not fit the task; the sentence says in which way.
        ValueError: there is no such task, or the column was gathered for another.
    """
    _check_task(column, task)
    if len(train) == 0:
        raise DataError(f"{column.source}: no row is left to train on: give more rows or a smaller split")
    _check_complete(column)
    if column.numbers is not None:
        _check_fits(column, column.numbers)
        return LabelCode(task=task)
    found = _sorted_classes({column.texts[code] for code in np.unique(column.codes[train]).tolist()})
    if task == "multiclass":
        _check_classes(column, found, 2 if classes is None else classes, exact=classes is not None)
        return LabelCode(task=task, classes=found)
    _check_two(column, found)
    chosen = found[-1] if positive is None else canonical_text(positive)
    if chosen not in found:
        both = " and ".join(map(shown, found))
        raise DataError(
            f"{_named(column)} has no class {shown(chosen)} to call positive: its classes are {both}"
        )
    other = found[0] if chosen == found[1] else found[1]
    return LabelCode(task=task, classes=(other, chosen), positive=chosen)


def encode_labels(column: LabelColumn, code: LabelCode) -> torch.Tensor:
    """Turns every label into the number that it is trained on.

    Returns:
        [n] float32 in {0, 1} for a binary task, int64 for a multiclass one, float32 for a regression.

    Raises:
        DataError: a label is missing, or a class that no training row had, or too large for float32.
        ValueError: the column was gathered for another task.
    """
    _check_task(column, code.task)
    _check_complete(column)
    if column.numbers is not None:
        _check_fits(column, column.numbers)
        return torch.from_numpy(column.numbers.astype(np.float32))  # [n]
    kind = np.float32 if code.task == "binary" else np.int64
    if not len(column):
        return torch.from_numpy(np.empty(0, dtype=kind))
    number = {name: at for at, name in enumerate(code.classes)}
    coded = np.array([number.get(text, _MISSING) for text in column.texts])
    strange = coded < 0
    if strange.any() and (unseen := strange[column.codes]).any():
        row = int(np.argmax(unseen))
        text = shown(column.texts[column.codes[row]])
        raise DataError(
            f"{_named(column)} has {text}{_at(column, row)}, a class that no training row had: correct it, "
            f"drop the row, or change the seed of the split"
        )
    return torch.from_numpy(coded.astype(kind)[column.codes])  # [n]


def _codes(values: np.ndarray, known: dict[str, int], found: dict[str, int]) -> list[int]:
    """Looks labels [m] up, and enters into `found` those that were not met before.

    `known` holds each spelling once: to look one up is much faster than to bring it into canonical form.
    """
    codes = []
    for value in values.tolist():
        # Only text: 1 and True are the same key, and not the same class.
        spelling = value if type(value) is str else canonical_text(value)
        code = known.get(spelling)
        if code is None:
            code = known[spelling] = found.setdefault(canonical_text(spelling), len(found) - 1)
        codes.append(code)
    return codes


def _numbers(column: LabelColumn, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Reads labels [m] as numbers: NaN where missing."""
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    numbers = np.full(len(values), np.nan)  # [m]
    for at, value in enumerate(values.tolist()):
        text = canonical_text(value)
        number = _finite(text)
        if number is None and text:
            _refuse_number(column, int(rows[at]), value)
        numbers[at] = math.nan if number is None else number
    return numbers


def _check_task(column: LabelColumn, task: str) -> None:
    if task not in get_args(Task):
        raise ValueError(f"there is no task {task!r}")
    if (task == "regression") != (column.numbers is not None):
        raise ValueError(f"the labels were not gathered for the task {task!r}")


def _check_complete(column: LabelColumn) -> None:
    missing = column.missing
    count, n = int(missing.sum()), len(column)
    if count == 0:
        return
    if count == n:
        _refuse_none(column)
    raise DataError(
        f"{_named(column)} has a missing value{_at(column, int(np.argmax(missing)))}, and {count:,} of {n:,} "
        f"rows in all: fill them in or drop the rows"
    )


def _check_fits(column: LabelColumn, numbers: np.ndarray) -> None:
    beyond = ~(np.abs(numbers) <= _FLOAT32_MAX)  # [n]
    if beyond.any():
        row = int(np.argmax(beyond))
        _refuse_number(column, row, numbers[row])


def _refuse_number(column: LabelColumn, row: int, value: object) -> NoReturn:
    raise DataError(
        f"{_named(column)} has {shown(value)}{_at(column, row)}, which is not a number that float32 holds: "
        f"correct it, or set another task than regression"
    )


def _refuse_none(column: LabelColumn) -> NoReturn:
    raise DataError(f"{_named(column)}: there are no labels: name their column, and fill in every row")


def _named(column: LabelColumn) -> str:
    return f"{column.source}: label column {column.name!r}"


def _at(column: LabelColumn, row: int) -> str:
    return "" if column.id_of is None else f" at id {shown(column.id_of(row))}"


def _sorted_classes(names: set[str]) -> tuple[str, ...]:
    numbers = {name: _finite(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))


def _finite(text: str) -> float | None:
    """Reads a finite number, written as people and programs write them; else None."""
    try:
        # Python alone would also take 1_000 and the digits of other scripts.
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_two(column: LabelColumn, found: Sequence[str]) -> None:
    if len(found) == 1:
        raise DataError(
            f"{_named(column)} has one class in the training rows, {shown(found[0])}: "
            f"a binary task needs two: add rows of the other, or change the seed of the split"
        )
    if len(found) > 2:
        raise DataError(
            f"{_named(column)} has {len(found)} classes in the training rows ({_listed(found)}): "
            f"a binary task needs two: set the task to multiclass or regression"
        )


def _check_classes(column: LabelColumn, found: Sequence[str], classes: int, *, exact: bool) -> None:
    if len(found) == classes or (len(found) > classes and not exact):
        return
    need = f"the job says classes = {classes}" if exact else "a multiclass task needs two or more"
    raise DataError(
        f"{_named(column)} has {len(found)} classes in the training rows ({_listed(found)}): {need}: "
        f"correct the number in the job, or the rows"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5])) + (", …" if len(names) > 5 else "")
