"""From a party's table to its tensors: what is fitted on the training rows, and applied to all.

Two things are fitted, and both are JSON, so that they travel in a checkpoint: a `Preparation` (means,
scales, the categories of each column) and, at the label party, a `LabelCode` (the classes). Prediction
on new rows applies them as they are; nothing is ever fitted on rows that were held out.

Letters: n rows, p numeric features, q categorical columns, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import torch

from vfl.data.table import Table, canonical_text, did_you_mean, shown
from vfl.errors import DataError

Task = Literal["binary", "multiclass", "regression"]

UNKNOWN: Final = 0  # the code of a category that no training row had

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_NOT_SAVED: Final = "this is not what a run saves: take the checkpoint as it was written"


def fit_preparation(table: Table, train: np.ndarray, *, standardize: bool) -> Preparation:
    """Fits means, scales and vocabularies on the training rows only.

    A column that is constant there is centred and not scaled; without `standardize` means are 0 and
    scales 1.

    Args:
        table: this party's own.
        train: indices of the training rows.
        standardize: whether numeric columns get mean 0 and standard deviation 1.

    Raises:
        DataError: there is no training row, or a column is too large to have a standard deviation.
    """
    _check_some(table, train)
    p = len(table.numeric_names)
    mean, scale = np.zeros(p), np.ones(p)  # [p], [p]
    if standardize and p:
        # Imported here: scikit-learn takes longer to import than most tables take to read.
        from sklearn.preprocessing import StandardScaler

        with np.errstate(over="ignore", invalid="ignore"):
            scaler = StandardScaler().fit(table.numeric[train])
        mean, scale = scaler.mean_, scaler.scale_
    for name, centre, spread in zip(table.numeric_names, mean, scale, strict=True):
        if not (math.isfinite(centre) and math.isfinite(spread)):
            raise DataError(f"{table.source}: column {name!r} is too large to standardise: change its unit")
    return Preparation(
        numeric_names=table.numeric_names,
        categorical_names=table.categorical_names,
        mean=tuple(map(float, mean)),
        scale=tuple(map(float, scale)),
        vocabularies=tuple(tuple(sorted(set(column))) for column in table.categorical[train].T),
    )


def prepare(table: Table, preparation: Preparation) -> Features:
    """Turns a table into tensors: columns are matched by name, and others are left out.

    Raises:
        DataError: a column is missing, or a value does not fit into float32.
    """
    numeric = _positions(table, table.numeric_names, preparation.numeric_names, "numeric")
    categorical = _positions(table, table.categorical_names, preparation.categorical_names, "categorical")
    mean, scale = np.array(preparation.mean), np.array(preparation.scale)  # [p], [p]
    with np.errstate(over="ignore"):
        x = ((table.numeric[:, numeric] - mean) / scale).astype(np.float32)  # [n, p]
    if not np.isfinite(x).all():
        row, column = (int(at[0]) for at in np.nonzero(~np.isfinite(x)))
        raise DataError(
            f"{table.source}: {shown(table.numeric[row, numeric[column]])} in column "
            f"{preparation.numeric_names[column]!r} at id {shown(table.ids[row])} does not fit into float32: "
            f"correct it, or standardise the columns"
        )
    codes = np.full((len(table), len(categorical)), UNKNOWN, dtype=np.int64)  # [n, q]
    for at, (column, vocabulary) in enumerate(zip(categorical, preparation.vocabularies, strict=True)):
        code = {category: number for number, category in enumerate(vocabulary, start=UNKNOWN + 1)}
        codes[:, at] = [code.get(category, UNKNOWN) for category in table.categorical[:, column]]
    return Features(x=torch.from_numpy(x), codes=torch.from_numpy(codes) if categorical else None)


def fit_labels(
    table: Table,
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
        table: the label party's own, with labels.
        train: indices of the training rows.
        task: "binary", "multiclass" or "regression".
        classes: for "multiclass", how many there are to be; None takes what is there.
        positive: for "binary", the class that is called 1.

    Raises:
        DataError: the labels do not fit the task; the sentence says in which way.
        ValueError: there is no such task.
    """
    if task not in get_args(Task):
        raise ValueError(f"there is no task {task!r}")
    values = _labels(table)
    _check_some(table, train)
    if task == "regression":
        for row in train.tolist():
            _number(table, row)
        return LabelCode(task=task)
    found = _sorted_classes({canonical_text(value) for value in values[train]})
    if task == "multiclass":
        _check_classes(table, found, 2 if classes is None else classes, exact=classes is not None)
        return LabelCode(task=task, classes=found)
    _check_two(table, found)
    chosen = found[-1] if positive is None else canonical_text(positive)
    if chosen not in found:
        both = " and ".join(map(shown, found))
        raise DataError(
            f"{_named(table)} has no class {shown(chosen)} to call positive: its classes are {both}"
        )
    other = found[0] if chosen == found[1] else found[1]
    return LabelCode(task=task, classes=(other, chosen), positive=chosen)


def encode_labels(table: Table, code: LabelCode) -> Labels:
    """Turns every label of a table into the number that it is trained on.

    Raises:
        DataError: a label is a class that no training row had, or no number in a regression.
    """
    values = _labels(table)
    if code.task == "regression":
        numbers = [_number(table, row) for row in range(len(table))]
        return Labels(code=code, y=torch.tensor(numbers, dtype=torch.float32))  # [n]
    number = {name: at for at, name in enumerate(code.classes)}
    texts = [canonical_text(value) for value in values]
    for row, text in enumerate(texts):
        if text not in number:
            raise DataError(
                f"{_named(table)} has {shown(text)} at id {shown(table.ids[row])}, a class that no training "
                f"row had: correct it, drop the row, or change the seed of the split"
            )
    kind = torch.float32 if code.task == "binary" else torch.int64
    return Labels(code=code, y=torch.tensor([number[text] for text in texts], dtype=kind))  # [n]


