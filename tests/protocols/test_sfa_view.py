"""What whoever sums sees: of each contribution, and of any but all of them, nothing but uniform noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sfa_cast import Company, Setup, cast, contributions, elements, play

from protocols.sfa.messages import Hidden, HiddenGrad
from vfl.masking.contributing import Contribution
from vfl.wire.messages import Message
from vfl.wire.rehearse import Rehearsal

#: Keys are random, so a test of uniformity fails by chance at times. Fewer than 3,000 p-values are looked
#: at in this file, so that one is below this by chance less than once in three million runs.
CHANCE = 1e-10

BASE = Setup(
    k=3, coordinator=True, width=8, epochs=2, batch_size=64, n={"train": 640, "valid": 128, "test": 64}
)
rings = pytest.mark.parametrize("bits", [32, 64])


def p_uniform(numbers: np.ndarray) -> float:
    """Returns the least p-value of tests of uniformity: each byte, each bit, and neighbours' low bytes."""
    flat = np.ascontiguousarray(numbers).reshape(-1)
    octets = flat.view(np.uint8).reshape(len(flat), -1)
    found = [stats.chisquare(np.bincount(column, minlength=256)).pvalue for column in octets.T]
    bits = np.unpackbits(octets, axis=1).sum(axis=0)
    z = (2.0 * bits - len(flat)) / np.sqrt(len(flat))
    found += list(2 * stats.norm.sf(np.abs(z)))
    for column in octets.T:  # 16 x 16 cells: upper halves of the bytes of one number and of the next
        halves = column >> 4
        pairs = halves[:-1:2].astype(int) * 16 + halves[1::2]
        found.append(stats.chisquare(np.bincount(pairs, minlength=256)).pvalue)
    return float(min(found))


def p_same(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the least p-value of the test that two samples' bytes are of one distribution, by place."""
    octets = [
        np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).reshape(numbers.size, -1)
        for numbers in (one, other)
    ]
    tables = (
        [np.bincount(part[:, place], minlength=256) for part in octets] for place in range(octets[0].shape[1])
    )
    return float(min(stats.chi2_contingency(np.add(table, 1e-9)).pvalue for table in tables))


def features(company: Company, name: str) -> np.ndarray:
    """Returns a party's columns in the order in which it contributes its rows."""
    rows, setup = company.rows[name], company.setup
    batches = [
        batch
        for e in range(1, setup.epochs + 1)
        for batch in (*rows.batches("train", e), *rows.batches("valid"))
    ]
    batches += rows.batches("test")
    return torch.cat([batch.inputs[0] for batch in batches]).double().numpy()


def r_squared(seen: np.ndarray, x: np.ndarray) -> float:
    """Returns how much of x a linear decoder of what was seen explains, on rows it was not fitted on."""
    seen = np.column_stack([seen / seen.std(), np.ones(len(seen))])
    half = len(seen) // 2
    solution, *_ = np.linalg.lstsq(seen[:half], x[:half], rcond=None)
    rest = x[half:]
    return float(1 - ((seen[half:] @ solution - rest) ** 2).sum() / ((rest - rest.mean(0)) ** 2).sum())


def signed(rehearsal: Rehearsal, name: str) -> np.ndarray:
    numbers = elements(rehearsal, name)
    return numbers.view(np.int32 if numbers.dtype == np.uint32 else np.int64).astype(np.float64)


@rings
@pytest.mark.parametrize("topology", [{}, {"own": True}], ids=["plain", "own"])
@pytest.mark.parametrize("coordinator", [False, True], ids=["label sums", "coordinator"])
def test_each_contribution_is_uniform(bits: int, coordinator: bool, topology: dict[str, Any]) -> None:
    setup = replace(BASE, ring_bits=bits, coordinator=coordinator, **topology)
    rehearsal, _ = play(setup)
    for name in setup.masked:
        numbers = elements(rehearsal, name)
        assert numbers.size == (2 * (640 + 128) + 64) * 8
        assert p_uniform(numbers) > CHANCE


@rings
def test_without_masks_the_same_tests_find_every_contribution_out(bits: int) -> None:
    setup = replace(BASE, ring_bits=bits, masks=False)
    rehearsal, company = play(setup)
    for name in setup.masked:
        assert p_uniform(elements(rehearsal, name)) < CHANCE**3
        assert r_squared(signed(rehearsal, name), features(company, name)) > 0.9


