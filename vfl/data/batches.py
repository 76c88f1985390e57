"""A party's prepared rows in batches that are the same rows, in the same order, at every party."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vfl.data.preparation import Features
from vfl.data.rows import epoch_order, mark, mark_key

#: Rows a batch where nothing is learned: evaluation and prediction.
EVALUATION_ROWS = 1024


def cuts(n: int, size: int) -> list[tuple[int, int]]:
    """Cuts n rows into batches; a last row that would stand alone joins the batch before it.

    Batch normalisation cannot train on one row. Where all batches are to have one, it stands alone.
    """
    starts = list(range(0, n, size))
    if len(starts) > 1 and size > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, n]))  # none of no rows


def batch_sizes(split: str, n: int, batch_size: int) -> list[int]:
    """Tells how many rows each batch of a split of n rows has."""
    size = batch_size if split == "train" else max(batch_size, EVALUATION_ROWS)
    return [stop - start for start, stop in cuts(n, size)]


@dataclass(frozen=True)
class Batch:
    """Is one batch; `mark` is the cheap hash of its ids that peers compare."""

    step: int
    rows: int
    mark: int
    inputs: tuple[Tensor, ...]
    """What the bottom is called with: x [b, p], and codes [b, q] where there are categories."""
    y: Tensor | None


class Rows:
    """Holds one party's rows in the common order, and deals them out."""

    def __init__(
        self,
        digests: np.ndarray,
        splits: Mapping[str, np.ndarray],
        *,
        features: Features | None,
        y: Tensor | None,
        batch_size: int,
        seed: int,
    ) -> None:
        """Takes the rows over.

        Args:
            digests: [n] keyed hash of each row's id, in the common order.
            splits: the rows of "train", "valid" and "test" (or "all", for prediction).
            features: this party's columns, or None where it has none.
            y: [n] the encoded label, at the label party.
            batch_size: rows a training batch.
            seed: the job's, for the order in which training deals the rows.
        """
        self._digests = digests
        self._mark_key = mark_key(digests)
        self._splits = dict(splits)
        self._inputs: tuple[Tensor, ...] = ()
        if features is not None:
            self._inputs = (features.x,) if features.codes is None else (features.x, features.codes)
        self._y = y
        self._batch_size = batch_size
        self._seed = seed

    def count(self, split: str) -> int:
        """Tells how many rows a split has."""
        return len(self._index(split))

    def steps(self, split: str) -> int:
        """Tells how many batches a split makes."""
        return len(self.sizes(split))

    def sizes(self, split: str) -> list[int]:
        """Tells how many rows each batch of a split has."""
        return batch_sizes(split, self.count(split), self._batch_size)

    def truth(self, split: str) -> np.ndarray:
        """Returns the encoded labels of a split, in the order of its batches."""
        assert self._y is not None  # noqa: S101 - only a party with labels asks
        truth: np.ndarray = self._y[torch.from_numpy(self._index(split))].numpy()
        return truth

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        """Deals a split out: shuffled by `epoch` for training, in the common order without one."""
        index = self._index(split)
        if epoch is not None:
            index = index[epoch_order(len(index), self._seed, epoch)]
        for step, (start, stop) in enumerate(cuts(len(index), self._size(split))):
            rows = index[start:stop]
            pick = torch.from_numpy(rows)
            yield Batch(
                step=step,
                rows=len(rows),
                mark=mark(self._digests[rows], self._mark_key),
                inputs=tuple(column[pick] for column in self._inputs),
                y=None if self._y is None else self._y[pick],
            )

    def _index(self, split: str) -> np.ndarray:
        return self._splits.get(split, np.empty(0, dtype=np.int64))

    def _size(self, split: str) -> int:
        return self._batch_size if split == "train" else max(self._batch_size, EVALUATION_ROWS)
