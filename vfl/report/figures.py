"""Draws the figures of a report as inline SVG that takes its colours from the page around it.

One unit is one CSS pixel: a figure is as wide as half a column on a desk and as a whole column on a
telephone, so its letters have the size of a caption on both. Text stays text, set by the page in its own
font; lines and letters are drawn in stand-in colours, which `vfl.report.svg` hands over to the page. The same
numbers give the same bytes.

n stands for rows, c for classes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vfl.report.svg import ALONE, INK, PAPER, TOGETHER, for_page
from vfl.report.words import humane_score, short

#: The width of a figure in CSS pixels; two stand side by side in the page's column.
HALF_PX: Final = 352

#: More classes than this are not drawn: the picture would be too large to read.
MAX_CONFUSION_CLASSES: Final = 40

_MAX_POINTS: Final = 1500
_STEPS: Final = (1, 2, 5, 10)

_INKED: Final = (
    "text.color",
    "axes.edgecolor",
    "axes.labelcolor",
    "grid.color",
    "xtick.color",
    "ytick.color",
)
_SIZED: Final = ("font.size", "axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize")
_CLEAR: Final = ("axes.facecolor", "figure.facecolor", "savefig.facecolor")
_STYLE: Final[dict[str, Any]] = {
    **dict.fromkeys(_INKED, INK),
    **dict.fromkeys(_CLEAR, "none"),
    **dict.fromkeys(_SIZED, 11),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.8),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "figure.constrained_layout.w_pad": 3 / 72,
    "figure.constrained_layout.h_pad": 4 / 72,
    "figure.constrained_layout.hspace": 0.02,
    "figure.dpi": 72,
    "font.family": "DejaVu Sans",  # travels with matplotlib, so every machine measures alike
    "grid.alpha": 0.12,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "vfl",
    "text.parse_math": False,  # a class may be called $x$
}


class Drawing(NamedTuple):
    """A figure: its SVG element, and in words what it shows."""

    svg: str
    alt: str
    width_px: int


class Pair(NamedTuple):
    """One score, reached alone and together; either may be unknown."""

    label: str
    alone: float | None
    together: float | None


class Band(NamedTuple):
    """Scores that share an axis, with the words under that axis."""

    hint: str
    pairs: Sequence[Pair]


@contextmanager
def _sheet() -> Iterator[None]:
    """Gives matplotlib this file's style and no other, and puts the caller's back."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        # The browser has glyphs that DejaVu Sans lacks: the warning is about measuring, not drawing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        cast(Any, matplotlib.rcParams).update(_STYLE)
        yield


@_sheet()
def draw_comparison(bands: Sequence[Band]) -> Drawing:
    """Draws every score alone and together as two dots on a line, scores of one scale on one axis.

    Args:
        bands: The scores, best known first; a band without a pair is not allowed.

    Returns:
        A figure of half a column, as high as its rows need.
    """
    heights = [len(band.pairs) + 1.6 for band in bands]
    figure = _figure(HALF_PX, round(28 * sum(heights)) + 8)
    grid = figure.subplots(len(bands), 1, squeeze=False, height_ratios=heights)
    for axes, band in zip(grid[:, 0], bands, strict=True):
        _dumbbells(axes, band)
    said = [
        f"{pair.label} {humane_score(pair.alone)} alone, {humane_score(pair.together)} together"
        for band in bands
        for pair in band.pairs
    ]
    return _inline(figure, "comparison", "; ".join(said) + ".")


