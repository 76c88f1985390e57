"""A share is exact, survives a checkpoint, and rounds so that two shares round to their sum."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vfl.learn.learner import Learner
from vfl.paillier.noise import Draws
from vfl.paillier.share import Share

LARGEST = 2**255 - 1
integers = st.integers(-LARGEST - 1, LARGEST)

KEY = b"k" * 32


def holding(*values: int) -> Share:
    share = Share(1, len(values))
    share.integers = np.array(values, object).reshape(1, -1)
    return share


@given(st.lists(integers, min_size=1, max_size=5))
def test_a_share_holds_integers_of_256_bits_exactly(values: list[int]) -> None:
    share = holding(*values)
    assert share.integers.tolist() == [values]
    assert all(type(value) is int for value in share.integers.flat)
    again = Share(1, len(values))
    again.load_state_dict(share.state_dict())
    assert again.integers.tolist() == [values]


@given(st.integers(-(2**250), 2**250), st.lists(st.integers(-(2**200), 2**200), max_size=5))
def test_additions_are_exact_and_counted(start: int, updates: list[int]) -> None:
    share = holding(start)
    for update in updates:
        share.add(np.array([[update]], object))
    assert share.integers.tolist() == [[start + sum(updates)]]
    assert int(share.updates) == len(updates)


@pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 2])
def test_what_does_not_fit_is_an_error(value: int) -> None:
    with pytest.raises(OverflowError):
        holding(value)


def test_a_share_is_kept_as_other_weights_are(tmp_path: Path) -> None:
    share = Share(3, 2)
    draws = Draws(b"seed")
    share.begin(np.array([[draws.within(2**100) for _ in range(2)] for _ in range(3)], object), 64, KEY)
    learner, again = Learner(share), Share(3, 2)
    save_file(learner.weights(), tmp_path / "share.safetensors")
    Learner(again).load_weights(load_file(tmp_path / "share.safetensors"))
    assert (again.integers == share.integers).all()
    assert (int(again.updates), int(again.batch_rows)) == (0, 64)
    rows = np.arange(12).reshape(4, 3)
    assert (again.blurred(rows, 5, 99) == share.blurred(rows, 5, 99)).all()
    assert list(share.parameters()) == []


def test_it_begins_anew() -> None:
    share = Share(20, 30)
    share.add(np.ones((20, 30), object))
    share.begin(np.full((20, 30), -(2**200), object), 5, KEY)
    assert set(share.integers.flat) == {-(2**200)}
    assert (int(share.updates), int(share.batch_rows)) == (0, 5)
    assert share.limbs.dtype == torch.int64


@given(st.integers(-(2**130), 2**130), st.integers(-(2**130), 2**130), st.integers(0, 60))
def test_two_rounded_shares_sum_to_their_sums_quotient_within_less_than_one(
    one: int, other: int, bits: int
) -> None:
    used = holding(one).rounded_up(bits)[0, 0] + holding(other).rounded_down(bits)[0, 0]
    assert abs(used - Fraction(one + other, 1 << bits)) < 1


@given(st.integers(-500, 500), st.integers(0, 5))
def test_they_do_on_average_exactly(weight: int, bits: int) -> None:
    scale = 1 << bits
    used = [
        holding(weight - noise).rounded_up(bits)[0, 0] + holding(noise).rounded_down(bits)[0, 0]
        for noise in range(-scale, scale)
    ]
    assert Fraction(sum(used), len(used)) == Fraction(weight, scale)
