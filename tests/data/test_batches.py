from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfl.data.batches import EVALUATION_ROWS, Batch, Rows, cuts
from vfl.data.preparation import Features
from vfl.data.rows import mark, mark_key


def make(n: int = 20, *, size: int = 6, seed: int = 0, codes: bool = False, **parts: Any) -> Rows:  # noqa: ANN401
    """Makes rows whose only column and whose label are the row's own number."""
    number = torch.arange(n)
    features = Features(number[:, None].float(), number[:, None] if codes else None)
    settings: dict[str, Any] = {"features": features, "y": number, "batch_size": size, "seed": seed}
    splits = parts.pop("splits", {"train": np.arange(n)})
    return Rows(np.arange(n, dtype=np.uint64) * 7, splits, **(settings | parts))


def numbers(batches: list[Batch]) -> list[int]:
    return [int(number) for batch in batches for number in batch.inputs[0][:, 0]]


@given(n=st.integers(0, 60), size=st.integers(1, 70), epoch=st.integers(1, 5))
def test_every_row_is_dealt_once_an_epoch(n: int, size: int, epoch: int) -> None:
    batches = list(make(n, size=size).batches("train", epoch))
    assert sorted(numbers(batches)) == list(range(n))
    assert [batch.step for batch in batches] == list(range(len(batches)))
    assert all(batch.rows == len(batch.inputs[0]) <= size + 1 for batch in batches)


@given(n=st.integers(0, 60), size=st.integers(1, 70))
def test_the_steps_are_counted_as_they_are_dealt(n: int, size: int) -> None:
    rows = make(n, size=size)
    assert rows.steps("train") == len(list(rows.batches("train", 1)))
    assert rows.count("train") == n


@given(n=st.integers(2, 60), size=st.integers(2, 70))
def test_no_row_stands_alone_unless_it_is_the_only_one(n: int, size: int) -> None:
    assert all(batch.rows > 1 for batch in make(n, size=size).batches("train", 1))


@given(n=st.integers(0, 60), size=st.integers(1, 70))
def test_cuts_are_the_batches_that_are_dealt(n: int, size: int) -> None:
    dealt = [batch.rows for batch in make(n, size=size).batches("train", 1)]
    assert [stop - start for start, stop in cuts(n, size)] == dealt


def test_where_batches_are_to_have_one_row_each_has_one() -> None:
    assert [batch.rows for batch in make(5, size=1).batches("train", 1)] == [1] * 5


def test_a_single_row_is_a_batch() -> None:
    assert [batch.rows for batch in make(1).batches("train", 1)] == [1]


def test_two_parties_are_dealt_the_same_rows_in_the_same_order() -> None:
    one, other = make(codes=True), make(y=None)
    for mine, theirs in zip(one.batches("train", 3), other.batches("train", 3), strict=True):
        assert (mine.step, mine.rows, mine.mark) == (theirs.step, theirs.rows, theirs.mark)
        assert torch.equal(mine.inputs[0], theirs.inputs[0])


def test_every_epoch_has_its_own_order_and_every_seed_its_own() -> None:
    rows = make(50)
    orders = [numbers(list(dealt)) for dealt in (rows.batches("train", 1), rows.batches("train", 2))]
    orders.append(numbers(list(make(50, seed=1).batches("train", 1))))
    assert len({tuple(order) for order in orders}) == 3
    assert numbers(list(rows.batches("train", 1))) == orders[0]


def test_without_an_epoch_rows_come_in_the_common_order() -> None:
    rows = make(splits={"train": np.arange(5), "valid": np.array([9, 6, 7])})
    assert numbers(list(rows.batches("valid"))) == [9, 6, 7]


def test_a_mark_is_that_of_the_rows_in_their_order() -> None:
    rows = make(splits={"train": np.array([3, 1, 2])}, size=3)
    (batch,) = rows.batches("train")
    key = mark_key(np.arange(20, dtype=np.uint64) * 7)
    assert batch.mark == mark(np.array([21, 7, 14], dtype=np.uint64), key)
    assert batch.mark != mark(np.array([7, 14, 21], dtype=np.uint64), key)


def test_a_mark_cannot_be_told_by_who_does_not_know_all_rows() -> None:
    (batch,) = make(splits={"train": np.array([3])}, size=3).batches("train")
    (other,) = make(11, splits={"train": np.array([3])}, size=3).batches("train")
    assert batch.mark != other.mark


def test_a_batch_carries_what_the_party_has() -> None:
    (whole,) = make(4, codes=True).batches("train")
    assert [tensor.dtype for tensor in whole.inputs] == [torch.float32, torch.int64]
    assert whole.y is not None
    assert torch.equal(whole.y, whole.inputs[1][:, 0])
    (labels,) = make(4, features=None).batches("train")
    assert labels.inputs == ()
    (features,) = make(4, y=None).batches("train")
    assert features.y is None


def test_a_batch_is_a_copy_of_the_table() -> None:
    rows = make(4)
    (batch,) = rows.batches("train")
    batch.inputs[0].zero_()
    assert numbers(list(rows.batches("train"))) == [0, 1, 2, 3]


@pytest.mark.parametrize(("size", "most"), [(6, EVALUATION_ROWS), (EVALUATION_ROWS + 5, EVALUATION_ROWS + 5)])
def test_where_nothing_is_learned_batches_are_large(size: int, most: int) -> None:
    rows = make(2 * most, size=size, splits={"test": np.arange(2 * most)})
    assert [batch.rows for batch in rows.batches("test")] == [most, most]


def test_the_truth_is_in_the_order_of_the_batches() -> None:
    rows = make(splits={"test": np.array([5, 3, 8])})
    assert rows.truth("test").tolist() == [5, 3, 8]


def test_a_part_that_is_not_there_has_no_rows() -> None:
    rows = make(splits={"train": np.arange(20), "valid": np.empty(0, dtype=np.int64)})
    for part in ("valid", "test"):
        assert (rows.count(part), rows.steps(part), list(rows.batches(part))) == (0, 0, [])
        assert rows.truth(part).tolist() == []
