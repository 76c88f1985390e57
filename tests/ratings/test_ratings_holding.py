"""Ratings lie along two axes and are split alike wherever they are held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import SCALE, dealt, made, taken, whole

from vfl.errors import ConfigError, DataError
from vfl.ratings.catalogue import bare_catalogue
from vfl.ratings.holding import SPLITS, By, RatingsHolding, check_items, hold, merge
from vfl.ratings.splits import TEST, VALID, Split, pair_hashes, split_ratings
from vfl.ratings.table import Ratings

KINDS = ["fraction", "leave-one-out", "time"]


def rated(holding: RatingsHolding) -> dict[tuple[str, str], tuple[str, float]]:
    """Says of each user and item in which split they are, and the rating."""
    found = {}
    for split in SPLITS:
        part = holding.parts[split]
        for own, shared, value in zip(part.own, part.shared, part.value, strict=True):
            pair = holding.own_ids[own], holding.shared_ids[shared]
            found[pair if holding.by == "user" else pair[::-1]] = (split, float(value))
    return found


@pytest.mark.parametrize("by", ["user", "item"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_rating_is_in_one_split_and_in_canonical_order(by: By, kind: str) -> None:
    ratings = made()
    holding = whole(ratings, by, Split(kind, 0.2, 0.2))  # type: ignore[arg-type]
    triples = zip(ratings.user, ratings.item, ratings.value, strict=True)
    true = {(ratings.user_ids[u], ratings.item_ids[i]): float(v) for u, i, v in triples}
    found = rated(holding)
    assert {pair: value for pair, (_, value) in found.items()} == true
    for part in holding.parts.values():
        keys = (part.own * holding.m + part.shared).tolist()
        assert keys == sorted(keys)
        assert len(part) > 0
    assert list(holding.own_ids) == sorted(holding.own_ids)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), seed=st.integers(0, 9))
def test_a_rating_is_in_the_same_split_wherever_its_user_is_held(
    data: st.DataObject, kind: str, seed: int
) -> None:
    ratings, split = made(seed=seed), Split(kind, 0.2, 0.1)  # type: ignore[arg-type]
    owner = data.draw(st.lists(st.integers(0, 2), min_size=30, max_size=30))
    order = np.array(data.draw(st.permutations(range(len(ratings)))))
    spread = dealt(
        taken(ratings, order),
        [owner[int(name[1:])] for name in taken(ratings, order).user_ids],
        "user",
        split,
    )
    single = rated(whole(ratings, "user", split))
    together: dict[tuple[str, str], tuple[str, float]] = {}
    for one in spread:
        together |= rated(one)
    assert together == single
    assert rated(merge(spread)) == single


def test_a_drawn_split_is_the_same_for_both_partitions() -> None:
    split = Split("fraction", 0.2, 0.1)
    assert rated(whole(made(), "user", split)) == rated(whole(made(), "item", split))


def test_a_drawn_split_has_about_the_asked_for_shares_and_hangs_on_the_seed() -> None:
    ratings = made(200, 150, 6000)
    parts = [whole(ratings, split=Split("fraction", 0.1, 0.2), seed=seed).parts for seed in (1, 2)]
    for one in parts:
        assert len(one["test"]) / 6000 == pytest.approx(0.2, abs=0.02)
        assert len(one["valid"]) / 6000 == pytest.approx(0.1, abs=0.015)
    assert parts[0]["test"].own.tolist() != parts[1]["test"].own.tolist()


def test_leaving_one_out_tests_each_users_latest_and_validates_by_the_one_before() -> None:
    user = np.array([0, 0, 0, 0, 1, 1, 2])
    times = np.array([5, 9, 7, 1, 3, 4, 8])
    hashes = np.arange(7, dtype=np.uint64)
    parts = split_ratings(Split("leave-one-out", 0.1, 0.1), user, times, hashes)
    assert parts.tolist() == [0, TEST, VALID, 0, 0, TEST, 0]
    parts = split_ratings(Split("leave-one-out", 0.0, 0.1), user, times, hashes)
    assert parts.tolist() == [0, TEST, 0, 0, 0, TEST, 0]
    parts = split_ratings(Split("leave-one-out", 0.1, 0.1), user, None, hashes)
    assert parts.tolist() == [0, 0, VALID, TEST, 0, TEST, 0]


def test_a_split_by_time_tests_the_latest_share_of_each_user() -> None:
    user = np.repeat([0, 1, 2], [10, 4, 1])
    times = np.array([3, 9, 1, 7, 0, 8, 2, 6, 4, 5, *(40, 30, 20, 10), 1])
    parts = split_ratings(Split("time", 0.2, 0.3), user, times, np.zeros(15, np.uint64))
    assert sorted(times[:10][parts[:10] == TEST]) == [7, 8, 9]
    assert sorted(times[:10][parts[:10] == VALID]) == [5, 6]
    assert parts[10:14].tolist() == [TEST, VALID, 0, 0]
    assert parts[14] == 0


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["leave-one-out", "time"]),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    valid=st.floats(0, 0.49),
    test=st.floats(0, 0.49),
)
def test_each_user_keeps_a_rating_to_train_on(
    kind: str, counts: list[int], valid: float, test: float
) -> None:
    user = np.repeat(np.arange(len(counts)), counts)
    split = Split(kind, valid, test)  # type: ignore[arg-type]
    parts = split_ratings(split, user, np.arange(len(user)), np.zeros(len(user), np.uint64))
    assert set(user[parts == 0].tolist()) == set(range(len(counts)))


def test_hashes_of_pairs_know_which_is_the_user() -> None:
    a, b = np.array([1, 2], np.uint64), np.array([2, 1], np.uint64)
    forth, back = pair_hashes(a, b, 3, "split"), pair_hashes(b, a, 3, "split")
    assert forth.tolist() != back.tolist()
    assert forth.tolist() == back[::-1].tolist()
    assert pair_hashes(a, b, 3, "batches").tolist() != forth.tolist()
    many = pair_hashes(np.arange(4096, dtype=np.uint64), np.zeros(4096, np.uint64), 3, "split")
    assert np.mean(many / 2.0**64) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "valid", "test", "says"),
    [
        ("random", 0.1, 0.1, "kind = 'random' is unknown: set one of 'fraction', 'leave-one-out', 'time'"),
        ("fraction", 0.5, 0.5, "give shares from 0 up that leave some"),
        ("fraction", -0.1, 0.5, "give shares from 0 up"),
        ("time", 0.1, float("nan"), "give shares from 0 up"),
    ],
)
def test_a_split_that_cannot_be_is_refused(kind: str, valid: float, test: float, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^split: ") as caught:
        Split(kind, valid, test)  # type: ignore[arg-type]
    assert says in str(caught.value)


def held(ratings: Ratings, **more: object) -> RatingsHolding:
    given = {
        "by": "user",
        "shared_ids": sorted(ratings.item_ids),
        "split": Split(),
        "seed": 1,
        "scale": SCALE,
    }
    return hold(ratings, **{**given, **more})  # type: ignore[arg-type]


def test_a_split_by_time_without_times_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="name their column, or take another"):
        held(replace(made(), times=None), split=Split("time"))


def test_an_item_that_the_catalogue_has_not_is_named_with_its_row() -> None:
    ratings = made()
    row = int(np.flatnonzero(ratings.item == 3)[0]) + 2
    known = [name for name in ratings.item_ids if name != "i3"]
    with pytest.raises(
        DataError, match=rf"^shop\.csv: item 'i3' in row {row} is not in the catalogue: add it"
    ):
        held(ratings, shared_ids=known)


def test_the_catalogue_that_lacks_a_rated_item_is_named() -> None:
    ratings = made()
    check_items(ratings, bare_catalogue([*ratings.item_ids, "unrated"], "films.csv"))
    row = int(np.flatnonzero(np.isin(ratings.item, [3, 5]))[0]) + 2
    known = [name for name in ratings.item_ids if name not in ("i3", "i5")]
    words = (
        rf"^shop\.csv: item 'i[35]' in row {row} is not in the catalogue films\.csv: add it there, or drop"
    )
    with pytest.raises(DataError, match=words):
        check_items(ratings, bare_catalogue(known, "films.csv"))


def test_users_whom_not_all_share_are_left_out_and_counted() -> None:
    ratings = made()
    holding = held(ratings, by="item", shared_ids=["u0", "u2"])
    assert holding.left_out == int(np.count_nonzero(~np.isin(ratings.user, [0, 2])))
    assert {user for user, _ in rated(holding)} == {"u0", "u2"}
    assert held(ratings).left_out == 0


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"by": "shop"}, ConfigError, "by = 'shop' is unknown"),
        ({"shared_ids": [*(f"i{at}" for at in range(20)), "i3"]}, DataError, "names an id twice"),
        ({"scale": (1.0, 4.0)}, DataError, "is outside the scale from 1 to 4"),
    ],
)
def test_what_cannot_be_held_is_refused(more: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        held(made(), **more)
    assert says in str(caught.value)


def test_places_are_found_by_id_or_refused() -> None:
    holding = whole(made())
    assert holding.own_ids[holding.own_place("u7")] == "u7"
    assert holding.shared_ids[holding.shared_place("i7")] == "i7"
    with pytest.raises(DataError, match=r"^shop\.csv: there is no user 'x' here: name one of its users"):
        holding.own_place("x")
    with pytest.raises(DataError, match="there is no item 'u7' here"):
        holding.shared_place("u7")


def test_holdings_that_have_a_user_in_common_are_not_merged() -> None:
    with pytest.raises(DataError, match="is at two participants"):
        merge([whole(made()), whole(made())])


def test_a_million_ratings_do_not_need_an_object_each() -> None:
    holding = whole(made(300, 200, 20_000))
    assert all(array.dtype != object for part in holding.parts.values() for array in vars(part).values())
