"""A party that lies in a federated factorisation is named by whoever hears it, and everyone ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fedmmf_cast import HUB, Setup, caught_lying, spoiling

from protocols.fedmmf.messages import (
    Axis,
    Choice,
    Ciphertexts,
    Clipped,
    EncryptedScores,
    EncryptedSum,
    Group,
    Mean,
    Opened,
    PaillierKey,
    RoundEnd,
    SealedKey,
    SharedFactors,
    Turn,
)
from vfl.masking.agreeing import Confirmations, Keys, KeyShare, Roster
from vfl.masking.contributing import Contribution
from vfl.wire.line import Send

BASE = Setup(epochs=2)
SGD = Setup(epochs=2, options={"solver": "sgd", "batches": 2})
SEALED = Setup(epochs=2, options={"aggregation": "paillier", "key_bits": 256, "unsafe_small_key": True})
CHOOSING = Setup(epochs=2, options={"aggregation": "adaptive"})
both = pytest.mark.parametrize("setup", [BASE, SGD], ids=["als", "sgd"])

Spoil = Callable[[Any], Any]

# The first contribution is to the mean, the second to the first step.
WRONG: dict[str, tuple[Spoil, str]] = {
    "the other ring": (
        lambda said: replace(said, q=said.q.to({4: torch.int64, 8: torch.int32}[said.q.itemsize])),
        "where torch.int",
    ),
    "numbers that are not masked": (lambda said: replace(said, q=said.q.double()), "torch.float64"),
    "an entity more": (lambda said: replace(said, q=torch.cat([said.q, said.q[:1]])), "(13,"),
    "a column fewer": (lambda said: replace(said, q=said.q[:, 1:]), "is due"),
    "nothing": (lambda said: replace(said, q=said.q[:0]), "(0,"),
    "one number": (lambda said: replace(said, q=said.q[0, 0]), "()"),
    "the step after": (lambda said: replace(said, step=said.step + 1), "contributes step 1 of epoch 1"),
    "the round after": (lambda said: replace(said, epoch=said.epoch + 1), "step 0 of epoch 2"),
    "other entities": (lambda said: replace(said, mark=said.mark ^ 1), "all tables must be aligned"),
    "a roster to come": (lambda said: replace(said, roster=2), "for roster 2 where"),
    "a roster below zero": (lambda said: replace(said, roster=-1), "for roster -1 where"),
}


@both
@pytest.mark.parametrize("lie", WRONG)
@pytest.mark.parametrize("liar", ["shop0", "shop2"])
def test_a_contribution_that_is_not_what_is_due_is_refused_by_name(liar: str, lie: str, setup: Setup) -> None:
    spoil, words = WRONG[lie]
    assert words in caught_lying(liar, spoiling(Contribution, 1, spoil), setup)


def twice(kind: type[Any], number: int) -> Any:  # noqa: ANN401 - a change
    count = 0

    def change(send: Send) -> Sequence[Send]:
        nonlocal count
        count += isinstance(send.message, kind)
        return [send, send] if isinstance(send.message, kind) and count == number + 1 else [send]

    return change


@both
@pytest.mark.parametrize("number", [0, 1, 2])  # the mean, a step, what follows
def test_a_second_message_for_one_counter_is_refused_by_name(number: int, setup: Setup) -> None:
    assert caught_lying("shop1", twice(Contribution, number), setup)


def test_a_second_encrypted_message_is_refused_too() -> None:
    assert caught_lying("shop1", twice(Ciphertexts, 1), SEALED)


def test_the_contribution_of_the_round_before_is_refused_by_name() -> None:
    before: list[Contribution] = []

    def late(send: Send) -> Send:
        if isinstance(send.message, Contribution) and send.phase == "train":
            before.append(send.message)
            return send._replace(message=before[0])
        return send

    assert "each batch is summed once" in caught_lying("shop1", late, BASE)


@pytest.mark.parametrize("liar", ["shop0", "shop1"])
@pytest.mark.parametrize("lie", [{"shared": 13}, {"shared": -1}, {"shared": 2**62}, {"mark": 7}])
def test_whoever_has_another_catalogue_than_the_rest_is_named(liar: str, lie: dict[str, int]) -> None:
    words = caught_lying(liar, spoiling(Axis, 0, lambda said: replace(said, **lie)), BASE)
    assert "all participants need the same catalogue" in words


@pytest.mark.parametrize("setup", [BASE, replace(BASE, options={"aggregation": "plain"})])
def test_a_choice_where_the_job_leaves_none_is_refused(setup: Setup) -> None:
    def change(send: Send) -> Sequence[Send]:
        return [send, send._replace(message=Choice(True))] if isinstance(send.message, Axis) else [send]

    assert "said Choice where" in caught_lying("shop1", change, setup)


def test_a_contribution_where_keys_are_due_is_refused() -> None:
    change = spoiling(KeyShare, 0, lambda said: Contribution(1, 0, 0, 0, torch.zeros(1, 2).long()))
    assert "said Contribution where KeyShare" in caught_lying("shop2", change, BASE)


@pytest.mark.parametrize("names", [("shop0",), ("shop1", "shop2"), ("shop0", "mallory"), ("shop1", "shop0")])
def test_a_coordinator_that_passes_on_another_choice_is_named(names: tuple[str, ...]) -> None:
    change = spoiling(Group, 0, lambda said: Group(names), to="shop0")
    if "shop0" in names and names == ("shop0",):
        return  # says of shop0 what it chose, and of the others what it cannot know
    assert "another choice" in caught_lying(HUB, change, CHOOSING)


def test_a_coordinator_that_says_plain_where_masked_was_agreed_is_named() -> None:
    change = spoiling(Keys, 0, lambda said: Mean(0.0, 90))
    assert "said Mean where Keys" in caught_lying(HUB, change, BASE)


@pytest.mark.parametrize(
    ("names", "number"),
    [
        (("shop0", "shop1"), 1),
        (("shop0",), 1),
        (("shop0", "shop1", "mallory"), 1),
        (("shop0", "shop1", "shop2"), 0),
    ],
)
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_first_roster_that_is_not_the_jobs_is_refused(
    names: tuple[str, ...], number: int, goes_on: bool
) -> None:
    change = spoiling(Roster, 0, lambda said: Roster(number, names))
    assert "another roster" in caught_lying(HUB, change, replace(BASE, goes_on=goes_on))


@both
def test_a_roster_in_the_place_of_shared_factors_is_refused_where_it_does_not_follow(setup: Setup) -> None:
    for roster, goes_on in ((Roster(2, ("shop0", "shop1")), False), (Roster(1, ("shop0", "shop1")), True)):
        change = spoiling(SharedFactors, 1, lambda said, roster=roster: roster)  # type: ignore[misc]
        assert "another roster" in caught_lying(HUB, change, replace(setup, goes_on=goes_on))


def test_a_coordinator_that_passes_on_other_keys_or_tags_is_named() -> None:
    swapped = spoiling(Keys, 0, lambda said: replace(said, keys=said.keys[::-1]))
    assert "another key than" in caught_lying(HUB, swapped, BASE)
    tags = spoiling(Confirmations, 0, lambda said: replace(said, tags=said.tags[::-1]))
    assert "another key than" in caught_lying(HUB, tags, BASE)


SHARED: dict[str, tuple[dict[str, Any], str]] = {
    "another step": ({"step": 1}, "says step 1 of round 1 where step 0"),
    "another round": ({"epoch": 2}, "says step 0 of round 2"),
    "an entity fewer": ({"factors": torch.zeros(11, 3).double()}, "[11, 3]"),
    "floats of 32 bits": ({"factors": torch.zeros(12, 3)}, "torch.float32"),
    "no numbers": ({"factors": torch.full((12, 3), torch.nan).double()}, "not finite"),
    "one number": ({"factors": torch.tensor(1.0).double()}, "[]"),
}


@both
@pytest.mark.parametrize("lie", SHARED)
def test_a_coordinator_that_says_other_shared_factors_is_named(lie: str, setup: Setup) -> None:
    fields, words = SHARED[lie]
    assert words in caught_lying(HUB, spoiling(SharedFactors, 0, lambda said: replace(said, **fields)), setup)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Mean, {"mu": np.nan}, "a mean residual of nan"),
        (Mean, {"mu": 1e9}, "a mean residual of 1000000000.0"),
        (Mean, {"ratings": 0}, "counts 0 ratings"),
        (Mean, {"ratings": -5}, "counts -5 ratings"),
        (Turn, {"epoch": 2}, "asks for round 2 where round 1"),
        (RoundEnd, {"stop": True, "vanished": ("shop2",)}, "over without somebody"),
    ],
)
def test_a_coordinator_that_says_what_cannot_be_is_named(
    kind: type[Any], fields: dict[str, Any], words: str
) -> None:
    assert words in caught_lying(HUB, spoiling(kind, 0, lambda said: replace(said, **fields)), BASE)


@pytest.mark.parametrize("values", [-1, -(2**40)])
def test_fewer_than_no_clipped_sums_are_refused(values: int) -> None:
    assert "fewer than no sums" in caught_lying(
        "shop1", spoiling(Clipped, 0, lambda s: Clipped(values)), BASE
    )


# --- encrypted -----------------------------------------------------------------------------------------

KEYS: dict[str, tuple[Spoil, str]] = {
    "no key": (lambda said: replace(said, public=b""), "a public key that is none"),
    "a prime or an even number": (lambda said: replace(said, public=bytes(64)), "a public key that is none"),
    "a key of other size": (lambda said: replace(said, public=said.public[:32]), "a public key that is none"),
    "another roster": (lambda said: replace(said, number=2), "another roster"),
    "sealed for fewer": (lambda said: replace(said, sealed=said.sealed[:1]), "seals a key for 1, not 2"),
    "sealed as numbers": (lambda said: replace(said, sealed=said.sealed.double()), "or none"),
    "nothing sealed": (lambda said: replace(said, sealed=said.sealed[:, :0]), "seals a key"),
}


@pytest.mark.parametrize("lie", KEYS)
def test_a_first_participant_that_says_a_wrong_key_is_named(lie: str) -> None:
    spoil, words = KEYS[lie]
    assert words in caught_lying("shop0", spoiling(PaillierKey, 0, spoil), SEALED)


@pytest.mark.parametrize("sealed", [b"", bytes(176), b"\1" * 9])
def test_a_key_that_the_first_one_has_not_sealed_is_refused(sealed: bytes) -> None:
    change = spoiling(SealedKey, 0, lambda said: replace(said, sealed=sealed))
    assert "another key than shop0 sealed" in caught_lying(HUB, change, SEALED)


def test_a_sealed_key_of_somebody_else_is_refused() -> None:
    said: list[SealedKey] = []

    def change(send: Send) -> Send:
        if isinstance(send.message, SealedKey):
            said.append(send.message)
            return send._replace(message=said[0])  # shop1's, for shop2, too
        return send

    assert "another key than shop0 sealed" in caught_lying(HUB, change, SEALED)


CELLS: dict[str, tuple[Spoil, str]] = {
    "a byte fewer": (lambda said: replace(said, cells=said.cells[1:]), "that are none"),
    "nothing": (lambda said: replace(said, cells=said.cells[:0]), "that are none"),
    "no ciphertexts": (lambda said: replace(said, cells=torch.zeros_like(said.cells)), "that are none"),
    "numbers": (lambda said: replace(said, cells=said.cells.double()), "no bytes"),
    "rows": (lambda said: replace(said, rows=torch.tensor([0])), "that are none"),
    "the step after": (lambda said: replace(said, step=1), "contributes step 1 of round 1"),
    "a roster to come": (lambda said: replace(said, roster=2), "for roster 2"),
}


@pytest.mark.parametrize("lie", CELLS)
def test_ciphertexts_that_are_not_what_is_due_are_refused_by_name(lie: str) -> None:
    spoil, words = CELLS[lie]
    assert words in caught_lying("shop1", spoiling(Ciphertexts, 1, spoil), SEALED)


@pytest.mark.parametrize("rows", [[-1], [12], [3, 3], [4, 2]])
def test_rated_rows_that_are_none_are_refused(rows: list[int]) -> None:
    setup = replace(SEALED, options={**SEALED.options, "paillier_items": "rated"})
    change = spoiling(Ciphertexts, 1, lambda said: replace(said, rows=torch.tensor(rows)))
    assert "do not ascend, or are beyond the last" in caught_lying("shop1", change, setup)


@pytest.mark.parametrize("kind", [EncryptedSum, EncryptedScores])
def test_a_sum_of_ciphertexts_that_is_none_is_refused(kind: type[Any]) -> None:
    zeros = spoiling(kind, 0, lambda said: replace(said, cells=torch.zeros_like(said.cells)))
    assert "a sum of ciphertexts that is none" in caught_lying(HUB, zeros, SEALED)
    dropped = spoiling(kind, 0, lambda said: replace(said, cells=said.cells[:0]))
    assert caught_lying(HUB, dropped, SEALED)


@pytest.mark.parametrize(
    "fields", [{"epoch": 5}, {"sums": torch.zeros(1).long()}, {"sums": torch.zeros(2)}, {"step": 1}]
)
def test_opened_sums_that_are_none_are_refused(fields: dict[str, Any]) -> None:
    change = spoiling(Opened, 0, lambda said: replace(said, **fields))
    assert "opens other sums" in caught_lying("shop0", change, SEALED)
