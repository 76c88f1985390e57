"""What can be known before a run: rows, widths, parameters, bytes, and who will learn what."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parties.aligning import in_common, open_rows
from parties.assembly import Assembly, PlacedSite
from parties.coordinator import trunk_learner
from parties.cores import share_of_cores
from parties.label import coded_labels, joint_learner
from parties.seat import build_bottom, hold, learner_of, split_shared
from vfl.data.batches import batch_sizes
from vfl.data.gather import Shared
from vfl.errors import DataError, TooFewRows
from vfl.learn.networks import parameter_count

_TRIALS: Final = 500  # about 40 ms


@dataclass(frozen=True)
class SiteCheck:
    """Is what one party can know of itself.

    Attributes:
        party: its name.
        rows: how many rows each split has; where rows are to be aligned, at the most.
        columns: how many it brings.
        parameters: of each of its networks that can be built by now.
        warnings: faults in rows that matter only if all parties share them.
    """

    party: str
    rows: dict[str, int]
    columns: int
    parameters: dict[str, int]
    warnings: list[str]


@dataclass(frozen=True)
class AlignmentCost:
    """Is about what private set intersection will cost a party: time on this machine, and bytes sent."""

    seconds: float
    sent_bytes: int


def check_site(assembly: Assembly, placed: PlacedSite) -> SiteCheck:
    """Reads a party's table and builds its networks, without talking to anyone.

    Raises:
        ConfigError: if its documents cannot be used.
        DataError: if its table cannot be used.
    """
    job, site = assembly.job, placed.site
    if site.table is None:
        trunk = trunk_learner(assembly, placed).network
        return SiteCheck(site.party, {}, 0, {"trunk": parameter_count(trunk)}, [])
    opened = open_rows(placed)
    shared = in_common(job, opened)
    rows = _most_rows(assembly, shared)
    table = opened.table
    columns = len(table.numeric_names) + len(table.categorical_names) + len(table.date_names)
    parameters: dict[str, int] = {}
    if job.parties[site.party].role == "label":
        behind = "head" if job.with_role("coordinator") else "trunk"
        parameters[behind] = parameter_count(joint_learner(assembly, placed).network)
    warnings = []
    try:
        holding = hold(job, placed, shared, Path(tempfile.gettempdir()))
        if holding.preparation is not None:
            bottom = build_bottom(job, placed, holding.preparation)
            learner_of(job, site, bottom)
            parameters = {"bottom": parameter_count(bottom), **parameters}
        if job.parties[site.party].role == "label":
            coded_labels(job, placed, holding)
    except DataError as error:
        if assembly.alignment is None:
            raise
        warnings.append(f"{error} (of no matter unless all parties share that row)")
    return SiteCheck(site.party, rows, columns, parameters, warnings)


def _most_rows(assembly: Assembly, shared: Shared) -> dict[str, int]:
    """Counts the rows of each split as though all parties shared all of this one's."""
    if assembly.alignment is None:
        return {name: len(rows) for name, rows in split_shared(assembly.job, shared).items()}
    try:
        splits = split_shared(assembly.job.model_copy(update={"align": "given"}), shared)
    except TooFewRows as error:
        raise TooFewRows(f"{error}; and of these rows some may not be shared") from error
    return {name: len(rows) for name, rows in splits.items()}


def alignment_cost(assembly: Assembly, sizes: Sequence[int]) -> AlignmentCost | None:
    """Estimates what private set intersection costs a party, which multiplies every party's points once.

    Args:
        assembly: the job.
        sizes: how many rows each known party has; the others are taken for as large as the largest.

    Returns:
        The cost; None where rows are aligned otherwise, or no party's size is known.
    """
    if assembly.job.align != "psi" or not sizes:
        return None
    from vfl.crypto.group import POINT_BYTES, hash_to_point, multiply, random_scalar

    k = len(assembly.holders)
    points = sum(sizes) + (k - len(sizes)) * max(sizes)
    scalar, began = random_scalar(), time.perf_counter()
    for number in range(_TRIALS):
        multiply(hash_to_point(str(number), b""), scalar)
    a_point = (time.perf_counter() - began) / _TRIALS
    threads = share_of_cores(k if len(sizes) == k else 1)
    # Of k sets, every party says all but one onward, and the one that it keeps in half the bytes.
    sent = POINT_BYTES * (points - min(sizes)) + POINT_BYTES // 2 * max(sizes)
    return AlignmentCost(points * a_point / threads, sent)


def traffic_of(assembly: Assembly, rows: dict[str, int] | None) -> list[dict[str, Any]]:
    """Bounds each party's bytes, those of the hub last: a full step, and an epoch where rows are known."""
    job, table = assembly.job, []
    for name, party in job.parties.items():
        if name == assembly.hub:
            continue
        sent, received = assembly.step_bytes(name, job.batch_size)
        row: dict[str, Any] = {
            "party": name,
            "width": party.width,
            "sent_a_step": sent,
            "received_a_step": received,
        }
        if rows is not None:
            steps = [
                assembly.step_bytes(name, n) for n in batch_sizes("train", rows["train"], job.batch_size)
            ]
            steps += [
                assembly.step_bytes(name, n, learning=False)
                for n in batch_sizes("valid", rows["valid"], job.batch_size)
            ]
            row["sent_an_epoch"] = sum(sent for sent, _ in steps)
            row["received_an_epoch"] = sum(received for _, received in steps)
        table.append(row)
    # What the others send the hub receives; and the other way round.
    keys = [key for key in (table[0] if table else {}) if key.startswith(("sent", "received"))]
    total = {_mirrored(key): sum(row[key] for row in table) for key in keys}
    return [*table, {"party": assembly.hub, "width": job.parties[assembly.hub].width, **total}]


def _mirrored(key: str) -> str:
    way, _, rest = key.partition("_")
    return f"{'received' if way == 'sent' else 'sent'}_{rest}"
