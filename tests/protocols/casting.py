"""Casts a small split network: the same tables, weights and settings for every way of training it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from liars import Wrap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from protocols import splitnn
from vfl.data.batches import Batch, Rows
from vfl.data.preparation import Features
from vfl.journal import Journal, Silent
from vfl.learn.cut import CUTS, Joint, joined_width
from vfl.learn.joined import JoinedNetwork
from vfl.learn.learner import Learner
from vfl.learn.optimise import build_optimizer, build_schedule
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan, Selection
from vfl.learn.presets import MLP, Untouched
from vfl.learn.scores import DEFAULT_METRIC, loss_function, output_width, score
from vfl.rng import RngStream, derive_seed
from vfl.session import Member, Session
from vfl.wire.line import Role
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.perform import perform
from vfl.wire.rehearse import Rehearsal, rehearse
from vfl.wire.timing import Timing
from vfl.wire.zeromq import Port, make_keys

P, CATEGORIES, CLASSES = 3, 4, 3
LABEL = "label"


@dataclass(frozen=True)
class Setup:
    """Says what to train; the defaults are the plainest split network there is."""

    k: int = 2
    own: bool = True
    cut: str | Callable[[], nn.Module] = "concat"
    width: int = 4
    hidden: Sequence[int] = (5,)
    dropout: float = 0.0
    batch_norm: bool = False
    categorical: bool = False
    untouched: bool = False
    task: str = "binary"
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "Adam", "lr": 0.02})
    schedule: Mapping[str, Any] | None = None
    clip_norm: float | None = None
    epochs: int = 2
    patience: int | None = None
    ahead: int = 0
    batch_size: int = 8
    n: Mapping[str, int] = field(default_factory=lambda: {"train": 27, "valid": 12, "test": 9})
    seed: int = 3

    @property
    def features(self) -> list[str]:
        return [f"party{place}" for place in range(self.k)]

    @property
    def contributors(self) -> dict[str, int]:
        return dict.fromkeys(self.features, self.width)

    def session(self, me: str) -> Session:
        members = {name: Member("feature", self.width) for name in self.features}
        return Session(me, LABEL, members | {LABEL: Member("label", self.width if self.own else None)})

    @property
    def plan(self) -> Plan:
        return Plan(self.epochs, self.ahead, DEFAULT_METRIC[self.task], self.patience)


@dataclass
class Cast:
    """Is everybody of one setup, ready to begin: networks with optimisers, rows, random streams."""

    setup: Setup
    learners: dict[str, Learner]
    rows: dict[str, Rows]
    streams: dict[str, RngStream]

    def role(self, name: str, journal: Journal | None = None) -> Role[Any]:
        setup, rows = self.setup, self.rows[name]
        common: dict[str, Any] = {"rows": rows, "plan": setup.plan, "journal": journal or Silent()}
        common["session"] = setup.session(name)
        if name != LABEL:
            return lambda line: splitnn.feature_party(line, bottom=self.learners[name], **common)
        return lambda line: splitnn.label_party(
            line,
            own=self.learners.get("own"),
            joint=self.learners["joint"],
            task=setup.task,
            **common,
        )

    def roles(self) -> dict[str, Role[Any]]:
        return {name: self.role(name) for name in [*self.setup.features, LABEL]}

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {name: learner.weights() for name, learner in self.learners.items()}


@dataclass(frozen=True)
class Trained:
    """Is what came of a training, however it was run."""

    weights: dict[str, dict[str, Tensor]]
    losses: list[float]
    valid: list[dict[str, float]]
    best_epoch: int
    test: dict[str, float]
    output: np.ndarray


def cast(setup: Setup) -> Cast:
    """Makes everybody anew; two casts of one setup are equal."""
    names = [*setup.features, LABEL]
    rng = np.random.default_rng(setup.seed)
    n = sum(setup.n.values())
    bounds = np.cumsum([0, *setup.n.values()])
    splits = {
        name: np.arange(start, stop) for name, start, stop in zip(setup.n, bounds, bounds[1:], strict=False)
    }
    digests = rng.integers(0, 2**63, n).astype(np.uint64)
    columns = {name: rng.normal(size=(n, P)).astype(np.float32) for name in names}
    codes = {name: torch.from_numpy(rng.integers(0, CATEGORIES + 1, (n, 2))) for name in names}
    y = labels(setup.task, np.sum([x[:, 0] for x in columns.values()], axis=0))

    def rows(name: str) -> Rows:
        features = Features(torch.from_numpy(columns[name]), codes[name] if setup.categorical else None)
        return Rows(
            digests,
            splits,
            features=features if name != LABEL or setup.own else None,
            y=y if name == LABEL else None,
            batch_size=setup.batch_size,
            seed=setup.seed,
        )

    networks = build_networks(setup)
    return Cast(
        setup,
        {name: learner(setup, network) for name, network in networks.items()},
        {name: rows(name) for name in names},
        {name: RngStream(derive_seed(setup.seed, name)) for name in names},
    )


def labels(task: str, signal: NDArray[np.float32]) -> Tensor:
    if task == "regression":
        return torch.from_numpy(np.asarray(signal, dtype=np.float32))
    if task == "binary":
        return torch.from_numpy((signal > 0).astype(np.float32))
    return torch.from_numpy(np.digitize(signal, [-0.7, 0.7]).astype(np.int64))


def build_networks(setup: Setup) -> dict[str, nn.Module]:
    with RngStream(setup.seed):
        networks: dict[str, nn.Module] = {name: bottom(setup) for name in setup.features}
        if setup.own:
            networks["own"] = bottom(setup)
        cut = setup.cut if isinstance(setup.cut, str) else setup.cut()
        widths = setup.contributors | ({LABEL: setup.width} if setup.own else {})
        top = MLP(
            joined_width(cut, widths),
            output_width(setup.task, CLASSES),
            [6],
            dropout=setup.dropout,
            batch_norm=setup.batch_norm,
        )
        networks["joint"] = Joint(cut, top)
    return networks


def bottom(setup: Setup) -> nn.Module:
    if setup.untouched:
        return Untouched(P, setup.width)
    tables = [(CATEGORIES, 2), (CATEGORIES, 1)] if setup.categorical else []
    return MLP(
        P,
        setup.width,
        list(setup.hidden),
        dropout=setup.dropout,
        batch_norm=setup.batch_norm,
        embeddings=tables,
    )


def learner(setup: Setup, network: nn.Module) -> Learner:
    optimizer = build_optimizer(network.parameters(), setup.optimizer, "test")
    schedule, every = build_schedule(optimizer, setup.schedule, "test")
    return Learner(network, optimizer, schedule, every, clip_norm=setup.clip_norm)


def play(setup: Setup, **liars: Wrap) -> tuple[Rehearsal, Cast]:
    """Trains in memory; `liars` wrap the roles of the parties that they are named after."""
    company = cast(setup)
    roles = {name: liars[name](role) if name in liars else role for name, role in company.roles().items()}
    return rehearse(roles, splitnn.MESSAGES, streams=company.streams), company


def train_split(setup: Setup) -> Trained:
    rehearsal, company = play(setup)
    return trained(company, rehearsal.results[LABEL])


def trained(company: Cast, outcome: Outcome) -> Trained:
    return Trained(
        company.weights(),
        [record["loss"] for record in outcome.history],
        [record["valid"] for record in outcome.history],
        outcome.best_epoch,
        outcome.test,
        outcome.test_output,
    )


def train_joined(setup: Setup) -> Trained:
    """Trains the one-process network: plain autograd, one optimiser a part, nothing sent anywhere."""
    company = cast(setup)
    parts = {name: learner.network for name, learner in company.learners.items()}
    steppers = [_Stepper(setup, part) for part in parts.values()]
    joint = parts["joint"]
    assert isinstance(joint, Joint)
    bottoms = {name: parts[name] for name in setup.features} | ({LABEL: parts["own"]} if setup.own else {})
    network = JoinedNetwork(
        bottoms,
        joint.cut or CUTS[str(setup.cut)],
        joint.trunk,
        company.streams,
        trunk_party=LABEL,
    )
    selection, best = Selection(setup.plan), copy.deepcopy(network.state_dict())
    losses, valid = [], []
    loss_of = loss_function(setup.task)
    for epoch in range(1, setup.epochs + 1):
        network.train()
        total = 0.0
        for batches in _together(company, "train", epoch):
            target = batches[LABEL].y
            assert target is not None
            loss = loss_of(network({name: batches[name].inputs for name in bottoms}), target)
            torch.autograd.backward(loss)
            for stepper in steppers:
                stepper.step()
            total += loss.item() * batches[LABEL].rows
        for stepper in steppers:
            stepper.end_epoch()
        losses.append(total / setup.n["train"])
        output = _outputs(network, bottoms, company, "valid")
        valid.append(score(setup.task, company.rows[LABEL].truth("valid"), output) if len(output) else {})
        if selection.judge(epoch, valid[-1]):
            best = copy.deepcopy(network.state_dict())
        if selection.is_over(epoch):
            break
    network.load_state_dict(best)
    output = _outputs(network, bottoms, company, "test")
    test = score(setup.task, company.rows[LABEL].truth("test"), output) if len(output) else {}
    return Trained(company.weights(), losses, valid, selection.best_epoch, test, output)


def assert_same(one: Trained, other: Trained) -> None:
    """Compares two trainings bit for bit."""
    assert one.losses == other.losses
    assert one.valid == other.valid
    assert (one.best_epoch, one.test) == (other.best_epoch, other.test)
    assert one.output.tobytes() == other.output.tobytes()
    assert_same_weights(one.weights, other.weights)


def assert_same_weights(
    one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]]
) -> None:
    assert one.keys() == other.keys()
    for part, weights in one.items():
        assert weights.keys() == other[part].keys()
        for name, weight in weights.items():
            assert torch.equal(weight, other[part][name]), (part, name)


def train_over_network(setup: Setup, *, curve: bool) -> Trained:
    """Trains over ZeroMQ on loopback, one thread a party, in clear text or with CURVE.

    Threads share torch's random state, so the setup must draw nothing.
    """
    company = cast(setup)
    results = over_network(company.roles(), splitnn.MESSAGES, hub=LABEL, curve=curve)
    return trained(company, results[LABEL])


def over_network(
    roles: Mapping[str, Role[Any]], kinds: Sequence[type[Message]], *, hub: str, curve: bool
) -> dict[str, Any]:
    keys = {name: make_keys() if curve else None for name in roles}
    listed = {pair.public: name for name, pair in keys.items() if pair}
    hub_keys = keys[hub]
    hub_key = hub_keys.public if hub_keys else None
    results: dict[str, Any] = {}
    door = Port(
        "tcp://127.0.0.1:*", hub=True, keys=hub_keys, allowed={k: n for k, n in listed.items() if n != hub}
    )

    def run(name: str) -> None:
        port = (
            door
            if name == hub
            else Port(door.address, hub=False, keys=keys[name], allowed={}, hub_key=hub_key)
        )
        peers = [peer for peer in roles if peer != name]
        timing = Timing(join_s=20.0, hear_s=20.0)
        try:
            results[name] = perform(roles[name], Link(port, name, hub, peers, kinds, timing=timing))
        except Exception as error:  # handed to the test's own thread below
            results[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [result for result in results.values() if isinstance(result, Exception)]
    if failures:
        raise failures[0]
    return results


class _Stepper:
    """Is an optimiser with its schedule, clipped; written out, to be independent of `Learner`."""

    def __init__(self, setup: Setup, part: nn.Module) -> None:
        self.parameters = list(part.parameters())
        self.clip_norm = setup.clip_norm
        self.optimizer = build_optimizer(self.parameters, setup.optimizer, "test")
        self.schedule, self.every = build_schedule(self.optimizer, setup.schedule, "test")

    def step(self) -> None:
        if self.optimizer is None:
            return
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule and self.every == "step":
            self.schedule.step()

    def end_epoch(self) -> None:
        if self.schedule and self.every == "epoch":
            self.schedule.step()


def _together(company: Cast, split: str, epoch: int | None = None) -> Iterator[dict[str, Batch]]:
    names = list(company.rows)
    dealt = zip(*(company.rows[name].batches(split, epoch) for name in names), strict=True)
    return (dict(zip(names, batches, strict=True)) for batches in dealt)


def _outputs(network: nn.Module, bottoms: Mapping[str, Any], company: Cast, split: str) -> np.ndarray:
    network.eval()
    with torch.no_grad():
        found = [
            network({name: batches[name].inputs for name in bottoms}).numpy()
            for batches in _together(company, split)
        ]
    return np.concatenate(found) if found else np.empty((0, 1), dtype=np.float32)
