from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vfl.config.prepare import ColumnRules
from vfl.data import gather
from vfl.data.labels import encode_labels, fit_labels
from vfl.data.table import Table, open_table
from vfl.errors import DataError, StorageError

N = 500
RULES = ColumnRules(missing="mean", encode="embedding")


def write(folder: Path, order: np.ndarray | None = None) -> Table:
    """Writes people with two numbers, a town and a class, in some order."""
    random = np.random.default_rng(1)
    x = random.normal(size=(N, 2)) * [1, 1000] + [0, 5]
    towns = random.choice(["here", "there", "elsewhere"], N)
    lines = [f"p{i},{x[i, 0]},{x[i, 1]},{towns[i]},{i % 3}" for i in (range(N) if order is None else order)]
    (folder / "t.csv").write_text("\n".join(["id,a,b,town,kind", *lines]) + "\n")
    return open_table("t.csv", folder=folder, columns=["a", "b"], categorical=["town"], label="kind")


def shared_of(table: Table, wanted: list[str]) -> gather.Shared:
    ids = table.read_ids()
    number = {name: place for place, name in enumerate(ids.tolist())}
    places = np.array([number[name] for name in wanted])
    return gather.Shared(table, ids[places], places, np.arange(len(wanted), dtype=np.uint64), len(ids))


@pytest.fixture
def wanted() -> list[str]:
    return [f"p{number}" for number in np.random.default_rng(2).permutation(N)[:300]]


def test_rows_come_in_the_order_asked_for(tmp_path: Path, wanted: list[str]) -> None:
    table = write(tmp_path)
    assert gather.read_rows(shared_of(table, wanted), np.arange(300)).ids.tolist() == wanted


def test_the_files_order_leaves_no_trace(tmp_path: Path, wanted: list[str]) -> None:
    train = np.arange(0, 300, 2)
    found = []
    for order in (np.arange(N), np.random.default_rng(3).permutation(N)):
        table = write(tmp_path, order)
        shared = shared_of(table, wanted)
        preparation = gather.fit(shared, train, lambda name: RULES)
        found.append((preparation.to_json(), gather.prepare(shared, preparation, None)))
    (one, mine), (other, theirs) = found
    assert one == other
    assert torch.equal(mine.x, theirs.x)
    assert mine.codes is not None
    assert theirs.codes is not None
    assert torch.equal(mine.codes, theirs.codes)


def test_only_training_rows_are_fitted_on(tmp_path: Path, wanted: list[str]) -> None:
    table = write(tmp_path)
    shared = shared_of(table, wanted)
    train = np.arange(0, 300, 3)
    before = gather.fit(shared, train, lambda name: RULES).to_json()
    kept = {wanted[row] for row in train}
    lines = (tmp_path / "t.csv").read_text().splitlines()
    spoilt = [
        line if line.split(",")[0] in kept | {"id"} else f"{line.split(',')[0]},9e9,9e9,x,0" for line in lines
    ]
    (tmp_path / "t.csv").write_text("\n".join(spoilt) + "\n")
    assert gather.fit(shared, train, lambda name: RULES).to_json() == before


def test_features_in_a_scratch_file_are_those_in_memory_and_leave_no_file(
    tmp_path: Path, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path)
    shared = shared_of(table, wanted)
    preparation = gather.fit(shared, np.arange(200), lambda name: RULES)
    expected = gather.prepare(shared, preparation, None)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(gather, "IN_MEMORY_BYTES", 100)
    found = gather.prepare(shared, preparation, scratch)
    assert list(scratch.iterdir()) == []
    assert torch.equal(found.x, expected.x)
    assert found.codes is not None
    assert expected.codes is not None
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.x[torch.tensor([7, 3])], expected.x[torch.tensor([7, 3])])


def test_no_room_for_the_scratch_file_is_said(
    tmp_path: Path, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path)
    shared = shared_of(table, wanted)
    preparation = gather.fit(shared, np.arange(200), lambda name: RULES)
    monkeypatch.setattr(gather, "IN_MEMORY_BYTES", 100)
    with pytest.raises(StorageError, match=r"cannot be kept there .* choose another folder with --out"):
        gather.prepare(shared, preparation, tmp_path / "nowhere")


def test_more_training_rows_than_are_looked_at_are_a_sample(
    tmp_path: Path, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path)
    shared = shared_of(table, wanted)
    monkeypatch.setattr(gather, "FIT_ROWS", 50)
    monkeypatch.setattr(gather, "FIT_VALUES", 60)
    sampled = gather.fit(shared, np.arange(300), lambda name: RULES)
    assert sampled.to_json() == gather.fit(shared, np.arange(50), lambda name: RULES).to_json()


def test_labels_follow_their_rows(tmp_path: Path, wanted: list[str]) -> None:
    table = write(tmp_path, np.random.default_rng(5).permutation(N))
    column = gather.read_labels(shared_of(table, wanted), task="multiclass")
    code = fit_labels(column, np.arange(300), task="multiclass", classes=3)
    assert encode_labels(column, code).tolist() == [int(name[1:]) % 3 for name in wanted]


def test_a_fault_in_a_row_names_it(tmp_path: Path, wanted: list[str]) -> None:
    table = write(tmp_path)
    text = (tmp_path / "t.csv").read_text().replace(f"\n{wanted[4]},", f"\n{wanted[4]},inf,1,here,2\nq,", 1)
    (tmp_path / "t.csv").write_text(text)
    shared = shared_of(table, wanted)
    with pytest.raises(DataError, match=f"column 'a' at id '{wanted[4]}'"):
        gather.read_rows(shared, np.arange(300))


def test_a_table_that_loses_rows_while_it_is_read_is_refused(tmp_path: Path, wanted: list[str]) -> None:
    shared = shared_of(write(tmp_path), wanted)
    preparation = gather.fit(shared, np.arange(300), lambda name: RULES)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join(lines[:200]) + "\n")
    for read in (
        lambda: gather.prepare(shared, preparation, None),
        lambda: gather.fit(shared, np.arange(300), lambda name: RULES),
        lambda: gather.read_labels(shared, task="multiclass"),
    ):
        with pytest.raises(DataError, match="it has changed while it was read"):
            read()


def test_categories_are_counted_in_all_training_rows(
    tmp_path: Path, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = shared_of(write(tmp_path), wanted)
    whole = gather.fit(shared, np.arange(300), lambda name: RULES).to_json()
    monkeypatch.setattr(gather, "FIT_ROWS", 1)
    monkeypatch.setattr(gather, "FIT_VALUES", 3)
    sampled = gather.fit(shared, np.arange(300), lambda name: RULES).to_json()
    assert sampled != whole
    assert sampled["categories"] == whole["categories"]


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path: Path, wanted: list[str]) -> None:
    shared = shared_of(write(tmp_path), wanted)
    write(tmp_path, np.arange(N)[::-1])
    with pytest.raises(DataError, match="it has changed while it was read"):
        gather.read_rows(shared, np.arange(300))
