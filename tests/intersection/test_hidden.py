"""Values are shuffled, sorted and compared as the protocols need it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.intersection.hidden import (
    Sorted,
    are_in,
    as_tensor,
    as_values,
    common_values,
    fingerprints,
    is_ascending,
    pick,
    secret_order,
)
from vfl.intersection.ring import Ring, pieces_ahead

# Zeros at the end, and high bytes: what a string type might read over or sort as negative.
values_of = st.lists(
    st.one_of(
        st.binary(min_size=16, max_size=16), st.binary(max_size=3).map(lambda raw: raw.ljust(16, b"\0"))
    ),
    unique=True,
    max_size=30,
)


def valued(raws: list[bytes]) -> np.ndarray:
    return as_values(np.frombuffer(b"".join(raws), dtype=np.uint8).reshape(-1, 16))


@given(values_of)
def test_values_sort_as_bytes_and_come_back_as_they_were(raws: list[bytes]) -> None:
    values = valued(raws)
    assert as_tensor(values).numpy().tobytes() == b"".join(raws)
    ordered = np.sort(values)
    assert as_tensor(ordered).numpy().tobytes() == b"".join(sorted(raws))
    assert is_ascending(ordered)


@given(st.lists(values_of, min_size=2, max_size=4))
def test_common_values_are_pythons_intersection(sets: list[list[bytes]]) -> None:
    sorted_sets = [np.sort(valued(raws)) for raws in sets]
    shared = common_values(sorted_sets)
    want = sorted(set.intersection(*(set(raws) for raws in sets)))
    assert as_tensor(shared).numpy().tobytes() == b"".join(want)
    for values, raws in zip(sorted_sets, sets, strict=True):
        assert are_in(values, shared).tolist() == [raw in want for raw in sorted(raws)]


def test_only_the_first_16_bytes_of_a_row_count() -> None:
    rows = np.arange(96, dtype=np.uint8).reshape(3, 32)
    assert as_tensor(as_values(rows)).numpy().tolist() == rows[:, :16].tolist()
    assert len(as_values(rows[:0])) == 0


@pytest.mark.parametrize(
    ("raws", "ascends"),
    [([], True), ([b"a"], True), ([b"a", b"b"], True), ([b"a", b"a"], False), ([b"b", b"a"], False)],
)
def test_ascending_means_that_none_is_there_twice(raws: list[bytes], ascends: bool) -> None:
    assert is_ascending(np.array(raws, dtype="S16")) is ascends


def test_an_order_is_a_permutation_and_another_each_time() -> None:
    first, second = secret_order(50), secret_order(50)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
    assert secret_order(0).tolist() == []


@given(values_of)
def test_sorted_values_know_where_they_were(raws: list[bytes]) -> None:
    values = valued(raws)
    whole = Sorted(values)
    assert not whole.repeats
    assert is_ascending(whole.values)
    assert (values[whole.order] == whole.values).all()
    assert Sorted(np.concatenate([values, values])).repeats is bool(raws)


def test_ids_are_picked_from_lists_and_arrays_alike() -> None:
    rows = np.array([2, 0])
    names = ["a", "b", "c"]
    for ids in (names, np.array(names, dtype=object), np.array(names, dtype=np.dtypes.StringDType())):
        picked = pick(ids, rows)
        assert picked == ["c", "a"]
        assert {type(one) for one in picked} == {str}


def test_fingerprints_tell_points_apart() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (100, 32), dtype=np.uint8)
    rows[7] = rows[93]
    prints = fingerprints(rows)
    assert len(set(prints.tolist())) == 99
    assert prints[7] == prints[93]


def ring_of(k: int, me: int = 0, hub: int = 1) -> Ring:
    roster = tuple(f"p{at}" for at in range(k))
    return Ring(f"p{me}", f"p{hub}", roster, dict.fromkeys(roster, 9), bytes(32))


@pytest.mark.parametrize("k", [2, 3, 16])
def test_everybody_keeps_the_set_of_the_next_one(k: int) -> None:
    ring = ring_of(k)
    assert [ring.keeper(ring.after(name)) for name in ring.roster] == list(ring.roster)
    assert {ring.keeper(name) for name in ring.roster} == set(ring.roster)


@pytest.mark.parametrize("k", range(2, 17))
def test_so_many_pieces_ahead_that_all_sets_together_stay_within_32(k: int) -> None:
    assert 2 <= pieces_ahead(k) <= 3
    assert k * pieces_ahead(k) <= 32
