"""The examples reach the scores that their pages state."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
from pathlib import Path

import pytest

from parties import run
from parties.assembly import assemble, assemble_folder, load_placed_site
from parties.check import duration_of
from parties.keys import write_keys
from parties.recommending import recommend
from parties.single import connection_of
from vfl.config.load import load_job
from vfl.errors import DataError

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


@pytest.mark.parametrize(
    ("example", "parties", "addresses"),
    [
        (
            "coordinator",
            ("worst", "spread", "carol"),
            {"worst": "tcp://127.0.0.1:5556", "carol": "tcp://*:5556"},
        ),
        (
            "two_banks",
            ("accounts", "lender"),
            {"accounts": "tcp://127.0.0.1:5557", "lender": "tcp://*:5557"},
        ),
    ],
)
def test_an_example_is_for_several_hosts_once_keys_are_pasted(
    tmp_path: Path, example: str, parties: tuple[str, ...], addresses: dict[str, str]
) -> None:
    folder = shutil.copytree(EXAMPLES / example, tmp_path / "job")
    text = (folder / "job.toml").read_text()
    for name in parties:
        pair, _ = write_keys(name, folder / "keys")
        text = text.replace(
            f'# public_key = "PASTE WHAT vfl keys {name} PRINTS"', f'public_key = "{pair.public}"'
        )
    (folder / "job.toml").write_text(text)
    job = load_job(folder / "job.toml")
    for name, address in addresses.items():
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


def test_two_banks_help_each_other_at_a_cost_of_minutes(tmp_path: Path) -> None:
    if not Path(os.environ.get("VFL_DATA") or "nowhere").is_dir():
        pytest.skip("VFL_DATA names no folder with the public data sets")
    # In the clear the numbers are the same: tests/parties/test_paillier.py.
    overrides = ["align=ids", "protocols.paillier.encryption=none"]
    result = run(EXAMPLES / "two_banks", overrides=overrides, in_process=True, out=tmp_path)
    assert sum(result.rows.values()) == 7500
    assert result.metrics["test"]["auc"] >= 0.71
    assert result.metrics["test"]["auc"] >= result.alone["test"]["auc"] + 0.1
    assert not [note for note in result.summary["notes"] if "clipped" in note]
    seconds = duration_of(assemble_folder(EXAMPLES / "two_banks"), result.rows)
    assert seconds is not None
    assert seconds.seconds_in_all is not None
    assert seconds.seconds_in_all < 600


def test_three_clubs_recommend_better_together(tmp_path: Path) -> None:
    if not Path(os.environ.get("VFL_DATA") or "nowhere").is_dir():
        pytest.skip("VFL_DATA names no folder with the public data sets")
    result = run(EXAMPLES / "recommender", in_process=True, out=tmp_path)
    assert sum(result.rows.values()) == 100_836
    assert result.rows["test"] == pytest.approx(0.2 * 100_836, rel=0.02)
    assert result.metrics["test"]["rmse"] <= 0.865
    assert result.metrics["test"]["rmse"] <= result.alone["test"]["rmse"] - 0.02
    assert not [note for note in result.summary["notes"] if "clipped" in note or "MADE-UP" in note]
    found = recommend(result.folder, "42", n=5)
    assert [one.title.endswith(")") for one in found.items] == [True] * 5


def test_the_clubs_recommend_without_data_too_and_say_loudly_that_these_are_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *rest: object) -> None:
        if name.startswith("movielens"):
            raise DataError("movielens: nowhere to be found")

    monkeypatch.setattr("vfl.datasets.fetch_dataset", refuse)
    told: list[str] = []
    result = run(
        EXAMPLES / "recommender",
        overrides=["epochs=3"],
        in_process=True,
        out=tmp_path,
        sink=lambda event: told.append(str(event.get("text"))),
    )
    loud = "MADE-UP DATA: movielens: nowhere to be found."
    assert [note.startswith(loud) for note in result.summary["notes"]].count(True) == 1
    assert any(text.startswith(loud) for text in told)
    assert loud in result.report.read_text(encoding="utf-8")
    assert sum(result.rows.values()) == 20_737
    assert any(note.startswith(loud) for note in recommend(result.folder, "1").notes)


def test_the_recommender_is_for_four_hosts_once_keys_are_pasted() -> None:
    job = (EXAMPLES / "recommender" / "job.toml").read_text()
    assert job.count("PASTE WHAT vfl keys") == 4
    found = assemble(load_job(EXAMPLES / "recommender" / "job.toml"), {}, between_hosts=True)
    assert (found.hub, found.reporter, found.job.align) == ("carol", "carol", "given")


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
