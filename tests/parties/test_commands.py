"""What the commands print, and where, when all is well."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Output
from small_jobs import people, small_job, write_csv

from parties.api import Result, load_result, run
from parties.cli import cli
from parties.summary import read_json
from parties.trained import BEST
from protocols import names
from vfl import __version__
from vfl.learn.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_job(tmp_path_factory.mktemp("commands") / "job", epochs=3)


@pytest.fixture(scope="module")
def output(folder: Path) -> Output:
    words = ["run", folder, "--in-process", "--out", folder.parent / "runs", "--json"]
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(folder: Path, output: Output) -> Result:
    assert output.exit_code == 0, output.output
    return load_result(folder.parent / "runs" / "small")


def test_json_is_one_object_of_the_documented_shape(output: Output, folder: Path) -> None:
    assert output.stdout.count("\n") == 1
    found = json.loads(output.stdout)
    assert list(found) == [
        "status", "run", "protocol", "parties", "rows", "table_rows", "metrics", "alone", "seconds", "bytes",
        "notes",
        "report",
    ]  # fmt: skip
    assert found["status"] == "finished"
    assert (found["run"], found["protocol"]) == ("small", "splitnn")
    assert found["parties"] == ["bank", "shop", "club"]
    assert found["rows"].keys() == {"train", "valid", "test"}
    assert sum(found["rows"].values()) == 80
    assert found["metrics"].keys() == {"valid", "test"}
    assert found["metrics"]["test"].keys() == found["alone"]["test"].keys()
    assert found["bytes"].keys() == {"bank", "shop", "club"}
    assert all(counts.keys() == {"sent", "received"} for counts in found["bytes"].values())
    assert found["report"] == str(folder.parent / "runs" / "small" / "club" / "report.html")
    assert Path(found["report"]).is_file()


def test_what_one_sends_the_other_receives(output: Output) -> None:
    counts = json.loads(output.stdout)["bytes"]
    assert counts["club"]["received"] == counts["bank"]["sent"] + counts["shop"]["sent"]
    assert counts["club"]["sent"] == counts["bank"]["received"] + counts["shop"]["received"]


def test_progress_is_plain_lines_on_stderr_where_there_is_no_terminal(output: Output) -> None:
    lines = output.stderr.splitlines()
    assert "bank: joined; 53 train, 11 valid, 16 test rows" in lines[:3]
    assert any(line.startswith("club: epoch 3/3, loss 0.") for line in lines)
    assert "\x1b" not in output.stderr


def test_people_read_scores_together_and_alone(vfl: Callable[..., Output], folder: Path) -> None:
    result = vfl("run", folder, "--in-process", "--set", "epochs=1")
    assert result.exit_code == 0
    assert "small: 3 parties, 80 rows" in result.stdout
    assert "together    alone" in result.stdout
    assert "club: sent" in result.stdout
    assert result.stdout.splitlines()[-1] == "report: runs/small/club/report.html"


def test_a_users_module_that_prints_does_not_spoil_the_json(
    vfl: Callable[..., Output], tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", epochs=1, bank={"bottom": {"module": "chatty:Net"}})
    (folder / "chatty.py").write_text(
        "import torch\nprint('hello')\n"
        "class Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 4)\n"
    )
    result = vfl("run", folder, "--in-process", "--json")
    assert json.loads(result.stdout)["status"] == "finished"
    assert "hello" in result.stderr


def test_check_says_what_each_party_has_and_learns(
    vfl: Callable[..., Output], folder: Path, finished: Result
) -> None:
    result = vfl("check", folder, "--json")
    found = json.loads(result.stdout)
    assert (found["status"], found["run"]) == ("valid", "small")
    assert [site["party"] for site in found["parties"]] == ["bank", "shop", "club"]
    assert found["parties"][0]["rows"] == finished.rows
    assert found["parties"][0]["parameters"] == {"bottom": 2 * 4 + 4}
    assert found["parties"][2]["parameters"].keys() == {"bottom", "trunk"}
    assert "gradient" in found["learned"]["bank"]


@pytest.mark.parametrize(("width", "excess"), [(4, 1.5), (256, 1.05)])
def test_check_bounds_what_the_run_then_books(
    vfl: Callable[..., Output], tmp_path: Path, width: int, excess: float
) -> None:
    changes = {"epochs": 3, "parties": {"bank": {"width": width}, "shop": {"width": width}}}
    folder = small_job(tmp_path / "job", **changes)
    finished = run(folder, in_process=True, out=tmp_path / "runs")
    for row in json.loads(vfl("check", folder, "--json").stdout)["traffic"]:
        booked = [b for b in finished.ledger[row["party"]] if b["phase"] in ("train", "valid")]
        for way in ("sent", "received"):
            an_epoch = sum(b[f"{way}_bytes"] for b in booked) / 3
            assert an_epoch <= row[f"{way}_an_epoch"] <= excess * an_epoch, (row, an_epoch)


@pytest.mark.parametrize("words", [["job.toml"], ["job.toml", "shop.toml"], ["."]])
def test_check_takes_a_folder_a_job_or_a_job_and_a_site(folder: Path, words: list[str]) -> None:
    result = CliRunner().invoke(cli, ["check", *(str(folder / word) for word in words)])
    assert result.exit_code == 0, result.output
    assert "small: valid; splitnn, binary, 3 parties, 3 epochs" in result.stdout
    assert "bank: width 4, sends" in result.stdout
    assert "who will learn what:" in result.stdout
    assert ("shop: 3 columns" in result.stdout) == (words != ["job.toml"])
    assert ("bank: 2 columns" in result.stdout) == (words == ["."])
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_protocols_lists_each_with_who_learns_what(vfl: Callable[..., Output]) -> None:
    result = vfl("protocols")
    assert all(f"{name}  " in result.stdout for name in names())
    assert "    feature: " in result.stdout
    assert "    label: " in result.stdout


def test_report_is_drawn_anew_as_it_was(vfl: Callable[..., Output], finished: Result) -> None:
    before = finished.report.read_bytes()
    finished.report.unlink()
    result = vfl("report", finished.folder)
    assert result.stdout == f"{finished.report}\n"
    assert finished.report.read_bytes() == before
    assert vfl("report", finished.folder / "club").stdout == f"{finished.report}\n"


def test_version_and_help(vfl: Callable[..., Output]) -> None:
    assert vfl("--version").stdout == f"vfl, version {__version__}\n"
    for words in ([], ["run"], ["party"], ["keys"], ["check"], ["predict"], ["report"], ["protocols"]):
        assert "Example" in vfl(*words, "--help").stdout
    for words in ([], ["run"], ["party"], ["check"], ["predict"]):
        assert "130  interrupted" in vfl(*words, "--help").stdout


# --- predict ---------------------------------------------------------------------------------------


def table_of(path: Path, party: str, ids: list[str], *, label: bool = True, town: str | None = None) -> Path:
    """Writes a party's new rows: those of some people, in the order asked for."""
    wanted = {"bank": ["income", "debt"], "shop": ["visits", "spent", "town"], "club": ["age", "buys"]}[party]
    table = people()
    places = [table["id"].index(person) for person in ids]
    columns = {name: [table[name][place] for place in places] for name in ["id", *wanted]}
    if not label:
        columns.pop("buys", None)
    if town:
        columns["town"][0] = town
    return write_csv(path, columns)


