"""What a party does when its training is over: it keeps the best weights and writes what came of it."""

from __future__ import annotations

import datetime
import time
from typing import Any

from parties import rated
from parties.alone import train_alone
from parties.assembly import Assembly
from parties.events import RunJournal
from parties.label import LabelPart
from parties.participant import RatingsPart
from parties.seat import Part, Played
from parties.summary import (
    LEDGER_FILE,
    NOT_MEASURED,
    PREDICTIONS_FILE,
    RECORD_FILE,
    REPORT_FILE,
    Course,
    record_of,
    result_of,
    traffic,
    write_json,
    write_predictions,
    write_report,
)
from parties.trained import RESULT_FILE
from vfl.errors import VflError
from vfl.learn.outcome import Outcome


def now() -> str:
    """Returns the present time as ISO text, in this machine's zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def finish(
    assembly: Assembly, played: Played, journal: RunJournal, started: str, clock: float
) -> dict[str, Any]:
    """Writes what a party's training leaves, and returns its result.

    Raises:
        StorageError: if something cannot be written.
    """
    part, outcome = played.part, played.result
    folder, ledger = journal.folder, journal.ledger
    assert ledger is not None  # noqa: S101 - it was set before the role began
    journal.keep_best(part.learners)
    write_json(folder / LEDGER_FILE, ledger.rows())
    if part.name != assembly.reporter or outcome is None:
        result: dict[str, Any] = {
            "status": "finished",
            "run": assembly.job.name,
            "protocol": assembly.protocol.name,
            "parties": list(assembly.job.parties),
            "rows": part.counts,
            "table_rows": {part.name: part.table_rows},
            "metrics": {},
            "own": outcome if isinstance(part, RatingsPart) else {},
            "alone": {},
            "seconds": round(time.perf_counter() - clock, 3),
            "bytes": {part.name: traffic(ledger)},
            "notes": [*assembly.notes, *journal.warnings],
            "report": None,
        }
        write_json(folder / RESULT_FILE, result)
        return result
    seconds = time.perf_counter() - clock
    if not isinstance(part, LabelPart):
        return _write_coordinator(assembly, part, outcome, journal, Course(started, seconds, ledger, {}))
    alone = dict(NOT_MEASURED)
    if assembly.job.alone:
        journal.phase("training alone, to compare")
        alone = _alone(assembly, part)
    course = Course(started, seconds, ledger, alone)
    return _write_label_party(assembly, part, outcome, journal, course)


def _write_coordinator(
    assembly: Assembly, part: Part, outcome: rated.RatedOutcome, journal: RunJournal, course: Course
) -> dict[str, Any]:
    """Writes what a recommendation leaves at the coordinator."""
    folder, record = journal.folder, rated.record_of(assembly, outcome, course)
    write_json(folder / RECORD_FILE, record)
    journal.phase("drawing the report")
    write_report(folder, record)
    result = rated.result_of(assembly, part, outcome, course) | {"report": REPORT_FILE}
    write_json(folder / RESULT_FILE, result)
    return result


def _alone(assembly: Assembly, part: LabelPart) -> dict[str, Any]:
    """Trains alone; where that fails, says why: what was trained together is finished all the same."""
    try:
        return train_alone(assembly, part.name, part)
    except VflError as error:
        return {"kind": "failed", "test": {}, "why": str(error)}


def _write_label_party(
    assembly: Assembly, part: LabelPart, outcome: Outcome, journal: RunJournal, course: Course
) -> dict[str, Any]:
    assert part.code is not None  # noqa: S101 - a label party's part has one
    folder, record = journal.folder, record_of(assembly, part, outcome, course)
    write_json(folder / RECORD_FILE, record)
    journal.phase("drawing the report")
    write_report(folder, record)
    ids = part.held.shared.ids[part.held.splits["test"]].tolist()
    if ids:
        write_predictions(
            folder / PREDICTIONS_FILE, ids, part.code, outcome.test_output, _truth(part, outcome)
        )
    result = result_of(assembly, part, outcome, course) | {"report": REPORT_FILE}
    write_json(folder / RESULT_FILE, result)
    return result


def _truth(part: LabelPart, outcome: Outcome) -> list[str]:
    assert part.code is not None  # noqa: S101 - a label party's part has one
    if part.code.task == "regression":
        return [repr(float(value)) for value in outcome.test_truth]
    return [part.code.classes[int(value)] for value in outcome.test_truth]
