"""Many participants in one process: dealt out, trained through the real roles, and equal to fewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parties.simulation import COORDINATOR, Simulation, deal, simulate
from vfl.errors import ConfigError
from vfl.learn.plan import Plan
from vfl.ratings.alone import Settings, train_all
from vfl.ratings.catalogue import Catalogue, read_catalogue
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings, read_ratings

SCALE = (0.5, 5.0)
PLAN = Plan(3, metric="rmse")


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    return read_ratings("dataset:made-ratings/club_a", Path(), item="movie", time="timestamp")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue("dataset:made-ratings/movies", Path(), item="movie", features=["genres"])


def tried(ratings: Ratings, catalogue: Catalogue, k: int, **options: object) -> Simulation:
    return simulate(
        deal(ratings, k),
        catalogue.ids,
        scale=SCALE,
        plan=PLAN,
        options={"rank": 3, **options},
        catalogue=catalogue,
    )


def test_users_are_dealt_out_once_each_and_evenly(ratings: Ratings) -> None:
    dealt = deal(ratings, 7)
    assert [*dealt] == [f"p{n}" for n in range(1, 8)]
    users = [set(one.user_ids) for one in dealt.values()]
    assert set.union(*users) == set(ratings.user_ids)
    assert sum(map(len, users)) == len(ratings.user_ids)
    assert {len(some) for some in users} <= {len(ratings.user_ids) // 7, len(ratings.user_ids) // 7 + 1}
    whole = {
        (ratings.user_ids[u], ratings.item_ids[i], v)
        for u, i, v in zip(ratings.user, ratings.item, ratings.value, strict=True)
    }
    parts = [
        (one.user_ids[u], one.item_ids[i], v)
        for one in dealt.values()
        for u, i, v in zip(one.user, one.item, one.value, strict=True)
    ]
    assert len(parts) == len(whole)
    assert set(parts) == whole


def test_more_participants_than_users_are_refused(ratings: Ratings) -> None:
    with pytest.raises(ConfigError, match=r"n = 4000: the table has 134 users to deal out"):
        deal(ratings, 4000)


def test_fifty_participants_train_the_model_of_three_bit_for_bit(
    ratings: Ratings, catalogue: Catalogue
) -> None:
    few, many = (tried(ratings, catalogue, k, mask="none") for k in (3, 50))
    assert few.test == many.test
    shared = {
        one.shared.detach().numpy().tobytes() for found in (few, many) for one in found.factors.values()
    }
    assert len(shared) == 1
    assert len(many.factors) == 50
    assert any("Each of 50 masks with" in note for note in many.outcome.notes)


def test_a_simulation_is_the_training_of_all_holders_without_a_dialogue(
    ratings: Ratings, catalogue: Catalogue
) -> None:
    found = tried(ratings, catalogue, 5, mask="content")
    settings = Settings(plan=PLAN, rank=3, fewest_raters=2)
    direct = train_all(list(found.holdings.values()), list(found.masks.values()), settings)
    assert found.test["rmse"] == pytest.approx(direct.test["rmse"], abs=1e-9)
    for mine, theirs in zip(found.factors.values(), direct.factors, strict=True):
        assert np.allclose(mine.own.detach().numpy(), theirs.own.detach().numpy(), atol=1e-6)


def test_users_of_one_participant_each_can_be_a_thousandth_of_the_table(
    ratings: Ratings, catalogue: Catalogue
) -> None:
    tables = deal(ratings, len(ratings.user_ids))
    assert {len(one.user_ids) for one in tables.values()} == {1}
    found = simulate(
        tables,
        catalogue.ids,
        scale=SCALE,
        plan=Plan(2, metric="rmse"),
        options={"rank": 2, "solver": "sgd"},
        split=Split("leave-one-out", 0.1, 0.1),
    )
    assert found.test.keys() == {"rmse", "mae", "hr@10", "ndcg@10", "recall@10"}
    sent = [found.ledgers[name].sent_bytes for name in tables]
    assert max(sent) < 1.2 * min(sent), "what one contributes does not tell how much it has rated"
    assert found.ledgers[COORDINATOR].received_bytes == sum(sent)


def test_items_can_be_dealt_out_too(ratings: Ratings) -> None:
    found = simulate(
        deal(ratings, 4, by="item"),
        ratings.user_ids,
        scale=SCALE,
        plan=PLAN,
        options={"by": "item", "rank": 3},
    )
    assert 0.5 < found.test["rmse"] < 1.1
    assert {one.by for one in found.holdings.values()} == {"item"}
