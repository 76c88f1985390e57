"""What training leaves at the party that holds the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """Holds the course and the scores of one training, with the best epoch's weights.

    Attributes:
        history: one record an epoch: epoch, loss, valid scores, seconds, best.
        best_epoch: the epoch, from 1, whose weights were kept.
        valid: its scores on the validation rows.
        test: its scores on the test rows.
        test_truth: [n] encoded labels of the test rows.
        test_output: [n, c] raw outputs for them.
        vanished: the parties that the run went on without.
        notes: sentences on what a reader of the scores should know.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    valid: dict[str, float]
    test: dict[str, float]
    test_truth: np.ndarray
    test_output: np.ndarray
    vanished: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