@rings
def test_sums_of_all_but_one_or_more_are_uniform_and_the_whole_is_not(bits: int) -> None:
    setup = replace(BASE, k=4, ring_bits=bits)
    rehearsal, _ = play(setup)
    words = [elements(rehearsal, name) for name in setup.masked]
    for size in (2, 3):
        for part in itertools.combinations(words, size):
            total = np.sum(part, axis=0, dtype=words[0].dtype)
            assert total.dtype == words[0].dtype
            assert p_uniform(total) > CHANCE
    assert p_uniform(np.sum(words, axis=0, dtype=words[0].dtype)) < CHANCE**3


@rings
def test_no_contribution_has_anything_of_the_features(bits: int) -> None:
    rehearsal, company = play(replace(BASE, ring_bits=bits))
    for name in BASE.masked:
        x, said = features(company, name), signed(rehearsal, name)
        n = len(x)
        correlations = np.corrcoef(x.T, said.T)[: x.shape[1], x.shape[1] :]
        p = 2 * stats.norm.sf(np.abs(correlations) * np.sqrt(n))
        assert p.min() > CHANCE
        assert r_squared(said, x) < 0.03  # what nine numbers fit by chance on 800 rows, and below


def scaled(company: Company, name: str, factor: float) -> Company:
    rows = company.rows[name]
    rows._inputs = (rows._inputs[0] * factor, *rows._inputs[1:])
    return company


@rings
@pytest.mark.parametrize("factor", [0.0, 100.0])
def test_two_inputs_that_have_nothing_in_common_look_alike(bits: int, factor: float) -> None:
    setup = replace(BASE, ring_bits=bits, clip=1024.0)
    one, _ = play(setup)
    other, _ = play(setup, company=scaled(cast(setup), "party0", factor))
    words = elements(one, "party0"), elements(other, "party0")
    assert p_uniform(words[1]) > CHANCE
    assert p_same(*words) > CHANCE
    bare = replace(setup, masks=False)
    one, _ = play(bare)
    other, _ = play(bare, company=scaled(cast(bare), "party0", factor))
    assert p_same(elements(one, "party0"), elements(other, "party0")) < CHANCE**3  # so the test can fail


def _about(said: Message) -> tuple[Any, ...]:
    if not isinstance(said, Contribution):
        return ()
    return said.roster, said.epoch, said.step, said.mark, tuple(said.q.shape), said.q.dtype


def shape_of(rehearsal: Rehearsal, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns all of the contributors' words but the masked numbers and the fresh keys."""
    return [
        (said.sender, said.to, said.phase, type(said.message).__name__, said.n_bytes, _about(said.message))
        for said in rehearsal.transcript
        if said.sender in names
    ]


def test_one_feature_of_one_row_changes_nothing_of_what_is_said_but_noise() -> None:
    one, _ = play(BASE)
    company = cast(BASE)
    company.rows["party0"]._inputs[0][17, 1] += 5.0  # a training row
    other, _ = play(BASE, company=company)
    again, _ = play(BASE)
    assert shape_of(one, BASE.masked) == shape_of(other, BASE.masked) == shape_of(again, BASE.masked)
    for name in BASE.masked:
        first, second, third = (elements(rehearsal, name) for rehearsal in (one, other, again))
        # Changed or not, every number is another: the difference of two runs is noise, too.
        assert p_uniform(second - first) > CHANCE
        assert p_uniform(third - first) > CHANCE
        assert p_same(second - first, third - first) > CHANCE
        assert (first == second).mean() < 1e-3


def test_the_difference_of_two_rows_or_batches_is_noise_as_well() -> None:
    rehearsal, _ = play(BASE)
    words = elements(rehearsal, "party0")
    assert p_uniform(words[1:] - words[:-1]) > CHANCE
    assert p_uniform(words[64:128] - words[:64]) > CHANCE
    epochs = words.reshape(-1)[: 2 * 768 * 8].reshape(2, -1)
    assert p_uniform(epochs[1] - epochs[0]) > CHANCE


def test_nobody_but_the_aggregator_is_said_a_contribution_and_only_the_label_party_the_trunks_output() -> (
    None
):
    setup = replace(BASE, own=True)
    rehearsal, _ = play(setup)
    for said in rehearsal.transcript:
        if isinstance(said.message, Contribution | HiddenGrad):
            assert said.to == setup.aggregator
        if isinstance(said.message, Hidden):
            assert said.to == "label"
        assert setup.aggregator in (said.sender, said.to)
    assert not [said for said in rehearsal.view("party0") if said.sender != setup.aggregator]
    assert len(list(contributions(rehearsal, "label"))) == len(list(contributions(rehearsal, "party0")))
