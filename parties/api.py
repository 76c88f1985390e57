"""`run` as a notebook calls it; the command line calls the same."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parties.assembly import Assembly, PlacedSite, assemble, assemble_folder
from parties.events import Event, Sink
from parties.folder import Staging
from parties.local import train_in_process, train_in_processes
from parties.rated import joined
from parties.sources import with_data_at_hand
from parties.summary import (
    LEDGER_FILE,
    PREDICTIONS_FILE,
    read_json,
    write_json,
)
from parties.trained import RESULT_FILE
from vfl.config.job import Job
from vfl.config.site import Site
from vfl.errors import ConfigError


@dataclass(frozen=True)
class Result:
    """Is what a run came to.

    Attributes:
        metrics: scores by split ("valid", "test") and name.
        alone: what the label party, or each participant, reaches without partners: `kind` and `test`
            scores; where training alone failed, `kind` is "failed" and `why` says how.
        rows: how many rows, or ratings, each split has.
        predictions: the test rows' predictions, one dict a row, as in predictions.csv.
        ledger: each party's bytes, messages and waiting, by peer and phase.
        report: the report's path.
        folder: the run's folder.
        summary: the whole as JSON, what `vfl run --json` prints.
    """

    metrics: dict[str, dict[str, float]]
    alone: dict[str, Any]
    rows: dict[str, int]
    predictions: list[dict[str, str]]
    ledger: dict[str, list[dict[str, Any]]]
    report: Path
    folder: Path
    summary: dict[str, Any]


def run(
    job: str | Path | Job,
    sites: Mapping[str, Site] | None = None,
    *,
    overrides: Sequence[str] = (),
    in_process: bool = False,
    out: str | Path = "runs",
    sink: Sink | None = None,
) -> Result:
    """Runs every party of a job on this machine and returns what came of it.

    Args:
        job: a job folder, a job file with its sites beside it, or a `Job`.
        sites: with a `Job`, each party's `Site`; relative paths begin at the working folder.
        overrides: `key=value` changes, as for `vfl run --set`.
        in_process: all parties in this process instead of one each.
        out: where run folders go.
        sink: is told every event, for progress.

    Raises:
        VflError: the first failure that is a party's own; nothing is left under the run's name.
    """
    if isinstance(job, Job):
        if overrides:
            raise ConfigError(f"overrides: {overrides[0]}: is for a job folder; give the Job that value")
        placed = {name: PlacedSite(site, Path.cwd()) for name, site in (sites or {}).items()}
        assembly = assemble(job, placed)
        missing = [name for name in job.parties if name not in placed]
        if missing:
            raise ConfigError(f"sites: {missing[0]} has none; give each party of the job its Site")
    elif sites is not None:
        raise ConfigError(f"sites: {job} is a folder or file and has its own; leave them out")
    else:
        assembly = assemble_folder(Path(job), overrides)
    return run_assembly(assembly, in_process=in_process, out=Path(out), sink=sink or _ignore)


def run_assembly(assembly: Assembly, *, in_process: bool, out: Path, sink: Sink) -> Result:
    """Runs an assembled job; see `run`."""
    assembly = with_data_at_hand(assembly, sink)
    staging = Staging(out, assembly.job.name)
    try:
        folders = {name: staging.party(name) for name in assembly.job.parties}
        train = train_in_process if in_process else train_in_processes
        write_json(staging.path / RESULT_FILE, _summary(assembly, train(assembly, folders, sink)))
        folder = staging.publish()
    except BaseException as error:
        kept = staging.give_up()
        if kept is not None:
            error.add_note(f"what was trained so far is kept in {kept}")
        raise
    return load_result(folder)


def load_result(folder: Path) -> Result:
    """Reads a finished run's folder.

    Raises:
        StorageError: if it is none.
    """
    summary = read_json(folder / RESULT_FILE)
    # The file cannot know what its folder came to be called, and where it may have been moved to.
    summary |= {"run": folder.name, "report": str(folder / summary["report"])}
    parties = [name for name in summary["parties"] if (folder / name / LEDGER_FILE).is_file()]
    ledger = {name: read_json(folder / name / LEDGER_FILE) for name in parties}
    predictions: list[dict[str, str]] = []
    for table in folder.glob(f"*/{PREDICTIONS_FILE}"):
        with table.open(newline="", encoding="utf-8") as file:
            predictions = list(csv.DictReader(file))
    return Result(
        metrics=summary["metrics"],
        alone=summary["alone"],
        rows=summary["rows"],
        predictions=predictions,
        ledger=ledger,
        report=Path(summary["report"]),
        folder=folder,
        summary=summary,
    )


def _summary(assembly: Assembly, results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Joins the parties' results into the run's; paths in it begin at the run's folder."""
    reporter = assembly.reporter
    traffic = {name: result["bytes"][name] for name, result in results.items()}
    of = {name: result["table_rows"][name] for name, result in results.items()}
    counted = joined(assembly, results) if assembly.job.task == "recommendation" else {}
    return (
        results[reporter]
        | counted
        | {
            "table_rows": of,
            "bytes": traffic,
            "report": f"{reporter}/{results[reporter]['report']}",
        }
    )


def _ignore(event: Event) -> None:
    pass
