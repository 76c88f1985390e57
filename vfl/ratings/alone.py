"""The whole training without a dialogue: at one holder, or at several whose sums are taken directly.

It is what federated training must equal, what a participant would have alone, and, with all ratings in
one holding, the centralised factorisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor
from torch.optim.optimizer import Optimizer

from vfl.learn.optimise import build_optimizer
from vfl.learn.plan import Plan, Selection
from vfl.masking.ring import Ring
from vfl.ratings.factors import Factors, Residuals, begin_factors, begin_shared, make_residuals
from vfl.ratings.fixed import SUMS, default_ring
from vfl.ratings.gradients import gradients, groups, shared_gradient
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.least_squares import solve_own, solve_shared, statistics
from vfl.ratings.personal import PersonalMask
from vfl.ratings.ranking import ranking_scores, ranking_sums
from vfl.ratings.scores import error_scores, error_sums, mean_residual, residual_sums

#: What own and shared factors move by, where solver = "sgd" and nothing else is set.
DEFAULT_OPTIMIZER: Final = {"name": "Adam", "lr": 0.02}


@dataclass(frozen=True)
class Settings:
    """Says how to train.

    Attributes:
        plan: how many rounds, and which to keep.
        rank: r.
        regularisation: the weight of factors beside that of errors, a rating.
        solver: "als" or "sgd".
        batches: for "sgd", into how many groups a round's ratings are parted.
        optimizer: for "sgd", as `vfl.learn.optimise` has it.
        ring: where sums are taken; None for the solver's own.
        seed: the job's.
        fewest_raters: for "als", how many ratings a shared entity needs for factors of its own.
    """

    plan: Plan
    rank: int = 8
    regularisation: float = 0.2
    solver: str = "als"
    batches: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_OPTIMIZER))
    ring: Ring | None = None
    seed: int = 0
    fewest_raters: int = 1


@dataclass(eq=False)
class Holder:
    """Is one participant in a training without a dialogue."""

    holding: RatingsHolding
    mask: PersonalMask
    factors: Factors
    residuals: Residuals
    groups: list[Any]
    optimizer: Optimizer | None


@dataclass(frozen=True, eq=False)
class Alone:
    """Is what a training without a dialogue ends with.

    Attributes:
        factors: of each holder, those of the best round.
        history: the validation scores of each round, from the first; of ranks only where one is the metric.
        best_round: which was kept, from 1.
        valid: the scores of that round.
        test: likewise; ranks, too, where each user's items are at one holder.
        clamped: how many sums were clamped in all.
    """

    factors: list[Factors]
    history: list[dict[str, float]]
    best_round: int
    valid: dict[str, float]
    test: dict[str, float]
    clamped: int


def train_alone(holding: RatingsHolding, mask: PersonalMask, settings: Settings) -> Alone:
    """Trains at one holder.

    Raises:
        DataError: it has fewer than two ratings that train.
        ConfigError: a setting cannot be used, or training has diverged.
    """
    return train_all([holding], [mask], settings)


def train_all(holdings: Sequence[RatingsHolding], masks: Sequence[PersonalMask], settings: Settings) -> Alone:
    """Trains at several holders as federated training does, but takes their sums directly.

    Raises:
        DataError: a holder has fewer than two ratings that train.
        ConfigError: a setting cannot be used, or training has diverged.
    """
    holders = [_holder(holding, mask, settings) for holding, mask in zip(holdings, masks, strict=True)]
    server = begin_shared(holdings[0].m, settings.rank, settings.seed)
    mu, n = mean_residual(SUMS.total([residual_sums(one.residuals)[0] for one in holders]))
    for one in holders:
        one.factors.mu.fill_(mu)
    rounds = _Rounds(holders, server, settings, server.shared.shape[0] / max(n, 1))
    history: list[dict[str, float]] = []
    selection = Selection(settings.plan)
    best: list[dict[str, Tensor]] = []
    while not selection.is_over(len(history)):
        rounds.go()
        history.append(_scores(holders, "valid", rank=settings.plan.metric not in ("rmse", "mae")))
        if selection.judge(len(history), history[-1]):
            best = [_copied(one.factors) for one in holders]
    for one, state in zip(holders, best, strict=True):
        one.factors.load_state_dict(state)
    valid, test = (_scores(holders, split, rank=holdings[0].by == "user") for split in ("valid", "test"))
    kept = [one.factors for one in holders]
    return Alone(kept, history, selection.best_epoch, valid, test, rounds.clamped)


class _Rounds:
    """Goes through the rounds of one training."""

    def __init__(self, holders: list[Holder], server: Factors, settings: Settings, weight: float) -> None:
        self.clamped = 0
        self._holders, self._server, self._settings, self._weight = holders, server, settings, weight
        self._ring = settings.ring or default_ring(settings.solver, len(holders))
        self._optimizer = build_optimizer([server.shared], settings.optimizer, "optimizer")
        if settings.solver == "als":
            self._solve_own()

    def go(self) -> None:
        """Goes through one round."""
        if self._settings.solver == "als":
            self._least_squares()
        else:
            for batch in range(self._settings.batches):
                self._step(batch)

    def _least_squares(self) -> None:
        said = [statistics(one.factors, one.residuals, self._ring) for one in self._holders]
        total = self._total(said)
        settings = self._settings
        found = solve_shared(
            total, self._ring, settings.rank, settings.regularisation, settings.fewest_raters
        )
        self._take(found)
        self._solve_own()

    def _solve_own(self) -> None:
        for one in self._holders:
            solve_own(one.factors, one.residuals, self._settings.regularisation)

    def _step(self, batch: int) -> None:
        said = []
        for one in self._holders:
            given = (one.factors, one.residuals, self._ring, self._settings.regularisation, self._weight)
            said.append(gradients(*given, one.groups[batch], self._settings.batches))
        shared_gradient(self._total(said), self._ring, self._server, self._weight, self._settings.batches)
        for optimizer in (self._optimizer, *(one.optimizer for one in self._holders)):
            assert optimizer is not None  # noqa: S101 - factors are parameters
            optimizer.step()
        self._take(self._server.say_shared())

    def _total(self, said: list[tuple[Tensor, int]]) -> Tensor:
        self.clamped += sum(clamped for _, clamped in said)
        return self._ring.total([elements for elements, _ in said])

    def _take(self, shared: Tensor) -> None:
        for one in self._holders:
            one.factors.take_shared(shared)


def _holder(holding: RatingsHolding, mask: PersonalMask, settings: Settings) -> Holder:
    holding.check_trainable()
    factors = begin_factors(holding, settings.rank, settings.seed)
    parted = groups(holding, settings.batches) if settings.solver == "sgd" else []
    optimizer = build_optimizer([factors.own], settings.optimizer, "optimizer")
    return Holder(holding, mask, factors, make_residuals(holding, mask), parted, optimizer)


def _scores(holders: Sequence[Holder], split: str, *, rank: bool) -> dict[str, float]:
    errors = [error_sums(one.factors, one.mask, one.holding, split) for one in holders]
    found = error_scores(SUMS.total(errors))
    if rank:
        ranks = [ranking_sums(one.factors, one.mask, one.holding, split) for one in holders]
        found |= ranking_scores(SUMS.total(ranks))
    return found


def _copied(factors: Factors) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in factors.state_dict().items()}
