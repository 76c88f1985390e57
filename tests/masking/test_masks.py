"""Masks cancel in the whole sum, hide every part of it, and are never used twice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vfl.crypto.pairs import Stream
from vfl.errors import RoleError
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring

FIRST = Counter(0, 0, 0)
counters = st.builds(
    Counter,
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**8 - 1),
)

#: Chi-square with 255 degrees of freedom lies outside of these once in 50,000 times, were bytes uniform.
_LEAST, _MOST = 169.9, 363.0


def names_of(k: int) -> list[str]:
    return [f"party{place}" for place in range(k)]  # sorts otherwise than by number from ten on


def key_of(one: str, two: str) -> bytes:
    return hashlib.sha256(" ".join(sorted((one, two))).encode()).digest()


def everyone(names: Sequence[str], ring: Ring, pairs: Iterable[tuple[str, str]] | None = None) -> list[Masks]:
    """Makes the masks of all; `pairs` says who masks with whom, all with all by default."""
    edges = {frozenset(pair) for pair in (pairs or itertools.combinations(names, 2))}
    return [
        Masks(
            me, {name: key_of(me, name) for name in reversed(names) if frozenset((me, name)) in edges}, ring
        )
        for me in names
    ]


def chi_square(elements: Tensor, place: int) -> float:
    """Compares how often each value of one byte of the elements occurs with a uniform one."""
    found = elements.contiguous().view(torch.uint8).reshape(-1, elements.element_size())[:, place]
    counts = np.bincount(found.numpy(), minlength=256)
    due = len(found) / 256
    return float(((counts - due) ** 2 / due).sum())


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("k", [2, 3, 4, 5, 6, 7, 8, 64])
def test_the_masks_of_all_contributors_sum_to_zero(k: int, bits: int) -> None:
    ring = Ring.fitting(bits, 8.0, k)
    masks = everyone(names_of(k), ring)
    for counter in (FIRST, Counter(0, 0, 1), Counter(3, 2**32 - 1, 7, 255)):
        taken = [one.take(counter, (5, 3)) for one in masks]
        assert not ring.total(taken).any()
        assert all(mask.dtype == ring.dtype and mask.shape == (5, 3) and mask.any() for mask in taken)


@settings(deadline=None)
@given(st.integers(2, 9), st.data())
def test_masks_of_any_graph_of_partners_sum_to_zero(k: int, data: st.DataObject) -> None:
    ring = Ring.fitting(32, 8.0, k)
    possible = list(itertools.combinations(names_of(k), 2))
    pairs = data.draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    taken = [one.take(FIRST, (2, 3)) for one in everyone(names_of(k), ring, pairs)]
    assert not ring.total(taken).any()
    for name, mask in zip(names_of(k), taken, strict=True):
        assert mask.any().item() == any(name in pair for pair in pairs)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_mask_is_the_signed_sum_of_its_pairs_streams(bits: int) -> None:
    ring = Ring.fitting(bits, 8.0, 3)
    counter, due = Counter(1, 2, 3, 4), np.zeros(70_000, ring.np_dtype)
    for name, sign in (("a", 1), ("b", 1), ("d", -1), ("e", -1)):
        stream = np.empty_like(due)
        Stream(key_of("c", name)).fill(stream, counter.block())
        due = due + stream if sign > 0 else due - stream
    mask = Masks("c", {name: key_of("c", name) for name in "ebda"}, ring).take(counter, (700, 100))
    assert np.array_equal(mask.numpy().reshape(-1).view(ring.np_dtype), due)


def test_without_partners_a_mask_is_zero() -> None:
    mask = Masks("a", {}, Ring.fitting(32, 8.0, 2)).take(FIRST, (4, 2))
    assert mask.tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("bits", [32, 64])
def test_the_sum_of_every_proper_subset_is_uniform_whatever_was_contributed(bits: int) -> None:
    names, ring = names_of(4), Ring.fitting(bits, 8.0, 4)
    rows = torch.linspace(-8, 8, 4)
    for value in (0.0, 7.5):
        parts = []
        for row, masks in zip(rows, everyone(names, ring), strict=True):
            h = torch.full((256, 256), float(row) if value else 0.0)
            parts.append(ring.total([ring.encode(h)[0], masks.take(FIRST, h.shape)]))
        for size in (1, 2, 3):
            for subset in itertools.combinations(parts, size):
                total = ring.total(subset)
                for place in range(bits // 8):
                    assert _LEAST < chi_square(total, place) < _MOST
        assert chi_square(ring.total(parts), bits // 8 - 1) > 1e6  # the same test does see a bare sum


def test_another_input_changes_a_contribution_by_its_own_difference_under_a_uniform_mask() -> None:
    ring, names = Ring.fitting(32, 8.0, 2), names_of(2)
    one, other = torch.zeros(256, 256), torch.zeros(256, 256)
    other[3, 5] = 1.0

    def said(h: Tensor, counter: Counter) -> Tensor:
        return ring.total([ring.encode(h)[0], everyone(names, ring)[0].take(counter, h.shape)])

    changed = said(one, FIRST) != said(other, FIRST)
    assert changed.nonzero().tolist() == [[3, 5]]
    for place in range(4):  # and under two counters the difference tells nothing
        difference = said(one, FIRST).numpy().view(np.uint32) - said(other, Counter(0, 0, 1)).numpy().view(
            np.uint32
        )
        assert _LEAST < chi_square(torch.from_numpy(difference.view(np.int32)), place) < _MOST


def test_masks_of_different_counters_and_of_different_pairs_have_nothing_in_common() -> None:
    ring = Ring.fitting(64, 8.0, 3)
    seen: set[int] = set()
    for masks in everyone(names_of(3), ring):
        for counter in (FIRST, Counter(0, 0, 0, 1), Counter(0, 0, 1), Counter(0, 1, 0), Counter(1, 0, 0)):
            seen.update(masks.take(counter, (16, 16)).reshape(-1).tolist())
    assert len(seen) == 3 * 5 * 256


@settings(deadline=None)
@given(counters, counters)
def test_no_two_counters_share_a_block(one: Counter, two: Counter) -> None:
    blocks = one.block(), two.block()
    assert {len(block) for block in blocks} == {16}
    assert {block[10:] for block in blocks} == {bytes(6)}  # numbers the blocks: 2^48 of them a tensor
    assert (blocks[0] == blocks[1]) == (one == two)
    assert (blocks[0] < blocks[1]) == (one < two)


@pytest.mark.parametrize(
    "counter",
    [
        Counter(-1, 0, 0),
        Counter(256, 0, 0),
        Counter(0, 2**32, 0),
        Counter(0, -1, 0),
        Counter(0, 0, 2**32),
        Counter(0, 0, -1),
        Counter(0, 0, 0, 256),
        Counter(0, 0, 0, -1),
    ],
)
def test_a_counter_beyond_its_bits_is_refused(counter: Counter) -> None:
    with pytest.raises(RoleError, match="beyond what a counter block holds"):
        Masks("a", {"b": bytes(32)}, Ring.fitting(32, 8.0, 2)).take(counter, (1,))


@settings(deadline=None)
@given(counters, counters, st.booleans(), st.booleans())
def test_a_counter_that_does_not_ascend_is_refused_however_it_is_asked_for(
    one: Counter, two: Counter, first_prepares: bool, then_prepares: bool
) -> None:
    masks = Masks("a", {"b": bytes(32)}, Ring.fitting(32, 8.0, 2))
    if first_prepares:
        masks.prepare(one, (2,))
    masks.take(one, (2,))
    ask = masks.prepare if then_prepares else masks.take
    if two.split == one.split and two <= one:
        with pytest.raises(RoleError, match="used twice"):
            ask(two, (2,))
    else:
        ask(two, (2,))


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 1), (1, 2), (0,)])
def test_no_mask_is_taken_twice_in_any_shape(shape: tuple[int, ...]) -> None:
    masks = Masks("a", {"b": bytes(32)}, Ring.fitting(32, 8.0, 2))
    masks.take(FIRST, (2,))
    with pytest.raises(RoleError):
        masks.take(FIRST, shape)


def test_a_prepared_mask_is_the_one_that_would_be_made() -> None:
    ring = Ring.fitting(32, 8.0, 3)
    ready, due = everyone(names_of(3), ring)[1], everyone(names_of(3), ring)[1]
    for step, shape in enumerate([(2, 3), (7, 1), (0, 4), (300, 300), (2, 3)]):
        ready.prepare(Counter(0, 0, step), list(shape))
        mask = ready.take(Counter(0, 0, step), torch.Size(shape))
        assert torch.equal(mask, due.take(Counter(0, 0, step), shape))


def test_a_prepared_mask_is_of_one_shape_only_and_used_up_by_another() -> None:
    masks = Masks("a", {"b": bytes(32)}, Ring.fitting(32, 8.0, 2))
    masks.prepare(FIRST, (4, 2))
    with pytest.raises(RoleError, match=r"prepared for \[4, 2\], not \[2, 4\]; its stream is used up"):
        masks.take(FIRST, (2, 4))
    with pytest.raises(RoleError, match="used twice"):
        masks.take(FIRST, (4, 2))


def test_a_prepared_mask_that_was_passed_over_is_gone() -> None:
    masks = Masks("a", {"b": bytes(32)}, Ring.fitting(32, 8.0, 2))
    masks.prepare(FIRST, (4,))
    later = masks.take(Counter(0, 0, 1), (4,))
    with pytest.raises(RoleError):
        masks.take(FIRST, (4,))
    masks.prepare(Counter(0, 0, 2), (4,))
    masks.prepare(Counter(0, 0, 3), (4,))
    with pytest.raises(RoleError):
        masks.take(Counter(0, 0, 2), (4,))
    assert not torch.equal(masks.take(Counter(0, 0, 4), (4,)), later)


def test_a_prepared_mask_waits_while_another_split_has_its_turn() -> None:
    ring = Ring.fitting(32, 8.0, 2)
    masks, due = (Masks("a", {"b": bytes(32)}, ring) for _ in range(2))
    masks.prepare(Counter(0, 1, 0), (4,))
    masks.take(Counter(1, 0, 0), (4,))
    assert torch.equal(masks.take(Counter(0, 1, 0), (4,)), due.take(Counter(0, 1, 0), (4,)))


def test_a_mask_stays_as_it_was_taken() -> None:
    masks = everyone(names_of(4), Ring.fitting(32, 8.0, 4))[2]
    taken = [masks.take(Counter(0, 0, step), (8, 8)) for step in range(5)]
    copies = [mask.clone() for mask in taken]
    masks.take(Counter(0, 0, 9), (64, 64))
    assert all(torch.equal(mask, copy) for mask, copy in zip(taken, copies, strict=True))
    assert len({mask.data_ptr() for mask in taken}) == 5


def test_nobody_masks_with_itself_nor_with_a_key_of_another_length() -> None:
    ring = Ring.fitting(32, 8.0, 2)
    with pytest.raises(RoleError, match="with itself"):
        Masks("a", {"a": bytes(32)}, ring)
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence is the library's
        Masks("a", {"b": bytes(16)}, ring)
