"""Feature reconstruction: how much of a party's columns can be read out of what another party received.

The attacker holds what it saw of n rows, and for a few of these, the auxiliary rows, it knows the columns
too (customers that both have, a table bought elsewhere). On those it learns to decode, and decodes all the
others. Nothing is taken from the party that is attacked but what it said.

An error means something only beside that of knowing nothing: naming every column's mean over the auxiliary
rows. That is the baseline, and the score `1 - error / baseline` is 0 for it and 1 for every value exact; it
falls below 0 for an attacker that took noise for knowledge. Both attacks here guard against that: they leave
the means only as far as it clearly helps on known rows that they did not learn from. On independent noise
they score 0, within 0.02 from 60 known rows on, and below it rather than above.

n stands for rows, d for the numbers seen of a row, p for the columns to reconstruct, m for auxiliary rows.

Source: a decoder of the intermediate output, Pasquini, Ateniese and Bernaschi, arXiv 2012.02670, section 3,
and He, Zhang and Lee, Model inversion attacks against collaborative inference, ACSAC 2019, here with known
rows in place of a shadow network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vfl.errors import ConfigError
from vfl.rng import RngStream, derive_seed

Numbers = NDArray[np.float64]
Reading = Literal["value", "bytes", "bits"]

# Of the largest squared singular value: from plain least squares to nothing but the means.
_RIDGES: Final = 10.0 ** np.arange(-10, 4)
_HELD_BACK: Final = 0.2
_LOOK_EVERY: Final = 10
_PATIENCE: Final = 15
_RATE: Final = 3e-3


@dataclass(frozen=True)
class Reconstruction:
    """Is how well an attack read a party's columns, on the rows that it did not know.

    Attributes:
        error: the mean squared error over these rows and all columns.
        baseline: that of naming each column's mean over the auxiliary rows.
        columns: [p] each column's own score; NaN where the baseline makes no error, as in a constant column.
        auxiliary: how many rows the attacker knew.
        attacked: how many it did not.
    """

    error: float
    baseline: float
    columns: tuple[float, ...]
    auxiliary: int
    attacked: int

    @property
    def score(self) -> float:
        """The share of what is to be known that the attack found out: 1 is all, 0 nothing, R² by name."""
        return 1.0 - self.error / self.baseline


def as_numbers(seen: object, reading: Reading = "value") -> Numbers:
    """Turns what was received into numbers that an attack can compute with.

    Args:
        seen: [n, d] floats, or int32 or int64: the bit patterns of a ring Z_{2^32} or Z_{2^64}.
        reading: for integers only. "value" takes each as a number; "bytes" gives its bytes, from 0 to 255,
            and "bits" its bits, so that an attacker finds what only some of them tell.

    Returns:
        [n, d], or [n, d × bytes], or [n, d × bits].

    Raises:
        ConfigError: if these are no such numbers.
    """
    array = np.asarray(seen)
    if array.ndim != 2:
        raise ConfigError(f"what was seen has shape {array.shape}: give one line a row, [n, d]")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ConfigError("what was seen is not finite everywhere: leave those rows out")
        return array.astype(np.float64)
    if array.dtype not in (np.int32, np.int64):
        raise ConfigError(f"what was seen is {array.dtype}: give floats, int32 or int64")
    if reading == "value":
        return array.astype(np.float64)
    # The sign's bit turned over makes the order of the patterns that of the numbers.
    turned = np.ascontiguousarray(array ^ np.iinfo(array.dtype).min)
    octets = turned.astype(array.dtype.newbyteorder("<")).view(np.uint8)  # [n, d × bytes]
    return (octets if reading == "bytes" else np.unpackbits(octets, axis=1)).astype(np.float64)


def least_squares_attack(
    seen: object,
    features: object,
    auxiliary: float | Sequence[int] | NDArray[np.int64],
    *,
    reading: Reading = "value",
    seed: int = 0,
) -> Reconstruction:
    """Decodes with one linear map, which undoes a cut at the first layer as far as it can be undone.

    The map is ridge regression; how strong the ridge is, each column's error on auxiliary rows that are
    left out one at a time decides, which has a closed form. A column whose error is not clearly below that
    of its mean, by a standard error, is given its mean.

    Args:
        seen: [n, d] what was received, as `as_numbers` takes it.
        features: [n, p] the columns to reconstruct, as the attacked party's network reads them.
        auxiliary: the share of rows for which the attacker knows the columns, or which rows.
        reading: how to take integers.
        seed: draws the auxiliary rows where a share is given.

    Raises:
        ConfigError: if rows are missing, not finite, or too few to learn from or to attack.
    """
    case = _Case(seen, features, auxiliary, reading, seed)
    linear = _Ridge(case.seen[case.known], case.features[case.known])
    return case.judged(linear(case.seen[case.unknown]))


def decoder_attack(
    seen: object,
    features: object,
    auxiliary: float | Sequence[int] | NDArray[np.int64],
    *,
    reading: Reading = "value",
    hidden: int = 64,
    steps: int = 400,
    seed: int = 0,
) -> Reconstruction:
    """Decodes with a small network: two hidden layers beside a linear map, which begins at the ridge's.

    A fifth of the auxiliary rows is held back and tells after which step to stop, which may be none; then
    all of them are learned from for as long.

    Args:
        seen: [n, d] what was received, as `as_numbers` takes it.
        features: [n, p] the columns to reconstruct, as the attacked party's network reads them.
        auxiliary: the share of rows for which the attacker knows the columns, or which rows.
        reading: how to take integers.
        hidden: units of each hidden layer.
        steps: training steps at the most, each on all rows that are learned from.
        seed: draws the auxiliary rows where a share is given, those held back, and the weights.

    Raises:
        ConfigError: if rows are missing, not finite, or too few to learn from or to attack.
    """
    case = _Case(seen, features, auxiliary, reading, seed)
    rng = np.random.default_rng(derive_seed(seed, "rows held back"))
    held, fitted = np.split(rng.permutation(case.known), [max(1, round(_HELD_BACK * len(case.known)))])
    with RngStream(derive_seed(seed, "decoder, to find when to stop")):
        _, steps = _trained(case, fitted, hidden, steps, held)
    with RngStream(derive_seed(seed, "decoder")):
        decoder, _ = _trained(case, case.known, hidden, steps)
        with torch.no_grad():
            return case.judged(decoder(_tensor(case.seen[case.unknown])).double().numpy())


class _Case:
    """Is one attack's rows, checked and standardised; errors are of the features as they were given."""

    def __init__(
        self,
        seen: object,
        features: object,
        auxiliary: float | Sequence[int] | NDArray[np.int64],
        reading: Reading,
        seed: int,
    ) -> None:
        self.seen = _standardised(as_numbers(seen, reading))  # [n, d]
        self.features = np.asarray(features, dtype=np.float64)  # [n, p]
        n = len(self.seen)
        if self.features.ndim != 2 or len(self.features) != n or not self.features.size:
            raise ConfigError(
                f"features have shape {self.features.shape} where {n} rows were seen: give [{n}, p]"
            )
        if not np.isfinite(self.features).all():
            raise ConfigError("features are not finite everywhere: leave those rows out, or fill them")
        self.known = _auxiliary_rows(n, auxiliary, seed)  # [m]
        self.unknown = np.setdiff1d(np.arange(n), self.known)
        if len(self.known) < 4 or not len(self.unknown):
            raise ConfigError(
                f"auxiliary: {len(self.known)} of {n} rows: give at least 4, and leave some to attack"
            )

    def judged(self, guesses: Numbers) -> Reconstruction:
        truth, known = self.features[self.unknown], self.features[self.known]
        means, low, high = known.mean(axis=0), known.min(axis=0), known.max(axis=0)
        # What is far beyond all that is known is no guess but a map gone astray on an unusual row.
        guesses = np.clip(guesses, low - (high - low) / 2, high + (high - low) / 2)
        errors = ((guesses - truth) ** 2).mean(axis=0)  # [p]
        baselines = ((means - truth) ** 2).mean(axis=0)  # [p]
        if not baselines.any():
            raise ConfigError("features are constant on the rows to attack: there is nothing to reconstruct")
        scores = 1 - np.divide(errors, baselines, out=np.full_like(errors, np.nan), where=baselines > 0)
        return Reconstruction(
            float(errors.mean()),
            float(baselines.mean()),
            tuple(scores.tolist()),
            len(self.known),
            len(self.unknown),
        )


