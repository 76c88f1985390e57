"""The two figures: accuracy by depth of the cut, and reconstruction by depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from findings import DATA, LINE_WORDS, LINES, METRICS, Findings, Spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from training import CONCAT, SFA, SUM, VARIANTS

BLUE, ORANGE, GREEN, INK = "#0a64a4", "#c2500a", "#1f7a4d", "#1c1b19"
PANEL_PX, ROW_PX = 292, 270

# Colour, marker and dash of each line.
_LOOK: dict[Any, dict[str, Any]] = {
    CONCAT: {"color": BLUE, "marker": "o"},
    SUM: {"color": ORANGE, "marker": "s", "markersize": 8},
    SFA: {"color": GREEN, "marker": "D", "markersize": 5, "linestyle": (0, (4, 2))},
}
_SEEN: dict[tuple[str, str], dict[str, Any]] = {
    LINES[0]: _LOOK[CONCAT],
    LINES[1]: _LOOK[SUM] | {"markersize": 6},
    LINES[2]: {"color": GREEN, "marker": "^"},
    LINES[3]: {"color": INK, "alpha": 0.5, "marker": "", "linestyle": (0, (1, 2))},
    LINES[4]: _LOOK[SFA],
}
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
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


def draw_accuracy(findings: Findings, path: Path) -> None:
    """Draws each variant's score by depth, beside that of one owner of all columns."""

    def panel(axes: Axes, data: str, k: int) -> None:
        whole = findings.score(data, "centralised")
        axes.axhline(whole.mean, color=INK, alpha=0.7, linewidth=1.2, label="centralised")
        axes.axhspan(whole.mean - whole.deviation, whole.mean + whole.deviation, color=INK, alpha=0.07, lw=0)
        for place, variant in enumerate(VARIANTS):
            found = [findings.score(data, variant, k, depth) for depth in findings.depths]
            # Beside each other, since sum and sfa would else lie on each other.
            _line(axes, np.array(findings.depths) + 0.07 * (place - 1), found, variant, _LOOK[variant])
        alone = findings.score(data, "alone", k)
        axes.set_title(f"alone {alone.mean:.3f}", loc="right", alpha=0.75)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))

    words = {name: f"{DATA[name]}, test {METRICS[findings.metric[name]]}" for name in findings.data}
    _draw(findings, panel, words, path, share_rows=True)


def draw_reconstruction(findings: Findings, path: Path) -> None:
    """Draws how well the first party's columns are reconstructed by depth; the better attack counts."""
    share = findings.shares[-1]

    def panel(axes: Axes, data: str, k: int) -> None:
        axes.set(
            ylim=(-0.06, 1.06), yticks=[0, 0.25, 0.5, 0.75, 1], yticklabels=["0", "0.25", "0.5", "0.75", "1"]
        )
        axes.axhline(0, color=INK, alpha=0.7, linewidth=1.2, label="knowing nothing: the columns' means")
        for line in LINES:
            found = [findings.r2(data, line, k, depth, share) for depth in findings.depths]
            _line(axes, np.array(findings.depths), found, LINE_WORDS[line], _SEEN[line])

    words = {name: f"{DATA[name]}, R² with {share:.0%} of rows known" for name in findings.data}
    _draw(findings, panel, words, path, share_rows=True)


def _line(axes: Axes, depths: Any, found: list[Spread], label: str, look: dict[str, Any]) -> None:  # noqa: ANN401
    means = [one.mean for one in found]
    axes.plot(depths, means, label=label, clip_on=False, **({"markersize": 6} | look))
    axes.errorbar(
        depths, means, [one.deviation for one in found], fmt="none", ecolor=look["color"], alpha=0.6, lw=1.2
    )


def _draw(
    findings: Findings,
    panel: Callable[[Axes, str, int], None],
    words: dict[str, str],
    path: Path,
    *,
    share_rows: bool,
) -> None:
    """Draws a panel for each table and number of parties, with one legend below all."""
    with _sheet():
        n_rows, n_columns = len(findings.data), len(findings.parties)
        size = (PANEL_PX * n_columns / 72, (ROW_PX * n_rows + 74) / 72)
        figure = Figure(size, layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey="row" if share_rows else False)
        for row, data in enumerate(findings.data):
            for column, k in enumerate(findings.parties):
                axes = grid[row, column]
                panel(axes, data, k)
                axes.grid(axis="y")
                axes.set_xticks(findings.depths)
                axes.set_xlim(findings.depths[0] - 0.25, findings.depths[-1] + 0.25)
                axes.set_title(f"{k} parties")
                if row == n_rows - 1:
                    axes.set_xlabel("layers below the cut")
            grid[row, 0].set_ylabel(words[data])
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(3, len(labels)) if len(labels) > 4 else 4
        )
        figure.savefig(path, dpi=144, facecolor="white", metadata={"Software": None})


@contextmanager
def _sheet() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
