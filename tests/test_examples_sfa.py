"""The study of secure forward aggregation runs, and shows what its page states."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent.parent / "examples" / "sfa"
MODULES = ("tables", "layers", "training", "leakage", "findings", "pictures", "study")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The whole study on small built-in tables, once: its folder and what it printed."""
    out = tmp_path_factory.mktemp("study")
    command = [sys.executable, str(FOLDER / "study.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done.stdout


@pytest.fixture
def modules() -> Iterator[dict[str, ModuleType]]:
    """The study's own modules, which are importable in this test only."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


def records(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "numbers.json").read_text())["records"]
    return found


def r2(record: dict[str, Any], what: str) -> float:
    return max(one["r2"] for one in record["attacks"] if one["of"] == what)


@pytest.mark.timeout(600)
def test_one_command_leaves_numbers_tables_and_two_figures(quick: tuple[Path, str]) -> None:
    out, printed = quick
    for name in ("accuracy.png", "reconstruction.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG\r\n")
        assert (out / name).stat().st_size > 20_000
    for words in ("## breast cancer", "## digits", "sfa: its own masked message", "| 3 | 3 |"):
        assert words in printed
    assert "nan" not in printed
    swept = {(one["data"], one["variant"], one.get("k"), one.get("depth")) for one in records(out)}
    for data in ("breast_cancer", "digits"):
        assert {(data, "alone", 2, None), (data, "alone", 3, None), (data, "centralised", None, None)} < swept
        cuts = {
            (data, variant, k, depth)
            for variant in ("concat", "sum", "sfa")
            for k in (2, 3)
            for depth in (1, 3)
        }
        assert cuts < swept


@pytest.mark.timeout(600)
def test_unmasked_first_layers_are_read_and_masked_ones_are_not(quick: tuple[Path, str]) -> None:
    out, _ = quick
    for one in records(out):
        if one["variant"] == "sfa":
            # The chance level with 20 and 50 known rows, the better of up to four tries.
            assert -0.3 < r2(one, "own") < 0.05, one
        elif one.get("depth") == 1 and one["data"] == "breast_cancer":
            # 30 columns: at most 15 of them through 15 or more units.
            assert r2(one, "own") > 0.95, one
        elif "depth" in one:
            assert r2(one, "own") > 0.25, one


@pytest.mark.timeout(600)
def test_under_masks_the_first_layer_reaches_what_one_owner_of_all_columns_does(
    quick: tuple[Path, str],
) -> None:
    out, _ = quick
    whole = {one["data"]: one["score"] for one in records(out) if one["variant"] == "centralised"}
    first = [
        one
        for one in records(out)
        if one["variant"] in ("sum", "sfa") and one.get("depth") == 1 and "width" not in one
    ]
    assert len(first) == 8
    for one in first:
        assert one["score"] == pytest.approx(whole[one["data"]], abs=0.02), one


def test_a_table_that_is_not_at_hand_is_stood_in_for_aloud(
    modules: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VFL_DATA", str(tmp_path))
    monkeypatch.setattr(modules["tables"], "where", lambda *_: None)
    assert modules["tables"].at_hand("credit") == "breast_cancer"
    assert modules["tables"].at_hand("mnist") == "digits"
    told = capsys.readouterr().err
    assert told.count("ATTENTION") == 2
    assert "breast_cancer stands in for it" in told
    assert modules["tables"].at_hand("digits") == "digits"
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("data", "k"), [("breast_cancer", 2), ("digits", 3), ("digits", 5)])
def test_every_column_is_dealt_to_one_party_in_contiguous_blocks(
    modules: dict[str, ModuleType], data: str, k: int
) -> None:
    table = modules["tables"].load_table(data, 0, modules["tables"].SETTINGS[data])
    dealt = table.dealt(k)
    assert np.concatenate(dealt).tolist() == list(range(table.x.shape[1]))
    assert len(dealt) == k
    if data == "digits":
        assert all(len(places) % 8 == 0 for places in dealt)
    splits = [set(rows.tolist()) for rows in table.splits.values()]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(table.y)


def test_another_seed_draws_other_rows_and_the_same_seed_the_same(modules: dict[str, ModuleType]) -> None:
    load, settings = modules["tables"].load_table, modules["tables"].SETTINGS["digits"]
    assert torch.equal(load("digits", 1, settings).x, load("digits", 1, settings).x)
    assert not torch.equal(load("digits", 1, settings).y, load("digits", 2, settings).y)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_sum_at_the_first_layer_is_the_centralised_network(modules: dict[str, ModuleType], k: int) -> None:
    build = modules["layers"].build
    inputs = [7, 4, 5, 3, 6][:k]
    apart = build(inputs, 30, 3, 1, summed=True, seed=1)
    whole = build([sum(inputs)], 30, 3, 1, summed=True, seed=1)
    x = torch.randn(9, sum(inputs))
    parts = [bottom(part) for bottom, part in zip(apart.bottoms, x.split(inputs, dim=1), strict=True)]
    outputs = apart.head(apart.trunk(torch.stack(parts).sum(dim=0)))
    assert torch.allclose(outputs, whole.head(whole.trunk(whole.bottoms[0](x))), atol=1e-6)
    assert apart.width == 30


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("summed", [True, False])
def test_every_variant_has_four_layers_and_equal_width_in_all(
    modules: dict[str, ModuleType], depth: int, summed: bool
) -> None:
    networks = modules["layers"].build([7, 5, 4], 30, 2, depth, summed=summed, seed=0)
    for bottom in networks.bottoms:
        linears = [one for one in bottom if isinstance(one, torch.nn.Linear)]
        assert len(linears) == depth
        assert linears[-1].bias is None
        assert linears[-1].out_features == networks.width == (30 if summed else 10)
        assert all(one.out_features == 10 for one in linears[:-1])
    above = [one for one in networks.trunk.modules() if isinstance(one, torch.nn.Linear)]
    assert len(above) + depth + 1 == modules["layers"].LAYERS
    assert networks.head(networks.trunk(torch.zeros(2, 30))).shape == (2, 2)


def test_what_the_aggregator_sums_is_what_the_parties_contribute(modules: dict[str, ModuleType]) -> None:
    tables, training = modules["tables"], modules["training"]
    settings = dataclasses.replace(tables.SETTINGS["breast_cancer"], epochs=1)
    table = tables.load_table("breast_cancer", 0, settings)
    plain, masked = (training.train(table, variant, 1, 3, 0) for variant in ("sum", "sfa"))
    assert plain.own.dtype == np.float32
    assert masked.own.dtype == np.int32
    assert np.allclose(plain.total - plain.others, plain.own, atol=1e-5)
    # The same weights but for the rounding to fixed point, over one epoch.
    assert np.allclose(plain.total, masked.total, atol=1e-3)
    top = masked.own.astype(np.float64).std() / 2**31
    assert top == pytest.approx(1 / math.sqrt(3), rel=0.03)  # as spread as uniform bits are


def test_the_real_tables_have_the_shape_that_the_page_states(modules: dict[str, ModuleType]) -> None:
    if not Path(os.environ.get("VFL_DATA") or "nowhere").is_dir():
        pytest.skip("VFL_DATA names no folder with the public data sets")
    tables = modules["tables"]
    for name, p, alone in (("credit", 23, [12, 8, 5]), ("mnist", 784, [392, 280, 168])):
        table = tables.load_table(name, 0, tables.SETTINGS[name])
        assert table.x.shape == (sum(tables.SETTINGS[name].rows), p)
        assert [len(table.dealt(k)[0]) for k in (2, 3, 5)] == alone
        assert bool(torch.isfinite(table.x).all())
