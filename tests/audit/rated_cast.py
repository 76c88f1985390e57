"""Trains a few rounds without a dialogue, and keeps what whoever sums would see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import Optimizer

from vfl.audit.ratings import Seen
from vfl.learn.optimise import build_optimizer
from vfl.masking.ring import Ring
from vfl.ratings.factors import Factors, Residuals, begin_factors, begin_shared, make_residuals
from vfl.ratings.fixed import decode, default_ring
from vfl.ratings.gradients import gradients, shared_gradient
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.least_squares import solve_own, solve_shared, statistics
from vfl.ratings.personal import PersonalMask

SCALE = (0.5, 5.0)
REGULARISATION = 0.2


def drawn(
    n_users: int,
    m: int,
    ratings: int,
    seed: int = 0,
    *,
    user: float = 0.5,
    item: float = 0.5,
    noise: float = 0.5,
) -> RatingsHolding:
    """Draws so many ratings of each user, the most of few items.

    `user`, `item` and `noise` are the deviations of users' offsets, of items' and of chance.
    """
    rng = np.random.default_rng(seed)
    weight = np.arange(1, m + 1) ** -0.8
    drawn_items = [rng.choice(m, ratings, replace=False, p=weight / weight.sum()) for _ in range(n_users)]
    own, shared = (
        np.repeat(np.arange(n_users), ratings),
        np.concatenate([np.sort(one) for one in drawn_items]),
    )
    offsets = rng.normal(0, user, n_users)[own] + rng.normal(0, item, m)[shared]
    value = np.clip(np.rint(2 * (3.3 + offsets + rng.normal(0, noise, len(own)))) / 2, *SCALE)
    none = Part(own[:0], shared[:0], value[:0])
    ids = tuple(f"u{place:04}" for place in range(n_users))
    items = tuple(f"i{place:05}" for place in range(m))
    parts = {"train": Part(own, shared, value), "valid": none, "test": none}
    return RatingsHolding("drawn", "user", SCALE, ids, items, seed, parts)


def one_user(holding: RatingsHolding, user: int) -> RatingsHolding:
    """Takes one user's ratings."""
    part = holding.train
    at = part.own == user
    mine = Part(np.zeros(int(at.sum()), np.int64), part.shared[at], part.value[at])
    parts = holding.parts | {"train": mine}
    return RatingsHolding(
        "drawn", "user", SCALE, (holding.own_ids[user],), holding.shared_ids, holding.seed, parts
    )


def watched(
    holdings: Sequence[RatingsHolding],
    masks: Sequence[PersonalMask],
    *,
    solver: str = "als",
    rounds: int = 8,
    rank: int = 4,
) -> tuple[list[Seen], Seen, Ring]:
    """Trains; returns what is seen of each, what is seen of their sum, and the ring."""
    residuals = [make_residuals(one, mask) for one, mask in zip(holdings, masks, strict=True)]
    factors = [begin_factors(one, rank, 1) for one in holdings]
    n = sum(len(one.y) for one in residuals)
    mu = sum(float(one.y.sum()) for one in residuals) / n
    ring, server = default_ring(solver, len(holdings)), begin_shared(holdings[0].m, rank, 1)
    for one, left in zip(factors, residuals, strict=True):
        one.mu.fill_(mu)
        if solver == "als":
            solve_own(one, left, REGULARISATION)
    optimizers = _optimizers([server.shared, *(one.own for one in factors)])
    own: list[list[np.ndarray]] = [[] for _ in holdings]
    totals, shared = [], []
    for _ in range(rounds):
        shared.append(server.say_shared().numpy())
        said = [
            _said(one, left, ring, solver, holdings[0].m / n)
            for one, left in zip(factors, residuals, strict=True)
        ]
        for kept, elements in zip(own, said, strict=True):
            kept.append(decode(elements, ring))
        total = ring.total(said)
        totals.append(decode(total, ring))
        if solver == "als":
            server.take_shared(solve_shared(total, ring, rank, REGULARISATION))
        else:
            shared_gradient(total, ring, server, holdings[0].m / n)
            _step(optimizers)
        for one, left in zip(factors, residuals, strict=True):
            one.take_shared(server.say_shared())
            if solver == "als":
                solve_own(one, left, REGULARISATION)
    unit = 2.0**-ring.fraction_bits
    seen = [Seen(solver, kept, shared, mu, REGULARISATION, unit) for kept in own]
    return seen, Seen(solver, totals, shared, mu, REGULARISATION, unit), ring


def _said(factors: Factors, residuals: Residuals, ring: Ring, solver: str, weight: float) -> Tensor:
    if solver == "als":
        return statistics(factors, residuals, ring)[0]
    return gradients(factors, residuals, ring, REGULARISATION, weight)[0]


def _optimizers(parameters: Sequence[Parameter]) -> list[Optimizer | None]:
    return [build_optimizer([one], {"name": "Adam", "lr": 0.02}, "test") for one in parameters]


def _step(optimizers: Sequence[Optimizer | None]) -> None:
    for one in optimizers:
        assert one is not None
        one.step()


def under_masks(seen: Seen, ring: Ring, seed: int = 0) -> Seen:
    """Covers what was seen with uniform numbers of the ring, as masks do."""
    rng = np.random.default_rng(seed)
    unit = 2.0**-ring.fraction_bits
    half = 2 ** (ring.bits - 1)
    sums = [rng.integers(-half, half, one.shape, dtype=np.int64) * unit for one in seen.sums]
    return Seen(seen.solver, sums, seen.shared, seen.mu, seen.regularisation, unit)
