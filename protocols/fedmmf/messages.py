"""What is said in a federated factorisation beside the agreement on keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from vfl.masking import agreeing
from vfl.masking.contributing import Contribution
from vfl.wire.messages import Message


@dataclass(frozen=True, eq=False)
class Axis(Message):
    """Tells how many shared entities there are; `mark` is the hash of their ids."""

    shared: int
    mark: int


@dataclass(frozen=True, eq=False)
class Choice(Message):
    """Tells whether a participant's own mask protects it well enough to contribute in the clear."""

    plain: bool


@dataclass(frozen=True, eq=False)
class Group(Message):
    """Names those who chose to contribute under masks."""

    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Mean(Message):
    """Tells the mean of all residuals that train, and how many there are."""

    mu: float
    ratings: int


@dataclass(frozen=True, eq=False)
class Turn(Message):
    """Asks for the first contribution of a round."""

    epoch: int


@dataclass(frozen=True, eq=False)
class SharedFactors(Message):
    """Carries the shared factors [m, r + 1] after a step, and asks for what comes next."""

    epoch: int
    step: int
    factors: Tensor


@dataclass(frozen=True, eq=False)
class RoundEnd(Message):
    """Tells whether these factors are the best so far, whether that was all, and who has vanished of late.

    Where there are any, a new roster follows.
    """

    best: bool
    stop: bool
    vanished: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Clipped(Message):
    """Tells how many sums a participant clipped in the whole training."""

    values: int


@dataclass(frozen=True, eq=False)
class PaillierKey(Message):
    """Carries a public key, and for each other participant the private one, sealed, [k - 1, bytes]."""

    number: int
    public: bytes
    sealed: Tensor


@dataclass(frozen=True, eq=False)
class SealedKey(Message):
    """Carries the private key that is for the hearer, sealed."""

    number: int
    sealed: bytes


@dataclass(frozen=True, eq=False)
class Ciphertexts(Message):
    """Carries a contribution encrypted; `rows` are the shared entities it is of, none where of all."""

    roster: int
    epoch: int
    step: int
    mark: int
    rows: Tensor
    cells: Tensor


@dataclass(frozen=True, eq=False)
class EncryptedSum(Message):
    """Carries the sum of a step's ciphertexts, none where it was dropped; asks as `SharedFactors` does."""

    epoch: int
    step: int
    cells: Tensor


@dataclass(frozen=True, eq=False)
class EncryptedScores(Message):
    """Carries the sum of few numbers, encrypted, for the first of the roster to open."""

    epoch: int
    step: int
    cells: Tensor


@dataclass(frozen=True, eq=False)
class Opened(Message):
    """Carries what such a sum comes to, [w]."""

    epoch: int
    step: int
    sums: Tensor


@dataclass(frozen=True, eq=False)
class Wish(Message):
    """Tells whether a participant asks for a user, or is there to answer."""

    asks: bool


@dataclass(frozen=True, eq=False)
class Askers(Message):
    """Names all who ask, in the roster's order: only where that is one do they go on."""

    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ask(Message):
    """Asks for a shared user's best items: its place on the shared axis, and how many."""

    user: int
    top: int


@dataclass(frozen=True, eq=False)
class Best(Message):
    """Carries a participant's items for that user, the best first, and the ratings predicted, [n].

    An item that has no title has its id for one.
    """

    items: tuple[str, ...]
    titles: tuple[str, ...]
    ratings: Tensor


MESSAGES: Final = (
    *agreeing.KINDS, Axis, Choice, Group, Contribution, Mean, Turn, SharedFactors, RoundEnd, Clipped,
    PaillierKey, SealedKey, Ciphertexts, EncryptedSum, EncryptedScores, Opened, Wish, Askers, Ask, Best,
)  # fmt: skip
