"""The tables of the study, and how their columns are dealt out among k parties.

n stands for rows, p for columns, k for parties, c for classes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import QuantileTransformer
from torch import Tensor

from vfl.datasets.catalogue import find_dataset
from vfl.datasets.originals import read_originals, where
from vfl.errors import ConfigError
from vfl.rng import derive_seed

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """Says how a table's networks are trained.

    Attributes:
        width: d, the hidden units of each layer, of all parties together.
        narrow: smaller widths to try as well, with the cut at the first layer.
        rows: how many training, validation and test rows are drawn from the table.
    """

    width: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    rows: tuple[int, int, int]
    narrow: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Is a table with one seed's split, ready for networks.

    Attributes:
        blocks: the places of the columns that stay together at one party: single columns, or image columns.
        splits: the rows of "train", "valid" and "test".
    """

    name: str
    task: str
    metric: str
    classes: int
    x: Tensor  # [n, p]
    y: Tensor  # [n]
    blocks: tuple[NDArray[np.int64], ...]
    splits: Mapping[str, NDArray[np.int64]]
    settings: Settings

    def dealt(self, k: int) -> list[NDArray[np.int64]]:
        """Deals the columns out among k parties in contiguous blocks: k arrays of places."""
        return [np.concatenate(self.blocks[part[0] : part[-1] + 1]) for part in self._parts(k)]

    def _parts(self, k: int) -> list[NDArray[np.int64]]:
        if k > len(self.blocks):
            raise ConfigError(f"{self.name}: has {len(self.blocks)} blocks of columns for {k} parties")
        return list(np.array_split(np.arange(len(self.blocks)), k))


@dataclass(frozen=True)
class _Raw:
    task: str
    classes: int
    x: Numbers
    y: NDArray[np.int64]
    blocks: tuple[NDArray[np.int64], ...]


#: What stands in for a table that is not at hand.
STAND_INS = {"credit": "breast_cancer", "mnist": "digits"}

_ORIGINALS = {
    "credit": "credit-default",
    "mnist": "mnist",
    "digits": "digits",
    "breast_cancer": "breast-cancer",
}

SETTINGS = {
    "credit": Settings(
        width=30,
        epochs=12,
        batch_size=256,
        lr=0.002,
        weight_decay=1e-3,
        rows=(18_000, 6_000, 6_000),
        narrow=(6, 12, 18),
    ),
    "mnist": Settings(
        width=120,
        epochs=10,
        batch_size=256,
        lr=0.001,
        weight_decay=1e-4,
        rows=(8_000, 2_000, 5_000),
        narrow=(15, 30, 60),
    ),
    "digits": Settings(
        width=60,
        epochs=30,
        batch_size=64,
        lr=0.003,
        weight_decay=1e-4,
        rows=(1_000, 297, 500),
        narrow=(15, 30),
    ),
    "breast_cancer": Settings(
        width=30, epochs=30, batch_size=32, lr=0.003, weight_decay=1e-4, rows=(300, 69, 200), narrow=(6, 15)
    ),
}


def at_hand(name: str) -> str:
    """Returns `name`, or what stands in for it, which is said aloud."""
    dataset = find_dataset(_ORIGINALS[name])
    if not dataset.originals or where(dataset.name, dataset.originals):
        return name
    stand_in = STAND_INS[name]
    print(
        f"ATTENTION: {name} is not on this machine, {stand_in} stands in for it, and the numbers are not the "
        f"documented ones: set VFL_DATA, or run `vfl data get {dataset.name}`",
        file=sys.stderr,
    )
    return stand_in


def load_table(name: str, seed: int, settings: Settings) -> Table:
    """Loads a table, and draws its splits by the seed; columns are scaled as its training rows say."""
    raw = _raw(name)
    order = np.random.default_rng(derive_seed(seed, "split", name)).permutation(len(raw.y))
    bounds = np.cumsum((0, *settings.rows))
    if bounds[-1] > len(order):
        raise ConfigError(f"{name}: has {len(order)} rows, {bounds[-1]} are asked for")
    kept = order[: bounds[-1]]
    x = _SCALES[name](raw.x[kept], settings.rows[0])
    y = torch.from_numpy(raw.y[kept])
    return Table(
        name=name,
        task=raw.task,
        metric="auc" if raw.task == "binary" else "accuracy",
        classes=raw.classes,
        x=torch.from_numpy(x.astype(np.float32)),
        y=y.float() if raw.task == "binary" else y,
        blocks=raw.blocks,
        splits={
            split: np.arange(bounds[place], bounds[place + 1])
            for place, split in enumerate(("train", "valid", "test"))
        },
        settings=settings,
    )


@functools.lru_cache(maxsize=2)
def _raw(name: str) -> _Raw:
    dataset = find_dataset(_ORIGINALS[name])
    columns = dataset.parse(read_originals(dataset.name, dataset.originals))
    return _READERS[name](columns)


def _table(label: str, positive: object) -> Callable[[Mapping[str, np.ndarray]], _Raw]:
    def read(columns: Mapping[str, np.ndarray]) -> _Raw:
        names = [name for name in columns if name not in ("id", label)]
        x = np.stack([columns[name].astype(np.float32) for name in names], axis=1)
        y = (columns[label] == positive).astype(np.int64)
        return _Raw("binary", 2, x, y, tuple(np.array([place]) for place in range(len(names))))

    return read


def _images(prefix: str, side: int) -> Callable[[Mapping[str, np.ndarray]], _Raw]:
    def read(columns: Mapping[str, np.ndarray]) -> _Raw:
        # Image column by image column, so that contiguous blocks are upright strips of the image.
        names = [f"{prefix.format(row, column)}" for column in range(side) for row in range(side)]
        x = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
        strips = tuple(np.arange(column * side, (column + 1) * side) for column in range(side))
        return _Raw("multiclass", 10, x, columns["digit"].astype(np.int64), strips)

    return read


_READERS: dict[str, Callable[[Mapping[str, np.ndarray]], _Raw]] = {
    "credit": _table("default", 1),
    "breast_cancer": _table("diagnosis", "malignant"),
    "mnist": _images("p_{:02}_{:02}", 28),
    "digits": _images("pixel_{}_{}", 8),
}


def _by_rank(x: Numbers, n_train: int) -> Numbers:
    """Gives columns of many values a normal shape, and all of them mean 0 and deviation 1."""
    train = x[:n_train]
    many = [column for column in range(x.shape[1]) if len(np.unique(train[:, column])) > 20]
    scaled = x.astype(np.float64)
    if many:
        ranks = QuantileTransformer(
            n_quantiles=min(500, n_train), output_distribution="normal", random_state=0
        )
        scaled[:, many] = np.clip(ranks.fit(train[:, many]).transform(x[:, many]), -3, 3)
    scaled -= scaled[:n_train].mean(axis=0)
    spread = scaled[:n_train].std(axis=0)
    return (scaled / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def _by_most(x: Numbers, n_train: int) -> Numbers:
    return x / x[:n_train].max()


_SCALES: dict[str, Callable[[Numbers, int], Numbers]] = {
    "credit": _by_rank,
    "breast_cancer": _by_rank,
    "mnist": _by_most,
    "digits": _by_most,
}
