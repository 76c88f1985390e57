"""Casts secure forward aggregation on the tables and weights that `casting` makes for the split network."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import coroutine
from typing import Any
from unittest import mock

import casting
import numpy as np
import pytest
from casting import LABEL, Trained
from liars import Change, Wrap, lying
from torch import Tensor, nn

from protocols import sfa
from protocols.sfa.roster import sum_of
from vfl.crypto.pairs import new_secret, public_of
from vfl.data.batches import Rows
from vfl.errors import RemoteProtocolError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.masking import contributing
from vfl.masking.contributing import Contribution
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.rng import RngStream, derive_seed
from vfl.session import Member, Session
from vfl.wire.line import Line, Role, Send
from vfl.wire.messages import Message
from vfl.wire.rehearse import Gone, Rehearsal, rehearse

HUB = "carol"
HIDDEN = 6


@dataclass(frozen=True)
class Setup(casting.Setup):
    """Says what to train; by default a linear layer a party, summed by the label party."""

    own: bool = False
    cut: str = "sum"
    hidden: Sequence[int] = ()
    coordinator: bool = False
    masks: bool = True
    ring_bits: int = 32
    clip: float = 16.0
    fraction_bits: int | None = None
    goes_on: bool = False
    identities: bool = True
    trunk: bool = True
    """Whether there is one; else the sum is the output."""

    @property
    def aggregator(self) -> str:
        return HUB if self.coordinator else LABEL

    @property
    def masked(self) -> list[str]:
        """Who contributes under masks."""
        return [*self.features, *([LABEL] if self.own and self.coordinator else [])]

    @property
    def parties(self) -> list[str]:
        return [*self.features, *([HUB] if self.coordinator else []), LABEL]

    @property
    def config(self) -> sfa.Config:
        bits: Any = self.ring_bits
        return sfa.Config(masks=self.masks, ring_bits=bits, clip=self.clip, fraction_bits=self.fraction_bits)

    def sessions(self) -> dict[str, Session]:
        """Makes everybody's session: keys and nonce are new, as in every run."""
        secrets = {name: new_secret() if self.identities else None for name in self.parties}
        widths = dict.fromkeys(self.features, self.width) | {HUB: HIDDEN if self.trunk else self.width}
        widths |= {LABEL: self.width} if self.own else {}
        roles = dict.fromkeys(self.features, "feature") | {HUB: "coordinator", LABEL: "label"}
        members = {
            name: Member(roles[name], widths.get(name), public_of(secret) if secret else None)
            for name, secret in secrets.items()
        }
        nonce = os.urandom(16)
        return {
            name: Session(name, self.aggregator, members, nonce, self.config, secret, self.goes_on)
            for name, secret in secrets.items()
        }

    def ring(self) -> Ring:
        return sum_of(self.sessions()[LABEL])[1]


@dataclass
class Company:
    """Is everybody of one setup, ready to begin."""

    setup: Setup
    learners: dict[str, Learner]
    rows: dict[str, Rows]
    streams: dict[str, RngStream]
    sessions: dict[str, Session]
    journals: dict[str, Noting] = field(default_factory=dict)

    def roles(self) -> dict[str, Role[Any]]:
        return {name: self._role(name) for name in self.setup.parties}

    def predictors(self) -> dict[str, Role[Any]]:
        """Makes roles that predict all rows."""
        for rows in self.rows.values():
            rows._splits["all"] = np.arange(sum(self.setup.n.values()))
        return {name: self._predictor(name) for name in self.setup.parties}

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {name: learner.weights() for name, learner in self.learners.items()}

    def of_label(self) -> dict[str, Any]:
        return {"own": self.learners.get("own"), "joint": self.learners["joint"], "rows": self.rows[LABEL]}

    def _role(self, name: str) -> Role[Any]:
        setup = self.setup
        journal = self.journals.setdefault(name, Noting())
        common: dict[str, Any] = {
            "session": self.sessions[name], "plan": setup.plan, "journal": journal
        }  # fmt: skip
        if name == LABEL:
            return lambda line: sfa.label_party(line, task=setup.task, **self.of_label(), **common)
        if name == HUB:
            common |= {"trunk": self.learners["trunk"], "batch_size": setup.batch_size}
            return lambda line: sfa.coordinator_party(line, **common)
        common |= {"bottom": self.learners[name], "rows": self.rows[name]}
        return lambda line: sfa.feature_party(line, **common)

    def _predictor(self, name: str) -> Role[Any]:
        session = self.sessions[name]
        if name == LABEL:
            return lambda line: sfa.label_predicts(line, session=session, journal=Silent(), **self.of_label())
        if name == HUB:
            trunk, size = self.learners["trunk"], self.setup.batch_size
            return lambda line: sfa.coordinator_predicts(
                line, session=session, trunk=trunk, batch_size=size, journal=Silent()
            )
        bottom, rows = self.learners[name], self.rows[name]
        return lambda line: sfa.feature_predicts(
            line, session=session, bottom=bottom, rows=rows, journal=Silent()
        )


