"""A training step of the Paillier cut as one would write it with phe: a value a ciphertext, one by one.

`paillier.py` compares with it. It computes from the same integers to the same integers, and what is shipped
is obfuscated by `EncryptedNumber.ciphertext()`, phe's way. Every group of operations is timed and counted by
its kind, so that a step of another size is the sum of its operations.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import phe.util
from phe.paillier import EncryptedNumber, PaillierPrivateKey

T = TypeVar("T")
MASK_BITS = 192

ENCRYPT, OBFUSCATE, DECRYPT = "encrypt", "mask and obfuscate", "decrypt"
BY_SHARE, BY_GRADIENT = "multiply by a share and add", "multiply by a gradient and add"


@contextmanager
def without_gmpy2() -> Iterator[None]:
    """Lets phe compute with Python's integers."""
    phe.util.HAVE_GMP = False
    try:
        yield
    finally:
        phe.util.HAVE_GMP = True


def operations(b: int, d: int, k: int) -> Counter[str]:
    """Counts the operations of a step: b rows, W [d, k]."""
    return Counter({
        ENCRYPT: b * d + d * k,  # h and the share
        BY_SHARE: b * d * k,  # h W
        BY_GRADIENT: 2 * b * d * k,  # hᵀ g and g Wᵀ
        OBFUSCATE: b * k + d * k + b * d,
        DECRYPT: b * k + d * k + b * d,
    })  # fmt: skip


@dataclass
class Meter:
    """Books operations and the processor's seconds by kind, and those of the whole step."""

    step_s: float = 0.0
    seconds: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, kind: str, count: int, work: Callable[[], T]) -> T:
        """Does so many operations."""
        started = time.process_time()
        found = work()
        self.seconds[kind] += time.process_time() - started  # type: ignore[assignment]
        self.counts[kind] += count
        return found

    def of(self, counts: Counter[str]) -> float:
        """Returns the seconds that so many operations take at what each took here."""
        return sum(self.seconds[kind] / self.counts[kind] * count for kind, count in counts.items())


def step(
    key: PaillierPrivateKey,
    meter: Meter,
    h: np.ndarray,
    shares: tuple[np.ndarray, np.ndarray],
    gradient_of: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Goes through one step; all integers are Python's.

    Args:
        key: the feature party's.
        meter: books the work.
        h: the activations, [b, d].
        shares: of W as it is used, [d, k]: the feature party's and the label party's.
        gradient_of: makes g [b, k] of z [b, k].

    Returns:
        hᵀ g [d, k] and g Wᵀ [b, d].
    """
    public, (mine, theirs) = key.public_key, shares
    (b, d), k, started = h.shape, mine.shape[1], time.process_time()

    def ship(numbers: list[list[EncryptedNumber]], *, masked: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Masks at the label party; decrypts at the feature party. Returns what it reads, and the masks."""
        size = len(numbers) * len(numbers[0])
        masks = np.array([[secrets.randbits(MASK_BITS) * masked for _ in row] for row in numbers], object)
        shipped = meter(OBFUSCATE, size, lambda: [
            [(one + mask).ciphertext() for one, mask in zip(row, more, strict=True)]
            for row, more in zip(numbers, masks.tolist(), strict=True)
        ])  # fmt: skip
        opened = meter(DECRYPT, size, lambda: [
            [key.decrypt(EncryptedNumber(public, one)) for one in row] for row in shipped
        ])  # fmt: skip
        return np.array(opened, object), masks

    def encrypt(values: np.ndarray) -> list[list[EncryptedNumber]]:
        return [[public.encrypt(int(value)) for value in row] for row in values]

    enc_h, enc_w = meter(ENCRYPT, h.size + mine.size, lambda: (encrypt(h), encrypt(mine)))
    product = meter(
        BY_SHARE, b * d * k, lambda: [[dot(row, theirs[:, o]) for o in range(k)] for row in enc_h]
    )
    read, masks = ship(product)
    z = read + h.astype(object) @ mine - masks
    g = gradient_of(z)
    by_rows = list(zip(*enc_h, strict=True))  # [d][b]
    weights = meter(
        BY_GRADIENT, b * d * k, lambda: [[dot(column, g[:, o]) for o in range(k)] for column in by_rows]
    )
    read, masks = ship(weights)
    learned = read - masks
    back = meter(
        BY_GRADIENT, b * d * k, lambda: [[dot(enc_w[i], g[row]) for i in range(d)] for row in range(b)]
    )
    plain = g.astype(object) @ theirs.T
    summed = [
        [one + int(more) for one, more in zip(row, rest, strict=True)]
        for row, rest in zip(back, plain, strict=True)
    ]
    returned, _ = ship(summed, masked=False)
    meter.step_s = time.process_time() - started
    return learned, returned


def dot(numbers: list[EncryptedNumber] | tuple[EncryptedNumber, ...], factors: np.ndarray) -> EncryptedNumber:
    """Sums products of encrypted numbers and plain integers."""
    total = numbers[0] * int(factors[0])
    for number, factor in zip(numbers[1:], factors[1:], strict=True):
        total = total + number * int(factor)
    return total
