"""Reconstruction attacks find what is there to be found, and nothing where there is nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfl.audit.reconstruction import (
    Reconstruction,
    as_numbers,
    decoder_attack,
    least_squares_attack,
)
from vfl.errors import ConfigError

Attack = Callable[..., Reconstruction]
BOTH = pytest.mark.parametrize("attack", [least_squares_attack, decoder_attack])
N, P = 1200, 8


def table(p: int = P, n: int = N, seed: int = 0) -> NDArray[np.float64]:
    """Columns of very different size and place, so that an error in either shows."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) * rng.uniform(0.1, 30, p) + rng.normal(size=p) * 100


def isotropic(p: int, n: int = N, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, p))


def linear_cut(x: NDArray[np.float64], d: int, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (x @ rng.normal(size=(x.shape[1], d)) + rng.normal(size=d)).astype(np.float32)


@BOTH
@pytest.mark.parametrize("auxiliary", [0.05, 0.1])
def test_embeddings_that_are_the_columns_are_read_in_full(attack: Attack, auxiliary: float) -> None:
    x = table()
    found = attack(x.astype(np.float32), x, auxiliary)
    assert found.score > 0.9999
    assert min(found.columns) > 0.9999
    assert (found.auxiliary, found.attacked) == (round(auxiliary * N), N - round(auxiliary * N))


@BOTH
@pytest.mark.parametrize(("auxiliary", "slack"), [(0.01, 0.1), (0.05, 0.02), (0.1, 0.01)])
def test_independent_noise_tells_nothing(attack: Attack, auxiliary: float, slack: float) -> None:
    # The chance level over twenty tables, with 12, 60 and 120 known rows: 0, and below rather than above.
    scores = []
    for seed in range(20):
        noise = np.random.default_rng(100 + seed).normal(size=(N, 6))
        scores.append(attack(noise, isotropic(P, seed=seed), auxiliary, seed=seed).score)
    assert -2 * slack < np.mean(scores) < 0.005
    assert np.std(scores) < 2 * slack
    assert max(scores) < 0.01


@BOTH
@pytest.mark.parametrize("reading", ["value", "bytes", "bits"])
@pytest.mark.parametrize("ring", [np.uint32, np.uint64])
def test_what_is_masked_tells_nothing_however_its_bits_are_read(
    attack: Attack, reading: str, ring: type[np.unsignedinteger]
) -> None:
    x = isotropic(4, n=800)
    bits = np.iinfo(ring).bits
    plain = np.rint(x * 2.0**16).astype(f"int{bits}").view(ring)
    mask = np.random.default_rng(5).integers(0, 2**bits, x.shape, dtype=ring)
    signed = f"int{bits}"
    assert abs(attack((plain + mask).view(signed), x, 0.1, reading=reading).score) < 0.06
    assert attack(plain.view(signed), x, 0.1, reading=reading).score > 0.99


def test_a_mask_that_leaves_one_byte_alone_is_found_by_its_bytes_and_not_by_its_value() -> None:
    # The lowest byte holds a whole column; the others are noise that drowns it.
    x = np.random.default_rng(2).integers(0, 256, (N, 3))
    noise = np.random.default_rng(3).integers(-(2**23), 2**23, x.shape)
    leaky = (noise * 256 + x).astype(np.int32)
    assert least_squares_attack(leaky, x, 0.1).score < 0.02
    assert least_squares_attack(leaky, x, 0.1, reading="bytes").score > 0.999
    assert least_squares_attack(leaky, x, 0.1, reading="bits").score > 0.999


@pytest.mark.parametrize("d", [P, P + 1, 3 * P])
def test_least_squares_undo_a_first_layer_that_is_as_wide_as_the_columns_are_many(d: int) -> None:
    x = isotropic(P)
    assert least_squares_attack(linear_cut(x, d), x, 0.05).score > 0.999
    assert least_squares_attack(torch.from_numpy(linear_cut(x, d)), torch.from_numpy(x), 0.05).score > 0.999


@BOTH
@pytest.mark.parametrize(("p", "d"), [(20, 5), (20, 10), (40, 30)])
def test_of_a_narrower_layer_it_finds_the_share_that_went_through(attack: Attack, p: int, d: int) -> None:
    # Of p independent columns a random map onto d directions keeps d / p of the variance.
    x = isotropic(p, n=4000)
    assert attack(linear_cut(x, d), x, 0.2).score == pytest.approx(d / p, abs=0.05)


def test_a_sum_hides_a_party_as_far_as_the_others_drown_it() -> None:
    # z = h_1 + h_2 of two parties with p columns each; d numbers tell d / 2p of the columns of both.
    one, other = isotropic(10, n=4000, seed=1), isotropic(10, n=4000, seed=2)
    z = linear_cut(one, 10, seed=3) + linear_cut(other, 10, seed=4)
    assert least_squares_attack(z, one, 0.2).score == pytest.approx(0.5, abs=0.1)
    wide = linear_cut(one, 20, seed=3) + linear_cut(other, 20, seed=4)
    assert least_squares_attack(wide, one, 0.2).score > 0.999


def test_the_decoder_undoes_what_no_linear_map_does() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (3000, 2))
    across, up = x.T
    folded = np.stack([np.cos(3 * across), np.sin(3 * across), up**2, np.maximum(up, 0)], axis=1)
    linear, decoder = least_squares_attack(folded, x, 0.1), decoder_attack(folded, x, 0.1)
    assert decoder.score > linear.score + 0.05
    assert decoder.score > 0.97


