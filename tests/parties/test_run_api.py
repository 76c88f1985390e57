"""`run` and `predict` as a notebook calls them, and the kinds of job that there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_jobs import people, small_job, write_csv

from parties import Result, predict, run
from parties.assembly import assemble_folder
from parties.local import PartyFailed
from vfl.config.job import Job
from vfl.config.site import LabelEntry, Site, TableEntry
from vfl.errors import ConfigError, VflError
from vfl.learn.checkpoint import load_checkpoint

CUT = """
import torch

class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, embeddings):
        return torch.cat([self.weight * embeddings[0], *embeddings[1:]], dim=1)

class Net(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, size), torch.nn.Tanh(), torch.nn.Linear(size, 4))

    def forward(self, x):
        return self.layers(x)
"""


def rehearsed(folder: Path, overrides: Sequence[str] = ()) -> Result:
    return run(folder, in_process=True, out=folder.parent / "runs", overrides=overrides)


def test_a_notebook_runs_a_job_of_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    parties = {"bank": {"role": "feature", "width": 3}, "club": {"role": "label"}}
    job = Job.model_validate(
        {
            "name": "mine",
            "protocol": "splitnn",
            "task": "binary",
            "epochs": 2,
            "batch_size": 8,
            "parties": parties,
        }
    )
    sites = {
        "bank": Site(party="bank", table=TableEntry(source="bank.csv", columns=["*"])),
        "club": Site(party="club", table=TableEntry(source="club.csv"), label=LabelEntry(column="buys")),
    }
    events: list[dict[str, Any]] = []
    result = run(job, sites, in_process=True, sink=events.append)
    assert result.folder == Path("runs/mine")
    assert result.report.is_file()
    assert result.metrics["test"]["accuracy"] == result.summary["metrics"]["test"]["accuracy"]
    assert result.alone["kind"] == "majority class"
    assert len(result.predictions) == result.rows["test"]
    assert {row["phase"] for row in result.ledger["bank"]} == {"handshake", "train", "valid", "test"}
    assert {event["event"] for event in events} >= {"started", "step", "epoch", "phase"}

    prediction = predict(result.folder)
    assert len(prediction.ids) == 80
    assert prediction.metrics["auc"] > 0
    assert prediction.rows()[0].keys() == {"id", "prediction", "p_yes"}

    with pytest.raises(ConfigError, match="sites: club has none"):
        run(job, {"bank": sites["bank"]}, in_process=True)
    with pytest.raises(ConfigError, match=r"overrides: epochs=1: is for a job folder"):
        run(job, sites, overrides=["epochs=1"])
    with pytest.raises(ConfigError, match=r"sites: .* has its own; leave them out"):
        run(tmp_path, sites)


def test_every_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", epochs=1)
    assert [rehearsed(folder).folder.name for _ in range(3)] == ["small", "small-2", "small-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["small", "small-2", "small-3"]


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    one, two, other = (rehearsed(folder, overrides=[f"seed={seed}"]) for seed in (5, 5, 6))
    assert one.predictions == two.predictions
    assert one.predictions != other.predictions


def test_a_regression_over_parquet_tables(tmp_path: Path) -> None:
    folder = small_job(
        tmp_path / "job",
        task="regression",
        epochs=3,
        bank={"table": {"source": "bank.parquet"}},
        club={"label": {"column": "spent"}, "table": {"columns": ["visits"], "source": "spent.csv"}},
        shop={"table": {"columns": ["age"], "categorical": ["town"], "source": "age.csv"}},
    )
    table = people()
    pq.write_table(
        pa.table({name: table[name] for name in ("id", "income", "debt")}), folder / "bank.parquet"
    )
    write_csv(folder / "spent.csv", {name: table[name] for name in ("id", "spent", "visits")})
    write_csv(folder / "age.csv", {name: table[name] for name in ("id", "age", "town")})
    result = rehearsed(folder)
    assert result.metrics["test"].keys() == {"rmse", "mae", "r2"}
    assert result.alone["kind"] == "own features"
    spent = dict(zip(table["id"], table["spent"], strict=True))
    for row in result.predictions:
        assert float(row["truth"]) == pytest.approx(spent[row["id"]], rel=1e-5)
    again = {row["id"]: row for row in predict(result.folder).rows()}
    for row in result.predictions:
        assert again[row["id"]]["prediction"] == pytest.approx(float(row["prediction"]), rel=1e-4, abs=1e-6)


def test_three_classes_and_a_label_party_without_columns(tmp_path: Path) -> None:
    folder = small_job(
        tmp_path / "job",
        task="multiclass",
        classes=3,
        parties={"club": {"width": None}},
        shop={"table": {"categorical": None}},
        club={"table": {"columns": None, "source": "town.csv"}, "label": {"column": "town"}},
    )
    table = people()
    write_csv(folder / "town.csv", {name: table[name] for name in ("id", "town")})
    result = rehearsed(folder)
    assert "macro_f1" in result.metrics["test"]
    assert result.alone["kind"] == "majority class"
    assert result.predictions[0].keys() == {"id", "truth", "prediction", "p_elsewhere", "p_here", "p_there"}
    chances = [
        [float(row[f"p_{town}"]) for town in ("elsewhere", "here", "there")] for row in result.predictions
    ]
    np.testing.assert_allclose(np.sum(chances, axis=1), 1, rtol=1e-6)


def test_a_regression_without_columns_at_the_label_party_is_compared_with_the_mean(tmp_path: Path) -> None:
    folder = small_job(
        tmp_path / "job",
        task="regression",
        parties={"club": {"width": None}},
        club={"table": {"columns": None}, "label": {"column": "age"}},
    )
    result = rehearsed(folder)
    assert result.alone["kind"] == "mean"
    assert result.alone["test"]["r2"] < 0.1


def test_a_users_own_network_and_cut_are_trained_and_found_again(tmp_path: Path) -> None:
    folder = small_job(
        tmp_path / "job",
        bank={"bottom": {"module": "ours_here:Net", "args": {"size": 3}}},
        protocols={"splitnn": {"cut": "ours_here:Weighted"}},
    )
    (folder / "ours_here.py").write_text(CUT)
    result = rehearsed(folder)
    joint = load_checkpoint(result.folder / "club", "best").tensors["joint"]
    assert joint["cut.weight"] != 0.5
    assert len(predict(result.folder).ids) == 80


def test_training_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    folder = small_job(
        tmp_path / "job", epochs=50, early_stopping={"patience": 2}, optimizer={"name": "Adam", "lr": 0.3}
    )
    result = rehearsed(folder)
    epochs = [
        (result.folder / name / "metrics.jsonl").read_text().count("\n") for name in ("bank", "shop", "club")
    ]
    assert len(set(epochs)) == 1
    assert epochs[0] < 50
    best = [load_checkpoint(result.folder / name, "best").state["epoch"] for name in ("bank", "shop", "club")]
    assert best == [epochs[0] - 2] * 3


def test_rows_need_not_be_held_out(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", split={"valid": 0.0, "test": 0.0})
    result = rehearsed(folder)
    assert result.rows == {"train": 80, "valid": 0, "test": 0}
    assert result.metrics == {}
    assert result.predictions == []
    assert result.report.is_file()
    assert len(predict(result.folder).ids) == 80


def test_tensorboard_writes_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = small_job(tmp_path / "job", club={"log": {"tensorboard": True}})
    result = rehearsed(folder)
    assert list((result.folder / "club" / "tensorboard").glob("events.out.*"))
    assert not (result.folder / "bank" / "tensorboard").exists()


def test_threads_are_as_they_were_after_a_run(tmp_path: Path) -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    rehearsed(small_job(tmp_path / "job", epochs=1))
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_a_job_may_be_a_link_and_stand_in_a_folder_with_any_name(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "a b", epochs=1).rename(tmp_path / "Ünïcode földer {party} %s")
    (tmp_path / "link.toml").symlink_to(folder / "job.toml")
    for name in ("bank", "shop", "club"):
        (tmp_path / f"{name}.toml").symlink_to(folder / f"{name}.toml")
    result = run(tmp_path / "link.toml", in_process=True, out=tmp_path / "öut {x}")
    assert len(predict(result.folder).ids) == 80


def test_overrides_reach_the_job_and_each_site(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    changes = [
        "epochs=7",
        "bank.threads=2",
        'club.label.positive="no"',
        "optimizer.name=SGD",
        "shop . device = cpu",
    ]
    assembly = assemble_folder(folder, changes[:4])
    assert assembly.job.epochs == 7
    assert assembly.job.optimizer == {"name": "SGD"}
    assert assembly.sites["bank"].site.threads == 2
    assert assembly.sites["club"].site.label == LabelEntry(column="buys", positive="no")


def test_a_party_that_fails_in_its_own_process_is_named_with_its_own_words(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    (folder / "shop.csv").write_text("id,visits,spent,town\np1,1,2,here\np1,1,2,here\n")
    with pytest.raises(PartyFailed) as caught:
        run(folder, out=tmp_path / "runs")
    assert isinstance(caught.value, VflError)
    assert (caught.value.party, caught.value.exit_code) == ("shop", 2)
    assert str(caught.value).startswith("shop: shop.toml: table: shop.csv")
    assert "'p1'" in str(caught.value)
    assert not list((tmp_path / "runs").iterdir())
