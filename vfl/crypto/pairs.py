"""The only file that knows cryptography: what two parties share that nobody between them may know.

A pair key comes from X25519 (RFC 7748) through HKDF-SHA256 (RFC 5869). Each party brings a fresh
secret and, where the job lists keys, its identity: the secret whose public half the others pinned.
All four products of the two and the two go in, as in the KK pattern of the Noise framework: who
knows a pair key holds a fresh secret of this session and the pinned one of that name.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
BLOCK_BYTES: Final = 16

_LABEL: Final = b"vfl pair key 1"
_NONCE_BYTES: Final = 12

#: Enciphering zeros gives the key stream; so many at a time stay in the processor's own memory.
_ZEROS: Final = memoryview(bytes(1 << 16))


def new_secret() -> bytes:
    """Draws a secret for X25519."""
    return os.urandom(KEY_BYTES)


def public_of(secret: bytes) -> bytes:
    """Returns what a party may show of a secret.

    Raises:
        ValueError: if the secret is not 32 bytes.
    """
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class Ends:
    """Is this party's end of its pair keys with all others: its secrets, read once.

    Args:
        own: a secret drawn for this agreement.
        identity: the secret of the pinned key; None where the job lists no keys.

    Raises:
        ValueError: if a secret is not 32 bytes.
    """

    def __init__(self, own: bytes, identity: bytes | None) -> None:
        self._own = X25519PrivateKey.from_private_bytes(own)
        self._identity = None if identity is None else X25519PrivateKey.from_private_bytes(identity)
        self.public = self._own.public_key().public_bytes_raw()
        self.public_identity = (
            None if self._identity is None else self._identity.public_key().public_bytes_raw()
        )

    def pair_key(
        self, theirs: bytes, their_identity: bytes | None, *, salt: bytes, info: bytes, n_bytes: int = 64
    ) -> bytes:
        """Derives the key of this party and another; both find the same.

        Raises:
            ValueError: if a public key of theirs is none, or is this party's own, or if one of the two
                has an identity and the other has none.
        """
        if (self._identity is None) != (their_identity is None):
            raise ValueError("one of the two has an identity and the other has none")
        if theirs == self.public:
            raise ValueError("is this party's own")
        is_first = self.public < theirs  # both ends find the same party to be the first
        products = self._products(theirs, their_identity, is_first)
        halves = [
            framed(self.public_identity or b"", self.public),
            framed(their_identity or b"", theirs),
        ]
        about = framed(_LABEL, *(halves if is_first else reversed(halves)), info)
        return HKDF(hashes.SHA256(), n_bytes, salt, about).derive(products)

    def _products(self, theirs: bytes, their_identity: bytes | None, is_first: bool) -> bytes:
        fresh = X25519PublicKey.from_public_bytes(theirs)
        product = self._own.exchange(fresh)  # raises ValueError where all bytes would be zero
        if self._identity is None or their_identity is None:
            return product
        pinned = X25519PublicKey.from_public_bytes(their_identity)
        crossed = [self._identity.exchange(fresh), self._own.exchange(pinned)]
        first, second = crossed if is_first else reversed(crossed)
        return product + first + second + self._identity.exchange(pinned)


class Stream:
    """Is the key stream of AES-256 in counter mode (NIST SP 800-38A, section 6.5)."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(AES256(key), CTR(bytes(BLOCK_BYTES))).encryptor()

    def fill(self, out: np.ndarray | memoryview, block: bytes) -> None:
        """Writes the stream from the counter block `block` on into `out`, contiguous bytes."""
        self.seek(block)
        self.read(out)

    def seek(self, block: bytes) -> None:
        """Goes to the counter block `block`, 16 bytes."""
        self._encryptor.reset_nonce(block)

    def read(self, out: np.ndarray | memoryview) -> None:
        """Writes what follows of the stream into `out`, contiguous bytes."""
        if not out.nbytes:
            return  # which no view can be cast from
        view = (out.data if isinstance(out, np.ndarray) else out).cast("B")
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(part)], part)


def framed(*words: bytes) -> bytes:
    """Joins words so that no other words give the same bytes: each behind its length."""
    return b"".join(len(word).to_bytes(4, "big") + word for word in words)


def tag(key: bytes, *words: bytes) -> bytes:
    """Returns 16 bytes that only who knows the key can tell of these words (HMAC-SHA256, cut)."""
    return hmac.digest(key, framed(*words), "sha256")[:TAG_BYTES]


def same_tag(mine: bytes, theirs: bytes) -> bool:
    """Compares two tags in a time that does not tell where they differ."""
    return hmac.compare_digest(mine, theirs)


def seal(key: bytes, number: int, content: bytes | memoryview, about: bytes) -> bytes:
    """Enciphers and signs content (ChaCha20-Poly1305, RFC 8439), bound to its number and `about`.

    One key seals one number once, and what goes one way: two contents under one number open both.
    """
    return ChaCha20Poly1305(key).encrypt(number.to_bytes(_NONCE_BYTES, "big"), content, about)


def open_sealed(key: bytes, number: int, sealed: bytes | memoryview, about: bytes) -> bytes:
    """Returns the content that was sealed.

    Raises:
        ValueError: if it is not what the holder of the key sealed under this number, about this.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(number.to_bytes(_NONCE_BYTES, "big"), sealed, about)
    except InvalidTag as error:
        raise ValueError("is not what was sealed under this number") from error
