"""What each party receives is ciphertexts it cannot read, and numbers that are uniform whatever they hide."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import gmpy2
import numpy as np
import pytest
import torch
from casting import LABEL
from paillier_cast import FEATURE, Setup, cast, play
from torch import Tensor, nn

from protocols import paillier
from protocols.paillier import kit as kits
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
from vfl.learn.learner import Learner
from vfl.paillier.keys import PrivateKey, make_keys
from vfl.paillier.pool import Pool
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal

KEY = make_keys(512, unsafe_small_key=True)
SETUP = Setup(n={"train": 64, "valid": 12, "test": 9}, epochs=4)


def with_key(setup: Setup, key: PrivateKey = KEY, change: Callable[[Any], None] | None = None) -> Rehearsal:
    """Plays with a key that the test knows."""
    company = cast(setup)
    if change:
        change(company)
    with mock.patch.object(kits, "make_keys", return_value=key):
        return play(setup, company=company)[0]


@functools.cache
def played() -> Rehearsal:
    """Plays once for all who only look."""
    return with_key(SETUP)


def numbers(said: Tensor, width: int) -> list[int]:
    raw = said.numpy().tobytes()
    return [int.from_bytes(raw[at : at + width], "big") for at in range(0, len(raw), width)]


def said_to(rehearsal: Rehearsal, party: str, kind: type[Message], fields: Sequence[str]) -> list[Tensor]:
    return [
        getattr(said.message, name)
        for said in rehearsal.view(party)
        if isinstance(said.message, kind)
        for name in fields
    ]


def plaintexts(said: Sequence[Tensor]) -> list[int]:
    """Decrypts, as the feature party can."""
    return [int(KEY.decrypt(number)) for one in said for number in numbers(one, KEY.public.cipher_bytes)]  # type: ignore[arg-type]


def assert_uniform(drawn: Sequence[int], least: int, most: int) -> None:
    """Tests by counts in 16 equal parts of the range; beyond the bound once in ten million."""
    assert least <= min(drawn)
    assert max(drawn) <= most
    parts = [(number - least) * 16 // (most - least + 1) for number in drawn]
    counts, wanted = np.bincount(parts, minlength=16), len(drawn) / 16
    assert wanted > 5
    assert float(((counts - wanted) ** 2 / wanted).sum()) < 60  # 15 degrees of freedom


def test_the_label_party_receives_the_key_ciphertexts_and_masked_numbers_and_no_more() -> None:
    rehearsal = played()
    kinds = {type(said.message) for said in rehearsal.view(LABEL)}
    assert kinds == {PublicKey, Activations, NoisedProduct, NoisedGradient, Clipped}
    fields = ("columns", "rows", "share")
    cells = [
        cell
        for said in said_to(rehearsal, LABEL, Activations, fields)
        for cell in numbers(said, KEY.public.cipher_bytes)
    ]
    n, n_squared = int(KEY.public.n), int(KEY.public.n_squared)
    assert all(n < cell < n_squared for cell in cells)  # what is not random is 1 + m n: 1 modulo n
    assert len({cell % n for cell in cells}) == len(cells) > 200
    assert_uniform(cells, 0, n_squared - 1)
    products = said_to(rehearsal, LABEL, NoisedProduct, ["product"])
    assert_uniform([m for said in products for m in numbers(said, KEY.public.plain_bytes)], 0, n - 1)
    gradients = said_to(rehearsal, LABEL, NoisedGradient, ["weights"])
    assert_uniform([m for said in gradients for m in numbers(said, KEY.public.plain_bytes)], 0, n - 1)


def test_the_feature_party_decrypts_uniform_numbers_and_its_own_gradient_and_no_more() -> None:
    rehearsal = played()
    kinds = {type(said.message) for said in rehearsal.view(FEATURE)}
    assert kinds == {InitialShare, MaskedProduct, MaskedGradient, EpochEnd}
    n = int(KEY.public.n)
    assert_uniform(plaintexts(said_to(rehearsal, FEATURE, MaskedProduct, ["product"])), 0, n - 1)
    assert_uniform(plaintexts(said_to(rehearsal, FEATURE, MaskedGradient, ["weights"])), 0, n - 1)


def still(company: Any) -> None:  # noqa: ANN401
    """Makes all activations zero, so that what is noised is zero."""
    bottom = nn.Linear(3, SETUP.width)
    nn.init.zeros_(bottom.weight)
    nn.init.zeros_(bottom.bias)
    company.learners[FEATURE] = Learner(bottom)


@pytest.mark.parametrize("change", [None, still], ids=["as it is", "with a gradient of zero"])
def test_what_the_label_party_reads_of_the_gradient_is_uniform_in_its_range_whatever_the_gradient(
    change: Callable[[Any], None] | None,
) -> None:
    read: list[int] = []
    taken = kits.Kit.read

    def noting(self: kits.Kit, plain: list[Any], layout: Any, bound: int) -> np.ndarray:  # noqa: ANN401
        values = taken(self, plain, layout, bound)
        if layout.width == SETUP.width and layout.rows == SETUP.outputs:
            read.extend(int(value) for value in values.flat)
        return values

    setup = Setup(n=SETUP.n, epochs=SETUP.epochs, noise=None)
    with mock.patch.object(kits.Kit, "read", noting):
        with_key(setup, change=change)
    scales = scales_of(setup.session(LABEL), setup.batch_size, setup.epochs * 8)
    packing = scales.gradient.packing
    room = packing.limit - scales.product_bound
    assert len(read) == setup.epochs * 8 * 12
    assert len(set(read)) == len(read)
    assert room / scales.product_bound >= 2.0**scales.config.noise_bits
    assert_uniform(read, -packing.limit, packing.limit)


def test_neither_share_tells_of_the_weights() -> None:
    _, company = play(Setup(encryption="none"))
    shares = [company.learners[f"{name}'s share"].network.integers for name in (FEATURE, LABEL)]  # type: ignore[union-attr]
    largest = max(abs(weight) for weight in sum(shares).flat)  # type: ignore[union-attr,misc]
    for share in shares:
        assert np.median([abs(int(one)) for one in share.flat]) > 2**50 * largest  # type: ignore[union-attr]


def test_a_feature_party_that_knows_every_factor_cannot_tell_what_was_computed() -> None:
    """What the label party ships of two equal computations has nothing in common but its plaintext."""
    symbols, rehearsal = [], played()
    for said in said_to(rehearsal, FEATURE, MaskedGradient, ["embedding", "weights"]):
        for cell in numbers(said, KEY.public.cipher_bytes):
            symbols.append(gmpy2.jacobi(cell, KEY.public.n))
    assert abs(sum(symbols)) < 5.5 * len(symbols) ** 0.5


def test_every_ciphertext_takes_an_obfuscator_of_its_own() -> None:
    drawn: dict[str, list[int]] = {}
    draw = Pool.draw

    def noting(self: Pool) -> Any:  # noqa: ANN401
        one = draw(self)
        drawn.setdefault(type(self._source).__name__, []).append(int(one))
        return one

    with mock.patch.object(Pool, "draw", noting):
        rehearsal = with_key(Setup())
    width = KEY.public.cipher_bytes
    to_label = said_to(rehearsal, LABEL, Activations, ("columns", "rows", "share"))
    to_label += said_to(rehearsal, LABEL, PublicKey, ["weights"])
    to_feature = said_to(rehearsal, FEATURE, InitialShare, ["weights"])
    to_feature += said_to(rehearsal, FEATURE, MaskedProduct, ["product"])
    to_feature += said_to(rehearsal, FEATURE, MaskedGradient, ["weights", "embedding"])
    assert drawn.keys() == {"Exact", "Covering"}
    for kind, said in (("Exact", to_label), ("Covering", to_feature)):
        assert len(set(drawn[kind])) == len(drawn[kind]) == sum(len(one) // width for one in said)


def test_keys_masks_and_obfuscators_are_new_in_every_run_though_noise_is_not() -> None:
    one, other = (play(Setup())[0].transcript for _ in range(2))
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        fields = [
            (getattr(mine.message, name), getattr(theirs.message, name))
            for name in ("key", "columns", "product", "weights", "embedding")
            if hasattr(mine.message, name)
        ]
        assert not any(torch.equal(a, b) for a, b in fields)


def test_without_encryption_everybody_is_told_so() -> None:
    setup = Setup(encryption="none")
    rehearsal, company = play(setup)
    assert 'encryption = "none"' in company.journals[FEATURE].warnings[0]
    assert 'encryption = "none"' in company.journals[LABEL].warnings[0]
    assert rehearsal.results[LABEL].notes[0].startswith('Encryption = "none": ')
    session = setup.session(LABEL)
    learned = paillier.learns(session, {"feature": "A.", "label": "B."})
    assert learned[LABEL].startswith("Every activation of the feature party, in the clear")


def test_whoever_clips_says_so_once_and_how_often_at_the_end() -> None:
    setup = Setup(encryption="none", options={"clip": 0.01, "value_bits": 8, "gradient_clip": 0.01})
    rehearsal, company = play(setup)
    assert [text[:20] for text in company.journals[FEATURE].warnings[1:]] == ["activations beyond ±"]
    assert [text[:20] for text in company.journals[LABEL].warnings[1:]] == ["gradients at the cut"]
    (said,) = [said.message for said in rehearsal.view(LABEL) if isinstance(said.message, Clipped)]
    assert said.count > 10
    notes = rehearsal.results[LABEL].notes
    assert notes[1] == f"{FEATURE} clipped {said.count} activations at the cut."
    assert notes[2].startswith(f"{LABEL} clipped ")