def read_csv(text: str) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in csv.DictReader(io.StringIO(text))}


def test_prediction_equals_the_runs_own_for_its_test_rows(
    vfl: Callable[..., Output], finished: Result, tmp_path: Path
) -> None:
    result = vfl("predict", finished.folder, "--out", "p.csv")
    words = "80 predictions are in p.csv; scores on all rows, those trained on among them: auc 0."
    assert words in result.stderr
    assert result.stdout == ""
    rows = read_csv((tmp_path / "p.csv").read_text())
    assert len(rows) == 80
    assert len(finished.predictions) == 16
    for own in finished.predictions:
        again = rows[own["id"]]
        assert again["prediction"] == own["prediction"]
        assert float(again["p_yes"]) == pytest.approx(float(own["p_yes"]), rel=1e-5)


def test_new_rows_are_predicted_in_any_order_with_or_without_labels(
    vfl: Callable[..., Output], finished: Result, tmp_path: Path
) -> None:
    ids = ["p040", "p003", "p077", "p012"]
    tables = [
        f"bank={table_of(tmp_path / 'bank.csv', 'bank', ids)}",
        f"shop={table_of(tmp_path / 'shop.csv', 'shop', ids[::-1], town='far away')}",
        f"club={table_of(tmp_path / 'club.csv', 'club', sorted(ids), label=False)}",
    ]
    words = [word for table in tables for word in ("--table", table)]
    rows = read_csv(vfl("predict", finished.folder, *words).stdout)
    assert set(rows) == set(ids)
    known = read_csv(vfl("predict", finished.folder).stdout)
    for person in ids[:-1]:
        assert float(rows[person]["p_yes"]) == pytest.approx(float(known[person]["p_yes"]), rel=1e-5)
    assert rows["p012"]["p_yes"] != known["p012"]["p_yes"]  # a town that training never saw

    found = json.loads(vfl("predict", finished.folder, *words, "--json").stdout)
    assert (found["status"], found["rows"], found["metrics"]) == ("finished", 4, {})
    assert {row["id"] for row in found["predictions"]} == set(ids)
    found = json.loads(vfl("predict", finished.folder, *words, "--json", "--out", "p.csv").stdout)
    assert found["predictions"] == "p.csv"


