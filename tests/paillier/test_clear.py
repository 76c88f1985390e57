"""Under a key that hides nothing every computation gives what it gives under a real one."""

from __future__ import annotations

import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.paillier.clear import ClearKey
from vfl.paillier.keys import PrivateKey
from vfl.paillier.obfuscation import Exact
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.shipping import receive, ship
from vfl.paillier.vector import EncryptedMatrix

CLEAR = ClearKey(512)
PACKING = Packing.fitting(512, value_bits=12, multiplier_bits=12, additions=64)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32))
def test_products_sums_and_folds_are_the_same(
    key: PrivateKey, rows: int, width: int, results: int, copies: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    m, plain = rng.integers(-2000, 2001, (rows, width)), rng.integers(-99, 100, (results, width))
    x = rng.integers(-2000, 2001, (results, rows))
    layout = Layout(PACKING, rows, width, copies=copies)
    found = []
    for half in (key, CLEAR):
        product = EncryptedMatrix.encrypt(half.public, layout, m).left_multiply(x).add_plain(plain)
        product = product.fold(2) if copies == 1 else product
        masked, masks = product.masked()
        unmasked = [
            (number - mask) % half.public.n
            for number, mask in zip(masked.plaintexts(half), masks, strict=True)
        ]
        assert unmasked == product.plaintexts(half)
        found.append(product.add(product).decrypt(half))
    assert (found[0] == found[1]).all()
    assert (found[1] == 2 * (x @ m + plain)).all()


def test_what_is_shipped_is_the_number_itself() -> None:
    layout = Layout(PACKING, 2, 3)
    matrix = EncryptedMatrix.encrypt(CLEAR, layout, np.arange(6).reshape(2, 3))
    raw = ship(matrix, CLEAR)
    assert len(raw) == 2 * CLEAR.cipher_bytes == 2 * 512 // 8
    assert [int.from_bytes(raw[:64], "big"), int.from_bytes(raw[64:], "big")] == list(matrix.cells)
    assert (receive(raw, CLEAR, layout, 5).decrypt(CLEAR) == np.arange(6).reshape(2, 3)).all()


def test_a_number_that_is_not_below_n_is_refused() -> None:
    layout = Layout(PACKING, 1, 3)
    with pytest.raises(ValueError, match="number 0 is not below n"):
        receive(b"\xff" * 64, CLEAR, layout, 5)


def test_a_real_key_says_the_same_numbers_as_ciphertexts_twice_as_wide(key: PrivateKey) -> None:
    layout = Layout(PACKING, 1, 3)
    raw = ship(EncryptedMatrix.encrypt(key.public, layout, np.ones((1, 3), np.int64)), Exact(key))
    assert len(raw) == 2 * CLEAR.cipher_bytes
    assert CLEAR.n % 2 == 1
    assert CLEAR.lift(mpz(-1)) == CLEAR.n - 1