@_sheet()
def draw_curves(
    name: str,
    what: str,
    epochs: Sequence[int],
    valid: Sequence[float] | None = None,
    train: Sequence[float] | None = None,
    best_epoch: int | None = None,
) -> Drawing:
    """Draws a loss or a score by epoch: validation in colour, training in grey and dashed beside it.

    Args:
        name: The figure's name, unique on its page.
        what: What is drawn, as the words above the axis.
        epochs: The epochs, in order.
        valid: The value on the validation rows by epoch, NaN where there is none.
        train: The value on the training rows by epoch.
        best_epoch: The epoch whose weights were kept, marked where it is among `epochs`.

    Returns:
        A figure of half a column.
    """
    figure = _figure(HALF_PX, 232)
    axes = figure.subplots()
    axes.set(title=what, xlabel="epoch")
    ticks = MaxNLocator(6, steps=_STEPS, integer=True).tick_values(epochs[0], epochs[-1])
    axes.set_xticks([tick for tick in ticks if epochs[0] <= tick <= epochs[-1]])
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.grid(axis="y")
    marker = "o" if len(epochs) <= 12 else ""
    said = []
    for values, words, colour, alpha, dash in (
        (train, "training", INK, 0.6, "-" if valid is None else (0, (4, 2))),
        (valid, "validation", TOGETHER, 1.0, "-"),
    ):
        if values is None:
            continue
        known = _finite(values)
        axes.plot(epochs, known, color=colour, alpha=alpha, linestyle=dash, marker=marker, markersize=4)
        first, last = humane_score(known[0]), humane_score(known[-1])
        said.append(f"{words} {first} at epoch {epochs[0]}, {last} at epoch {epochs[-1]}")
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    marked = valid if valid is not None else train
    if marked is not None and best_epoch is not None and best_epoch in epochs:
        _mark_best(axes, epochs, marked, best_epoch)
        said.append(f"best epoch {best_epoch}")
    return _inline(figure, name, f"{what} by epoch: " + "; ".join(said) + ".")