def _check_some(table: Table, train: np.ndarray) -> None:
    if len(train) == 0:
        raise DataError(f"{table.source}: no row is left to train on: give more rows or a smaller split")


def _positions(table: Table, names: Sequence[str], wanted: Sequence[str], kind: str) -> list[int]:
    """Finds where the wanted columns stand among the table's columns of one kind."""
    missing = [name for name in wanted if name not in names]
    if missing:
        listed = ", ".join(map(repr, missing))
        hint = did_you_mean(missing[0], names) if names else f"there is no {kind} column"
        raise DataError(
            f"{table.source}: trained with {kind} columns that are missing here: {listed}: {hint}"
        )
    return [names.index(name) for name in wanted]


def _named(table: Table) -> str:
    return f"{table.source}: label column {table.label_name!r}"


def _labels(table: Table) -> np.ndarray:
    if table.label is None:
        raise DataError(f"{table.source}: there are no labels: name their column, and fill in every row")
    return table.label  # [n]


def _sorted_classes(names: set[str]) -> tuple[str, ...]:
    numbers = {name: _finite(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))


def _finite(value: object) -> float | None:
    """Reads a finite number, written as people and programs write them; else None."""
    text = canonical_text(value)
    try:
        # Python alone would also take 1_000 and the digits of other scripts.
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _number(table: Table, row: int) -> float:
    value = _labels(table)[row]
    number = _finite(value)
    if number is None or abs(number) > _FLOAT32_MAX:
        raise DataError(
            f"{_named(table)} has {shown(value)} at id {shown(table.ids[row])}, which is not a number that "
            f"float32 holds: correct it, or set another task than regression"
        )
    return number


def _check_two(table: Table, found: Sequence[str]) -> None:
    if len(found) == 1:
        raise DataError(
            f"{_named(table)} has one class in the training rows, {shown(found[0])}: "
            f"a binary task needs two: add rows of the other, or change the seed of the split"
        )
    if len(found) > 2:
        raise DataError(
            f"{_named(table)} has {len(found)} classes in the training rows ({_listed(found)}): "
            f"a binary task needs two: set the task to multiclass or regression"
        )


def _check_classes(table: Table, found: Sequence[str], classes: int, *, exact: bool) -> None:
    if len(found) == classes or (len(found) > classes and not exact):
        return
    need = f"the job says classes = {classes}" if exact else "a multiclass task needs two or more"
    raise DataError(
        f"{_named(table)} has {len(found)} classes in the training rows ({_listed(found)}): {need}: "
        f"correct the number in the job, or the rows"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:5])) + (", …" if len(names) > 5 else "")


@dataclass(frozen=True)
class Preparation:
    """What a party learned about its own columns from the training rows; its owner's alone.

    Attributes:
        numeric_names: p names, in the order of the features.
        categorical_names: q names, in the order of the codes.
        mean: p numbers that are taken away.
        scale: p numbers that are divided by, none of them 0.
        vocabularies: for each of the q columns its sorted categories; the first has code 1.
    """

    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    vocabularies: tuple[tuple[str, ...], ...]

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many categories each of the q columns has; the code of the unknown comes on top."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies)

    def to_json(self) -> dict[str, Any]:
        """Returns lists, text and numbers only; the numbers survive JSON exactly."""
        return {
            "numeric_names": list(self.numeric_names),
            "categorical_names": list(self.categorical_names),
            "mean": list(self.mean),
            "scale": list(self.scale),
            "vocabularies": [list(vocabulary) for vocabulary in self.vocabularies],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Preparation:
        """Returns what `to_json` wrote.

        Raises:
            DataError: it is not what `to_json` writes.
        """
        try:
            saved = msgspec.convert(dict(found), cls)
        except msgspec.ValidationError as error:
            raise DataError(f"preparation: {_NOT_SAVED} ({error})") from error
        numeric, categorical = len(saved.numeric_names), len(saved.categorical_names)
        if not (numeric == len(saved.mean) == len(saved.scale) and categorical == len(saved.vocabularies)):
            raise DataError(f"preparation: {_NOT_SAVED} (its lists differ in length)")
        if not all(map(math.isfinite, saved.mean + saved.scale)) or 0 in saved.scale:
            raise DataError(f"preparation: {_NOT_SAVED} (a mean or a scale cannot be used)")
        return saved


@dataclass(frozen=True, eq=False)
class Features:
    """A party's rows as its bottom model reads them.

    Attributes:
        x: [n, p] float32.
        codes: [n, q] int64, 0 for an unknown category; None without categorical columns.
    """

    x: torch.Tensor
    codes: torch.Tensor | None


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
            saved = msgspec.convert(dict(found), cls)
        except msgspec.ValidationError as error:
            raise DataError(f"labels: {_NOT_SAVED} ({error})") from error
        if saved.task == "binary" and (len(saved.classes) != 2 or saved.positive != saved.classes[1]):
            raise DataError(f"labels: {_NOT_SAVED} (of two classes the last must be the positive one)")
        return saved


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of n rows as the loss reads them.

    Attributes:
        code: how they were made.
        y: [n] float32 in {0, 1} for a binary task, int64 for a multiclass one, float32 for a regression.
    """

    code: LabelCode
    y: torch.Tensor
