"""Takes summed gradients apart: who rated what, and how, less what a participant's mask hides.

A shared entity's sum in the first step is  G = Σ (λ q - e p)  and  G_b = - Σ e  over those who rated it, with
the error  e = m - mu - p · q - b , since all offsets of users begin at zero. Of one user, then, the last
number gives e, and all others together p by least squares; so m is known outright. Of several, an item with
one rater gives that rater's p, if one knows that it has one rater: two items that give the same p do.
(The own entities here are called users, the shared ones items.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN

from vfl.audit.sums import Exposed, Numbers, Seen, nothing_but, scrambled

#: Errors below it are too small to divide by, at first.
_LARGE: Final = 0.2
#: What a sum of one participant's gradients stays below, and masked ones do not.
_MOST: Final = 2.0**12
#: In units of what fixed point rounds to.
_SLACK: Final = 8.0


def take_steps_apart(seen: Seen) -> Exposed:
    """Finds users and residuals in the sums of the first step of a training by gradients."""
    sums, factors = seen.sums[0], seen.shared[0]
    rated = np.max([np.abs(one).max(axis=1) for one in seen.sums], axis=0)
    errors = -sums[:, -1]
    # Nothing of a ring's whole range is a sum of gradients: half of it would be beyond a quarter.
    if np.median(rated) > _MOST or not np.isfinite(sums).all():
        return nothing_but(scrambled(sums[:, -1]), scrambled(sums[:, 0]))
    there = np.flatnonzero(rated > 0)
    level = seen.mu + np.clip(errors, -1.0, 1.0)
    pulled = seen.regularisation * factors[:, :-1] - sums[:, :-1]  # [m, r], e p where one has rated
    one = _single(pulled[there], errors[there], seen.unit)
    if one is not None:
        users, own = one[None], np.zeros(len(there), np.int64)
    else:
        users, own = _several(pulled[there], errors[there], seen.unit)
    known = own >= 0
    own, shared = own[known], there[known]
    base = (users[own] * factors[shared, :-1]).sum(axis=1) + factors[shared, -1]
    residual = seen.mu + errors[shared] + base
    return Exposed(rated, level, own, shared, residual, np.ones(len(own), bool))


def _fitted(pulled: Numbers, errors: Numbers) -> Numbers:
    return np.asarray(errors @ pulled / max(float(errors @ errors), 1e-12))


def _single(pulled: Numbers, errors: Numbers, unit: float) -> Numbers | None:
    """Finds the p that all these sums share; None where there is none."""
    if not len(errors):
        return None
    p = _fitted(pulled, errors)
    off = np.abs(pulled - errors[:, None] * p).max()
    return p if off <= _SLACK * unit * (1 + np.abs(p).max()) else None


def _several(pulled: Numbers, errors: Numbers, unit: float) -> tuple[Numbers, NDArray[np.int64]]:
    """Finds p that at least two of these sums share: [users, r], and whose each sum is, or -1."""
    large = np.flatnonzero(np.abs(errors) > _LARGE)
    if len(large) < 2:
        return np.zeros((0, pulled.shape[1])), np.full(len(errors), -1)
    points = pulled[large] / errors[large, None]
    label = DBSCAN(eps=_SLACK * unit / _LARGE, min_samples=2).fit_predict(points)  # -1: like no other
    groups = [large[label == one] for one in range(label.max() + 1)]
    users = np.array([_fitted(pulled[group], errors[group]) for group in groups])
    own = np.full(len(errors), -1)
    for place, p in enumerate(users):
        off = np.abs(pulled - errors[:, None] * p).max(axis=1)
        own[(off <= _SLACK * unit) & (np.abs(errors) > _SLACK * unit * 4)] = place
    return users.reshape(-1, pulled.shape[1]), own
