"""Two organisations begin with raw files that overlap, and end with a model that predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from parties.api import Result, run
from parties.predicting import predict
from vfl.data.files import write_file

N, SHARED = 1000, 700
JOB: dict[str, Any] = {
    "name": "messy",
    "protocol": "splitnn",
    "task": "binary",
    "align": "psi",
    "epochs": 12,
    "batch_size": 32,
    "optimizer": {"name": "Adam", "lr": 0.01},
    "parties": {"bank": {"role": "label", "width": 4}, "telecom": {"role": "feature", "width": 4}},
}
BANK: dict[str, Any] = {
    "party": "bank",
    "table": {
        "source": "bank.csv",
        "id": "customer",
        "columns": ["balance*", "!balance_note"],
        "categorical": ["branch"],
        "dates": ["opened"],
        "date_format": "%d.%m.%Y",
        "missing": ["?"],
    },
    "prepare": {
        "missing": "median",
        "missing_indicator": True,
        "missing_category": "own",
        "min_frequency": 3,
        "columns": {"balance_old": {"scale": "quantile", "missing": 0}, "branch": {"encode": "one-hot"}},
    },
    "label": {"column": "left", "positive": "yes"},
}
TELECOM: dict[str, Any] = {
    "party": "telecom",
    "table": {
        "source": "telecom.parquet",
        "id": "msisdn",
        "columns": ["*", "!note"],
        "categorical": ["plan"],
    },
    "prepare": {"scale": "minmax", "missing": "mean"},
}


def write(folder: Path, *, first: int = 0, strange: bool = False) -> Path:
    """Writes both tables: people `first` onwards, the shared ones in the middle of each, in other orders."""
    random = np.random.default_rng(first)
    usage, balance = random.normal(size=N), random.normal(size=N)
    left = 1.5 * usage - balance + 0.2 * random.normal(size=N) > 0
    lines = ["customer;balance_now;balance_old;balance_note;branch;opened;left"]
    branches = ["north", "south", "moon" if strange else "west"]
    for person in random.permutation(SHARED + 60):
        now = "?" if person % 11 == 0 else f"{1000 * balance[person]:.2f}"
        old = "" if person % 7 == 0 else f"{900 * balance[person]:.1f}"
        branch = "" if person % 13 == 0 else branches[person % 3]
        opened = f"{person % 28 + 1:02d}.{person % 12 + 1:02d}.20{person % 20:02d}"
        name = f" K{first + person}\u00e9 " if person % 2 else f"K{first + person}e\u0301"
        lines.append(f'{name};{now};{old};say "hi";{branch};{opened};{"yes" if left[person] else "no"}')
    (folder / "bank.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    people = random.permutation([*range(SHARED), *range(SHARED + 100, N)])
    gone = people % 9 == 0
    write_file(
        folder / "telecom.parquet",
        {
            "msisdn": np.array([f"K{first + person}\u00e9" for person in people], dtype=object),
            "minutes": np.where(gone, np.nan, usage[people] * 60 + 300),
            "calls": people % 5,
            "plan": np.array([("a", "b", "c")[person % 3] for person in people], dtype=object),
            "note": np.array(["-"] * len(people), dtype=object),
        },
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("messy"))
    for name, document in {"job": JOB, "bank": BANK, "telecom": TELECOM}.items():
        (folder / f"{name}.toml").write_text(tomli_w.dumps(document))
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run(folder, in_process=True, out=folder / "runs")


def test_raw_overlapping_tables_become_a_model_that_beats_one_party(result: Result) -> None:
    assert sum(result.rows.values()) == SHARED
    assert result.metrics["test"]["auc"] > 0.85
    assert result.metrics["test"]["auc"] > result.alone["test"]["auc"] + 0.03


def test_predicting_the_same_rows_gives_what_the_run_said_of_its_test_rows(result: Result) -> None:
    again = {row["id"]: row["p_yes"] for row in predict(result.folder).rows()}
    for row in result.predictions:
        assert float(row["p_yes"]) == pytest.approx(again[row["id"]], abs=1e-6)


def test_new_people_with_unknown_categories_are_predicted(result: Result, tmp_path: Path) -> None:
    write(tmp_path, first=10_000, strange=True)
    tables = {"bank": tmp_path / "bank.csv", "telecom": tmp_path / "telecom.parquet"}
    prediction = predict(result.folder, tables)
    assert len(prediction.ids) == SHARED
    assert prediction.metrics["auc"] > 0.8


def test_new_files_need_the_trained_columns_and_no_others(result: Result, tmp_path: Path) -> None:
    write(tmp_path, first=10_000)
    columns = {"msisdn": np.array([f"K{10_000 + person}\u00e9" for person in range(N)], dtype=object)}
    columns |= {"minutes": np.full(N, 300.0), "calls": np.arange(N) % 5}
    columns |= {name: np.array(["a"] * N, dtype=object) for name in ("plan", "remark")}
    write_file(tmp_path / "telecom.parquet", columns)  # without `note`, and with a text that was not there
    tables = {"bank": tmp_path / "bank.csv", "telecom": tmp_path / "telecom.parquet"}
    assert len(predict(result.folder, tables).ids) == SHARED + 60


def test_processes_do_the_same(result: Result, folder: Path, tmp_path: Path) -> None:
    apart = run(folder, out=tmp_path)
    assert apart.metrics == result.metrics
    assert apart.predictions == result.predictions