@BOTH
def test_more_auxiliary_rows_tell_more(attack: Attack) -> None:
    x = isotropic(60, n=3000)
    seen = linear_cut(x, 60) + 0.5 * isotropic(60, n=3000, seed=9)
    few, some, many = (attack(seen, x, share).score for share in (0.01, 0.05, 0.5))
    assert few < some < many


@BOTH
def test_each_column_has_a_score_of_its_own_and_a_constant_one_none(attack: Attack) -> None:
    x = np.concatenate([isotropic(3), np.ones((N, 1))], axis=1)
    found = attack(x[:, :2].astype(np.float32), x, 0.1)
    assert min(found.columns[:2]) > 0.999
    assert abs(found.columns[2]) < 0.05
    assert math.isnan(found.columns[3])
    assert found.score == pytest.approx(2 / 3, abs=0.05)
    assert found.score == 1 - found.error / found.baseline


def test_the_baseline_is_the_auxiliary_rows_means() -> None:
    x = table()
    known = np.arange(0, 300)
    found = least_squares_attack(isotropic(2, seed=8), x, known)
    assert found.baseline == pytest.approx(((x[300:] - x[:300].mean(axis=0)) ** 2).mean())
    assert found.auxiliary == 300


@BOTH
def test_rows_that_are_not_auxiliary_lend_nothing_but_what_they_said(attack: Attack) -> None:
    # Other columns of unknown rows change the errors there, and not one guess; seen through known errors.
    x = isotropic(3)
    seen, known = linear_cut(x, 2), np.arange(100)
    other = x.copy()
    other[100:] += 1000.0  # were it learned from, the error would be small beside the baseline
    found = attack(seen, other, known)
    assert found.baseline == pytest.approx(1e6, rel=0.02)
    assert found.error == pytest.approx(1e6, rel=0.02)


@BOTH
def test_an_attack_is_the_same_twice_and_leaves_the_callers_random_state_alone(attack: Attack) -> None:
    x = table()
    seen = linear_cut(x, 4)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert attack(seen, x, 0.05, seed=4) == attack(seen, x, 0.05, seed=4)
    assert torch.equal(torch.rand(2), expected)
    assert attack(seen, x, 0.05, seed=4) != attack(seen, x, 0.05, seed=5)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.int32, np.int64]),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20),
)
def test_bytes_and_bits_hold_all_of_an_integer_in_order(
    kind: type[np.signedinteger], values: list[int]
) -> None:
    column = np.array(values, dtype=kind)[:, None]
    width = column.itemsize
    octets, bits = as_numbers(column, "bytes"), as_numbers(column, "bits")
    assert octets.shape == (len(values), width)
    assert bits.shape == (len(values), 8 * width)
    # Exact in Python's integers: the pattern, counted from the least there is.
    least = int(np.iinfo(kind).min)
    together = [sum(int(one) << 8 * place for place, one in enumerate(row)) + least for row in octets]
    assert together == values
    assert np.array_equal(np.packbits(bits.astype(np.uint8), axis=1), octets)


@BOTH
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auxiliary": 1.0}, "no share"),
        ({"auxiliary": 0.0}, "no share"),
        ({"auxiliary": 0.001}, "at least 4"),
        ({"auxiliary": [1, 2, 2, 3, 4]}, "twice"),
        ({"auxiliary": [1, 2, 3, N]}, "not among"),
        ({"auxiliary": list(range(N))}, "leave some"),
        ({"seen": np.zeros((N, 2), dtype=np.uint8)}, "uint8"),
        ({"seen": np.zeros(N)}, "one line a row"),
        ({"seen": np.full((N, 2), np.inf)}, "not finite"),
        ({"features": np.zeros((N - 1, 2))}, "rows were seen"),
        ({"features": np.zeros((N, 0))}, "rows were seen"),
        ({"features": np.full((N, 2), np.nan)}, "not finite"),
        ({"features": np.ones((N, 2))}, "nothing to reconstruct"),
    ],
)
def test_what_cannot_be_attacked_is_refused_with_the_remedy(
    attack: Attack, changes: dict[str, object], words: str
) -> None:
    arguments = {"seen": isotropic(2), "features": isotropic(3), "auxiliary": 0.1} | changes
    with pytest.raises(ConfigError, match=words):
        attack(**arguments)


@BOTH
def test_a_row_that_is_unlike_all_others_does_not_carry_a_guess_away(attack: Attack) -> None:
    # The columns follow what was seen but for its size, which a few unknown rows have a thousandfold.
    x = isotropic(3)
    seen = x.copy()
    seen[-5:] *= 1000
    known = np.arange(300)
    found = attack(seen, x, known)
    assert found.score > 0.7


@BOTH
def test_a_number_that_never_changes_is_no_obstacle(attack: Attack) -> None:
    x = isotropic(2)
    seen = np.concatenate([x, np.full((N, 1), 7.0)], axis=1)
    assert attack(seen, x, 0.05).score > 0.999
    assert attack(np.full((N, 3), 7.0), x, 0.05).score == pytest.approx(0.0, abs=0.05)
