"""The Paillier cut as a job like any other: run, kept, predicted with, reported, and on two hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result as Output
from processes import Vfl
from small_jobs import change_documents, encrypted, give_keys, keep_people, small_job

from parties import Result, predict, run
from parties.alone import train_centralised
from parties.assembly import assemble_folder, load_placed_site
from parties.seat import build_layers, noise_of
from parties.summary import read_json
from parties.trained import load_trained
from vfl.config.load import load_job
from vfl.errors import ConfigError
from vfl.learn.checkpoint import load_checkpoint
from vfl.paillier.share import Share
from vfl.session import Session

TWO = ("bank", "club")


def weights(run_folder: Path, name: str = "best") -> dict[str, Any]:
    """Lists every number of both parties' weights."""
    return {
        f"{party}/{group}/{key}": tensor.tolist()
        for party in TWO
        for group, tensors in load_checkpoint(run_folder / party, name).tensors.items()
        for key, tensor in tensors.items()
    }


def shares(run_folder: Path) -> dict[str, np.ndarray]:
    """Reads each party's share of the cut's weights, [4, 3] large integers."""
    found = {}
    for party in TWO:
        share = Share(4, 3)
        share.load_state_dict(load_trained(run_folder / party).weights["share"])
        found[party] = share.integers
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("job"), **encrypted(epochs=3))


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(folder, in_process=True, out=tmp_path_factory.mktemp("runs"))


def test_a_run_leaves_scores_a_ledger_and_a_report(finished: Result) -> None:
    summary = finished.summary
    assert (summary["protocol"], summary["parties"]) == ("paillier", ["bank", "club"])
    assert finished.metrics.keys() == {"valid", "test"}
    assert finished.alone["kind"] == "own features"
    assert {row["phase"] for row in finished.ledger["bank"]} >= {"train", "valid", "test"}
    assert [note.partition(":")[0] for note in summary["notes"]] == ['Encryption = "none"']
    page = finished.report.read_text(encoding="utf-8")
    assert "paillier" in page
    record = read_json(finished.folder / "club" / "record.json")
    assert {one["party"] for one in record["learned"]} >= {"bank", "club"}


def test_each_party_keeps_its_share_with_its_networks(finished: Result) -> None:
    kept = {party: load_trained(finished.folder / party).weights for party in TWO}
    assert kept["bank"].keys() == {"bottom", "share"}
    assert kept["club"].keys() == {"joint", "own", "share"}
    assert kept["bank"]["share"]["updates"] == kept["club"]["share"]["updates"] > 0
    found = shares(finished.folder)
    total = found["bank"] + found["club"]
    # Noise has hidden the weights: a share by itself is far larger than what the two come to.
    assert max(map(abs, found["bank"].flat)) > 2**30 * max(map(abs, total.flat))
    last = load_checkpoint(finished.folder / "bank", "last").tensors["state"]
    assert {key.split("/")[0] for key in last} >= {"bottom", "share"}


def test_what_is_kept_predicts_what_the_run_did(finished: Result) -> None:
    output = {row["id"]: row for row in predict(finished.folder).rows()}
    assert len(finished.predictions) == finished.rows["test"]
    for row in finished.predictions:
        assert float(row["p_yes"]) == pytest.approx(output[row["id"]]["p_yes"], abs=1e-6)


def test_new_rows_are_predicted(finished: Result, tmp_path: Path) -> None:
    new = small_job(tmp_path / "new")
    keep_people(new, {party: [9, 3] for party in TWO})
    predicted = predict(finished.folder, {party: new / f"{party}.csv" for party in TWO})
    assert predicted.ids == ["p009", "p003"]


def test_a_share_that_is_lost_is_missed_by_name(finished: Result, tmp_path: Path) -> None:
    trained = load_trained(finished.folder / "bank")
    assembly = assemble_folder(small_job(tmp_path / "job", **encrypted()))
    with pytest.raises(ConfigError, match="limbs is missing"):
        build_layers(assembly, "bank", {"bottom": trained.weights["bottom"]})


def test_two_runs_of_one_seed_are_equal_in_processes_and_in_memory(
    folder: Path, finished: Result, tmp_path: Path
) -> None:
    again = run(folder, out=tmp_path)
    assert weights(again.folder) == weights(finished.folder)
    assert again.metrics == finished.metrics


def test_ciphertexts_change_no_number(folder: Path, finished: Result, tmp_path: Path) -> None:
    options = ["protocols.paillier.encryption=paillier"]
    hidden = run(folder, overrides=options, in_process=True, out=tmp_path)
    assert weights(hidden.folder) == weights(finished.folder)
    assert hidden.metrics == finished.metrics
    assert [note for note in hidden.summary["notes"] if "= 1024 protects nothing" in note]


