"""A party, ready to begin; and its part once it knows whom it shares: rows, networks, dialogue."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from parties.aligning import Opened, check_enough
from parties.assembly import Assembly, PlacedSite
from vfl.config.job import Job
from vfl.config.site import Site
from vfl.data import gather
from vfl.data.batches import Rows
from vfl.data.gather import Shared
from vfl.data.preparation import Features, Preparation, fit_preparation
from vfl.data.rows import derive_key, split_rows
from vfl.errors import DataError, TooFewRows
from vfl.learn.learner import Learner, build_device
from vfl.learn.networks import build_network
from vfl.learn.optimise import build_optimizer, build_schedule
from vfl.learn.plan import Plan
from vfl.learn.scores import DEFAULT_METRIC
from vfl.rng import RngStream, derive_seed
from vfl.session import Session
from vfl.wire import handshake
from vfl.wire.line import Line, Role
from vfl.wire.messages import Message
from vfl.wire.zeromq import KeyPair, raw_key

T = TypeVar("T")

DEFAULT_BOTTOM: dict[str, Any] = {"preset": "mlp", "hidden": []}
DEFAULT_TRUNK: dict[str, Any] = {"preset": "mlp", "hidden": [32]}
DEFAULT_HEAD: dict[str, Any] = {"preset": "mlp", "hidden": []}

Dialogue = Callable[[Line, Session], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Seat(Generic[T]):
    """Is one party with all that it needs to begin.

    Attributes:
        name: the party.
        role: greets, finds the rows that all share, and plays this party's part.
        kinds: the messages that may be said.
        stream: its random state.
    """

    name: str
    role: Role[T]
    kinds: tuple[type[Message], ...]
    stream: RngStream


@dataclass(frozen=True)
class Holding:
    """Holds the rows of a party that all share, in the common order, with each row's split."""

    shared: Shared
    splits: Mapping[str, np.ndarray]
    preparation: Preparation | None
    features: Features | None

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each split has."""
        return {name: len(rows) for name, rows in self.splits.items()}


@dataclass(frozen=True)
class Part:
    """Is one party's part of a protocol, once its rows are known.

    Attributes:
        name: the party.
        role: its dialogue, once the session is open.
        learners: its networks by name.
        holding: its rows; None for a party that has none.
        saved: what prediction needs beside the weights; JSON.
    """

    name: str
    role: Dialogue
    learners: Mapping[str, Learner]
    holding: Holding | None
    saved: dict[str, Any] = field(default_factory=dict)

    @property
    def held(self) -> Holding:
        """The rows of a party that has columns."""
        assert self.holding is not None  # noqa: S101 - only of a party with a table is it asked
        return self.holding

    @property
    def marks(self) -> np.ndarray | None:
        """[m] The keyed hashes of what all parties hold, in order; None at a coordinator."""
        return self.holding.shared.digests if self.holding else None

    @property
    def source(self) -> str:
        """How errors call what `marks` are of."""
        return self.holding.shared.table.source if self.holding else ""

    @property
    def kind(self) -> str:
        """What is counted."""
        return "rows"

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each split has; none at a coordinator."""
        return self.holding.counts if self.holding else {}

    @property
    def table_rows(self) -> int:
        """How many rows the party's table has; 0 without one."""
        return self.holding.shared.of if self.holding else 0


@dataclass(frozen=True, eq=False)
class Opening:
    """Is what a party has at hand before it knows whom it shares.

    Attributes:
        make: makes its part, of what the others hold too: of these places among `ids`; None for all.
        ids: [n] what is looked for at the others; None at a coordinator, which has nothing.
        try_out: finds what is wrong here before others wait.
    """

    make: Callable[[np.ndarray | None], Part]
    ids: np.ndarray | None = None
    try_out: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Played:
    """Is a part that has been played, and what came of it."""

    part: Part
    result: Any


def hold(job: Job, placed: PlacedSite, shared: Shared, scratch: Path | None = None) -> Holding:
    """Splits the shared rows, and reads and prepares this party's columns for training.

    Args:
        job: the job.
        placed: the party's site.
        shared: its rows.
        scratch: a folder for what does not fit into memory.

    Raises:
        DataError: if a value, or the number of rows against the job's, cannot be used.
    """
    splits = split_shared(job, shared)
    if not placed.site.has_features:
        return Holding(shared, splits, None, None)
    with in_site(placed):
        preparation = gather.fit(shared, splits["train"], placed.site.prepare.rules_for)
        features = gather.prepare(shared, preparation, scratch)
    return Holding(shared, splits, preparation, features)


def split_shared(job: Job, shared: Shared) -> dict[str, np.ndarray]:
    """Splits the shared rows by the keyed hash of their ids.

    Raises:
        DataError: if they are too few for the job.
    """
    check_enough(job, shared.table.source, len(shared.ids), shared.of, job.min_rows)
    fractions = {"valid": job.split.valid, "test": job.split.test}
    splits = split_rows(shared.ids, fractions, derive_key(job.seed, "split"))
    n_train = len(splits["train"])
    if job.batch_size > n_train:
        raise TooFewRows(
            f"job: batch_size = {job.batch_size}: {shared.table.source} has {n_train} training rows; "
            f"choose at most {n_train}"
        )
    return splits


