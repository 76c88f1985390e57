"""Runs one party of a job over the network, from its documents to its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from parties.aligning import (
    Aligned,
    Opened,
    agree,
    check_enough,
    compare_rows,
    find_shared,
    in_common,
    open_rows,
    open_to_predict,
    order_in_common,
)
from parties.asking import Question, participant_predictor
from parties.assembly import Assembly, PlacedSite
from parties.coordinator import coordinator_part, coordinator_predictor
from parties.events import RunJournal, Sink, Telling
from parties.feature import feature_part, feature_predictor
from parties.finishing import finish, now
from parties.label import joint_learner, label_part, label_predictor
from parties.participant import open_ratings, participant_opening
from parties.seat import Opening, Part, Played, Seat, kinds_of, noise_of, session_of, stream_of, try_out
from parties.trained import Trained, write_documents
from vfl.config.job import Job
from vfl.data.gather import Shared
from vfl.errors import ConfigError, Interrupted, VflError
from vfl.journal import Journal
from vfl.session import Session
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


def take_seat(
    assembly: Assembly, name: str, folder: Path, sink: Sink, keys: KeyPair | None = None
) -> tuple[Seat[Played], RunJournal]:
    """Makes one party ready to train, with the journal that keeps its folder.

    Where all hold the same rows its whole part is made now, so that every fault of its own is found
    before anyone waits for it; else what can be known without the others is tried out.

    Args:
        assembly: the job and this party's site.
        name: the party.
        folder: where it keeps what it learns.
        sink: whom to tell how it goes.
        keys: its own; None for clear text.

    Raises:
        VflError: if its documents or its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    journal = RunJournal(name, folder, sink, epochs=job.epochs, tensorboard=placed.site.log.tensorboard)
    opening = _opening(assembly, name, journal, folder)
    made = _made_now(assembly, opening)
    journal.stream = stream_of(job, placed.site)
    write_documents(folder, job, placed)

    async def role(line: Line) -> Played:
        nonce = await agree(line, assembly)
        journal.begin_session(nonce.hex())
        session = replace(session_of(assembly, name, nonce, keys), noise=noise_of(job, placed.site))
        part = made or await _made(line, assembly, session, opening, sink)
        journal.saved = {"saved": part.saved, "site_folder": str(placed.folder)}
        return await _play(line, assembly, session, part, sink)

    return Seat(name, role, kinds_of(assembly), journal.stream), journal


def _opening(assembly: Assembly, name: str, journal: Journal, folder: Path) -> Opening:
    """Opens what a party trains on, as its role says."""
    job, placed = assembly.job, assembly.sites[name]
    role = job.parties[name].role
    if role == "participant":
        return participant_opening(assembly, name, journal)
    if placed.site.table is None:
        return Opening(lambda _: make_part(assembly, name, None, journal, folder))
    opened = open_rows(placed)

    def try_it() -> None:
        try_out(job, placed, opened)
        if role == "label":
            joint_learner(assembly, placed)

    return _rows_opening(
        job, opened, job.min_rows, lambda shared: make_part(assembly, name, shared, journal, folder), try_it
    )


def _rows_opening(
    job: Job,
    opened: Opened,
    least: int,
    make: Callable[[Shared], Part],
    try_it: Callable[[], None] = lambda: None,
) -> Opening:
    def make_of(places: np.ndarray | None) -> Part:
        shared = in_common(job, opened, places)
        if places is not None:
            table = opened.table.source
            check_enough(job, table, len(shared.ids), shared.of, least, opened.ids[0])
        return make(shared)

    return Opening(make_of, opened.ids, try_it)


def _made_now(assembly: Assembly, opening: Opening) -> Part | None:
    """Makes a part that needs nobody else; of one that does, tries out what can be."""
    if opening.ids is None or assembly.alignment is None:
        return opening.make(None)
    opening.try_out()
    return None


def make_part(assembly: Assembly, name: str, shared: Shared | None, journal: Journal, scratch: Path) -> Part:
    """Makes a party's part of a training, once the rows that all share are known.

    Args:
        assembly: the job and this party's site.
        name: the party.
        shared: its rows; None for a coordinator, which has none.
        journal: what to tell.
        scratch: a folder for what does not fit into memory.

    Raises:
        VflError: if its documents or its table cannot be used.
    """
    if shared is None:
        return coordinator_part(assembly, name, journal)
    make = label_part if assembly.job.parties[name].role == "label" else feature_part
    return make(assembly, name, shared, journal, scratch)


async def _made(line: Line, assembly: Assembly, session: Session, opening: Opening, sink: Sink) -> Part:
    assert opening.ids is not None  # noqa: S101 - who has nothing to look for has its part already
    places = await find_shared(line, assembly, session, opening.ids, sink)
    sink({"event": "phase", "party": line.me, "phase": "reading its table"})
    return opening.make(places)


