"""The figures: accuracy by mask, and what is read of ratings and of rated items, by mask and aggregation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from outcomes import AGGREGATIONS, MASKS, Findings, Spread, mean_of

BLUE, ORANGE, GREEN, INK = "#0a64a4", "#c2500a", "#1f7a4d", "#1c1b19"
_BARS = {"plain": BLUE, "masked": ORANGE, "adaptive": GREEN}
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color", "xtick.color"), INK),
    "ytick.color": INK,
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), 11),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 11),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.8),
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "figure.dpi": 72,
    "font.family": "DejaVu Sans",
    "grid.alpha": 0.12,
    "legend.frameon": False,
}


def draw_all(findings: Findings, out: Path) -> list[Path]:
    """Draws all figures, and returns where they are."""
    drawn = {"accuracy.png": _accuracy, "ratings.png": _ratings, "rated.png": _rated}
    for name, draw in drawn.items():
        with _sheet():
            figure = Figure((880 / 72, 330 / 72), layout="constrained")
            draw(findings, figure)
            figure.savefig(out / name, dpi=144, facecolor="white", metadata={"Software": None})
    return [out / name for name in drawn]


def _accuracy(findings: Findings, figure: Figure) -> None:
    """Draws RMSE and NDCG by mask, with the yardsticks as lines."""
    looks = {
        "centralised, no mask": {"color": INK, "linestyle": "-"},
        "alone, user_mean": {"color": INK, "linestyle": (0, (1, 2))},
        "popularity": {"color": ORANGE, "linestyle": (0, (4, 2))},
        "surprise SVD, its 100 factors": {"color": GREEN, "linestyle": (0, (4, 2))},
    }
    for axes, (name, case, word) in zip(
        figure.subplots(1, 2),
        (("rmse", "organisations", "test RMSE"), ("ndcg@10", "ranks", "NDCG@10, leave one out")),
        strict=True,
    ):
        given = {"case": case} | ({"aggregation": "masked"} if case == "organisations" else {})
        found = [findings.spread(name, mask=mask, **given) for mask in MASKS]
        places, means = np.arange(len(MASKS)), mean_of(found)
        axes.errorbar(
            places, means, [one.deviation if one else 0 for one in found], fmt="o", color=BLUE, markersize=8,
            label="three organisations, masked",
        )  # fmt: skip
        for label, look in looks.items():
            line = findings.spread(name, yardstick=label)
            if line:
                axes.axhline(line.mean, linewidth=1.4, alpha=0.8, label=label, **look)
        _finish(axes, word)
    _legend(figure)


def _ratings(findings: Findings, figure: Figure) -> None:
    """Draws the best attack's R² on ratings."""
    _panels(findings, figure, "own.best", "best", "ratings read: R²", lowest=0.0)


def _rated(findings: Findings, figure: Figure) -> None:
    """Draws the AUC of telling rated items from others."""
    _panels(findings, figure, "own.auc", "auc", "rated items told: AUC", lowest=0.5)


def _panels(findings: Findings, figure: Figure, own: str, whole: str, word: str, *, lowest: float) -> None:
    """Draws bars by mask and aggregation, and marks for what the sum tells; organisations, then users."""
    for axes, case in zip(figure.subplots(1, 2, sharey=True), ("organisations", "users"), strict=True):
        parties = findings.parties(case)
        more = {"solver": "als"} if case == "users" else {}
        for place, aggregation in enumerate(AGGREGATIONS):
            found = [
                findings.spread(own, case=case, mask=mask, aggregation=aggregation, **more) for mask in MASKS
            ]
            _bars(axes, place - 1, found, aggregation, lowest)
        marks = mean_of(
            findings.spread(whole, case="sum", parties=parties, mask=mask, **more) for mask in MASKS
        )
        axes.plot(
            np.arange(len(MASKS)), marks, "D", color=INK, markersize=7, clip_on=False,
            label="the sum of all, of ratings of all" if whole == "best" else "the sum of all",
        )  # fmt: skip
        words = "three organisations" if case == "organisations" else f"{parties} users, each by itself"
        axes.set_title(words)
        axes.set_ylim(lowest - 0.02, 1.04)
        _finish(axes, word if case == "organisations" else "")
    _legend(figure)


def _bars(axes: Axes, place: int, found: list[Spread | None], label: str, lowest: float) -> None:
    # A bar for what is at chance, or below it, is a line: it is seen to be there.
    heights = [max(mean - lowest, 0.006) for mean in mean_of(found)]
    where = np.arange(len(MASKS)) + 0.27 * place
    axes.bar(where, heights, 0.25, bottom=lowest, color=_BARS[label], label=label)


def _finish(axes: Axes, word: str) -> None:
    axes.set_xticks(np.arange(len(MASKS)), MASKS)
    axes.set_xlim(-0.6, len(MASKS) - 0.4)
    axes.grid(axis="y")
    axes.set_ylabel(word)


def _legend(figure: Figure) -> None:
    found = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(len(found), 4))


@contextmanager
def _sheet() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
