"""Products of powers are right by both ways, and cost what was counted."""

from __future__ import annotations

import secrets

import gmpy2
import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.paillier import exponentiation
from vfl.paillier.exponentiation import FixedBase, Plan, inverted, plan, products_of_powers, signed_digits

MODULUS = gmpy2.next_prime(mpz(1) << 200)


def units(count: int) -> list[mpz]:
    return [mpz(1 + secrets.randbelow(int(MODULUS) - 1)) for _ in range(count)]


def naive(bases: list[mpz], exponents: np.ndarray) -> list[mpz]:
    found = []
    for row in exponents.tolist():
        product = mpz(1)
        for base, x in zip(bases, row, strict=True):
            product = product * gmpy2.powmod(base, x, MODULUS) % MODULUS
        found.append(product)
    return found


@settings(max_examples=100, deadline=None)
@given(
    method=st.sampled_from(["tables", "buckets"]),
    window=st.integers(2, 9),
    n_bases=st.integers(1, 6),
    n_products=st.integers(1, 4),
    bits=st.sampled_from([1, 2, 8, 16, 31, 60, 61, 62, 63, 64, 65, 130]),
    data=st.data(),
)
def test_products_of_powers_are_those_computed_one_by_one(
    method: str, window: int, n_bases: int, n_products: int, bits: int, data: st.DataObject
) -> None:
    limit = (1 << bits) - 1
    one = st.one_of(st.sampled_from([0, 1, -1, limit, -limit]), st.integers(-limit, limit))
    drawn = data.draw(st.lists(one, min_size=n_bases * n_products, max_size=n_bases * n_products))
    exponents = np.array(drawn, object if bits > 62 else np.int64).reshape(n_products, n_bases)
    bases = units(n_bases)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exponentiation, "plan", lambda *_: Plan(method, window, 0))  # type: ignore[arg-type]
        assert products_of_powers(bases, exponents, MODULUS) == naive(bases, exponents)


def test_the_largest_and_smallest_of_int64_are_powers_too() -> None:
    exponents = np.array([[2**63 - 1, -(2**63)], [-(2**63), -(2**63) + 1]])
    bases = units(2)
    assert products_of_powers(bases, exponents, MODULUS) == naive(bases, exponents)


def test_powers_of_zero_and_no_products_at_all() -> None:
    assert products_of_powers(units(3), np.zeros((2, 3), np.int64), MODULUS) == [1, 1]
    assert products_of_powers(units(3), np.zeros((0, 3), np.int64), MODULUS) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 12), st.lists(st.integers(-(2**80), 2**80), min_size=1, max_size=9))
def test_digits_of_both_signs_write_every_integer(window: int, numbers: list[int]) -> None:
    digits = signed_digits(np.array(numbers, object), window)
    half = 1 << (window - 1)
    assert ((digits >= -half) & (digits < half)).all()
    weights = [1 << (window * place) for place in range(len(digits))]
    written = [
        sum(int(digit) * weight for digit, weight in zip(column, weights, strict=True)) for column in digits.T
    ]
    assert written == numbers


class Counted:
    """Is a unit that counts multiplications of its kind."""

    n_multiplications = 0

    def __init__(self, number: mpz) -> None:
        self.number = number

    def __mul__(self, other: object) -> Counted:
        Counted.n_multiplications += 1
        return Counted(self.number * (other.number if isinstance(other, Counted) else mpz(other)))  # type: ignore[call-overload]

    __rmul__ = __mul__

    def __mod__(self, modulus: mpz) -> Counted:
        return Counted(self.number % modulus)

    def __eq__(self, other: object) -> bool:
        return self.number == (other.number if isinstance(other, Counted) else other)

    __hash__ = None  # type: ignore[assignment]


POWER = gmpy2.powmod


def counted_power(base: Counted | mpz, exponent: mpz, modulus: mpz) -> Counted:
    Counted.n_multiplications += int(exponent).bit_length() - 1  # a power of 2: squarings
    number = base.number if isinstance(base, Counted) else base
    return Counted(POWER(number, exponent, modulus))


@pytest.mark.parametrize("sizes", [(16, 16, 15), (16, 16, 63), (64, 64, 15), (256, 16, 15), (600, 2, 15)])
def test_no_more_multiplications_are_made_than_were_counted(
    sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bases, n_products, bits = sizes
    exponents = np.array(
        [[secrets.randbelow(2 << bits) - (1 << bits) or 1 for _ in range(n_bases)] for _ in range(n_products)]
    ).clip(-(1 << bits) + 1, (1 << bits) - 1)
    exponents[0, 0] = (1 << bits) - 1
    bases = units(n_bases)
    due = naive(bases, exponents)
    monkeypatch.setattr(exponentiation, "inverted", lambda bases, modulus: _inverted(bases))
    monkeypatch.setattr(exponentiation.gmpy2, "powmod", counted_power)
    Counted.n_multiplications = 0
    found = products_of_powers([Counted(base) for base in bases], exponents, MODULUS)  # type: ignore[misc]
    assert found == due
    counted = plan(n_bases, n_products, bits).multiplications - 3 * n_bases
    assert 0.8 * counted <= Counted.n_multiplications <= counted * 1.01


def _inverted(bases: list[Counted]) -> list[Counted]:
    return [Counted(gmpy2.invert(base.number, MODULUS)) for base in bases]


def test_many_bases_for_few_products_go_into_buckets_and_few_for_many_get_tables() -> None:
    assert plan(256, 16, 15).method == "buckets"
    assert plan(16, 16, 15).method == "tables"
    one_by_one = 256 * 16 * 15 * 1.5
    assert plan(256, 16, 15).multiplications < one_by_one / 5


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30))
def test_all_are_inverted(count: int) -> None:
    numbers = units(count)
    assert [a * b % MODULUS for a, b in zip(numbers, inverted(numbers, MODULUS), strict=True)] == [1] * count


def test_what_has_no_inverse_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        inverted([mpz(2), MODULUS * 0, mpz(3)], MODULUS)


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(1, 80), data=st.data())
def test_a_table_gives_every_power_of_its_base(bits: int, data: st.DataObject) -> None:
    exponent = data.draw(st.one_of(st.sampled_from([0, 1, (1 << bits) - 1]), st.integers(0, (1 << bits) - 1)))
    base = units(1)[0]
    assert FixedBase(base, MODULUS, bits).power(exponent) == gmpy2.powmod(base, exponent, MODULUS)


def test_an_exponent_beyond_the_table_is_no_power() -> None:
    table = FixedBase(units(1)[0], MODULUS, 16)
    for exponent in (1 << 16, -1):
        with pytest.raises(OverflowError):
            table.power(exponent)
