"""Personalised masks: what a participant takes off its ratings before it trains, and adds back after.

A mask g is fitted on the participant's own ratings that train, and on nothing else. Every kind is of
one form,  g = base + offset of own + offset of shared + factors of own · factors of shared :

    none        0
    user_mean   the user's mean, shrunk to the participant's
    bias        the participant's mean, offsets of users and items, shrunk
    content     the same, and a ridge regression on the items' features
    mf          the same as bias, and a private factorisation

What has no ratings here has no offset and no factors: a new user or item falls back on what the other
brings, and at last on the participant's mean (0 for `none`).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from vfl.errors import ConfigError
from vfl.ratings.catalogue import Catalogue
from vfl.ratings.drawn import drawn
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.solving import pair_products, solve_groups

MaskKind = Literal["none", "user_mean", "bias", "content", "mf"]
KINDS: Final = get_args(MaskKind)

_ROUNDS: Final = 10
#: Means and offsets are shrunk as if each entity had so many more ratings, of residual zero; factors are held
#: near zero by the other. A mask that follows the ratings that train too closely leaves residuals to train on
#: that no further rating has: with 5 for both, an `mf` mask costs 0.06 of RMSE on MovieLens latest-small at
#: three participants, with these 0.001. Where ratings are too few for it, the factors of `mf` end at zero.
_OFFSET_PENALTY: Final = 60.0
_FACTOR_PENALTY: Final = 25.0
_RIDGE: Final = 10.0


class PersonalMask(nn.Module):
    """Holds a mask in buffers, so that a checkpoint has it.

    Attributes:
        kind: which of `KINDS`.
        base: what all ratings have in common.
        own: [o, k + 1], factors and the offset of each own entity.
        shared: [m, k + 1], of each shared one.
    """

    base: Tensor
    own: Tensor
    shared: Tensor

    def __init__(self, kind: MaskKind, n_own: int, m: int, rank: int = 0) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("base", torch.zeros((), dtype=torch.float64))
        self.register_buffer("own", torch.zeros(n_own, rank + 1, dtype=torch.float64))
        self.register_buffer("shared", torch.zeros(m, rank + 1, dtype=torch.float64))

    def of(self, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Gives g for pairs of places, [n] float64."""
        return pair_products(self.own.numpy(), self.shared.numpy(), own, shared) + float(self.base)

    def row(self, own: int) -> np.ndarray:
        """Gives g of one own entity and all shared ones, [m]."""
        m = len(self.shared)
        return self.of(np.full(m, own), np.arange(m))

    def column(self, shared: int) -> np.ndarray:
        """Gives g of all own entities and one shared one, [o]."""
        n_own = len(self.own)
        return self.of(np.arange(n_own), np.full(n_own, shared))


def mask_width(kind: MaskKind, rank: int) -> int:
    """Gives the rank that a mask of this kind is made with, where `rank` is that of the job."""
    return rank if kind == "mf" else 0


def fit_mask(
    kind: MaskKind,
    holding: RatingsHolding,
    catalogue: Catalogue | None = None,
    *,
    seed: int = 0,
    rank: int = 4,
) -> PersonalMask:
    """Fits a mask on a participant's ratings that train.

    Args:
        kind: which of `KINDS`.
        holding: the participant's ratings.
        catalogue: for "content", the items' features.
        seed: for "mf", where its factors begin.
        rank: for "mf", of its factorisation.

    Raises:
        ConfigError: the kind is unknown, or "content" has no features to go by.
        DataError: the holding has an item that is not in the catalogue.
    """
    if kind not in KINDS:
        raise ConfigError(f"mask = {kind!r} is unknown: set one of {', '.join(map(repr, KINDS))}")
    if kind == "mf" and rank < 1:
        raise ConfigError(f'mask_rank = {rank}: mask = "mf" needs 1 at least')
    mask = PersonalMask(kind, holding.n_own, holding.m, mask_width(kind, rank))
    if kind == "none" or not len(holding.train):
        return mask
    part = holding.train
    base = float(np.mean(part.value))
    mask.base.fill_(base)
    own, shared = mask.own.numpy(), mask.shared.numpy()
    y = part.value - base
    if kind in ("bias", "mf"):
        k = mask_width(kind, rank)
        shared[:, :k] = drawn(f"mask\0{seed}", holding.m * k).reshape(holding.m, k)
        _alternate(part, y, own, shared)
    else:
        user = (own, part.own) if holding.by == "user" else (shared, part.shared)
        y -= _add_means(user[0][:, -1], user[1], y)
        if kind == "content":
            item = (shared, part.shared) if holding.by == "user" else (own, part.own)
            item[0][:, -1] = _content(holding, catalogue, item[1], y)
    return mask


def _add_means(offsets: np.ndarray, groups: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sets each group's offset to its mean of y, shrunk; returns the ratings' offsets [n]."""
    counts = np.bincount(groups, minlength=len(offsets))
    sums = np.bincount(groups, y, minlength=len(offsets))
    there = counts > 0
    offsets[there] = sums[there] / (counts[there] + _OFFSET_PENALTY)
    return np.asarray(offsets[groups])


def _alternate(part: Part, y: np.ndarray, own: np.ndarray, shared: np.ndarray) -> None:
    """Fits offsets, and factors where there are any, by turns."""
    order = np.argsort(part.shared, kind="stable")
    to_own = _penalties(own)
    to_shared = _penalties(shared)
    for _ in range(_ROUNDS):
        own[:] = solve_groups(part.own, part.shared, y, shared, to_own)
        shared[:] = solve_groups(part.shared[order], part.own[order], y[order], own, to_shared)


def _penalties(rows: np.ndarray) -> np.ndarray:
    """Gives what is added to each diagonal, [k + 1, entities]."""
    found = np.full(rows.T.shape, _FACTOR_PENALTY)
    found[-1] = _OFFSET_PENALTY
    return found


def _content(
    holding: RatingsHolding, catalogue: Catalogue | None, item: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Regresses y on the items' features; gives each item's part, [items]."""
    from sklearn.linear_model import Ridge

    if catalogue is None or not catalogue.features.shape[1]:
        raise ConfigError(
            f'{holding.source}: mask = "content" needs features of the items: name columns under features in '
            f"the catalogue, or set another mask"
        )
    ids = holding.shared_ids if holding.by == "user" else holding.own_ids
    features = catalogue.features_of(ids)  # [items, d]
    # Each item once, with its mean and weighted by its ratings: the same fit, in memory of the items.
    counts = np.bincount(item, minlength=len(ids))
    there = np.flatnonzero(counts)
    means = np.bincount(item, y, minlength=len(ids))[there] / counts[there]
    fitted = Ridge(alpha=_RIDGE).fit(features[there], means, sample_weight=counts[there])
    return np.asarray(fitted.predict(features))
