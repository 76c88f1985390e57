"""The tables of ratings that `fedmmf.py` trains on: real ones from VFL_DATA, and drawn ones of any size."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from vfl.ratings.holding import RatingsHolding, hold
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings, read_ratings

HALF_STARS = (0.5, 5.0)
RATINGS_A_USER = 165  # as in MovieLens latest-small


@dataclass(frozen=True)
class Table:
    """Names a table.

    Attributes:
        name: what it is called; a drawn one says so.
        n: how many ratings are drawn; 0 for a real table.
        users: among so many users.
        items: and so many items.
        path: of a real one, in VFL_DATA.
        columns: those of its users, items and ratings.
        scale: the lowest and the highest rating there can be.
    """

    name: str
    n: int = 0
    users: int = 0
    items: int = 0
    path: str = ""
    columns: tuple[str, str, str] = ("user", "item", "rating")
    scale: tuple[float, float] = HALF_STARS

    def read(self) -> Ratings:
        """Reads it, drawn ones from a file, too."""
        if not self.path:
            with tempfile.TemporaryDirectory() as folder:
                return self.written(folder).read()
        user, item, rating = self.columns
        data = Path(os.environ.get("VFL_DATA", ""))  # a drawn one's path is absolute
        return read_ratings(self.path, data, user=user, item=item, rating=rating, scale=self.scale)

    def written(self, folder: str) -> Table:
        """Draws ratings of a few tastes, of popular items more than of others, and writes them down."""
        rng = np.random.default_rng(self.n)
        often = 1.0 / np.arange(20, 20 + self.items) ** 0.8
        pairs = np.empty(0, np.int64)
        while len(pairs) < self.n:
            user = rng.integers(self.users, size=self.n)
            item = rng.choice(self.items, size=self.n, p=often / often.sum())
            pairs = np.unique(np.concatenate([pairs, user * self.items + item]))
        user, item = np.divmod(rng.permutation(pairs)[: self.n], self.items)
        mine, theirs = rng.normal(size=(self.users, 4)), rng.normal(size=(self.items, 4))
        value = 3.5 + 0.4 * mine[user, 0] + 0.4 * theirs[item, 0] + rng.normal(size=self.n) / 2
        value += 0.3 * (mine[user, 1:] * theirs[item, 1:]).sum(axis=1)
        value = np.clip(np.rint(2 * value) / 2, *self.scale)
        columns = {"user": _named("u", user), "item": _named("i", item), "rating": pa.array(value)}
        path = str(Path(folder).resolve() / f"{self.n}.csv")
        csv.write_csv(pa.table(columns), path)
        return replace(self, path=path)


def _named(kind: str, places: np.ndarray) -> pa.Array:
    return pa.array([f"{kind}{place:06}" for place in places.tolist()])


def drawn(n: int, items: int = 10_000, users: int | None = None) -> Table:
    """Names a drawn table; of so many users that each has as many ratings as in MovieLens."""
    return Table(f"drawn, {n:,}", n, users or n // RATINGS_A_USER, items)


def movielens() -> Table:
    """Names MovieLens latest-small, or a drawn table of its size where it is not at hand."""
    path = "movielens/ml-latest-small/ratings.csv.gz"
    if not _is_there(path):
        return Table("drawn, in the place of MovieLens (VFL_DATA has none)", 100_836, 610, 9_724)
    return Table("MovieLens latest-small", path=path, columns=("userId", "movieId", "rating"))


def movietweetings() -> Table | None:
    """Names MovieTweetings; nothing where it is not at hand."""
    path = "movietweetings/ratings.dat.gz"
    if not _is_there(path):
        return None
    return Table("MovieTweetings", path=path, columns=("1", "2", "3"), scale=(0.0, 10.0))


def _is_there(path: str) -> bool:
    folder = os.environ.get("VFL_DATA")
    return bool(folder) and (Path(str(folder)) / path).is_file()


def deal(table: Table, k: int) -> list[RatingsHolding]:
    """Deals a table's users to k participants, as evenly as their number allows."""
    return hold_parts(table, _ratings(table), k, range(k))


def deal_one(table: Table, k: int, place: int) -> RatingsHolding:
    """Returns what one of k participants is dealt."""
    return hold_parts(table, _ratings(table), k, [place])[0]


def hold_parts(table: Table, ratings: Ratings, k: int, places: range | list[int]) -> list[RatingsHolding]:
    """Lays out the ratings of some of k participants."""
    n_users = len(ratings.user_ids)
    whose = np.random.default_rng(0).permutation(n_users) % k
    items = tuple(sorted(ratings.item_ids))
    order = np.argsort(whose[ratings.user], kind="stable")
    edges = np.searchsorted(whose[ratings.user[order]], np.arange(k + 1))
    found = []
    for place in places:
        rows = order[edges[place] : edges[place + 1]]
        users = np.flatnonzero(whose == place)
        mine = Ratings(
            ratings.source,
            ratings.first_row,
            tuple(ratings.user_ids[user] for user in users.tolist()),
            ratings.item_ids,
            np.searchsorted(users, ratings.user[rows]),
            ratings.item[rows],
            ratings.value[rows],
            None,
        )
        split = Split("fraction", 0.1, 0.1)
        found.append(hold(mine, by="user", shared_ids=items, split=split, seed=0, scale=table.scale))
    return found


@lru_cache(maxsize=1)
def _ratings(table: Table) -> Ratings:
    return table.read()
