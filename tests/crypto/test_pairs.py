"""Pair keys, streams, tags and seals are those of the standards, and bound to what they must be."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.crypto.pairs import (
    Ends,
    Stream,
    framed,
    new_secret,
    open_sealed,
    public_of,
    same_tag,
    seal,
    tag,
)

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

#: Points whose multiples by a clamped scalar are all zero: their order divides 8.
OF_SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]
SECRETS = {name: hashlib.sha256(name.encode()).digest() for name in ("a", "b", "a fixed", "b fixed", "other")}

FROZEN = (
    "a988c1bac7e200c9031e6ac3fe189e11cf4853a429150eb25c09527e442333d5"
    "1018cdea33f4dc212c91aa6d6db392a7ecd2386a602b727140a1081750ed4f7d"
)
FROZEN_BARE = (
    "b54b4cfd3ed75659be39b1adb3df603d896b010316cc71cb5ae8ccfeb0ae2336"
    "669646099d3095dcf6aa6ec93410084afe0fd1c60d7312a6e7c522a82165fea7"
)


def pair_key(
    *,
    identity: bytes | None,
    own: bytes,
    their_identity: bytes | None,
    theirs: bytes,
    **about: Any,  # noqa: ANN401
) -> bytes:
    return Ends(own, identity).pair_key(theirs, their_identity, **about)


def key_of(me: str, peer: str, *, identities: bool = True, **changed: Any) -> bytes:  # noqa: ANN401
    given: dict[str, Any] = {
        "identity": SECRETS[f"{me} fixed"] if identities else None,
        "own": SECRETS[me],
        "their_identity": public_of(SECRETS[f"{peer} fixed"]) if identities else None,
        "theirs": public_of(SECRETS[peer]),
        "salt": b"session",
        "info": b"about",
    }
    return pair_key(**{**given, **changed})


def expanded(products: bytes, salt: bytes, info: bytes, n_bytes: int) -> bytes:
    """Follows RFC 5869 by the letter."""
    pseudorandom = hmac.digest(salt, products, "sha256")
    out, last = b"", b""
    while len(out) < n_bytes:
        last = hmac.digest(pseudorandom, last + info + bytes([len(out) // 32 + 1]), "sha256")
        out += last
    return out[:n_bytes]


def test_public_keys_are_those_of_rfc_7748() -> None:
    assert (public_of(ALICE), public_of(BOB)) == (ALICE_PUBLIC, BOB_PUBLIC)


def test_secrets_are_drawn_anew_each_time() -> None:
    secrets = {new_secret() for _ in range(99)}
    assert len(secrets) == 99
    assert {len(secret) for secret in secrets} == {32}


@pytest.mark.parametrize("n_bytes", [32, 64, 100])
def test_a_key_without_identities_is_hkdf_of_rfc_7748s_shared_secret(n_bytes: int) -> None:
    about = framed(b"vfl pair key 1", framed(b"", ALICE_PUBLIC), framed(b"", BOB_PUBLIC), b"info")
    due = expanded(SHARED, b"salt", about, n_bytes)
    keys: dict[str, Any] = {"identity": None, "their_identity": None, "salt": b"salt", "info": b"info"}
    assert ALICE_PUBLIC < BOB_PUBLIC
    assert pair_key(own=ALICE, theirs=BOB_PUBLIC, n_bytes=n_bytes, **keys) == due
    assert pair_key(own=BOB, theirs=ALICE_PUBLIC, n_bytes=n_bytes, **keys) == due


def test_keys_stay_what_they_are_from_release_to_release() -> None:
    assert key_of("a", "b").hex() == key_of("b", "a").hex() == FROZEN
    assert key_of("a", "b", identities=False).hex() == key_of("b", "a", identities=False).hex() == FROZEN_BARE


@settings(max_examples=30, deadline=None)
@given(*[st.binary(min_size=32, max_size=32)] * 4, st.binary(max_size=40), st.binary(max_size=40))
def test_both_ends_find_the_same_key(
    one: bytes, two: bytes, fixed: bytes, pinned: bytes, salt: bytes, info: bytes
) -> None:
    if public_of(one) == public_of(two):
        two = bytes([two[0] ^ 8]) + two[1:]
    about: dict[str, Any] = {"salt": salt, "info": info}
    here = pair_key(identity=fixed, own=one, their_identity=public_of(pinned), theirs=public_of(two), **about)
    there = pair_key(
        identity=pinned, own=two, their_identity=public_of(fixed), theirs=public_of(one), **about
    )
    assert here == there
    assert len(here) == 64


@pytest.mark.parametrize(
    "changed",
    [
        {"salt": b"sessioN"},
        {"info": b"abouT"},
        {"own": SECRETS["other"]},
        {"identity": SECRETS["other"]},
        {"theirs": public_of(SECRETS["other"])},
        {"their_identity": public_of(SECRETS["other"])},
        {"identity": None, "their_identity": None},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_a_key_hangs_on_everything_that_goes_in(changed: dict[str, Any]) -> None:
    assert key_of("a", "b", **changed) != key_of("a", "b")


def test_a_key_takes_in_all_four_products_of_fresh_and_pinned_keys() -> None:
    def product(mine: str, theirs: str) -> bytes:
        return X25519PrivateKey.from_private_bytes(SECRETS[mine]).exchange(
            X25519PublicKey.from_public_bytes(public_of(SECRETS[theirs]))
        )

    first, second = sorted(("a", "b"), key=lambda name: public_of(SECRETS[name]))
    products = [
        product(first, second),
        product(f"{first} fixed", second),
        product(first, f"{second} fixed"),
        product(f"{first} fixed", f"{second} fixed"),
    ]
    halves = [
        framed(public_of(SECRETS[f"{name} fixed"]), public_of(SECRETS[name])) for name in (first, second)
    ]
    about = framed(b"vfl pair key 1", *halves, b"about")
    assert key_of("a", "b") == expanded(b"".join(products), b"session", about, 64)


@pytest.mark.parametrize("point", OF_SMALL_ORDER, ids=lambda point: point.hex()[:8])
def test_a_key_that_leaves_no_secret_is_refused_fresh_and_pinned(point: bytes) -> None:
    for changed in ({"theirs": point}, {"their_identity": point}):
        with pytest.raises(ValueError):  # noqa: PT011 - the sentence is the library's
            key_of("a", "b", **changed)
    with pytest.raises(ValueError):  # noqa: PT011
        key_of("a", "b", identities=False, theirs=point)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    for name in ("own", "identity", "theirs", "their_identity"):
        with pytest.raises(ValueError):  # noqa: PT011
            key_of("a", "b", **{name: bytes([9] * length)})


def test_ones_own_key_come_back_is_refused() -> None:
    with pytest.raises(ValueError, match="own"):
        key_of("a", "b", theirs=public_of(SECRETS["a"]))


@pytest.mark.parametrize("absent", ["identity", "their_identity"])
def test_an_identity_at_one_end_only_is_refused(absent: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        key_of("a", "b", **{absent: None})


# NIST SP 800-38A, section F.5.5: CTR-AES256.Encrypt
NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_BLOCK = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = bytes.fromhex(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def test_a_stream_is_that_of_nist_sp_800_38a() -> None:
    out = np.full(64, 7, np.uint8)
    Stream(NIST_KEY).fill(out, NIST_BLOCK)
    assert bytes(out ^ np.frombuffer(NIST_PLAIN, np.uint8)) == NIST_CIPHER


@pytest.mark.parametrize("n_bytes", [0, 1, 15, 16, 17, 65_535, 65_536, 65_537, 200_000])
def test_a_stream_is_one_however_long_and_from_wherever_it_is_read(n_bytes: int) -> None:
    stream, whole = Stream(NIST_KEY), bytearray(200_016)
    stream.fill(memoryview(whole), bytes(16))
    for first in (0, 1, 4_096):
        part = bytearray(n_bytes)
        stream.fill(memoryview(part), first.to_bytes(16, "big"))
        due = whole[16 * first : 16 * first + n_bytes]
        assert part[: len(due)] == due
        assert len(due) == n_bytes or first


def test_a_stream_fills_any_contiguous_array_and_nothing_beyond() -> None:
    around = np.zeros((5, 6), np.uint64)
    Stream(NIST_KEY).fill(around[1:4], NIST_BLOCK)
    assert not around[0].any()
    assert not around[4].any()
    assert len(np.unique(around[1:4])) == 18
    with pytest.raises(TypeError):
        Stream(NIST_KEY).fill(around[:, 1:3], NIST_BLOCK)


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_stream_takes_a_key_of_256_bits_only(length: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Stream(bytes(length))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_framed_words_and_their_tags_tell_apart_what_joined_words_would_not(
    one: list[bytes], two: list[bytes]
) -> None:
    assert (framed(*one) == framed(*two)) == (one == two)
    assert same_tag(tag(b"k" * 32, *one), tag(b"k" * 32, *two)) == (one == two)
    assert not same_tag(tag(b"k" * 32, *one), tag(b"l" * 32, *one))
    assert len(tag(b"k" * 32, *one)) == 16


def test_a_tag_is_hmac_sha256() -> None:
    due = hmac.new(b"k" * 32, b"\0\0\0\2ab\0\0\0\0", hashlib.sha256).digest()[:16]
    assert tag(b"k" * 32, b"ab", b"") == due


@settings(deadline=None)
@given(st.binary(max_size=99), st.binary(max_size=20), st.integers(0, 2**96 - 1))
def test_what_is_sealed_opens_under_its_number_and_about_only(
    content: bytes, about: bytes, number: int
) -> None:
    key = b"k" * 32
    sealed = seal(key, number, memoryview(content), about)
    assert open_sealed(key, number, memoryview(sealed), about) == content
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for wrong in (
        (b"l" * 32, number, sealed, about),
        (key, number ^ 1, sealed, about),
        (key, number, sealed, about + b"x"),
        (key, number, flipped, about),
        (key, number, sealed[:-1], about),
        (key, number, b"", about),
    ):
        with pytest.raises(ValueError, match="not what was sealed"):
            open_sealed(*wrong)
