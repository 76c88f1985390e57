"""Joint prediction: with all trained parties on this machine, or with this one and others elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parties.assembly import PlacedSite, assemble
from parties.display import Display
from parties.events import Sink
from parties.local import predict_in_process
from parties.seat import Played
from parties.single import run_predictor
from parties.summary import csv_text, prediction_columns, write_text
from parties.trained import JOB_FILE, RESULT_FILE, Trained, load_trained
from vfl.config.job import Job
from vfl.data.gather import Shared, read_labels
from vfl.data.labels import LabelCode, encode_labels
from vfl.errors import ConfigError, DataError, Refused
from vfl.learn.scores import score


@dataclass(frozen=True)
class Prediction:
    """Is a joint prediction.

    Attributes:
        ids: [n] in the order of the label party's file.
        output: [n, c] raw outputs of the network.
        code: what the outputs stand for.
        metrics: scores, where the label party's table has the label.
        on_trained_rows: whether these are the rows that were trained on too, so that `metrics` flatter.
        absent: the parties that vanished in training, so that nothing of theirs is in it.
        of: how many rows the label party's table has; those that not all parties hold have no prediction.
    """

    ids: list[str]
    output: np.ndarray
    code: LabelCode
    metrics: dict[str, float]
    on_trained_rows: bool = False
    of: int = 0
    absent: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Returns one dict a row: id, prediction and probabilities."""
        header, columns = prediction_columns(self.code, self.output)
        return [dict(zip(["id", *header], row, strict=True)) for row in zip(self.ids, *columns, strict=True)]

    def to_csv(self) -> str:
        """Writes the rows as CSV text."""
        header, columns = prediction_columns(self.code, self.output)
        return csv_text([["id", *header], *zip(self.ids, *columns, strict=True)])

    def write(self, path: Path) -> None:
        """Writes the rows into a CSV file.

        Raises:
            StorageError: if it cannot be written.
        """
        write_text(path, self.to_csv())


def predict(
    run: str | Path, tables: Mapping[str, str | Path] | None = None, *, sink: Sink | None = None
) -> Prediction:
    """Predicts with all trained parties of a run on this machine.

    Args:
        run: a finished run's folder that holds every party's.
        tables: for each party, the file with its new rows; by default the table that it trained on.
        sink: is told every event, for progress.

    Raises:
        ConfigError: if a party's folder is missing or a table is of nobody's.
        DataError: if a table cannot be used.
        Refused: if the parties' tables hold other rows.
    """
    parts = all_trained(Path(run))
    job = next(iter(parts.values())).job
    _check_predicts(job, Path(run))
    trained = _with_tables(parts, tables or {})
    assembly = assemble(job, {name: part.placed for name, part in trained.items()}, f"{run}: {JOB_FILE}")
    try:
        played = predict_in_process(assembly, trained, sink or (lambda event: None))
    except (Refused, DataError) as error:
        wanted = " and ".join(f"--table {name}=FILE" for name in trained if name not in (tables or {}))
        if not tables or not wanted:
            raise
        hint = f"; new rows were given for {', '.join(tables)} only: add {wanted}"
        if isinstance(error, Refused):
            raise Refused(error.peer, error.why + hint) from error
        raise DataError(str(error) + hint) from error
    return _prediction(trained[job.with_role("label")[0]], played)


def predict_here(run: Path, tables: Mapping[str, Path]) -> Prediction | None:
    """Predicts as `predict` does, or, for one party's own folder, together with the others' hosts.

    Returns:
        The prediction, or None at a party that holds no label.

    Raises:
        VflError: as for `predict`, and as the peers or the network give cause.
    """
    if not (run / JOB_FILE).is_file():
        with Display([]) as display:
            return predict(run, tables, sink=display)
    part = load_trained(run)
    _check_predicts(part.job, run)
    name = part.placed.site.party
    trained = _with_tables({name: part}, tables)[name]
    with Display([name]) as display:
        played = run_predictor(trained, display)
    return None if played.result is None else _prediction(trained, played)


def _check_predicts(job: Job, run: Path) -> None:
    if job.task == "recommendation":
        raise ConfigError(f"{run}: is a recommender: name a user, with vfl recommend {run} --user ID")


def _prediction(label: Trained, played: Played) -> Prediction:
    assert label.code is not None  # noqa: S101 - a label party saves one
    shared, output = played.part.held.shared, played.result
    rows = shared.in_table_order
    scores = _scores(shared, label.job.task, label.code, output)
    ids, trained = shared.ids[rows].tolist(), not label.has_new_rows
    return Prediction(ids, output[rows], label.code, scores, trained, shared.of, label.absent)


def _scores(shared: Shared, task: str, code: LabelCode, output: np.ndarray) -> dict[str, float]:
    """Scores a prediction where the label party's table has the label in every row."""
    if shared.table.label_name is None:
        return {}
    column = read_labels(shared, task=task)
    if not column.is_complete:
        return {}
    try:
        truth = encode_labels(column, code).numpy()
    except DataError:  # a class that training never saw can be predicted on, but not scored
        return {}
    return score(code.task, truth, output)


def _with_tables(trained: dict[str, Trained], tables: Mapping[str, str | Path]) -> dict[str, Trained]:
    for name, path in tables.items():
        if name not in trained:
            raise ConfigError(f"--table {name}={path}: {name} is no party here; known: {', '.join(trained)}")
        part = trained[name]
        if part.placed.site.table is None:
            raise ConfigError(f"--table {name}={path}: {name} is the coordinator and has no rows")
        known, source = part.placed.site.table, Path(path).resolve()
        table = known.model_copy(update={"source": str(source), "overlap": None})
        placed = PlacedSite(part.placed.site.model_copy(update={"table": table}), part.placed.folder)
        has_new_rows = source != (part.placed.folder / known.source).resolve()
        trained[name] = replace(part, placed=placed, has_new_rows=has_new_rows)
    return trained


def all_trained(folder: Path) -> dict[str, Trained]:
    """Reads back all parties of a finished run, by name, in the job's order.

    Raises:
        ConfigError: if the folder is none, or lacks a party.
        StorageError: if a checkpoint is damaged.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such run; name a folder under runs/")
    paths = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{JOB_FILE}"))}
    ended = [name for name, path in paths.items() if (path / RESULT_FILE).is_file()]
    found = {name: load_trained(paths[name]) for name in ended}
    present = next(iter(found.values())).job.parties if found else paths
    # A party that the others went on without has no result, and they are complete without it.
    found |= {
        name: load_trained(path) for name, path in paths.items() if name in present and name not in ended
    }
    if not found:
        raise ConfigError(f"{folder}: is no finished run; name runs/NAME as vfl run printed it")
    job = next(iter(found.values())).job
    missing = [name for name in job.parties if name not in found]
    if missing:
        command = "recommend" if job.task == "recommendation" else "predict"
        raise ConfigError(
            f"{folder}: holds {', '.join(found)} but not {', '.join(missing)}; every host {command}s with "
            f"its own part: vfl {command} {folder}/{next(iter(found))}"
        )
    return {name: found[name] for name in job.parties}
