"""Keys meet the conditions that their argument needs, and nothing else is read as one."""

from __future__ import annotations

import math
import secrets

import gmpy2
import pytest
from gmpy2 import mpz
from phe.paillier import EncryptedNumber

from vfl.errors import ConfigError
from vfl.paillier.keys import KEY_BITS, PrivateKey, PublicKey, make_keys


def primes(key: PrivateKey) -> tuple[int, int]:
    return key.phe_key.p, key.phe_key.q


def factor_by_rho(number: int) -> int:
    """Finds a factor of 32 bits in about 2^16 steps (Pollard 1975)."""
    for start in range(2, 100):
        slow = fast = mpz(start)
        product = mpz(1)
        for _ in range(1 << 18):
            slow = (slow * slow + 1) % number
            fast = (fast * fast + 1) % number
            fast = (fast * fast + 1) % number
            product = product * (slow - fast) % number
        if 1 < (found := gmpy2.gcd(product, number)) < number:
            return int(found)
    raise AssertionError("no factor found")


def read(n: int, h: int, bits: int = 512) -> PublicKey:
    raw = n.to_bytes(bits // 8, "big") + h.to_bytes(bits // 8, "big")
    return PublicKey.from_bytes(raw, unsafe_small_key=True)


@pytest.mark.parametrize("bits", [256, 512, 1024])
def test_primes_meet_the_conditions_of_damgard_jurik_and_nielsen(bits: int) -> None:
    for _ in range(3):
        key = make_keys(bits, unsafe_small_key=True)
        p, q = primes(key)
        assert p * q == key.public.n
        assert key.public.n.bit_length() == bits
        assert gmpy2.is_prime(p, 40)
        assert gmpy2.is_prime(q, 40)
        assert p % 4 == q % 4 == 3
        assert math.gcd(p - 1, q - 1) == 2
        assert math.gcd(p * q, (p - 1) * (q - 1)) == 1
        assert (p - q).bit_length() > bits // 2 - 100
        # No small factor of p - 1 and q - 1 but 2.
        assert gmpy2.gcd((p - 1) // 2 * ((q - 1) // 2), gmpy2.primorial(1 << 16)) == 1


def test_a_key_of_the_default_size_meets_them_too(full_key: PrivateKey) -> None:
    p, q = primes(full_key)
    assert full_key.public.bits == 2048 == KEY_BITS[0]
    assert p.bit_length() == q.bit_length() == 1024
    assert p % 4 == q % 4 == 3
    assert math.gcd(p - 1, q - 1) == 2


def test_h_generates_all_residues_of_jacobi_symbol_1_and_g_all_units() -> None:
    # Each prime - 1 is factored anew: 2, a prime of 31 or 32 bits, and the rest.
    key = make_keys(256, unsafe_small_key=True)
    assert gmpy2.jacobi(key.public.h, key.public.n) == 1
    for prime, g in zip(primes(key), (key.g_p, key.g_q), strict=True):
        t = factor_by_rho(prime - 1 >> 1)
        for element in (g, key.public.h % prime):
            for factor in (2, t, (prime - 1) // 2 // t):
                assert gmpy2.powmod(element, (prime - 1) // factor, prime) != 1


def test_what_phe_encrypts_is_decrypted_and_what_is_encrypted_here_phe_decrypts(key: PrivateKey) -> None:
    for number in (0, 1, -1, 123456789, key.public.n // 3 - 2):
        encrypted = key.public.phe_key.encrypt(int(number))
        assert key.decrypt(mpz(encrypted.ciphertext())) == number % key.public.n
        ours = (1 + number % key.public.n * key.public.n) * gmpy2.powmod(
            7, key.public.n, key.public.n_squared
        )
        theirs = EncryptedNumber(key.public.phe_key, int(ours % key.public.n_squared))
        assert key.phe_key.decrypt(theirs) == number


def test_threads_decrypt_what_one_does(key: PrivateKey) -> None:
    numbers = [mpz(secrets.randbelow(int(key.public.n))) for _ in range(50)]
    sent = [mpz(key.public.phe_key.raw_encrypt(int(number))) for number in numbers]
    assert key.decrypt_all(sent) == key.decrypt_all(sent, threads=3) == numbers


def test_both_halves_survive_bytes(key: PrivateKey) -> None:
    assert PublicKey.from_bytes(key.public.to_bytes(), unsafe_small_key=True) == key.public
    again = PrivateKey.from_bytes(key.to_bytes())
    assert (again.g_p, again.g_q, again.public) == (key.g_p, key.g_q, key.public)
    assert primes(again) == primes(key)


def test_a_small_key_is_refused_where_none_was_allowed(key: PrivateKey) -> None:
    with pytest.raises(ValueError, match="128 bytes"):
        PublicKey.from_bytes(key.public.to_bytes())


@pytest.mark.parametrize("bits", [0, 512, 1024, 2047, 2056, 4096])
def test_another_size_is_refused_with_what_to_set(bits: int) -> None:
    with pytest.raises(ConfigError, match="set 2048 or 3072"):
        make_keys(bits)


@pytest.mark.parametrize("bits", [64, 255, 300])
def test_even_an_unsafe_key_has_a_size_that_works(bits: int) -> None:
    with pytest.raises(ConfigError, match="unsafe_small_key"):
        make_keys(bits, unsafe_small_key=True)


def test_a_modulus_that_no_honest_party_made_is_refused(key: PrivateKey) -> None:
    n, h = int(key.public.n), int(key.public.h)
    p, _ = primes(key)
    prime = int(gmpy2.next_prime(mpz(1) << 511))
    while prime % 4 != 1:
        prime = int(gmpy2.next_prime(prime))
    small = (n // 13 // 4) * 4 * 13 + 13  # odd, 1 modulo 4, a multiple of 13
    for modulus, why in [
        (n + 1, "3 modulo 4"),
        (n + 2, "3 modulo 4"),
        (n >> 1, "bits"),
        (0, "bits"),
        (small, "factor below"),
        (prime, "prime or a power"),
        (p * p, "prime or a power"),
    ]:
        with pytest.raises(ValueError, match=why):
            read(modulus, h)


def test_a_base_of_obfuscators_outside_its_group_is_refused(key: PrivateKey) -> None:
    n, (p, q) = int(key.public.n), primes(key)
    root = int(1 + (-2) * pow(p, -1, q) % q * p)  # 1 modulo p, -1 modulo q
    outside = next(y for y in range(2, 100) if gmpy2.jacobi(y, n) == -1)
    for h in (0, 1, n - 1, n, n + 5, p, root):
        with pytest.raises(ValueError, match="no unit"):
            read(n, h)
    with pytest.raises(ValueError, match="Jacobi"):
        read(n, outside)


@pytest.mark.parametrize("n_bytes", [0, 1, 127, 129, 512, 1 << 16])
def test_bytes_of_no_key_are_refused(n_bytes: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one depends on the size
        PublicKey.from_bytes(secrets.token_bytes(n_bytes), unsafe_small_key=True)


def test_a_private_key_shows_nothing_when_printed(key: PrivateKey) -> None:
    assert str(primes(key)[0]) not in repr(key)
