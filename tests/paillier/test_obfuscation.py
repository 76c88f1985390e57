"""Obfuscators encrypt zero, each from the group that its argument speaks of, and each is used once."""

from __future__ import annotations

import threading

import gmpy2
import pytest
from gmpy2 import mpz

from vfl.errors import ConfigError
from vfl.paillier.keys import PrivateKey, PublicKey
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators, ShortExponent
from vfl.paillier.pool import Pool

DRAWS = 400
#: Six standard deviations of how often one of two equally probable things is seen.
FAR = 6 * (DRAWS / 4) ** 0.5


def sources(key: PrivateKey) -> list[Obfuscators]:
    public = key.public
    return [
        Exact(key),
        Covering(public),
        ShortExponent(public),
        ShortExponent(public, "further assumption"),
    ]


def symbols(key: PrivateKey, source: Obfuscators) -> list[tuple[int, int]]:
    p, q = key.phe_key.p, key.phe_key.q
    return [(gmpy2.jacobi(one, p), gmpy2.jacobi(one, q)) for one in (source.draw() for _ in range(DRAWS))]


def test_every_obfuscator_encrypts_zero_and_none_is_drawn_twice(key: PrivateKey) -> None:
    for source in sources(key):
        drawn = [source.draw() for _ in range(60)]
        assert len(set(drawn)) == 60
        assert all(0 < one < key.public.n_squared for one in drawn)
        assert [key.decrypt(one) for one in drawn] == [0] * 60


@pytest.mark.parametrize("kind", [0, 1])
def test_exact_and_covering_obfuscators_are_of_all_four_classes_alike(key: PrivateKey, kind: int) -> None:
    seen = symbols(key, sources(key)[kind])
    for of_p, of_q in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
        assert abs(seen.count((of_p, of_q)) - DRAWS / 4) < FAR


def test_short_exponents_never_leave_jacobi_symbol_1(key: PrivateKey) -> None:
    # Which is why they do not do for hiding a computation from the key holder.
    assert {of_p * of_q for of_p, of_q in symbols(key, ShortExponent(key.public))} == {1}


def test_an_exact_obfuscator_runs_over_the_whole_group_modulo_each_square() -> None:
    # 3 generates the units modulo 7, and 2 those modulo 11: a group small enough to see all of.
    key = PrivateKey(_Tiny, PublicKey(_TinyPublic, mpz(0)), mpz(3), mpz(2))  # type: ignore[arg-type]
    source = Exact(key)
    drawn = {int(source.draw()) for _ in range(2000)}
    assert drawn == {pow(r, 77, 77**2) for r in range(1, 77) if r % 7 and r % 11}


class _Tiny:
    p, q = 7, 11


class _TinyPublic:
    n, nsquare = 77, 77**2


def test_exponents_are_as_long_as_published_unless_named_otherwise(full_key: PrivateKey) -> None:
    public = full_key.public
    assert ShortExponent(public).exponent_bits == 1024
    assert ShortExponent(public, "further assumption").exponent_bits == 448
    with pytest.raises(ConfigError, match='set "published" or'):
        ShortExponent(public, "short")  # type: ignore[arg-type]


def test_a_covering_exponent_is_longer_than_the_order_of_any_element(key: PrivateKey) -> None:
    assert Covering(key.public).exponent_bits == key.public.bits + 64


class Counting:
    """Draws 1, 2, 3..., and waits where it is told to."""

    def __init__(self) -> None:
        self.n_drawn = 0
        self._lock = threading.Lock()

    def draw(self) -> mpz:
        with self._lock:
            self.n_drawn += 1
            return mpz(self.n_drawn)


def test_a_pooled_obfuscator_is_drawn_once_however_many_draw() -> None:
    drawn: list[list[mpz]] = [[] for _ in range(8)]
    with Pool(Counting(), 16) as pool:

        def draw(into: list[mpz]) -> None:
            into.extend(pool.draw() for _ in range(200))

        threads = [threading.Thread(target=draw, args=(into,)) for into in drawn]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    everything = [one for part in drawn for one in part]
    assert len(set(everything)) == len(everything) == 1600


def test_a_pool_holds_no_more_than_it_may_and_gives_what_was_made_ahead() -> None:
    source = Counting()
    with Pool(source, 10) as pool:
        pool.wait_until_full()
        assert source.n_drawn == 10
        first = [pool.draw() for _ in range(3)]
        assert first == [1, 2, 3]
        pool.wait_until_full()
        assert source.n_drawn == 13


def test_an_empty_pool_draws_from_its_source() -> None:
    held, source = threading.Event(), Counting()

    def batch(count: int) -> list[mpz]:
        held.wait()
        return [mpz(-1)] * count

    with Pool(source, 4, batch) as pool:
        assert [pool.draw() for _ in range(5)] == [1, 2, 3, 4, 5]
        held.set()


def test_what_ends_the_background_is_raised_to_who_draws() -> None:
    def batch(count: int) -> list[mpz]:
        raise ChildProcessError("gone")

    with Pool(Counting(), 4, batch) as pool:
        pool.wait_until_full()
        with pytest.raises(ChildProcessError, match="gone"):
            pool.draw()


def test_a_closed_pool_has_no_thread_and_nothing_left() -> None:
    before = threading.active_count()
    pool = Pool(Counting(), 4)
    pool.wait_until_full()
    pool.close()
    assert threading.active_count() == before
    assert pool.draw() == 5  # from the source: what was held is forgotten


def test_a_pool_needs_room() -> None:
    with pytest.raises(ValueError, match="pool of 0"):
        Pool(Counting(), 0)
