"""What is released is no exact product: which whole numbers it was made of cannot be told from it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from paillier_cast import Setup, play

from protocols.paillier import scales
from protocols.paillier.scales import Scales
from vfl.paillier.noise import blur


def released(what: str, **setup: Any) -> list[np.ndarray]:  # noqa: ANN401
    """Returns the whole numbers, batch by batch, that one party reads: z_int, or dh_int."""
    read, seen = getattr(Scales, what), []

    def noting(self: Scales, integers: np.ndarray) -> np.ndarray:
        seen.append(integers)
        found: np.ndarray = read(self, integers)
        return found

    with mock.patch.object(Scales, what, noting):
        play(Setup(encryption="none", **setup))
    return seen


def divisors(batches: list[np.ndarray]) -> list[int]:
    """Returns the greatest common divisor of every column of every batch of some rows."""
    return [int(np.gcd.reduce(column)) for batch in batches if len(batch) > 6 for column in batch.T]


@pytest.mark.parametrize(
    ("what", "setup"),
    [("z", {"width": 1, "outputs": 3}), ("embedding_gradient", {"width": 3, "outputs": 1, "trunk": False})],
    ids=["the weights of a single activation", "those of a single output"],
)
def test_a_common_divisor_tells_no_weight(what: str, setup: dict[str, Any]) -> None:
    unit = 1 << Setup().config.weight_fraction_bits
    with mock.patch.object(scales, "_BLUR", 0):
        exact = divisors(released(what, **setup))
    assert np.median(exact) > unit / 64  # the weight itself, or a multiple: so much would be told
    assert np.median(divisors(released(what, **setup))) <= 2


def test_the_blur_is_small_and_spread_evenly() -> None:
    rows = np.arange(40_000).reshape(-1, 2)
    drawn = blur(b"k" * 32, b"weights", rows, 3, 7)
    assert drawn.shape == (20_000, 3)
    counts = np.bincount((drawn + 7).reshape(-1), minlength=15)
    assert len(counts) == 15
    assert np.square(counts - 4000).sum() / 4000 < 45  # chi-square of 14 degrees: once in 25,000


def test_the_same_row_has_the_same_blur_and_another_row_key_or_weight_another() -> None:
    rows = np.array([[1, 2], [3, 4], [1, 2]])
    drawn = blur(b"k" * 32, b"weights", rows, 4, 10**6)
    assert (drawn[0] == drawn[2]).all()
    assert (drawn[0] != drawn[1]).all()
    assert (blur(b"k" * 32, b"weights", rows[:1], 4, 10**6) == drawn[:1]).all()
    assert (blur(b"l" * 32, b"weights", rows, 4, 10**6) != drawn).all()
    assert (blur(b"k" * 32, b"others", rows, 4, 10**6) != drawn).all()


def test_what_is_computed_again_comes_out_again() -> None:
    first, again = (released("z", n={"train": 24, "valid": 12, "test": 9}) for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
