"""The group keeps the laws that the protocols rest on."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rbcl
from hypothesis import given, settings
from hypothesis import strategies as st

from vfl.crypto.group import Blinder, hash_to_point, multiply, random_scalar

ORDER = 2**252 + 27742317777372353535851937790883648493


def scalar_of(number: int) -> bytes:
    return (number % ORDER).to_bytes(32, "little")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1), st.text())
def test_who_multiplies_first_does_not_matter(a: int, b: int, text: str) -> None:
    point = hash_to_point(text, b"salt")
    ab = multiply(multiply(point, scalar_of(a)), scalar_of(b))
    assert ab == multiply(multiply(point, scalar_of(b)), scalar_of(a))
    assert ab == multiply(point, scalar_of(a * b))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, ORDER - 1))
def test_scalars_are_not_clamped(a: int) -> None:
    point = hash_to_point("x", b"")
    assert multiply(multiply(point, scalar_of(a)), scalar_of(pow(a, -1, ORDER))) == point
    assert multiply(point, scalar_of(2)) == rbcl.crypto_core_ristretto255_add(point, point)
    assert multiply(point, scalar_of(1)) == point


def test_a_hash_to_the_group_is_that_of_rfc_9496_over_a_tagged_and_salted_text() -> None:
    # RFC 9496, appendix A.3: the first test vector, whose input is the SHA-512 of the given text.
    text = b"Ristretto is traditionally a short shot of espresso coffee"
    point = rbcl.crypto_core_ristretto255_from_hash(hashlib.sha512(text).digest())
    assert point.hex() == "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46"
    own = hashlib.sha512(b"vfl ristretto255 id\0" + b"\x04\0" + b"salt" + "größe".encode()).digest()
    assert hash_to_point("größe", b"salt") == rbcl.crypto_core_ristretto255_from_hash(own)


def test_salt_and_text_are_kept_apart() -> None:
    hashed = {
        hash_to_point(text, salt) for text, salt in [("ab", b""), ("b", b"a"), ("", b"ab"), ("ab", b"\0")]
    }
    assert len(hashed) == 4


def test_scalars_are_drawn_anew_each_time_and_below_the_order() -> None:
    drawn = {random_scalar() for _ in range(50)}
    assert len(drawn) == 50
    assert all(0 < int.from_bytes(one, "little") < ORDER for one in drawn)


def test_two_agree_on_what_nobody_else_can_compute() -> None:
    mine, yours, base = random_scalar(), random_scalar(), hash_to_point("base", b"")
    assert multiply(multiply(base, mine), yours) == multiply(multiply(base, yours), mine)


POINT = hash_to_point("x", b"")
#: RFC 9496, appendix A.2: encodings that are not canonical, negative, or no square.
NO_POINTS = [
    "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
    "c34c4e1826e5d403b78e246e88aa051c36ccf0aafebffe137d148a2bf9104562",
    "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
    "4eac077a713c57b4f4397629a4145982c661f48044dd3f96427d40b147d9742f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    (POINT[:-1] + bytes([POINT[-1] | 0x80])).hex(),
]


@pytest.mark.parametrize("encoding", NO_POINTS)
def test_what_is_no_point_or_the_identity_is_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match="is no element of the group, or the identity"):
        multiply(bytes.fromhex(encoding), random_scalar())
    good = np.frombuffer(POINT, dtype=np.uint8)
    bad = np.frombuffer(bytes.fromhex(encoding), dtype=np.uint8)
    with Blinder() as blinder, pytest.raises(ValueError, match="is no element"):
        blinder.blind(np.stack([good, bad, good]))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 127, 128, 331])
def test_a_blinder_keeps_the_order_on_any_number_of_threads(threads: int, n: int) -> None:
    ids = [f"row {at}" for at in range(n)]
    with Blinder(threads) as one, Blinder(threads) as other:
        there = other.blind(one.blind_ids(ids, b"salt"))
        back = one.blind(other.blind_ids(ids, b"salt"))
        alone = other.blind(one.blind_ids(ids[-1:], b"salt"))
    assert there.dtype == np.uint8
    assert there.shape == (n, 32)
    assert (there == back).all()
    assert len({bytes(row) for row in there}) == n
    assert (there[-1:] == alone).all()


def test_a_bad_point_is_found_on_whichever_thread_it_falls() -> None:
    with Blinder(3) as blinder:
        points = blinder.blind_ids([str(at) for at in range(300)], b"")
        points[299] = 0
        with pytest.raises(ValueError, match="is no element"):
            blinder.blind(points)


def test_two_blinders_have_nothing_in_common() -> None:
    with Blinder() as one, Blinder() as other:
        assert not (one.blind_ids(["x"], b"") == other.blind_ids(["x"], b"")).all()


def in_a_process(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | {"TMPDIR": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_nothing_is_left_behind_in_the_temporary_folder(tmp_path: Path) -> None:
    code = "from vfl.crypto.group import hash_to_point; print(hash_to_point('x', b'').hex())"
    done = in_a_process(tmp_path, code)
    assert done.stdout.strip() == POINT.hex(), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_may_not_hold_programs_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    code = (
        "import ctypes\n"
        "def refuse(name): raise OSError('failed to map segment from shared object')\n"
        "ctypes.cdll.LoadLibrary = refuse\n"
        "import vfl.crypto.group\n"
    )
    done = in_a_process(tmp_path, code)
    assert "libsodium cannot be loaded" in done.stderr
    assert done.stderr.strip().endswith("set TMPDIR to a folder that may hold programs")
