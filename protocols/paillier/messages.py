"""What is said in the Paillier cut: ciphertexts and masked numbers, as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from vfl.wire.messages import Message


@dataclass(frozen=True, eq=False)
class PublicKey(Message):
    """Carries the key holder's public key, and where W is to be learned Enc(F0), of which it begins.

    `key` is empty where nothing is encrypted, `weights` where nothing is learned.
    """

    key: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class InitialShare(Message):
    """Carries Enc(P F0 + R): under the label party's noise, the W that training begins with."""

    weights: Tensor


@dataclass(frozen=True, eq=False)
class Activations(Message):
    """Carries Enc(h) of one batch twice, and Enc(the feature party's share of W).

    `columns` has the rows of the batch along the slots, for the product with W; `rows` has the columns
    along them, for the gradient; `rows` and `share` are empty where nothing is learned. `mark` is the hash
    of the batch's ids.
    """

    epoch: int
    step: int
    mark: int
    columns: Tensor
    rows: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class MaskedProduct(Message):
    """Carries Enc(h · the label party's share of W + mask) of the batch of that step."""

    step: int
    product: Tensor


@dataclass(frozen=True, eq=False)
class NoisedProduct(Message):
    """Carries z = h · W under the label party's mask, which nobody else can take off."""

    step: int
    product: Tensor


@dataclass(frozen=True, eq=False)
class MaskedGradient(Message):
    """Carries Enc(dL/dW + mask) and Enc(dL/dh) of the batch of that step."""

    step: int
    weights: Tensor
    embedding: Tensor


@dataclass(frozen=True, eq=False)
class NoisedGradient(Message):
    """Carries dL/dW under the label party's mask and the feature party's noise."""

    step: int
    weights: Tensor


@dataclass(frozen=True, eq=False)
class EpochEnd(Message):
    """Tells whether the epoch's weights are the best so far, and whether it was the last."""

    best: bool
    stop: bool


@dataclass(frozen=True, eq=False)
class Clipped(Message):
    """Tells how many values the feature party clipped in the whole training."""

    count: int


MESSAGES: Final = (
    PublicKey, InitialShare, Activations, MaskedProduct, NoisedProduct, MaskedGradient, NoisedGradient,
    EpochEnd, Clipped,
)  # fmt: skip
