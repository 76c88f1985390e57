"""Random encryptions of zero, each multiplied into one ciphertext and used for nothing else.

Three sources, for three who encrypt or pass on:

- `Exact`, the key holder's: r^n for uniform r, as Paillier's scheme has it, at the price of powers from a
  table: n-th residues modulo p² are the powers of one generator, and the key holder knows p.
- `ShortExponent`, against everybody but the key holder: h_s^r with r of half as many bits as n, as Damgård,
  Jurik and Nielsen publish it (2010). That such powers cannot be told from all powers of h_s follows from
  the hardness of factoring n (Goldreich and Rosen, Journal of Cryptology 2003).
- `Covering`, against the key holder too. Who computes on ciphertexts hides from the key holder *what* was
  computed, and an argument from factoring says nothing against who knows the factors. So r is longer than
  n by 64 bits, and a random bit moves the result out of the subgroup of Jacobi symbol 1, which h_s never
  leaves: what was shipped is then as good as uniform among all encryptions of its plaintext, whatever the
  computing power of the receiver.
"""

from __future__ import annotations

import secrets
from typing import Final, Literal, Protocol

import gmpy2
from gmpy2 import mpz

from vfl.errors import ConfigError
from vfl.paillier.exponentiation import FixedBase
from vfl.paillier.keys import PrivateKey, PublicKey

#: "published": half the bits of n. "further assumption": four times the bits of strength that n has, 112
#: or 128, twice what the best algorithm known for logarithms of bounded size (Pollard's kangaroos) would
#: allow; that such powers look like all others is assumed, and does not follow from factoring being hard.
ExponentLength = Literal["published", "further assumption"]
_FURTHER_BITS: Final = {2048: 448, 3072: 512}

#: The distance from uniform is below 2^-63.
_SPARE_BITS: Final = 64


class Obfuscators(Protocol):
    """Draws encryptions of zero; two draws are never the same one."""

    def draw(self) -> mpz:
        """Returns a fresh one."""


class ShortExponent:
    """Draws h_s^r with a short r: indistinguishable from all such powers to who cannot factor n.

    Args:
        key: whose h the powers are of.
        length: "published", or shorter on a further assumption.
    """

    def __init__(self, key: PublicKey, length: ExponentLength = "published") -> None:
        if length not in ("published", "further assumption"):
            raise ConfigError(f'exponent length "{length}": set "published" or "further assumption"')
        half = key.bits // 2
        self.exponent_bits = half if length == "published" else _FURTHER_BITS.get(key.bits, half)
        self._power = FixedBase(key.h_s, key.n_squared, self.exponent_bits)

    def draw(self) -> mpz:
        """Returns h_s^r for a fresh r."""
        return self._power.power(secrets.randbits(self.exponent_bits))


class Covering:
    """Draws what is statistically uniform among all encryptions of zero, without the private key.

    The key must be one made by `make_keys`: its h then generates all residues of Jacobi symbol 1.
    """

    def __init__(self, key: PublicKey) -> None:
        self.exponent_bits = key.bits + _SPARE_BITS
        self._n_squared = key.n_squared
        self._power = FixedBase(key.h_s, key.n_squared, self.exponent_bits)
        outside = next(y for y in map(mpz, range(2, 1 << 16)) if gmpy2.jacobi(y, key.n) == -1)
        self._cosets = mpz(1), gmpy2.powmod(outside, key.n, key.n_squared)

    def draw(self) -> mpz:
        """Returns h_s^r, or that times y^n for a y of Jacobi symbol -1."""
        power = self._power.power(secrets.randbits(self.exponent_bits))
        return power * self._cosets[secrets.randbits(1)] % self._n_squared


class Exact:
    """Draws r^n for uniform r, as the key holder can: modulo p² and q², from tables."""

    def __init__(self, key: PrivateKey) -> None:
        p, q = mpz(key.phe_key.p), mpz(key.phe_key.q)
        n = key.public.n
        self._halves = []
        for prime, g in ((p, key.g_p), (q, key.g_q)):
            square = prime * prime
            table = FixedBase(gmpy2.powmod(g, n, square), square, (prime - 1).bit_length())
            self._halves.append((int(prime - 1), table, square))
        self._inverse = gmpy2.invert(p * p, q * q)

    def draw(self) -> mpz:
        """Returns an n-th residue modulo n², each with the same probability."""
        (p_order, p_table, p_square), (q_order, q_table, q_square) = self._halves
        modulo_p = p_table.power(secrets.randbelow(p_order))
        modulo_q = q_table.power(secrets.randbelow(q_order))
        return modulo_p + (modulo_q - modulo_p) * self._inverse % q_square * p_square
