"""Gradient steps: the loss of ratings, its gradient for own factors, and the sums for the shared ones.

The loss is half of  weight · (Σ (e² + regularisation · (|p|² + |q|²)) + OFFSET_WEIGHT · (Σ c² + Σ b²)) , the
first sum over ratings with the error e, the others over own and shared entities. With the weight m / n it is
a mean a shared entity, so that one learning rate suits tables of any size. Least squares minimise it, too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from vfl.masking.ring import Ring
from vfl.ratings.factors import OFFSET_WEIGHT, Factors, Residuals
from vfl.ratings.fixed import FixedSums, chunks, decode, refuse_diverged
from vfl.ratings.holding import RatingsHolding, pairs_of, part_places
from vfl.ratings.solving import group_runs, products

#: So many numbers are worked on at once; of more, columns one by one stay within the caches.
_FEW: Final = 65_536


def groups(holding: RatingsHolding, batches: int) -> list[np.ndarray]:
    """Parts the ratings that train into so many groups, by the keyed hash of their two ids.

    Returns:
        For each group the places of its ratings, ascending; groups are of about one size, and may be empty.
    """
    group = pairs_of(holding, holding.train, "batches") % np.uint64(batches)
    return [np.flatnonzero(group == np.uint64(one)) for one in range(batches)]


def gradients(
    factors: Factors,
    residuals: Residuals,
    ring: Ring,
    regularisation: float,
    weight: float,
    group: np.ndarray | None = None,
    batches: int = 1,
) -> tuple[Tensor, int]:
    """Sets the gradient of own factors, and sums that of the shared ones.

    Args:
        factors: whose `own.grad` is set.
        residuals: what is trained on.
        ring: where shared gradients are summed.
        regularisation: the weight of factors beside that of errors, a rating.
        weight: m / n.
        group: the places of the ratings to use; None for all.
        batches: how many groups there are in a round: offsets are held near zero once a round.

    Returns:
        The ring's elements [m, r + 1]: the sum over each shared entity's ratings of their gradients, without
        the weight; and how many sums were clamped. Nothing counts the ratings.

    Raises:
        ConfigError: training has diverged.
    """
    some = _subset(residuals, group)
    own, shared = factors.arrays()
    errors = np.empty(len(some.y))
    gradient = np.zeros_like(own)
    for run in group_runs(some.part.own):
        at = some.part.own[run]
        mine, theirs = own[at], shared[some.part.shared[run]]  # [n, r + 1]
        errors[run] = some.y[run] - float(factors.mu) - products(mine, theirs)
        theirs[:, -1] = 1.0
        first, last = int(at[0]), int(at[-1]) + 1
        gradient[first:last] = _by_own(at - first, -errors[run], theirs)
    counts = np.bincount(some.part.own, minlength=residuals.n_own)  # [o]
    gradient[:, :-1] += regularisation * counts[:, None] * own[:, :-1]
    gradient[:, -1] += OFFSET_WEIGHT / batches * own[:, -1]
    gradient *= weight
    if not np.isfinite(gradient).all():
        refuse_diverged("gradients")
    factors.own.grad = torch.from_numpy(gradient)
    return _shared_sums(factors, some, errors, ring, regularisation)


def _by_own(places: np.ndarray, errors: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Adds errors [n] times theirs [n, r + 1] up by own entity, one rating after the other."""
    width = theirs.shape[1]
    if theirs.size <= _FEW:  # all columns at once cost fewer calls; the order of each sum is the same
        cells = (places[:, None] * width + np.arange(width)).reshape(-1)
        return np.bincount(cells, (errors[:, None] * theirs).reshape(-1)).reshape(-1, width)
    return np.stack([np.bincount(places, errors * theirs[:, column]) for column in range(width)], axis=1)


def _subset(residuals: Residuals, group: np.ndarray | None) -> Residuals:
    if group is None:
        return residuals
    part = part_places(residuals.part, group)
    return Residuals(
        part, residuals.y[group], np.argsort(part.shared, kind="stable"), residuals.n_own, residuals.m
    )


def _shared_sums(
    factors: Factors, some: Residuals, errors: np.ndarray, ring: Ring, regularisation: float
) -> tuple[Tensor, int]:
    own, shared = factors.arrays()
    width = factors.rank + 1
    most = int(np.bincount(some.part.shared).max()) if len(some.y) else 0
    sums = FixedSums(some.m, width, ring, most)
    held = regularisation * shared  # [m, r + 1]
    held[:, -1] = 0.0  # offsets: at whoever sums, once
    for run in chunks(len(errors)):
        places = some.by_shared[run]
        groups = some.part.shared[places]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        mine = own[some.part.own[places]]  # [n, r + 1]
        mine[:, -1] = 1.0
        if mine.size <= _FEW:
            sums.add_all(held[groups] - errors[places, None] * mine, starts, groups[starts])
            continue
        for column in range(width):
            values = held[groups, column] - errors[places] * mine[:, column]
            sums.add(column, values, starts, groups[starts])
    return sums.elements()


def shared_gradient(total: Tensor, ring: Ring, factors: Factors, weight: float, batches: int = 1) -> None:
    """Sets the gradient of the shared factors from what all participants' `gradients` sum to, [m, r + 1].

    An entity that nobody has rated has no gradient, and stays where it began.
    """
    gradient = decode(total, ring)
    gradient[:, -1] += OFFSET_WEIGHT / batches * factors.arrays()[1][:, -1]
    gradient *= weight
    factors.shared.grad = torch.from_numpy(gradient)
