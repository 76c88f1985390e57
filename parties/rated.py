"""What a finished recommendation says of itself: the coordinator's result, and what its report shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from parties.assembly import Assembly
from parties.seat import Part, plan_of
from parties.summary import NOT_MEASURED, Course, notes_of, traffic, versions


class RatedOutcome(Protocol):
    """Is what a protocol's coordinator returns of a recommendation."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record a round."""

    @property
    def best_epoch(self) -> int:
        """The round whose factors were kept."""

    @property
    def valid(self) -> dict[str, float]:
        """The scores on all validation ratings."""

    @property
    def test(self) -> dict[str, float]:
        """The scores on all test ratings."""

    @property
    def alone(self) -> dict[str, float]:
        """Likewise, of what each participant trained alone."""

    @property
    def ratings(self) -> int:
        """How many train."""

    @property
    def vanished(self) -> tuple[str, ...]:
        """The parties that the run went on without."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what a reader of the scores should know."""


def result_of(assembly: Assembly, part: Part, outcome: RatedOutcome, course: Course) -> dict[str, Any]:
    """Returns the one JSON object that describes the run; what only participants know is added later."""
    metrics = {name: scores for name, scores in (("valid", outcome.valid), ("test", outcome.test)) if scores}
    return {
        "status": "finished",
        "run": assembly.job.name,
        "protocol": assembly.protocol.name,
        "parties": list(assembly.job.parties),
        "rows": {"train": outcome.ratings},
        "kind": "training ratings",
        "table_rows": {part.name: 0},
        "metrics": metrics,
        "alone": _alone(assembly, outcome),
        "seconds": round(course.seconds, 3),
        "bytes": {part.name: traffic(course.ledger)},
        "notes": notes_of(assembly, outcome.notes),
        "report": None,
    }


def record_of(assembly: Assembly, outcome: RatedOutcome, course: Course) -> dict[str, Any]:
    """Returns all that the report is drawn from; JSON."""
    job = assembly.job
    return {
        "run": job.name,
        "protocol": assembly.protocol.name,
        "task": job.task,
        "status": "finished",
        "seconds": course.seconds,
        "started": course.started,
        "parties": [
            {"name": name, "role": party.role, "width": None}
            for name, party in job.parties.items()
            if name not in outcome.vanished
        ],
        "rows": {"train": outcome.ratings},
        "classes": [],
        "positive": None,
        "history": outcome.history,
        "best_epoch": outcome.best_epoch,
        "score": plan_of(job).metric,
        "metrics": {"valid": outcome.valid, "test": outcome.test},
        "alone": _alone(assembly, outcome),
        "test": None,
        "learned": [{"party": who, "learns": what} for who, what in assembly.learned],
        "ledger": course.ledger.rows(),
        "versions": versions(),
        "seed": job.seed,
        "aligned": None,
        "notes": notes_of(assembly, outcome.notes),
    }


def joined(assembly: Assembly, results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds up what each participant knows of its own ratings, where all their results are here.

    Returns:
        How many ratings each split has in all, and at each participant; and how good the model is for each.
    """
    ratings = {name: results[name]["rows"] for name in assembly.holders if name in results}
    splits: Mapping[str, int] = next(iter(ratings.values()), {})
    return {
        "rows": {split: sum(counts[split] for counts in ratings.values()) for split in splits},
        "ratings": ratings,
        "own": {name: results[name]["own"] for name in ratings},
    }


def _alone(assembly: Assembly, outcome: RatedOutcome) -> dict[str, Any]:
    if not assembly.job.alone:
        return dict(NOT_MEASURED)
    if outcome.alone:
        return {"kind": "each participant", "test": outcome.alone}
    return {"kind": "failed", "test": {}, "why": "there are no test ratings, or no participant could"}
