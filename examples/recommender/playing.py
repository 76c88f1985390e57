"""Trains one variant in memory, with the protocol's own roles, and keeps what the coordinator saw.

m stands for shared entities (here items), t for numbers of each in a contribution, r for the rank.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import coroutine
from typing import Any

import numpy as np
import torch
from cases import Dealt
from torch import Tensor

from protocols import fedmmf
from protocols.fedmmf.messages import Mean, SharedFactors
from protocols.fedmmf.roster import ring_of
from vfl.audit.ratings import Seen
from vfl.audit.sums import MOST_ROUNDS
from vfl.crypto.pairs import new_secret, public_of
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.masking.contributing import Contribution
from vfl.masking.ring import Ring
from vfl.ratings.catalogue import Catalogue
from vfl.ratings.factors import Factors, begin_factors, begin_shared
from vfl.ratings.fixed import decode
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.session import Member, Session
from vfl.wire.line import Line, Receive, Role, Send
from vfl.wire.rehearse import rehearse

HUB = "coordinator"


@dataclass
class View:
    """Gathers what the coordinator saw: contributions by participant, their totals, what it said."""

    ring: Ring
    keep: Collection[str]
    own: dict[str, list[Tensor]] = field(default_factory=dict)
    totals: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    shared: list[Tensor] = field(default_factory=list)
    mu: float = 0.0

    def note(self, request: object, answer: Any) -> None:  # noqa: ANN401 - as the driver answers
        """Notes what was said or heard."""
        if isinstance(request, Send) and isinstance(request.message, Mean):
            self.mu = request.message.mu
        elif isinstance(request, Send) and isinstance(request.message, SharedFactors):
            if request.message.step + request.message.epoch == len(self.shared):  # the first that it tells
                self.shared.append(request.message.factors)
        elif isinstance(request, Receive) and request.phase == "train" and self.keep:
            name, said = answer
            if isinstance(said, Contribution) and said.epoch <= MOST_ROUNDS:
                self._add(name, said)

    def _add(self, name: str, said: Contribution) -> None:
        place = (said.epoch, said.step)
        if place in self.totals:
            self.ring.add(self.totals[place], said.q)
        else:
            self.totals[place] = self.ring.total([said.q])
        if name in self.keep:
            self.own.setdefault(name, []).append(said.q)

    def seen(self, config: fedmmf.Config, name: str | None) -> Seen:
        """Gives what an attack may use, of one participant or of the sum of all."""
        sums = list(self.totals.values()) if name is None else self.own[name]
        return Seen(
            config.solver,
            [decode(one, self.ring) for one in sums],
            [one.numpy() for one in self.shared[: len(sums)]],
            self.mu,
            config.regularisation,
            2.0**-self.ring.fraction_bits,
        )


@dataclass(frozen=True)
class Played:
    """Is what came of one training.

    Attributes:
        test: the scores on all test ratings.
        plain: who contributed in the clear.
        seconds: of a round, the median.
        round_bytes: what the first participant says and hears in a round.
        view: what the coordinator saw.
        factors: each participant's, for comparing.
    """

    config: fedmmf.Config
    test: dict[str, float]
    plain: tuple[str, ...]
    seconds: float
    round_bytes: float
    view: View
    masks: dict[str, PersonalMask]
    factors: dict[str, dict[str, Tensor]]

    def equals(self, other: Played) -> bool:
        """Tells whether two trainings ended with the same factors, bit for bit."""
        return all(
            torch.equal(weight, other.factors[name][part])
            for name, weights in self.factors.items()
            for part, weight in weights.items()
        )


class _Clock(Silent):
    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def epoch(self, record: object) -> None:
        self.times.append(time.perf_counter())


def play(
    dealt: Dealt,
    catalogue: Catalogue,
    rounds: int,
    seed: int,
    *,
    attacked: Collection[str] = (),
    **options: Any,  # noqa: ANN401 - the protocol's
) -> Played:
    """Trains; what the participants in `attacked` say is kept."""
    config = fedmmf.Config.model_validate(options)
    masks = {
        name: fit_mask(config.mask, one, catalogue, seed=seed, rank=config.mask_rank)
        for name, one in dealt.items()
    }
    learners = {name: Learner(begin_factors(one, config.rank, seed)) for name, one in dealt.items()}
    sessions = _sessions(list(dealt), config)
    m = next(iter(dealt.values())).m
    view = View(ring_of(config, len(dealt)), attacked)
    view.shared.append(begin_shared(m, config.rank, seed).say_shared())
    clock, plan = _Clock(), Plan(rounds, metric="rmse")
    summing = {"session": sessions[HUB], "seed": seed, "plan": plan, "journal": clock}
    roles: dict[str, Role[Any]] = {HUB: _overheard(_role(fedmmf.coordinator, **summing), view.note)}
    for name, one in dealt.items():
        given = {"session": sessions[name], "holding": one, "mask": masks[name], "factors": learners[name]}
        roles[name] = _role(fedmmf.participant, plan=plan, journal=Silent(), **given)
    streams = {name: nullcontext() for name in roles}
    played = rehearse(roles, fedmmf.MESSAGES, streams=streams, hub=HUB, record=False)
    outcome: fedmmf.Outcome = played.results[HUB]
    booked = played.ledgers[next(iter(dealt))].entries
    n_bytes = sum(
        one.sent_bytes + one.received_bytes
        for (_, phase), one in booked.items()
        if phase in ("train", "valid")
    )
    seconds = float(np.median(np.diff(clock.times)[1:] if rounds > 1 else np.diff(clock.times)))
    return Played(
        config,
        outcome.test,
        outcome.plain,
        seconds,
        n_bytes / rounds,
        view,
        masks,
        {name: learner.weights() for name, learner in learners.items()},
    )


def factors_of(played: Played, name: str) -> Factors:
    """Makes a participant's factors as the training left them."""
    weights = played.factors[name]
    made = Factors(len(weights["own"]), len(weights["shared"]), weights["own"].shape[1] - 1)
    made.load_state_dict(weights)
    return made


def _sessions(names: list[str], config: fedmmf.Config) -> dict[str, Session]:
    roles = {HUB: "coordinator"} | dict.fromkeys(names, "participant")
    secrets = {name: new_secret() for name in roles}
    members = {name: Member(role, None, public_of(secrets[name])) for name, role in roles.items()}
    nonce = os.urandom(16)
    return {name: Session(name, HUB, members, nonce, config, secrets[name], False) for name in roles}


def _role(role: Callable[..., Any], **arguments: Any) -> Role[Any]:  # noqa: ANN401
    return lambda line: role(line, **arguments)


def _overheard(role: Role[Any], note: Callable[[object, Any], None]) -> Role[Any]:
    async def heard(line: Line) -> object:
        return await _driven(role, line, note)

    return heard


@coroutine
def _driven(role: Role[Any], line: Line, note: Callable[[object, Any], None]) -> Generator[Any, Any, Any]:
    inner = role(line)
    answer: Any = None
    try:
        while True:
            request = inner.send(answer)
            answer = yield request
            note(request, answer)
    except StopIteration as stop:
        return stop.value
    finally:
        inner.close()
