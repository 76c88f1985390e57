"""A party, ready to begin: its rows in the common order, its networks, and its role."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

import vfl
from parties.assembly import Assembly, PlacedSite
from vfl.config.job import Fact, Job
from vfl.config.site import Site
from vfl.data.batches import Rows
from vfl.data.features import Features, Preparation, fit_preparation, prepare
from vfl.data.rows import common_order, derive_key, digests, rows_digest, split_rows
from vfl.data.table import Table, read_table
from vfl.errors import DataError
from vfl.learn.learner import Learner, build_device
from vfl.learn.networks import build_network
from vfl.learn.optimise import build_optimizer, build_schedule
from vfl.learn.plan import Plan
from vfl.learn.scores import DEFAULT_METRIC
from vfl.rng import RngStream, derive_seed
from vfl.wire import handshake
from vfl.wire.line import Line, Role
from vfl.wire.messages import Message

DEFAULT_BOTTOM: dict[str, Any] = {"preset": "mlp", "hidden": []}
DEFAULT_TRUNK: dict[str, Any] = {"preset": "mlp", "hidden": [32]}


@dataclass(frozen=True)
class Holding:
    """Holds a party's table in the common order, with each row's split."""

    table: Table
    digests: np.ndarray
    splits: Mapping[str, np.ndarray]
    preparation: Preparation | None
    features: Features | None
    in_file: np.ndarray | None = None
    """In prediction, [n] where each row of the file, in the file's order, stands in the common order."""

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each split has."""
        return {name: len(rows) for name, rows in self.splits.items()}


@dataclass(frozen=True)
class Seat:
    """Is one party with all that it needs to begin.

    Attributes:
        name: the party.
        role: its part of the protocol.
        kinds: the messages that may be said.
        stream: its random state.
        learners: its networks by name.
        holding: its rows.
        saved: what prediction needs beside the weights; JSON.
    """

    name: str
    role: Role[Any]
    kinds: tuple[type[Message], ...]
    stream: RngStream
    learners: Mapping[str, Learner]
    holding: Holding
    saved: dict[str, Any] = field(default_factory=dict)


def hold(job: Job, placed: PlacedSite) -> Holding:
    """Reads a party's table for training, puts it in the common order and splits it.

    Raises:
        DataError: if the table, or its size against the job's batches, cannot be used.
    """
    site = placed.site
    label = site.label.column if site.label else None
    table = in_common_order(job, _read(placed, label=label, label_optional=False))
    fractions = {"valid": job.split.valid, "test": job.split.test}
    splits = split_rows(table.ids, fractions, derive_key(job.seed, "split"))
    n_train = len(splits["train"])
    if job.batch_size > n_train:
        raise DataError(
            f"job: batch_size = {job.batch_size}: {table.source} has {n_train} training rows; "
            f"choose at most {n_train}"
        )
    preparation = features = None
    if site.table.columns or site.table.categorical:
        preparation = fit_preparation(table, splits["train"], standardize=site.prepare.scale != "none")
        features = prepare(table, preparation)
    return Holding(table, order_digests(job, table), splits, preparation, features)


def hold_for_prediction(job: Job, placed: PlacedSite, preparation: Preparation | None) -> Holding:
    """Reads a party's table for prediction, where a label is welcome but not needed.

    Raises:
        DataError: if the table cannot be used.
    """
    label = placed.site.label.column if placed.site.label else None
    unordered = _read(placed, label=label, label_optional=True)
    table = in_common_order(job, unordered)
    features = prepare(table, preparation) if preparation else None
    splits = {"all": np.arange(len(table), dtype=np.int64)}
    place = {id_: number for number, id_ in enumerate(table.ids)}
    in_file = np.array([place[id_] for id_ in unordered.ids], dtype=np.int64)
    return Holding(table, order_digests(job, table), splits, preparation, features, in_file)


def in_common_order(job: Job, table: Table) -> Table:
    """Orders rows by a keyed hash of their ids, so that all parties have one order without talking."""
    return table.take(common_order(table.ids, derive_key(job.seed, "order")))


def order_digests(job: Job, table: Table) -> np.ndarray:
    """Returns [n] the keyed hash of each id."""
    return digests(table.ids, derive_key(job.seed, "mark"))


def rows_of(job: Job, holding: Holding, y: torch.Tensor | None = None) -> Rows:
    """Deals a holding's rows out in the job's batches."""
    return Rows(
        holding.digests,
        holding.splits,
        features=holding.features,
        y=y,
        batch_size=job.batch_size,
        seed=job.seed,
    )


def plan_of(job: Job) -> Plan:
    """Returns what the job says about training."""
    stopping = job.early_stopping
    return Plan(
        epochs=job.epochs,
        ahead=job.ahead,
        metric=job.metric or DEFAULT_METRIC[job.task],
        patience=stopping.patience if stopping else None,
        min_delta=stopping.min_delta if stopping else 0.0,
    )


def build_bottom(
    job: Job, placed: PlacedSite, preparation: Preparation, purpose: str = "bottom"
) -> torch.nn.Module:
    """Builds a party's bottom with the initial weights that follow from the job's seed.

    Raises:
        ConfigError: if the site's description of it cannot be used.
    """
    site, width = placed.site, job.parties[placed.site.party].width
    assert width is not None  # noqa: S101 - checked with the assembly
    with RngStream(derive_seed(job.seed, site.party, purpose)):
        return build_network(
            site.bottom or DEFAULT_BOTTOM,
            inputs=len(preparation.numeric_names),
            output=width,
            category_sizes=preparation.category_sizes,
            where=f"{site.party}.toml: bottom",
            folder=placed.folder,
        )


def learner_of(job: Job, site: Site, network: torch.nn.Module, *, training: bool = True) -> Learner:
    """Gives a network its optimiser, schedule and device.

    Raises:
        ConfigError: if one of them cannot be used here.
    """
    where = f"{site.party}.toml"
    device = build_device(site.device, where)
    network = network.to(device)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not training or not parameters:
        return Learner(network, device=device)
    optimizer = build_optimizer(parameters, site.optimizer or job.optimizer, f"{where}: optimizer")
    schedule, every = build_schedule(optimizer, site.schedule or job.schedule, f"{where}: schedule")
    return Learner(network, optimizer, schedule, every, device=device, clip_norm=job.clip_norm)


def with_handshake(
    assembly: Assembly,
    seat: Seat,
    trained_as: Mapping[str, Fact] | None = None,
    on_session: Callable[[str], None] | None = None,
) -> Seat:
    """Puts the handshake before a seat's role.

    Args:
        assembly: the job.
        seat: the party.
        trained_as: for prediction, where this party's weights come from: it must be all others' too,
            since networks of two trainings, or of two epochs, do not fit together.
        on_session: for training, is told by what name all parties know this session.
    """
    hub = assembly.hub
    peers = [peer for peer in assembly.job.parties if peer != seat.name]
    facts: dict[str, Fact] = {
        "vfl version": vfl.__version__,
        "rows": len(seat.holding.table),
        **(trained_as or {}),
        **assembly.job.facts(),
    }
    nonce = secrets.token_bytes(16)

    def digest(key: bytes) -> str:
        if on_session is not None:
            on_session(key.hex())
        return rows_digest(seat.holding.digests, key)

    async def greeted(line: Line) -> Any:  # noqa: ANN401 - what the role returns
        await handshake.greet(line, hub, peers, facts, digest, nonce)
        return await seat.role(line)

    return replace(seat, role=greeted)


def kinds_of(assembly: Assembly) -> tuple[type[Message], ...]:
    """Lists all that may be said in a session of this job."""
    return (*handshake.KINDS, *assembly.protocol.messages)


def stream_of(job: Job, site: Site, purpose: str = "training") -> RngStream:
    """Returns a party's random state."""
    return RngStream(
        derive_seed(job.seed, site.party, purpose), build_device(site.device, f"{site.party}.toml")
    )


def _read(placed: PlacedSite, *, label: str | None, label_optional: bool) -> Table:
    entry = placed.site.table
    try:
        return read_table(
            entry.source,
            folder=placed.folder,
            id_column=entry.id,
            columns=entry.columns,
            categorical=entry.categorical,
            label=label,
            label_optional=label_optional,
        )
    except DataError as error:
        raise DataError(f"{placed.site.party}.toml: table: {error}") from error
