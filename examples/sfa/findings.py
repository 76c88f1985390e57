"""What the study found: means and spreads over the seeds, and the tables that say them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from leakage import DECODER, LEAST_SQUARES, OTHERS, OWN, TOTAL
from training import CONCAT, SFA, SUM, VARIANTS

METRICS = {"auc": "AUC", "accuracy": "accuracy"}
DATA = {"credit": "credit default", "mnist": "MNIST", "digits": "digits", "breast_cancer": "breast cancer"}

#: How many parties there are where the layers are made narrower.
NARROW_PARTIES = 3

#: What is reconstructed in each line of a figure and column of a table: the variant, and what of it.
LINES = ((CONCAT, OWN), (SUM, OWN), (SFA, TOTAL), (SFA, OTHERS), (SFA, OWN))
LINE_WORDS = {
    (CONCAT, OWN): "concat: its own embedding",
    (SUM, OWN): "sum: its own contribution",
    (SFA, OWN): "sfa: its own masked message",
    (SFA, TOTAL): "sfa: the sum of all",
    (SFA, OTHERS): "sfa: the sum without it",
}


class Spread(NamedTuple):
    """Is a mean over seeds, with the standard deviation, which is 0 for one seed."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


class Findings:
    """Reads the study's raw numbers."""

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        self.settings: dict[str, dict[str, Any]] = numbers["settings"]
        self.data = list(self.settings)
        self.metric: dict[str, str] = numbers["metric"]
        self._records: list[dict[str, Any]] = numbers["records"]
        self.parties = self._values("k")
        self.depths = self._values("depth")
        self.seeds = len(self._values("seed"))
        self.shares = sorted(
            {one["auxiliary"] for record in self._records for one in record.get("attacks", ())}
        )

    def score(
        self,
        data: str,
        variant: str,
        k: int | None = None,
        depth: int | None = None,
        width: int | None = None,
    ) -> Spread:
        """Returns a variant's test score."""
        return _spread(record["score"] for record in self._of(data, variant, k, depth, width))

    def gain(self, data: str, variant: str, k: int, depth: int) -> Spread:
        """Returns a variant's test score less the centralised one of the same seed."""
        whole = {record["seed"]: record["score"] for record in self._of(data, "centralised", None, None)}
        found = self._of(data, variant, k, depth)
        return _spread(record["score"] - whole[record["seed"]] for record in found)

    def r2(
        self,
        data: str,
        line: tuple[str, str],
        k: int,
        depth: int,
        share: float,
        attack: str = "",
        width: int | None = None,
    ) -> Spread:
        """Returns how well an attack reconstructs; without a name, each seed's better one counts."""
        variant, what = line
        best = []
        for record in self._of(data, variant, k, depth, width):
            tried = [
                one["r2"]
                for one in record["attacks"]
                if one["of"] == what and one["auxiliary"] == share and attack in ("", one["attack"])
            ]
            best.append(max(tried))
        return _spread(best)

    def markdown(self) -> str:
        """Writes all tables."""
        return "\n\n".join(f"## {DATA[name]}\n\n{self._tables(name)}" for name in self.data)

    def _tables(self, data: str) -> str:
        metric = METRICS[self.metric[data]]
        most = self.shares[-1]
        parts = [
            f"Test {metric}; centralised {self.score(data, 'centralised')}. Mean ± standard deviation over "
            f"{self.seeds} seeds.",
            self._rows(
                ["alone", *VARIANTS, "sfa − centralised"],
                lambda k, depth: [
                    self.score(data, "alone", k),
                    *(self.score(data, variant, k, depth) for variant in VARIANTS),
                    self.gain(data, SFA, k, depth),
                ],
            ),
            f"Reconstruction (R²) of the first party's columns, {most:.0%} of the rows known.",
            self._rows(
                [LINE_WORDS[line] for line in LINES],
                lambda k, depth: [_short(self.r2(data, line, k, depth, most)) for line in LINES],
            ),
            "Cut at the first layer: R² by the share of rows known, decoder / least squares.",
            self._by_share(data),
            f"Cut at the first layer, narrower networks; {NARROW_PARTIES} parties, {most:.0%} of rows known.",
            self._by_width(data, most),
            *sorted(
                {
                    note
                    for record in self._records
                    if record["data"] == data
                    for note in record.get("notes", ())
                }
            ),
        ]
        return "\n\n".join(parts)

    def _rows(self, titles: list[str], cells: Callable[[int, int], list[object]]) -> str:
        lines = [_line(["parties", "depth", *titles]), "|---" * (len(titles) + 2) + "|"]
        lines += [_line([k, depth, *cells(k, depth)]) for k in self.parties for depth in self.depths]
        return "\n".join(lines)

    def _by_share(self, data: str) -> str:
        lines = [_line(["parties", "rows known", *(LINE_WORDS[line] for line in LINES)]), "|---" * 7 + "|"]
        for k in self.parties:
            for share in self.shares:
                cells = [
                    " / ".join(
                        _signed(self.r2(data, line, k, 1, share, attack).mean)
                        for attack in (DECODER, LEAST_SQUARES)
                    )
                    for line in LINES
                ]
                lines.append(_line([k, f"{share:.0%}", *cells]))
        return "\n".join(lines)

    def _by_width(self, data: str, share: float) -> str:
        lines = [_line(["width", "score", LINE_WORDS[SFA, TOTAL], LINE_WORDS[SFA, OTHERS]]), "|---" * 4 + "|"]
        for width in (*self.settings[data]["narrow"], None):
            found = [
                _short(self.r2(data, (SFA, what), NARROW_PARTIES, 1, share, width=width))
                for what in (TOTAL, OTHERS)
            ]
            score = self.score(data, SFA, NARROW_PARTIES, 1, width)
            lines.append(_line([width or self.settings[data]["width"], score, *found]))
        return "\n".join(lines)

    def _values(self, key: str) -> list[int]:
        return sorted({record[key] for record in self._records if key in record})

    def _of(
        self, data: str, variant: str, k: int | None, depth: int | None, width: int | None = None
    ) -> list[dict[str, Any]]:
        wanted = {"data": data, "variant": variant, "k": k, "depth": depth, "width": width}
        return [one for one in self._records if all(one.get(key) == value for key, value in wanted.items())]


def _spread(values: Iterable[float]) -> Spread:
    known = list(values)
    if not known:
        return Spread(math.nan, math.nan)
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0)


def _short(spread: Spread) -> str:
    return f"{_signed(spread.mean)} ± {spread.deviation:.3f}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # never -0.000


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
