"""Whom do we share? A party's ids before it knows, and its rows in the common order after."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

import vfl
from parties.assembly import Assembly, PlacedSite
from parties.events import Sink
from vfl.config.job import Fact, Job
from vfl.config.load import suggestion
from vfl.data.gather import Shared
from vfl.data.preparation import Preparation
from vfl.data.rows import common_order, derive_key, digests, rows_digest
from vfl.data.table import Table, open_table
from vfl.data.text import shown
from vfl.errors import ConfigError, DataError, Refused, TooFewRows
from vfl.session import Session
from vfl.wire import handshake
from vfl.wire.handshake import NONCE_BYTES
from vfl.wire.line import Line

_TELL_EVERY_S: Final = 0.2


@dataclass(frozen=True, eq=False)
class Opened:
    """Is a party's table before the others are asked: its columns are chosen and its ids are read.

    Attributes:
        table: the table, whose other values are not yet read.
        ids: [n] canonical ids in the table's own order.
    """

    table: Table
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Aligned:
    """Is what `vfl align` finds: the ids that all parties share, in the order that they have in common.

    Attributes:
        source: the party's table.
        column: the one that names them.
        ids: [m].
        of: how many the table has.
    """

    source: str
    column: str
    ids: np.ndarray
    of: int


def open_rows(placed: PlacedSite) -> Opened:
    """Opens a party's table for training and reads its ids.

    Raises:
        ConfigError: if an exception in `prepare.columns` is of no column.
        DataError: if the table, a column or an id cannot be used.
    """
    entry = placed.site.rows
    opened = _open(placed, entry.columns, entry.categorical, entry.dates, label_optional=False)
    _check_exceptions(placed, opened.table)
    return opened


def open_to_predict(placed: PlacedSite, saved: Preparation | None) -> Opened:
    """Opens a party's table for prediction, with the columns that it was trained on, and reads its ids.

    A label is welcome but not needed.

    Raises:
        DataError: if the table, a column or an id cannot be used.
    """
    if saved is None:
        return _open(placed, (), (), (), label_optional=True)
    names = (saved.numeric_names, saved.categorical_names, saved.date_names)
    return _open(placed, *names, label_optional=True)


def _open(
    placed: PlacedSite,
    columns: Sequence[str],
    categorical: Sequence[str],
    dates: Sequence[str],
    *,
    label_optional: bool,
) -> Opened:
    site, entry = placed.site, placed.site.rows
    try:
        table = open_table(
            entry.source,
            folder=placed.folder,
            id_column=entry.id,
            columns=columns,
            categorical=categorical,
            dates=dates,
            date_format=entry.date_format,
            missing=entry.missing,
            overlap=entry.overlap,
            label=site.label.column if site.label else None,
            label_optional=label_optional,
        )
        return Opened(table, table.read_ids())
    except DataError as error:
        raise DataError(f"{site.party}.toml: table: {error}") from error


def _check_exceptions(placed: PlacedSite, table: Table) -> None:
    names = [*table.numeric_names, *table.categorical_names, *table.date_names]
    for pattern in placed.site.prepare.unmatched(names):
        known = suggestion(pattern, names) if names else "no column is asked for"
        raise ConfigError(
            f"{placed.site.party}.toml: prepare.columns.{pattern}: is no column of the table; {known}"
        )


def in_common(job: Job, opened: Opened, places: np.ndarray | None = None) -> Shared:
    """Puts rows into the order that follows from the job's seed and their ids, equal at all parties.

    Args:
        job: the job.
        opened: the party's table.
        places: [m] the rows that all share; all rows by default.
    """
    ids, marks, places = order_in_common(job, opened.ids, places)
    return Shared(opened.table, ids, places, marks, len(opened.ids))


def order_in_common(
    job: Job, ids: np.ndarray, places: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Puts ids, those at these places, into the common order: [m] ids, their keyed hashes, their places."""
    places = np.arange(len(ids), dtype=np.int64) if places is None else places
    ids = ids[places]
    order = common_order(ids, derive_key(job.seed, "order"))
    ids = ids[order]
    return ids, digests(ids, derive_key(job.seed, "mark")), places[order]


