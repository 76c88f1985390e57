"""What can be known before a run: rows, widths, parameters, bytes, time, and who will learn what."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parties.aligning import in_common, open_rows
from parties.assembly import Assembly, PlacedSite, is_loopback
from parties.catalogues import check_catalogues
from parties.coordinator import trunk_learner
from parties.cores import share_of_cores
from parties.label import coded_labels, joint_learner
from parties.participant import open_ratings, participant_part
from parties.seat import build_bottom, hold, learner_of, split_shared
from parties.sources import with_data_at_hand
from parties.strays import stray_sites
from vfl.data.batches import batch_sizes
from vfl.data.gather import Shared
from vfl.errors import DataError, TooFewRows
from vfl.journal import Silent
from vfl.learn.networks import parameter_count

_TRIALS: Final = 500  # about 40 ms
_UNKNOWN_STEPS: Final = 2**20  # more than any training has


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
    shared: int | None = None
    """In a recommendation: how many items or users it has that all are to share."""


@dataclass(frozen=True)
class AlignmentCost:
    """Is about what private set intersection will cost a party: time on this machine, and bytes sent."""

    seconds: float
    sent_bytes: int


@dataclass(frozen=True)
class Duration:
    """Is about how long training together takes, where every party's machine is as fast as this one.

    Attributes:
        cores: how many each party computes with.
        seconds_a_step: of as many rows as the job's batches have.
        seconds_an_epoch: with its validation; None where the rows are not known.
        seconds_in_all: for all epochs and the test rows; early stopping may end it sooner.
    """

    cores: int
    seconds_a_step: float
    seconds_an_epoch: float | None = None
    seconds_in_all: float | None = None


@dataclass(frozen=True)
class Findings:
    """Is what `vfl check` finds: of each site that is here, and of the job.

    Attributes:
        assembly: the job.
        sites: what each party that is here can know of itself.
        a_step: of how many rows a step is; in a recommendation, of how many items or users in common.
        traffic: each party's bytes.
        aligning: what it costs; None where nothing is to be aligned.
        duration: of a training; None where the protocol does not say.
    """

    assembly: Assembly
    sites: list[SiteCheck]
    a_step: int
    traffic: list[dict[str, Any]]
    aligning: AlignmentCost | None
    duration: Duration | None

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as one JSON object."""
        job = self.assembly.job
        return {
            "status": "valid",
            "run": job.name,
            "protocol": self.assembly.protocol.name,
            "align": job.align,
            "aligning": dataclasses.asdict(self.aligning) if self.aligning else None,
            "parties": [dataclasses.asdict(found) for found in self.sites],
            "traffic": self.traffic,
            "time": dataclasses.asdict(self.duration) if self.duration else None,
            "learned": dict(self.assembly.learned),
            "notes": list(self.assembly.notes),
        }


def check(assembly: Assembly) -> Findings:
    """Reads the tables that are here, and works out what the job will cost.

    Raises:
        ConfigError: if a document cannot be used.
        DataError: if a table cannot be used.
    """
    assembly = with_data_at_hand(assembly, lambda event: None)
    assembly = dataclasses.replace(assembly, notes=(*assembly.notes, *stray_sites(assembly)))
    sites = [check_site(assembly, placed) for placed in assembly.sites.values()]
    check_catalogues(assembly)
    known = [found.rows for found in sites if found.rows]  # a coordinator has none
    sizes = [sum(counts.values()) for counts in known]
    a_step, rows = assembly.job.batch_size, min(known, key=lambda counts: sum(counts.values()), default=None)
    if assembly.job.task == "recommendation":
        sizes = [found.shared for found in sites if found.shared is not None]
        a_step, rows = min(sizes, default=1), {"shared": min(sizes)} if sizes else None
    knows = rows is not None or assembly.job.task != "recommendation"  # a coordinator alone knows no size
    traffic = traffic_of(assembly, rows, a_step) if knows else []  # of the fewest: no more can be shared
    aligning = alignment_cost(assembly, sizes)
    return Findings(assembly, sites, a_step, traffic, aligning, duration_of(assembly, rows))


def check_site(assembly: Assembly, placed: PlacedSite) -> SiteCheck:
    """Reads a party's table and builds its networks, without talking to anyone.

    Raises:
        ConfigError: if its documents cannot be used.
        DataError: if its table cannot be used.
    """
    job, site = assembly.job, placed.site
    if job.task == "recommendation":
        return _check_rated(assembly, placed)
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