class _Ridge:
    """Is a linear map with an intercept; each column has the ridge that leaves least out of account."""

    def __init__(self, x: Numbers, y: Numbers) -> None:
        self._x_mean, self._y_mean = x.mean(axis=0), y.mean(axis=0)
        left, sizes, right = np.linalg.svd(x - self._x_mean, full_matrices=False)
        kept = sizes > sizes[0] * 1e-10  # no row differs in the other directions
        left, sizes, right = left[:, kept], sizes[kept], right[kept]
        turned = left.T @ (y - self._y_mean)  # [rank, p]
        ridges = _RIDGES * (sizes[0] ** 2 if len(sizes) else 1.0)
        errors = [self._left_out_errors(left, sizes, turned, y, ridge) for ridge in ridges]
        means = self._left_out_errors(left, sizes, turned, y, np.inf)  # [m, p]
        choice = np.argmin([one.mean(axis=0) for one in errors], axis=0)  # [p]
        gain = means - np.take_along_axis(np.stack(errors), choice[None, None], axis=0)[0]  # [m, p]
        best = np.where(_is_clear(gain), ridges[choice], np.inf)  # [p]
        self.weight: Numbers = right.T @ (turned * (sizes[:, None] / (sizes[:, None] ** 2 + best)))  # [d, p]
        self.bias: Numbers = self._y_mean - self._x_mean @ self.weight  # [p]

    def __call__(self, x: Numbers) -> Numbers:
        return x @ self.weight + self.bias

    def _left_out_errors(
        self, left: Numbers, sizes: Numbers, turned: Numbers, y: Numbers, ridge: float
    ) -> Numbers:
        """Returns [m, p] the squared error on each row of the map that was fitted without it."""
        shrunk = sizes**2 / (sizes**2 + ridge)  # [rank]
        residual = y - self._y_mean - left @ (shrunk[:, None] * turned)  # [m, p]
        # The intercept is fitted as well, hence 1/m.
        leverage = (left**2) @ shrunk + 1 / len(y)  # [m]
        errors: Numbers = (residual / np.maximum(1 - leverage, 1e-13)[:, None]) ** 2
        return errors


