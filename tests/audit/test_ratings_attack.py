"""What can be read of ratings in contributions is read, and nothing where there is nothing to be read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rated_cast import SCALE, drawn, one_user, under_masks, watched

from protocols.fedmmf.choosing import explained, may_be_plain
from vfl.audit.ratings import Exposed, Leak, Seen, expose, judge
from vfl.audit.sums import nothing_but
from vfl.errors import ConfigError
from vfl.ratings.holding import RatingsHolding, merge
from vfl.ratings.personal import MaskKind, PersonalMask, fit_mask

BOTH = pytest.mark.parametrize("solver", ["als", "sgd"])


def residuals(holding: RatingsHolding, mask: PersonalMask) -> dict[tuple[int, int], float]:
    part = holding.train
    left = part.value - mask.of(part.own, part.shared)
    return dict(zip(zip(part.own.tolist(), part.shared.tolist(), strict=True), left.tolist(), strict=True))


def users(count: int, kind: MaskKind = "user_mean") -> tuple[list[RatingsHolding], list[PersonalMask]]:
    whole = drawn(count, 80, 30)
    held = [one_user(whole, place) for place in range(count)]
    return held, [fit_mask(kind, one) for one in held]


@BOTH
@pytest.mark.parametrize("kind", ["none", "user_mean", "bias", "mf"])
def test_of_a_single_user_every_residual_is_found_outright(solver: str, kind: MaskKind) -> None:
    held, masks = users(6, kind)
    seen, _, ring = watched(held, masks, solver=solver, rounds=1)
    for one, mask, view in zip(held, masks, seen, strict=True):
        found = expose(view)
        assert found.anchored.all()
        assert sorted(found.shared.tolist()) == one.train.shared.tolist()
        truth = residuals(one, mask)
        off = [abs(truth[0, j] - m) for j, m in zip(found.shared.tolist(), found.residual, strict=True)]
        assert max(off) < 2.0 ** (8 - ring.fraction_bits / 2)
        leak = judge(found, one)
        assert (leak.auc, leak.read, leak.outright) == (1.0, 1.0, 1.0)
        assert leak.r2["as it is"] > 0.999 or kind != "none"


def test_an_organisations_users_are_told_apart_and_their_ratings_read_but_for_one_number_each() -> None:
    shops = [drawn(40, 600, 30, seed) for seed in range(3)]
    masks = [fit_mask("user_mean", one) for one in shops]
    seen, _, _ = watched(shops, masks)
    leak = judge(expose(seen[0]), shops[0])
    assert leak.auc == 1.0
    assert leak.precision == pytest.approx(1.0)
    assert leak.read > 0.7
    assert leak.best > 0.6
    assert leak.rmse < leak.baseline * 0.65


def test_users_who_are_told_apart_are_truly_one_user_each() -> None:
    shops = [drawn(30, 500, 25, seed) for seed in range(2)]
    masks = [fit_mask("bias", one) for one in shops]
    seen, _, _ = watched(shops, masks)
    found = expose(seen[0])
    truth = residuals(shops[0], masks[0])
    for user in np.unique(found.own):
        mine = found.own == user
        theirs = found.shared[mine].tolist()
        fitting = [one for one in range(30) if all((one, item) in truth for item in theirs)]
        off = [
            np.ptp([truth[one, item] - m for item, m in zip(theirs, found.residual[mine], strict=True)])
            for one in fitting
        ]
        assert min(off) < 0.02  # one number is left open


def test_where_all_of_a_users_ratings_are_found_no_number_is_left_open() -> None:
    # Few users, each with items that nobody else has: then the equations for offsets are whole.
    shops = [drawn(6, 300, 30, seed) for seed in range(2)]
    masks = [fit_mask("none", one) for one in shops]
    seen, _, _ = watched(shops, masks)
    leak = judge(expose(seen[0]), shops[0])
    assert leak.outright > 0.9
    assert leak.r2["as it is"] > 0.9


def test_the_sum_of_all_tells_apart_users_of_items_that_few_have_rated_and_masks_do_not_help() -> None:
    shops = [drawn(20, 600, 30, seed) for seed in range(3)]
    renamed = [
        RatingsHolding(
            one.source, one.by, one.scale, tuple(f"{k}{name}" for name in one.own_ids), one.shared_ids, 0,
            one.parts,
        )
        for k, one in enumerate(shops)
    ]  # fmt: skip
    masks = [fit_mask("user_mean", one) for one in renamed]
    _, whole, _ = watched(renamed, masks)
    assert judge(expose(whole), merge(renamed)).read > 0.5
    dense = [drawn(20, 15, 12, seed) for seed in range(3)]
    _, whole, _ = watched(dense, [fit_mask("user_mean", one) for one in dense], rounds=4)
    assert not len(expose(whole).own)  # every item has more raters than there are factors


@BOTH
def test_under_masks_all_falls_to_chance(solver: str) -> None:
    held, masks = users(30)
    seen, _, ring = watched(held, masks, solver=solver, rounds=3)
    hidden = [judge(expose(under_masks(one, ring, n)), held[n]) for n, one in enumerate(seen)]
    assert all(one.read == 0 for one in hidden)
    assert 0.44 < np.mean([one.auc for one in hidden]) < 0.56
    assert np.mean([one.precision - one.chance for one in hidden]) < 0.06
    assert np.mean([one.best for one in hidden]) < 0.05
    assert np.mean([judge(expose(one), held[n]).best for n, one in enumerate(seen)]) > 0.5


@BOTH
def test_an_organisation_under_masks_is_no_better_read(solver: str) -> None:
    shops = [drawn(40, 400, 10, seed) for seed in range(2)]
    seen, _, ring = watched(shops, [fit_mask("none", one) for one in shops], solver=solver, rounds=3)
    hidden = [judge(expose(under_masks(seen[0], ring, n)), shops[0]) for n in range(5)]
    assert abs(np.mean([one.auc for one in hidden]) - 0.5) < 0.04
    assert max(one.best for one in hidden) < 0.03


# --- the criterion's claim -----------------------------------------------------------------------------


class Close(PersonalMask):
    """Is a mask that leaves a share of each rating's deviation, and chance."""

    def __init__(self, holding: RatingsHolding, left: float, seed: int = 0) -> None:
        super().__init__("none", holding.n_own, holding.m)
        value = holding.train.value
        chance = np.random.default_rng(seed).normal(0, 0.4 * value.std(), len(value))
        self._of = value - left * (value - value.mean()) - chance

    def of(self, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return self._of


def passing(held: list[RatingsHolding], masks: list[PersonalMask], below: float) -> list[bool]:
    return [may_be_plain(one, mask, below=below, owners=1) for one, mask in zip(held, masks, strict=True)]


def attacks(
    held: list[RatingsHolding], masks: list[PersonalMask], solver: str = "als"
) -> list[tuple[bool, float, Leak]]:
    """For each participant: whether it passes, the criterion's R², and the attack."""
    seen, _, _ = watched(held, masks, solver=solver, rounds=6)
    bound = [max(explained(one, mask).values()) for one, mask in zip(held, masks, strict=True)]
    leaks = [judge(expose(view), one) for view, one in zip(seen, held, strict=True)]
    return list(zip(passing(held, masks, 0.5), bound, leaks, strict=True))


@pytest.mark.parametrize("solver", ["als", "sgd"])
def test_single_users_whom_the_criterion_lets_be_plain_are_read_no_better_than_it_says(solver: str) -> None:
    held, _ = users(40)
    found = attacks(held, [Close(one, (place + 1) / 40, place) for place, one in enumerate(held)], solver)
    plain = [leak.best for passes, _, leak in found if passes]
    rest = [leak.best for passes, _, leak in found if not passes]
    assert 5 <= len(plain) <= 35
    # Single scores are of few ratings, and the attackers' six tries: a tenth is what chance adds.
    assert np.mean(plain) <= 0.5
    assert max(plain) <= 0.6
    assert max(rest) > 0.6


def test_organisations_whom_the_criterion_lets_be_plain_are_read_no_better_than_it_says() -> None:
    held = [drawn(400, 30, 25, seed) for seed in range(6)]
    found = attacks(held, [Close(one, place / 8, place) for place, one in enumerate(held)])
    assert 2 <= sum(passes for passes, _, _ in found) <= 4
    for passes, bound, leak in found:
        assert leak.best <= bound + 0.03
        assert passes == (bound <= 0.5)


def test_what_averages_of_many_residuals_tell_is_counted() -> None:
    # Where items tell nearly all, offsets fitted at home leave little of each rating. But the residuals of an
    # item average to what shrinking left of its offset, and some known ratings tell what that stands for.
    held = [drawn(800, 30, 25, seed, item=1.4, user=0.1, noise=0.3) for seed in range(2)]
    masks = [fit_mask("bias", one) for one in held]
    found = attacks(held, masks)
    for one, mask, (passes, bound, leak) in zip(held, masks, found, strict=True):
        guesses = explained(one, mask)
        assert guesses["monotone"] < 0.5 < guesses["averages"]
        assert not passes
        assert 0.8 < leak.best <= bound + 0.03


def test_who_has_no_mask_is_never_let_and_read_in_full() -> None:
    held, masks = users(5, "none")
    for passes, bound, leak in attacks(held, masks):
        assert not passes
        assert bound == pytest.approx(1.0)
        assert leak.r2["as it is"] > 0.999


# --- the scores ----------------------------------------------------------------------------------------


def test_the_mean_alone_scores_nothing_and_the_truth_all() -> None:
    holding = drawn(40, 1000, 20)
    part = holding.train
    nothing = nothing_but(np.zeros(holding.m), np.zeros(holding.m))
    assert judge(nothing, holding).r2["monotone"] == pytest.approx(0.0, abs=0.1)
    assert judge(nothing, holding).auc == 0.5
    every = np.ones(len(part), bool)
    truth = Exposed(np.zeros(holding.m), np.zeros(holding.m), part.own, part.shared, part.value, every)
    leak = judge(truth, holding)
    assert leak.r2["as it is"] == leak.read == leak.outright == 1.0
    assert leak.rmse == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-3, 3), seed=st.integers(0, 5))
