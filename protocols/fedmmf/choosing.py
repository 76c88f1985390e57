"""Whether a participant's own mask protects its ratings well enough to contribute in the clear.

Who sees plain contributions can, at worst, find every residual m = r - g (docs/protocols/fedmmf.md). So the
criterion asks what of the ratings r follows from the residuals: the largest share of their variance, R²,
that one of four attackers explains, each told the residuals exactly.

    midpoint    guesses that g is the middle of the scale
    own means   knows each own entity's mean rating: one number each, which the ends of the scale give away
    monotone    knows the best increasing function of m, fitted on the ratings themselves
    averages    knows the best increasing function of the mean m of all ratings of one shared entity

The third bounds whoever guesses each rating from its own residual alone, and higher for a higher one; the
last whoever averages what chance adds to single residuals away, and learns what the means stand for.
"""

from __future__ import annotations

import numpy as np
from sklearn.isotonic import IsotonicRegression

from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask


def explained(holding: RatingsHolding, mask: PersonalMask) -> dict[str, float]:
    """Returns for each attacker the share of the variance of the training ratings that it explains."""
    part = holding.train
    residual = part.value - mask.of(part.own, part.shared)
    counts = np.maximum(np.bincount(part.own, minlength=holding.n_own), 1)
    means = np.bincount(part.own, part.value, minlength=holding.n_own) / counts
    raters = np.maximum(np.bincount(part.shared, minlength=holding.m), 1)
    average = np.bincount(part.shared, residual, minlength=holding.m) / raters
    guesses = {
        "midpoint": residual + sum(holding.scale) / 2,
        "own means": residual + means[part.own],
        "monotone": IsotonicRegression().fit_transform(residual, part.value),
        "averages": IsotonicRegression().fit_transform(average[part.shared], part.value),
    }
    return {name: _r_squared(guess, part.value) for name, guess in guesses.items()}


def may_be_plain(holding: RatingsHolding, mask: PersonalMask, *, below: float, owners: int) -> bool:
    """Tells whether the best attacker explains no more than `below`, and there are so many own entities."""
    return holding.n_own >= owners and max(explained(holding, mask).values()) <= below


def _r_squared(guess: np.ndarray, truth: np.ndarray) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    missed = float(((guess - truth) ** 2).sum())
    return 1.0 - missed / spread if spread > 0 else 1.0  # ratings that are all equal are guessed by anybody
