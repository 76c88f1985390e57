"""The only file that knows phe: Paillier keys (EUROCRYPT 1999) for which short exponents have an argument.

The primes meet the conditions of Damgård, Jurik and Nielsen, "A generalization of Paillier's public-key
system with applications to electronic voting" (International Journal of Information Security, 2010): both
are 3 modulo 4, and p - 1 and q - 1 share no factor but 2. Here p - 1 = 2 · u · t for primes u, of nearly
all the bits, and t, of 31 or 32. So there is no small factor but 2, and the key holder can tell the order of
every element: that h generates all elements of Jacobi symbol 1, and g all units, is checked, not hoped for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import gmpy2
import numpy as np
from gmpy2 import mpz
from phe.paillier import PaillierPrivateKey, PaillierPublicKey

from vfl.errors import ConfigError

#: Returns Π_i bases_i^(x[j, i]) modulo its last argument, for each row of x.
Products = Callable[[Sequence[mpz], np.ndarray, mpz], list[mpz]]

#: Strength of about 112 and 128 bits (NIST SP 800-57, part 1, table 2).
KEY_BITS: Final = (2048, 3072)
DEFAULT_KEY_BITS: Final = 2048

LEAST_UNSAFE_BITS: Final = 256
_SMALL_FACTOR_BITS: Final = 32
_SMALL_PRIMES_BELOW: Final = 1 << 16
_ROUNDS: Final = 64


@dataclass(frozen=True)
class PublicKey:
    """Is what anybody may know: the modulus n, as phe's key, and h, which obfuscators are powers of.

    Attributes:
        phe_key: n, n² and g = n + 1.
        h: generates the residues modulo n that have Jacobi symbol 1, if the key was made here.
    """

    phe_key: PaillierPublicKey
    h: mpz

    @cached_property
    def n(self) -> mpz:
        """The modulus of plaintexts."""
        return mpz(self.phe_key.n)

    @cached_property
    def n_squared(self) -> mpz:
        """The modulus of ciphertexts."""
        return mpz(self.phe_key.nsquare)

    @cached_property
    def h_s(self) -> mpz:
        """h^n modulo n²: its powers encrypt zero, whoever chose h."""
        return gmpy2.powmod(self.h, self.n, self.n_squared)

    @property
    def bits(self) -> int:
        """How many bits n has."""
        return int(self.n.bit_length())

    @property
    def plain_bytes(self) -> int:
        """The width of a plaintext on the wire."""
        return self.bits // 8

    @property
    def cipher_bytes(self) -> int:
        """The width of a ciphertext on the wire."""
        return self.bits // 4

    def lift(self, number: mpz) -> mpz:
        """Returns (n + 1)^number modulo n²: the encryption without its randomness."""
        return 1 + number % self.n * self.n

    def combine(self, one: mpz, other: mpz) -> mpz:
        """Adds the plaintexts of two ciphertexts."""
        return one * other % self.n_squared

    def repeat(self, cell: mpz, times: mpz) -> mpz:
        """Multiplies the plaintext of a ciphertext."""
        return gmpy2.powmod(cell, times, self.n_squared)

    def products(self, cells: Sequence[mpz], x: np.ndarray, multiply: Products) -> list[mpz]:
        """Returns a ciphertext of Σ_i x[j, i] · m_i for each row of x."""
        return multiply(cells, x, self.n_squared)

    def check(self, cells: Sequence[mpz]) -> None:
        """Checks that these can be ciphertexts under this key; that they are cannot be seen.

        Raises:
            ValueError: if one is not a unit modulo n².
        """
        product = mpz(1)
        for place, cell in enumerate(cells):
            if not 0 < cell < self.n_squared:
                raise ValueError(f"ciphertext {place} is not between 0 and n²")
            product = product * (cell % self.n) % self.n
        if gmpy2.gcd(product, self.n) != 1:  # one divisor for all: some share a factor if their product does
            place = next(place for place, cell in enumerate(cells) if gmpy2.gcd(cell, self.n) != 1)
            raise ValueError(f"ciphertext {place} shares a factor with n")

    def to_bytes(self) -> bytes:
        """Writes n and h, each as wide as n, big-endian."""
        return b"".join(int(part).to_bytes(self.plain_bytes, "big") for part in (self.n, self.h))

    @classmethod
    def from_bytes(cls, raw: bytes, *, unsafe_small_key: bool = False) -> PublicKey:
        """Reads a key that a peer sent, with every check that its public half allows.

        That n is the product of two primes of the right form cannot be seen from outside.

        Raises:
            ValueError: if it cannot be a key that was made here.
        """
        bits = len(raw) * 4
        if not _is_size(bits, unsafe_small_key):
            raise ValueError(f"a key of {len(raw)} bytes")
        half = len(raw) // 2
        n, h = mpz(int.from_bytes(raw[:half], "big")), mpz(int.from_bytes(raw[half:], "big"))
        _check_modulus(n, bits)
        _check_generator(h, n)
        return cls(PaillierPublicKey(int(n)), h)


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """Is the key holder's: decrypts, and knows generators of both groups of units.

    Attributes:
        phe_key: p < q and what decryption by the Chinese remainder theorem needs.
        public: the other half.
        g_p: generates the units modulo p.
        g_q: generates the units modulo q.
    """

    phe_key: PaillierPrivateKey
    public: PublicKey
    g_p: mpz
    g_q: mpz

    @cached_property
    def _halves(self) -> tuple[tuple[mpz, mpz, mpz], ...]:
        key = self.phe_key
        return tuple((mpz(r), mpz(r) ** 2, mpz(h)) for r, h in ((key.p, key.hp), (key.q, key.hq)))

    @cached_property
    def _p_inverse(self) -> mpz:
        return mpz(self.phe_key.p_inverse)

    def decrypt(self, ciphertext: mpz) -> mpz:
        """Returns the plaintext in [0, n) (Paillier 1999, section 7, by Chinese remaindering).

        The exponents p - 1 and q - 1 are secret: GMP's power that takes the same time for all is used.
        """
        residues = []
        for prime, square, h in self._halves:
            power = gmpy2.powmod_sec(ciphertext % square, prime - 1, square)
            residues.append((power - 1) // prime * h % prime)
        (p, _, _), (q, _, _) = self._halves
        return residues[0] + (residues[1] - residues[0]) * self._p_inverse % q * p

    def to_bytes(self) -> bytes:
        """Writes the whole key, for a process of its holder: n, h, p and both generators."""
        numbers = (self.public.n, self.public.h, self.phe_key.p, self.g_p, self.g_q)
        return b"".join(int(number).to_bytes(self.public.plain_bytes, "big") for number in numbers)

    @classmethod
    def from_bytes(cls, raw: bytes) -> PrivateKey:
        """Reads what `to_bytes` of the same party wrote."""
        width = len(raw) // 5
        n, h, p, g_p, g_q = (int.from_bytes(raw[at : at + width], "big") for at in range(0, len(raw), width))
        public = PublicKey(PaillierPublicKey(n), mpz(h))
        return cls(PaillierPrivateKey(public.phe_key, p, n // p), public, mpz(g_p), mpz(g_q))

    def decrypt_all(self, ciphertexts: list[mpz], threads: int = 1) -> list[mpz]:
        """Decrypts many, on so many cores: GMP's powers let go of the interpreter when asked to."""
        if threads == 1 or len(ciphertexts) < 2 * threads:
            return [self.decrypt(one) for one in ciphertexts]
        _ = self._halves, self._p_inverse  # made once, here
        with ThreadPoolExecutor(threads, thread_name_prefix="decrypt", initializer=_let_go) as pool:
            return list(pool.map(self.decrypt, ciphertexts))