def test_a_party_with_a_seed_of_its_own_draws_noise_that_nobody_can_repeat(
    folder: Path, finished: Result, tmp_path: Path
) -> None:
    job, site = load_job(folder / "job.toml"), load_placed_site(folder / "bank.toml").site
    own = site.model_copy(update={"seed": job.seed})
    assert noise_of(job, own) is None
    assert noise_of(job, site) == noise_of(job, site) is not None
    others = {
        noise_of(job, site.model_copy(update={"party": "club"})),
        noise_of(job.model_copy(update={"seed": 1}), site),
    }
    assert noise_of(job, site) not in others
    again = run(folder, overrides=["bank.seed=0", "club.seed=0"], in_process=True, out=tmp_path)
    drawn, repeated = shares(again.folder), shares(finished.folder)
    for party in TWO:
        assert not (drawn[party] == repeated[party]).any()
    assert again.rows == finished.rows


def test_a_session_shows_no_noise(folder: Path) -> None:
    assert "noise" not in repr(Session("bank", "club", {}, noise=b"what only the bank may know"))


def test_the_label_party_may_come_first_and_have_no_columns(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", **encrypted(epochs=1))
    lines = (folder / "job.toml").read_text()
    start, _, rest = lines.partition("[parties.bank]")
    bank, _, club = rest.partition("[parties.club]")
    (folder / "job.toml").write_text(f"{start}[parties.club]{club}\n[parties.bank]{bank}")
    assert [*load_job(folder / "job.toml").parties] == ["club", "bank"]
    first = run(folder, in_process=True, out=tmp_path / "runs")
    assert first.alone["kind"] == "own features"
    changes = encrypted(epochs=1, club={"table": {"columns": None}})
    changes["parties"]["club"] = {"width": None}
    bare = run(small_job(tmp_path / "bare", **changes), in_process=True, out=tmp_path / "runs")
    assert bare.alone["kind"] == "majority class"
    assert load_trained(bare.folder / "club").weights.keys() == {"joint", "share"}


@pytest.mark.parametrize("cut", ["concat", "sum"])
def test_the_label_partys_network_begins_where_the_cut_ends(tmp_path: Path, cut: str) -> None:
    changes = encrypted(cut=cut, epochs=1)
    changes["parties"]["club"] = {"width": 3}
    assembly = assemble_folder(small_job(tmp_path / "job", **changes))
    assert (assembly.widths, assembly.joint_widths) == ({"bank": 4, "club": 3}, {"bank": 3, "club": 3})
    outcome = train_centralised(assembly)
    assert 0 <= outcome.test["auc"] <= 1
    made = run(tmp_path / "job", in_process=True, out=tmp_path / "runs")
    first = next(iter(load_trained(made.folder / "club").weights["joint"].values()))
    assert first.shape[1] == (6 if cut == "concat" else 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parties": {"shop": {"role": "feature", "width": 4}}}, "set protocol ="),
        ({"parties": {"bank": {"width": None}}}, "parties.bank.width: is missing"),
        ({"bank": {"table": {"columns": None}}}, "the job expects width 4 from bank"),
        ({"bank": {"trunk": {"preset": "mlp"}}}, "trunk: belongs to the label party"),
        ({"club": {"bottom": {"preset": "mpl"}}}, "did you mean 'mlp'"),
        ({"on_absence": "continue"}, "on_absence"),
        ({"protocols": {"paillier": {"width": None}}}, "protocols.paillier: width: is missing"),
        ({"protocols": {"paillier": {"unsafe_small_key": False}}}, "set 2048 or 3072"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_place_and_a_remedy(
    vfl: Callable[..., Output], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = small_job(tmp_path / "job", **encrypted())
    change_documents(folder, changes)
    answer = vfl("check", folder)
    assert answer.exit_code == 2, answer.output
    assert words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_two_hosts_train_predict_and_tell_who_learns_what(start: Callable[..., Vfl], tmp_path: Path) -> None:
    folder = give_keys(small_job(tmp_path / "net", **encrypted(align="psi")))
    keep_people(folder, {"bank": range(75), "club": [*range(79, 4, -1)]})
    hosts = {name: start("party", folder / "job.toml", folder / f"{name}.toml", "--json") for name in TWO}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(TWO, 0), hosts["club"].err
    result = json.loads(hosts["club"].out)
    assert sum(result["rows"].values()) == 70
    run_folder = tmp_path / "runs" / "small"
    assert "share" in load_trained(run_folder / "bank").weights
    predictors = {name: start("predict", run_folder / name) for name in TWO}
    assert {name: host.wait() for name, host in predictors.items()} == dict.fromkeys(TWO, 0)
    here = predict(run_folder)
    assert predictors["club"].out == here.to_csv()
    assert torch.isfinite(torch.from_numpy(here.output)).all()
