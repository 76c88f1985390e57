"""The ring's arithmetic is that of Python's integers; no sum is wrong without a word."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vfl.errors import ConfigError
from vfl.masking.ring import Ring

widths = st.sampled_from([32, 64])
clips = st.floats(1e-6, 1e6)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def element(value: float, ring: Ring) -> int:
    """Rounds and clamps in exact arithmetic."""
    bound = round(Fraction(float(np.float32(ring.clip))) * 2**ring.fraction_bits)
    return max(-bound, min(bound, round(Fraction(value) * 2**ring.fraction_bits)))


def nearest_single(exact: Fraction) -> float:
    """Returns the float32 nearest to a fraction, half to even, by looking at its neighbours."""
    near = np.float32(float(exact))
    around = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    return float(min(around, key=lambda one: (abs(Fraction(float(one)) - exact), one.view(np.uint32) & 1)))


@settings(max_examples=300, deadline=None)
@given(
    bits=widths,
    clip=clips,
    k=st.integers(1, 64),
    fraction_bits=st.one_of(st.none(), st.integers(0, 60)),
    data=st.data(),
)
def test_a_sum_is_exact_or_its_ring_is_refused(
    bits: int, clip: float, k: int, fraction_bits: int | None, data: st.DataObject
) -> None:
    try:
        ring = Ring.fitting(bits, clip, k, fraction_bits)
    except ConfigError:
        limit = round(Fraction(float(np.float32(clip))) * 2 ** (fraction_bits or 0))
        assert k * limit > 2 ** (bits - 1) - 1
        return
    extreme = st.sampled_from([clip, -clip, 3e38, -3e38, float(np.float32(clip)), 0.0, -0.0, 1e-45])
    values = data.draw(st.lists(st.one_of(numbers, extreme), min_size=k, max_size=k))
    rows = [torch.tensor([value, -abs(value)], dtype=torch.float32) for value in values]
    encoded = [ring.encode(row)[0] for row in rows]
    due = [sum(element(float(row[i]), ring) for row in rows) for i in range(2)]
    total = ring.total(encoded)
    assert total.tolist() == due
    assert ring.decode(total).tolist() == [
        nearest_single(Fraction(one, 2**ring.fraction_bits)) for one in due
    ]


@settings(max_examples=200, deadline=None)
@given(bits=widths, clip=clips, f=st.integers(0, 40), values=st.lists(numbers, max_size=20))
def test_exactly_what_was_clamped_is_counted(bits: int, clip: float, f: int, values: list[float]) -> None:
    try:
        ring = Ring.fitting(bits, clip, 1, f)
    except ConfigError:
        assume(False)
    encoded, n_clamped = ring.encode(torch.tensor(values, dtype=torch.float32))
    assert encoded.tolist() == [element(value, ring) for value in values]
    assert n_clamped == sum(abs(round(Fraction(value) * 2**f)) > ring.limit for value in values)


@settings(max_examples=100, deadline=None)
@given(bits=widths, k=st.integers(1, 64), clip=st.floats(1.0, 100.0), seed=st.integers(0, 2**32))
def test_a_decoded_sum_is_within_the_stated_bound_of_the_sum(
    bits: int, k: int, clip: float, seed: int
) -> None:
    ring = Ring.fitting(bits, clip, k)
    drawn = np.random.default_rng(seed).uniform(-clip, clip, (k, 50)).astype(np.float32)
    drawn = drawn.clip(-np.float32(clip), np.float32(clip))
    encoded = [ring.encode(torch.from_numpy(row)) for row in drawn]
    assert sum(n_clamped for _, n_clamped in encoded) == 0
    total = ring.total([row for row, _ in encoded])
    for column in range(50):
        exact = sum(Fraction(float(value)) for value in drawn[:, column])
        off = abs(Fraction(int(total[column]), 2**ring.fraction_bits) - exact)
        assert off <= Fraction(ring.error_bound(k)) == Fraction(k, 2 ** (ring.fraction_bits + 1))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 63, 64])
@pytest.mark.parametrize("clip", [0.1, 1.0, 7.3, 8.0, 16777217.0])
def test_as_many_fraction_bits_as_fit_are_taken_and_not_one_more(bits: int, k: int, clip: float) -> None:
    ring = Ring.fitting(bits, clip, k)
    assert k * ring.limit <= 2 ** (bits - 1) - 1
    with pytest.raises(ConfigError, match=rf"set fraction_bits = {ring.fraction_bits} or fewer"):
        Ring.fitting(bits, clip, k, ring.fraction_bits + 1)
    assert Ring.fitting(bits, clip, k, ring.fraction_bits) == ring


def test_the_float32_of_the_limit_counts_not_the_number_in_the_job() -> None:
    below = 128 - 1e-9  # 128 contributors · 128 · 2^17 = 2^31, of which the ring holds one less
    assert np.float32(below) == 128
    with pytest.raises(ConfigError, match="fraction_bits = 16"):
        Ring.fitting(32, below, 128, 17)
    ring = Ring.fitting(32, float(np.nextafter(np.float32(128), np.float32(0))), 128, 17)
    full = ring.encode(torch.full((3,), 1e9))[0]
    assert ring.total([full] * 128).tolist() == [128 * ring.limit] * 3
    assert 128 * ring.limit < 2**31


def test_halves_are_rounded_to_even_and_zero_has_one_form() -> None:
    ring = Ring(32, 1, 100.0)
    encoded, n_clamped = ring.encode(torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75, -0.0]))
    assert encoded.tolist() == [0, 2, 2, 0, -2, 0]
    assert n_clamped == 0


def test_what_becomes_infinite_is_clamped_and_counted() -> None:
    for bits, fraction_bits in ((32, 20), (64, 40)):
        ring = Ring(bits, fraction_bits, 8.0)
        row = torch.tensor([3e38, -3e38, 8.0, -8.0, 8.000001])
        encoded, n_clamped = ring.encode(row)
        assert encoded.tolist() == [ring.limit, -ring.limit] * 2 + [ring.limit]
        assert n_clamped == 3


@pytest.mark.parametrize("amid", [0.0, 9.0])
@pytest.mark.parametrize("stray", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("among", [1, 7, 4097])
def test_what_is_not_finite_is_refused_wherever_it_stands(among: int, stray: float, amid: float) -> None:
    ring = Ring(32, 16, 8.0)
    for place in {0, among // 2, among - 1}:
        row = torch.full((among,), amid)
        row[place] = stray
        with pytest.raises(ValueError, match="not finite"):
            ring.encode(row)


def test_other_types_than_float32_are_refused() -> None:
    for dtype in (torch.float64, torch.float16, torch.int32):
        with pytest.raises(ValueError, match="float32 is due"):
            Ring(32, 16, 8.0).encode(torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize("bits", [32, 64])
def test_encoding_leaves_its_input_alone_and_gives_contiguous_memory_of_its_own(bits: int) -> None:
    ring = Ring.fitting(bits, 8.0, 3)
    h = torch.randn(6, 4, requires_grad=True)
    before = h.detach().clone()
    for given_h in (h, h.T, h[::2, 1:3], h[0, 0], h[:0]):
        encoded, _ = ring.encode(given_h)
        assert encoded.shape == given_h.shape
        assert encoded.dtype == ring.dtype
        assert encoded.is_contiguous()
        assert not encoded.requires_grad
        assert torch.equal(ring.decode(encoded), given_h.detach()) or bits == 32
    assert torch.equal(h, before)


@settings(max_examples=100, deadline=None)
@given(bits=widths, rows=st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=9))
def test_a_total_wraps_as_integers_modulo_2_to_the_bits_do(bits: int, rows: list[int]) -> None:
    ring = Ring.fitting(bits, 1.0, 1)

    def wrapped(number: int) -> int:
        return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)

    parts = [torch.tensor([wrapped(row)], dtype=ring.dtype) for row in rows]
    copies = [part.clone() for part in parts]
    total = ring.total(parts)
    assert total.tolist() == [wrapped(sum(rows))]
    assert all(torch.equal(part, copy) for part, copy in zip(parts, copies, strict=True))
    assert total.data_ptr() not in {part.data_ptr() for part in parts}


def test_a_total_of_parts_that_do_not_match_is_refused() -> None:
    ring = Ring.fitting(32, 1.0, 2)
    part = torch.zeros(4, 2, dtype=torch.int32)
    others = (
        torch.zeros(1, 2, dtype=torch.int32),
        torch.zeros(4, 2, 1, dtype=torch.int32),
        torch.zeros(4, 2, dtype=torch.int64),
        torch.zeros(4, 2),
    )
    for other in others:
        for parts in ([part, other], [other, part]):
            with pytest.raises(ValueError, match="is due"):
                ring.total(parts)
    with pytest.raises(ValueError, match="nothing"):
        ring.total([])


@settings(max_examples=200, deadline=None)
@given(total=st.integers(-(2**63), 2**63 - 1), f=st.integers(0, 126))
def test_decoding_rounds_once(total: int, f: int) -> None:
    ring = Ring(64, f, 2.0**-f)
    (value,) = ring.decode(torch.tensor([total])).tolist()
    assert value == nearest_single(Fraction(total, 2**f))


@pytest.mark.parametrize(
    ("given_values", "words"),
    [
        ((16, 1.0, 2), "bits = 16: set 32 or 64"),
        ((32, 0.0, 2), "clip = 0.0: set a bound above 0"),
        ((32, -1.0, 2), "clip = -1.0"),
        ((32, math.nan, 2), "clip = nan"),
        ((32, math.inf, 2), "clip = inf"),
        ((32, 1e39, 2), "clip = 1e[+]39: is no float32"),
        ((64, 1e-40, 2), "clip = 1e-40: is no float32"),
        ((32, 1.0, 0), "contributors = 0"),
        ((32, 1.0, 2, -1), "fraction_bits = -1: set 0 to 126"),
        ((64, 1.0, 2, 127), "fraction_bits = 127: set 0 to 126"),
        ((32, 1.0, 2, 30), "2 contributors .* 32 bits hold: set fraction_bits = 29 or fewer, a smaller"),
        ((32, 1e12, 2), "bits hold: set a smaller clip or bits = 64"),
        ((64, 1e30, 2), "bits hold: set a smaller clip$"),
    ],
)
def test_a_ring_that_will_not_do_is_refused_with_the_remedy(
    given_values: tuple[int, float, int], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Ring.fitting(*given_values)


def test_a_ring_too_small_for_one_value_cannot_be_made_by_hand_either() -> None:
    with pytest.raises(ConfigError, match="1 contributors"):
        Ring(32, 20, 4096.0)
