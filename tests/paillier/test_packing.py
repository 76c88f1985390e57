"""Packed arithmetic is that of Python's integers, and what could overflow is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vfl.errors import ConfigError
from vfl.paillier.packing import FixedPoint, Layout, Packing

KEY_BITS = 512
#: Odd, of exactly so many bits and as small as such a modulus can be: the least room.
N = mpz((1 << (KEY_BITS - 1)) + 1)


def extreme(limit: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([limit, -limit, 0, 1, -1]), st.integers(-limit, limit))


@settings(max_examples=60, deadline=None)
@given(
    value_bits=st.integers(2, 20),
    multiplier_bits=st.integers(1, 20),
    additions=st.integers(1, 40),
    data=st.data(),
)
def test_declared_sums_of_products_are_those_of_python_s_integers(
    value_bits: int, multiplier_bits: int, additions: int, data: st.DataObject
) -> None:
    packing = Packing.fitting(
        KEY_BITS, value_bits=value_bits, multiplier_bits=multiplier_bits, additions=additions
    )
    values = extreme((1 << (value_bits - 1)) - 1)
    multiplier = extreme(max(1, (1 << (multiplier_bits - 1)) - 1))
    seed = data.draw(st.lists(values, min_size=packing.slots, max_size=packing.slots))
    rows = np.array([np.roll(seed, turn) for turn in range(additions)])
    multipliers = data.draw(st.lists(multiplier, min_size=additions, max_size=additions))
    packed = packing.pack(rows)
    total = sum(x * one for x, one in zip(multipliers, packed, strict=True)) % N
    found = packing.unpack([total], N, packing.slots)[0].tolist()
    assert found == [
        sum(x * int(row[slot]) for x, row in zip(multipliers, rows, strict=True))
        for slot in range(packing.slots)
    ]


@settings(max_examples=100, deadline=None)
@given(slot_bits=st.integers(2, 128), data=st.data())
def test_every_value_that_a_slot_holds_comes_back(slot_bits: int, data: st.DataObject) -> None:
    packing = Packing(slot_bits, (KEY_BITS - 1) // slot_bits)
    row = data.draw(st.lists(extreme(packing.limit), min_size=1, max_size=packing.slots))
    for dtype in (np.int64, object) if packing.slot_bits <= 64 else (object,):
        packed = packing.pack(np.array([row, row[::-1]], dtype))
        assert packed[0] == sum(value << (slot_bits * place) for place, value in enumerate(row))
        unpacked = packing.unpack([one % N for one in packed], N, len(row))
        assert unpacked.tolist() == [row, row[::-1]]


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(3, 1000), additions=st.integers(1, 10**6), value=st.integers(2, 60))
def test_slots_fill_half_the_modulus_and_no_more(bits: int, additions: int, value: int) -> None:
    try:
        packing = Packing.fitting(bits, value_bits=value, multiplier_bits=4, additions=additions)
    except ConfigError:
        most = additions * ((1 << (value - 1)) - 1) * 7
        assert most.bit_length() + 1 > min(128, bits - 1)
        return
    largest = sum(packing.limit << (packing.slot_bits * slot) for slot in range(packing.slots))
    assert 2 * largest < 1 << (bits - 1)
    assert packing.limit >= additions * ((1 << (value - 1)) - 1) * 7
    assert packing.limit // 2 < additions * ((1 << (value - 1)) - 1) * 7


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_shares_larger_than_a_slot_add_up_modulo_n(data: st.DataObject) -> None:
    packing = Packing(20, 25)
    row = data.draw(st.lists(extreme(packing.limit), min_size=1, max_size=25))
    shares = data.draw(st.lists(st.integers(-(2**600), 2**600), min_size=len(row), max_size=len(row)))
    rest = [value - share for value, share in zip(row, shares, strict=True)]
    total = (packing.pack(np.array([shares], object))[0] + packing.pack(np.array([rest], object))[0]) % N
    assert packing.unpack([total], N, len(row)).tolist() == [row]


@settings(max_examples=60, deadline=None)
@given(value_bits=st.integers(2, 30), noise_bits=st.integers(1, 64), data=st.data())
def test_a_sum_under_noise_fits_its_slot_and_the_noise_is_as_much_larger_as_declared(
    value_bits: int, noise_bits: int, data: st.DataObject
) -> None:
    packing = Packing.fitting(KEY_BITS, value_bits=value_bits, additions=7, noise_bits=noise_bits)
    bound = 7 * ((1 << (value_bits - 1)) - 1)
    assert packing.limit - bound >= bound << noise_bits
    row = data.draw(st.lists(extreme(bound), min_size=packing.slots, max_size=packing.slots))
    noise = packing.noise(bound, 1, packing.slots)
    assert np.abs(noise).max() <= packing.limit - bound
    total = (packing.pack(np.array([row]))[0] + packing.pack(noise)[0]) % N
    assert packing.unpack([total], N, packing.slots).tolist() == [
        [value + one for value, one in zip(row, noise[0], strict=True)]
    ]


def test_noise_is_uniform_over_all_the_room_there_is() -> None:
    packing = Packing(4, 1)
    drawn = packing.noise(3, 4000, 1).ravel().tolist()
    counts = [drawn.count(value) for value in range(-4, 5)]
    assert sum(counts) == 4000
    assert sum((count - 4000 / 9) ** 2 for count in counts) / (4000 / 9) < 50  # 8 degrees of freedom
    with pytest.raises(ConfigError, match="a sum and its noise may reach"):
        packing.noise(7, 1, 1)


def test_a_value_that_does_not_fit_is_refused_with_what_to_set() -> None:
    packing = Packing(8, 4)
    assert packing.unpack(packing.pack(np.array([[127, -127, 0, 127]])), N, 4).tolist() == [
        [127, -127, 0, 127]
    ]
    for value in (128, -128, 2**62, -(2**63)):
        with pytest.raises(ConfigError, match="slots hold 8: declare more additions"):
            packing.pack(np.array([[0, value]]))


def test_a_plaintext_that_slots_cannot_hold_is_refused() -> None:
    packing = Packing(8, 4)
    for number in (mpz(1) << 32, N // 2, N - (mpz(1) << 32), packing.pack(np.array([[127] * 4]))[0] + 129):
        with pytest.raises(ValueError, match="cannot hold"):
            packing.unpack([number], N, 4)


@pytest.mark.parametrize(
    ("value_bits", "multiplier_bits", "additions"),
    [(1, 1, 1), (8, 0, 1), (8, 8, 0), (60, 60, 2**20), (120, 1, 2**20)],
)
def test_a_declaration_that_no_slot_meets_is_refused(
    value_bits: int, multiplier_bits: int, additions: int
) -> None:
    with pytest.raises(ConfigError, match="set"):
        Packing.fitting(2048, value_bits=value_bits, multiplier_bits=multiplier_bits, additions=additions)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 9), width=st.integers(1, 70), rows_each=st.integers(1, 5), seed=st.integers(0, 2**32)
)
def test_a_matrix_comes_back_from_any_layout(rows: int, width: int, rows_each: int, seed: int) -> None:
    packing = Packing(20, 25)
    assume(rows_each == 1 or rows_each * width <= 25)
    layout = Layout(packing, rows, width, rows_each)
    values = np.random.default_rng(seed).integers(-packing.limit, packing.limit + 1, (rows, width))
    packed = layout.pack(values)
    assert len(packed) == layout.n_cells == -(-rows // rows_each) * -(-width // 25)
    assert layout.unpack([one % N for one in packed], N).tolist() == values.tolist()


def test_copies_are_the_same_row_at_every_place() -> None:
    packing = Packing(20, 25)
    values = np.arange(-14, 14).reshape(4, 7)
    packed = Layout(packing, 4, 7, copies=3).pack(values)
    assert len(packed) == 12
    for place, number in enumerate(packed):
        slots = packing.unpack([number % N], N, 25)[0]
        row, copy = divmod(place, 3)
        assert slots[7 * copy : 7 * copy + 7].tolist() == values[row].tolist()
        assert np.count_nonzero(slots) == np.count_nonzero(values[row])


@pytest.mark.parametrize(
    "sizes",
    [(0, 3, 1, 1), (3, 0, 1, 1), (3, 13, 2, 1), (3, 13, 1, 2), (4, 2, 2, 2), (3, 3, 0, 1), (3, 26, 2, 1)],
)
def test_a_layout_that_does_not_fit_is_refused(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Layout(Packing(20, 25), *sizes)


def test_a_matrix_or_plaintexts_of_another_size_are_refused() -> None:
    layout = Layout(Packing(20, 25), 4, 30)
    with pytest.raises(ValueError, match=r"\[4, 30\] is due"):
        layout.pack(np.zeros((30, 4), np.int64))
    with pytest.raises(ValueError, match="8 are due"):
        layout.unpack([mpz(0)] * 7, N)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.integers(2, 53),
    fraction_bits=st.integers(0, 60),
    values=st.lists(st.floats(allow_nan=False), max_size=20),
)
def test_real_numbers_are_rounded_exactly_and_what_was_clamped_is_counted(
    bits: int, fraction_bits: int, values: list[float]
) -> None:
    point = FixedPoint(bits, fraction_bits)
    encoded, n_clamped = point.encode(np.array(values))
    due = [
        round(Fraction(value) * 2**fraction_bits) if abs(value) < 2.0**60 else int(np.sign(value)) << 200
        for value in values
    ]
    assert encoded.tolist() == [max(-point.limit, min(point.limit, one)) for one in due]
    assert n_clamped == sum(abs(one) > point.limit for one in due)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no number"):
        FixedPoint(16, 8).encode(np.array([1.0, np.nan]))


@pytest.mark.parametrize(("bits", "fraction_bits"), [(1, 0), (54, 0), (16, -1), (16, 513)])
def test_a_fixed_point_that_cannot_be_is_refused(bits: int, fraction_bits: int) -> None:
    with pytest.raises(ConfigError, match="set"):
        FixedPoint(bits, fraction_bits)