@_sheet()
def draw_roc(truth: NDArray[Any], output: NDArray[Any]) -> Drawing:
    """Draws the receiver operating characteristic, with the point of threshold 0.5.

    Args:
        truth: 1 where the row is positive, else 0; both must occur. Shape [n].
        output: The probability of positive. Shape [n].

    Returns:
        A square figure of half a column.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    false_rate, true_rate, _ = roc_curve(truth, output)
    area = float(roc_auc_score(truth, output))
    chosen = output >= 0.5
    at_half = (float(chosen[truth == 0].mean()), float(chosen[truth == 1].mean()))
    figure = _figure(HALF_PX, 340)
    axes = _unit_square(figure, "false positive rate", "true positive rate")
    axes.plot(false_rate, true_rate, color=TOGETHER, clip_on=False)
    axes.plot(*at_half, "o", color=TOGETHER, markersize=6.5, clip_on=False, zorder=5)
    axes.text(0.97, 0.06, f"AUC {humane_score(area)}", ha="right", va="bottom", fontsize=15)
    alt = (
        f"ROC curve with area {area:.3f}; at threshold 0.5 the false positive rate is {at_half[0]:.3f} "
        f"and the true positive rate {at_half[1]:.3f}."
    )
    return _inline(figure, "roc", alt)


@_sheet()
def draw_calibration(truth: NDArray[Any], output: NDArray[Any]) -> Drawing:
    """Draws how often a row is positive against the probability it was given, in up to ten bins.

    Args:
        truth: 1 where the row is positive, else 0; both must occur. Shape [n].
        output: The probability of positive, in 0 to 1. Shape [n].

    Returns:
        A square figure of half a column; each dot's area follows its rows, each whisker is a 95 % interval.
    """
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    share, given = calibration_curve(truth, output, n_bins=10, strategy="uniform", pos_label=1)
    # The bins of calibration_curve, to learn how many rows stand behind each dot.
    bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], output)
    rows = np.bincount(bins, minlength=10)
    rows = rows[rows > 0]
    brier = float(brier_score_loss(truth, output, pos_label=1))
    figure = _figure(HALF_PX, 340)
    axes = _unit_square(figure, "probability given", "share that is positive")
    for x, y, n in zip(given, share, rows, strict=True):
        low, high = wilson_interval(round(float(y * n)), int(n))
        axes.plot([x, x], [low, high], color=TOGETHER, alpha=0.55, linewidth=1.4, clip_on=False)
        size = 4 + 9 * math.sqrt(n / rows.sum())
        axes.plot(x, y, "o", color=TOGETHER, markersize=size, clip_on=False)
    axes.text(0.97, 0.06, f"Brier {humane_score(brier)}", ha="right", va="bottom", fontsize=15)
    said = (f"{x:.2f} given, {y:.2f} positive ({n} rows)" for x, y, n in zip(given, share, rows, strict=True))
    return _inline(figure, "calibration", f"Calibration, Brier score {brier:.3f}: " + "; ".join(said) + ".")


@_sheet()
def draw_confusion(counts: NDArray[Any], names: Sequence[str]) -> Drawing:
    """Draws a confusion matrix with its counts, each square shaded by its share of the true class.

    Args:
        counts: Rows of true class i given class j. Shape [c, c], c at most `MAX_CONFUSION_CLASSES`.
        names: The c classes, in order.

    Returns:
        A figure half a column wide for up to 10 short-named classes; it grows with c.
    """
    c = len(names)
    labels = [short(name) for name in names]
    longest = max(map(len, labels))
    margin = max(44, 18 + 7 * longest)
    cell = max(30.0, min(64.0, (HALF_PX - margin - 8) / c))
    upright = longest * 7 > cell - 4
    head = 18 + (8 + 5.8 * longest if upright else 18)
    size = cell * c
    figure = Figure((max(HALF_PX, margin + size + 8) / 72, (head + size + 6) / 72))
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((margin / width, 6 / height, size / width, size / height))
    axes.set(xlim=(-0.5, c - 0.5), ylim=(c - 0.5, -0.5))
    _shade(axes, counts, cell)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=5)
    turned: dict[str, Any] = {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center"}
    axes.set_xticks(range(c), labels, **(turned if upright else {}))
    axes.set_yticks(range(c), labels)
    axes.spines[:].set_visible(False)
    figure.text((margin - 7) / width, 1 - 4 / height, "true ↓", ha="right", va="top", alpha=0.75)
    figure.text(margin / width, 1 - 4 / height, "predicted →", ha="left", va="top", alpha=0.75)
    right, total = int(np.trace(counts)), int(counts.sum())
    return _inline(
        figure, "confusion", f"Confusion matrix of {c} classes: {right} of {total} rows are right."
    )


@_sheet()
def draw_predictions(truth: NDArray[Any], output: NDArray[Any]) -> Drawing:
    """Draws predicted against true values, with the line on which they are equal.

    Args:
        truth: The true values. Shape [n], n at least 1.
        output: The predicted values. Shape [n].

    Returns:
        A square figure of half a column, of at most 1,500 rows taken at even distances.
    """
    some = np.linspace(0, len(truth) - 1, min(len(truth), _MAX_POINTS)).astype(np.int64)
    low, high = (float(f(f(truth), f(output))) for f in (min, max))
    slack = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    figure = _figure(HALF_PX, 340)
    axes = figure.subplots()
    axes.set(xlim=(low - slack, high + slack), ylim=(low - slack, high + slack), aspect="equal")
    axes.set(title="predicted value", xlabel="true value")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.axline((low, low), slope=1, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(truth[some], output[some], "o", color=TOGETHER, alpha=0.6, markersize=4, markeredgewidth=0)
    alt = (
        f"Predicted against true value of {len(some)} rows, from {humane_score(low)} to {humane_score(high)}."
    )
    return _inline(figure, "predictions", alt)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share by Wilson's score (1927), for `hits` of `n` rows, n > 0."""
    z2 = 1.959964**2
    middle = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _figure(width_px: int, height_px: int) -> Figure:
    return Figure((width_px / 72, height_px / 72), layout="constrained")


def _finite(values: Sequence[float]) -> NDArray[Any]:
    # A loss that ran away cannot be drawn: NaN leaves a gap.
    return np.array([value if math.isfinite(value) else math.nan for value in values], dtype=np.float64)


