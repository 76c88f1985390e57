"""Runs one party of a job over the network, from its documents to its run folder."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parties.assembly import Assembly
from parties.events import RunJournal, Sink
from parties.feature import feature_predictor, feature_seat
from parties.label import LabelSeat, label_predictor, label_seat, train_alone
from parties.seat import Seat, kinds_of, with_handshake
from parties.summary import (
    LEDGER_FILE,
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
from parties.trained import RESULT_FILE, Trained, write_documents
from vfl.errors import ConfigError, Interrupted, VflError
from vfl.learn.outcome import Outcome
from vfl.wire.line import Line, Role
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.timing import Timing
from vfl.wire.zeromq import KeyPair, Port

_FAREWELL_S = 2.0


@dataclass(frozen=True)
class Connection:
    """Says how a party reaches the others.

    Attributes:
        address: gives the address; it may have to wait until the hub is open.
        keys: this party's own; None for clear text.
        source: where the address is written, for errors.
    """

    address: Callable[[], str]
    keys: KeyPair | None
    source: str = "this machine"


def take_seat(assembly: Assembly, name: str, folder: Path, sink: Sink) -> tuple[Seat, RunJournal]:
    """Makes one party ready to train, with the journal that keeps its folder.

    Raises:
        VflError: if its documents or its table cannot be used.
    """
    placed = assembly.sites[name]
    journal = RunJournal(
        name, folder, sink, epochs=assembly.job.epochs, tensorboard=placed.site.log.tensorboard
    )
    make = label_seat if assembly.job.parties[name].role == "label" else feature_seat
    seat = make(assembly, name, journal)
    journal.stream = seat.stream
    journal.saved = {"saved": seat.saved, "site_folder": str(placed.folder)}
    write_documents(folder, assembly.job, placed)
    return with_handshake(assembly, seat, on_session=journal.begin_session), journal


def train_party(
    assembly: Assembly, name: str, folder: Path, sink: Sink, connection: Connection
) -> dict[str, Any]:
    """Runs one party's whole training; returns its result, whole at the label party.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """
    started, clock = now(), time.perf_counter()
    journals: list[RunJournal] = []

    def take() -> tuple[Seat, RunJournal]:
        seat, journal = take_seat(assembly, name, folder, sink)
        journals.append(journal)
        return seat, journal

    try:
        seat, outcome = _connected(assembly, name, sink, connection, take)
        return finish(assembly, seat, outcome, journals[0], started, clock)
    finally:
        for journal in journals:
            journal.close()


def finish(
    assembly: Assembly,
    seat: Seat,
    outcome: Outcome | None,
    journal: RunJournal,
    started: str,
    clock: float,
) -> dict[str, Any]:
    """Writes what a party's training leaves, and returns its result.

    Raises:
        StorageError: if something cannot be written.
    """
    folder, ledger = journal.folder, journal.ledger
    assert ledger is not None  # noqa: S101 - it was set before the role began
    journal.keep_best(seat.learners)
    write_json(folder / LEDGER_FILE, ledger.rows())
    if not isinstance(seat, LabelSeat) or outcome is None:
        result: dict[str, Any] = {
            "status": "finished",
            "run": assembly.job.name,
            "protocol": assembly.protocol.name,
            "parties": list(assembly.job.parties),
            "rows": seat.holding.counts,
            "metrics": {},
            "alone": {},
            "seconds": round(time.perf_counter() - clock, 3),
            "bytes": {seat.name: traffic(ledger)},
            "report": None,
        }
        write_json(folder / RESULT_FILE, result)
        return result
    journal.phase("training alone, to compare")
    seconds = time.perf_counter() - clock
    course = Course(started, seconds, ledger, _alone(assembly, seat))
    return _write_label_party(assembly, seat, outcome, journal, course)


def predict_party(
    assembly: Assembly, name: str, trained: Trained, sink: Sink, connection: Connection
) -> tuple[Seat, Any]:
    """Runs one party's part of a joint prediction; returns its seat and, at the label party, raw outputs.

    Raises:
        VflError: as its checkpoint, its table, its peers or the network give cause.
    """
    return _connected(
        assembly, name, sink, connection, lambda: (predictor_seat(assembly, name, trained), None)
    )


