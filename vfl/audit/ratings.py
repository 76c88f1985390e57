"""What whoever sums a federated factorisation can find out about rated items and ratings.

`expose` takes apart what was seen of a participant, or of all together: `vfl/audit/sums.py` and `steps.py`
say how. It yields residuals, ratings less the personal mask; `judge` then has attackers add back what it
hides, and scores them on the ratings that truly train:

    as it is    takes the residual for the rating
    midpoint    adds the middle of the scale
    scale       adds, for each user, what puts all of the user's ratings on the scale and, where that can be
                seen, on its steps, and their mean nearest to what is usual: two thirds up
    monotone    knows some of the ratings, and fits an increasing function of the residual to them
    shift       knows them, and adds each user's mean of rating less residual
    both        fits the function to what the last one says

A rating of which no residual was found is guessed from the mean that its item's sums give.

A score means something beside that of knowing nothing: R² is 0 for whoever names the mean of the ratings that
are attacked, and falls below for an attacker that took noise for knowledge; an AUC is 0.5, and an average
precision the share of items that are rated, for whoever draws lots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from vfl.audit.steps import take_steps_apart
from vfl.audit.sums import Exposed, Numbers, take_apart
from vfl.audit.sums import Seen as Seen
from vfl.errors import ConfigError
from vfl.ratings.holding import RatingsHolding
from vfl.rng import derive_seed

#: The attackers that know none of the ratings.
UNAIDED = ("as it is", "midpoint", "scale")
_FEWEST_KNOWN = 4
_USUAL = 2 / 3
#: How much the parts beyond whole steps must agree (the mean of their angles' unit vectors) to be seen.
_AGREE = 0.9


@dataclass(frozen=True)
class Leak:
    """Is how well a participant's ratings were read.

    Attributes:
        auc: of telling what is rated from what is not; NaN where all is, or nothing.
        precision: the average precision of that.
        chance: the share of shared entities that are rated: the average precision of drawing lots.
        r2: for each attacker the share of the ratings' variance that it explains.
        rmse: of the best of them.
        baseline: of naming the mean.
        read: the share of the ratings whose residual was found, with whose it is.
        outright: the share of them known without a number that is left open for each user.
        known: how many ratings the attackers that know some know.
    """

    auc: float
    precision: float
    chance: float
    r2: Mapping[str, float]
    rmse: float
    baseline: float
    read: float
    outright: float
    known: int

    @property
    def best(self) -> float:
        """The R² of the best attacker."""
        return max(self.r2.values())

    @property
    def unaided(self) -> float:
        """The R² of the best attacker that knows no rating."""
        return max(self.r2[name] for name in UNAIDED)


def expose(seen: Seen) -> Exposed:
    """Finds out what there is to be found out in what was seen.

    Raises:
        ConfigError: nothing was seen.
    """
    if not seen.sums or len(seen.sums) != len(seen.shared):
        raise ConfigError("nothing was seen, or not with which factors: give the sums and factors of rounds")
    return take_apart(seen) if seen.solver == "als" else take_steps_apart(seen)


def judge(
    found: Exposed, holding: RatingsHolding, auxiliary: float = 0.05, seed: int = 0, step: float = 0.5
) -> Leak:
    """Scores what was found out on the ratings that train.

    Args:
        found: what `expose` found.
        holding: the ratings attacked: of a participant, or those of all, merged.
        auxiliary: the share of the ratings that attackers know; four at the least.
        seed: draws these.
        step: what ratings are multiples of.

    Raises:
        ConfigError: there are too few ratings, or they are all equal.
    """
    part = holding.train
    residual, whose, outright = _matched(found, holding)
    known = _known(len(part), auxiliary, seed)
    rest = np.setdiff1d(np.arange(len(part)), known)
    truth = part.value[rest]
    spread = float(((truth - truth.mean()) ** 2).mean()) if len(rest) else 0.0
    if not spread:
        raise ConfigError("the ratings to attack are none, or all equal: there is nothing to find out")
    guesses = _guesses(residual, whose, holding.scale, step, known, part.value)
    errors = {
        name: float(((np.clip(guess, *holding.scale)[rest] - truth) ** 2).mean())
        for name, guess in guesses.items()
    }
    rated = np.isin(np.arange(holding.m), part.shared)
    is_open = 0 < rated.sum() < holding.m
    return Leak(
        float(roc_auc_score(rated, found.rated)) if is_open else math.nan,
        float(average_precision_score(rated, found.rated)),
        float(rated.mean()),
        {name: 1 - error / spread for name, error in errors.items()},
        math.sqrt(min(errors.values())),
        math.sqrt(spread),
        float((whose >= 0).mean()),
        float(outright.mean()),
        len(known),
    )


def _matched(found: Exposed, holding: RatingsHolding) -> tuple[Numbers, NDArray[np.int64], NDArray[np.bool_]]:
    """Lays what was found beside the ratings: residuals, the attacker's number of their user, known outright.

    The attacker's users have no names. For the score each goes by the name of one user, so that most of what
    they rated is the same.
    """
    part, n = holding.train, len(holding.train)
    residual = found.level[part.shared].astype(np.float64)
    whose, outright = np.full(n, -1), np.zeros(n, bool)
    if not len(found.own):
        return residual, whose, outright
    user = _named(found, holding)
    place = {pair: at for at, pair in enumerate(zip(part.own.tolist(), part.shared.tolist(), strict=True))}
    for at, (own, shared) in enumerate(zip(found.own.tolist(), found.shared.tolist(), strict=True)):
        row = place.get((user.get(own, -1), shared))
        if row is not None:
            residual[row], whose[row], outright[row] = found.residual[at], own, found.anchored[at]
    return residual, whose, outright


def _named(found: Exposed, holding: RatingsHolding) -> dict[int, int]:
    """Gives each of the attacker's users a true one, those of most ratings first."""
    part = holding.train
    theirs = np.zeros((int(found.own.max()) + 1, holding.m), np.float32)
    theirs[found.own, found.shared] = 1.0
    truly = np.zeros((holding.n_own, holding.m), np.float32)
    truly[part.own, part.shared] = 1.0
    alike = theirs @ truly.T  # [attacker's users, users]
    named: dict[int, int] = {}
    for one in np.argsort(-theirs.sum(axis=1), kind="stable").tolist():
        best = int(alike[one].argmax())
        if alike[one, best] > 0:
            named[one] = best
            alike[:, best] = 0.0
    return named


