from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.learn.plan import Plan, Selection


def follow(plan: Plan, values: list[float | None]) -> tuple[list[bool], Selection, int]:
    """Judges one epoch after the other until training is over; tells which were best, and the last."""
    selection, best = Selection(plan), []
    for epoch, value in enumerate(values, start=1):
        best.append(selection.judge(epoch, {} if value is None else {plan.metric: value, "other": -1.0}))
        if selection.is_over(epoch):
            break
    return best, selection, len(best)


def test_an_epoch_is_best_where_its_score_is_greater_than_all_before() -> None:
    best, selection, _ = follow(Plan(5), [0.5, 0.7, 0.6, 0.7, 0.8])
    assert best == [True, True, False, False, True]
    assert selection.best_epoch == 5


@pytest.mark.parametrize("metric", ["rmse", "mae", "log_loss"])
def test_of_an_error_the_smallest_is_best(metric: str) -> None:
    best, selection, _ = follow(Plan(4, metric=metric), [3.0, 2.0, 2.5, 1.0])
    assert best == [True, True, False, True]
    assert selection.best_epoch == 4


def test_a_score_below_nothing_can_be_the_best() -> None:
    assert follow(Plan(3, metric="r2"), [-5.0, -9.0, -4.0])[0] == [True, False, True]


def test_the_first_score_is_best_however_low_and_whatever_min_delta_is() -> None:
    assert follow(Plan(2, min_delta=10.0), [0.0, 5.0])[0] == [True, False]


def test_without_a_score_the_latest_epoch_is_best() -> None:
    best, selection, last = follow(Plan(4, patience=1), [None] * 4)
    assert (best, selection.best_epoch, last) == ([True] * 4, 4, 4)


def test_a_score_after_none_is_best() -> None:
    assert follow(Plan(3), [None, 0.1, 0.05])[0] == [True, True, False]


def test_training_ends_with_the_last_epoch() -> None:
    assert follow(Plan(3), [0.1, 0.2, 0.3, 0.4])[2] == 3


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 6), (3, 7)])
def test_patience_is_counted_from_the_best_epoch(patience: int, last: int) -> None:
    assert follow(Plan(9, patience=patience), [0.5, 0.6, 0.5, 0.7, 0.6, 0.6, 0.6, 0.9])[2] == last


def test_a_gain_of_no_more_than_min_delta_is_none() -> None:
    best, selection, last = follow(Plan(9, patience=2, min_delta=0.25), [0.5, 0.75, 1.0, 1.25])
    assert (best, selection.best_epoch, last) == ([True, False, True, False], 3, 4)


def test_small_gains_add_up_to_a_better_epoch() -> None:
    assert follow(Plan(4, min_delta=0.3), [0.0, 0.2, 0.4, 0.6])[0] == [True, False, True, False]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_the_best_epoch_is_the_first_of_the_greatest_score_seen(values: list[float], patience: int) -> None:
    best, selection, last = follow(Plan(len(values), patience=patience), list(values))
    assert selection.best_epoch == values.index(max(values[:last])) + 1
    assert best[selection.best_epoch - 1]
    assert last == len(values) or last - selection.best_epoch == patience