def make_keys(key_bits: int = DEFAULT_KEY_BITS, *, unsafe_small_key: bool = False) -> PrivateKey:
    """Makes a key pair from the system's source of randomness.

    Args:
        key_bits: of n, exactly.
        unsafe_small_key: allows sizes below 2048 that protect nothing; for tests.

    Raises:
        ConfigError: if the size is none of those.
    """
    if not _is_size(key_bits, unsafe_small_key):
        raise ConfigError(
            f"key_bits = {key_bits}: set {' or '.join(map(str, KEY_BITS))}; a smaller multiple of 64 from "
            f"{LEAST_UNSAFE_BITS} on protects nothing and needs unsafe_small_key = true"
        )
    half = key_bits // 2
    p, p_factors = _prime(half)
    while True:
        q, q_factors = _prime(half)
        if abs(p - q).bit_length() > half - 100 and not set(p_factors[1:]) & set(q_factors[1:]):
            break  # FIPS 186-5, A.1.3, on their distance; gcd(p - 1, q - 1) = 2
    if q < p:
        p, q, p_factors, q_factors = q, p, q_factors, p_factors
    g_p, g_q = _generator(p, p_factors), _generator(q, q_factors)
    n = p * q
    h = _obfuscating_base(p, q, p_factors, q_factors)
    public = PublicKey(PaillierPublicKey(int(n)), h)
    return PrivateKey(PaillierPrivateKey(public.phe_key, int(p), int(q)), public, g_p, g_q)