def test_one_number_a_user_is_found_from_the_steps_of_the_scale(shift: float, seed: int) -> None:
    holding = drawn(1, 120, 60, seed, noise=1.0)
    part, every = holding.train, np.ones(len(holding.train), bool)
    level = np.zeros(holding.m)
    moved = Exposed(level, level, part.own, part.shared, part.value - shift, every)
    guess = judge(moved, holding).r2["scale"]
    exact = Exposed(level, level, part.own, part.shared, part.value, every)
    assert guess == pytest.approx(judge(exact, holding).r2["scale"], abs=1e-6)


CASES: list[tuple[str, Callable[[], object]]] = [
    ("nothing was seen", lambda: expose(Seen("als", [], [], 0.0, 0.2))),
    ("share of the ratings", lambda: judge(nothing_but(np.zeros(9), np.zeros(9)), drawn(3, 9, 6), 1.5)),
    ("all equal", lambda: judge(nothing_but(np.zeros(30), np.zeros(30)), _equal())),
]


def _equal() -> RatingsHolding:
    holding = drawn(3, 30, 9)
    holding.train.value[:] = 4.0
    return holding


@pytest.mark.parametrize(("why", "call"), CASES)
def test_what_cannot_be_attacked_is_refused_with_a_reason(why: str, call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=why):
        call()
    assert SCALE == (0.5, 5.0)