def hold_for_prediction(placed: PlacedSite, job: Job, shared: Shared, saved: Preparation | None) -> Holding:
    """Prepares the shared rows as in training.

    Raises:
        DataError: if a value cannot be used, or no row is shared.
    """
    check_enough(job, shared.table.source, len(shared.ids), shared.of, 1)
    splits = {"all": np.arange(len(shared.ids), dtype=np.int64)}
    if saved is None:
        return Holding(shared, splits, None, None)
    with in_site(placed):
        features = gather.prepare(shared, saved, Path(tempfile.gettempdir()))
    return Holding(shared, splits, saved, features)


def try_out(job: Job, placed: PlacedSite, opened: Opened) -> None:
    """Builds a party's bottom on the table's first rows, to find what is wrong before others wait.

    Raises:
        ConfigError: if the site's description of it cannot be used.
        DataError: if a value in the first rows cannot be read.
    """
    if not placed.site.has_features:
        return
    with in_site(placed):
        first = next(opened.table.chunks())  # what cannot be read is a fault, whoever shares the row
    rules = placed.site.prepare.rules_for
    if any(rules(name).encode == "one-hot" for name in opened.table.categorical_names):
        return  # how many columns that makes only the shared rows tell
    try:
        preparation = fit_preparation(first, rules)
    except DataError:
        return  # a row that is not shared may hold anything
    learner_of(job, placed.site, build_bottom(job, placed, preparation))


@contextmanager
def in_site(placed: PlacedSite) -> Iterator[None]:
    """Says in which site's table a fault is."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{placed.site.party}.toml: table: {error}") from error


def rows_of(
    job: Job, holding: Holding, y: torch.Tensor | None = None, features: Features | None = None
) -> Rows:
    """Deals a holding's rows out in the job's batches, with its own features unless others are given."""
    return Rows(
        holding.shared.digests,
        holding.splits,
        features=features or holding.features,
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
    with RngStream(seed_of(job, site, purpose)):
        return build_network(
            site.bottom or DEFAULT_BOTTOM,
            inputs=preparation.width,
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


def build_layers(
    assembly: Assembly, name: str, trained: Mapping[str, Mapping[str, torch.Tensor]] | None = None
) -> dict[str, Learner]:
    """Builds a party's networks that are the protocol's own, if it has any.

    Args:
        assembly: the job and this party's site.
        name: the party.
        trained: its weights by network; None for a training, which begins without.

    Raises:
        ConfigError: if the weights are of other networks.
    """
    make, job = assembly.protocol.layers, assembly.job
    if make is None:
        return {}
    with RngStream(seed_of(job, assembly.sites[name].site, "layers")):
        networks = make(assembly.options, job.parties[name].role, assembly.widths)
    layers = {layer: Learner(network) for layer, network in networks.items()}
    for layer, learner in layers.items():
        if trained is not None:
            learner.load_weights(trained.get(layer, {}))
    return layers


def given(assembly: Assembly, layers: Mapping[str, Learner]) -> dict[str, Any]:
    """Returns what a role is given of the protocol's own networks, as keywords."""
    return {} if assembly.protocol.layers is None else {"layers": layers}


def session_of(assembly: Assembly, name: str, nonce: bytes, keys: KeyPair | None) -> Session:
    """Returns a run as one of its parties sees it, once all have agreed on its name."""
    session = replace(assembly.session(name), nonce=nonce)
    if keys is None:
        return session
    listed = {party: entry.public_key for party, entry in assembly.job.parties.items()}
    members = {
        party: replace(member, identity=raw_key(key)) if (key := listed[party]) else member
        for party, member in session.members.items()
    }
    return replace(session, members=members, secret_key=raw_key(keys.secret))


def kinds_of(assembly: Assembly) -> tuple[type[Message], ...]:
    """Lists all that may be said in a session of this job."""
    aligning = assembly.alignment.messages if assembly.alignment else ()
    return (*handshake.KINDS, *aligning, *assembly.protocol.messages)


def stream_of(job: Job, site: Site, purpose: str = "training") -> RngStream:
    """Returns a party's random state."""
    return RngStream(seed_of(job, site, purpose), build_device(site.device, f"{site.party}.toml"))


def noise_of(job: Job, site: Site) -> bytes | None:
    """Returns what the noise in a party's results follows from, so that a run can be repeated bit for bit.

    Only a run whose parties all follow from the job's seed can be: one person runs them all. A party with a
    seed of its own hides what it draws from others, and draws its noise afresh.
    """
    return None if site.seed is not None else seed_of(job, site, "noise").to_bytes(8, "little")


def seed_of(job: Job, site: Site, purpose: str) -> int:
    """Returns the seed of one purpose of a party's own.

    Whoever knows it knows the party's initial weights, and from what these made of a row, much of that row.
    """
    return derive_seed(job.seed if site.seed is None else site.seed, site.party, purpose)
