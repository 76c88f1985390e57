"""The only way for ciphertexts to leave a party, and to enter one.

A sum or a product of ciphertexts carries the randomness of its factors: who knows one summand and its
ciphertext divides it out, and who encrypted all of them tries which plain factors give what was sent.
So `ship`, and nothing else, turns ciphertexts into bytes, and multiplies each by a fresh obfuscator first.
"""

from __future__ import annotations

from collections.abc import Sequence

import gmpy2
from gmpy2 import mpz

from vfl.paillier.keys import PublicKey
from vfl.paillier.obfuscation import Obfuscators
from vfl.paillier.packing import Layout
from vfl.paillier.vector import EncryptedMatrix


def ship(matrix: EncryptedMatrix, obfuscators: Obfuscators) -> bytes:
    """Writes ciphertexts, re-randomised, each twice as wide as n, big-endian.

    Args:
        matrix: what to show.
        obfuscators: of the same key. To the key holder from anybody else: `Covering`. From the key holder:
            `Exact`. From anybody to who does not hold the key: `ShortExponent` will do.
    """
    modulus, width = matrix.key.n_squared, matrix.key.cipher_bytes
    return b"".join((cell * obfuscators.draw() % modulus).to_bytes(width, "big") for cell in matrix.cells)


def receive(raw: bytes | memoryview, key: PublicKey, layout: Layout, bound: int) -> EncryptedMatrix:
    """Reads what a peer shipped.

    Args:
        raw: as many ciphertexts as the layout has cells.
        key: under which they should be; that they are cannot be seen.
        layout: how the matrix lies in plaintexts.
        bound: the largest magnitude that the peer may have put in a slot, as agreed.

    Raises:
        ValueError: if they are of another count or width, or one is no ciphertext under this key.
    """
    width, modulus = key.cipher_bytes, key.n_squared
    if len(raw) != layout.n_cells * width:
        raise ValueError(f"{len(raw)} bytes where {layout.n_cells} ciphertexts of {width} are due")
    cells = _numbers(raw, width)
    for place, cell in enumerate(cells):
        if not 0 < cell < modulus:
            raise ValueError(f"ciphertext {place} is not between 0 and n²")
    product = mpz(1)
    for (
        cell
    ) in cells:  # one greatest common divisor for all: cells share a factor with n if their product does
        product = product * (cell % key.n) % key.n
    if gmpy2.gcd(product, key.n) != 1:
        place = next(place for place, cell in enumerate(cells) if gmpy2.gcd(cell, key.n) != 1)
        raise ValueError(f"ciphertext {place} shares a factor with n")
    return EncryptedMatrix(key, layout, tuple(cells), layout.packing.check(bound, "what was agreed"))


def plain_to_bytes(numbers: Sequence[mpz], key: PublicKey) -> bytes:
    """Writes plaintexts in [0, n), such as masked ones, each as wide as n, big-endian."""
    return b"".join(int(number).to_bytes(key.plain_bytes, "big") for number in numbers)


def plain_from_bytes(raw: bytes | memoryview, key: PublicKey, count: int) -> list[mpz]:
    """Reads plaintexts in [0, n).

    Raises:
        ValueError: if they are of another count or width, or one is not below n.
    """
    if len(raw) != count * key.plain_bytes:
        raise ValueError(f"{len(raw)} bytes where {count} plaintexts of {key.plain_bytes} are due")
    numbers = _numbers(raw, key.plain_bytes)
    if any(number >= key.n for number in numbers):
        raise ValueError("a plaintext that is not below n")
    return numbers


def _numbers(raw: bytes | memoryview, width: int) -> list[mpz]:
    view = memoryview(raw)
    return [mpz.from_bytes(bytes(view[at : at + width]), "big") for at in range(0, len(view), width)]