def _check_rated(assembly: Assembly, placed: PlacedSite) -> SiteCheck:
    """Reads a participant's ratings, and fits its mask; a coordinator has nothing to be wrong."""
    name = placed.site.party
    if placed.site.ratings is None:
        return SiteCheck(name, {}, 0, {}, [])
    opened = open_ratings(assembly, placed)
    part = participant_part(assembly, name, opened, None, Silent())
    factors = part.learners["factors"].weights()
    parameters = {f"{axis} factors": factors[axis].numel() for axis in ("own", "shared")}
    features = len(opened.catalogue.feature_names) if opened.catalogue else 0
    return SiteCheck(name, part.counts, features, parameters, [], opened.to_align.of)


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


def duration_of(assembly: Assembly, rows: Mapping[str, int] | None) -> Duration | None:
    """Measures this machine for about a second; None where the protocol does not say what a step takes."""
    measure, job = assembly.protocol.step_seconds, assembly.job
    if measure is None:
        return None
    steps = job.epochs * len(_steps(assembly, rows, "train")) if rows is not None else _UNKNOWN_STEPS
    cores = _cores_of_each(assembly)
    seconds = measure(assembly.session(assembly.hub), cores=cores, steps=steps)
    a_step = seconds(job.batch_size, True)
    if rows is None:
        return Duration(cores, a_step)
    spent = {
        split: sum(seconds(n, split == "train") for n in _steps(assembly, rows, split))
        for split in ("train", "valid", "test")
    }
    an_epoch = spent["train"] + spent["valid"]
    return Duration(cores, a_step, an_epoch, job.epochs * an_epoch + spent["test"])


def _cores_of_each(assembly: Assembly) -> int:
    """Tells how many cores a party will compute with: the least of those whose site is here."""
    job, address = assembly.job, assembly.job.parties[assembly.hub].address
    n_sites = len(assembly.sites)
    together = n_sites == len(job.parties) or (address is not None and is_loopback(address))
    share = share_of_cores(len(job.parties) if together else 1)
    return min([placed.site.threads or share for placed in assembly.sites.values()], default=share)


def traffic_of(
    assembly: Assembly, rows: Mapping[str, int] | None, a_step: int | None = None
) -> list[dict[str, Any]]:
    """Bounds each party's bytes, those of the hub last: a full step and, where rows are known, more.

    That is an epoch, with its validation, and all epochs with the test rows.

    Args:
        assembly: the job.
        rows: how many each split has, or in a recommendation how many items or users all share.
        a_step: how many of them a step has; a batch by default.
    """
    job, table = assembly.job, []
    for name, party in job.parties.items():
        if name == assembly.hub:
            continue
        sent, received = assembly.step_bytes(name, a_step or job.batch_size)
        row: dict[str, Any] = {
            "party": name,
            "width": party.width,
            "sent_a_step": sent,
            "received_a_step": received,
        }
        if rows is not None:
            train, valid, test = (
                _split_bytes(assembly, name, rows, split) for split in ("train", "valid", "test")
            )
            for way in ("sent", "received"):
                row[f"{way}_an_epoch"] = train[way] + valid[way]
                row[f"{way}_in_all"] = job.epochs * row[f"{way}_an_epoch"] + test[way]
        table.append(row)
    # What the others send the hub receives; and the other way round.
    keys = [key for key in (table[0] if table else {}) if key.startswith(("sent", "received"))]
    total = {_mirrored(key): sum(row[key] for row in table) for key in keys}
    return [*table, {"party": assembly.hub, "width": job.parties[assembly.hub].width, **total}]


def _split_bytes(assembly: Assembly, name: str, rows: Mapping[str, int], split: str) -> dict[str, int]:
    learning = split == "train"
    sizes = _steps(assembly, rows, split)
    steps = [assembly.step_bytes(name, n, learning=learning) for n in sizes]
    return {"sent": sum(sent for sent, _ in steps), "received": sum(received for _, received in steps)}


def _steps(assembly: Assembly, rows: Mapping[str, int], split: str) -> list[int]:
    """Lists the rows of each step of a split; of ratings a step is of all that is shared."""
    if assembly.job.task == "recommendation":
        return [rows["shared"]] * getattr(assembly.options, "batches", 1) if split == "train" else []
    return batch_sizes(split, rows[split], assembly.job.batch_size)


def _mirrored(key: str) -> str:
    way, _, rest = key.partition("_")
    return f"{'received' if way == 'sent' else 'sent'}_{rest}"
