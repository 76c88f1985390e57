"""How well held-out items rank, as sums over users that participants can add up.

A user's held-out items of a split are ranked among all items that the user has not rated in training,
by predictions before they are kept within the scale; equal ones by place. Every held-out item counts as
relevant, whatever its rating.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from torch import Tensor

from vfl.errors import ConfigError
from vfl.ratings.factors import Factors
from vfl.ratings.fixed import SUMS, decode, fixed_total, refuse_diverged, scalar_elements
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.personal import PersonalMask
from vfl.ratings.solving import products

#: Scores that are held at a time.
_BLOCK: Final = 2**20


def ranking_sums(
    factors: Factors, mask: PersonalMask, holding: RatingsHolding, split: str, at: int = 10
) -> Tensor:
    """Sums over the users that have held-out items: elements of SUMS [4].

    Returns:
        How many users there are, for how many of them a held-out item is among the first `at`, the sum of
        their normalised discounted gains and that of their recalls.

    Raises:
        ConfigError: participants hold different items, so that none could rank them all; or training has
            diverged.
    """
    if holding.by != "user":
        raise ConfigError(
            'metric: ranking needs a user\'s items at one participant: with by = "item" set "rmse" or "mae"'
        )
    held = holding.parts[split]
    users, first = np.unique(held.own, return_index=True)
    ranks = _ranks(factors, mask, holding.train, held, at)
    gains = np.where(ranks < at, 1.0 / np.log2(ranks + 2.0), 0.0)
    if not len(users):
        return scalar_elements([0, 0, 0, 0])[0]
    counts = np.diff(np.append(first, len(held)))
    within = np.add.reduceat((ranks < at).astype(np.int64), first)
    best = np.cumsum(1.0 / np.log2(np.arange(at) + 2.0))[np.minimum(counts, at) - 1]
    whose = np.repeat(np.arange(len(users)), counts)
    dcg = np.bincount(whose, gains) / best
    hits = int(np.count_nonzero(within)) << SUMS.fraction_bits
    sums = [len(users) << SUMS.fraction_bits, hits, fixed_total(dcg), fixed_total(within / counts)]
    return scalar_elements(sums)[0]


def ranking_scores(total: Tensor, at: int = 10) -> dict[str, float]:
    """Gives hit rate, NDCG and recall from all participants' sums; nothing where no user was counted."""
    users, hits, dcg, recall = decode(total, SUMS).tolist()
    if not users:
        return {}
    return {f"hr@{at}": hits / users, f"ndcg@{at}": dcg / users, f"recall@{at}": recall / users}


def _ranks(factors: Factors, mask: PersonalMask, train: Part, held: Part, at: int) -> np.ndarray:
    """Finds each held-out rating's place among what its user has not rated in training, [n] from 0.

    From `at` on it does not matter which place it is, and m stands for any.
    """
    m = len(factors.shared)
    found = np.full(len(held), m, np.int64)
    users, first = np.unique(held.own, return_index=True)
    edges = np.append(first, len(held))
    step = max(_BLOCK // max(m, 1), 1)
    for start in range(0, len(users), step):
        some = users[start : start + step]
        rows = slice(edges[start], edges[min(start + step, len(users))])
        whose = np.searchsorted(some, held.own[rows])
        scores = _scores(factors, mask, train, some)
        found[rows] = _places(scores, whose, held.shared[rows], at)
    return found


def _scores(factors: Factors, mask: PersonalMask, train: Part, users: np.ndarray) -> np.ndarray:
    """Gives these users' predictions [u, m], less what all have in common; -inf for what is rated."""
    own, shared = factors.arrays()
    scores = products(own[users][:, None], shared[None])
    scores += products(mask.own.numpy()[users][:, None], mask.shared.numpy()[None])
    if not np.isfinite(scores).all():
        refuse_diverged("predictions")
    here = slice(*np.searchsorted(train.own, [users[0], users[-1] + 1]))
    known = np.isin(train.own[here], users)
    scores[np.searchsorted(users, train.own[here][known]), train.shared[here][known]] = -np.inf
    return scores


def _places(scores: np.ndarray, whose: np.ndarray, items: np.ndarray, at: int) -> np.ndarray:
    """Finds the places of some items in the rows of scores that are `whose`: exact below `at`."""
    m = scores.shape[1]
    mine = scores[whose, items]
    last = np.partition(scores, max(m - at, 0), axis=1)[
        :, max(m - at, 0)
    ]  # [u], the score of the place at - 1
    found = np.full(len(items), m, np.int64)
    high = np.flatnonzero(mine >= last[whose])  # `at` a user, and those that equal the last
    for some in range(0, len(high), max(_BLOCK // m, 1)):
        few = high[some : some + max(_BLOCK // m, 1)]
        theirs, own = scores[whose[few]], mine[few][:, None]
        before = (theirs == own) & (np.arange(m) < items[few][:, None])
        found[few] = np.count_nonzero(theirs > own, axis=1) + np.count_nonzero(before, axis=1)
    return found
