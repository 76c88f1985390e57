"""Times Paillier's operations against phe, and the products of a training step against what was counted.

    python examples/benchmarks/paillier.py [--key-bits 2048] [--rounds 5] [--batches 64 256]

Every figure is of one core: operations a second of processor time, so that other programs on the machine
do not count. Each is a median of so many rounds. phe without gmpy2 is the same library with its switch for
gmpy2 turned off, under the same key. A packed plaintext holds as many slots of 32 bits as fit. "encrypt"
is packing, encryption, one obfuscator and the way to bytes; "multiply" is a product with an integer of 16
bits and its addition to a sum of 16, in slots that hold such sums.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gmpy2
import numpy as np
import phe.util

from vfl.paillier.exponentiation import Plan, plan
from vfl.paillier.keys import PrivateKey, make_keys
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators, ShortExponent
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.pool import Pool
from vfl.paillier.shipping import receive, ship
from vfl.paillier.vector import EncryptedMatrix

T = TypeVar("T")
WIDTH = 16
BITS = 16
LIMIT = (1 << (BITS - 1)) - 1


def per_second(amount: float, rounds: int, operation: Callable[[], object]) -> float:
    """Returns how much of `amount` a second of processor time is worth."""
    return amount / seconds(rounds, operation)[0]


def seconds(rounds: int, operation: Callable[[], T]) -> tuple[float, T]:
    """Returns the median seconds of processor time, and what came out last."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        found = operation()
        times.append(time.process_time() - started)
    return statistics.median(times), found


@contextmanager
def without_gmpy2() -> Iterator[None]:
    """Lets phe compute with Python's integers."""
    phe.util.HAVE_GMP = False
    try:
        yield
    finally:
        phe.util.HAVE_GMP = True


def of_phe(key: PrivateKey, rounds: int, count: int) -> dict[str, float]:
    """Times phe, a value a ciphertext."""
    public, private = key.public.phe_key, key.phe_key
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, count).tolist()
    enciphered = [public.encrypt(value) for value in values]

    def decrypt() -> None:
        assert [private.decrypt(one) for one in enciphered] == values

    return {
        "encrypt": per_second(count, rounds, lambda: [public.encrypt(value) for value in values]),
        "add": per_second(count, rounds, lambda: [one + enciphered[0] for one in enciphered]),
        "multiply": per_second(count, rounds, lambda: sum(one * 29_989 for one in enciphered)),
        "decrypt": per_second(count, rounds, decrypt),
    }


def of_ours(key: PrivateKey, rounds: int, count: int) -> dict[str, float]:
    """Times packed matrices; encryption by the key holder, exactly."""
    public = key.public
    packing = Packing(32, (public.bits - 1) // 32)
    layout = Layout(packing, count, packing.slots)
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, (count, packing.slots))
    exact = Exact(key)
    matrix = receive(encrypted(key, layout, values, exact), public, layout, LIMIT)
    fitted = Packing.fitting(public.bits, value_bits=BITS, multiplier_bits=BITS, additions=WIDTH)
    factor = EncryptedMatrix.encrypt(
        public, Layout(fitted, WIDTH, fitted.slots), np.resize(values, (WIDTH, fitted.slots))
    )
    factor = receive(ship(factor, exact), public, factor.layout, LIMIT)
    x = np.random.default_rng(1).integers(-LIMIT, LIMIT, (WIDTH, WIDTH))

    def decrypt() -> None:
        assert (matrix.decrypt(key) == values).all()

    return {
        "encrypt": per_second(values.size, rounds, lambda: encrypted(key, layout, values, exact)),
        "add": per_second(values.size, rounds, lambda: matrix.add(matrix)),
        "multiply": per_second(x.size * fitted.slots, rounds, lambda: factor.left_multiply(x)),
        "decrypt": per_second(values.size, rounds, decrypt),
    }


def encrypted(key: PrivateKey, layout: Layout, values: np.ndarray, source: Obfuscators) -> bytes:
    """Encrypts and ships."""
    return ship(EncryptedMatrix.encrypt(key.public, layout, values), source)