def _dumbbells(axes: Axes, band: Band) -> None:
    values = [v for pair in band.pairs for v in (pair.alone, pair.together) if v is not None]
    ticks = MaxNLocator(4, steps=_STEPS).tick_values(min(values), max(values))
    span = ticks[-1] - ticks[0]
    # Room on both sides for the numbers, which stand outside their dots and so never meet.
    axes.set(xlim=(ticks[0] - 0.2 * span, ticks[-1] + 0.2 * span), ylim=(len(band.pairs) - 0.4, -0.6))
    axes.set_xticks(ticks)
    axes.spines["bottom"].set_bounds(ticks[0], ticks[-1])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_yticks(range(len(band.pairs)), [short(pair.label, 18) for pair in band.pairs])
    axes.tick_params(axis="y", length=0, pad=4)
    axes.set_xlabel(band.hint, alpha=0.75)
    for y, pair in enumerate(band.pairs):
        _dumbbell(axes, y, pair)


def _dumbbell(axes: Axes, y: int, pair: Pair) -> None:
    ends = [(pair.alone, ALONE, PAPER), (pair.together, TOGETHER, TOGETHER)]
    known = [(value, edge, face) for value, edge, face in ends if value is not None]
    known.sort(key=lambda end: end[0])
    axes.plot([value for value, _, _ in known], [y] * len(known), color=INK, alpha=0.35, linewidth=1.6)
    for side, (value, edge, face) in zip((-1, 1)[-len(known) :], known, strict=True):
        axes.plot(value, y, "o", ms=8.5, mew=2, mec=edge, mfc=face)
        at: dict[str, Any] = {"ha": "left" if side > 0 else "right", "va": "center_baseline"}
        axes.annotate(humane_score(value), (value, y), (side * 9, 0), textcoords="offset points", **at)


def _mark_best(axes: Axes, epochs: Sequence[int], values: Sequence[float], best: int) -> None:
    """Draws a line at the best epoch, with its words on the side where the curve is not."""
    at = list(epochs).index(best)
    value = _finite(values)[at]
    axes.axvline(best, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (1, 2)))
    axes.plot(best, value, "o", color=axes.lines[-2].get_color(), markersize=7, zorder=5)
    low, high = axes.get_ylim()
    below = value > (low + high) / 2
    left = at > len(epochs) / 2
    foot, shift = (best, 0 if below else 1), (-5 if left else 5, 6 if below else -6)
    side: dict[str, Any] = {"ha": "right" if left else "left", "va": "bottom" if below else "top"}
    where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(f"best: epoch {best}", foot, shift, **where, **side)


def _unit_square(figure: Figure, across: str, up: str) -> Axes:
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=up, xlabel=across)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))
    return axes


def _shade(axes: Axes, counts: NDArray[Any], cell: float) -> None:
    """Fills each square of a confusion matrix: right ones in one colour, mistakes in the other."""
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # [c, c]
    gap = 1.5 / cell
    for i, j in np.ndindex(*counts.shape):
        n, share = int(counts[i, j]), float(shares[i, j])
        # The root, because mistakes are rare and still differ.
        colour, alpha = (TOGETHER, 0.1 + 0.45 * share) if i == j else (ALONE, 0.12 + 0.45 * share**0.5)
        colour, alpha = (colour, alpha) if n else (INK, 0.04)
        corner = (j - 0.5 + gap / 2, i - 0.5 + gap / 2)
        axes.add_patch(Rectangle(corner, 1 - gap, 1 - gap, facecolor=colour, alpha=alpha, linewidth=0))
        if n:
            words = str(n) if n < 10_000 else f"{n / 1000:.0f}k"
            axes.text(j, i, words, ha="center", va="center_baseline", fontsize=11 if len(words) < 4 else 9)


def _inline(figure: Figure, name: str, alt: str) -> Drawing:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    width, height = (round(side * 72) for side in figure.get_size_inches())
    return Drawing(for_page(buffer.getvalue(), name, width, height), alt, width)
