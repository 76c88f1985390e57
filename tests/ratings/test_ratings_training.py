"""Training without a dialogue equals a plain factorisation, and no spread of own entities changes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plain_mf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import ALL_TRAIN, SCALE, dealt, made, whole

from vfl.errors import ConfigError, DataError
from vfl.learn.plan import Plan
from vfl.masking.ring import Ring
from vfl.ratings.alone import Settings, train_all, train_alone
from vfl.ratings.factors import begin_factors, begin_shared, make_residuals
from vfl.ratings.gradients import gradients
from vfl.ratings.holding import By, RatingsHolding, hold, merge
from vfl.ratings.least_squares import solve_own, solve_shared, statistics
from vfl.ratings.personal import fit_mask
from vfl.ratings.solving import solve_all, triangle
from vfl.ratings.splits import Split

RING = Ring(64, 30, 2.0**20)
NARROW = Ring(32, 12, 4096.0)


def triples(holding: RatingsHolding) -> plain_mf.Triples:
    part = holding.train
    return list(zip(part.own.tolist(), part.shared.tolist(), part.value.tolist(), strict=True))


def unmasked(holdings: list[RatingsHolding], rounds: int = 3, **more: object):  # noqa: ANN201
    given = Settings(
        Plan(rounds, metric="rmse"), **{"rank": 3, "regularisation": 0.15, "ring": RING, "seed": 9, **more}
    )  # type: ignore[arg-type]
    return train_all(holdings, [fit_mask("none", one) for one in holdings], given)


def own_by_id(holdings: list[RatingsHolding], found: list) -> dict[str, list[float]]:  # type: ignore[type-arg]
    return {
        name: row
        for one, factors in zip(holdings, found, strict=True)
        for name, row in zip(one.own_ids, factors.own.tolist(), strict=True)
    }


@pytest.mark.parametrize("by", ["user", "item"])
def test_least_squares_equal_a_plain_factorisation_to_rounding(by: By) -> None:
    holding = whole(made(), by)
    found = unmasked([holding], rounds=4, regularisation=0.2).factors[0]
    start = begin_factors(holding, 3, 9)
    mu = float(np.mean(holding.train.value))
    own, shared = plain_mf.als(triples(holding), holding.n_own, start.arrays()[1], mu, 0.2, 4)
    rated = np.isin(np.arange(holding.m), holding.train.shared)
    assert float(found.mu) == pytest.approx(mu, abs=1e-9)
    np.testing.assert_allclose(found.shared.detach().numpy()[rated], shared[rated], atol=1e-6)
    np.testing.assert_allclose(found.own.detach().numpy(), own, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("Adam", {"lr": 0.05}), ("SGD", {"lr": 0.05, "momentum": 0.9})]
)
@pytest.mark.parametrize("ring", [RING, NARROW])
def test_gradient_steps_equal_a_plain_factorisation_bit_for_bit(
    name: str, options: dict[str, float], ring: Ring
) -> None:
    holding = whole(made())
    optimizer = {"name": name, **options}
    found = unmasked([holding], rounds=6, solver="sgd", optimizer=optimizer, ring=ring).factors[0]
    start = begin_factors(holding, 3, 9)
    own, shared = plain_mf.sgd(
        triples(holding),
        *(array.copy() for array in start.arrays()),
        mu=float(found.mu),
        lam=0.15,
        rounds=6,
        fraction_bits=ring.fraction_bits,
        make=getattr(torch.optim, name),
        **options,
    )
    assert found.own.detach().numpy().tobytes() == own.tobytes()
    assert found.shared.detach().numpy().tobytes() == shared.tobytes()


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    by=st.sampled_from(["user", "item"]),
    solver=st.sampled_from(["als", "sgd"]),
    seed=st.integers(0, 5),
)
def test_how_own_entities_are_spread_over_participants_changes_no_bit_of_the_model(
    data: st.DataObject, by: By, solver: str, seed: int
) -> None:
    ratings = made(12, 9, 80, seed)
    n_own = len(ratings.user_ids if by == "user" else ratings.item_ids)
    owner = data.draw(st.lists(st.integers(0, 3), min_size=n_own, max_size=n_own))
    split = Split("fraction", 0.15, 0.15)
    spread = dealt(ratings, owner, by, split)
    if any(len(one.train) < 2 for one in spread):
        return
    single = [merge(spread)]
    more = {"solver": solver, "batches": 2, "rounds": 2}
    one, many = unmasked(single, **more), unmasked(spread, **more)  # type: ignore[arg-type]
    assert own_by_id(single, one.factors) == own_by_id(spread, many.factors)
    for factors in many.factors:
        assert factors.shared.detach().numpy().tobytes() == one.factors[0].shared.detach().numpy().tobytes()
    assert (one.history, one.valid, one.test, one.best_round) == (
        many.history,
        many.valid,
        many.test,
        many.best_round,
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 50))
def test_summed_integers_are_the_same_for_any_spread(data: st.DataObject, seed: int) -> None:
    ratings = made(10, 7, 45, seed)
    owner = data.draw(st.lists(st.integers(0, 2), min_size=10, max_size=10))
    spread = dealt(ratings, owner)
    totals = []
    for holdings in (spread, [merge(spread)]):
        said: list[tuple[torch.Tensor, ...]] = []
        for one in holdings:
            factors = begin_factors(one, 2, 1)
            residuals = make_residuals(one, fit_mask("none", one))
            steps = gradients(factors, residuals, NARROW, 0.1, 1.0)[0]
            solve_own(factors, residuals, 0.1)
            said.append((steps, statistics(factors, residuals, RING)[0]))
        totals.append((NARROW.total([a for a, _ in said]), RING.total([b for _, b in said])))
    assert torch.equal(totals[0][0], totals[1][0])
    assert torch.equal(totals[0][1], totals[1][1])


def test_chunks_and_their_edges_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    holding = whole(made(40, 25, 500))
    plain = unmasked([holding]).factors[0]
    monkeypatch.setattr("vfl.ratings.solving.CHUNK", 7)  # less than many users have
    monkeypatch.setattr("vfl.ratings.solving._BLOCK_NUMBERS", 1)
    monkeypatch.setattr("vfl.ratings.fixed.CHUNK", 7)
    monkeypatch.setattr("vfl.ratings.fixed.chunks.__defaults__", (7,))
    small = unmasked([holding]).factors[0]
    assert torch.equal(plain.own, small.own)
    assert torch.equal(plain.shared, small.shared)


def test_coordinator_and_participants_begin_with_the_same_shared_factors() -> None:
    holding = whole(made())
    factors = begin_factors(holding, 4, 77)
    assert torch.equal(factors.shared, begin_shared(holding.m, 4, 77).shared)
    assert not torch.equal(factors.shared, begin_shared(holding.m, 4, 78).shared)
    assert 0.05 < float(factors.own.detach()[:, :4].std()) < 0.15
    assert not factors.own.detach()[:, 4].any()


def test_an_own_entity_begins_alike_wherever_it_is_held() -> None:
    ratings = made()
    single, spread = whole(ratings), dealt(ratings, [place % 3 for place in range(30)])
    starts = own_by_id(spread, [begin_factors(one, 3, 9) for one in spread])
    assert own_by_id([single], [begin_factors(single, 3, 9)]) == starts


def test_what_nobody_has_rated_has_no_factors_of_least_squares() -> None:
    ratings = made()
    shared = (*sorted(ratings.item_ids), "zz never seen")
    holding = hold(ratings, by="user", shared_ids=shared, split=Split(valid=0, test=0), seed=1, scale=SCALE)
    found = unmasked([holding]).factors[0]
    assert not found.shared.detach()[-1].any()
    assert np.isfinite(found.row(0)).all()


def test_statistics_are_dense_and_clamp_what_is_beyond_the_clip() -> None:
    holding = whole(made())
    factors = begin_factors(holding, 2, 1)
    residuals = make_residuals(holding, fit_mask("none", holding))
    solve_own(factors, residuals, 0.1)
    elements, clamped = statistics(factors, residuals, RING)
    assert (elements.shape, elements.dtype, clamped) == ((holding.m, 9), torch.int64, 0)
    counts = elements[:, 5].numpy() / 2.0**30
    assert counts.tolist() == np.bincount(holding.train.shared, minlength=holding.m).tolist()
    tight = Ring(32, 20, 2.0)
    elements, clamped = statistics(factors, residuals, tight)
    assert clamped > 0
    assert int(elements.abs().max()) == tight.limit
    assert elements.dtype == torch.int32


def test_solved_shared_factors_come_from_the_total_alone() -> None:
    spread = dealt(made(), [place % 2 for place in range(30)])
    said = []
    for one in spread:
        factors = begin_factors(one, 2, 1)
        residuals = make_residuals(one, fit_mask("none", one))
        solve_own(factors, residuals, 0.1)
        said.append(statistics(factors, residuals, RING)[0])
    forth, back = (solve_shared(RING.total(order), RING, 2, 0.1) for order in (said, said[::-1]))
    assert torch.equal(forth, back)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 9), n=st.integers(1, 6), seed=st.integers(0, 999))
def test_systems_are_solved_as_if_each_were_alone(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, k + 2, k))
    full = np.einsum("nij,nik->njk", rows, rows)
    upper = np.array([full[:, a, b] for a, b in triangle(k)])
    right, diagonal = rng.normal(size=(k, n)), rng.uniform(0.1, 2.0, (k, n))
    found = solve_all(upper, right, diagonal)
    eyes = diagonal.T[:, None] * np.eye(k)
    np.testing.assert_allclose(found, np.linalg.solve(full + eyes, right.T[..., None])[..., 0], rtol=1e-6)
    for one in range(n):
        some = slice(one, one + 1)
        assert (
            solve_all(upper[:, some], right[:, some], diagonal[:, some])[0].tobytes() == found[one].tobytes()
        )


def test_systems_without_a_single_solution_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="raise regularisation above 0"):
        solve_all(np.zeros((3, 2)), np.ones((2, 2)), np.zeros((2, 2)))


def test_training_that_diverges_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"training has diverged .* lower lr"):
        unmasked([whole(made())], rounds=200, solver="sgd", optimizer={"name": "SGD", "lr": 1e4})


def test_the_best_round_is_kept_and_patience_ends_training() -> None:
    holding = whole(made(40, 25, 500), split=Split(valid=0.2, test=0.1))
    plan = Plan(60, metric="rmse", patience=3)
    found = train_alone(
        holding,
        fit_mask("none", holding),
        Settings(plan, solver="sgd", optimizer={"name": "Adam", "lr": 0.3}),
    )
    scores = [one["rmse"] for one in found.history]
    assert found.best_round == int(np.argmin(scores)) + 1
    assert len(scores) == found.best_round + 3 < 60
    assert found.valid["rmse"] == min(scores)
    again = train_alone(
        holding,
        fit_mask("none", holding),
        Settings(plan, solver="sgd", optimizer={"name": "Adam", "lr": 0.3}),
    )
    assert torch.equal(found.factors[0].own, again.factors[0].own)


@pytest.mark.parametrize(("rows", "says"), [(0, "has no rating"), (1, "has one rating only")])
def test_a_holder_of_no_rating_or_one_is_refused_with_the_remedy(rows: int, says: str) -> None:
    ratings = made()
    few = replace(
        ratings, user=ratings.user[:rows], item=ratings.item[:rows], value=ratings.value[:rows], times=None
    )
    holding = hold(few, by="user", shared_ids=ratings.item_ids, split=ALL_TRAIN, seed=1, scale=SCALE)
    with pytest.raises(DataError, match=rf"^shop\.csv: it {says} to train on.*add ratings"):
        unmasked([holding])


def test_shared_factors_of_another_shape_or_not_finite_are_refused() -> None:
    factors = begin_shared(3, 2, 1)
    with pytest.raises(ValueError, match="where float64"):
        factors.take_shared(torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="not finite"):
        factors.take_shared(torch.full((3, 3), torch.nan, dtype=torch.float64))
