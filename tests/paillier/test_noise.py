"""Noise is uniform where it is drawn, and the same twice only where that is asked for."""

from __future__ import annotations

from statistics import NormalDist
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.errors import ConfigError
from vfl.paillier import noise
from vfl.paillier.noise import Draws
from vfl.paillier.packing import Packing

sources = pytest.mark.parametrize("seed", [None, b"a seed"], ids=["afresh", "from a seed"])


@given(st.binary(), st.lists(st.integers(1, 2**200), max_size=30))
def test_one_seed_gives_one_sequence(seed: bytes, bounds: list[int]) -> None:
    one, other = Draws(seed), Draws(seed)
    drawn = [one.below(n) for n in bounds]
    assert drawn == [other.below(n) for n in bounds]
    assert all(0 <= number < n for number, n in zip(drawn, bounds, strict=True))


def test_another_seed_or_none_gives_another_sequence() -> None:
    sequences = [[Draws(seed).below(2**64) for _ in range(1)] for seed in (b"", b"\0", b"x", None, None)]
    assert len({tuple(one) for one in sequences}) == 5


def test_the_stream_goes_on_where_a_chunk_of_it_ends() -> None:
    n_bytes = 3 * noise._CHUNK_BYTES + 5
    draws, at_once = Draws(b"seed"), Draws(b"seed")
    single = bytes(draws.below(256) for _ in range(n_bytes))
    parts = b"".join(at_once.below(2 ** (8 * 1000)).to_bytes(1000, "little") for _ in range(n_bytes // 1000))
    assert single.startswith(parts)
    assert len(set(single[at : at + 16] for at in range(0, n_bytes - 16, 16))) == (n_bytes - 1) // 16


@sources
def test_draws_are_uniform(seed: bytes | None) -> None:
    draws = Draws(seed)
    counts = np.bincount([draws.below(10) for _ in range(20_000)], minlength=10)
    chi_square = float(((counts - 2000.0) ** 2 / 2000).sum())
    assert chi_square < 45  # nine degrees of freedom: beyond, once in a million


@sources
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257])
def test_a_draw_reaches_all_numbers_below_and_no_other(n: int, seed: bytes | None) -> None:
    draws = Draws(seed)
    assert {draws.below(n) for _ in range(12 * n)} == set(range(n))
    assert {draws.within(2) for _ in range(100)} == {-2, -1, 0, 1, 2}


@sources
def test_no_number_is_below_zero(seed: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"."):
        Draws(seed).below(0)


@sources
def test_normal_numbers_are_normal(seed: bytes | None) -> None:
    draws = Draws(seed)
    drawn = np.sort([draws.normal() for _ in range(20_000)])
    due = np.array([NormalDist().cdf(one) for one in drawn])
    gap = np.abs(due - np.arange(1, len(drawn) + 1) / len(drawn)).max()
    assert gap < 2.8 / len(drawn) ** 0.5  # Kolmogorov's distance: beyond, three times in ten million


@pytest.mark.parametrize("place", [0, 2**52 - 1])
def test_the_outermost_normal_numbers_are_finite(place: int) -> None:
    with mock.patch.object(Draws, "below", return_value=place):
        assert abs(Draws(None).normal()) == pytest.approx(8.2, abs=0.1)


def test_a_packings_noise_follows_from_draws_where_they_are_given() -> None:
    packing = Packing.fitting(512, value_bits=20, noise_bits=40)
    one, other = (packing.noise(1000, 3, 4, draws=Draws(b"s")) for _ in range(2))
    assert (one == other).all()
    assert one.shape == (3, 4)
    assert (one != packing.noise(1000, 3, 4)).any()
    assert max(abs(number) for number in one.flat) <= packing.limit - 1000
    with pytest.raises(ConfigError):
        packing.noise(packing.limit, 1, draws=Draws(b"s"))
