"""Parties whose tables overlap: what is found, what is trained on it, and what goes wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from processes import Vfl
from small_jobs import NAMES, PEOPLE, keep_people, on_the_network, small_job

from parties.api import Result, run
from parties.predicting import predict
from vfl.config.load import read_toml
from vfl.errors import DataError
from vfl.learn.checkpoint import load_checkpoint

RANDOM = np.random.default_rng(4)
SHARED = sorted(RANDOM.permutation(PEOPLE)[:60].tolist())
LEFT = [number for number in range(PEOPLE) if number not in SHARED]
#: Each party has all the shared people and some of the others, in an order of its own.
OWN = {
    name: RANDOM.permutation([*SHARED, *LEFT[place::4], *LEFT[place + 1 :: 4]]).tolist()
    for place, name in enumerate(NAMES)
}


def overlapping(folder: Path, align: str, **changes: object) -> Path:
    small_job(folder, align=align, **changes)
    keep_people(folder, OWN)
    return folder


def joined_beforehand(folder: Path, **changes: object) -> Path:
    small_job(folder, align="given", **changes)
    keep_people(folder, dict.fromkeys(NAMES, SHARED))
    return folder


def weights(result: Result) -> dict[str, Any]:
    return {
        f"{name}/{part}/{key}": value.tolist()
        for name in NAMES
        for part, tensors in load_checkpoint(result.folder / name, "best").tensors.items()
        for key, value in tensors.items()
    }


@pytest.mark.parametrize("align", ["psi", "ids"])
def test_training_on_overlapping_tables_is_training_on_those_joined_beforehand(
    tmp_path: Path, align: str
) -> None:
    expected = run(joined_beforehand(tmp_path / "given"), in_process=True, out=tmp_path)
    found = run(overlapping(tmp_path / align, align), in_process=True, out=tmp_path)
    assert sum(found.rows.values()) == len(SHARED)
    assert found.summary["table_rows"] == {name: len(own) for name, own in OWN.items()}
    assert found.metrics == expected.metrics
    assert found.alone == expected.alone
    assert found.predictions == expected.predictions
    assert weights(found) == weights(expected)


def test_the_report_and_the_summary_say_how_rows_were_found_and_how_many(
    tmp_path: Path, vfl: Callable[..., Any]
) -> None:
    answer = vfl("run", overlapping(tmp_path / "job", "ids"), "--in-process")
    assert answer.exit_code == 0
    assert f"bank: {len(SHARED)} of its {len(OWN['bank'])} rows shared; sent" in answer.stdout
    page = (tmp_path / "runs" / "small" / "club" / "report.html").read_text(encoding="utf-8")
    assert f"all parties share {len(SHARED)} of the label party’s {len(OWN['club'])} rows" in page
    assert "by salted hashes of the ids, which whoever can guess an id can test" in page
    assert "every party with rows, in aligning by ids" in page


def test_processes_find_and_train_what_one_process_does(tmp_path: Path) -> None:
    folder = overlapping(tmp_path / "job", "psi")
    alone = run(folder, in_process=True, out=tmp_path)
    apart = run(folder, out=tmp_path)
    assert apart.metrics == alone.metrics
    assert weights(apart) == weights(alone)
    assert {row["phase"] for row in apart.ledger["bank"]} >= {"handshake", "align", "train"}


def test_an_unaligned_run_names_the_numbers_of_rows_and_the_remedy(
    tmp_path: Path, vfl: Callable[..., Any]
) -> None:
    answer = vfl("run", overlapping(tmp_path / "job", "given"), "--in-process")
    assert answer.exit_code == 3
    assert "all must hold the same people" in answer.stderr
    assert 'align = "psi"' in answer.stderr


def test_too_few_shared_rows_end_the_run_and_leave_nothing(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    folder = overlapping(tmp_path / "job", "psi", min_rows=61)
    answer = vfl("run", folder, "--in-process")
    assert answer.exit_code == 2
    assert "all parties share 60 of its" in answer.stderr
    assert "61 are wanted" in answer.stderr
    assert not (tmp_path / "runs" / "small").exists()


def test_too_few_shared_rows_are_nobodys_own_fault_on_any_host(
    tmp_path: Path, start: Callable[..., Vfl]
) -> None:
    folder = on_the_network(tmp_path / "net", min_rows=61)
    keep_people(folder, OWN)
    parties = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES}
    assert {name: party.wait() for name, party in parties.items()} == dict.fromkeys(NAMES, 2)
    for party in parties.values():
        assert "min_rows" in party.err
        assert "its own table cannot be used" not in party.err


def test_check_says_what_only_this_table_shows(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    folder = overlapping(tmp_path / "job", "psi", min_rows=71)
    answer = vfl("check", folder)
    assert answer.exit_code == 2
    assert "has 70 rows, and the job wants min_rows = 71" in answer.stderr
    assert "some may not be shared" in answer.stderr
    assert "all parties share" not in answer.stderr


def test_what_cannot_be_read_is_found_before_anyone_aligns(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    folder = overlapping(tmp_path / "job", "psi")
    with (folder / "bank.csv").open("a") as table:
        table.write("stranger,much,1\n")
    answer = vfl("run", folder, "--in-process")
    assert answer.exit_code == 2
    assert "'much' in column 'income' at id 'stranger' is not a number" in answer.stderr
    assert "finding the rows" not in answer.stderr


def test_a_batch_larger_than_the_shared_training_rows_is_refused(
    tmp_path: Path, vfl: Callable[..., Any]
) -> None:
    answer = vfl("run", overlapping(tmp_path / "job", "ids", batch_size=59), "--in-process")
    assert answer.exit_code == 2
    assert "batch_size = 59" in answer.stderr


def test_nobody_in_common_says_what_to_look_at(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", align="psi")
    keep_people(folder, {"bank": range(40), "shop": range(40, 80)})
    with pytest.raises(DataError, match=r"share 0 of its .* the same kind of id at every party"):
        run(folder, in_process=True, out=tmp_path)


def test_predictions_are_of_the_shared_people_in_the_label_partys_order(tmp_path: Path) -> None:
    result = run(overlapping(tmp_path / "job", "psi"), in_process=True, out=tmp_path)
    prediction = predict(result.folder)
    assert prediction.of == len(OWN["club"])
    assert prediction.ids == [f"p{number:03d}" for number in OWN["club"] if number in SHARED]
    test = {row["id"]: float(row["p_yes"]) for row in result.predictions}
    joint = {row["id"]: row["p_yes"] for row in prediction.rows()}
    assert test == {name: pytest.approx(joint[name]) for name in test}


def test_one_person_can_be_predicted(tmp_path: Path) -> None:
    result = run(overlapping(tmp_path / "job", "psi"), in_process=True, out=tmp_path)
    folder = small_job(tmp_path / "new")
    keep_people(folder, {"bank": [7, 8, 9], "shop": [9, 1], "club": [3, 9]})
    tables = {name: folder / f"{name}.csv" for name in NAMES}
    assert predict(result.folder, tables).ids == ["p009"]
    strangers = folder / "strangers.csv"
    strangers.write_text("id,income,debt\nx1,1,2\nx2,2,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"new rows were given for bank only: add --table shop"):
        predict(result.folder, {"bank": strangers})


def test_vfl_align_gives_every_party_one_list_in_one_order(tmp_path: Path, start: Callable[..., Vfl]) -> None:
    folder = on_the_network(tmp_path / "net")
    keep_people(folder, OWN)
    parties = {
        name: start(
            "align", folder / "job.toml", folder / f"{name}.toml", "--out", tmp_path / f"{name}.shared.csv"
        )
        for name in NAMES
    }
    assert {name: party.wait() for name, party in parties.items()} == dict.fromkeys(NAMES, 0)
    lists = [(tmp_path / f"{name}.shared.csv").read_text().splitlines() for name in NAMES]
    assert lists[0] == lists[1] == lists[2]
    assert lists[0][0] == "id"
    found = lists[0][1:]
    assert sorted(found) == sorted(f"p{number:03d}" for number in SHARED)
    assert found != sorted(found)
    assert (
        f"all parties share {len(SHARED)} of the {len(OWN['bank'])} rows of bank.csv" in parties["bank"].err
    )


def test_hosts_align_by_private_set_intersection_unless_told_otherwise(
    tmp_path: Path, start: Callable[..., Vfl]
) -> None:
    folder = on_the_network(tmp_path / "net")
    keep_people(folder, OWN)
    parties = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES}
    assert {name: party.wait() for name, party in parties.items()} == dict.fromkeys(NAMES, 0)
    for name in NAMES:
        assert 'align = "psi"' in (tmp_path / "runs" / "small" / name / "job.toml").read_text()


def test_a_fault_in_one_partys_columns_after_aligning_is_told_to_the_others_as_a_word(
    tmp_path: Path, start: Callable[..., Vfl]
) -> None:
    folder = on_the_network(tmp_path / "net")
    keep_people(folder, OWN)
    spoil(folder / "bank.csv", f"p{SHARED[0]:03d}")
    parties = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES}
    codes = {name: party.wait() for name, party in parties.items()}
    assert codes == {"bank": 2, "shop": 8, "club": 8}
    assert "column 'income'" in parties["bank"].err
    assert f"p{SHARED[0]:03d}" in parties["bank"].err
    for name in ("shop", "club"):
        assert "its own table cannot be used" in parties[name].err
        assert f"p{SHARED[0]:03d}" not in parties[name].err
        assert "income" not in parties[name].err
    assert not (tmp_path / "runs" / "small").exists()


def spoil(path: Path, person: str) -> None:
    """Takes a shared person's income away."""
    lines = path.read_text().splitlines()
    lines = [f"{person},,{line.split(',')[2]}" if line.startswith(person) else line for line in lines]
    path.write_text("\n".join(lines) + "\n")


