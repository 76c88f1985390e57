"""The examples reach the scores that their pages state."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
from pathlib import Path

import pytest

from parties import run
from parties.assembly import assemble, load_placed_site
from parties.keys import write_keys
from parties.single import connection_of
from vfl.config.load import load_job

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_breast_cancer_reaches_an_auc_of_099_over_five_seeds_and_more_than_the_label_party_alone() -> None:
    spec = importlib.util.spec_from_file_location("example_seeds", EXAMPLES / "seeds.py")
    assert spec is not None
    assert spec.loader is not None
    seeds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeds)
    found = [seeds.scores(EXAMPLES / "breast_cancer", seed, "auc", None) for seed in range(5)]
    alone, together, centralised = (statistics.fmean(one[name] for one in found) for name in seeds.COLUMNS)
    assert together >= 0.99
    assert together > alone + 0.02
    assert abs(together - centralised) <= 0.005


def test_digits_reach_an_accuracy_of_096(tmp_path: Path) -> None:
    result = run(EXAMPLES / "digits", in_process=True, out=tmp_path)
    assert result.metrics["test"]["accuracy"] >= 0.96
    assert result.alone["kind"] == "majority class"
    assert result.metrics["test"]["accuracy"] > result.alone["test"]["accuracy"] + 0.5


def test_a_coordinator_brings_two_owners_to_an_auc_of_099(tmp_path: Path) -> None:
    result = run(EXAMPLES / "coordinator", in_process=True, out=tmp_path)
    assert result.metrics["test"]["auc"] >= 0.99
    assert result.metrics["test"]["auc"] > result.alone["test"]["auc"] + 0.02
    assert result.summary["notes"] == []


def test_the_coordinators_example_is_for_three_hosts_once_keys_are_pasted(tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "coordinator", tmp_path / "job")
    text = (folder / "job.toml").read_text()
    for name in ("worst", "spread", "carol"):
        pair, _ = write_keys(name, folder / "keys")
        text = text.replace(
            f'# public_key = "PASTE WHAT vfl keys {name} PRINTS"', f'public_key = "{pair.public}"'
        )
    (folder / "job.toml").write_text(text)
    job = load_job(folder / "job.toml")
    for name, address in (("worst", "tcp://127.0.0.1:5556"), ("carol", "tcp://*:5556")):
        placed = load_placed_site(folder / f"{name}.toml")
        assembly = assemble(job, {name: placed}, between_hosts=True)
        connection = connection_of(assembly, placed)
        assert (connection.address(), connection.keys is not None) == (address, True)
        assert assembly.job.align == "psi"


@pytest.mark.parametrize(
    ("example", "epochs", "metric", "least", "gain"),
    [
        ("credit", 8, "auc", 0.75, 0.1),
        ("adult", 3, "auc", 0.89, 0.03),
        ("mnist_halves", 2, "accuracy", 0.93, 0.01),
    ],
)
def test_partners_help_on_the_real_tables(
    tmp_path: Path, example: str, epochs: int, metric: str, least: float, gain: float
) -> None:
    if not Path(os.environ.get("VFL_DATA") or "nowhere").is_dir():
        pytest.skip("VFL_DATA names no folder with the public data sets")
    overrides = [f"epochs={epochs}", "align=ids"]  # finds what psi finds
    result = run(EXAMPLES / example, overrides=overrides, in_process=True, out=tmp_path)
    assert result.metrics["test"][metric] >= least
    assert result.metrics["test"][metric] >= result.alone["test"][metric] + gain


@pytest.mark.parametrize("party", ["mean", "worst", "spread"])
def test_the_three_hosts_hold_the_columns_of_the_breast_cancer_job(party: str) -> None:
    ours, theirs = (
        (EXAMPLES / folder / f"{party}.toml").read_text() for folder in ("three_hosts", "breast_cancer")
    )
    kept = [line for line in ours.splitlines() if not line.startswith(("secret_key", "bind", "# Listens"))]
    assert kept == theirs.splitlines()


def test_the_example_keys_are_left_to_be_pasted() -> None:
    job = (EXAMPLES / "three_hosts" / "job.toml").read_text()
    assert job.count("PASTE WHAT vfl keys") == 3