class Noting(Silent):
    """Is a journal that keeps what it is told of others, and every epoch's weights."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.absences: list[str] = []
        self.weights: list[dict[str, Any]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def absent(self, party: str) -> None:
        self.absences.append(party)

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        self.weights.append({name: learner.weights() for name, learner in learners.items()})


def cast(setup: Setup) -> Company:
    """Makes everybody anew: equal but for keys and nonce, which are new in every run."""
    company = casting.cast(setup)
    networks = {name: learner.network for name, learner in company.learners.items()}
    behind = networks["joint"].get_submodule("trunk").get_submodule("layers") if setup.trunk else []
    behind = list(behind)  # type: ignore[arg-type]
    parted = len(behind) - 1 if setup.coordinator and setup.trunk else 0
    networks |= {"joint": nn.Sequential(*behind[parted:])}
    if setup.coordinator:
        networks["trunk"] = nn.Sequential(*behind[:parted])
    learners = {name: casting.learner(setup, network) for name, network in networks.items()}
    streams = company.streams | {HUB: RngStream(derive_seed(setup.seed, HUB))}
    return Company(setup, learners, company.rows, streams, setup.sessions())


def play(
    setup: Setup, *, company: Company | None = None, order: Sequence[str] = (), **liars: Wrap
) -> tuple[Rehearsal, Company]:
    """Trains in memory; `liars` wrap the roles of the parties that they are named after."""
    company = company or cast(setup)
    roles = {name: liars[name](role) if name in liars else role for name, role in company.roles().items()}
    roles = {name: roles[name] for name in order or roles}
    streams = company.streams
    return rehearse(roles, sfa.MESSAGES, streams=streams, hub=setup.aggregator), company


def train(setup: Setup) -> Trained:
    rehearsal, company = play(setup)
    return trained(company, rehearsal.results[LABEL])


def trained(company: Company, outcome: Any) -> Trained:  # noqa: ANN401
    weights = company.weights()
    return replace(casting.trained(company, outcome), weights=weights)  # type: ignore[arg-type]


def predict(company: Company) -> np.ndarray:
    """Predicts all rows with the weights that the company has now."""
    company.sessions = company.setup.sessions()
    rehearsal = rehearse(
        company.predictors(), sfa.MESSAGES, streams=company.streams, hub=company.setup.aggregator
    )
    output: np.ndarray = rehearsal.results[LABEL]
    return output


def contributions(rehearsal: Rehearsal, name: str) -> Iterator[tuple[str, Contribution]]:
    """Lists what a party contributed, each with its split."""
    for said in rehearsal.transcript:
        if said.sender == name and isinstance(said.message, Contribution):
            yield said.phase, said.message


def elements(rehearsal: Rehearsal, name: str) -> np.ndarray:
    """Returns all that a party contributed, as unsigned numbers [n, d]."""
    parts = [message.q.numpy() for _, message in contributions(rehearsal, name)]
    whole = np.concatenate(parts)
    return whole.view(np.uint32 if whole.dtype == np.int32 else np.uint64)


@contextmanager
def seen(company: Company) -> Iterator[dict[str, list[Tensor]]]:
    """Notes what each bottom gives and what lies behind the sum is given, batch by batch."""
    found: dict[str, list[Tensor]] = {}
    handles = []
    for name, learner in company.learners.items():
        kept = found.setdefault(name, [])
        if name == ("trunk" if company.setup.coordinator else "joint"):
            handles.append(learner.network.register_forward_pre_hook(_keeper(kept)))
        else:
            handles.append(learner.network.register_forward_hook(_keeper(kept)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keeper(kept: list[Tensor]) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
        kept.append((inputs[0] if output is None else output).detach().clone())

    return keep


@dataclass
class Used:
    """Is one mask that was taken: whose, with which keys, at which counter."""

    me: str
    keys: Mapping[str, bytes]
    counter: Counter
    mask: bytes


@contextmanager
def noting_masks() -> Iterator[list[Used]]:
    """Notes each mask that anybody takes meanwhile."""
    used: list[Used] = []

    class Noted(Masks):
        def __init__(self, me: str, keys: Mapping[str, bytes], ring: Ring) -> None:
            super().__init__(me, keys, ring)
            self.me, self.keys = me, dict(keys)

        def take(self, counter: Counter, shape: Sequence[int], ring: Ring | None = None) -> Tensor:
            mask = super().take(counter, shape, ring)
            used.append(Used(self.me, self.keys, counter, mask.numpy().tobytes()))
            return mask

    with mock.patch.object(contributing, "Masks", Noted):
        yield used


# --- those who lie, and those who die ---------------------------------------------------------------


def at(kind: type[Message], which: int, /, **fields: object) -> Change:
    """Changes fields of the message of this kind that is said as number `which`, from 0."""

    def spoil(message: Message) -> Message:
        return replace(message, **fields)  # type: ignore[type-var]

    return spoiling(kind, which, spoil)


def spoiling(
    kind: type[Message], number: int, spoil: Callable[[Any], Message], to: str | None = None
) -> Change:
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


def dying(
    kind: type[Message], number: int = 0, *, phase: str = "", after: bool = False, reason: str = "lost"
) -> Wrap:
    """Makes a party's process die just before it says its message `number` of a kind, or just after."""

    def wrap(role: Role[Any]) -> Role[Any]:
        async def mortal(line: Line) -> object:
            return await _until(
                role, line, lambda send: isinstance(send.message, kind) and phase in send.phase
            )

        @coroutine
        def _until(role: Role[Any], line: Line, is_cue: Callable[[Send], bool]) -> Generator[Any, Any, Any]:
            inner, count = role(line), 0
            answer: Any = None
            try:
                while True:
                    request = inner.send(answer)
                    cue = isinstance(request, Send) and is_cue(request)
                    count += cue
                    due = cue and count == number + 1
                    if due and not after:
                        raise Gone(reason)
                    answer = yield request
                    if due:
                        raise Gone(reason)
            except StopIteration as stop:
                return stop.value
            finally:
                inner.close()

        return mortal

    return wrap
