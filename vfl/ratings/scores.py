"""How far predictions are off, as sums that participants can add up without showing their own."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from vfl.ratings.factors import Factors, Residuals, predict
from vfl.ratings.fixed import SUMS, decode, fixed_total, scalar_elements
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask


def residual_sums(residuals: Residuals) -> tuple[Tensor, int]:
    """Sums a participant's residuals and counts them.

    Returns:
        Elements of SUMS [2]; and how many of the two were clamped.

    Raises:
        ConfigError: a residual is not finite.
    """
    count = len(residuals.y) << SUMS.fraction_bits
    return scalar_elements([fixed_total(residuals.y), count])


def mean_residual(total: Tensor) -> tuple[float, int]:
    """Gives mu, the mean over all participants, and how many ratings train, from the total [2]."""
    residual, count = decode(total, SUMS).tolist()
    return (residual / count if count else 0.0), round(count)


def error_sums(factors: Factors, mask: PersonalMask, holding: RatingsHolding, split: str) -> Tensor:
    """Sums squared and absolute errors of a split's ratings and counts them: elements of SUMS [3].

    Raises:
        ConfigError: training has diverged.
    """
    part = holding.parts[split]
    errors = part.value - predict(factors, mask, holding.scale, part.own, part.shared)
    sums = [fixed_total(errors * errors), fixed_total(np.abs(errors)), len(part) << SUMS.fraction_bits]
    return scalar_elements(sums)[0]


def error_scores(total: Tensor) -> dict[str, float]:
    """Gives rmse and mae from all participants' `error_sums`; nothing where no rating was counted."""
    squared, absolute, count = decode(total, SUMS).tolist()
    return {"rmse": math.sqrt(squared / count), "mae": absolute / count} if count else {}
