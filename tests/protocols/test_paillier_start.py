"""Training begins with weights that neither party can guess; and what exact numbers tell is told."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from casting import LABEL
from paillier_cast import FEATURE, Company, Setup, cast, play
from test_paillier_view import assert_uniform

from protocols import paillier
from protocols.paillier import feature, start
from protocols.paillier.scales import Scales, scales_of
from vfl.paillier.packing import FixedPoint
from vfl.paillier.share import Share

#: One step, and W is [4, 3].
ONE_STEP = Setup(n={"train": 8, "valid": 0, "test": 2}, epochs=1, encryption="none", noise=None)
DRAWS = 200


MATRIX = "up to one unknown 3 × 3 matrix for all rows."


@dataclass
class Begun:
    """Is what one run began with: each party's secrets, and the first step's numbers, as integers."""

    drawn: list[np.ndarray] = field(default_factory=list)
    rotation: list[np.ndarray] = field(default_factory=list)
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    h: list[np.ndarray] = field(default_factory=list)
    z: list[np.ndarray] = field(default_factory=list)
    g: list[np.ndarray] = field(default_factory=list)
    dh: list[np.ndarray] = field(default_factory=list)

    @property
    def weights(self) -> np.ndarray:
        total: np.ndarray = self.shares[FEATURE] + self.shares[LABEL]
        return total


def watched(setup: Setup, company: Company | None = None) -> Begun:
    """Plays, and notes what it begins with."""
    company, found = company or cast(setup), Begun()
    parties = {id(company.learners[f"{name}'s share"].network): name for name in (FEATURE, LABEL)}
    began = Share.begin

    def noting(self: Share, integers: np.ndarray, batch_rows: int, key: bytes) -> None:
        found.shares[parties[id(self)]] = integers
        began(self, integers, batch_rows, key)

    def kept(owner: Any, name: str, into: list[np.ndarray], place: int | None = None) -> Any:  # noqa: ANN401
        real = getattr(owner, name)

        def call(*given: Any) -> Any:  # noqa: ANN401
            answer = real(*given)
            into.append(given[1] if place is None else answer[place] if place >= 0 else answer)
            return answer

        return mock.patch.object(owner, name, call)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Share, "begin", noting))
        for owner, name, into, place in (
            (feature, "draw_factor", found.drawn, -1),
            (start, "draw_rotation", found.rotation, -1),
            (FixedPoint, "encode", found.h, 0),
            (Scales, "z", found.z, None),
            (Scales, "gradient_integers", found.g, 0),
            (Scales, "embedding_gradient", found.dh, None),
        ):
            stack.enter_context(kept(owner, name, into, place))
        play(setup, company=company)
    return found


@functools.cache
def many() -> list[Begun]:
    """Plays many runs, each of other tables and other draws."""
    return [watched(replace(ONE_STEP, seed=seed)) for seed in range(DRAWS)]


@pytest.mark.parametrize("encryption", ["paillier", "none"])
@pytest.mark.parametrize(("width", "outputs"), [(4, 3), (1, 7), (11, 1), (5, 5)])
def test_the_shares_begin_with_what_one_drew_turned_by_the_other(
    encryption: str, width: int, outputs: int
) -> None:
    setup = replace(ONE_STEP, encryption=encryption, width=width, outputs=outputs)
    found = watched(setup)
    scales = scales_of(setup.session(LABEL), 8, 1)
    (drawn,), (rotation,) = found.drawn, found.rotation
    assert (found.weights == (rotation.astype(object) @ drawn) << scales.start_shift).all()
    turned = found.weights.astype(float) * 2.0**-scales.fraction_bits
    kept = drawn * 2.0**-scales.factor_fraction_bits  # a rotation keeps lengths and angles
    assert np.allclose(turned.T @ turned, kept.T @ kept, atol=1e-4)


# --- what each can guess ------------------------------------------------------------------------------


def explained(truth: list[np.ndarray], guess: list[np.ndarray]) -> tuple[float, float]:
    """Returns R² of truth by the best multiple of a guess; and how far that is from chance, in deviations."""
    pairs = zip(truth, guess, strict=True)
    cosines = np.array([(t * g).sum() / np.linalg.norm(t) / np.linalg.norm(g) for t, g in pairs])
    return float(cosines.mean() ** 2), float(cosines.sum() / np.linalg.norm(cosines))


def known(begun: Begun, party: str) -> Iterator[np.ndarray]:
    """Lists the matrices [d, k] that a party knows of the beginning."""
    yield begun.shares[party].astype(float)
    if party == FEATURE:
        yield begun.drawn[0].astype(float)
    else:
        rotation, k = begun.rotation[0].astype(float), begun.weights.shape[1]
        yield from (rotation[:, :k], rotation[:k].T, rotation[:, -k:])


def guesses(begun: Begun, party: str, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the party would like to know of step 1, and its linear guess by weights it takes for W."""
    h, z = begun.h[0].astype(float), begun.z[0].astype(float)
    if party == FEATURE:
        return z, h @ weights
    ridge = np.linalg.norm(weights) ** 2 / weights.shape[1] * np.eye(weights.shape[1])  # the rest of W
    return h, z @ np.linalg.solve(weights.T @ weights + ridge, weights.T)