def _let_go() -> None:
    gmpy2.set_context(gmpy2.context(allow_release_gil=True))


def _is_size(bits: int, unsafe_small_key: bool) -> bool:
    small = LEAST_UNSAFE_BITS <= bits < min(KEY_BITS) and bits % 64 == 0
    return bits in KEY_BITS or (unsafe_small_key and small)


def _prime(bits: int) -> tuple[mpz, tuple[mpz, mpz, mpz]]:
    """Returns a prime p = 2 · u · t + 1 whose two highest bits are set, and (2, t, u).

    With both highest bits set the product of two has twice the bits, exactly.
    """
    while True:
        u = mpz(secrets.randbits(bits - _SMALL_FACTOR_BITS - 1)) | 1
        u = gmpy2.bit_set(u, bits - _SMALL_FACTOR_BITS - 1)
        if not gmpy2.is_prime(u, _ROUNDS):
            continue
        low, high = (mpz(3) << (bits - 2)) // (2 * u) + 1, ((mpz(1) << bits) - 1) // (2 * u)
        for _ in range(8 * bits):
            t = low + secrets.randbelow(int(high - low))
            p = 2 * u * t + 1
            if gmpy2.is_prime(t) and gmpy2.is_strong_prp(p, 2) and gmpy2.is_prime(p, _ROUNDS):
                return p, (mpz(2), t, u)


def _generates(element: mpz, order: mpz, factors: tuple[mpz, ...], modulus: mpz) -> bool:
    return all(gmpy2.powmod_sec(element, order // factor, modulus) != 1 for factor in factors)


def _generator(p: mpz, factors: tuple[mpz, ...]) -> mpz:
    while True:
        g = _below(p)
        if _generates(g, p - 1, factors, p):
            return g


def _obfuscating_base(p: mpz, q: mpz, p_factors: tuple[mpz, ...], q_factors: tuple[mpz, ...]) -> mpz:
    """Draws h = -x² that generates all residues of Jacobi symbol 1 (Damgård, Jurik, Nielsen)."""
    while True:
        h = -(_below(p * q) ** 2) % (p * q)
        # -1 is no square modulo either, so h has the factor 2 in its order modulo both.
        if _generates(h % p, p - 1, p_factors, p) and _generates(h % q, q - 1, q_factors, q):
            return h


def _below(bound: mpz) -> mpz:
    return mpz(1 + secrets.randbelow(int(bound) - 1))


@lru_cache(maxsize=1)
def _small_primes() -> mpz:
    return gmpy2.primorial(_SMALL_PRIMES_BELOW)


def _check_modulus(n: mpz, bits: int) -> None:
    if n.bit_length() != bits:
        raise ValueError(f"a modulus of {n.bit_length()} bits in a key of {bits}")
    if n % 4 != 1:
        raise ValueError("a modulus that is no product of two primes of 3 modulo 4")
    if gmpy2.gcd(n, _small_primes()) != 1:
        raise ValueError(f"a modulus with a factor below {_SMALL_PRIMES_BELOW}")
    if gmpy2.is_power(n) or gmpy2.is_prime(n):
        raise ValueError("a modulus that is a prime or a power")


def _check_generator(h: mpz, n: mpz) -> None:
    if not 1 < h < n - 1 or gmpy2.gcd(h, n) != 1 or h * h % n == 1:
        raise ValueError("a base of obfuscators that is no unit, or of order 2")
    if gmpy2.jacobi(h, n) != 1:
        raise ValueError("a base of obfuscators whose Jacobi symbol is not 1")
