"""Trains one variant in memory, with the protocols' own roles, and keeps what the aggregator saw.

n stands for rows, d for the width at the cut, k for parties, p for columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from layers import Networks, build
from numpy.typing import NDArray
from tables import Table
from torch import nn

from protocols import sfa, splitnn
from protocols.sfa.messages import Contribution
from protocols.sfa.roster import ring_of
from vfl.data.batches import Rows
from vfl.data.preparation import Features
from vfl.journal import Silent
from vfl.learn.cut import Joint
from vfl.learn.learner import Learner
from vfl.learn.optimise import build_optimizer
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan
from vfl.learn.scores import output_width
from vfl.rng import RngStream, derive_seed
from vfl.session import Member, Session
from vfl.wire.rehearse import Rehearsal, rehearse

CONCAT, SUM, SFA = "concat", "sum", "sfa"
VARIANTS = (CONCAT, SUM, SFA)
LABEL, COORDINATOR = "label", "coordinator"


@dataclass(frozen=True)
class Played:
    """Is what came of one training.

    Attributes:
        score: the table's metric on the test rows, with the weights of the best epoch on the validation rows.
        own: [n, d] what the aggregator heard from the first party about the test rows, under those weights.
        total: [n, d] the sum of all contributions as the aggregator knows it; None for concat.
        others: [n, d] that sum without the first party's part, which nobody sees: what it tells of the first
            party's columns is known from their likeness to the others' columns. None for concat.
        notes: what the run says of itself, such as how many values were clipped.
    """

    score: float
    own: NDArray[Any]
    total: NDArray[Any] | None
    others: NDArray[Any] | None
    notes: tuple[str, ...]


def train_one_owner(table: Table, places: NDArray[np.int64], seed: int) -> float:
    """Trains one network on some of the columns, and returns its test score."""
    networks = _networks(table, [places], 1, True, seed)
    session = Session(LABEL, LABEL, {LABEL: Member("label", networks.width)})
    own = _learner(table, networks.bottoms[0])
    joint = _learner(table, Joint("sum", nn.Sequential(networks.trunk, networks.head)))
    rows = _rows(table, places, with_labels=True, seed=seed)
    play = _role(
        splitnn.label_party, session, own=own, joint=joint, rows=rows, task=table.task, **_common(table)
    )
    played = _rehearse(splitnn, {LABEL: play}, seed, record=False)
    return _score(table, played)


def train(table: Table, variant: str, depth: int, k: int, seed: int) -> Played:
    """Trains k parties' network in a variant, cut at a depth."""
    dealt = table.dealt(k)
    networks = _networks(table, dealt, depth, variant != CONCAT, seed)
    company = _Company(table, variant, dealt, networks, seed)
    played = _rehearse(company.protocol, company.training(), seed, record=False)
    seen = _rehearse(company.protocol, company.predicting(), seed, record=True)
    own, total = company.seen(seen)
    others = None if total is None else total - company.contribution(0)
    notes = played.results[LABEL].notes
    return Played(_score(table, played), own, total, others, notes)