async def _play(line: Line, assembly: Assembly, session: Session, part: Part, sink: Sink) -> Played:
    await compare_rows(line, assembly, part.marks, session, part.source)
    sink({"event": "started", "party": line.me, "rows": part.counts, "kind": part.kind})
    return Played(part, await part.role(line, session))


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
        seat, journal = take_seat(assembly, name, folder, sink, connection.keys)
        journals.append(journal)
        return seat, journal

    try:
        played = _connected(assembly, name, sink, connection, take)
        return finish(assembly, played, journals[0], started, clock)
    finally:
        for journal in journals:
            journal.close()


def predict_party(
    assembly: Assembly,
    name: str,
    trained: Trained,
    sink: Sink,
    connection: Connection,
    question: Question | None = None,
) -> Played:
    """Runs one party's part of a joint prediction; its result at the label party is raw outputs.

    Of a recommendation it is what came of the question, which one of its participants has.

    Raises:
        VflError: as its checkpoint, its table, its peers or the network give cause.
    """
    return _connected(
        assembly,
        name,
        sink,
        connection,
        lambda: (predictor_seat(assembly, name, trained, sink, connection.keys, question), None),
    )


def predictor_seat(
    assembly: Assembly,
    name: str,
    trained: Trained,
    sink: Sink,
    keys: KeyPair | None = None,
    question: Question | None = None,
) -> Seat[Played]:
    """Makes one trained party ready to predict, or to recommend: then one of them has a question.

    Raises:
        VflError: as its table or its checkpoint give cause.
    """
    job, placed = assembly.job, assembly.sites[name]
    role_name, journal = job.parties[name].role, Telling(name, sink)

    def make(shared: Shared) -> Part:
        predictor = label_predictor if role_name == "label" else feature_predictor
        return predictor(assembly, name, shared, trained, journal)

    if role_name == "participant":  # the training said whom all share
        opening = Opening(lambda _: participant_predictor(assembly, name, trained, journal, question))
    elif placed.site.table is None:
        opening = Opening(lambda _: coordinator_predictor(assembly, name, trained, journal))
    else:
        opening = _rows_opening(job, open_to_predict(placed, trained.preparation), 1, make)
    made = _made_now(assembly, opening)

    async def role(line: Line) -> Played:
        nonce = await agree(line, assembly, trained.facts)
        session = session_of(assembly, name, nonce, keys)
        part = made or await _made(line, assembly, session, opening, sink)
        return await _play(line, assembly, session, part, sink)

    return Seat(name, role, kinds_of(assembly), stream_of(job, placed.site, "prediction"))


def align_party(assembly: Assembly, name: str, sink: Sink, connection: Connection) -> Aligned | None:
    """Finds, with the others, the rows of a party's table that all hold, and trains nothing.

    Returns:
        This party's rows, or in a recommendation users or items; None for a coordinator, which has none.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """

    def take() -> tuple[Seat[Aligned | None], None]:
        placed = assembly.sites[name]
        whole = _to_align(assembly, placed)

        async def role(line: Line) -> Aligned | None:
            session = session_of(assembly, name, await agree(line, assembly), connection.keys)
            if whole is None:
                await compare_rows(line, assembly, None, session)
                return None
            places = await find_shared(line, assembly, session, whole.ids, sink)
            ids, marks, _ = order_in_common(assembly.job, whole.ids, places)
            await compare_rows(line, assembly, marks, session, whole.source)
            return replace(whole, ids=ids)

        return Seat(name, role, kinds_of(assembly), stream_of(assembly.job, placed.site, "alignment")), None

    return _connected(assembly, name, sink, connection, take)


def _to_align(assembly: Assembly, placed: PlacedSite) -> Aligned | None:
    """Reads what a party has to align, all of it."""
    site = placed.site
    if site.ratings is not None:
        return open_ratings(assembly, placed).to_align
    if site.table is None:
        return None
    opened = open_rows(placed)
    return Aligned(opened.table.source, site.rows.id, opened.ids, len(opened.ids))


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

    job = assembly.job
    timing = job.timing.model_dump() | {"reconnect_s": job.reconnect_s}
    timing["hear_s"] = max(job.timing.hear_s, job.reconnect_s)  # who waits for a lost party hears nothing
    return Link(
        port,
        name,
        assembly.hub,
        [peer for peer in assembly.job.parties if peer != name],
        kinds_of(assembly),
        timing=Timing(**timing),
        on_wait=waiting,
        on_stranger=lambda key: sink({"event": "stranger", "party": name, "key": key}),
    )
