"""The integers of the Paillier cut: where their binary points are, how large they get, how they are packed.

All sizes follow from the job and from the number of updates, which both parties know, so that no sum can
leave its slot. Letters: b rows of a batch, B the most that one has, d activations, k outputs, T updates.

    h_int = h 2^f_h             |h_int| <= H          the activations
    g_int = lr dL/dz 2^f_g      |g_int| <= G B / b    their step; G is for a batch of B rows
    W_int = W 2^(f_h + f_g)     |W_int| <= W_0 + T B H G, exactly, as the sum of two shares
    W_0 = P_int F_int 2^s       of P 2^f_2 and F0 2^f_1, rounded; f_1 + f_2 + s = f_h + f_g (see start.py)
    W_use = W 2^f_w             the quotient, rounded: |W_use| <= |W_int| / 2^(f_h + f_g - f_w) + 1
    z_int = h_int W_use         = z 2^(f_h + f_w)
    dh_int = g_int W_use^T      = lr dL/dh 2^(f_g + f_w)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from protocols.paillier.roster import Config, ends, share_of
from vfl.data.batches import Rows
from vfl.errors import ConfigError
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.paillier.packing import FixedPoint, Layout, Packing
from vfl.session import Session

#: The fraction bits of the weights that training begins with; finer ones have zeros behind them. With the
#: widest noise they fit a slot.
_START_BITS: Final = 40

#: Fraction bits of a kind of number. Twice as many, less 40, beside a slot of 128 bits, fit a share's 256.
_MOST_BITS: Final = 80

#: One unit drowns which whole numbers a product was made of, and costs no more than rounding does.
_BLUR: Final = 1

#: Those of the first weights end so many standard deviations from zero.
_DEVIATIONS: Final = 6


@dataclass(frozen=True)
class Scales:
    """Is what both parties know of one training's integers.

    Attributes:
        config: the protocol's options.
        d: activations a row.
        batch_rows: B, the most rows of a training batch.
        updates: T, the most updates that W has had when it is used.

    Raises:
        ConfigError: if no plaintext holds the numbers.
    """

    config: Config
    d: int
    batch_rows: int
    updates: int

    def __post_init__(self) -> None:
        if self.dropped_bits < 0:
            raise ConfigError(
                f"protocols.paillier.weight_fraction_bits = {self.config.weight_fraction_bits}: weights "
                f"have {self.fraction_bits} at clip, gradient_clip and batch_size; set no more"
            )

    @property
    def k(self) -> int:
        """Outputs a row."""
        return self.config.width

    @property
    def activation(self) -> FixedPoint:
        """How an activation becomes an integer."""
        config = self.config
        limit = (1 << (config.value_bits - 1)) - 1
        return FixedPoint(config.value_bits, _most_bits(limit, config.clip))

    @property
    def gradient_fraction_bits(self) -> int:
        """f_g."""
        config = self.config
        limit = (1 << (config.gradient_bits - 1)) - 1
        return _most_bits(limit, config.lr * config.gradient_clip / self.batch_rows)

    @property
    def fraction_bits(self) -> int:
        """The fraction bits of W_int."""
        return self.activation.fraction_bits + self.gradient_fraction_bits

    @property
    def dropped_bits(self) -> int:
        """How many of them are dropped where W is used."""
        return self.fraction_bits - self.config.weight_fraction_bits

    def gradient_limit(self, rows: int) -> int:
        """Returns the largest magnitude of g_int in a batch: the mean over fewer rows has larger parts."""
        return max(1, ((1 << (self.config.gradient_bits - 1)) - 1) * self.batch_rows // rows)

    @property
    def rotation_fraction_bits(self) -> int:
        """The fraction bits of the rotation that the label party draws."""
        return min(self.fraction_bits, _START_BITS) // 2

    @property
    def factor_fraction_bits(self) -> int:
        """The fraction bits of what the feature party draws, that is rotated."""
        return min(self.fraction_bits, _START_BITS) - self.rotation_fraction_bits

    @property
    def start_shift(self) -> int:
        """How many zeros are behind their product in W_int."""
        return max(0, self.fraction_bits - _START_BITS)

    @property
    def factor_deviation(self) -> float:
        """The standard deviation of what is rotated, and so that of W at first: as `nn.Linear` has it."""
        return 1 / math.sqrt(3 * self.d)

    @property
    def factor_bound(self) -> int:
        """The largest magnitude of an integer that is rotated: six standard deviations, of 1/√3d each."""
        return math.isqrt((_DEVIATIONS**2 << (2 * self.factor_fraction_bits)) // (3 * self.d))

    @property
    def start_bound(self) -> int:
        """The largest magnitude of their product.

        A rotation's row has length 1, to which rounding adds √d/2 units at the most; a column of what is
        rotated is no longer than √d times its largest; and a product no larger than both lengths'.
        """
        longest = (1 << self.rotation_fraction_bits) + 1
        return self.factor_bound * ((math.isqrt(self.d - 1) + 1) * longest + self.d)

    @property
    def initial_bound(self) -> int:
        """The largest magnitude of W_int as training begins."""
        return self.start_bound << self.start_shift

    @property
    def start(self) -> Layout:
        """How the initial share lies: [d, k], noise and all."""
        bound = self.start_bound
        return Layout(self._slots_for(bound + (bound << self.config.noise_bits)), self.d, self.k)

    @property
    def product_bound(self) -> int:
        """The largest magnitude of a batch's h_intᵀ g_int: B H G, whatever its rows."""
        return self.batch_rows * self.activation.limit * self.gradient_limit(self.batch_rows)

    @property
    def used_bound(self) -> int:
        """The largest magnitude of W_use."""
        most = self.initial_bound + self.updates * self.product_bound
        return (most >> self.dropped_bits) + 2

    @property
    def share_bits(self) -> int:
        """The bits of a used share in the middle of training: noise adds up as the root of its terms."""
        noise = self._noised_slots.slot_bits - 1
        return max(1, noise + self.updates.bit_length() // 2 - self.dropped_bits)

    @property
    def blur(self) -> int:
        """The largest noise on z_int and on dh_int: so many units of h_int, or g_int, times a weight of 1.

        Without it both would be whole combinations of whole numbers, and lattice reduction could find which.
        """
        return _BLUR << self.config.weight_fraction_bits

    @property
    def z_bound(self) -> int:
        """The largest magnitude of z_int, with its blur."""
        return self.d * self.activation.limit * self.used_bound + self.blur

    def embedding_bound(self, rows: int) -> int:
        """Returns the largest magnitude of dh_int, with its blur, in a batch of so many rows."""
        return self.k * self.gradient_limit(rows) * self.used_bound + self.blur

    def gradient_integers(self, gradient: np.ndarray) -> tuple[np.ndarray, int]:
        """Turns dL/dz [b, k] of a mean loss into g_int, int64; returns it and how many were clamped."""
        limit = self.gradient_limit(len(gradient))
        scaled = np.rint(gradient.astype(np.float64) * (self.config.lr * 2.0**self.gradient_fraction_bits))
        n_clamped = int(np.count_nonzero(np.abs(scaled) > limit))
        return np.clip(scaled, -limit, limit).astype(np.int64), n_clamped

    def z(self, integers: np.ndarray) -> np.ndarray:
        """Turns z_int into z, float32."""
        bits = self.activation.fraction_bits + self.config.weight_fraction_bits
        return np.ldexp(integers.astype(np.float64), -bits).astype(np.float32)

    def embedding_gradient(self, integers: np.ndarray) -> np.ndarray:
        """Turns dh_int into dL/dh, float32."""
        bits = self.gradient_fraction_bits + self.config.weight_fraction_bits
        grad: np.ndarray = np.ldexp(integers.astype(np.float64), -bits) / self.config.lr
        return grad.astype(np.float32)

    def columns(self, rows: int) -> Layout:
        """Returns how Enc(hᵀ) lies: [d, b], the rows of the batch along the slots."""
        return Layout(self._slots_for(self.z_bound), self.d, rows)

    def product(self, rows: int) -> Layout:
        """Returns how Enc(zᵀ) lies: [k, b]."""
        return Layout(self._slots_for(self.z_bound), self.k, rows)

    def rows(self, rows: int) -> Layout:
        """Returns how Enc(h) lies for the gradient: [b, d]."""
        return Layout(self._noised_slots, rows, self.d)

    @property
    def gradient(self) -> Layout:
        """How the gradient of W lies, noise and all: [k, d], as many rows in one plaintext as fit."""
        return Layout(
            self._noised_slots, self.k, self.d, rows_each=self._together(self._noised_slots, self.k)
        )

    def share(self, rows: int) -> Layout:
        """Returns how Enc(the feature party's share of W_useᵀ) lies: [k, d], as often as it fits."""
        packing = self._slots_for(self.embedding_bound(rows))
        return Layout(packing, self.k, self.d, copies=self._together(packing, rows))

    def embedding(self, rows: int) -> Layout:
        """Returns how Enc(dL/dh) lies: [b, d], as many rows in one plaintext as there are copies."""
        share = self.share(rows)
        return Layout(share.packing, rows, self.d, rows_each=share.copies)

    def check(self, sizes: Collection[int]) -> None:
        """Checks that batches of such sizes can be computed with.

        Raises:
            ConfigError: if no plaintext holds the numbers.
        """
        _ = self.start, self.gradient
        for rows in sizes:
            _ = self.columns(rows), self.share(rows)

    def _together(self, packing: Packing, rows: int) -> int:
        return max(1, min(rows, packing.slots // self.d))

    @property
    def _noised_slots(self) -> Packing:
        bound = self.product_bound
        return self._slots_for(bound + (bound << self.config.noise_bits))

    def _slots_for(self, bound: int) -> Packing:
        return _packing(self.config.key_bits, bound.bit_length() + 1)


def scales_of_training(session: Session, rows: Rows, plan: Plan) -> Scales:
    """Returns a training's integers.

    Raises:
        ConfigError: if batches are to run ahead of their gradients, or no plaintext holds the numbers.
    """
    if plan.ahead:
        raise ConfigError(
            f"job: ahead = {plan.ahead}: a step of the Paillier cut needs the weights of the one before; set "
            f"ahead = 0"
        )
    sizes = rows.sizes("train")
    scales = scales_of(session, max(sizes), plan.epochs * len(sizes))
    scales.check(set(sizes))
    return scales


def scales_for_prediction(session: Session, layers: Mapping[str, Learner]) -> Scales:
    """Returns the integers of the training that a share comes from."""
    share = share_of(layers)
    return scales_of(session, max(1, int(share.batch_rows)), int(share.updates))


def widest_scales(session: Session, rows: int, updates: int, *, learning: bool) -> Scales:
    """Returns the widest integers of any training that can be, before it is known how many rows there are.

    Args:
        session: with the job's batch size; `rows` stands for it where there is none.
        rows: of a batch.
        updates: the most that the training makes; fewer, where that many would not fit a plaintext.
        learning: whether that batch is to be learned from.

    Raises:
        ConfigError: if no plaintext holds the numbers of a training of one update.
    """
    batch_rows = session.batch_size or rows
    unfit: ConfigError | None = None
    for most in (batch_rows + 1, batch_rows):  # a last row that would stand alone joins the batch before it
        for bits in range(updates.bit_length(), -1, -1):
            try:
                scales = scales_of(session, most, min(updates, 1 << bits))
                scales.check([rows] if learning else [most])
            except ConfigError as error:
                unfit = error
            else:
                return scales
    raise unfit or AssertionError


def scales_of(session: Session, batch_rows: int, updates: int) -> Scales:
    """Returns a session's integers, for batches of so many rows at the most and so many updates."""
    feature, _ = ends(session)
    return Scales(session.options, session.widths[feature], batch_rows, updates)


@lru_cache(maxsize=64)
def _packing(key_bits: int, slot_bits: int) -> Packing:
    """Makes a packing once: it keeps what reading needs."""
    try:
        return Packing(slot_bits, (key_bits - 1) // max(1, slot_bits))
    except ConfigError as error:
        raise ConfigError(
            f"protocols.paillier: {error}; or lower noise_bits, gradient_bits, epochs or batch_size"
        ) from error


def _most_bits(limit: int, largest: float) -> int:
    """Returns the most fraction bits with which the largest number is no larger than the limit."""
    bits = math.floor(math.log2(limit) - math.log2(largest)) if 0 < largest < math.inf else math.inf
    if 0 <= bits <= _MOST_BITS and largest * 2.0**bits > limit:  # a logarithm is rounded
        bits -= 1
    if not 0 <= bits <= _MOST_BITS:
        raise ConfigError(
            f"protocols.paillier: numbers up to {largest:g} would have {bits} fraction bits; set lr, "
            f"clip and gradient_clip so that they have 0 to {_MOST_BITS}"
        )
    return int(bits)