def test_a_party_killed_while_aligning_ends_all(tmp_path: Path, start: Callable[..., Vfl]) -> None:
    folder = on_the_network(tmp_path / "net")
    many = "id,income,debt\n" + "".join(f"q{number},1,2\n" for number in range(60_000))
    (folder / "bank.csv").write_text(many)
    parties = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES}
    parties["bank"].saw("finding the rows that all share")
    parties["bank"].signal(signal.SIGKILL)
    assert {parties[name].wait() for name in ("shop", "club")} == {4}


def test_a_party_interrupted_while_aligning_ends_all(tmp_path: Path, start: Callable[..., Vfl]) -> None:
    folder = on_the_network(tmp_path / "net")
    many = "id,income,debt\n" + "".join(f"q{number},1,2\n" for number in range(60_000))
    (folder / "bank.csv").write_text(many)
    parties = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in NAMES}
    parties["bank"].saw("finding the rows that all share")
    parties["bank"].signal(signal.SIGINT)
    assert {name: party.wait() for name, party in parties.items()} == {"bank": 130, "shop": 8, "club": 8}
    assert all("Traceback" not in party.err for party in parties.values())
    assert not list((tmp_path / "runs").glob("*"))


def test_hosts_may_list_the_parties_in_orders_of_their_own(tmp_path: Path, start: Callable[..., Vfl]) -> None:
    folder = on_the_network(tmp_path / "net")
    keep_people(folder, OWN)
    job = read_toml(folder / "job.toml")
    parties = {}
    for place, name in enumerate(NAMES):
        turned = dict([*job["parties"].items()][place:] + [*job["parties"].items()][:place])
        mine = folder / f"job-{name}.toml"
        mine.write_text(tomli_w.dumps(job | {"parties": turned}))
        parties[name] = start("align", mine, folder / f"{name}.toml", "--out", tmp_path / f"{name}.out")
    assert {name: party.wait() for name, party in parties.items()} == dict.fromkeys(NAMES, 0)
    assert len({(tmp_path / f"{name}.out").read_text() for name in NAMES}) == 1


