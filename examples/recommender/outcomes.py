"""What the study found: means and spreads over the seeds, and the tables that say them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

MASKS = ("none", "user_mean", "bias", "content", "mf")
AGGREGATIONS = ("plain", "masked", "adaptive")
_ATTACKS = (
    "aggregation", "s a round", "MB a round", "in the clear", "rated: AUC", "precision (chance)",
    "ratings: R²", "unaided", "RMSE (mean)", "told apart",
)  # fmt: skip


class Spread(NamedTuple):
    """Is a mean over seeds, with the standard deviation, which is 0 for one seed."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


class Findings:
    """Reads the study's raw numbers."""

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        self.made_up: bool = numbers["made_up"]
        self.size: Mapping[str, int] = numbers["size"]
        self._records: list[dict[str, Any]] = numbers["records"]

    def of(self, **wanted: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - strings and numbers
        """Lists the records in which all of this is so."""
        return [one for one in self._records if all(one.get(key) == value for key, value in wanted.items())]

    def spread(self, path: str, **wanted: Any) -> Spread | None:  # noqa: ANN401
        """Gives one number's mean and spread, such as `own.best`; None where no record has it."""
        found = [value for one in self.of(**wanted) if (value := _at(one, path)) is not None]
        if not found:
            return None
        return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0)

    def parties(self, case: str) -> int:
        """Says how many participants there are."""
        return int(self.of(case=case)[0]["parties"])

    def markdown(self) -> str:
        """Writes all tables."""
        parts = [self._yardsticks(), self._organisations(), self._sums(), self._users(), self._criterion()]
        parts.append(self._paillier())
        warning = "**The ratings are made up: these are no results.**\n\n" if self.made_up else ""
        return warning + "\n\n".join("\n".join(part) for part in parts)

    def _yardsticks(self) -> Iterator[str]:
        yield "### Accuracy\n"
        yield from _head("", "test RMSE", "NDCG@10", "HR@10")
        for mask in MASKS:
            given = {"case": "organisations", "mask": mask, "aggregation": "masked"}
            ranks = [self.spread(name, case="ranks", mask=mask) for name in ("ndcg@10", "hr@10")]
            yield _row(
                f"together, masked, mask `{mask}`", _said(self.spread("rmse", **given)), *map(_said, ranks)
            )
        for name in dict.fromkeys(one["yardstick"] for one in self._records if "yardstick" in one):
            found = [self.spread(key, yardstick=name) for key in ("rmse", "ndcg@10", "hr@10")]
            yield _row(name, *map(_said, found))
        differing = [one for one in self._records if one.get("equals") is False]
        words = "all" if not differing else f"all but {len(differing)}"
        yield f"\nEqual, bit for bit, in all aggregations of one mask and seed: {words} trainings."

    def _organisations(self) -> Iterator[str]:
        yield f"### {self.parties('organisations')} organisations: cost and attack on one\n"
        yield from _head("mask", *_ATTACKS)
        for mask in MASKS:
            for aggregation in AGGREGATIONS:
                yield self._attack_row(case="organisations", mask=mask, aggregation=aggregation)

    def _attack_row(self, **given: Any) -> str:  # noqa: ANN401
        def at(path: str, digits: int = 3) -> str:
            found = self.spread(path, **given)
            return "–" if found is None else f"{found.mean:.{digits}f}"

        n_bytes, plain = self.spread("bytes", **given), self.spread("plain", **given)
        return _row(
            given["mask"],
            given["aggregation"],
            at("seconds"),
            f"{(n_bytes.mean if n_bytes else 0) / 1e6:.2f}",
            f"{plain.mean if plain else 0:g}",
            at("own.auc"),
            f"{at('own.precision')} ({at('own.chance')})",
            at("own.best"),
            at("own.unaided"),
            f"{at('own.rmse')} ({at('own.baseline')})",
            at("own.read"),
        )

    def _sums(self) -> Iterator[str]:
        yield "### What the sum of all tells, in any aggregation but paillier\n"
        yield from _head(
            "participants", "solver", "mask", "rated by a participant: AUC", "ratings of all: R²", "unaided",
            "told apart",
        )  # fmt: skip
        for case, parties in (
            ("organisations", self.parties("organisations")),
            ("users", self.size["users"]),
        ):
            for solver in ("als", "sgd") if case == "users" else (None,):
                for mask in MASKS:
                    given = {"case": "sum", "parties": parties, "mask": mask}
                    given |= {"solver": solver} if solver else {}
                    found = [self.spread(name, **given) for name in ("auc", "best", "unaided", "read")]
                    if found[0]:
                        yield _row(
                            parties, solver or "als", mask, *(f"{one.mean:.3f}" for one in found if one)
                        )

    def _users(self) -> Iterator[str]:
        users, items = self.size["users"], self.size["items"]
        yield f"### Every user a participant: {users} users, {items} movies; means over the users\n"
        yield from _head("solver", "mask", *_ATTACKS)
        for solver in ("als", "sgd"):
            for mask in MASKS:
                for aggregation in AGGREGATIONS:
                    given = {"case": "users", "solver": solver, "mask": mask, "aggregation": aggregation}
                    if self.of(**given):
                        yield f"| {solver} " + self._attack_row(**given)

    def _criterion(self) -> Iterator[str]:
        yield "### The criterion: R² of the best of its attackers, and the share of participants below\n"
        yield from _head("participants", "mask", "least", "middle", "≤ 0.5", "≤ 0.7", "≤ 0.8", "≤ 0.9")
        for parties in (self.parties("organisations"), self.size["users"]):
            for mask in MASKS:
                given = {"case": "criterion", "parties": parties, "mask": mask}
                names = ("least", "middle", *(f"below {edge}" for edge in (0.5, 0.7, 0.8, 0.9)))
                found = [self.spread(name, **given) for name in names]
                yield _row(parties, mask, *(f"{one.mean:.3f}" for one in found if one))

    def _paillier(self) -> Iterator[str]:
        yield (
            f"### Encrypted: {self.parties('paillier')} organisations, {self.size['users']} users, "
            f"{self.size['cells']} movies, two rounds\n"
        )
        yield from _head(
            "mask",
            "test RMSE",
            "equal",
            "masked, s a round",
            "paillier, s",
            "masked, MB a round",
            "paillier, MB",
        )
        for mask in MASKS:
            masked, hidden = (
                self.of(case="paillier", mask=mask, aggregation=one)[0] for one in ("masked", "paillier")
            )
            equal = "bit for bit" if hidden["equals"] else "no"
            yield _row(
                mask,
                f"{hidden['rmse']:.4f}",
                equal,
                *(f"{one['seconds']:.3f}" for one in (masked, hidden)),
                *(f"{one['bytes'] / 1e6:.3f}" for one in (masked, hidden)),
            )


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---|" * len(names)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _said(found: Spread | None) -> str:
    return "–" if found is None else str(found)


def _at(record: Mapping[str, Any], path: str) -> float | None:
    value: Any = record
    for word in [path] if path in record else path.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def mean_of(found: Iterable[Spread | None]) -> list[float]:
    """Lists means; NaN where there is none."""
    return [float("nan") if one is None else one.mean for one in found]
