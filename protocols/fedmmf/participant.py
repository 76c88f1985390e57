"""The participants' side of a federated factorisation: ratings, own factors, contributions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from protocols.fedmmf.messages import Axis, Clipped, Mean, RoundEnd, Turn
from protocols.fedmmf.roster import Config, check_metric, ring_of, score_widths
from protocols.fedmmf.saying import Saying, begin_saying
from protocols.fedmmf.shared import SharedSide, mark_of, scores_of, take_own_step
from vfl.errors import RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.learner import Learner
from vfl.learn.optimise import build_optimizer
from vfl.learn.plan import Plan
from vfl.masking.agreeing import Roster
from vfl.ratings.factors import Factors, make_residuals
from vfl.ratings.gradients import gradients, groups
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.least_squares import solve_own, statistics
from vfl.ratings.personal import PersonalMask
from vfl.ratings.ranking import ranking_sums
from vfl.ratings.scores import error_sums, residual_sums
from vfl.session import Session
from vfl.wire.line import Line


async def participant(
    line: Line,
    *,
    session: Session,
    holding: RatingsHolding,
    mask: PersonalMask,
    factors: Learner,
    plan: Plan,
    journal: Journal,
    alone: Tensor | None = None,
) -> dict[str, float]:
    """Factorises this party's ratings together with the others'.

    Args:
        line: this party's line.
        session: who takes part.
        holding: its ratings.
        mask: fitted on those that train.
        factors: a `Factors`, as `begin_factors` makes it, and as the best round leaves it; an optimiser of
            its own factors is made here where there is none.
        plan: what all agree on.
        journal: what to tell.
        alone: sums that score a model of its own on the test ratings, as in `scores_of`, to be added up
            with the others'; all participants bring some, or none.

    Returns:
        The scores on its own test ratings.

    Raises:
        RemoteProtocolError: if the coordinator says another step, shape or roster than is due.
        DataError: if there are not two ratings to train on.
        ConfigError: if training diverges, or the score that decides cannot be had.
    """
    holding.check_trainable()
    check_metric(session.options, plan.metric)
    part = _Part(line, session, holding, mask, factors, plan, journal)
    with line.during("setup"):
        await part.begin()
    best = factors.weights()
    for epoch in range(1, plan.epochs + 1):
        with line.during("train"):
            await part.train(epoch)
        with line.during("valid"):
            end = await part.validate(epoch)
        if end.best:
            best = factors.weights()
        journal.checkpoint(epoch, {"factors": factors}, best=end.best)
        journal.epoch({"epoch": epoch, "best": end.best, "clipped": part.saying.clipped})
        if end.stop:
            break
    factors.load_weights(best)
    with line.during("test"):
        return await part.test(alone)


class _Part:
    """Is a participant at work."""

    saying: Saying

    def __init__(
        self,
        line: Line,
        session: Session,
        holding: RatingsHolding,
        mask: PersonalMask,
        learner: Learner,
        plan: Plan,
        journal: Journal,
    ) -> None:
        self._line, self._session, self._journal = line, session, journal
        self._holding, self._mask, self._learner = holding, mask, learner
        self._config: Config = session.options
        assert isinstance(learner.network, Factors)  # noqa: S101 - as the caller is told
        self._factors = learner.network
        self._residuals = make_residuals(holding, mask)
        self._ring = ring_of(self._config, len(session.with_role("participant")))
        is_encrypted = self._config.aggregation == "paillier"  # else the coordinator alone has one
        self._side = SharedSide(self._config, holding.m, self._ring, holding.seed) if is_encrypted else None
        self._weight = 1.0
        self._plan = plan
        self._groups: list[np.ndarray] = []
        if self._config.solver == "sgd":
            self._groups = groups(holding, self._config.batches)
            if learner.optimizer is None:
                learner.optimizer = build_optimizer(
                    [self._factors.own], self._config.optimizer, "protocols.fedmmf.optimizer"
                )

    async def begin(self) -> None:
        """Agrees with the others on how to sum, and on the mean of all residuals."""
        line, hub, holding = self._line, self._session.hub, self._holding
        mark = mark_of(holding.shared_ids, self._session.nonce)
        await line.say(hub, Axis(holding.m, mark))
        self.saying = await begin_saying(
            line, self._session, mark, self._side, holding, self._mask, self._journal
        )
        await self.saying.say_scores("all", 0, residual_sums(self._residuals)[0])
        mean = await line.hear(hub, Mean)
        low, high = holding.scale
        if not (math.isfinite(mean.mu) and abs(mean.mu) <= high - low + abs(high) + abs(low)):
            raise RemoteProtocolError(hub, f"says a mean residual of {mean.mu}, which none can be")
        if mean.ratings < len(holding.train):
            raise RemoteProtocolError(hub, f"counts {mean.ratings} ratings, fewer than are here alone")
        self._factors.mu.fill_(mean.mu)
        self._weight = holding.m / mean.ratings
        if self._side:
            self._side.weight = self._weight
        self._solve_own()

    async def train(self, epoch: int) -> None:
        """Contributes to each step of a round, and takes over the shared factors."""
        turn = await self._line.hear(self._session.hub, Turn)
        if turn.epoch != epoch:
            raise RemoteProtocolError(
                self._session.hub, f"asks for round {turn.epoch} where round {epoch} is due"
            )
        for step in range(self._config.batches):
            await self.saying.say_table(epoch, step, self._contribution(step), self._journal)
            shared = await self.saying.hear_shared(epoch, step)
            try:
                self._factors.take_shared(shared)
            except ValueError as error:
                raise RemoteProtocolError(self._session.hub, f"says {error}") from error
            self._solve_own()
            self._journal.step(epoch, step + 1, self._config.batches, len(self._holding.train), None)

    async def validate(self, epoch: int) -> RoundEnd:
        """Contributes the scores of a round; goes on without somebody who has vanished in it."""
        ranked = score_widths(self._config, self._plan.metric)[0] > 3
        await self.saying.say_scores("valid", epoch, self._scores("valid", ranked=ranked))
        end = await self._line.hear(self._session.hub, RoundEnd)
        if end.stop and end.vanished:
            raise RemoteProtocolError(self._session.hub, "says that training is over without somebody")
        if end.vanished:
            await self.saying.renew(await self._line.hear(self._session.hub, Roster))
        return end

    async def test(self, alone: Tensor | None) -> dict[str, float]:
        """Contributes the scores of the factors that are kept, and what was clipped."""
        ranked = self._config.by == "user"
        valid, mine = (self._scores(split, ranked=ranked) for split in ("valid", "test"))
        whole = [valid, mine] + ([] if alone is None else [alone])
        await self.saying.say_scores("test", 0, torch.cat(whole))
        await self._line.say(self._session.hub, Clipped(self.saying.clipped))
        return scores_of(mine)

    def _contribution(self, step: int) -> tuple[Tensor, int]:
        if self._config.solver == "als":
            return statistics(self._factors, self._residuals, self._ring)
        said = gradients(
            self._factors,
            self._residuals,
            self._ring,
            self._config.regularisation,
            self._weight,
            self._groups[step],
            self._config.batches,
        )
        take_own_step(self._factors, self._learner)
        return said

    def _solve_own(self) -> None:
        if self._config.solver == "als":
            solve_own(self._factors, self._residuals, self._config.regularisation)

    def _scores(self, split: str, *, ranked: bool) -> Tensor:
        given = (self._factors, self._mask, self._holding, split)
        errors = error_sums(*given)
        return torch.cat([errors, ranking_sums(*given)]) if ranked else errors
