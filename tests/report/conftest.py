"""Records of runs that a report is made from, with real arithmetic behind their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from vfl.report.page import Record, render_report


def _blank() -> Record:
    """A run of which nothing is known but its name."""
    return Record(
        run="blank",
        protocol="splitnn",
        task="binary",
        status="finished",
        seconds=0.0,
        started="",
        parties=[],
        rows={},
        classes=[],
        positive=None,
        history=[],
        best_epoch=None,
        score="auc",
        metrics={},
        alone=None,
        test=None,
        learned=[],
        ledger=[],
        versions={},
    )


def _history(score: str, epochs: int) -> list[Any]:
    return [
        {
            "epoch": e,
            "loss": 0.7 / e + 0.05,
            "valid": {score: 1 - 0.4 / e, "log_loss": 0.7 / e + 0.1},
            "seconds": 0.25,
        }
        for e in range(1, epochs + 1)
    ]


def _binary() -> Record:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 2, 120)
    output = 1 / (1 + np.exp(-(truth * 3 - 1.5 + rng.normal(size=120))))
    record = _blank()
    record.update(
        run="breast-cancer",
        seconds=6.1034,
        started="2026-03-05T14:07:31+00:00",
        parties=[
            {"name": "mean", "role": "feature", "width": 16},
            {"name": "worst", "role": "feature", "width": 8},
            {"name": "error", "role": "label", "width": None},
        ],
        rows={"train": 341, "valid": 114, "test": 120},
        classes=["benign", "malignant"],
        positive="malignant",
        history=_history("auc", 9),
        best_epoch=7,
        metrics={
            "valid": {"auc": 0.9912345, "log_loss": 0.2},
            "test": {
                "auc": float(metrics.roc_auc_score(truth, output)),
                "accuracy": float(metrics.accuracy_score(truth, output > 0.5)),
                "log_loss": float(metrics.log_loss(truth, output)),
            },
        },
        alone={"kind": "own features", "test": {"auc": 0.8712345, "accuracy": 0.8, "log_loss": 0.45}},
        test={"truth": truth, "output": output},
        learned=[
            {"party": "error", "learns": "each embedding, row by row"},
            {"party": "onlooker", "learns": "the size and time of every message"},
        ],
        ledger=[
            {
                "peer": peer,
                "phase": phase,
                "sent_bytes": sent,
                "received_bytes": 2 * sent,
                "sent_messages": 10,
                "received_messages": 11,
                "waited_s": waited,
            }
            for peer, phase, sent, waited in (
                ("mean", "train", 812_345, 1.2331),
                ("mean", "test", 1234, 0.0),
                ("worst", "train", 512, 0.0411),
            )
        ],
        versions={"vfl": "0.1.0", "torch": "2.13.0"},
        seed=3,
    )
    return record


def _multiclass() -> Record:
    rng = np.random.default_rng(11)
    truth = rng.integers(0, 3, 90)
    output = rng.random((90, 3)) + np.eye(3)[truth] * 0.6
    record = _blank()
    record.update(
        run="iris",
        task="multiclass",
        score="accuracy",
        classes=["setosa", "versicolor", "virginica"],
        parties=[
            {"name": "a-party-with-a-very-long-name-" * 3, "role": "feature", "width": 4},
            {"name": "label", "role": "label", "width": None},
        ],
        rows={"train": 400, "valid": 90, "test": 90},
        history=_history("accuracy", 5),
        best_epoch=5,
        metrics={"test": {"accuracy": float((output.argmax(axis=1) == truth).mean())}},
        alone={"kind": "majority class", "test": {"accuracy": 1 / 3}},
        test={"truth": truth, "output": output / output.sum(axis=1, keepdims=True)},
    )
    return record


def _regression() -> Record:
    rng = np.random.default_rng(13)
    truth = rng.normal(150, 60, 80)
    record = _blank()
    record.update(
        run="diabetes",
        task="regression",
        score="rmse",
        parties=[
            {"name": "clinic", "role": "feature", "width": 8},
            {"name": "lab", "role": "label", "width": None},
        ],
        metrics={"test": {"rmse": 20.0, "mae": 16.0, "r2": 0.9}},
        alone={"kind": "mean", "test": {"rmse": 60.0, "mae": 48.0, "r2": -0.01}},
        test={"truth": truth, "output": truth + rng.normal(0, 20, 80)},
    )
    return record


@pytest.fixture
def blank() -> Record:
    return _blank()


@pytest.fixture
def binary() -> Record:
    return _binary()


@pytest.fixture
def multiclass() -> Record:
    return _multiclass()


@pytest.fixture
def regression() -> Record:
    return _regression()


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """The pages of all four records, with their figures."""
    makers = {"blank": _blank, "binary": _binary, "multiclass": _multiclass, "regression": _regression}
    return {name: render_report(make()) for name, make in makers.items()}
