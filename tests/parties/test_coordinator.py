"""A coordinator without rows, on a host of its own: it trains, aligns, predicts and reports as others do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Output
from processes import Vfl
from small_jobs import PEOPLE, free_port, give_keys, keep_people, on_the_network, small_job, summed
from test_bad_input import fails

from parties import predict
from parties.api import Result, run
from parties.summary import read_json
from vfl.config.load import read_toml
from vfl.learn.checkpoint import load_checkpoint

THREE = ("bank", "club", "carol")
#: The bank and the club share 70 of 80 people.
OWN = {"bank": range(PEOPLE - 5), "club": [*range(PEOPLE - 1, 4, -1)]}


def weights(run_folder: Path) -> dict[str, object]:
    """Lists every number of every party's best weights."""
    return {
        f"{folder.name}/{group}/{key}": tensor.tolist()
        for folder in sorted(path for path in run_folder.iterdir() if path.is_dir())
        for group, tensors in load_checkpoint(folder, "best").tensors.items()
        for key, tensor in tensors.items()
    }


def two_owners(folder: Path, align: str, **changes: object) -> Path:
    """Writes a job of the bank, the club and carol, with keys."""
    on_the_network(folder, **summed({"shop": None}, align=align, **changes))
    if align != "given":
        keep_people(folder, OWN)
    return folder


@dataclass(frozen=True)
class Finished:
    """Is a run of the three hosts, and what its job, run in one process, came to."""

    hosts: dict[str, Vfl]
    run: Path
    align: str
    alone: Result


