"""What is said in secure forward aggregation beside the agreement on keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from vfl.masking import agreeing
from vfl.masking.contributing import Contribution
from vfl.wire.messages import Message


@dataclass(frozen=True, eq=False)
class Counts(Message):
    """Tells the coordinator how many rows each split has."""

    splits: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SumGrad(Message):
    """Carries dL/dz [b, d] of the batch of that step, the same to every contributor."""

    step: int
    grad: Tensor


@dataclass(frozen=True, eq=False)
class Hidden(Message):
    """Carries what the trunk makes of a batch's sum, [b, t]; `mark` is the hash of the batch's ids."""

    step: int
    mark: int
    h: Tensor


@dataclass(frozen=True, eq=False)
class HiddenGrad(Message):
    """Carries dL/dh [b, t] of the batch of that step."""

    step: int
    grad: Tensor


@dataclass(frozen=True, eq=False)
class Dropped(Message):
    """Says that a batch has no sum, since these parties have vanished."""

    step: int
    vanished: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EpochEnd(Message):
    """Tells whether these weights are the best so far, and whether that was all.

    Whoever sums names those who have vanished of late; where there are any, a new roster follows.
    """

    best: bool
    stop: bool
    vanished: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Clipped(Message):
    """Tells how many values each of these parties clipped in the whole training."""

    names: tuple[str, ...]
    values: tuple[int, ...]


MESSAGES: Final = (
    *agreeing.KINDS, Counts, Contribution, SumGrad, Hidden, HiddenGrad, Dropped, EpochEnd, Clipped
)  # fmt: skip
