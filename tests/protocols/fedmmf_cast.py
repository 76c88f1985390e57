"""Casts a federated factorisation of small drawn ratings, for any number of participants."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from liars import Change, Wrap, lying
from torch import Tensor

from protocols import fedmmf
from vfl.crypto.pairs import new_secret, public_of
from vfl.errors import RemoteProtocolError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.masking.contributing import Contribution
from vfl.ratings.alone import Alone, Settings, train_all
from vfl.ratings.factors import Factors, begin_factors
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.session import Member, Session
from vfl.wire.line import Role, Send
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal, rehearse

HUB = "carol"
SCALE = (0.5, 5.0)


@dataclass(frozen=True)
class Setup:
    """Says what to train; by default three participants under masks."""

    k: int = 3
    m: int = 12
    own: int = 6
    """Own entities a participant."""
    ratings: int = 5
    """Ratings an own entity, of each split's three parts."""
    epochs: int = 3
    patience: int | None = None
    metric: str = "rmse"
    seed: int = 3
    goes_on: bool = False
    identities: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> fedmmf.Config:
        return fedmmf.Config.model_validate({"rank": 2, **self.options})

    @property
    def names(self) -> list[str]:
        return [f"shop{place}" for place in range(self.k)]

    @property
    def plan(self) -> Plan:
        return Plan(self.epochs, 0, self.metric, self.patience)

    def sessions(self) -> dict[str, Session]:
        """Makes everybody's session: keys and nonce are new, as in every run."""
        roles = {HUB: "coordinator"} | dict.fromkeys(self.names, "participant")
        secrets = {name: new_secret() if self.identities else None for name in roles}
        members = {
            name: Member(roles[name], None, public_of(secret) if secret else None)
            for name, secret in secrets.items()
        }
        nonce = os.urandom(16)
        return {
            name: Session(name, HUB, members, nonce, self.config, secret, self.goes_on)
            for name, secret in secrets.items()
        }


def holdings(setup: Setup) -> dict[str, RatingsHolding]:
    """Draws each participant's ratings; two drawings of one setup are equal."""
    rng = np.random.default_rng(setup.seed)
    taste = rng.normal(size=(setup.m, 2))
    made = {}
    for name in setup.names:
        mine = rng.normal(size=(setup.own, 2))
        parts = {}
        chosen = [rng.permutation(setup.m)[: setup.ratings + 4] for _ in range(setup.own)]
        for split, (a, b) in {"train": (0, setup.ratings), "valid": (-4, -2), "test": (-2, None)}.items():
            own = np.repeat(np.arange(setup.own), [len(row[a:b]) for row in chosen])
            shared = np.concatenate([np.sort(row[a:b]) for row in chosen])
            value = 3 + (mine[own] * taste[shared]).sum(1) + rng.normal(size=len(own)) / 4
            parts[split] = Part(own, shared, np.clip(np.rint(value * 2) / 2, *SCALE))
        ids = tuple(f"{name}/{place:03}" for place in range(setup.own))
        made[name] = RatingsHolding(
            f"{name}.csv", setup.config.by, SCALE, ids, tuple(f"i{j:04}" for j in range(setup.m)),
            setup.seed, parts,
        )  # fmt: skip
    return made


@dataclass
class Company:
    """Is everybody of one setup, ready to begin."""

    setup: Setup
    held: dict[str, RatingsHolding]
    masks: dict[str, PersonalMask]
    learners: dict[str, Learner]
    sessions: dict[str, Session]
    journals: dict[str, Noting] = field(default_factory=dict)

    alone: dict[str, Tensor] = field(default_factory=dict)

    def roles(self) -> dict[str, Role[Any]]:
        return {name: self._role(name) for name in [HUB, *self.setup.names]}

    def factors(self) -> dict[str, dict[str, Tensor]]:
        return {name: learner.weights() for name, learner in self.learners.items()}

    def _role(self, name: str) -> Role[Any]:
        journal = self.journals.setdefault(name, Noting())
        common: dict[str, Any] = {
            "session": self.sessions[name], "plan": self.setup.plan, "journal": journal
        }  # fmt: skip
        if name == HUB:
            return lambda line: fedmmf.coordinator(
                line, seed=self.setup.seed, alone=bool(self.alone), **common
            )
        common |= {"holding": self.held[name], "mask": self.masks[name], "factors": self.learners[name]}
        common["alone"] = self.alone.get(name)
        return lambda line: fedmmf.participant(line, **common)


