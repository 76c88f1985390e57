"""A personalised mask is fitted on its own ratings that train, comes off and goes back on exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import SCALE, made, taken, whole

from vfl.errors import ConfigError, DataError
from vfl.learn.plan import Plan
from vfl.ratings.alone import Settings, train_alone
from vfl.ratings.catalogue import Catalogue, bare_catalogue
from vfl.ratings.factors import begin_factors, make_residuals, predict
from vfl.ratings.holding import By, Part, RatingsHolding, hold
from vfl.ratings.personal import KINDS, MaskKind, PersonalMask, fit_mask, mask_width
from vfl.ratings.splits import Split

SPLIT = Split("fraction", 0.1, 0.2)


def genres(n: int = 20, seed: int = 0) -> Catalogue:
    rng = np.random.default_rng(seed)
    ids = tuple(sorted(f"i{place}" for place in range(n)))
    return Catalogue("items.csv", ids, ids, ("a", "b", "c"), rng.integers(0, 2, (n, 3)).astype(float))


def fitted(kind: MaskKind, holding: RatingsHolding, seed: int = 0) -> PersonalMask:
    return fit_mask(kind, holding, genres(), seed=seed, rank=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["user", "item"])
def test_predictions_are_the_model_and_the_mask_that_was_taken_off(kind: MaskKind, by: By) -> None:
    holding = whole(made(), by, SPLIT)
    mask = fitted(kind, holding)
    part = holding.train
    residuals = make_residuals(holding, mask)
    taken_off = part.value - residuals.y
    np.testing.assert_array_equal(residuals.y, part.value - mask.of(part.own, part.shared))
    factors = begin_factors(holding, 2, 1)
    wide = (-np.inf, np.inf)
    again = predict(factors, mask, wide, part.own, part.shared) - factors.of(part.own, part.shared)
    np.testing.assert_allclose(again, taken_off, atol=1e-12)
    clipped = predict(factors, mask, SCALE, part.own, part.shared)
    assert SCALE[0] <= clipped.min() <= clipped.max() <= SCALE[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["user", "item"])
def test_a_row_and_a_column_are_what_pairs_say(kind: MaskKind, by: By) -> None:
    holding = whole(made(), by, SPLIT)
    mask, factors = fitted(kind, holding), begin_factors(holding, 2, 1)
    places = np.arange(holding.m), np.arange(holding.n_own)
    for one in (mask, factors):
        np.testing.assert_array_equal(one.row(4), one.of(np.full(holding.m, 4), places[0]))
        np.testing.assert_array_equal(one.column(3), one.of(places[1], np.full(holding.n_own, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_sees_the_ratings_that_train_and_no_others(kind: MaskKind) -> None:
    holding = whole(made(), "user", SPLIT)
    changed = dict(holding.parts)
    for split in ("valid", "test"):
        part = changed[split]
        changed[split] = Part(part.own, part.shared, SCALE[1] - part.value + SCALE[0])
    other = RatingsHolding(
        holding.source, "user", SCALE, holding.own_ids, holding.shared_ids, holding.seed, changed
    )
    one, two = fitted(kind, holding).state_dict(), fitted(kind, other).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_comes_back_from_what_a_checkpoint_holds(kind: MaskKind) -> None:
    holding = whole(made(), "user", SPLIT)
    mask = fitted(kind, holding)
    again = PersonalMask(kind, holding.n_own, holding.m, mask_width(kind, 3))
    again.load_state_dict(mask.state_dict())
    np.testing.assert_array_equal(mask.row(2), again.row(2))
    assert not list(mask.parameters())


def test_the_user_mean_is_that_of_the_ratings_that_train_shrunk_to_the_participants() -> None:
    for by in ("user", "item"):
        holding = whole(made(), by, SPLIT)
        mask, part = fitted("user_mean", holding), holding.train
        users = part.own if by == "user" else part.shared
        for user in np.unique(users):
            values = part.value[users == user]
            mean = (values.sum() + 60 * part.value.mean()) / (len(values) + 60)
            said = mask.row(user) if by == "user" else mask.column(user)
            np.testing.assert_allclose(said, mean, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["user", "item"])
def test_what_has_no_ratings_falls_back_on_the_participants_mean(kind: MaskKind, by: By) -> None:
    ratings = taken(made(), np.flatnonzero((made().user != 0) & (made().item != 0)))
    shared = sorted([*(ratings.item_ids if by == "user" else ratings.user_ids), "zz"])
    holding = hold(ratings, by=by, shared_ids=shared, split=Split(valid=0, test=0), seed=1, scale=SCALE)
    empty = Part(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    cold = RatingsHolding(
        holding.source, by, SCALE, (*holding.own_ids, "zz"), holding.shared_ids, 1,
        {"train": holding.train, "valid": empty, "test": empty},
    )  # fmt: skip
    catalogue = Catalogue("items.csv", (*genres().ids, "zz"), (), ("a",), np.zeros((21, 1)))
    mask = fit_mask(kind, cold, catalogue, rank=2)
    mean = 0.0 if kind == "none" else float(np.mean(holding.train.value))
    new = mask.of(np.array([cold.n_own - 1]), np.array([cold.m - 1]))
    # Items without features still have the intercept of the regression, which is not exactly zero.
    assert new[0] == pytest.approx(mean, abs=0.1 if kind == "content" else 1e-12)


def test_a_fitted_mask_explains_more_than_none_and_a_factorisation_the_most() -> None:
    ratings = made(60, 40, 2300)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], 100)
    crossed = signs[ratings.user] * signs[60 + ratings.item]  # what offsets cannot say
    holding = whole(replace(ratings, value=np.clip(ratings.value + 1.5 * crossed, *SCALE)), "user", SPLIT)
    left = {}
    for kind in KINDS:
        mask = fit_mask(kind, holding, genres(40), rank=3)
        left[kind] = float(np.std(make_residuals(holding, mask).y))
    assert left["none"] > left["user_mean"] > left["content"]
    assert left["none"] > left["bias"] > 1.3 * left["mf"]


def test_a_regression_on_features_is_that_of_single_ratings() -> None:
    from sklearn.linear_model import Ridge

    holding, catalogue = whole(made(), "user", SPLIT), genres()
    mask, part = fit_mask("content", holding, catalogue), holding.train
    means = fit_mask("user_mean", holding).of(part.own, part.shared)
    features = catalogue.features_of(holding.shared_ids)
    single = Ridge(alpha=10.0).fit(features[part.shared], part.value - means)
    np.testing.assert_allclose(mask.shared.numpy()[:, -1], single.predict(features), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), n=st.integers(2, 60))
def test_any_table_is_masked_with_finite_numbers(kind: MaskKind, seed: int, n: int) -> None:
    holding = whole(made(12, 9, n, seed))
    mask = fit_mask(kind, holding, genres(9), rank=2)
    assert np.isfinite(mask.of(*np.indices((holding.n_own, holding.m)).reshape(2, -1))).all()


def test_without_ratings_a_mask_is_nothing() -> None:
    holding = whole(made(), split=Split("fraction", 0.0, 0.999999))
    assert not len(holding.train)
    assert not fitted("bias", holding).row(0).any()


@pytest.mark.parametrize(
    ("kind", "catalogue", "rank", "error", "says"),
    [
        ("secret", None, 4, ConfigError, "mask = 'secret' is unknown: set one of 'none', 'user_mean'"),
        ("mf", None, 0, ConfigError, "mask_rank = 0"),
        (
            "content",
            None,
            4,
            ConfigError,
            "name columns under features in the catalogue, or set another mask",
        ),
        ("content", bare_catalogue([f"i{at}" for at in range(20)]), 4, ConfigError, "needs features"),
        ("content", genres(5), 4, DataError, "items.csv: item 'i10' is not in the catalogue: add it there"),
    ],
)
def test_a_mask_that_cannot_be_is_refused_with_the_remedy(
    kind: MaskKind, catalogue: Catalogue | None, rank: int, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        fit_mask(kind, whole(made()), catalogue, rank=rank)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_trains_with_both_solvers(kind: MaskKind) -> None:
    holding = whole(made(60, 40, 1500), "user", SPLIT)
    mask = fit_mask(kind, holding, genres(40), rank=2)
    middle = float(np.sqrt(np.mean((holding.test.value - holding.train.value.mean()) ** 2)))
    for solver in ("als", "sgd"):
        found = train_alone(holding, mask, Settings(Plan(40, metric="rmse"), rank=2, solver=solver))
        assert found.test["rmse"] < middle
        assert found.clamped == 0
