"""The shared factors, as whoever takes the step for them has them: the coordinator, or everybody alike."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from protocols.fedmmf.roster import Config
from vfl.crypto.pairs import framed
from vfl.learn.learner import Learner
from vfl.learn.optimise import build_optimizer
from vfl.masking.ring import Ring
from vfl.ratings.factors import Factors, begin_shared
from vfl.ratings.gradients import shared_gradient
from vfl.ratings.least_squares import solve_shared
from vfl.ratings.ranking import ranking_scores
from vfl.ratings.scores import error_scores
from vfl.rng import derive_seed


class SharedSide:
    """Holds the shared factors and learns from sums.

    Args:
        config: the protocol's.
        m: how many shared entities there are.
        ring: where their statistics are summed.
        seed: the job's.
    """

    def __init__(self, config: Config, m: int, ring: Ring, seed: int) -> None:
        self.weight = 1.0
        """The loss's, m / n, once n is known."""
        self.model = begin_shared(m, config.rank, seed)
        self._config, self._ring, self._m, self._seed = config, ring, m, seed
        optimizer = None
        if config.solver == "sgd":
            optimizer = build_optimizer([self.model.shared], config.optimizer, "protocols.fedmmf.optimizer")
        self.learner = Learner(self.model, optimizer)

    def learn(self, total: Tensor) -> None:
        """Takes the step that a sum [m, t] gives cause for."""
        if self._config.solver == "als":
            config = self._config
            found = solve_shared(total, self._ring, config.rank, config.regularisation, config.fewest_raters)
            self.model.take_shared(found)
        else:
            shared_gradient(total, self._ring, self.model, self.weight, self._config.batches)
            self.learner.step()

    def drop(self, roster: int) -> None:
        """Goes on without a step, so that no sum is taken again with the same factors.

        Own factors that take gradient steps have moved. Exact ones follow from the shared ones alone, so
        these begin anew, from the roster's number.
        """
        if self._config.solver == "als":
            self.model.take_shared(begun_anew(self._config, self._m, self._seed, roster))

    def say(self) -> Tensor:
        """Copies the shared factors, [m, r + 1]."""
        return self.model.say_shared()


def begun_anew(config: Config, m: int, seed: int, roster: int) -> Tensor:
    """Draws the shared factors [m, r + 1] with which exact solving goes on under a later roster."""
    return begin_shared(m, config.rank, derive_seed(seed, "roster", str(roster))).say_shared()


def take_own_step(factors: Factors, learner: Learner) -> None:
    """Moves own factors, and not the shared ones, by the gradient that was set."""
    factors.shared.grad = None
    learner.step()


def mark_of(shared_ids: tuple[str, ...], nonce: bytes) -> int:
    """Hashes the ids of the shared axis, keyed with the session's nonce, in 63 bits."""
    hashed = hashlib.sha256(nonce + framed(*map(str.encode, shared_ids)))
    return int.from_bytes(hashed.digest()[:8], "big") >> 1


def scores_of(total: Tensor) -> dict[str, float]:
    """Reads the sums of errors, and those of ranks where there are any."""
    scores = error_scores(total[:3])
    return scores | ranking_scores(total[3:]) if len(total) > 3 else scores


def flat(total: Tensor) -> Tensor:
    """Shows a total [1, w] as [w]."""
    return torch.from_numpy(np.ascontiguousarray(total.numpy().reshape(-1)))