async def find_shared(
    line: Line, assembly: Assembly, session: Session, ids: np.ndarray, sink: Sink
) -> np.ndarray | None:
    """Finds, with the other parties, the ids that all of them hold.

    Returns:
        [m] their places among `ids`; None where all hold the same, as the job says.

    Raises:
        RemoteError: as a peer gives cause.
    """
    if assembly.alignment is None:
        return None
    with line.during("align"):
        places: np.ndarray = await assembly.alignment.align(
            line,
            session=session,
            hub=assembly.comparer,
            roster=sorted(assembly.holders),  # each host may list them in an order of its own
            ids=ids,
            threads=torch.get_num_threads(),
            progress=_told(sink, line.me),
        )
    return places


def check_enough(
    job: Job,
    table: str,
    found: int,
    of: int,
    least: int,
    example: object = None,
    *,
    kind: str = "rows",
    column: str = "table.id",
) -> None:
    """Refuses to go on with too few rows.

    Args:
        job: the job.
        table: how errors call this party's table.
        found: how many rows all parties hold.
        of: how many the table has.
        least: how many are wanted.
        example: one of this party's own ids, to be shown to its own user.
        kind: what is counted.
        column: the key of the site that says where the ids are.

    Raises:
        TooFewRows: if the parties share fewer than `least`.
    """
    if found >= least:
        return
    if job.align == "given":
        raise TooFewRows(
            f"{table}: has {found} {kind}, and the job wants min_rows = {least} at the least: give it more, "
            f"or lower min_rows in the job"
        )
    like = f" (here as in {shown(example)})" if example is not None else ""
    raise TooFewRows(
        f"{table}: all parties share {found} of its {of} {kind}, and {least} are wanted at the least: "
        f"see that {column} names the same kind of id at every party, written alike{like}"
        + (", or lower min_rows in the job" if found and least > 1 else "")
    )


async def agree(line: Line, assembly: Assembly, trained_as: dict[str, Fact] | None = None) -> bytes:
    """Compares the job, and for prediction the training, with all others; returns the session's nonce.

    Raises:
        RemoteError: as for `vfl.wire.handshake.agree`.
    """
    facts = {"vfl version": vfl.__version__, **(trained_as or {}), **assembly.job.facts()}
    nonce = secrets.token_bytes(NONCE_BYTES)
    return await handshake.agree(line, assembly.hub, _peers(assembly, line.me), facts, nonce)


async def compare_rows(
    line: Line, assembly: Assembly, marks: np.ndarray | None, session: Session, source: str = ""
) -> None:
    """Makes sure that all parties hold the same rows in the same order; a coordinator holds none.

    Args:
        line: this party's line.
        assembly: the job.
        marks: [m] the keyed hashes of their ids, in order; None at a coordinator.
        session: the run.
        source: where this party has them from, for errors.

    Raises:
        Refused: naming the peer whose rows are others.
    """
    peers, remedy = _peers(assembly, line.me), handshake.SAME_PEOPLE
    if assembly.shares == "items":
        mine = f" (yours is {source})" if source else ""
        remedy = f"all participants need a catalogue of the same items, in any order{mine}"
    rows = len(marks) if marks is not None else None
    digest = rows_digest(marks, session.nonce) if marks is not None else None
    try:
        await handshake.compare_rows(line, assembly.hub, peers, rows, digest, remedy)
    except Refused as error:
        if assembly.shares == "rows":
            raise
        raise Refused(error.peer, f"{assembly.shares}{error.why.removeprefix('rows')}") from error


def _peers(assembly: Assembly, name: str) -> Sequence[str]:
    return [peer for peer in assembly.job.parties if peer != name]


def _told(sink: Sink, name: str) -> Callable[[int, int], None]:
    """Passes progress on a few times a second."""
    next_at = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal next_at
        now = time.monotonic()
        if now >= next_at or done == total:
            next_at = now + _TELL_EVERY_S
            sink({"event": "align", "party": name, "done": done, "total": total})

    return tell
