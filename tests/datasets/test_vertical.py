"""Who holds whom: exact shares, every way used alike, the same everywhere, in orders of their own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.datasets.ratings import split_ratings
from vfl.datasets.vertical import checked_overlap, holders, own_order, split_people
from vfl.errors import ConfigError

PARTIES = ["a", "b", "c", "d"]


def people(n: int) -> list[str]:
    return [f"person-{row}" for row in range(n)]


@given(st.integers(1, 300), st.integers(2, 4), st.floats(0.01, 1), st.integers(0, 9))
def test_the_shared_are_as_many_as_asked_and_the_others_are_spread_evenly(
    n: int, k: int, overlap: float, seed: int
) -> None:
    held = np.stack(list(holders(people(n), PARTIES[:k], overlap, seed).values()))  # [k, n]
    shared = held.all(axis=0)
    assert abs(shared.sum() - overlap * n) <= 0.5 + 1e-9
    assert held.any(axis=0).all(), "everybody is somewhere"
    ways = Counter(tuple(one) for one in held.T[~shared].tolist())
    most, least = max(ways.values(), default=0), min(ways.values(), default=0)
    assert most - (least if len(ways) == 2**k - 2 else 0) <= 1
    sizes = held.sum(axis=1)
    assert sizes.max() - sizes.min() <= 2 ** (k - 2)


@given(st.permutations(range(60)), st.floats(0.01, 1))
def test_who_holds_whom_follows_from_the_id_alone(order: list[int], overlap: float) -> None:
    ids = people(60)
    plain = holders(ids, PARTIES[:3], overlap, 0)
    mixed = holders([ids[place] for place in order], PARTIES[:3], overlap, 0)
    for party in PARTIES[:3]:
        assert np.array_equal(plain[party][order], mixed[party])


def test_the_draw_is_the_same_on_every_platform() -> None:
    held = holders(people(12), ["a", "b"], 0.5, 0)
    assert (
        "".join("ab*"[2 if a and b else int(b)] for a, b in zip(*held.values(), strict=True))
        == "***aabb***ab"
    )
    assert own_order(people(6), "a", 0).tolist() == [0, 2, 4, 5, 3, 1]


def test_another_seed_draws_other_people() -> None:
    one, two = (holders(people(500), ["a", "b"], 0.5, seed)["a"] for seed in (0, 1))
    assert (one != two).sum() > 100


@pytest.mark.parametrize("overlap", [None, 0.5])
def test_every_party_has_its_rows_in_an_order_of_its_own(overlap: float | None) -> None:
    ids = np.array(people(200), dtype=object)
    table = {"id": ids, "x": np.arange(200), "y": np.arange(200) * 2}
    tables = split_people(table, {"a": ["x"], "b": ["y"]}, checked_overlap(overlap), 0)
    assert list(tables["a"]) == ["id", "x"]
    assert list(tables["b"]) == ["id", "y"]
    a, b = (dict(zip(*columns.values(), strict=True)) for columns in tables.values())
    assert all(ids[x] == name and b.get(name, 2 * x) == 2 * x for name, x in a.items())
    common_a, common_b = [i for i in a if i in b], [i for i in b if i in a]
    assert len(common_a) == 200 * checked_overlap(overlap)
    moved = sum(one != other for one, other in zip(common_a, common_b, strict=True))
    assert moved > len(common_a) * 0.9
    assert common_a != sorted(common_a, key=people(200).index), "the original's order is gone"


@pytest.mark.parametrize("overlap", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_an_overlap_that_is_no_share_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match=r"overlap is .*above 0 and up to 1"):
        checked_overlap(overlap)


def test_shops_have_no_movie_in_common_and_each_knows_its_own_movies() -> None:
    user, movie = np.divmod(np.arange(30 * 17), 17)
    title = np.array([f"film {one}" for one in movie], dtype=object)
    ids = np.array([f"{one}-{other}" for one, other in zip(user, movie, strict=True)], dtype=object)
    table = {"id": ids, "user": user, "movie": movie, "rating": user + movie, "title": title, "genres": title}
    shops = {shop: ["user", "movie", "rating"] for shop in "abc"}
    tables = split_ratings(table, shops, 0.5, 0)
    stocks = [set(tables[f"{shop}_movies"]["movie"].tolist()) for shop in shops]
    assert sorted(map(len, stocks)) == [5, 6, 6]
    assert set.union(*stocks) == set(range(17))
    for shop, stock in zip(shops, stocks, strict=True):
        assert set(tables[shop]["movie"].tolist()) == stock
        assert np.array_equal(tables[shop]["rating"], tables[shop]["user"] + tables[shop]["movie"])
        known = dict(zip(tables[f"{shop}_movies"]["movie"], tables[f"{shop}_movies"]["title"], strict=True))
        assert all(name == f"film {number}" for number, name in known.items())
    users = [set(tables[shop]["user"].tolist()) for shop in shops]
    assert len(set.intersection(*users)) == 15
    assert set.union(*users) == set(range(30))
