"""The ratings of the study, and how they are dealt: to three organisations, or to single users.

m stands for items, n for ratings.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vfl.datasets.catalogue import find_dataset
from vfl.datasets.originals import read_originals, where
from vfl.datasets.ratings import make_ratings
from vfl.ratings.catalogue import Catalogue
from vfl.ratings.holding import RatingsHolding, hold
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings
from vfl.rng import derive_seed

SCALE = (0.5, 5.0)
ORGANISATIONS = 3
#: One in five ratings tests; and of each user's ratings the latest does.
FRACTION = Split("fraction", 0.0, 0.2)
LEAVE_ONE_OUT = Split("leave-one-out", 0.0, 0.5)


def is_at_hand() -> bool:
    """Tells whether MovieLens is on this machine."""
    dataset = find_dataset("movielens")
    return where(dataset.name, dataset.originals) is not None


@functools.lru_cache(maxsize=1)
def load(made_up: bool = False) -> tuple[Ratings, Catalogue]:
    """Loads MovieLens latest-small; ratings that are made up, said aloud, where it is not at hand."""
    dataset = find_dataset("movielens")
    if made_up or not is_at_hand():
        why = "as asked" if made_up else "set VFL_DATA, or run `vfl data get movielens`"
        print(f"ATTENTION: the ratings are MADE UP, and no results: {why}", file=sys.stderr)
        columns = make_ratings({})
    else:
        columns = dataset.parse(read_originals(dataset.name, dataset.originals))
    users, user = np.unique(columns["user"], return_inverse=True)
    items, first, item = np.unique(columns["movie"], return_index=True, return_inverse=True)
    ratings = Ratings(
        "ratings",
        2,
        tuple(map(str, users)),
        tuple(map(str, items)),
        user.astype(np.int64),
        item.astype(np.int64),
        columns["rating"],
        columns["timestamp"].astype(np.int64),
    )
    return ratings, _catalogue(ratings.item_ids, columns["title"][first], columns["genres"][first])


def _catalogue(ids: Sequence[str], titles: Sequence[str], genres: Sequence[str]) -> Catalogue:
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = sorted({word for text in genres for word in text.split("|")})
    features = np.array([[float(name in genres[at].split("|")) for name in names] for at in order])
    return Catalogue(
        "movies", tuple(ids[at] for at in order), tuple(titles[at] for at in order), tuple(names), features
    )


Dealt = dict[str, RatingsHolding]


def deal(ratings: Ratings, whose: NDArray[np.int64], ids: Sequence[str], split: Split, seed: int) -> Dealt:
    """Deals ratings out: `whose` [n] names the participant of each, -1 for none."""
    taken = [_taken(ratings, np.flatnonzero(whose == one)) for one in np.unique(whose[whose >= 0])]
    held = [hold(one, by="user", shared_ids=tuple(ids), split=split, seed=seed, scale=SCALE) for one in taken]
    return {f"party{place:03}": one for place, one in enumerate(held)}


def organisations(split: Split, seed: int, made_up: bool = False) -> Dealt:
    """Gives each of three organisations a third of the users, drawn by the seed, and all their ratings."""
    ratings, catalogue = load(made_up)
    n_users = len(ratings.user_ids)
    order = np.random.default_rng(derive_seed(seed, "organisations")).permutation(n_users)
    return deal(ratings, (order % ORGANISATIONS)[ratings.user], catalogue.ids, split, seed)


def popular(
    n_users: int, n_items: int, seed: int, made_up: bool, parties: int, split: Split = FRACTION
) -> tuple[Dealt, Catalogue]:
    """Takes a slice: some users' ratings of the items that are rated most, dealt to so many parties.

    Users who rated fewer than twenty of these, or than a quarter, are left out; of the others some are drawn.
    """
    ratings, catalogue = load(made_up)
    counts = np.bincount(ratings.item, minlength=len(ratings.item_ids))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:n_items])
    ids = sorted(ratings.item_ids[place] for place in chosen)
    is_in = np.isin(ratings.item, chosen)
    busy = np.flatnonzero(
        np.bincount(ratings.user[is_in], minlength=len(ratings.user_ids)) >= min(20, n_items // 4)
    )
    drawn = np.random.default_rng(derive_seed(seed, "slice")).permutation(busy)[:n_users]
    party = np.full(len(ratings.user_ids), -1)
    party[drawn] = np.arange(len(drawn)) % parties
    whose = np.where(is_in, party[ratings.user], -1)
    places = [catalogue.places[name] for name in ids]
    sliced = Catalogue(
        catalogue.source,
        tuple(ids),
        tuple(catalogue.titles[at] for at in places),
        catalogue.feature_names,
        catalogue.features[places],
    )
    return deal(ratings, whose, ids, split, seed), sliced


def _taken(ratings: Ratings, rows: NDArray[np.int64]) -> Ratings:
    users, user = np.unique(ratings.user[rows], return_inverse=True)
    items, item = np.unique(ratings.item[rows], return_inverse=True)
    times = None if ratings.times is None else ratings.times[rows]
    return Ratings(
        ratings.source,
        ratings.first_row,
        tuple(ratings.user_ids[place] for place in users),
        tuple(ratings.item_ids[place] for place in items),
        user,
        item,
        ratings.value[rows],
        times,
    )
