"""What the operations cost on this machine, measured, and what a plan of operations would then take."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from gmpy2 import mpz

from vfl.paillier.exponentiation import plan, products_of_powers
from vfl.paillier.keys import PrivateKey
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators
from vfl.paillier.packing import Packing

_KINDS: Final = 7
_BASES, _PRODUCTS, _EXPONENT_BITS = 16, 4, 16


@dataclass(frozen=True)
class Costs:
    """Is the processor time that each operation takes, in seconds, for keys of one size.

    That is what it takes on a core that does nothing else.

    Attributes:
        key_bits: of n.
        exact_s: an obfuscator of the key holder's, made and multiplied in.
        covering_s: one that hides from the key holder too.
        multiplication_s: a multiplication modulo n² inside products of powers, with what goes with it.
        decryption_s: a ciphertext.
        packing_s: packing a value.
        unpacking_s: reading a value.
        integer_s: a multiplication and an addition of Python's integers, as a product of matrices of them.
    """

    key_bits: int
    exact_s: float
    covering_s: float
    multiplication_s: float
    decryption_s: float
    packing_s: float
    unpacking_s: float
    integer_s: float

    def products_s(self, n_bases: int, n_products: int, exponent_bits: int) -> float:
        """Returns the seconds that so many products of powers of the same bases take."""
        return plan(n_bases, n_products, exponent_bits).multiplications * self.multiplication_s


def measure(key: PrivateKey, seconds: float = 1.0) -> Costs:
    """Measures every operation for its share of so many seconds, tables not counted.

    Processor time is taken, while another thread decrypts: in a run the other party, or what works ahead,
    keeps a second core busy, and two cores that are one core's two threads are then slower each.

    Args:
        key: any of the size in question; it need not be the one of a run.
        seconds: to spend, about.
    """
    with _another_busy(key):
        return _measured(key, seconds / _KINDS)


def _measured(key: PrivateKey, share: float) -> Costs:
    public = key.public
    packing = Packing.fitting(public.bits, value_bits=16, multiplier_bits=16, additions=16)
    rows = np.arange(16 * packing.slots).reshape(16, -1) % 1000 - 500
    packed = packing.pack(rows)
    units = [mpz(secrets.randbelow(int(public.n_squared))) | 1 for _ in range(_BASES)]
    half = 1 << (_EXPONENT_BITS - 1)
    exponents = np.array(
        [[secrets.randbelow(2 * half - 1) - half + 1 for _ in units] for _ in range(_PRODUCTS)]
    )
    wide = rows[:, :_BASES].astype(object) << 80
    plain = [number % public.n for number in packed]
    counted = plan(_BASES, _PRODUCTS, _EXPONENT_BITS - 1).multiplications
    exact_s, covering_s = (
        _seconds(partial(_obfuscated, units[0], source, public.n_squared), share)
        for source in (Exact(key), Covering(public))
    )
    return Costs(
        public.bits,
        exact_s,
        covering_s,
        multiplication_s=_seconds(lambda: products_of_powers(units, exponents, public.n_squared), share)
        / counted,
        decryption_s=_seconds(lambda: key.decrypt(units[0]), share),
        packing_s=_seconds(lambda: packing.pack(rows), share) / rows.size,
        unpacking_s=_seconds(lambda: packing.unpack(plain, public.n, packing.slots), share) / rows.size,
        integer_s=_seconds(lambda: wide @ wide.T, share) / (len(wide) ** 2 * wide.shape[1]),
    )


@contextmanager
def _another_busy(key: PrivateKey) -> Iterator[None]:
    """Keeps another core busy with powers, which need no interpreter."""
    is_over, cell = threading.Event(), mpz(secrets.randbelow(int(key.public.n_squared))) | 1

    def work() -> None:
        while not is_over.is_set():
            key.decrypt(cell)

    thread = threading.Thread(target=work, name="busy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _obfuscated(cell: mpz, source: Obfuscators, modulus: mpz) -> mpz:
    return cell * source.draw() % modulus


def _seconds(operation: Callable[[], object], share: float) -> float:
    """Returns the median processor time of an operation, repeated three times at least and for its share."""
    operation()
    times: list[float] = []
    end = time.perf_counter() + share
    while len(times) < 3 or time.perf_counter() < end:
        started = time.thread_time()
        operation()
        times.append(time.thread_time() - started)
    return float(np.median(times))
