"""The messages that the wire's tests say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vfl.wire.messages import Message, kinds_by_name


@dataclass(frozen=True, eq=False)
class Number(Message):
    n: int


@dataclass(frozen=True, eq=False)
class Matrix(Message):
    step: int
    x: Tensor


@dataclass(frozen=True, eq=False)
class Everything(Message):
    count: int
    rate: float
    last: bool
    word: str
    blob: bytes
    counts: tuple[int, ...]
    words: tuple[str, ...]
    left: Tensor
    right: Tensor


@dataclass(frozen=True, eq=False)
class Foreign(Message):
    """Belongs to no session of the tests."""

    n: int


KINDS = (Number, Matrix, Everything)
SCHEMAS = kinds_by_name(KINDS)


def everything() -> Everything:
    return Everything(
        count=-7,
        rate=0.5,
        last=True,
        word="größe",
        blob=b"\x00\xff",
        counts=(1, 2, 3),
        words=("a", ""),
        left=torch.arange(6, dtype=torch.float32).reshape(2, 3),
        right=torch.tensor([True, False]),
    )