def _known(n: int, auxiliary: float, seed: int) -> NDArray[np.int64]:
    if not 0 < auxiliary < 1:
        raise ConfigError(f"auxiliary = {auxiliary} is no share of the ratings: give one between 0 and 1")
    count = max(round(auxiliary * n), _FEWEST_KNOWN)
    return np.sort(np.random.default_rng(derive_seed(seed, "known ratings")).permutation(n)[:count])


def _guesses(
    residual: Numbers,
    whose: NDArray[np.int64],
    scale: tuple[float, float],
    step: float,
    known: NDArray[np.int64],
    value: Numbers,
) -> dict[str, Numbers]:
    """Gives each attacker's guesses; of `value` only what is known may be used."""
    middle = sum(scale) / 2
    hidden = value[known] - residual[known]
    groups = np.where(
        whose < 0, whose.max(initial=-1) + 1, whose
    )  # those that nobody was found for: one group
    counts = np.bincount(groups[known], minlength=groups.max() + 1)
    sums = np.bincount(groups[known], hidden, minlength=groups.max() + 1)
    shifted = residual + ((sums + hidden.mean()) / (counts + 1))[groups]
    return {
        "as it is": residual,
        "midpoint": residual + middle,
        "scale": residual + _fitting(residual, groups, scale, step)[groups],
        "monotone": _monotone(residual, known, value),
        "shift": shifted,
        "both": _monotone(shifted, known, value),
    }


def _fitting(
    residual: Numbers, groups: NDArray[np.int64], scale: tuple[float, float], step: float
) -> Numbers:
    """Finds for each group what to add: on the scale, on its steps, and usual in the mean."""
    n = int(groups.max()) + 1
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, groups, residual)
    np.maximum.at(high, groups, residual)
    counts = np.maximum(np.bincount(groups, minlength=n), 1)
    usual = scale[0] + _USUAL * (scale[1] - scale[0]) - np.bincount(groups, residual, n) / counts
    angles = 2 * np.pi * residual / step
    across, up = (np.bincount(groups, part, n) / counts for part in (np.cos(angles), np.sin(angles)))
    beyond = -np.arctan2(up, across) / (2 * np.pi) * step  # what takes the group to whole steps
    on_steps = beyond + step * np.rint((np.clip(usual, scale[0] - low, scale[1] - high) - beyond) / step)
    is_seen = (np.hypot(across, up) > _AGREE) & (counts > 2)
    fits = np.where(is_seen, on_steps, np.clip(usual, scale[0] - low, scale[1] - high))
    return np.asarray(np.where(np.isfinite(fits), fits, 0.0))


def _monotone(residual: Numbers, known: NDArray[np.int64], value: Numbers) -> Numbers:
    fitted = IsotonicRegression(out_of_bounds="clip").fit(residual[known], value[known])
    return np.asarray(fitted.predict(residual))
