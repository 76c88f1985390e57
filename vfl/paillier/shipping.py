"""The only way for ciphertexts to leave a party, and to enter one.

A sum or a product of ciphertexts carries the randomness of its factors: who knows one summand and its
ciphertext divides it out, and who encrypted all of them tries which plain factors give what was sent.
So `ship`, and nothing else, turns ciphertexts into bytes, and multiplies each by a fresh obfuscator first.
"""

from __future__ import annotations

from collections.abc import Sequence

from gmpy2 import mpz

from vfl.paillier.obfuscation import Obfuscators
from vfl.paillier.packing import Layout
from vfl.paillier.vector import EncryptedMatrix, Key


def ship(matrix: EncryptedMatrix, obfuscators: Obfuscators) -> bytes:
    """Writes ciphertexts, re-randomised, each twice as wide as n, big-endian.

    Args:
        matrix: what to show.
        obfuscators: of the same key. To the key holder from anybody else: `Covering`. From the key holder:
            `Exact`. From anybody to who does not hold the key: `ShortExponent` will do.
    """
    key = matrix.key
    return b"".join(
        key.combine(cell, obfuscators.draw()).to_bytes(key.cipher_bytes, "big") for cell in matrix.cells
    )


def receive(raw: bytes | memoryview, key: Key, layout: Layout, bound: int) -> EncryptedMatrix:
    """Reads what a peer shipped.

    Args:
        raw: as many ciphertexts as the layout has cells.
        key: under which they should be; that they are cannot be seen.
        layout: how the matrix lies in plaintexts.
        bound: the largest magnitude that the peer may have put in a slot, as agreed.

    Raises:
        ValueError: if they are of another count or width, or one is no ciphertext under this key.
    """
    width = key.cipher_bytes
    if len(raw) != layout.n_cells * width:
        raise ValueError(f"{len(raw)} bytes where {layout.n_cells} ciphertexts of {width} are due")
    cells = _numbers(raw, width)
    key.check(cells)
    return EncryptedMatrix(key, layout, tuple(cells), layout.packing.check(bound, "what was agreed"))


def plain_to_bytes(numbers: Sequence[mpz], key: Key) -> bytes:
    """Writes plaintexts in [0, n), such as masked ones, each as wide as n, big-endian."""
    return b"".join(int(number).to_bytes(key.plain_bytes, "big") for number in numbers)


def plain_from_bytes(raw: bytes | memoryview, key: Key, count: int) -> list[mpz]:
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