def _is_clear(gain: Numbers) -> NDArray[np.bool_]:
    """Tells whether the mean over rows [m, …] is above 0 by more than its standard error."""
    clear: NDArray[np.bool_] = gain.mean(axis=0) > gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
    return clear


class _Decoder(nn.Module):
    """Maps [b, d] to [b, p]: a linear map, and what two hidden layers add to it, at first nothing."""

    def __init__(self, linear: _Ridge, d: int, hidden: int) -> None:
        super().__init__()
        p = len(linear.bias)
        self.linear = nn.Linear(d, p)
        self.hidden = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.added = nn.Linear(hidden, p)
        with torch.no_grad():
            self.linear.weight.copy_(_tensor(linear.weight.T))
            self.linear.bias.copy_(_tensor(linear.bias))
            nn.init.zeros_(self.added.weight)
            nn.init.zeros_(self.added.bias)
        self.linear.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(x) + self.added(self.hidden(x))
        return result


def _trained(
    case: _Case, rows: NDArray[np.int64], hidden: int, steps: int, held: NDArray[np.int64] | None = None
) -> tuple[_Decoder, int]:
    """Trains a decoder on some rows; returns it, and after which step it did clearly best on `held`."""
    decoder = _Decoder(_Ridge(case.seen[rows], case.features[rows]), case.seen.shape[1], hidden)
    x, y = _tensor(case.seen[rows]), _tensor(case.features[rows])
    # Columns count by how much they vary, as they do in the score: one unit for all of them together.
    unit = max(float(y.var(dim=0).mean()), 1e-12)
    optimizer = torch.optim.Adam([one for one in decoder.parameters() if one.requires_grad], lr=_RATE)
    watch = _Watch(case, held) if held is not None else None
    for step in range(steps + 1):
        if watch and step % _LOOK_EVERY == 0 and watch.has_seen_enough(decoder, step):
            break
        if step < steps:
            loss: Any = functional.mse_loss(decoder(x), y) / unit
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return decoder, watch.best if watch else steps


class _Watch:
    """Follows a decoder's error on rows that it does not learn from."""

    def __init__(self, case: _Case, held: NDArray[np.int64]) -> None:
        self.best = 0
        self._seen, self._features = _tensor(case.seen[held]), _tensor(case.features[held])
        self._first: Numbers | None = None
        self._least, self._looks = float("inf"), 0

    def has_seen_enough(self, decoder: _Decoder, step: int) -> bool:
        """Looks once more, and tells whether it has not become better for long."""
        with torch.no_grad():
            errors = ((decoder(self._seen) - self._features) ** 2).mean(dim=1).double().numpy()  # [m]
        if self._first is None:
            self._first = errors
        self._looks += 1
        if errors.mean() < self._least:
            self._least, self._looks = float(errors.mean()), 0
            self.best = step if _is_clear(self._first - errors) else 0
        return self._looks > _PATIENCE


def _auxiliary_rows(
    n: int, auxiliary: float | Sequence[int] | NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    if isinstance(auxiliary, int | float):
        if not 0 < auxiliary < 1:
            raise ConfigError(f"auxiliary = {auxiliary} is no share of the rows: give one between 0 and 1")
        rng = np.random.default_rng(derive_seed(seed, "auxiliary rows"))
        return np.sort(rng.permutation(n)[: round(auxiliary * n)])
    rows = np.unique(np.asarray(auxiliary, dtype=np.int64))
    if len(rows) != len(auxiliary) or (len(rows) and not 0 <= rows[0] <= rows[-1] < n):
        raise ConfigError(f"auxiliary: names a row twice, or one that is not among 0 to {n - 1}")
    return rows


def _standardised(seen: Numbers) -> Numbers:
    """Centres and scales each number by all rows: the attacker has seen them all."""
    spread = seen.std(axis=0)
    scaled: Numbers = (seen - seen.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return scaled


def _tensor(values: Numbers) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
