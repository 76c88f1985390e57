from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vfl.errors import StorageError
from vfl.learn.checkpoint import (
    checkpoint_path,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from vfl.learn.learner import Learner
from vfl.learn.optimise import build_optimizer, build_schedule
from vfl.learn.presets import MLP
from vfl.rng import RngStream

X = torch.arange(60.0).reshape(20, 3).sin()
Y = X.sum(dim=1, keepdim=True)

SETUPS: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"name": "Adam", "lr": 0.01}, None),
    (
        {"name": "Adam", "amsgrad": True, "foreach": True},
        {"name": "CosineAnnealingLR", "T_max": 5, "every": "step"},
    ),
    ({"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True}, {"name": "StepLR", "step_size": 1}),
    (
        {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        {"name": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "every": "step"},
    ),
    ({"name": "AdamW"}, {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 50, "every": "step"}),
    ({"name": "RMSprop"}, {"name": "MultiStepLR", "milestones": [1, 1, 2]}),
    ({"name": "Adagrad"}, {"name": "CosineAnnealingWarmRestarts", "T_0": 2}),
    ({"name": "NAdam"}, {"name": "LinearLR"}),
    ({"name": "Rprop"}, {"name": "PolynomialLR"}),
    ({"name": "ASGD"}, {"name": "ConstantLR"}),
    ({"name": "Adafactor"}, {"name": "ExponentialLR", "gamma": 0.9}),
]


class Party:
    """All that one party goes on from: a learner with dropout, and its random stream."""

    def __init__(self, optimizer: dict[str, Any], schedule: dict[str, Any] | None, seed: int) -> None:
        self.stream = RngStream(seed)
        with self.stream:
            network = MLP(3, 1, hidden=[5], dropout=0.3, batch_norm=True)
        made = build_optimizer(network.parameters(), optimizer, "test")
        self.learner = Learner(network, made, *build_schedule(made, schedule, "test"), clip_norm=1.0)

    def train(self, steps: int) -> list[float]:
        losses = []
        for step in range(steps):
            with self.stream:
                rows = torch.randperm(20)[:8]
                loss = (self.learner(X[rows]) - Y[rows]).square().mean()
                loss.backward()
                self.learner.step()
                losses.append(loss.item())
                if step % 2:
                    self.learner.end_epoch()
        return losses

    def state(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict(), "rng": self.stream.state_dict()}

    def save(self, folder: Path) -> None:
        tensors, packed = pack_state(self.state())
        save_checkpoint(folder, {"party": tensors}, {"packed": packed})

    def load(self, folder: Path) -> None:
        found = load_checkpoint(folder)
        state = unpack_state(found.tensors["party"], found.state["packed"])
        self.learner.load_state_dict(state["learner"])
        self.stream.load_state_dict(state["rng"])


def same(one: object, other: object) -> bool:
    """Compares nested state exactly, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


@pytest.mark.parametrize(("optimizer", "schedule"), SETUPS)
def test_going_on_from_a_checkpoint_equals_never_having_stopped(
    optimizer: dict[str, Any], schedule: dict[str, Any] | None, tmp_path: Path
) -> None:
    unstopped, stopped, resumed = (Party(optimizer, schedule, seed) for seed in (1, 1, 2))
    expected = unstopped.train(4) + unstopped.train(4)
    seen = stopped.train(4)
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    assert seen + resumed.train(4) == expected
    assert same(resumed.state(), unstopped.state())


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.builds(lambda n: torch.arange(n, dtype=torch.float64), st.integers(0, 3)),
)
keys = st.one_of(st.text(max_size=3), st.integers(), st.sampled_from(["$tensor", "$dict", "a/b", "", "$"]))
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.integers(), st.integers(), max_size=3).map(Counter),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(keys, nested, max_size=4))
def test_any_nested_state_comes_back_exactly(state: dict[Any, Any]) -> None:
    tensors, packed = pack_state(state)
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
    assert same(unpack_state(tensors, json.loads(json.dumps(packed))), state)


def test_paths_that_look_alike_keep_their_tensors_apart() -> None:
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "/a": {"b": torch.full((1,), 2.0)}}
    tensors, packed = pack_state(state)
    assert len(tensors) == 3
    assert same(unpack_state(tensors, packed), state)


def test_state_that_json_cannot_say_is_refused_with_its_path() -> None:
    with pytest.raises(StorageError, match="optimizer/0/hook is set, which a checkpoint cannot hold"):
        pack_state({"optimizer": [{"hook": {1, 2}}]})


@pytest.mark.parametrize(
    "packed", [{"$tensor": "x"}, {"$odd": 1}, {"$dict": 3}, {"$dict": [[1]]}, {"a": {"$tuple": 3}}]
)
def test_a_packed_state_that_does_not_fit_is_one_line(packed: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match="start afresh"):
        unpack_state({}, packed)


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_and_shape_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    group = {
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3).to(dtype),
        "view": torch.arange(6).reshape(2, 3).to(dtype).T,
        "": torch.ones(2).to(dtype),
    }
    save_checkpoint(tmp_path, {"g": group}, {})
    assert same(load_checkpoint(tmp_path).tensors, {"g": group})


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    save_checkpoint(tmp_path, {"a": {"x": whole, "y": whole}, "b": {"x": whole[1:]}}, {})
    found = load_checkpoint(tmp_path).tensors
    assert found["b"]["x"].tolist() == [1, 2, 3]
    found["a"]["x"].zero_()
    assert found["a"]["y"].tolist() == [0, 1, 2, 3]


def test_groups_without_tensors_and_the_json_come_back(tmp_path: Path) -> None:
    state = {"epoch": 3, "best": 0.1 + 0.2, "history": [{"loss": None}], "näme": "ü", "nan": float("nan")}
    save_checkpoint(tmp_path / "new" / "folder", {"none": {}, "one": {"w/x": torch.ones(1)}}, state)
    found = load_checkpoint(tmp_path / "new" / "folder")
    assert same(found.tensors, {"none": {}, "one": {"w/x": torch.ones(1)}})
    assert same(found.state, state)


def test_checkpoints_of_several_names_share_a_folder(tmp_path: Path) -> None:
    for name in ("last", "best"):
        save_checkpoint(tmp_path, {}, {"name": name}, name)
    assert [load_checkpoint(tmp_path, name).state["name"] for name in ("last", "best")] == ["last", "best"]


def test_a_checkpoint_leaves_one_file(tmp_path: Path) -> None:
    for step in range(3):
        assert save_checkpoint(tmp_path, {"g": {"x": torch.ones(1)}}, {"step": step}) == checkpoint_path(
            tmp_path
        )
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path)]
    assert load_checkpoint(tmp_path).state == {"step": 2}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"g": {"x": torch.ones(1)}}, {"step": 1})
    (tmp_path / "checkpoint.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(
        StorageError, match=r"checkpoint\.safetensors cannot be written \(No space left"
    ) as caught:
        save_checkpoint(tmp_path, {"g": {"x": torch.zeros(1)}}, {"step": 2})
    assert "\n" not in str(caught.value)
    assert load_checkpoint(tmp_path).state == {"step": 1}
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path)]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_at_any_moment_leaves_the_previous_checkpoint_whole(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"g": {"x": torch.ones(1)}}, {"step": 1})

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, moment, crash)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, {"g": {"x": torch.zeros(1)}}, {"step": 2})
    assert load_checkpoint(tmp_path).state == {"step": 1}
    save_checkpoint(tmp_path, {"g": {"x": torch.zeros(1)}}, {"step": 3})
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path)]  # what the crash left is gone


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        save_checkpoint(tmp_path / "taken", {}, {})
    with pytest.raises(StorageError, match="cannot be read"):
        load_checkpoint(tmp_path / "taken")


@pytest.mark.parametrize(
    ("tensors", "state"),
    [
        ({}, {"x": np.int64(3)}),
        ({}, {"x": {1, 2}}),
        ({"a/b": {}}, {}),
        ({"a": {"x": torch.ones(2).to_sparse()}}, {}),
    ],
)
def test_what_cannot_be_stored_is_refused_before_a_file_is_touched(
    tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="the state cannot be stored") as caught:
        save_checkpoint(tmp_path, tensors, state)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors is missing: name the folder of a run"):
        load_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    group = {"w": torch.arange(8.0), "b": torch.ones(2, dtype=torch.int64)}
    return save_checkpoint(folder, {"g": group}, {"step": 7})


def damage_is_noticed(saved: Path, change: Callable[[bytes], bytes]) -> None:
    whole = saved.read_bytes()
    folder = saved.parent / "damaged"
    folder.mkdir(exist_ok=True)
    checkpoint_path(folder).write_bytes(change(whole))
    original = load_checkpoint(saved.parent)
    try:
        found = load_checkpoint(folder)
    except StorageError as error:
        said = str(error)
    else:  # the same bytes, or a padding that nothing reads
        assert same(found.tensors, original.tensors)
        assert same(found.state, original.state)
        return
    assert "is damaged" in said
    assert "\n" not in said


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_anywhere_is_noticed(saved: Path, data: st.DataObject) -> None:
    size = saved.stat().st_size
    place, value = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 255))
    damage_is_noticed(saved, lambda whole: whole[:place] + bytes([value]) + whole[place + 1 :])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_cut_or_padded_file_is_noticed(saved: Path, data: st.DataObject) -> None:
    cut, more = data.draw(st.integers(0, saved.stat().st_size)), data.draw(st.binary(max_size=9))
    damage_is_noticed(saved, lambda whole: whole[:cut] + more)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_storage_error_and_nothing_else(saved: Path, content: bytes) -> None:
    folder = saved.parent / "garbage"
    folder.mkdir(exist_ok=True)
    checkpoint_path(folder).write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        load_checkpoint(folder)


def test_another_format_is_refused_by_name(saved: Path) -> None:
    damaged = saved.read_bytes().replace(b"vfl-checkpoint-1", b"vfl-checkpoint-9")
    folder = saved.parent / "future"
    folder.mkdir()
    checkpoint_path(folder).write_bytes(damaged)
    with pytest.raises(StorageError, match="its format is 'vfl-checkpoint-9'"):
        load_checkpoint(folder)
