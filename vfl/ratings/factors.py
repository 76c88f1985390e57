"""The shared model of ratings: what an own entity and a shared one have in common, and where it begins.

A rating is taken for  mu + g + p_o · q_j + c_o + b_j : g is the participant's own mask, p_o and c_o are its
own, q_j and b_j are shared by all. All of it is float64, computed so that what belongs to an own entity
hangs on that entity's ratings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from vfl.ratings.drawn import drawn
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.personal import PersonalMask
from vfl.ratings.solving import pair_products

#: How firmly each offset is held near zero, however many ratings it has: as if it had two more, of residual
#: zero. Held like the factors instead, that of many ratings would be shrunk as much as that of few: this
#: costs 0.003 of RMSE on MovieLens latest-small.
OFFSET_WEIGHT: Final = 2.0


class Factors(nn.Module):
    """Holds a participant's own factors and the shared ones; a coordinator's have no own entities.

    Attributes:
        own: [o, r + 1], p and c.
        shared: [m, r + 1], q and b.
        mu: the mean of all residuals.
    """

    mu: Tensor

    def __init__(self, n_own: int, m: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.own = nn.Parameter(torch.zeros(n_own, rank + 1, dtype=torch.float64))
        self.shared = nn.Parameter(torch.zeros(m, rank + 1, dtype=torch.float64))
        self.register_buffer("mu", torch.zeros((), dtype=torch.float64))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Shows the own and the shared factors, without copying them."""
        return self.own.detach().numpy(), self.shared.detach().numpy()

    def of(self, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Gives mu + p · q + c + b for pairs [n], without the mask."""
        return pair_products(*self.arrays(), own, shared) + float(self.mu)

    def row(self, own: int) -> np.ndarray:
        """Gives what `of` does for one own entity and all shared ones, [m]."""
        m = len(self.shared)
        return self.of(np.full(m, own), np.arange(m))

    def column(self, shared: int) -> np.ndarray:
        """Gives what `of` does for all own entities and one shared one, [o]."""
        n_own = len(self.own)
        return self.of(np.arange(n_own), np.full(n_own, shared))

    def say_shared(self) -> Tensor:
        """Copies the shared factors, [m, r + 1]."""
        return self.shared.detach().clone()

    def take_shared(self, shared: Tensor) -> None:
        """Takes the shared factors over.

        Raises:
            ValueError: they are of another shape or type, or not finite.
        """
        if shared.shape != self.shared.shape or shared.dtype != torch.float64:
            due = f"float64 {list(self.shared.shape)}"
            raise ValueError(f"shared factors {shared.dtype} {list(shared.shape)} where {due} is due")
        if not bool(torch.isfinite(shared).all()):
            raise ValueError("shared factors that are not finite")
        with torch.no_grad():
            self.shared.copy_(shared)


def begin_factors(holding: RatingsHolding, rank: int, seed: int) -> Factors:
    """Makes a participant's factors as they are before training: own ones by id, shared ones by place."""
    factors = Factors(holding.n_own, holding.m, rank)
    own, shared = factors.arrays()
    for place, digest in enumerate(holding.own_hash.tolist()):
        own[place, :rank] = drawn(f"own\0{seed}\0{digest}", rank)
    shared[:, :rank] = drawn(f"shared\0{seed}", holding.m * rank).reshape(holding.m, rank)
    return factors


def begin_shared(m: int, rank: int, seed: int) -> Factors:
    """Makes a coordinator's factors as they are before training: the same shared ones as everybody's."""
    factors = Factors(0, m, rank)
    factors.arrays()[1][:, :rank] = drawn(f"shared\0{seed}", m * rank).reshape(m, rank)
    return factors


@dataclass(frozen=True, eq=False)
class Residuals:
    """Is what a participant trains on: its ratings without its mask, in the two orders that sums want.

    Attributes:
        part: the ratings that train, by own entity, then by shared one.
        y: [n], value less mask.
        by_shared: [n], the places of the ratings by shared entity, then by own one.
        n_own: o.
        m: m.
    """

    part: Part
    y: np.ndarray
    by_shared: np.ndarray
    n_own: int
    m: int


def make_residuals(holding: RatingsHolding, mask: PersonalMask) -> Residuals:
    """Takes the mask off the ratings that train."""
    part = holding.train
    y = part.value - mask.of(part.own, part.shared)
    by_shared = np.argsort(part.shared, kind="stable")
    return Residuals(part, y, by_shared, holding.n_own, holding.m)


def predict(
    factors: Factors, mask: PersonalMask, scale: tuple[float, float], own: np.ndarray, shared: np.ndarray
) -> np.ndarray:
    """Predicts ratings for pairs [n]: the model, the mask added back, kept within the scale."""
    return np.asarray(np.clip(factors.of(own, shared) + mask.of(own, shared), *scale))
