"""What is computed under encryption is what Python's integers give, or is refused before it is computed."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.errors import ConfigError, WorkerLost
from vfl.paillier.exponentiation import products_of_powers
from vfl.paillier.keys import PrivateKey, make_keys
from vfl.paillier.obfuscation import Covering, Exact, ShortExponent
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.pool import Pool
from vfl.paillier.vector import EncryptedMatrix
from vfl.paillier.workers import Workers

KEY = make_keys(512, unsafe_small_key=True)
PACKING = Packing.fitting(512, value_bits=10, multiplier_bits=10, additions=20)


def drawn(seed: int, *shape: int, bits: int = 10) -> np.ndarray:
    limit = (1 << (bits - 1)) - 1
    values = np.random.default_rng(seed).integers(-limit, limit + 1, shape)
    values.flat[0] = limit if seed % 2 else -limit
    return values


def encrypted(values: np.ndarray, packing: Packing = PACKING, copies: int = 1) -> EncryptedMatrix:
    return EncryptedMatrix.encrypt(KEY.public, Layout(packing, *values.shape, copies=copies), values)


sizes = st.integers(1, 6)


@settings(max_examples=40, deadline=None)
@given(j=sizes, rows=sizes, width=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_a_plain_matrix_times_an_encrypted_one_is_their_product(
    j: int, rows: int, width: int, seed: int
) -> None:
    m, x = drawn(seed, rows, width), drawn(seed + 1, j, rows)
    product = encrypted(m).left_multiply(x)
    assert (product.decrypt(KEY) == x @ m).all()
    assert product.bound >= abs(x @ m).max()


@settings(max_examples=40, deadline=None)
@given(
    j=st.integers(1, 9),
    rows=sizes,
    width=st.integers(1, 6),
    copies=st.integers(2, 3),
    seed=st.integers(0, 2**32),
)
def test_with_copies_as_many_rows_of_the_product_share_a_plaintext(
    j: int, rows: int, width: int, copies: int, seed: int
) -> None:
    m, x = drawn(seed, rows, width), drawn(seed + 1, j, rows)
    product = encrypted(m, copies=copies).left_multiply(x)
    assert len(product.cells) == -(-j // copies)
    assert (product.decrypt(KEY) == x @ m).all()


@settings(max_examples=20, deadline=None)
@given(j=st.integers(1, 7), each=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_folded_rows_are_the_same_rows_in_fewer_ciphertexts(j: int, each: int, seed: int) -> None:
    m, x = drawn(seed, 5, 4), drawn(seed + 1, j, 5)
    product = encrypted(m).left_multiply(x)
    folded = product.fold(each)
    assert len(folded.cells) == -(-j // each)
    assert (folded.decrypt(KEY) == x @ m).all()


@settings(max_examples=30, deadline=None)
@given(rows=sizes, width=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_sums_with_encrypted_and_plain_matrices_are_sums(rows: int, width: int, seed: int) -> None:
    a, b, c = (drawn(seed + place, rows, width) for place in range(3))
    total = encrypted(a).add(encrypted(b)).add_plain(c)
    assert (total.decrypt(KEY) == a + b + c).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), share_bits=st.sampled_from([20, 64, 100]))
def test_shares_of_any_size_give_the_product_of_what_they_share(seed: int, share_bits: int) -> None:
    # W = A + B; who has A multiplies under encryption, who has B in the clear; neither product fits a slot.
    h, w = drawn(seed, 30, 5), drawn(seed + 1, 5, 4)
    a = np.array([[secrets.randbelow(2 << share_bits) - (1 << share_bits) for _ in row] for row in w], object)
    b = w - a
    product = encrypted(h.T).left_multiply(a.T, bound=PACKING.limit)
    other = (h.astype(object) @ b).T
    assert (product.add_plain(other, bound=PACKING.limit).decrypt(KEY) == (h @ w).T).all()


def test_a_masked_matrix_comes_back_when_the_masks_are_taken_away() -> None:
    m = drawn(3, 7, 40)
    masked, masks = encrypted(m).masked()
    plain = masked.plaintexts(KEY)
    unmasked = [(one - mask) % KEY.public.n for one, mask in zip(plain, masks, strict=True)]
    assert (masked.layout.unpack(unmasked, KEY.public.n) == m).all()


def test_masked_plaintexts_are_uniform_whatever_was_masked() -> None:
    cells = 1600
    zeros = EncryptedMatrix.encrypt(
        KEY.public, Layout(Packing(20, 1), cells, 1), np.zeros((cells, 1), np.int64)
    )
    n = int(KEY.public.n)

    def distance(matrix: EncryptedMatrix) -> float:
        """Returns Pearson's chi-square of sixteen equal parts of [0, n), of the plaintexts' highest part."""
        counts = np.bincount([int(one) * 16 // n for one in matrix.plaintexts(KEY)], minlength=16)
        return float(((counts - cells / 16) ** 2).sum() / (cells / 16))

    assert distance(zeros.masked()[0]) < 60  # 15 degrees of freedom: beyond it once in two million
    assert distance(zeros) > 10_000


def test_what_could_overflow_is_refused_before_it_is_computed() -> None:
    packing = Packing.fitting(512, value_bits=8, multiplier_bits=8, additions=4)
    m = np.full((4, 3), 127)
    product = encrypted(m, packing).left_multiply(np.full((2, 4), -127))
    assert (product.decrypt(KEY) == -127 * 127 * 4).all()
    with pytest.raises(ConfigError, match="a product may reach"):
        encrypted(np.full((5, 3), 127), packing).left_multiply(np.full((2, 5), 127 * 127))
    with pytest.raises(ConfigError, match="a product may reach"):
        encrypted(m, packing).left_multiply(np.full((2, 4), 127 * 4))
    with pytest.raises(ConfigError, match="a sum may reach"):
        product.add(product).add(product)
    with pytest.raises(ConfigError, match="a sum may reach"):
        product.add_plain(np.full((2, 3), packing.limit))
    with pytest.raises(ConfigError, match="a value may reach"):
        EncryptedMatrix.encrypt(KEY.public, Layout(packing, 4, 3), m, bound=1 << 60)


def test_matrices_that_do_not_go_together_are_refused(other_key: PrivateKey) -> None:
    m = drawn(1, 4, 3)
    theirs = EncryptedMatrix.encrypt(other_key.public, Layout(PACKING, 4, 3), m)
    with pytest.raises(ValueError, match="different keys"):
        encrypted(m).add(theirs)
    with pytest.raises(ValueError, match="different keys"):
        encrypted(m).add(encrypted(m.T.copy()))
    with pytest.raises(ValueError, match="another key"):
        theirs.decrypt(KEY)
    with pytest.raises(ValueError, match="times 4 × 3"):
        encrypted(m).left_multiply(drawn(2, 2, 3))
    shared = encrypted(m, copies=2).left_multiply(drawn(2, 5, 4))
    with pytest.raises(ValueError, match="2 a plaintext"):
        shared.left_multiply(drawn(2, 2, 5))
    with pytest.raises(ValueError, match="one plaintext each"):
        shared.fold(2)
    with pytest.raises(ConfigError, match="do not fit"):
        encrypted(m).fold(30)


def test_a_result_out_of_its_slots_is_no_matrix() -> None:
    matrix = encrypted(drawn(1, 2, 24))
    masked, _ = matrix.masked()
    with pytest.raises(ValueError, match="cannot hold"):
        masked.decrypt(KEY)


def test_nothing_of_the_ciphertexts_shows_when_printed() -> None:
    assert repr(encrypted(drawn(1, 2, 3))) == "<EncryptedMatrix 2 × 3 in 2 ciphertexts>"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as two:
        yield two


def test_processes_compute_what_one_does(workers: Workers) -> None:
    bases = [KEY.public.h_s + place for place in range(9)]
    for bits in (10, 200):
        x = np.array(
            [[secrets.randbits(bits) - (1 << (bits - 1)) for _ in range(9)] for _ in range(5)], object
        )
        if bits == 10:
            x = x.astype(np.int64)
        found = workers.products_of_powers(bases, x, KEY.public.n_squared)
        assert found == products_of_powers(bases, x, KEY.public.n_squared)
    m, x = drawn(1, 6, 4), drawn(2, 1, 6)
    assert (encrypted(m).left_multiply(x, workers=workers).decrypt(KEY) == x @ m).all()


def test_processes_fill_pools_of_every_kind(workers: Workers) -> None:
    for kind in (Exact, Covering, ShortExponent):
        of = KEY if kind is Exact else KEY.public
        with Pool(kind(of), 40, workers.obfuscators(of, kind, place=1)) as pool:  # type: ignore[arg-type]
            pool.wait_until_full()
            with mock.patch.object(kind, "draw", side_effect=AssertionError("drawn late")):
                drawn_ahead = [pool.draw() for _ in range(40)]
        assert len(set(drawn_ahead)) == 40
        assert {key_sum for key_sum in map(KEY.decrypt, drawn_ahead)} == {0}


def test_a_worker_that_was_killed_is_an_error_and_no_wait() -> None:
    with Workers(1) as mortal:
        mortal._workers[0]._process.kill()
        mortal._workers[0]._process.wait()
        with pytest.raises(WorkerLost, match="has ended"):
            mortal.products_of_powers([KEY.public.h_s], np.array([[3]]), KEY.public.n_squared)


def test_processes_end_when_they_are_no_longer_needed() -> None:
    with Workers(2) as two:
        processes = [worker._process for worker in two._workers]
        assert [process.poll() for process in processes] == [None, None]
    assert [process.returncode for process in processes] == [0, 0]


def test_if_one_process_cannot_start_those_before_it_end() -> None:
    begun, popen = [], subprocess.Popen

    def failing(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if len(begun) == 2:
            raise OSError("no more processes")
        begun.append(popen(*args, **kwargs))
        return begun[-1]

    with mock.patch.object(subprocess, "Popen", failing), pytest.raises(OSError, match="no more processes"):
        Workers(3)
    assert [process.poll() for process in begun] == [0, 0]


def test_no_workers_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="set 1 or more"):
        Workers(0)