@pytest.mark.parametrize("party", [FEATURE, LABEL])
def test_no_party_guesses_the_others_numbers_better_than_by_chance(party: str) -> None:
    """R² of the best linear guess is that of a guess by what was drawn in another run."""
    runs = many()
    for place in range(len(list(known(runs[0], party)))):
        pairs = [guesses(begun, party, list(known(begun, party))[place]) for begun in runs]
        r2, deviations = explained([truth for truth, _ in pairs], [guess for _, guess in pairs])
        assert abs(deviations) < 5.5
        assert r2 < 0.05


@pytest.mark.parametrize(("party", "least"), [(FEATURE, 0.3), (LABEL, 0.1)])
def test_half_of_the_weights_would_have_been_enough_to_guess(party: str, least: float) -> None:
    """So the test above can fail: a party that drew one of two summands of W knows about half of it."""
    rng, pairs = np.random.default_rng(1), []
    for begun in many():
        weights = begun.weights.astype(float)
        half = weights / 2 + rng.normal(size=weights.shape) * weights.std() / 2
        pairs.append(guesses(begun, party, half))
    r2, deviations = explained([truth for truth, _ in pairs], [guess for _, guess in pairs])
    assert deviations > 10
    assert r2 > least


@pytest.mark.parametrize("party", [FEATURE, LABEL])
def test_no_mixture_of_all_that_a_party_knows_tells_a_weight(party: str) -> None:
    runs = many()
    views = np.stack([np.concatenate([one.ravel() for one in known(begun, party)]) for begun in runs])
    views = np.column_stack([views / views.std(0), np.ones(len(views))])
    weights = np.stack([begun.weights.astype(float).ravel() for begun in runs])
    left = weights - views @ np.linalg.lstsq(views, weights, rcond=None)[0]
    chance = (np.linalg.matrix_rank(views) - 1) / (len(runs) - 1)
    r2 = 1 - (left**2).sum() / ((weights - weights.mean(0)) ** 2).sum()
    assert abs(r2 - chance) < 0.06
    halves = weights / 2 + np.random.default_rng(2).normal(size=weights.shape) * weights.std() / 2
    left = weights - halves @ np.linalg.lstsq(halves, weights, rcond=None)[0]
    assert 1 - (left**2).sum() / (weights**2).sum() > 0.4  # of one of two summands


def test_the_initial_share_is_uniform_in_its_range() -> None:
    scales = scales_of(ONE_STEP.session(LABEL), 8, 1)
    most = scales.start.packing.limit
    assert (most - scales.start_bound) >= scales.start_bound << scales.config.noise_bits
    for party in (FEATURE, LABEL):
        shares = [int(one) >> scales.start_shift for begun in many() for one in begun.shares[party].flat]
        assert len(set(shares)) == len(shares)
        assert_uniform(shares, -most, most)


# --- what exact numbers tell --------------------------------------------------------------------------


def test_what_the_widths_tell_is_said_of_each_job_and_of_small_keys() -> None:
    drawn = {"feature": "A.", "label": "B."}

    def said(d: int, k: int, **options: object) -> dict[str, str]:
        setup = Setup(width=d, outputs=k, options={"key_bits": 2048, "unsafe_small_key": False} | options)
        return paillier.learns(setup.session(LABEL), drawn)

    narrow, equal, wide = said(4, 3), said(3, 3), said(3, 4)
    assert narrow[FEATURE].endswith(MATRIX)
    assert (narrow[LABEL], wide[FEATURE]) == ("B.", "A.")
    assert wide[LABEL].endswith(MATRIX)
    assert (equal[FEATURE], equal[LABEL]) != ("A.", "B.")
    assert "key_bits" not in narrow[LABEL]
    assert "key_bits = 512 protects nothing" in said(4, 3, key_bits=512, unsafe_small_key=True)[LABEL]
