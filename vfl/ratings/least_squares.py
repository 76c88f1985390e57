"""Alternating least squares: exact own factors, and the sums that the shared ones follow from exactly.

The factors of an entity with k ratings are held near zero with the weight regularisation · k (Zhou,
Wilkinson, Schreiber and Pan, "Large-Scale Parallel Collaborative Filtering for the Netflix Prize", 2008), its
offset with the weight OFFSET_WEIGHT.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vfl.masking.ring import Ring
from vfl.ratings.factors import OFFSET_WEIGHT, Factors, Residuals
from vfl.ratings.fixed import FixedSums, chunks, decode, refuse_diverged
from vfl.ratings.solving import features, solve_all, solve_groups, triangle


def statistics_width(rank: int) -> int:
    """Counts the numbers that are summed for each shared entity: a triangle of r + 1 rows, and r + 1."""
    return (rank + 1) * (rank + 2) // 2 + rank + 1


def solve_own(factors: Factors, residuals: Residuals, regularisation: float) -> None:
    """Sets each own entity's factors to the best for the shared ones; without ratings they are zero.

    Raises:
        ConfigError: a system has no single solution.
    """
    part, rank = residuals.part, factors.rank
    own, shared = factors.arrays()
    counts = np.bincount(part.own, minlength=residuals.n_own)  # [o]
    penalty = _penalties(counts, rank, regularisation)
    own[:] = solve_groups(part.own, part.shared, residuals.y - float(factors.mu), shared, penalty)
    if not np.isfinite(own).all():
        refuse_diverged("own factors")


def _penalties(counts: np.ndarray, rank: int, regularisation: float) -> np.ndarray:
    """Gives what is added to each diagonal, [r + 1, groups]."""
    found = np.repeat(regularisation * np.maximum(counts, 1.0)[None], rank + 1, axis=0)
    found[-1] = OFFSET_WEIGHT
    return found


def statistics(factors: Factors, residuals: Residuals, ring: Ring) -> tuple[Tensor, int]:
    """Sums x xᵀ and y x of the ratings of each shared entity.

    Returns:
        The ring's elements [m, t]: the upper triangle of x xᵀ for x = [p, 1], whose last number counts the
        ratings, then y x for y = value - g - mu - c; and how many sums were clamped.

    Raises:
        ConfigError: training has diverged.
    """
    part, rank = residuals.part, factors.rank
    own = factors.arrays()[0]
    pairs = triangle(rank + 1)
    most = int(np.bincount(part.shared).max()) if len(part.shared) else 0
    sums = FixedSums(residuals.m, statistics_width(rank), ring, most)
    for some in chunks(len(residuals.y)):
        places = residuals.by_shared[some]
        mine = own[part.own[places]]  # [n, r + 1]
        y = residuals.y[places] - float(factors.mu) - mine[:, -1]
        groups = part.shared[places]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        columns = features(mine)
        for place, (a, b) in enumerate(pairs):
            sums.add(place, columns[a] * columns[b], starts, groups[starts])
        for a, column in enumerate(columns):
            sums.add(len(pairs) + a, column * y, starts, groups[starts])
    return sums.elements()


def solve_shared(total: Tensor, ring: Ring, rank: int, regularisation: float, fewest: int = 1) -> Tensor:
    """Solves for the shared factors [m, r + 1]; those of an entity with fewer than `fewest` ratings are zero.

    Args:
        total: [m, t], what all participants' `statistics` sum to.
        ring: where they were summed.
        rank: r.
        regularisation: the weight a rating.
        fewest: how many ratings an entity must have. From the factors of one that has a single rating, the
            rater's own factors follow, and the residual with them.

    Raises:
        ConfigError: a system has no single solution, or training has diverged.
    """
    sums = np.ascontiguousarray(decode(total, ring).T)  # [t, m]
    upper, right = sums[: -rank - 1], sums[-rank - 1 :]
    found = solve_all(upper, right, _penalties(upper[-1], rank, regularisation))
    if not np.isfinite(found).all():
        refuse_diverged("shared factors")
    found[np.rint(upper[-1]) < fewest] = 0.0
    return torch.from_numpy(found)
