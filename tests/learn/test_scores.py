from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst
from numpy.typing import NDArray
from sklearn import metrics

from vfl.errors import ConfigError
from vfl.learn.scores import (
    DEFAULT_METRIC,
    METRICS,
    greater_is_better,
    loss_function,
    output_width,
    probabilities,
    score,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, 50)
LOGITS = RNG.normal(size=50) + TRUTH
CLASSES = RNG.integers(0, 4, 60)
MANY = RNG.normal(size=(60, 4)) + np.eye(4)[CLASSES]


def test_binary_scores_are_those_of_scikit_learn() -> None:
    chances = 1 / (1 + np.exp(-LOGITS))
    assert score("binary", TRUTH, LOGITS) == pytest.approx(
        {
            "auc": metrics.roc_auc_score(TRUTH, chances),
            "average_precision": metrics.average_precision_score(TRUTH, chances),
            "accuracy": metrics.accuracy_score(TRUTH, chances > 0.5),
            "f1": metrics.f1_score(TRUTH, chances > 0.5),
            "log_loss": metrics.log_loss(TRUTH, chances),
        }
    )


def test_multiclass_scores_are_those_of_scikit_learn() -> None:
    chances = np.exp(MANY) / np.exp(MANY).sum(axis=1, keepdims=True)
    assert score("multiclass", CLASSES, MANY) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(CLASSES, MANY.argmax(axis=1)),
            "macro_f1": metrics.f1_score(CLASSES, MANY.argmax(axis=1), average="macro"),
            "auc": metrics.roc_auc_score(CLASSES, chances, multi_class="ovr"),
            "log_loss": metrics.log_loss(CLASSES, chances),
        }
    )


def test_regression_scores_are_those_of_scikit_learn() -> None:
    truth = LOGITS + RNG.normal(size=50)
    assert score("regression", truth, LOGITS) == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(truth, LOGITS),
            "mae": metrics.mean_absolute_error(truth, LOGITS),
            "r2": metrics.r2_score(truth, LOGITS),
        }
    )


def test_scores_are_plain_floats_in_a_fixed_order() -> None:
    found = score("binary", TRUTH.astype(np.float32), LOGITS.astype(np.float32)[:, None])
    assert tuple(found) == METRICS["binary"]
    assert all(type(value) is float for value in found.values())
    json.dumps(found, allow_nan=False)


def test_only_the_scores_asked_for_are_given() -> None:
    assert tuple(score("binary", TRUTH, LOGITS, ["f1", "auc"])) == ("auc", "f1")


@pytest.mark.parametrize(("value", "f1"), [(0, False), (1, True)])
def test_scores_that_one_class_does_not_define_are_left_out(value: int, f1: bool) -> None:
    found = score("binary", np.full(3, value), np.full(3, -1.0))
    assert set(found) == {"accuracy", "log_loss"} | ({"f1"} if f1 else set())


def test_a_multiclass_auc_needs_every_class() -> None:
    assert "auc" not in score("multiclass", np.array([0, 1, 1]), MANY[:3])
    assert "macro_f1" in score("multiclass", np.array([0, 0]), MANY[:2])


def test_a_constant_truth_has_no_r2() -> None:
    assert set(score("regression", np.ones(3), LOGITS[:3])) == {"rmse", "mae"}
    assert set(score("regression", np.ones(1), LOGITS[:1])) == {"rmse", "mae"}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_no_rows_have_no_scores(task: str) -> None:
    assert score(task, np.zeros(0), np.zeros((0, 3))) == {}


def test_a_log_loss_stays_exact_where_a_probability_would_be_0_or_1() -> None:
    assert score("binary", np.array([0, 1]), np.array([800.0, 800.0]))["log_loss"] == 400
    far = score("multiclass", np.array([1]), np.array([[900.0, 0.0]]))
    assert far["log_loss"] == 900


@settings(deadline=None)
@given(nst.arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_finite_outputs_have_finite_scores_and_proper_probabilities(output: NDArray[np.float32]) -> None:
    truth = np.array([0, 1, 2, 0, 1])
    assert all(np.isfinite(list(score("multiclass", truth, output).values())))
    assert np.allclose(probabilities("multiclass", output).sum(axis=1), 1)
    assert all(np.isfinite(list(score("binary", truth > 0, output[:, 0]).values())))
    assert (
        (probabilities("binary", output[:, :1]) >= 0) & (probabilities("binary", output[:, :1]) <= 1)
    ).all()
    assert all(np.isfinite(list(score("regression", truth, output[:, 0]).values())))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_named_as_divergence(bad: float) -> None:
    with pytest.raises(
        ConfigError, match=r"training has diverged \(1 of 50 outputs are not finite\): lower lr"
    ):
        score("binary", TRUTH, np.where(np.arange(50) == 3, bad, LOGITS))


def test_probabilities_are_sigmoid_softmax_or_the_values() -> None:
    assert probabilities("binary", np.array([[0.0]])).tolist() == [0.5]
    assert probabilities("multiclass", np.zeros((1, 4))).tolist() == [[0.25] * 4]
    assert probabilities("regression", np.array([[3.0], [4.0]])).tolist() == [3.0, 4.0]


@pytest.mark.parametrize(("task", "width"), [("binary", 1), ("multiclass", 5), ("regression", 1)])
def test_an_output_is_as_wide_as_its_task(task: str, width: int) -> None:
    assert output_width(task, 5) == width


def test_losses_are_torchs_own_means() -> None:
    output, y = torch.randn(6, 1), torch.tensor([0.0, 1, 1, 0, 1, 0])
    binary = nn_loss = torch.nn.functional.binary_cross_entropy_with_logits(output[:, 0], y)
    assert torch.equal(loss_function("binary")(output, y), binary)
    assert loss_function("binary")(output, y).item() == pytest.approx(
        score("binary", y.numpy(), output.numpy())["log_loss"], rel=1e-5
    )
    nn_loss = torch.nn.functional.cross_entropy(torch.ones(6, 3), y.long())
    assert torch.equal(loss_function("multiclass")(torch.ones(6, 3), y.long()), nn_loss)
    assert torch.equal(loss_function("regression")(output, y), (output[:, 0] - y).square().mean())


def test_every_task_is_judged_by_one_of_its_own_scores() -> None:
    assert all(DEFAULT_METRIC[task] in METRICS[task] for task in METRICS)


def test_errors_are_better_small_and_the_rest_great() -> None:
    small = {name for names in METRICS.values() for name in names if not greater_is_better(name)}
    assert small == {"log_loss", "rmse", "mae"}


def test_unknown_tasks_and_scores_are_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'acuracy' is no score of a binary task: did you mean 'accuracy'\?"
    ):
        score("binary", TRUTH, LOGITS, ["acuracy"])
    for call in (output_width, loss_function):
        with pytest.raises(
            ConfigError, match=r"task = 'multi-class' is unknown: did you mean 'multiclass'\?"
        ):
            call("multi-class")
