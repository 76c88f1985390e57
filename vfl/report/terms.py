"""What a report calls scores, tasks, and what is reached alone."""

from __future__ import annotations

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """A score's name, and which way it is better."""

    label: str
    better: int  # 1: higher, -1: lower, 0: nobody said


METRICS: Final = {
    "auc": Metric("AUC", 1),
    "average_precision": Metric("average precision", 1),
    "accuracy": Metric("accuracy", 1),
    "f1": Metric("F1", 1),
    "macro_f1": Metric("macro F1", 1),
    "r2": Metric("R²", 1),
    "log_loss": Metric("log loss", -1),
    "rmse": Metric("RMSE", -1),
    "mae": Metric("MAE", -1),
    "ndcg@10": Metric("NDCG@10", 1),
    "hr@10": Metric("HR@10", 1),
    "recall@10": Metric("recall@10", 1),
}

TASKS: Final = {
    "binary": "binary classification",
    "multiclass": "multi-class classification",
    "regression": "regression",
    "recommendation": "recommendation",
}

_BARE: Final = "all it can do without features of its own"

#: What the label party, or each participant, does alone: as a column's head, in the first sentence, in full.
ALONE_WORDS: Final = {
    "own features": ("alone", "alone", "with its own features alone, trained with the same settings"),
    "majority class": (
        "majority class",
        "by always naming the commonest class",
        f"by always naming the commonest class, {_BARE}",
    ),
    "mean": ("mean", "by always answering the mean", f"by always answering the mean, {_BARE}"),
    "each participant": (
        "alone",
        "where each trains alone",
        "where each participant trains on its own ratings alone, with the same settings",
    ),
}


def metric_of(key: str) -> Metric:
    """Returns a score's name and direction; one that is unknown is called what it is."""
    return METRICS.get(key, Metric(key.replace("_", " "), 0))
