"""A party that lies in the Paillier cut is named by whoever hears it, and both end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from casting import LABEL
from gmpy2 import mpz
from liars import lying
from paillier_cast import FEATURE, Setup, at, cast, caught_lying, play, predict, spoiling
from torch import Tensor

from protocols.paillier import kit as kits
from protocols.paillier.kit import as_tensor
from protocols.paillier.messages import (
    Activations,
    Clipped,
    EpochEnd,
    InitialShare,
    MaskedGradient,
    MaskedProduct,
    NoisedGradient,
    NoisedProduct,
    PublicKey,
)
from protocols.paillier.scales import scales_of
from vfl.errors import RemoteProtocolError
from vfl.paillier.keys import make_keys
from vfl.paillier.obfuscation import Exact
from vfl.paillier.workers import Workers
from vfl.wire.messages import Message

SETUP = Setup()
KEY, OTHER = sorted((make_keys(512, unsafe_small_key=True) for _ in range(2)), key=lambda key: key.public.n)
SMALL = make_keys(256, unsafe_small_key=True)
CIPHER, PLAIN = KEY.public.cipher_bytes, KEY.public.plain_bytes


@pytest.fixture(autouse=True)
def _known_key() -> Any:  # noqa: ANN401
    with mock.patch.object(kits, "make_keys", return_value=KEY):
        yield
    assert not [thread for thread in threading.enumerate() if thread.name == "obfuscators"]  # all has ended


def with_first(said: Tensor, number: int, width: int) -> Tensor:
    """Puts a number in the place of the first."""
    return as_tensor(number.to_bytes(width, "big") + said.numpy().tobytes()[width:])


N, N_SQUARED, P = int(KEY.public.n), int(KEY.public.n_squared), int(KEY.phe_key.p)

#: What may stand wrongly in the place of ciphertexts, and what is said of it.
CIPHERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a ciphertext of zero": (
        lambda said: with_first(said, 0, CIPHER),
        "ciphertext 0 is not between 0 and n²",
    ),
    "n² itself": (lambda said: with_first(said, N_SQUARED, CIPHER), "ciphertext 0 is not between 0 and n²"),
    "more than n²": (lambda said: with_first(said, 2**1024 - 1, CIPHER), "is not between 0 and n²"),
    "what shares a factor with n": (lambda said: with_first(said, 5 * P, CIPHER), "shares a factor with n"),
    "one ciphertext fewer": (lambda said: said[CIPHER:], "bytes where"),
    "a byte more": (lambda said: torch.cat([said, said[:1]]), "bytes where"),
    "nothing": (lambda said: said[:0], "sent 0 bytes where"),
    "floats": (lambda said: said.float(), "torch.float32"),
    "rows": (lambda said: said.reshape(2, -1), "where bytes are due"),
}

#: The same for masked plaintexts.
PLAINS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "n itself": (lambda said: with_first(said, N, PLAIN), "a plaintext that is not below n"),
    "more than n": (lambda said: with_first(said, 2**512 - 1, PLAIN), "a plaintext that is not below n"),
    "one fewer": (lambda said: said[PLAIN:], "bytes where"),
    "a byte fewer": (lambda said: said[1:], "bytes where"),
    "nothing": (lambda said: said[:0], "sent 0 bytes where"),
    "whole numbers": (lambda said: said.long(), "torch.int64"),
    "no number of this dialogue": (
        lambda said: with_first(said, (_first(said) + N // 2) % N, PLAIN), "that its slots cannot hold"
    ),
}  # fmt: skip


def _first(said: Tensor) -> int:
    return int.from_bytes(said.numpy().tobytes()[:PLAIN], "big")


FIELDS: list[tuple[str, type[Message], str, dict[str, tuple[Callable[[Tensor], Tensor], str]]]] = [
    (FEATURE, PublicKey, "weights", CIPHERS),
    (LABEL, InitialShare, "weights", CIPHERS),
    (FEATURE, Activations, "columns", CIPHERS),
    (FEATURE, Activations, "rows", CIPHERS),
    (FEATURE, Activations, "share", CIPHERS),
    (LABEL, MaskedProduct, "product", CIPHERS),
    (LABEL, MaskedGradient, "weights", CIPHERS),
    (LABEL, MaskedGradient, "embedding", CIPHERS),
    (FEATURE, NoisedProduct, "product", PLAINS),
    (FEATURE, NoisedGradient, "weights", PLAINS),
]
LIES = [
    pytest.param(liar, kind, name, lie, lies[lie], id=f"{kind.__name__}.{name}: {lie}")
    for liar, kind, name, lies in FIELDS
    for lie in lies
]


@pytest.mark.parametrize(("liar", "kind", "name", "lie", "how"), LIES)
def test_numbers_that_are_none_are_refused_by_name(
    liar: str, kind: type[Message], name: str, lie: str, how: tuple[Callable[[Tensor], Tensor], str]
) -> None:
    spoil, words = how
    number = 0 if kind in (PublicKey, InitialShare) else 1  # those are said once
    change = spoiling(kind, number, lambda said: replace(said, **{name: spoil(getattr(said, name))}))
    assert words in caught_lying(liar, change, SETUP)


@pytest.mark.parametrize(
    ("liar", "kind"),
    [(FEATURE, NoisedProduct), (FEATURE, NoisedGradient), (LABEL, MaskedProduct), (LABEL, MaskedGradient)],
)
@pytest.mark.parametrize("more", [1, -1, 100])
def test_an_answer_to_another_step_is_refused_by_name(liar: str, kind: type[Message], more: int) -> None:
    change = spoiling(kind, 2, lambda said: replace(said, step=said.step + more))
    assert "answers step" in caught_lying(liar, change, SETUP)


@pytest.mark.parametrize("lie", ["step", "epoch", "mark"])
@pytest.mark.parametrize("number", [1, 4, 10])  # training, validation, test
def test_other_rows_are_refused_by_name(lie: str, number: int) -> None:
    change = spoiling(Activations, number, lambda said: replace(said, **{lie: getattr(said, lie) ^ 1}))
    assert "the tables are not aligned" in caught_lying(FEATURE, change, SETUP)


def test_tables_that_are_not_aligned_are_an_error_and_never_a_bad_model() -> None:
    company = cast(SETUP)
    company.rows[FEATURE]._digests = np.roll(company.rows[FEATURE]._digests, 1)
    with pytest.raises(RemoteProtocolError, match=r"party0: .*the tables are not aligned"):
        play(SETUP, company=company)


@pytest.mark.parametrize("name", ["rows", "share"])
def test_what_is_to_be_learned_from_is_refused_where_nothing_is(name: str) -> None:
    change = spoiling(Activations, 4, lambda said: replace(said, **{name: said.columns}))
    assert "where nothing is" in caught_lying(FEATURE, change, SETUP)


def test_weights_to_begin_with_are_refused_where_nothing_is_learned() -> None:
    _, company = play(SETUP)
    liar = lying(at(PublicKey, 0, weights=as_tensor(bytes(CIPHER))))
    with pytest.raises(RemoteProtocolError, match=r"party0: .*where nothing is learned"):
        predict(company, **{FEATURE: liar})


def test_an_initial_share_of_other_numbers_than_agreed_is_refused_by_name() -> None:
    other = (1 + (N // 3) * N) % N_SQUARED  # a ciphertext of n / 3
    change = spoiling(InitialShare, 0, lambda said: InitialShare(with_first(said.weights, other, CIPHER)))
    assert "a plaintext that its slots cannot hold" in caught_lying(LABEL, change, SETUP)


def half_of(key: bytes, half: int, number: int) -> Tensor:
    """Puts a number in the place of n (0) or of h (1)."""
    parts = [key[:PLAIN], key[PLAIN:]]
    parts[half] = number.to_bytes(PLAIN, "big")
    return as_tensor(b"".join(parts))


RAW = KEY.public.to_bytes()
KEYS: dict[str, tuple[Tensor, str]] = {
    "none": (as_tensor(b""), "sent a key of 0 bytes"),
    "one that is cut": (as_tensor(RAW[:-1]), "sent a key of 127 bytes"),
    "a smaller one": (as_tensor(SMALL.public.to_bytes()), "a key of 256 bits where 512 are due"),
    "zeros": (as_tensor(bytes(128)), "a modulus of 0 bits"),
    "an even modulus": (half_of(RAW, 0, N - 1), "no product of two primes"),
    "a modulus with a small factor": (half_of(RAW, 0, (N // 12) * 12 + 9), "factor below"),
    "a base of zero": (half_of(RAW, 1, 0), "that is no unit"),
    "a base of one": (half_of(RAW, 1, 1), "that is no unit"),
    "a base that shares a factor with n": (half_of(RAW, 1, 3 * P), "that is no unit"),
    "floats": (torch.zeros(128), "torch.float32"),
}


@pytest.mark.parametrize("lie", KEYS)
def test_a_key_that_is_none_is_refused_by_name(lie: str) -> None:
    said, words = KEYS[lie]
    assert words in caught_lying(FEATURE, at(PublicKey, 0, key=said), SETUP)


def test_ciphertexts_under_another_key_are_found_as_soon_as_anything_is_read() -> None:
    """What is under the key with the smaller modulus can be a ciphertext under the other."""

    def under_another(said: Activations) -> Activations:
        cells = [KEY.public.lift(mpz(7)) * Exact(KEY).draw() % N_SQUARED for _ in range(SETUP.width)]
        raw = b"".join(int(cell).to_bytes(CIPHER, "big") for cell in cells)
        return replace(said, columns=as_tensor(raw))

    with mock.patch.object(kits, "make_keys", return_value=OTHER):
        why = caught_lying(FEATURE, spoiling(Activations, 0, under_another), SETUP)
    assert "a plaintext that its slots cannot hold" in why


def test_a_key_where_nothing_is_encrypted_is_refused_by_name() -> None:
    setup = replace(SETUP, encryption="none")
    why = caught_lying(FEATURE, at(PublicKey, 0, key=as_tensor(RAW)), setup)
    assert why == 'said a public key, where encryption = "none" in the job'


def test_ciphertexts_of_other_numbers_than_agreed_are_found_where_slots_overflow() -> None:
    """A gradient that no honest label party computes, under a right key."""

    def other(said: MaskedGradient) -> MaskedGradient:
        width = KEY.public.cipher_bytes
        number = (1 + (N // 3) * N) % N_SQUARED  # a ciphertext of n / 3
        return replace(said, embedding=with_first(said.embedding, number, width))

    assert "a plaintext that its slots cannot hold" in caught_lying(
        LABEL, spoiling(MaskedGradient, 0, other), SETUP
    )


def test_a_number_that_its_slot_holds_and_nobody_computes_is_refused_by_name() -> None:
    scales = scales_of(SETUP.session(LABEL), 8, 8)
    kit, layout, most = kits.Kit("eve", KEY.public, Exact(KEY)), scales.product(8), scales.z_bound
    values = np.full((3, 8), most)
    assert (kit.read(layout.pack(values), layout, most) == values).all()
    values[2, 5] = most + 1
    with pytest.raises(RemoteProtocolError, match="eve: sent a number that no honest party computes"):
        kit.read(layout.pack(values), layout, most)


def test_a_count_below_zero_is_refused_by_name() -> None:
    assert "clipped -1 values" in caught_lying(FEATURE, at(Clipped, 0, count=-1), SETUP)


@pytest.mark.parametrize(
    ("liar", "kind", "other"),
    [
        (FEATURE, PublicKey, Clipped(3)),
        (LABEL, InitialShare, MaskedProduct(0, as_tensor(b""))),
        (FEATURE, NoisedGradient, Clipped(3)),
        (LABEL, MaskedGradient, EpochEnd(True, True)),
        (LABEL, EpochEnd, MaskedProduct(0, as_tensor(b""))),
    ],
)
def test_another_word_than_is_due_is_refused_by_name(liar: str, kind: type[Message], other: Message) -> None:
    why = caught_lying(liar, spoiling(kind, 0, lambda said: other), SETUP)
    assert f"said {type(other).__name__} where" in why


def test_shares_of_different_trainings_are_found_in_prediction() -> None:
    _, company = play(Setup(options={"value_bits": 12}))
    company.learners[f"{LABEL}'s share"].network.updates.fill_(2**40)  # type: ignore[union-attr,operator]
    with pytest.raises(RemoteProtocolError, match=r"bytes where|hold"):
        predict(company)


def test_cores_beyond_one_share_the_work_of_a_real_key_and_change_nothing() -> None:
    setup = Setup(n={"train": 8, "valid": 0, "test": 4}, epochs=1, batch_size=8)
    counted: list[int] = []
    begun = Workers.__init__

    def counting(self: Workers, count: int) -> None:
        counted.append(count)
        begun(self, count)

    with (
        mock.patch.object(kits, "KEY_BITS", (512,)),
        mock.patch.object(torch, "get_num_threads", return_value=2),
        mock.patch.object(Workers, "__init__", counting),
    ):
        one = play(setup)[0].results[LABEL]
    assert counted == [2, 2]
    other = play(setup)[0].results[LABEL]
    assert one.test_output.tobytes() == other.test_output.tobytes()
