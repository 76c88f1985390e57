"""A matrix factorisation written without the framework: loops over dicts, to hold the framework's against."""

from __future__ import annotations

import math

import numpy as np
import torch

Triples = list[tuple[int, int, float]]


def als(
    train: Triples, n_own: int, shared: np.ndarray, mu: float, lam: float, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Alternates least squares from these shared factors [m, r + 1]; ends with own ones for the last."""
    own = np.zeros((n_own, shared.shape[1]))
    shared = shared.copy()
    _solve(own, shared, [(o, j, y - mu) for o, j, y in train], lam)
    for _ in range(rounds):
        _solve(shared, own, [(j, o, y - mu) for o, j, y in train], lam)
        _solve(own, shared, [(o, j, y - mu) for o, j, y in train], lam)
    return own, shared


def _solve(mine: np.ndarray, theirs: np.ndarray, train: Triples, lam: float) -> None:
    for one in range(len(mine)):
        rows = [(theirs[other], y) for at, other, y in train if at == one]
        if not rows:
            mine[one] = 0.0
            continue
        x = np.array([[*row[:-1], 1.0] for row, _ in rows])
        y = np.array([y - row[-1] for row, y in rows])
        held = np.diag([lam * len(rows)] * (x.shape[1] - 1) + [2.0])
        mine[one] = np.linalg.solve(x.T @ x + held, x.T @ y)


def sgd(
    train: Triples,
    own: np.ndarray,
    shared: np.ndarray,
    *,
    mu: float,
    lam: float,
    rounds: int,
    fraction_bits: int,
    make: type[torch.optim.Optimizer],
    **options: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Takes full-batch gradient steps; what is summed over a shared entity is rounded rating by rating."""
    weight = len(shared) / len(train)
    p, q = (torch.nn.Parameter(torch.tensor(one)) for one in (own, shared))
    steps = [make([one], **options) for one in (p, q)]
    k, unit = shared.shape[1], 2.0**fraction_bits
    for _ in range(rounds):
        mine, theirs = p.detach().numpy().tolist(), q.detach().numpy().tolist()
        to_own = [[0.0] * k for _ in mine]
        to_shared = [[0] * k for _ in theirs]
        counts = [0] * len(mine)
        for o, j, y in sorted(train):
            said = mine[o][-1] + theirs[j][-1]
            for a in range(k - 1):
                said += mine[o][a] * theirs[j][a]
            error = y - mu - said
            counts[o] += 1
            for a in range(k):
                to_own[o][a] += -error * (theirs[j][a] if a < k - 1 else 1.0)
                held = lam * theirs[j][a] if a < k - 1 else 0.0
                to_shared[j][a] += _nearest((held - error * (mine[o][a] if a < k - 1 else 1.0)) * unit)
        to_p = [
            [
                (g + (lam * n * x if a < k - 1 else 2.0 * x)) * weight
                for a, (g, x) in enumerate(zip(g_o, x_o, strict=True))
            ]
            for n, g_o, x_o in zip(counts, to_own, mine, strict=True)
        ]
        to_q = [
            [
                (g / unit + (2.0 * x if a == k - 1 else 0.0)) * weight
                for a, (g, x) in enumerate(zip(g_j, x_j, strict=True))
            ]
            for g_j, x_j in zip(to_shared, theirs, strict=True)
        ]
        p.grad, q.grad = (torch.tensor(one, dtype=torch.float64) for one in (to_p, to_q))
        for step_once in steps:
            step_once.step()
    return p.detach().numpy(), q.detach().numpy()


def _nearest(value: float) -> int:
    down = math.floor(value)
    return down + (value - down > 0.5 or (value - down == 0.5 and down % 2 == 1))
