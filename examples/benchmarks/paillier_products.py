"""The three products of a step of the Paillier cut, one by one: what was counted beside what is measured.

`paillier.py` prints this, with keys that it makes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from gmpy2 import mpz
from paillier_step import Setting

from protocols.paillier.cost import count
from protocols.paillier.scales import Scales
from vfl.paillier.exponentiation import plan
from vfl.paillier.keys import PrivateKey
from vfl.paillier.obfuscation import Covering, Exact
from vfl.paillier.packing import Layout
from vfl.paillier.shipping import receive, ship
from vfl.paillier.vector import EncryptedMatrix

T = TypeVar("T")
WIDTH = 16


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


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Prints Markdown."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


@dataclass(frozen=True)
class Product:
    """Is X · M for an encrypted M, plus what the computing party knows of the sum.

    Attributes:
        name: in the table.
        layout: how M lies.
        m: what the key holder encrypts.
        m_bound: what its slots may hold.
        x: what the other party multiplies by.
        bound: what the result's slots may hold.
        result: of the whole sum.
        plain: what the other party adds; None for nothing.
        rest: what the key holder adds once it has decrypted; None for nothing.
        rows_each: rows of the result that are moved into one ciphertext.
    """

    name: str
    layout: Layout
    m: np.ndarray
    m_bound: int
    x: np.ndarray
    bound: int
    result: np.ndarray
    plain: np.ndarray | None = None
    rest: np.ndarray | None = None
    rows_each: int = 1

    def computed(self, matrix: EncryptedMatrix) -> EncryptedMatrix:
        """Returns X · M, and what is plain."""
        product = matrix.left_multiply(self.x, self.bound)
        if self.rows_each > 1:
            product = product.fold(self.rows_each)
        return product if self.plain is None else product.add_plain(self.plain, self.bound)

    def is_right(self, plaintexts: list[mpz], layout: Layout, n: mpz) -> bool:
        """Tells whether decrypted numbers are the result."""
        rest = [mpz(0)] * len(plaintexts) if self.rest is None else layout.pack(self.rest)
        summed = [(one + other) % n for one, other in zip(plaintexts, rest, strict=True)]
        return bool((layout.unpack(summed, n) == self.result).all())


def products_of(scales: Scales, b: int) -> list[Product]:
    """Makes the products of a step with random integers as large as they get, W in two shares."""
    rng, most = np.random.default_rng(1), scales.activation.limit
    h, w, g = (
        rng.integers(-most, most + 1, shape) for shape in [(b, scales.d), (scales.d, scales.k), (b, scales.k)]
    )
    used = w.astype(object)
    theirs = rng.integers(-(1 << 61), 1 << 61, w.shape).astype(object) << (scales.share_bits - 61)
    mine = used - theirs
    big_h, big_g = h.astype(object), g.astype(object)
    return [
        Product(
            "Enc(h)·W",
            scales.columns(b),
            h.T,
            most,
            theirs.T,
            scales.z_bound,
            (big_h @ used).T,
            rest=(big_h @ mine).T,
        ),
        Product(
            "Enc(h)ᵀ·δ",
            scales.rows(b),
            h,
            most,
            g.T,
            scales.product_bound,
            big_g.T @ big_h,
            rows_each=scales.gradient.rows_each,
        ),
        Product(
            "δ·Wᵀ",
            scales.share(b),
            mine.T,
            scales.used_bound,
            g,
            scales.embedding_bound(b),
            big_g @ used.T,
            plain=big_g @ theirs.T,
        ),
    ]


def multiplications(scales: Scales, b: int) -> list[int]:
    """Counts the multiplications of each product."""
    _, label = count(scales, b, learning=True)
    each = [plan(*one).multiplications for one in label.products]
    columns, rows = scales.columns(b).blocks, scales.rows(b).blocks
    return [
        sum(each[:columns]),
        sum(each[columns : columns + rows]) + label.squarings,
        sum(each[columns + rows :]),
    ]


def time_products(key: PrivateKey, rounds: int, b: int) -> None:
    """Prints ciphertexts and multiplications, counted, and their seconds, measured."""
    scales = Setting(b, 1, key.public.bits).scales
    exact, covering, rows = Exact(key), Covering(key.public), []
    for product, counted in zip(products_of(scales, b), multiplications(scales, b), strict=True):
        enc_s, sent = seconds(rounds, lambda: ship(_encrypted(key, product), exact))  # noqa: B023
        matrix = receive(sent, key.public, product.layout, product.m_bound)
        product_s, found = seconds(rounds, lambda: product.computed(matrix))  # noqa: B023
        ship_s, back = seconds(rounds, lambda: ship(found, covering))  # noqa: B023
        dec_s, plaintexts = seconds(rounds, lambda: found.plaintexts(key))  # noqa: B023
        assert product.is_right(plaintexts, found.layout, key.public.n)
        sizes = product.layout.n_cells, f"{enc_s:.3f}", f"{counted:,}", f"{product_s:.3f}", len(found.cells)
        n_bytes = f"{len(sent) + len(back):,}"
        rows.append([product.name, *map(str, sizes), f"{ship_s:.3f}", f"{dec_s:.3f}", n_bytes])
    print_table(
        [
            *(f"product, b = {b}", "encryptions", "seconds", "multiplications", "seconds"),
            *("ciphertexts back", "covering, seconds", "decryption, seconds", "bytes both ways"),
        ],
        rows,
    )


def _encrypted(key: PrivateKey, product: Product) -> EncryptedMatrix:
    return EncryptedMatrix.encrypt(key.public, product.layout, product.m, product.m_bound)