def test_scores_on_new_rows_are_not_said_to_be_on_those_trained_on(
    vfl: Callable[..., Output], finished: Result, folder: Path, tmp_path: Path
) -> None:
    new = ("--table", f"club={shutil.copy(folder / 'club.csv', tmp_path / 'new.csv')}")
    same = ("--table", f"club={folder / 'club.csv'}")
    assert "are in p.csv; auc 0." in vfl("predict", finished.folder, *new, "--out", "p.csv").stderr
    assert "trained on among them" in vfl("predict", finished.folder, *same, "--out", "p.csv").stderr


def test_prediction_refuses_other_people(
    vfl: Callable[..., Output], finished: Result, tmp_path: Path
) -> None:
    table = table_of(tmp_path / "bank.csv", "bank", ["p001", "p002"])
    result = vfl("predict", finished.folder, "--table", f"bank={table}")
    assert "new rows were given for bank only: add --table" in result.stderr
    assert result.exit_code == 3
    assert "rows: yours 80, theirs 2" in result.stderr
    result = vfl("predict", finished.folder, "--table", f"till={table}")
    assert result.exit_code == 2
    assert "--table till=" in result.stderr
    assert "till is no party here; known: bank, shop, club" in result.stderr
    result = vfl("predict", finished.folder, "--table", "bank=nothing.csv")
    assert result.exit_code == 2
    assert "nothing.csv" in result.stderr


def test_prediction_refuses_parts_of_two_trainings(
    vfl: Callable[..., Output], finished: Result, folder: Path, tmp_path: Path
) -> None:
    other = run(folder, in_process=True, out=tmp_path / "runs")
    (other.folder / "bank").rename(tmp_path / "bank")
    (tmp_path / "runs/small/bank").symlink_to(finished.folder / "bank")
    result = vfl("predict", other.folder)
    assert result.exit_code == 3
    assert "training session: yours" in result.stderr
    (tmp_path / "runs/small/bank").unlink()
    result = vfl("predict", other.folder)
    assert result.exit_code == 2
    assert "holds club, shop but not bank; every host predicts with its own part" in result.stderr


def test_prediction_refuses_the_weights_of_another_epoch(
    vfl: Callable[..., Output], finished: Result, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    best = load_checkpoint(copy / "bank", BEST)
    epoch = best.state["epoch"]
    save_checkpoint(copy / "bank", best.tensors, best.state | {"epoch": epoch + 1}, BEST)
    result = vfl("predict", copy)
    assert result.exit_code == 3
    assert f"best epoch: yours {epoch}, theirs {epoch + 1}" in result.stderr


def test_prediction_wants_parts_that_have_finished(
    vfl: Callable[..., Output], finished: Result, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(finished.folder, tmp_path / "small.stopped"))
    (copy / "shop" / "result.json").unlink()
    for run_folder in (copy, copy / "shop"):
        result = vfl("predict", run_folder)
        assert result.exit_code == 2
        assert f"vfl: {copy / 'shop'}: has no result.json: its training did not finish" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_run_folder_holds_what_is_promised(finished: Result) -> None:
    held = {name: {path.name for path in (finished.folder / name).iterdir()} for name in ("bank", "club")}
    each = {"best.safetensors", "last.safetensors", "job.toml", "site.toml", "metrics.jsonl", "ledger.json",
            "result.json"}  # fmt: skip
    assert held["bank"] == each
    assert held["club"] == each | {"report.html", "record.json", "predictions.csv"}
    assert {path.name for path in finished.folder.iterdir()} == {"bank", "shop", "club", "result.json"}
    epochs = list(map(json.loads, (finished.folder / "club" / "metrics.jsonl").read_text().splitlines()))
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[0]["valid"].keys() == finished.metrics["valid"].keys()
    assert finished.predictions[0].keys() == {"id", "truth", "prediction", "p_yes"}


def test_a_run_can_be_moved(finished: Result, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finished.folder, tmp_path / "elsewhere"))
    again = load_result(moved)
    assert again.summary["run"] == "elsewhere"
    assert again.report == moved / "club" / "report.html"
    assert read_json(moved / "result.json")["report"] == "club/report.html"
