"""How long to train and which epoch to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vfl.learn.scores import greater_is_better


@dataclass(frozen=True)
class Plan:
    """Is what all parties agree on about training.

    Attributes:
        epochs: how many at the most.
        ahead: how many batches a feature party may run ahead of its gradients; 0 is exact.
        metric: the validation score that picks the best epoch.
        patience: how many epochs without a better score end training; None never does.
        min_delta: how much better counts as better.
    """

    epochs: int
    ahead: int = 0
    metric: str = "auc"
    patience: int | None = None
    min_delta: float = 0.0


class Selection:
    """Follows the validation score and tells which epoch is best and when to stop.

    Args:
        plan: what all agree on.
        after: the epoch after which it begins.
    """

    def __init__(self, plan: Plan, after: int = 0) -> None:
        self.best_epoch = 0
        self._plan, self._after = plan, after
        self._sign = 1.0 if greater_is_better(plan.metric) else -1.0
        self._best = -math.inf

    def judge(self, epoch: int, scores: Mapping[str, float]) -> bool:
        """Tells whether `epoch` (from 1) is the best so far; without a score the latest is."""
        score = scores.get(self._plan.metric)
        if score is None:
            self.best_epoch = epoch
            return True
        value = self._sign * score
        if value > self._best + (self._plan.min_delta if self.best_epoch else 0.0):
            self._best, self.best_epoch = value, epoch
            return True
        return False

    def is_over(self, epoch: int) -> bool:
        """Tells whether training ends with `epoch`."""
        waited = epoch - (self.best_epoch or self._after)
        return epoch >= self._plan.epochs or (
            self._plan.patience is not None and waited >= self._plan.patience
        )