class _Company:
    """Is everybody of one variant: parties with columns, one with labels, at sfa of two a coordinator."""

    def __init__(
        self, table: Table, variant: str, dealt: Sequence[NDArray[np.int64]], networks: Networks, seed: int
    ) -> None:
        self.table, self.variant, self.networks = table, variant, networks
        self.protocol: ModuleType = sfa if variant == SFA else splitnn
        self.parties = [f"party{place}" for place in range(1, len(dealt) + 1)]
        self.is_coordinated = variant == SFA and len(dealt) == 2
        self.aggregator = COORDINATOR if self.is_coordinated else LABEL
        self.options: Any = sfa.Config() if variant == SFA else splitnn.Config(cut=variant)
        members = {name: Member("feature", networks.width) for name in self.parties}
        self.members = members | {LABEL: Member("label")}
        if self.is_coordinated:
            self.members |= {COORDINATOR: Member("coordinator", table.settings.width)}
        self.bottoms = {
            name: _learner(table, bottom) for name, bottom in zip(self.parties, networks.bottoms, strict=True)
        }
        if self.is_coordinated:
            self.trunk = _learner(table, networks.trunk)
            self.joint = _learner(table, networks.head)
        else:
            top = nn.Sequential(networks.trunk, networks.head)
            self.joint = _learner(table, top if variant == SFA else Joint(variant, top))
        self.rows = {
            name: _rows(table, places, with_labels=False, seed=seed)
            for name, places in zip(self.parties, dealt, strict=True)
        } | {LABEL: _rows(table, None, with_labels=True, seed=seed)}

    def training(self) -> dict[str, Any]:
        """Gives every party's role in training."""
        common, roles = _common(self.table), self.protocol.ROLES
        company = {
            name: self._role(
                roles["feature"], name, bottom=self.bottoms[name], rows=self.rows[name], **common
            )
            for name in self.parties
        }
        label = {"own": None, "joint": self.joint, "rows": self.rows[LABEL], "task": self.table.task}
        company[LABEL] = self._role(roles["label"], LABEL, **label, **common)
        if self.is_coordinated:
            trunk = self._summing()
            company[COORDINATOR] = self._role(roles["coordinator"], COORDINATOR, **trunk, **common)
        return company

    def predicting(self) -> dict[str, Any]:
        """Gives every party's role in predicting the test rows, which are `all` there are."""
        roles, quiet = self.protocol.PREDICTORS, Silent()
        company = {
            name: self._role(
                roles["feature"], name, bottom=self.bottoms[name], rows=self.rows[name], journal=quiet
            )
            for name in self.parties
        }
        label = {"own": None, "joint": self.joint, "rows": self.rows[LABEL], "journal": quiet}
        company[LABEL] = self._role(roles["label"], LABEL, **label)
        if self.is_coordinated:
            company[COORDINATOR] = self._role(
                roles["coordinator"], COORDINATOR, journal=quiet, **self._summing()
            )
        return company

    def contribution(self, place: int) -> NDArray[np.float32]:
        """Computes [n, d] a party's contribution of the test rows, as only that party knows it."""
        name = self.parties[place]
        with torch.no_grad():
            tensors = [self.bottoms[name](*batch.inputs) for batch in self.rows[name].batches("all")]
        return torch.cat(tensors).numpy()

    def seen(self, rehearsal: Rehearsal) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Returns, from the aggregator's view alone, the first party's messages and the sum of all."""
        kind, field = (Contribution, "q") if self.variant == SFA else (splitnn.Embedding, "h")
        heard: dict[str, list[torch.Tensor]] = {name: [] for name in self.parties}
        for said in rehearsal.view(self.aggregator):
            if isinstance(said.message, kind):
                heard[said.sender].append(getattr(said.message, field))
        messages = [torch.cat(tensors) for tensors in heard.values()]
        if self.variant == CONCAT:
            return messages[0].numpy(), None
        if self.variant == SUM:
            return messages[0].numpy(), torch.stack(messages).sum(dim=0).numpy()
        ring = ring_of(self.options, len(messages))
        return messages[0].numpy(), ring.decode(ring.total(messages)).numpy()

    def _summing(self) -> dict[str, Any]:
        return {"trunk": self.trunk, "batch_size": self.table.settings.batch_size}

    def _role(self, role: Callable[..., Any], name: str, **arguments: Any) -> Any:  # noqa: ANN401
        session = Session(name, self.aggregator, self.members, options=self.options)
        return _role(role, session, **arguments)


def _role(role: Callable[..., Any], session: Session, **arguments: Any) -> Any:  # noqa: ANN401
    return lambda line: role(line, session=session, **arguments)


def _networks(
    table: Table, dealt: Sequence[NDArray[np.int64]], depth: int, summed: bool, seed: int
) -> Networks:
    sizes = [len(places) for places in dealt]
    out = output_width(table.task, table.classes)
    return build(sizes, table.settings.width, out, depth, summed=summed, seed=seed)


def _learner(table: Table, network: nn.Module) -> Learner:
    spec = {"name": "Adam", "lr": table.settings.lr, "weight_decay": table.settings.weight_decay}
    return Learner(network, build_optimizer(network.parameters(), spec, "study"))


def _rows(table: Table, places: NDArray[np.int64] | None, *, with_labels: bool, seed: int) -> Rows:
    n = len(table.y)
    digests = np.random.default_rng(derive_seed(seed, "ids")).integers(0, 2**63, n).astype(np.uint64)
    x = None if places is None else Features(table.x[:, torch.from_numpy(places)].contiguous(), None)
    splits = dict(table.splits) | {"all": table.splits["test"]}
    y = table.y if with_labels else None
    return Rows(digests, splits, features=x, y=y, batch_size=table.settings.batch_size, seed=seed)


def _common(table: Table) -> dict[str, Any]:
    return {"plan": Plan(table.settings.epochs, metric=table.metric), "journal": Silent()}


def _rehearse(protocol: ModuleType, roles: dict[str, Any], seed: int, *, record: bool) -> Rehearsal:
    streams = {name: RngStream(derive_seed(seed, "stream", name)) for name in roles}
    return rehearse(roles, protocol.MESSAGES, streams=streams, record=record)


def _score(table: Table, played: Rehearsal) -> float:
    outcome: Outcome = played.results[LABEL]
    return outcome.test[table.metric]
