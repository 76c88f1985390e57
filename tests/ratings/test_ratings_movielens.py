"""On MovieLens latest-small, three participants reach what one would, and masks cost nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_ratings import taken

from vfl.learn.plan import Plan
from vfl.ratings.alone import Settings, train_all
from vfl.ratings.catalogue import Catalogue, read_catalogue
from vfl.ratings.holding import RatingsHolding, hold
from vfl.ratings.personal import KINDS, MaskKind, fit_mask
from vfl.ratings.splits import Split
from vfl.ratings.table import read_ratings

_DATA = os.environ.get("VFL_DATA", "")
_FOLDER = Path(_DATA) / "movielens" / "ml-latest-small"
pytestmark = pytest.mark.skipif(
    not (_DATA and (_FOLDER / "ratings.csv.gz").is_file()), reason="VFL_DATA names no folder with MovieLens"
)
SETTINGS = Settings(Plan(12, metric="rmse"), seed=1)


@pytest.fixture(scope="module")
def shops() -> tuple[list[RatingsHolding], Catalogue]:
    columns = {"user": "userId", "item": "movieId", "time": "timestamp"}
    ratings = read_ratings("ratings.csv.gz", _FOLDER, **columns, scale=(0.5, 5.0))
    movies = read_catalogue("movies.csv.gz", _FOLDER, item="movieId", title="title", features=["genres"])
    given = {"shared_ids": movies.ids, "split": Split("fraction", 0.0, 0.2), "seed": 1, "scale": (0.5, 5.0)}
    tables = [taken(ratings, np.flatnonzero(ratings.user % 3 == shop)) for shop in range(3)]
    return [hold(one, by="user", **given) for one in tables], movies  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def without(shops: tuple[list[RatingsHolding], Catalogue]) -> float:
    return reached(shops, "none")


def reached(shops: tuple[list[RatingsHolding], Catalogue], kind: MaskKind) -> float:
    holdings, movies = shops
    masks = [fit_mask(kind, one, movies) for one in holdings]
    found = train_all(holdings, masks, SETTINGS)
    assert found.clamped == 0
    return found.test["rmse"]


def test_the_user_mean_reaches_the_aim(shops: tuple[list[RatingsHolding], Catalogue]) -> None:
    assert reached(shops, "user_mean") <= 0.865


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_a_mask_costs_no_accuracy(
    shops: tuple[list[RatingsHolding], Catalogue], without: float, kind: MaskKind
) -> None:
    assert reached(shops, kind) <= without + 0.002