def compare_operations(key: PrivateKey, rounds: int, count: int) -> None:
    """Prints values a second of the four operations."""
    with without_gmpy2():
        plain = of_phe(key, rounds, max(2, count // 8))
    rows = {
        "phe": plain,
        "phe + gmpy2": of_phe(key, rounds, count),
        "packed, here": of_ours(key, rounds, count),
    }
    print(f"\n{'values a second':<24}" + "".join(f"{name:>14}" for name in plain))
    for name, found in rows.items():
        print(f"{name:<24}" + "".join(f"{value:>14,.0f}" for value in found.values()))


def compare_obfuscators(key: PrivateKey, rounds: int, count: int) -> None:
    """Prints obfuscators a second by source, and packed values encrypted a second with each."""
    public = key.public
    packing = Packing(32, (public.bits - 1) // 32)
    layout = Layout(packing, count, packing.slots)
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, (count, packing.slots))
    sources: dict[str, Callable[[], Any]] = {
        "exact, by the key holder": lambda: Exact(key),
        "short exponent, published": lambda: ShortExponent(public),
        "short exponent, further": lambda: ShortExponent(public, "further assumption"),
        "covering": lambda: Covering(public),
    }
    print(f"\n{'obfuscators':<28}{'table, s':>10}{'a second':>12}{'values encrypted a second':>28}")
    for name, make in sources.items():
        table, source = seconds(1, make)
        rate = per_second(count, rounds, lambda source=source: [source.draw() for _ in range(count)])  # type: ignore[misc]
        values_rate = per_second(
            values.size,
            rounds,
            lambda source=source: encrypted(key, layout, values, source),  # type: ignore[misc]
        )
        print(f"{name:<28}{table:>10.2f}{rate:>12,.0f}{values_rate:>28,.0f}")
    drawn, ahead = [], 8 * count
    for _ in range(rounds):
        with Pool(ShortExponent(public, "further assumption"), ahead) as pool:
            pool.wait_until_full()
            started = time.process_time()
            for _ in range(ahead // 2):
                pool.draw()
            drawn.append(ahead / 2 / (time.process_time() - started))
    print(f"{'drawn from a full pool':<28}{'':>10}{statistics.median(drawn):>12,.0f}")


def time_products(key: PrivateKey, rounds: int, batch: int) -> None:
    """Prints the three products of a step: ciphertexts and multiplications counted, seconds measured."""
    rng = np.random.default_rng(1)
    h, w, delta = (
        rng.integers(-LIMIT, LIMIT + 1, shape) for shape in [(batch, WIDTH), (WIDTH, WIDTH), (batch, WIDTH)]
    )
    narrow = Packing.fitting(key.public.bits, value_bits=BITS, multiplier_bits=BITS, additions=WIDTH)
    wide = Packing.fitting(key.public.bits, value_bits=BITS, multiplier_bits=BITS, additions=batch)
    forward, gradient = Layout(narrow, WIDTH, batch), Layout(wide, batch, WIDTH)
    backward = Layout(narrow, WIDTH, WIDTH, copies=narrow.slots // WIDTH)
    exponent_bits = BITS - 1
    groups = -(-batch // backward.copies)
    per_block = plan(WIDTH, WIDTH, exponent_bits)
    blocks = Plan(per_block.method, per_block.window, per_block.multiplications * forward.blocks)
    source, hiding = Exact(key), Covering(key.public)
    print(
        f"\nbatch {batch:<18}{'enc':>6}{'s':>8}{'multiplications':>18}{'s':>8}{'dec':>6}{'s':>8}{'bytes':>10}"
    )
    for name, layout, values, x, counted, fold in [
        ("Enc(h) W", forward, h.T, w.T, blocks, 1),
        ("Enc(h)^T delta", gradient, h, delta.T, plan(batch, WIDTH, exponent_bits), wide.slots // WIDTH),
        (
            "delta (W + Enc(E))^T",
            backward,
            w.T,
            delta,
            plan(WIDTH * backward.copies, groups, exponent_bits),
            1,
        ),
    ]:
        enc_s, raw = seconds(rounds, lambda: encrypted(key, layout, values, source))  # noqa: B023
        matrix = receive(raw, key.public, layout, LIMIT)

        def multiply() -> EncryptedMatrix:
            product = matrix.left_multiply(x)  # noqa: B023
            return product.fold(fold) if fold > 1 else product  # noqa: B023

        product_s, product = seconds(rounds, multiply)
        back = ship(product, hiding)
        dec_s, found = seconds(rounds, lambda: product.decrypt(key))  # noqa: B023
        assert (found == x @ values).all()
        print(
            f"{name:<24}{len(matrix.cells):>6}{enc_s:>8.3f}{counted.multiplications:>18,}{product_s:>8.3f}"
            f"{len(product.cells):>6}{dec_s:>8.3f}{len(raw) + len(back):>10,}"
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--key-bits", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=48, help="ciphertexts a round")
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 256])
    options = parser.parse_args()
    print(f"python {platform.python_version()}, gmpy2 {gmpy2.version()}, {gmpy2.mp_version()}, one core")
    making_s, key = seconds(1, lambda: make_keys(options.key_bits))
    print(f"a key of {options.key_bits} bits made in {making_s:.1f} s")
    compare_operations(key, options.rounds, options.count)
    compare_obfuscators(key, options.rounds, options.count)
    for batch in options.batches:
        time_products(key, options.rounds, batch)


if __name__ == "__main__":
    main()
