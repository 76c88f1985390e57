"""Says how good a network's raw outputs are, and what loss it is trained by.

Raw outputs are logits [n] for a binary task, logits [n, c] for several classes, values [n] for a
regression. A score that the rows do not define (an AUC where there is one class) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vfl.errors import ConfigError
from vfl.learn.presets import choose

#: Every task with the scores that it can be judged by; those of a recommendation are `vfl.ratings`' own.
METRICS: Final[dict[str, tuple[str, ...]]] = {
    "binary": ("auc", "average_precision", "accuracy", "f1", "log_loss"),
    "multiclass": ("accuracy", "macro_f1", "auc", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
    "recommendation": ("rmse", "mae", "ndcg@10", "hr@10", "recall@10"),
}

#: The score that the best epoch is chosen by, where the job names none.
DEFAULT_METRIC: Final[dict[str, str]] = {
    "binary": "auc",
    "multiclass": "accuracy",
    "regression": "rmse",
    "recommendation": "rmse",
}

_LOWER_IS_BETTER: Final = frozenset({"log_loss", "rmse", "mae"})


def greater_is_better(metric: str) -> bool:
    """Says in which direction a score improves."""
    return metric not in _LOWER_IS_BETTER


def output_width(task: str, classes: int = 2) -> int:
    """Gives the width of the network's output: one logit or value, or c logits.

    Raises:
        ConfigError: The task is unknown.
    """
    _check_task(task)
    return classes if task == "multiclass" else 1


def loss_function(task: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Gives the mean loss of outputs [b, c] against y [b]: c is 1 but for several classes.

    Raises:
        ConfigError: The task is unknown.
    """
    _check_task(task)
    if task == "multiclass":
        return functional.cross_entropy
    if task == "binary":
        return lambda output, y: functional.binary_cross_entropy_with_logits(output.squeeze(1), y)
    return lambda output, y: functional.mse_loss(output.squeeze(1), y)


def probabilities(task: str, output: NDArray[Any]) -> NDArray[np.float64]:
    """Turns raw outputs into probabilities [n] or [n, c]; a regression's values stay as they are.

    Raises:
        ConfigError: The task is unknown.
    """
    _check_task(task)
    raw = torch.from_numpy(np.asarray(_shaped(task, output), dtype=np.float64))
    if task == "regression":
        return raw.numpy()
    return (torch.sigmoid(raw) if task == "binary" else torch.softmax(raw, dim=1)).numpy()


def score(
    task: str, truth: NDArray[Any], output: NDArray[Any], names: Sequence[str] | None = None
) -> dict[str, float]:
    """Computes the scores of some rows.

    Args:
        task: "binary", "multiclass" or "regression".
        truth: [n]: 0 or 1, the number of the class, or the value.
        output: Raw outputs [n] or [n, c]; [n, 1] is taken as [n].
        names: The scores wanted, of `METRICS[task]`; None for all.

    Returns:
        Scores by name, in the order of `METRICS`, without those that these rows do not define.

    Raises:
        ConfigError: The task or a name is unknown, or training has diverged.
    """
    _check_task(task)
    wanted = METRICS[task] if names is None else tuple(names)
    for name in wanted:
        if name not in METRICS[task]:
            raise ConfigError(f"metric {name!r} is no score of a {task} task: {choose(name, METRICS[task])}")
    raw = np.asarray(_shaped(task, output), dtype=np.float64)
    broken = int(raw.size - np.isfinite(raw).sum())
    if broken:
        raise ConfigError(
            f"training has diverged ({broken} of {raw.size} outputs are not finite): "
            f"lower lr or set clip_norm, at every party"
        )
    if not len(truth):
        return {}
    found = _SCORERS[task](np.asarray(truth), raw)
    return {name: float(found[name]) for name in METRICS[task] if name in wanted and name in found}


def _check_task(task: str) -> None:
    if task not in _SCORERS:
        raise ConfigError(f"task = {task!r} is unknown: {choose(task, _SCORERS)}")


def _shaped(task: str, output: NDArray[Any]) -> NDArray[Any]:
    return output if task == "multiclass" else np.asarray(output).reshape(-1)


def _binary(truth: NDArray[Any], logits: NDArray[np.float64]) -> dict[str, float]:
    from sklearn import metrics

    predicted = logits > 0
    # From the logits, since a probability of exactly 0 or 1 has lost how wrong it is.
    found = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "log_loss": np.mean(np.logaddexp(0.0, logits) - truth * logits),
    }
    if truth.any() or predicted.any():
        found["f1"] = metrics.f1_score(truth, predicted, zero_division=0.0)
    if 0 < truth.sum() < len(truth):
        found["auc"] = metrics.roc_auc_score(truth, logits)
        found["average_precision"] = metrics.average_precision_score(truth, logits)
    return found


def _multiclass(truth: NDArray[Any], logits: NDArray[np.float64]) -> dict[str, float]:
    from sklearn import metrics

    predicted = logits.argmax(axis=1)
    at = truth.astype(np.int64)
    log_total = torch.logsumexp(torch.from_numpy(logits), dim=1).numpy()
    found = {
        "accuracy": metrics.accuracy_score(at, predicted),
        "macro_f1": metrics.f1_score(at, predicted, average="macro", zero_division=0.0),
        "log_loss": np.mean(log_total - logits[np.arange(len(at)), at]),
    }
    c = logits.shape[1]
    if len(np.unique(at)) == c:
        found["auc"] = _one_against_rest(at, probabilities("multiclass", logits))
    return found


def _one_against_rest(truth: NDArray[np.int64], chances: NDArray[np.float64]) -> float:
    from sklearn import metrics

    each = [metrics.roc_auc_score(truth == one, chances[:, one]) for one in range(chances.shape[1])]
    return float(np.mean(each))


def _regression(truth: NDArray[Any], values: NDArray[np.float64]) -> dict[str, float]:
    from sklearn import metrics

    found = {
        "rmse": float(np.sqrt(metrics.mean_squared_error(truth, values))),
        "mae": metrics.mean_absolute_error(truth, values),
    }
    if len(truth) > 1 and truth.min() < truth.max():
        found["r2"] = metrics.r2_score(truth, values)
    return found


_SCORERS: Final[dict[str, Callable[[NDArray[Any], NDArray[np.float64]], dict[str, float]]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}