def predictor_seat(assembly: Assembly, name: str, trained: Trained) -> Seat:
    """Makes one trained party ready to predict."""
    make = label_predictor if assembly.job.parties[name].role == "label" else feature_predictor
    return with_handshake(assembly, make(assembly, name, trained), trained_as=trained.facts)


def now() -> str:
    """Returns the present time as ISO text, in this machine's zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _connected(
    assembly: Assembly,
    name: str,
    sink: Sink,
    connection: Connection,
    take: Callable[[], tuple[Seat, RunJournal | None]],
) -> tuple[Seat, Any]:
    """Takes a seat and performs its role; where the seat cannot be taken, the peers are told."""
    port: Port | None = None
    if name == assembly.hub:  # first: a port in use should be known before a large table is read
        port = _open_port(assembly, name, connection)
        sink({"event": "listening", "party": name, "address": port.address})
    try:
        seat, journal = take()
    except BaseException as error:
        with (
            suppress(VflError, KeyboardInterrupt),
            _link(assembly, name, port or _open_port(assembly, name, connection), sink) as link,
        ):
            port = None
            link.decline(_reason(error), name, _FAREWELL_S)
        if port:
            port.close(0.0)
        raise
    link = _link(assembly, name, port or _open_port(assembly, name, connection), sink)
    if journal is not None:
        journal.ledger = link.ledger
    return seat, perform(_announced(seat, sink), link, stream=seat.stream)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.reason
    return error.reason if isinstance(error, VflError) else "failed"


def _announced(seat: Seat, sink: Sink) -> Role[Any]:
    async def role(line: Line) -> Any:  # noqa: ANN401 - what the role returns
        sink({"event": "started", "party": seat.name, "rows": seat.holding.counts})
        return await seat.role(line)

    return role


def _open_port(assembly: Assembly, name: str, connection: Connection) -> Port:
    job, hub = assembly.job, assembly.hub
    keys = {
        party.public_key: peer for peer, party in job.parties.items() if party.public_key and peer != name
    }
    try:
        return Port(
            connection.address(),
            hub=name == hub,
            keys=connection.keys,
            allowed=keys,
            hub_key=job.parties[hub].public_key,
            heartbeat_s=job.timing.heartbeat_s,
        )
    except ConfigError as error:
        raise ConfigError(f"{connection.source}: {error}") from error


def _link(assembly: Assembly, name: str, port: Port, sink: Sink) -> Link:
    def waiting(names: Any, seconds: float) -> None:  # noqa: ANN401 - any sequence of names
        sink({"event": "waiting", "party": name, "for": list(names), "seconds": round(seconds, 1)})

    return Link(
        port,
        name,
        assembly.hub,
        [peer for peer in assembly.job.parties if peer != name],
        kinds_of(assembly),
        timing=Timing(**assembly.job.timing.model_dump()),
        on_wait=waiting,
        on_stranger=lambda key: sink({"event": "stranger", "party": name, "key": key}),
    )


def _alone(assembly: Assembly, seat: LabelSeat) -> dict[str, Any]:
    """Trains alone; where that fails, says why: what was trained together is finished all the same."""
    try:
        return train_alone(assembly, seat.name, seat)
    except VflError as error:
        return {"kind": "failed", "test": {}, "why": str(error)}


def _write_label_party(
    assembly: Assembly, seat: LabelSeat, outcome: Outcome, journal: RunJournal, course: Course
) -> dict[str, Any]:
    assert seat.code is not None  # noqa: S101 - a label party's seat has one
    folder, record = journal.folder, record_of(assembly, seat, outcome, course)
    write_json(folder / RECORD_FILE, record)
    journal.phase("drawing the report")
    write_report(folder, record)
    rows = seat.holding.splits["test"]
    ids = [seat.holding.table.ids[row] for row in rows]
    if ids:
        write_predictions(
            folder / PREDICTIONS_FILE, ids, seat.code, outcome.test_output, _truth(seat, outcome)
        )
    result = result_of(assembly, seat, outcome, course) | {"report": REPORT_FILE}
    write_json(folder / RESULT_FILE, result)
    return result


def _truth(seat: LabelSeat, outcome: Outcome) -> list[str]:
    assert seat.code is not None  # noqa: S101 - a label party's seat has one
    if seat.code.task == "regression":
        return [repr(float(value)) for value in outcome.test_truth]
    return [seat.code.classes[int(value)] for value in outcome.test_truth]