def test_a_mistake_in_the_trunk_is_found_before_anyone_aligns(
    tmp_path: Path, vfl: Callable[..., Any]
) -> None:
    folder = overlapping(tmp_path / "job", "psi", club={"trunk": {"preset": "mlpp"}})
    answer = vfl("run", folder, "--in-process")
    assert answer.exit_code == 2
    assert "mlpp" in answer.stderr
    assert "finding the rows" not in answer.stderr


def strange_row(folder: Path) -> None:
    """Gives the shop one row, of a person that no other party knows, with a fourth town and no visits."""
    with (folder / "shop.csv").open("a") as table:
        table.write("stranger,,1,far away\n")


def test_a_row_that_is_not_shared_may_hold_anything(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    untouched = {
        "table": {"source": "shop.csv", "columns": ["visits"], "categorical": ["town"]},
        "prepare": {"encode": "one-hot"},
        "bottom": {"preset": "none"},
    }
    folder = overlapping(tmp_path / "job", "ids", shop=untouched)
    strange_row(folder)
    assert vfl("run", folder, "--in-process").exit_code == 0
    answer = vfl("check", folder)
    assert answer.exit_code == 0
    assert "rows, at the most" in answer.stdout
    assert "warning: shop.toml: table: shop.csv: missing value" in answer.stdout
    assert "unless all parties share that row" in answer.stdout


def test_check_tells_what_aligning_will_cost(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    folder = overlapping(tmp_path / "job", "psi")
    assert "aligning by psi: about 0 s and up to" in vfl("check", folder).stdout
    found = json.loads(vfl("check", folder, "--json").stdout)
    assert found["align"] == "psi"
    result = run(folder, in_process=True, out=tmp_path)
    sent = {
        name: sum(row["sent_bytes"] for row in result.ledger[name] if row["phase"] == "align")
        for name in NAMES
    }
    assert 0 < found["aligning"]["sent_bytes"] < max(sent.values()) < found["aligning"]["sent_bytes"] + 3000


def test_an_exception_for_no_column_is_a_mistake(tmp_path: Path, vfl: Callable[..., Any]) -> None:
    folder = small_job(tmp_path / "job", bank={"prepare": {"columns": {"incom": {"scale": "none"}}}})
    answer = vfl("check", folder)
    assert answer.exit_code == 2
    assert "bank.toml: prepare.columns.incom" in answer.stderr
    assert "did you mean 'income'?" in answer.stderr
