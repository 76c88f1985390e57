"""What is shipped can be read by the key holder, told by nobody, and nothing else is taken in."""

from __future__ import annotations

import secrets

import gmpy2
import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.paillier.keys import PrivateKey, make_keys
from vfl.paillier.obfuscation import Covering, Exact, ShortExponent
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.shipping import plain_from_bytes, plain_to_bytes, receive, ship
from vfl.paillier.vector import EncryptedMatrix

KEY = make_keys(512, unsafe_small_key=True)
PUBLIC = KEY.public
EXACT, COVERING, SHORT = Exact(KEY), Covering(PUBLIC), ShortExponent(PUBLIC)
PACKING = Packing(20, 25)
LAYOUT = Layout(PACKING, 3, 30)
WIDTH = PUBLIC.cipher_bytes


class NoObfuscators:
    """Is the control: what would be shipped without re-randomising."""

    def draw(self) -> mpz:
        return mpz(1)


def encrypted(values: np.ndarray, layout: Layout = LAYOUT) -> EncryptedMatrix:
    return EncryptedMatrix.encrypt(PUBLIC, layout, values)


def sent(values: np.ndarray, layout: Layout = LAYOUT, bound: int = PACKING.limit // 2) -> EncryptedMatrix:
    """Returns what a peer holds after the key holder shipped."""
    return receive(ship(encrypted(values, layout), EXACT), PUBLIC, layout, bound)


def random_matrix() -> np.ndarray:
    return np.random.default_rng(secrets.randbits(64)).integers(-(2**17), 2**17, (3, 30))


def test_a_shipped_matrix_arrives_at_a_fixed_width() -> None:
    values = random_matrix()
    for source in (EXACT, COVERING, SHORT):
        raw = ship(encrypted(values), source)
        assert len(raw) == 6 * 128
        assert (receive(raw, PUBLIC, LAYOUT, 2**18).decrypt(KEY) == values).all()


def test_the_same_matrix_is_never_the_same_bytes() -> None:
    matrix = sent(random_matrix())
    for source in (EXACT, COVERING, SHORT):
        first, second = ship(matrix, source), ship(matrix, source)
        cells = [raw[at : at + WIDTH] for raw in (first, second) for at in range(0, len(raw), WIDTH)]
        assert len(set(cells)) == 12


@pytest.mark.parametrize("source", [COVERING, SHORT, EXACT])
def test_who_knows_one_summand_cannot_divide_it_out_of_what_was_shipped(source: Covering) -> None:
    theirs, mine = random_matrix(), random_matrix()
    known = sent(theirs)
    total = known.add(encrypted(mine))

    def divided(raw: bytes) -> list[mpz]:
        shipped = receive(raw, PUBLIC, LAYOUT, PACKING.limit)
        return [
            a * gmpy2.invert(b, PUBLIC.n_squared) % PUBLIC.n_squared
            for a, b in zip(shipped.cells, known.cells, strict=True)
        ]

    # Without randomness of its own, the quotient is 1 + m · n, and m is there to read without any key.
    bare = [(one - 1) // PUBLIC.n for one in divided(ship(total, NoObfuscators()))]
    assert (LAYOUT.unpack(bare, PUBLIC.n) == mine).all()
    quotients = divided(ship(total, source))
    assert all(one % PUBLIC.n != 1 for one in quotients)
    with pytest.raises(ValueError, match="cannot hold"):
        LAYOUT.unpack([(one - 1) // PUBLIC.n for one in quotients], PUBLIC.n)


def test_who_knows_the_factors_cannot_try_which_integers_multiplied_them() -> None:
    layout = Layout(PACKING, 2, 1)
    known = sent(np.array([[3], [5]]), layout, 5)
    secret = np.array([[-4, 6]])
    product = known.left_multiply(secret)

    def guessed(raw: bytes) -> list[tuple[int, int]]:
        tried = [(a, b) for a in range(-8, 9) for b in range(-8, 9)]
        cell = int.from_bytes(raw, "big")
        return [x for x in tried if known.left_multiply(np.array([x])).cells[0] == cell]

    assert guessed(ship(product, NoObfuscators())) == [(-4, 6)]
    assert guessed(ship(product, COVERING)) == []


def test_only_covering_obfuscators_hide_from_the_key_holder_what_was_computed() -> None:
    # The Jacobi symbol of what remains without the plaintext tells whether the exponents of those
    # ciphertexts whose symbol is -1 sum to an odd number: 1 bit of the other party's weights a product.
    layout = Layout(PACKING, 4, 1)
    known = sent(np.array([[1], [2], [3], [4]]), layout, 4)
    n_told = {COVERING: 0, SHORT: 0}
    for source in n_told:
        for _ in range(200):
            x = np.array([[secrets.randbelow(200) - 100 for _ in range(4)]])
            shipped = mpz(int.from_bytes(ship(known.left_multiply(x), source), "big"))
            symbols = [gmpy2.jacobi(cell, PUBLIC.n) for cell in known.cells]
            odd = sum(int(one) for one, symbol in zip(x[0], symbols, strict=True) if symbol == -1) % 2
            n_told[source] += (gmpy2.jacobi(shipped, PUBLIC.n) == -1) == bool(odd)
    assert n_told[SHORT] == 200
    assert abs(n_told[COVERING] - 100) < 6 * 50**0.5


@pytest.mark.parametrize("n_bytes", [0, 1, 5 * 128, 6 * 128 - 1, 6 * 128 + 1, 7 * 128])
def test_another_number_of_ciphertexts_is_refused(n_bytes: int) -> None:
    with pytest.raises(ValueError, match="6 ciphertexts of 128 are due"):
        receive(bytes(n_bytes), PUBLIC, LAYOUT, 1)


def test_what_is_no_ciphertext_is_refused_by_its_place() -> None:
    raw = ship(encrypted(random_matrix()), EXACT)
    p, q = KEY.phe_key.p, KEY.phe_key.q
    for number, why in [
        (0, "not between 0 and n²"),
        (PUBLIC.n_squared, "not between 0 and n²"),
        (2**1024 - 1, "not between 0 and n²"),
        (p, "shares a factor"),
        (q * q, "shares a factor"),
        (PUBLIC.n, "shares a factor"),
    ]:
        for place in (0, 3, 5):
            bad = int(number).to_bytes(WIDTH, "big")
            lied = raw[: place * WIDTH] + bad + raw[(place + 1) * WIDTH :]
            with pytest.raises(ValueError, match=f"ciphertext {place} .*{why}"):
                receive(lied, PUBLIC, LAYOUT, 1)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=6 * 128, max_size=6 * 128))
def test_whatever_bytes_arrive_they_are_a_matrix_or_a_value_error(raw: bytes) -> None:
    try:
        matrix = receive(raw, PUBLIC, LAYOUT, 1)
    except ValueError:
        return
    assert all(0 < cell < PUBLIC.n_squared for cell in matrix.cells)


def test_what_was_shipped_under_another_key_is_refused_or_decrypts_to_what_no_slots_hold(
    other_key: PrivateKey,
) -> None:
    raw = ship(EncryptedMatrix.encrypt(other_key.public, LAYOUT, random_matrix()), Exact(other_key))
    with pytest.raises(ValueError, match=r"ciphertext \d|cannot hold"):
        receive(raw, PUBLIC, LAYOUT, 1).decrypt(KEY)


def test_plaintexts_go_as_wide_as_the_modulus_and_only_below_it() -> None:
    numbers = [mpz(0), mpz(1), PUBLIC.n - 1]
    raw = plain_to_bytes(numbers, PUBLIC)
    assert len(raw) == 3 * 64
    assert plain_from_bytes(raw, PUBLIC, 3) == numbers
    with pytest.raises(ValueError, match="2 plaintexts of 64 are due"):
        plain_from_bytes(raw, PUBLIC, 2)
    with pytest.raises(ValueError, match="not below n"):
        plain_from_bytes(int(PUBLIC.n).to_bytes(64, "big"), PUBLIC, 1)


def test_a_step_at_the_default_key_size_is_that_of_integers(full_key: PrivateKey) -> None:
    public = full_key.public
    packing = Packing.fitting(public.bits, value_bits=16, multiplier_bits=16, additions=16)
    assert (packing.slot_bits, packing.slots) == (35, 58)
    rng = np.random.default_rng(5)
    h, w = (rng.integers(-(2**15) + 1, 2**15, shape) for shape in [(70, 16), (16, 3)])
    layout = Layout(packing, 16, 70)
    key_holder, other = Exact(full_key), Covering(public)
    received = receive(
        ship(EncryptedMatrix.encrypt(public, layout, h.T), key_holder), public, layout, 2**15 - 1
    )
    product, masks = received.left_multiply(w.T).masked()
    back = receive(ship(product, other), public, product.layout, packing.limit).plaintexts(full_key)
    z = product.layout.unpack(
        [(one - mask) % public.n for one, mask in zip(back, masks, strict=True)], public.n
    )
    assert (z == (h @ w).T).all()
