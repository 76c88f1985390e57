"""Casts the Paillier cut on the tables and weights that `casting` makes for the split network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import casting
import numpy as np
import pytest
from casting import LABEL, Trained
from liars import Change, Wrap, lying
from torch import Tensor, nn

from protocols import paillier
from vfl.data.batches import Rows
from vfl.errors import RemoteProtocolError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.rng import RngStream
from vfl.session import Member, Session
from vfl.wire.line import Role, Send
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal, rehearse

FEATURE = "party0"


@dataclass(frozen=True)
class Setup(casting.Setup):
    """Says what to train; by default a label party without columns, and keys that protect nothing."""

    k: int = 1
    own: bool = False
    width: int = 4
    outputs: int = 3
    """W is [width, outputs]."""
    trunk: bool = True
    """Whether there is one; else z is the output."""
    encryption: str = "paillier"
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: bytes | None = b"equal noise"

    @property
    def config(self) -> paillier.Config:
        small = {"key_bits": 512, "unsafe_small_key": True, "lr": 0.2, "gradient_clip": 4.0}
        given = small | {"width": self.outputs, "encryption": self.encryption} | dict(self.options)
        return paillier.Config.model_validate(given)

    def session(self, me: str) -> Session:
        own = self.outputs if self.own else None
        members = {FEATURE: Member("feature", self.width), LABEL: Member("label", own)}
        return Session(me, LABEL, members, options=self.config, noise=self.noise, batch_size=self.batch_size)


@dataclass
class Company:
    """Is both parties of one setup, ready to begin."""

    setup: Setup
    learners: dict[str, Learner]
    rows: dict[str, Rows]
    streams: dict[str, RngStream]
    journals: dict[str, Noting] = field(default_factory=dict)

    def roles(self) -> dict[str, Role[Any]]:
        setup = self.setup
        more = {name: {"plan": setup.plan} for name in (FEATURE, LABEL)}
        more[LABEL]["task"] = setup.task  # type: ignore[assignment]
        return {name: self._role(play, name, more[name]) for name, play in self._parts(paillier.ROLES)}

    def predictors(self) -> dict[str, Role[Any]]:
        """Makes roles that predict all rows."""
        for rows in self.rows.values():
            rows._splits["all"] = np.arange(sum(self.setup.n.values()))
        return {name: self._role(play, name, {}) for name, play in self._parts(paillier.PREDICTORS)}

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {name: learner.weights() for name, learner in self.learners.items()}

    def _parts(self, roles: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from ((FEATURE, roles["feature"]), (LABEL, roles["label"]))

    def _role(self, play: Callable[..., Any], name: str, more: Mapping[str, Any]) -> Role[Any]:
        journal = self.journals.setdefault(name, Noting())
        common = {"session": self.setup.session(name), "rows": self.rows[name], "journal": journal}
        layers = {"share": self.learners[f"{name}'s share"]}
        if name == FEATURE:
            mine = {"bottom": self.learners[FEATURE]}
        else:
            mine = {"own": self.learners.get("own"), "joint": self.learners["joint"]}  # type: ignore[dict-item]
        return lambda line: play(line, layers=layers, **common, **mine, **more)


class Noting(Silent):
    """Is a journal that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.weights: list[dict[str, Any]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        self.weights.append({name: learner.weights() for name, learner in learners.items()})


def cast(setup: Setup) -> Company:
    """Makes everybody anew; two casts of one setup are equal."""
    company = casting.cast(replace(setup, width=setup.outputs, untouched=False))
    with RngStream(setup.seed):
        bottom = casting.bottom(setup)
    learners = company.learners | {FEATURE: casting.learner(setup, bottom)}
    if not setup.trunk:
        learners["joint"] = Learner(nn.Identity())
    for name, role in ((FEATURE, "feature"), (LABEL, "label")):
        made = paillier.layers(setup.config, role, {FEATURE: setup.width})
        learners |= {f"{name}'s {layer}": Learner(network) for layer, network in made.items()}
    return Company(setup, learners, company.rows, company.streams)


def play(setup: Setup, *, company: Company | None = None, **liars: Wrap) -> tuple[Rehearsal, Company]:
    """Trains in memory; `liars` wrap the roles of the parties that they are named after."""
    company = company or cast(setup)
    roles = {name: liars[name](role) if name in liars else role for name, role in company.roles().items()}
    return rehearse(roles, paillier.MESSAGES, streams=company.streams, hub=LABEL), company


def train(setup: Setup) -> Trained:
    rehearsal, company = play(setup)
    return trained(company, rehearsal.results[LABEL])


def trained(company: Company, outcome: Any) -> Trained:  # noqa: ANN401
    return replace(casting.trained(company, outcome), weights=company.weights())  # type: ignore[arg-type]


def predict(company: Company, **liars: Wrap) -> np.ndarray:
    """Predicts all rows with the weights that the company has now."""
    roles = company.predictors()
    roles |= {name: wrap(roles[name]) for name, wrap in liars.items()}
    rehearsal = rehearse(roles, paillier.MESSAGES, streams=company.streams, hub=LABEL)
    output: np.ndarray = rehearsal.results[LABEL]
    return output


def shares_of(company: Company) -> np.ndarray:
    """Returns W_int, which nobody knows."""
    shares = (company.learners[f"{name}'s share"].network for name in (FEATURE, LABEL))
    total: np.ndarray = sum(share.integers for share in shares)  # type: ignore[union-attr,misc]
    return total


# --- those who lie ----------------------------------------------------------------------------------


def at(kind: type[Message], number: int, /, **fields: object) -> Change:
    """Changes fields of the message of this kind that is said as number `number`, from 0."""
    return spoiling(kind, number, lambda message: replace(message, **fields))


def spoiling(kind: type[Message], number: int, spoil: Callable[[Any], Any]) -> Change:
    count = 0

    def change(send: Send) -> Send:
        nonlocal count
        if not isinstance(send.message, kind):
            return send
        count += 1
        return send._replace(message=spoil(send.message)) if count == number + 1 else send

    return change


def caught_lying(liar: str, change: Change, setup: Setup) -> str:
    """Lets one party lie; returns what the party that noticed said of it."""
    with pytest.raises(RemoteProtocolError) as caught:
        play(setup, **{liar: lying(change)})
    assert caught.value.peer == liar
    return caught.value.why
