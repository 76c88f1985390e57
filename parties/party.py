"""Runs one party of a job over the network, from its documents to its run folder."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from parties.aligning import (
    Opened,
    agree,
    check_enough,
    compare_rows,
    find_shared,
    in_common,
    open_rows,
    open_to_predict,
)
from parties.alone import train_alone
from parties.assembly import Assembly
from parties.events import RunJournal, Sink
from parties.feature import feature_part, feature_predictor
from parties.label import LabelPart, joint_learner, label_part, label_predictor
from parties.seat import Part, Played, Seat, kinds_of, stream_of, try_out
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
from vfl.data.gather import Shared
from vfl.errors import ConfigError, Interrupted, VflError
from vfl.journal import Journal
from vfl.learn.outcome import Outcome
from vfl.wire.line import Line
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.timing import Timing
from vfl.wire.zeromq import KeyPair, Port

T = TypeVar("T")

_FAREWELL_S = 5.0


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


def take_seat(assembly: Assembly, name: str, folder: Path, sink: Sink) -> tuple[Seat[Played], RunJournal]:
    """Makes one party ready to train, with the journal that keeps its folder.

    Where all hold the same rows its whole part is made now, so that every fault of its own is found
    before anyone waits for it; else what can be known without the others is tried out.

    Raises:
        VflError: if its documents or its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    journal = RunJournal(name, folder, sink, epochs=job.epochs, tensorboard=placed.site.log.tensorboard)

    def make(shared: Shared) -> Part:
        part = make_part(assembly, name, shared, journal, folder)
        journal.saved = {"saved": part.saved, "site_folder": str(placed.folder)}
        return part

    opened = open_rows(placed)
    made = make(in_common(job, opened)) if assembly.alignment is None else None
    if made is None:
        try_out(job, placed, opened)
        if job.parties[name].role == "label":
            joint_learner(assembly, placed)
    journal.stream = stream_of(job, placed.site)
    write_documents(folder, job, placed)

    async def role(line: Line) -> Played:
        session = await agree(line, assembly)
        journal.begin_session(session.hex())
        return await _play(
            line,
            assembly,
            session,
            made or await _made(line, assembly, opened, job.min_rows, make, sink),
            sink,
        )

    return Seat(name, role, kinds_of(assembly), journal.stream), journal


def make_part(assembly: Assembly, name: str, shared: Shared, journal: Journal, scratch: Path) -> Part:
    """Makes a party's part of a training, once the rows that all share are known.

    Raises:
        VflError: if its documents or its table cannot be used.
    """
    make = label_part if assembly.job.parties[name].role == "label" else feature_part
    return make(assembly, name, shared, journal, scratch)


async def _made(
    line: Line, assembly: Assembly, opened: Opened, least: int, make: Callable[[Shared], Part], sink: Sink
) -> Part:
    shared = await find_shared(line, assembly, opened, sink)
    check_enough(assembly.job, shared, least, opened.ids[0])
    sink({"event": "phase", "party": line.me, "phase": "reading its columns"})
    return make(shared)


async def _play(line: Line, assembly: Assembly, session: bytes, part: Part, sink: Sink) -> Played:
    await compare_rows(line, assembly, part.holding.shared, session)
    sink({"event": "started", "party": line.me, "rows": part.holding.counts})
    return Played(part, await part.role(line))


def train_party(
    assembly: Assembly, name: str, folder: Path, sink: Sink, connection: Connection
) -> dict[str, Any]:
    """Runs one party's whole training; returns its result, whole at the label party.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """
    started, clock = now(), time.perf_counter()
    journals: list[RunJournal] = []

    def take() -> tuple[Seat[Played], RunJournal]:
        seat, journal = take_seat(assembly, name, folder, sink)
        journals.append(journal)
        return seat, journal

    try:
        played = _connected(assembly, name, sink, connection, take)
        return finish(assembly, played, journals[0], started, clock)
    finally:
        for journal in journals:
            journal.close()


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
    if not isinstance(part, LabelPart) or outcome is None:
        result: dict[str, Any] = {
            "status": "finished",
            "run": assembly.job.name,
            "protocol": assembly.protocol.name,
            "parties": list(assembly.job.parties),
            "rows": part.holding.counts,
            "table_rows": {part.name: part.holding.shared.of},
            "metrics": {},
            "alone": {},
            "seconds": round(time.perf_counter() - clock, 3),
            "bytes": {part.name: traffic(ledger)},
            "report": None,
        }
        write_json(folder / RESULT_FILE, result)
        return result
    journal.phase("training alone, to compare")
    seconds = time.perf_counter() - clock
    course = Course(started, seconds, ledger, _alone(assembly, part))
    return _write_label_party(assembly, part, outcome, journal, course)


def predict_party(
    assembly: Assembly, name: str, trained: Trained, sink: Sink, connection: Connection
) -> Played:
    """Runs one party's part of a joint prediction; its result at the label party is raw outputs.

    Raises:
        VflError: as its checkpoint, its table, its peers or the network give cause.
    """
    return _connected(
        assembly, name, sink, connection, lambda: (predictor_seat(assembly, name, trained, sink), None)
    )


def predictor_seat(assembly: Assembly, name: str, trained: Trained, sink: Sink) -> Seat[Played]:
    """Makes one trained party ready to predict.

    Raises:
        VflError: as its table or its checkpoint give cause.
    """
    job, placed = assembly.job, assembly.sites[name]
    is_label = job.parties[name].role == "label"

    def make(shared: Shared) -> Part:
        return (label_predictor if is_label else feature_predictor)(assembly, name, shared, trained)

    opened = open_to_predict(placed, trained.preparation)
    made = make(in_common(job, opened)) if assembly.alignment is None else None

    async def role(line: Line) -> Played:
        session = await agree(line, assembly, trained.facts)
        return await _play(
            line, assembly, session, made or await _made(line, assembly, opened, 1, make, sink), sink
        )

    return Seat(name, role, kinds_of(assembly), stream_of(job, placed.site, "prediction"))


def align_party(assembly: Assembly, name: str, sink: Sink, connection: Connection) -> Shared:
    """Finds, with the others, the rows of a party's table that all hold, and trains nothing.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """

    def take() -> tuple[Seat[Shared], None]:
        placed = assembly.sites[name]
        opened = open_rows(placed)

        async def role(line: Line) -> Shared:
            session = await agree(line, assembly)
            shared = await find_shared(line, assembly, opened, sink)
            await compare_rows(line, assembly, shared, session)
            return shared

        return Seat(name, role, kinds_of(assembly), stream_of(assembly.job, placed.site, "alignment")), None

    return _connected(assembly, name, sink, connection, take)


def now() -> str:
    """Returns the present time as ISO text, in this machine's zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _connected(
    assembly: Assembly,
    name: str,
    sink: Sink,
    connection: Connection,
    take: Callable[[], tuple[Seat[T], RunJournal | None]],
) -> T:
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
    return perform(seat.role, link, stream=seat.stream)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.reason
    return error.reason if isinstance(error, VflError) else "failed"


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
    ids = part.holding.shared.ids[part.holding.splits["test"]].tolist()
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