@pytest.fixture(scope="module", params=["given", "ids", "psi"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("finished")
    folder = two_owners(place / "net", request.param)
    hosts = {
        name: Vfl("party", folder / "job.toml", folder / f"{name}.toml", "--json", cwd=place)
        for name in THREE[::-1]
    }
    try:
        alone = run(folder, in_process=True, out=place / "alone")
        codes = {name: host.wait() for name, host in hosts.items()}
        assert codes == dict.fromkeys(THREE, 0), hosts["carol"].err
    finally:
        for host in hosts.values():
            host.end()
    return Finished(hosts, place / "runs" / "small", request.param, alone)


def test_three_hosts_train_what_one_process_does(finished: Finished) -> None:
    alone, hosts = finished.alone, finished.hosts
    assert weights(finished.run) == weights(alone.folder)
    assert {key.split("/")[0] for key in weights(finished.run)} == set(THREE)
    results = {name: json.loads(host.out) for name, host in hosts.items()}
    assert results["club"]["metrics"] == alone.metrics
    assert sum(results["club"]["rows"].values()) == (80 if finished.align == "given" else 70)
    assert (results["carol"]["rows"], results["carol"]["metrics"]) == ({}, {})
    assert results["carol"]["table_rows"] == {"carol": 0}
    assert all(host.err.count("warning") == 0 for host in hosts.values())
    assert "carol: joined; no rows" in hosts["carol"].err
    assert [path.name for path in finished.run.parent.iterdir()] == ["small"]


def test_a_coordinator_is_in_ledger_record_and_report_like_any_other(
    vfl: Callable[..., Output], tmp_path: Path
) -> None:
    answer = vfl("run", small_job(tmp_path / "job", **summed(epochs=3)), "--in-process", "--json")
    assert answer.exit_code == 0, answer.output
    summary, runs = json.loads(answer.stdout), tmp_path / "runs" / "small"
    assert summary["notes"] == []
    assert list(summary["bytes"]) == summary["parties"] == ["bank", "shop", "club", "carol"]
    files = {"best.safetensors", "last.safetensors", "ledger.json", "metrics.jsonl", "result.json"}
    assert {path.name for path in (runs / "carol").iterdir()} == files | {"job.toml", "site.toml"}
    epochs = [json.loads(line) for line in (runs / "carol" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert [line["best"] for line in epochs] == [line["best"] for line in read_record(runs)["history"]]

    ledger = read_json(runs / "carol" / "ledger.json")
    assert {row["phase"] for row in ledger} == {"handshake", "session", "keys", "train", "valid", "test"}
    assert {row["peer"] for row in ledger} == {"bank", "shop", "club"}
    for way, other in (("sent_bytes", "received_bytes"), ("received_bytes", "sent_bytes")):
        theirs = read_json(runs / "bank" / "ledger.json")
        assert sum(row[way] for row in ledger if row["peer"] == "bank") == sum(row[other] for row in theirs)
    assert read_record(runs)["parties"][-1] == {"name": "carol", "role": "coordinator", "width": 8}
    assert read_record(runs)["learned"][3]["party"] == "carol"
    page = (runs / "club" / "report.html").read_text(encoding="utf-8")
    assert "carol" in page
    assert "coordinator" in page


def read_record(run_folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(run_folder / "club" / "record.json")
    return record


def test_three_hosts_predict_what_one_does(
    start: Callable[..., Vfl], vfl: Callable[..., Output], finished: Finished
) -> None:
    one = vfl("predict", finished.run)
    assert one.exit_code == 0, one.output
    hosts = {name: start("predict", finished.run / name) for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(THREE, 0), hosts["carol"].err
    assert hosts["club"].out == one.stdout
    assert len(one.stdout.splitlines()) == 1 + (80 if finished.align == "given" else 70)
    for name in ("bank", "carol"):
        assert "done; the predictions are at the label party" in hosts[name].err
        assert hosts[name].out == ""
    assert vfl("report", finished.run).exit_code == 0
    fails(vfl("predict", finished.run, "--table", "carol=x"), 2, "carol is the coordinator and has no rows")
    fails(vfl("predict", finished.run / "carol", "--table", "carol=x"), 2, "carol is the coordinator")
    fails(vfl("report", finished.run / "carol"), 2, "name a finished run that holds the label party")


def test_new_rows_are_predicted_through_the_coordinator(tmp_path: Path, finished: Finished) -> None:
    new = small_job(tmp_path / "new")
    keep_people(
        new, {"bank": [9], "club": [9]} if finished.align == "given" else {"bank": [7, 8, 9], "club": [3, 9]}
    )
    assert predict(finished.run, {name: new / f"{name}.csv" for name in ("bank", "club")}).ids == ["p009"]


@pytest.mark.parametrize("align", ["given", "ids", "psi"])
def test_hosts_align_with_a_coordinator_in_between(
    start: Callable[..., Vfl], tmp_path: Path, align: str
) -> None:
    folder = two_owners(tmp_path / "net", align)
    hosts = {name: start("align", folder / "job.toml", folder / f"{name}.toml") for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(THREE, 0), hosts["carol"].err
    assert hosts["bank"].out == hosts["club"].out
    shared = 80 if align == "given" else 70
    assert len(hosts["bank"].out.splitlines()) == shared + 1
    assert f"all parties share {shared} of the" in hosts["bank"].err
    assert hosts["carol"].out == ""
    assert "have found the rows that they share; a coordinator has none" in hosts["carol"].err
    assert not (tmp_path / "runs").exists()


def test_a_coordinator_checks_its_own_site(vfl: Callable[..., Output], tmp_path: Path) -> None:
    folder = two_owners(tmp_path / "net", "psi", carol={"trunk": {"preset": "mlp", "hidden": [3]}})
    answer = vfl("check", folder / "job.toml", folder / "carol.toml")
    assert answer.exit_code == 0, answer.output
    assert "carol: no table; parameters: trunk 47" in answer.stdout  # 4 × 3 + 3 + 3 × 8 + 8
    assert "carol: The sum of all contributions" in answer.stdout
    found = json.loads(vfl("check", folder, "--json").stdout)
    assert [row["party"] for row in found["traffic"]] == ["bank", "club", "carol"]
    assert found["parties"][-1]["parameters"] == {"trunk": 47}
    assert next(part for part in found["parties"] if part["party"] == "club")["parameters"]["head"] == 9


def test_hosts_may_list_the_coordinator_where_they_like(start: Callable[..., Vfl], tmp_path: Path) -> None:
    folder = two_owners(tmp_path / "net", "psi", epochs=1)
    lines = (folder / "job.toml").read_text()
    head, _, carols = lines.partition("[parties.carol]")
    mine, _, rest = carols.partition("\n\n")
    before, _, after = head.partition("[parties.")
    (folder / "other.toml").write_text(f"{before}[parties.carol]{mine}\n\n[parties.{after}{rest}")
    assert [*read_toml(folder / "other.toml")["parties"]] == ["carol", "bank", "club"]
    jobs = {"bank": "job.toml", "club": "other.toml", "carol": "other.toml"}
    hosts = {name: start("party", folder / jobs[name], folder / f"{name}.toml") for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(THREE, 0), hosts["carol"].err


def test_a_fault_at_the_coordinator_is_told_to_all_before_any_row_moves(
    start: Callable[..., Vfl], tmp_path: Path
) -> None:
    folder = two_owners(tmp_path / "net", "psi", carol={"trunk": {"preset": "mpl"}})
    hosts = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == {"bank": 8, "club": 8, "carol": 2}
    assert "carol.toml: trunk" in hosts["carol"].err
    assert "did you mean 'mlp'" in hosts["carol"].err
    for name in ("bank", "club"):
        assert "carol: ended the run: its own configuration cannot be used" in hosts[name].err
        assert "finding the rows" not in hosts[name].err
    assert not [*(tmp_path / "runs").iterdir()]


def test_masks_that_are_off_are_told_to_everyone_and_once_in_all(
    start: Callable[..., Vfl], vfl: Callable[..., Output], tmp_path: Path
) -> None:
    folder = two_owners(tmp_path / "net", "given", epochs=1, protocols={"sfa": {"masks": False}})
    hosts = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(THREE, 0)
    for name, host in hosts.items():
        assert host.err.count("warning: masks = false") == 1, host.err
        notes = read_json(tmp_path / "runs" / "small" / name / "result.json")["notes"]
        assert len(notes) == 1, notes
    page = (tmp_path / "runs" / "small" / "club" / "report.html").read_text(encoding="utf-8")
    assert page.count("Masks were off: carol saw every contribution") == 1
    answer = vfl("run", folder, "--in-process")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.count("asks") == 1
    assert answer.stderr.count("warning: masks = false: carol sees every contribution") == 1
    assert "Masks were off: carol saw every contribution. For debugging only." in answer.stdout


def test_clear_text_on_loopback_is_told_to_every_contributor_and_in_the_report(
    start: Callable[..., Vfl], tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    parties = {"shop": None, "carol": {"role": "coordinator", "width": 8, "address": address}}
    folder = small_job(tmp_path / "job", **summed(epochs=1, align="given", parties=parties))
    hosts = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in THREE}
    assert {name: host.wait() for name, host in hosts.items()} == dict.fromkeys(THREE, 0), hosts["carol"].err
    for name in ("bank", "club"):
        assert "warning: the job lists no public keys: carol could pass on false ones" in hosts[name].err
    runs = tmp_path / "runs" / "small"
    (note,) = read_json(runs / "club" / "result.json")["notes"]
    assert note.startswith("The job lists no public keys: links were in clear text")
    assert note in (runs / "club" / "report.html").read_text(encoding="utf-8")
    assert f"note: {note}" in " ".join(hosts["club"].out.split())


FEATURE = {"role": "feature", "width": 4}
TWO_HIDE = {"bank": None, "shop": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"carol": {"table": {"source": "bank.csv"}}},
         ["carol.toml: table: a coordinator has no rows of its own; leave it out"]),
        ({"carol": {"label": {"column": "buys"}}},
         ["carol.toml: label: belongs to the label party, and carol is a coordinator"]),
        ({"carol": {"head": {"preset": "mlp"}}},
         ["carol.toml: head: belongs to the label party, and carol is a coordinator"]),
        ({"carol": {"bottom": {"preset": "mlp"}}}, ["carol.toml: bottom: there are no columns"]),
        ({"carol": {"trunk": {"preset": "mpl"}}}, ["carol.toml: trunk", "mpl", "mlp"]),
        ({"carol": {"trnk": {}}}, ["carol.toml: trnk: unknown key; did you mean 'trunk'?"]),
        ({"carol": {"party": "karol"}}, ["carol.toml: party = 'karol'", "'carol'"]),
        ({"club": {"trunk": {"preset": "mlp"}}},
         ["club.toml: trunk: belongs to the coordinator", "club is a label party"]),
        ({"bank": {"head": {"preset": "mlp"}}}, ["bank.toml: head: belongs to the label party"]),
        ({"bank": {"trunk": {"preset": "mlp"}}}, ["bank.toml: trunk: belongs to the coordinator"]),
        ({"club": {"head": {"preset": "mlp", "hiden": [3]}}}, ["club.toml: head", "hiden", "hidden"]),
        ({"bank": {"table": None}}, ["bank.toml: table: is missing; add [table]"]),
        ({"club": {"table": None}}, ["club.toml: table: is missing; add [table]"]),
        ({"club": {"table": {"columns": []}}}, ["club.toml: table.columns: is missing", "width 4 from club"]),
        ({"parties": {"carol": {"width": None}}},
         ["job.toml: parties.carol.width: is missing", "hands on to the label party"]),
        ({"parties": {"bank": {"width": None}}}, ["job.toml: parties.bank.width: is missing", "brings to"]),
        ({"parties": {"shop": {"role": "coordinator"}}},
         ["job.toml: parties: 2 have role = 'coordinator'; there may be one"]),
        ({"parties": {"carol": {"role": "cordinator"}}},
         ["job.toml: parties.carol.role = 'cordinator'", "did you mean 'coordinator'?"]),
        ({"parties": {"club": {"role": "feature"}}}, ["exactly one holds the label"]),
        ({"protocol": "splitnn"}, ["job.toml: parties.carol.role = 'coordinator'", "feature", "label"]),
        ({"parties": {"club": {"width": None}, "shop": None}, "club": {"table": {"columns": []}}},
         ["masks would hide nothing, since bank alone contributes", "give the label party a width",
          "or add a feature party"]),
        ({"parties": {"carol": None, "shop": None}},
         ["masks would hide nothing, since club sums", "add a party with role = 'coordinator'",
          "or add a second feature party"]),
        ({"parties": {"bank": {"width": 5}}}, ["one width for all", "bank 5, shop 4, club 4", "equal"]),
        ({"parties": {"bank": {"address": "tcp://h:1"}}}, ["parties.bank.address: only carol"]),
        ({"parties": {"club": {"address": "tcp://h:1"}}}, ["parties.club.address: only carol"]),
        ({"protocols": {"sfa": {"clip": 1e9}}}, ["protocols.sfa: clip = 1000000000.0", "3 contributors"]),
        (
            {"protocols": {"sfa": {"fraction_bits": 30}}},
            ["fraction_bits = 30 and 3 contributors", "23 or fewer", "ring_bits = 64"],
        ),
        ({"protocols": {"sfa": {"fraction_bits": -1}}}, ["protocols.sfa: fraction_bits = -1"]),
        ({"protocols": {"sfa": {"clip": 0.0}}}, ["protocols.sfa: clip = 0.0", "greater than 0"]),
        ({"protocols": {"sfa": {"ring_bits": 48}}}, ["protocols.sfa: ring_bits = 48", "32 or 64"]),
        ({"protocols": {"sfa": {"mask": True}}}, ["protocols.sfa: mask: unknown key; did you mean 'masks'?"]),
        ({"protocols": {"sfa": {"masks": "no"}}}, ["protocols.sfa: masks = 'no'", "boolean"]),
        ({"on_absence": "continu"}, ["job.toml: on_absence = 'continu'", "'continue'"]),
        ({"on_absence": "continue", "ahead": 2}, ["on_absence = \"continue\"", "needs ahead = 0"]),
        ({"patience_s": 0}, ["job.toml: patience_s = 0", "greater than 0"]),
        ({"patience_s": -1.0}, ["job.toml: patience_s = -1.0", "greater than 0"]),
        ({"patience_s": "long"}, ["job.toml: patience_s = 'long'", "number"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    vfl: Callable[..., Output], tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    fails(vfl("run", small_job(tmp_path / "job", **summed(**changes)), "--in-process"), 2, *words)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on_absence": "continue"}, ['on_absence = "continue": splitnn cannot do without a party',
                                      'choose "wait" or "abort"']),
        ({"club": {"head": {"preset": "mlp"}}},
         ["club.toml: head: is for a job with a coordinator", "describe all in trunk"]),
    ],
)  # fmt: skip
def test_what_cannot_be_in_split_learning_is_one_line(
    vfl: Callable[..., Output], tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    fails(vfl("run", small_job(tmp_path / "job", **changes), "--in-process"), 2, *words)


def test_a_coordinator_on_its_own_host_is_told_what_it_lacks(
    vfl: Callable[..., Output], tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", **summed())
    command = ("party", folder / "job.toml", folder / "carol.toml")
    fails(vfl(*command), 2, "parties.carol.address: is missing", "where the others reach carol")
    give_keys(folder)
    (folder / "carol.secret").unlink()
    fails(vfl(*command), 2, "carol.toml: secret_key = 'carol.secret'", "vfl keys carol")
    fails(vfl(*command, "--set", "carol.table.source=bank.csv"), 2, "carol.toml: table: a coordinator has no")
