"""What a finished run says of itself: each party's ledger, the label party's result, tables and report.

What a recommendation says stands in `parties.rated`.
"""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

import vfl
from parties.assembly import Assembly
from parties.label import LabelPart
from parties.seat import plan_of
from vfl.data.labels import LabelCode
from vfl.errors import StorageError
from vfl.learn.outcome import Outcome
from vfl.learn.scores import probabilities
from vfl.wire.ledger import Ledger

LEDGER_FILE, REPORT_FILE, RECORD_FILE = "ledger.json", "report.html", "record.json"
PREDICTIONS_FILE: Final = "predictions.csv"
#: In the place of scores alone, where the job asks for none.
NOT_MEASURED: Final[dict[str, Any]] = {"kind": "not measured", "test": {}}


@dataclass(frozen=True)
class Course:
    """Says how a run went beside its scores."""

    started: str
    seconds: float
    ledger: Ledger
    alone: dict[str, Any]


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - anything JSON can say
    """Writes JSON for people and programs to read.

    Raises:
        StorageError: if it cannot be written.
    """
    write_text(path, msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file.

    Raises:
        StorageError: if it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); free some space, or use --out"
        ) from error


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Writes rows as CSV, a line each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_json(path: Path) -> Any:  # noqa: ANN401 - anything JSON can say
    """Reads what `write_json` wrote.

    Raises:
        StorageError: if it is not there or damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(f"{path}: cannot be read; is this a finished run's folder?") from error


def traffic(ledger: Ledger) -> dict[str, int]:
    """Adds a party's bytes up."""
    return {"sent": ledger.sent_bytes, "received": ledger.received_bytes}


def result_of(assembly: Assembly, part: LabelPart, outcome: Outcome, course: Course) -> dict[str, Any]:
    """Returns the one JSON object that describes the run; the bytes of others are added where known."""
    metrics = {name: scores for name, scores in (("valid", outcome.valid), ("test", outcome.test)) if scores}
    return {
        "status": "finished",
        "run": assembly.job.name,
        "protocol": assembly.protocol.name,
        "parties": list(assembly.job.parties),
        "rows": part.counts,
        "table_rows": {part.name: part.table_rows},
        "metrics": metrics,
        "alone": course.alone,
        "seconds": round(course.seconds, 3),
        "bytes": {part.name: traffic(course.ledger)},
        "notes": notes_of(assembly, outcome.notes),
        "report": None,
    }


def record_of(assembly: Assembly, part: LabelPart, outcome: Outcome, course: Course) -> dict[str, Any]:
    """Returns all that the report is drawn from; JSON."""
    job = assembly.job
    has_features = part.held.features is not None
    assert part.code is not None  # noqa: S101 - a label party's part has one
    return {
        "run": job.name,
        "protocol": assembly.protocol.name,
        "task": job.task,
        "status": "finished",
        "seconds": course.seconds,
        "started": course.started,
        "parties": [
            {
                "name": name,
                "role": party.role,
                "width": party.width if party.role != "label" or has_features else None,
            }
            for name, party in job.parties.items()
            if name not in outcome.vanished
        ],
        "rows": part.counts,
        "classes": list(part.code.classes),
        "positive": part.code.positive,
        "history": outcome.history,
        "best_epoch": outcome.best_epoch,
        "score": plan_of(job).metric,
        "metrics": {"valid": outcome.valid, "test": outcome.test},
        "alone": course.alone,
        "test": _held_out(job.task, outcome),
        "learned": [{"party": who, "learns": what} for who, what in assembly.learned],
        "ledger": course.ledger.rows(),
        "versions": versions(),
        "seed": job.seed,
        "aligned": {"by": job.align, "of": part.table_rows},
        "notes": notes_of(assembly, outcome.notes),
    }


def write_report(folder: Path, record: Mapping[str, Any]) -> Path:
    """Draws the report into a folder and returns its path.

    Raises:
        StorageError: if it cannot be written.
    """
    from vfl.report.page import render_report  # drawing needs matplotlib, training does not

    page = dict(record)
    if page["test"]:
        page["test"] = {name: np.asarray(values) for name, values in page["test"].items()}
    write_text(folder / REPORT_FILE, render_report(page))  # type: ignore[arg-type]
    return folder / REPORT_FILE


def write_predictions(
    path: Path, ids: list[str], code: LabelCode, output: np.ndarray, truth: list[str] | None = None
) -> None:
    """Writes predictions as CSV: id, the prediction, a probability a class, and the truth where known.

    Raises:
        StorageError: if it cannot be written.
    """
    header, columns = prediction_columns(code, output)
    if truth is not None:
        header, columns = ["truth", *header], [truth, *columns]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", *header])
            writer.writerows(zip(ids, *columns, strict=True))
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); choose another file with --out"
        ) from error


def prediction_columns(code: LabelCode, output: np.ndarray) -> tuple[list[str], list[list[Any]]]:
    """Turns raw outputs [n, c] into named columns for people."""
    if code.task == "regression":
        return ["prediction"], [output.reshape(-1).tolist()]
    chances = probabilities(code.task, output)
    if code.task == "binary":
        positive = chances.reshape(-1)
        picked = (output.reshape(-1) > 0).astype(int)
        return ["prediction", f"p_{code.classes[1]}"], [[code.classes[i] for i in picked], positive.tolist()]
    names = [code.classes[i] for i in chances.argmax(axis=1)]
    return ["prediction", *(f"p_{name}" for name in code.classes)], [names, *chances.T.tolist()]


def notes_of(assembly: Assembly, notes: Iterable[str]) -> list[str]:
    """Says what a reader of the scores should know, each thing once for all parties."""
    if all(party.public_key for party in assembly.job.parties.values()):
        return [*assembly.notes, *notes]
    clear = "The job lists no public keys: links were in clear text, and no party could prove who it is."
    return [*assembly.notes, clear, *notes]


def versions() -> dict[str, str]:
    """Returns the versions that scores may hang on."""
    return {
        "vfl": vfl.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _held_out(task: str, outcome: Outcome) -> dict[str, Any] | None:
    if not len(outcome.test_output):
        return None
    return {"truth": outcome.test_truth.tolist(), "output": probabilities(task, outcome.test_output).tolist()}
