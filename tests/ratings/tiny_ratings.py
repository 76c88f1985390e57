"""Makes small tables of ratings, whole and dealt to several participants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vfl.ratings.holding import By, RatingsHolding, hold
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings

SCALE = (0.5, 5.0)
ALL_TRAIN = Split("fraction", 0.0, 0.0)


def made(n_users: int = 30, n_items: int = 20, n: int = 240, seed: int = 0) -> Ratings:
    """Makes a table in which users and items have tastes, some users few ratings, and rows no order."""
    rng = np.random.default_rng(seed)
    weight = np.outer(1.0 / (1 + np.arange(n_users)), 1.0 / (1 + np.arange(n_items))).ravel()
    pairs = rng.choice(n_users * n_items, min(n, n_users * n_items), replace=False, p=weight / weight.sum())
    user, item = pairs // n_items, pairs % n_items
    taste = 3.0 + rng.normal(0, 0.5, n_users)[user] + rng.normal(0, 0.5, n_items)[item]
    value = np.clip(np.round(2 * (taste + rng.normal(0, 0.5, len(pairs)))) / 2, *SCALE)
    times = rng.integers(0, 50, len(pairs))  # so that some are equal
    return Ratings(
        "shop.csv",
        2,
        tuple(f"u{place}" for place in range(n_users)),
        tuple(f"i{place}" for place in range(n_items)),
        user,
        item,
        value,
        times,
    )


def taken(ratings: Ratings, rows: np.ndarray) -> Ratings:
    """Takes some rows, and only the users and items in them."""
    users, user = np.unique(ratings.user[rows], return_inverse=True)
    items, item = np.unique(ratings.item[rows], return_inverse=True)
    return Ratings(
        ratings.source,
        ratings.first_row,
        tuple(ratings.user_ids[place] for place in users),
        tuple(ratings.item_ids[place] for place in items),
        user,
        item,
        ratings.value[rows],
        None if ratings.times is None else ratings.times[rows],
    )


def dealt(
    ratings: Ratings, owner: Sequence[int], by: By = "user", split: Split = ALL_TRAIN, seed: int = 5
) -> list[RatingsHolding]:
    """Deals a table to participants: `owner` names one for each own entity, by its place."""
    own = ratings.user if by == "user" else ratings.item
    shared = tuple(sorted(ratings.item_ids if by == "user" else ratings.user_ids))
    whose = np.asarray(owner)[own]
    return [
        hold(
            taken(ratings, np.flatnonzero(whose == one)),
            by=by,
            shared_ids=shared,
            split=split,
            seed=seed,
            scale=SCALE,
        )
        for one in np.unique(whose)
    ]


def whole(ratings: Ratings, by: By = "user", split: Split = ALL_TRAIN, seed: int = 5) -> RatingsHolding:
    """Gives all of a table to one participant."""
    return dealt(ratings, [0] * max(len(ratings.user_ids), len(ratings.item_ids)), by, split, seed)[0]