class Noting(Silent):
    """Is a journal that keeps what it is told of others."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.absences: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def absent(self, party: str) -> None:
        self.absences.append(party)


def cast(setup: Setup) -> Company:
    """Makes everybody anew: equal but for keys and nonce."""
    held, config = holdings(setup), setup.config
    masks = {name: fit_mask(config.mask, one, seed=setup.seed) for name, one in held.items()}
    learners = {name: Learner(begin_factors(one, config.rank, setup.seed)) for name, one in held.items()}
    return Company(setup, held, masks, learners, setup.sessions())


def play(
    setup: Setup,
    *,
    company: Company | None = None,
    order: Sequence[str] = (),
    record: bool = True,
    **liars: Wrap,
) -> tuple[Rehearsal, Company]:
    """Trains in memory; `liars` wrap the roles of the parties that they are named after."""
    company = company or cast(setup)
    roles = {name: liars[name](role) if name in liars else role for name, role in company.roles().items()}
    roles = {name: roles[name] for name in order or roles}
    streams = {name: nullcontext() for name in roles}  # nothing here draws from a generator that all share
    return rehearse(roles, fedmmf.MESSAGES, streams=streams, hub=HUB, record=record), company


def recommend(company: Company, asker: str, user: str, top: int, **liars: Wrap) -> Rehearsal:
    """Lets one party ask for a user's best items; whom `liars` name lies."""

    def role(name: str) -> Role[Any]:
        session = company.sessions[name]
        if name == HUB:
            return lambda line: fedmmf.PREDICTORS["coordinator"](line, session=session, journal=Silent())
        held, mask, factors = (
            company.held[name], company.masks[name], company.learners[name].network
        )  # fmt: skip
        return lambda line: fedmmf.PREDICTORS["participant"](
            line, session=session, holding=held, mask=mask, factors=factors, journal=Silent(),
            user=user if name == asker else None, top=top,
        )  # fmt: skip

    roles = {name: role(name) for name in [HUB, *company.setup.names]}
    roles = {name: liars[name](one) if name in liars else one for name, one in roles.items()}
    return rehearse(roles, fedmmf.MESSAGES, streams={name: nullcontext() for name in roles}, hub=HUB)


def train_directly(setup: Setup, company: Company | None = None) -> Alone:
    """Trains in one process, without a dialogue."""
    company, config = company or cast(setup), setup.config
    settings = Settings(
        plan=setup.plan,
        rank=config.rank,
        regularisation=config.regularisation,
        solver=config.solver,
        batches=config.batches,
        optimizer=config.optimizer,
        ring=fedmmf.roster.ring_of(config, setup.k),
        seed=setup.seed,
        fewest_raters=config.fewest_raters,
    )
    return train_all(list(company.held.values()), list(company.masks.values()), settings)


def assert_same_factors(one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, weights in one.items():
        theirs = other[name].state_dict() if isinstance(other[name], Factors) else other[name]
        for part, weight in weights.items():
            assert weight.numpy().tobytes() == theirs[part].numpy().tobytes(), (name, part)


def contributions(rehearsal: Rehearsal, name: str, phase: str = "train") -> list[Contribution]:
    return [
        said.message
        for said in rehearsal.transcript
        if said.sender == name and said.phase == phase and isinstance(said.message, Contribution)
    ]


# --- those who lie ----------------------------------------------------------------------------------


def spoiling(
    kind: type[Message], number: int, spoil: Callable[[Any], Message], to: str | None = None
) -> Change:
    """Changes the message of this kind that is said as number `number`, from 0."""
    count = 0

    def change(send: Send) -> Send:
        nonlocal count
        if not isinstance(send.message, kind) or to not in (None, send.to):
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
