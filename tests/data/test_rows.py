from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.data import rows
from vfl.errors import ConfigError

KEY = rows.derive_key(7, "test")
GOLDEN = {
    "key": "616927e5478046160e87a5e1e669c56cff3e16b845fde1818fe5517983e2132f",
    "digests": [8053948380389649882, 5361429306795209036, 5030281053923403571],
    "rows_digest": "faab9e6b1d1ae15458fd76460b098b67",
    "mark": 6192704211474804122,
    "epoch_order": [0, 3, 5, 2, 7, 6, 4, 1],
    "test": [9, 10],
}
IDS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), unique=True, max_size=40)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("007", "007"),
        ("  a b\t", "a b"),
        ("e\u0301", "\u00e9"),  # e with a combining accent is the composed é
        (7, "7"),
        (7.0, "7"),
        (-3, "-3"),
        (2**70, str(2**70)),
        (7.5, None),
        (2.0**60, None),
        (float("inf"), None),
        (True, None),
        (b"x", None),
        (None, ""),
        (float("nan"), ""),
        ("   ", ""),
    ],
)
def test_an_id_is_text_or_a_whole_number(value: object, written: str | None) -> None:
    assert rows.canonical_id(value) == written


def test_keys_for_distinct_purposes_and_seeds_differ() -> None:
    keys = {
        rows.derive_key(seed, purpose) for seed in (-1, 0, 1, 11) for purpose in ("", "1", "split", "order")
    }
    assert len(keys) == 16
    assert all(len(key) == 32 for key in keys)


def test_the_hashes_are_the_same_in_every_release() -> None:
    # Written down once: parties with different releases must agree on all of these.
    key = rows.derive_key(0, "order")
    drawn = rows.digests(["a", "b", "ü"], key)
    assert key.hex() == GOLDEN["key"]
    assert drawn.tolist() == GOLDEN["digests"]
    assert rows.rows_digest(drawn, key) == GOLDEN["rows_digest"]
    assert rows.mark(drawn, rows.mark_key(drawn)) == GOLDEN["mark"]
    assert rows.epoch_order(8, seed=0, epoch=1).tolist() == GOLDEN["epoch_order"]
    parts = rows.split_rows([str(row) for row in range(12)], {"valid": 0.25, "test": 0.25}, key)
    assert parts["test"].tolist() == GOLDEN["test"]


@given(IDS, st.randoms())
def test_parties_agree_on_the_order_whatever_their_own(ids: list[str], shuffle: random.Random) -> None:
    other = ids.copy()
    shuffle.shuffle(other)
    one = [ids[row] for row in rows.common_order(ids, KEY)]
    assert one == [other[row] for row in rows.common_order(other, KEY)]
    assert sorted(one) == sorted(ids)


def test_ids_with_equal_hashes_are_ordered_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rows, "digests", lambda ids, key: np.array([len(one) for one in ids], dtype=np.uint64)
    )
    ids = ["bb", "d", "aa", "c"]
    assert [ids[row] for row in rows.common_order(ids, KEY)] == ["c", "d", "aa", "bb"]


def test_the_order_depends_on_the_key() -> None:
    ids = [str(row) for row in range(50)]
    assert rows.common_order(ids, KEY).tolist() != rows.common_order(ids, b"other").tolist()


@given(IDS, st.floats(0, 0.49), st.floats(0, 0.49))
def test_every_row_is_in_exactly_one_part(ids: list[str], valid: float, test: float) -> None:
    parts = rows.split_rows(ids, {"valid": valid, "test": test}, KEY)
    assert list(parts) == ["train", "valid", "test"]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(ids)))
    assert all(np.all(np.diff(part) > 0) for part in parts.values())


@given(IDS, st.integers(0, 40))
def test_a_rows_part_does_not_depend_on_the_other_rows(ids: list[str], kept: int) -> None:
    fractions = {"valid": 0.3, "test": 0.3}
    all_parts = rows.split_rows(ids, fractions, KEY)
    some = ids[:kept]
    for name, part in rows.split_rows(some, fractions, KEY).items():
        assert [some[row] for row in part] == [ids[row] for row in all_parts[name] if row < kept]


def test_parts_have_about_the_sizes_asked_for() -> None:
    ids = [str(row) for row in range(10_000)]
    parts = rows.split_rows(ids, {"valid": 0.2, "test": 0.1}, KEY)
    # The standard deviations are 40 and 30 rows.
    assert abs(len(parts["valid"]) - 2000) < 200
    assert abs(len(parts["test"]) - 1000) < 150


def test_without_fractions_every_row_trains() -> None:
    parts = rows.split_rows(["a", "b"], {}, KEY)
    assert {name: part.tolist() for name, part in parts.items()} == {"train": [0, 1], "valid": [], "test": []}


def test_the_split_is_independent_of_the_order_under_one_key() -> None:
    ids = [str(row) for row in range(2000)]
    place = np.argsort(rows.common_order(ids, KEY))
    test = rows.split_rows(ids, {"test": 0.5}, KEY)["test"]
    assert abs(place[test].mean() - 1000) < 100  # at the front it would be 500


@pytest.mark.parametrize(
    ("fractions", "complaint"),
    [
        ({"train": 0.5}, "there is no part 'train'"),
        ({"test": 1.0}, "test is 1.0"),
        ({"valid": -0.1}, "valid is -0.1"),
        ({"valid": float("nan")}, "valid is nan"),
        ({"valid": 0.5, "test": 0.5}, "leave some to train on"),
    ],
)
def test_a_split_that_cannot_be_is_an_error(fractions: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        rows.split_rows(["a"], fractions, KEY)


def test_the_rows_digest_tells_rows_order_and_session_apart() -> None:
    drawn = rows.digests(["a", "b", "c"], KEY)
    digest = rows.rows_digest(drawn, b"nonce")
    assert len(digest) == 32
    assert len({digest, rows.rows_digest(drawn[::-1], b"nonce"), rows.rows_digest(drawn, b"other")}) == 3
    assert rows.rows_digest(drawn[:2], b"nonce") != digest


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_a_batchs_mark_fits_into_63_bits_and_sees_the_order(drawn: list[int]) -> None:
    batch = np.array(drawn, dtype=np.uint64)
    assert 0 <= rows.mark(batch, KEY) < 2**63
    assert (rows.mark(batch, KEY) == rows.mark(batch[::-1], KEY)) == (drawn == drawn[::-1])


@given(st.integers(0, 200), st.integers(0, 2**63), st.integers(0, 100))
def test_an_epochs_order_is_a_shuffle_that_can_be_repeated(n: int, seed: int, epoch: int) -> None:
    order = rows.epoch_order(n, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, rows.epoch_order(n, seed, epoch))


def test_epochs_and_seeds_shuffle_differently_and_evenly() -> None:
    orders = {tuple(rows.epoch_order(30, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    first = [int(rows.epoch_order(4, 0, epoch)[0]) for epoch in range(4000)]
    # The standard deviation of each count is 27.
    assert all(abs(first.count(row) - 1000) < 150 for row in range(4))
