"""Scores are those of plain definitions, and sums of parts are the sums of the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, ndcg_score, root_mean_squared_error
from tiny_ratings import dealt, made, whole
from torch import Tensor

from vfl.errors import ConfigError
from vfl.ratings.factors import Factors, begin_factors, make_residuals, predict
from vfl.ratings.fixed import SUMS, decode, default_ring, scalar_elements
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.ratings.ranking import ranking_scores, ranking_sums
from vfl.ratings.scores import error_scores, error_sums, mean_residual, residual_sums
from vfl.ratings.splits import Split

LATEST = Split("leave-one-out", 0.1, 0.1)
DRAWN = Split("fraction", 0.1, 0.3)
EACH = [error_sums, ranking_sums]


def model(holding: RatingsHolding, seed: int = 3) -> tuple[Factors, PersonalMask]:
    factors = begin_factors(holding, 4, seed)
    factors.shared.data.mul_(30.0)  # so that predictions differ, and some are beyond the scale
    factors.mu.fill_(3.0)
    return factors, fit_mask("user_mean", holding)


def by_hand(factors: Factors, mask: PersonalMask, holding: RatingsHolding, at: int) -> dict[str, float]:
    """Ranks with scikit-learn, user by user."""
    hits, gains, recalls = [], [], []
    for user in range(holding.n_own):
        held = set(holding.test.shared[holding.test.own == user].tolist())
        if not held:
            continue
        known = set(holding.train.shared[holding.train.own == user].tolist())
        items = [item for item in range(holding.m) if item not in known]
        scores = (factors.row(user) + mask.row(user))[items]
        truth = np.array([item in held for item in items], float)
        best = np.argsort(-scores, kind="stable")[:at]
        gains.append(ndcg_score(truth[None], scores[None], k=at))
        hits.append(truth[best].any())
        recalls.append(truth[best].sum() / len(held))
    return {f"hr@{at}": np.mean(hits), f"ndcg@{at}": np.mean(gains), f"recall@{at}": np.mean(recalls)}


@pytest.mark.parametrize("split", [LATEST, DRAWN])
@pytest.mark.parametrize("at", [1, 5, 10])
def test_ranks_are_those_of_scikit_learn(split: Split, at: int) -> None:
    holding = whole(made(50, 40, 700), split=split)
    factors, mask = model(holding)
    found = ranking_scores(ranking_sums(factors, mask, holding, "test", at), at)
    assert found == pytest.approx(by_hand(factors, mask, holding, at), abs=1e-6)
    assert 0 < found[f"ndcg@{at}"] < 1


def test_equal_scores_rank_by_place_and_a_short_catalogue_is_no_error() -> None:
    holding = whole(made(20, 6, 60), split=LATEST)
    nothing = Factors(holding.n_own, holding.m, 2)
    mask = PersonalMask("none", holding.n_own, holding.m)
    found = ranking_scores(ranking_sums(nothing, mask, holding, "test", 10))
    assert found["hr@10"] == found["recall@10"] == 1.0
    first = decode(ranking_sums(nothing, mask, holding, "test", 1), SUMS)[1]
    expected = 0
    for user, item in zip(holding.test.own, holding.test.shared, strict=True):
        known = holding.train.shared[holding.train.own == user]
        expected += bool(item == np.setdiff1d(np.arange(holding.m), known)[0])
    assert first == expected > 0


def test_blocks_of_users_change_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    holding = whole(made(50, 40, 700), split=DRAWN)
    factors, mask = model(holding)
    plain = ranking_sums(factors, mask, holding, "test")
    monkeypatch.setattr("vfl.ratings.ranking._BLOCK", 1)
    assert torch.equal(ranking_sums(factors, mask, holding, "test"), plain)


def test_errors_are_those_of_scikit_learn() -> None:
    holding = whole(made(50, 40, 700), split=DRAWN)
    factors, mask = model(holding)
    part = holding.test
    said = predict(factors, mask, holding.scale, part.own, part.shared)
    found = error_scores(error_sums(factors, mask, holding, "test"))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(part.value, said), abs=1e-6)
    assert found["mae"] == pytest.approx(mean_absolute_error(part.value, said), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(owner=st.lists(st.integers(0, 4), min_size=30, max_size=30), split=st.sampled_from(["valid", "test"]))
def test_sums_of_parts_are_the_sum_of_the_whole(owner: list[int], split: str) -> None:
    ratings = made()
    single, spread = whole(ratings, split=DRAWN), dealt(ratings, owner, split=DRAWN)
    for each in EACH:
        assert torch.equal(
            SUMS.total([summed(each, one, split) for one in spread]), summed(each, single, split)
        )
    parts = [residual_sums(make_residuals(one, fit_mask("user_mean", one)))[0] for one in spread]
    all_in_one = residual_sums(make_residuals(single, fit_mask("none", single)))[0]
    assert decode(SUMS.total(parts), SUMS)[1] == decode(all_in_one, SUMS)[1] == len(single.train)


def summed(each: Callable[..., Tensor], holding: RatingsHolding, split: str) -> Tensor:
    factors = begin_factors(holding, 4, 3)
    factors.mu.fill_(3.0)
    return each(factors, PersonalMask("none", holding.n_own, holding.m), holding, split)


def test_the_mean_residual_is_the_mean() -> None:
    holding = whole(made())
    residuals = make_residuals(holding, fit_mask("none", holding))
    mu, n = mean_residual(residual_sums(residuals)[0])
    assert n == len(holding.train)
    assert mu == pytest.approx(holding.train.value.mean(), abs=1e-6)
    assert mean_residual(scalar_elements([0, 0])[0]) == (0.0, 0)


@pytest.mark.parametrize("each", EACH)
def test_without_held_out_ratings_there_is_no_score(each: Callable[..., Tensor]) -> None:
    holding = whole(made())
    total = each(*model(holding), holding, "test")
    assert not total.any()
    assert error_scores(total) == {} if each is error_sums else ranking_scores(total) == {}


def test_ranks_over_items_that_are_spread_are_refused_with_the_remedy() -> None:
    holding = whole(made(), "item", DRAWN)
    with pytest.raises(ConfigError, match='with by = "item" set "rmse" or "mae"'):
        ranking_sums(*model(holding), holding, "test")


@pytest.mark.parametrize("each", EACH)
def test_predictions_that_are_no_numbers_are_refused(each: Callable[..., Tensor]) -> None:
    holding = whole(made(), split=DRAWN)
    factors, mask = model(holding)
    factors.own.data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="training has diverged"):
        each(factors, mask, holding, "test")


def test_a_few_sums_beyond_the_ring_are_clamped_and_counted() -> None:
    elements, clamped = scalar_elements([2**62, -(2**62), 7])
    assert (clamped, elements.tolist()) == (2, [SUMS.limit, -SUMS.limit, 7])


@pytest.mark.parametrize(
    ("solver", "contributors", "bits", "fraction_bits"),
    [("als", 1, 64, 30), ("als", 2047, 64, 30), ("sgd", 3, 32, 17), ("sgd", 1000, 32, 9)],
)
def test_the_default_ring_has_room_for_all(
    solver: str, contributors: int, bits: int, fraction_bits: int
) -> None:
    ring = default_ring(solver, contributors)
    assert (ring.bits, ring.fraction_bits) == (bits, fraction_bits)
    assert contributors * ring.limit < 2 ** (bits - 1)
    assert default_ring(solver, contributors, bits=64).fraction_bits == 30


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="may sum to more than 32 bits hold"):
        default_ring("als", 3, bits=32, fraction_bits=20)
