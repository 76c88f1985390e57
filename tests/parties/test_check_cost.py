"""What `vfl check` says of a run's time and bytes before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Output
from small_jobs import encrypted, keep_people, small_job

import protocols
from parties import run
from parties.assembly import Assembly, assemble, assemble_folder, load_placed_site
from parties.check import Duration, check, duration_of
from parties.cores import share_of_cores
from parties.printing import print_check
from vfl.config.load import load_job
from vfl.session import Session

#: 48 of the small job's 80 people train in three batches of 16; the others are a batch each.
ROWS = {"train": 48, "valid": 16, "test": 16}


class Stopwatch:
    """Takes the place of a protocol's measurement, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, session: Session, **asked: Any) -> Callable[[int, bool], float]:  # noqa: ANN401
        self.asked.append(asked)
        return lambda rows, learning: rows * (1.0 if learning else 0.25)

    def on(self, assembly: Assembly) -> Assembly:
        return replace(assembly, protocol=replace(assembly.protocol, step_seconds=self))


def test_a_training_is_all_its_steps_and_the_test_rows(tmp_path: Path) -> None:
    watch = Stopwatch()
    assembly = watch.on(assemble_folder(small_job(tmp_path / "job", epochs=5)))
    share = share_of_cores(3)
    an_epoch = 48 + 16 / 4
    assert duration_of(assembly, ROWS) == Duration(share, 16.0, an_epoch, 5 * an_epoch + 4)
    assert watch.asked == [{"cores": share, "steps": 15}]
    assert duration_of(assembly, None) == Duration(share, 16.0)
    assert watch.asked[1]["steps"] >= 2**20


def test_who_has_the_machine_alone_has_all_its_cores_and_a_site_may_say_how_many(tmp_path: Path) -> None:
    folder, watch = small_job(tmp_path / "job"), Stopwatch()
    job = load_job(folder / "job.toml")
    placed = load_placed_site(folder / "bank.toml")
    assembly = watch.on(assemble(job, {"bank": placed}, between_hosts=True))
    for address, cores in (
        ("tcp://bank.example:5555", share_of_cores(1)),
        ("tcp://127.0.0.1:5555", share_of_cores(3)),
    ):
        club = job.parties["club"].model_copy(update={"address": address})
        there = job.model_copy(update={"parties": job.parties | {"club": club}})
        found = duration_of(replace(assembly, job=there), None)
        assert found is not None
        assert found.cores == cores
    threads = load_placed_site(folder / "bank.toml", ["threads=3"])
    assert duration_of(replace(assembly, sites={"bank": threads}), None) == Duration(3, 16.0)


def test_the_time_is_printed_with_what_it_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assembly = Stopwatch().on(assemble_folder(small_job(tmp_path / "job", epochs=5)))
    found = check(assembly)
    print_check(found)
    said = " ".join(capsys.readouterr().out.split())
    counts = found.sites[0].rows
    assert found.duration is not None
    assert found.duration.seconds_an_epoch == counts["train"] + counts["valid"] / 4
    assert "time, at 16 rows a step: about 16 s a step" in said
    assert "for 5 epochs: measured on this machine" in said
    assert "takes the other side's machine to be as fast as this one" in said
    assert found.to_json()["time"]["seconds_a_step"] == 16.0


def test_a_protocol_that_says_nothing_of_time_has_none(vfl: Callable[..., Output], tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    assert json.loads(vfl("check", folder, "--json").stdout)["time"] is None
    assert "time" not in vfl("check", folder).stdout


def test_rows_are_taken_to_be_no_more_than_the_smallest_table_has(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", align="ids")
    keep_people(folder, {"shop": range(60)})
    found = check(assemble_folder(folder))
    an_epoch = next(row for row in found.traffic if row["party"] == "bank")["sent_an_epoch"]
    keep_people(folder, {name: range(60) for name in ("bank", "club")})
    fewer = check(assemble_folder(folder)).traffic[0]["sent_an_epoch"]
    assert an_epoch == fewer


def test_bytes_in_all_are_those_of_every_epoch_and_the_test_rows(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", epochs=3)
    finished = run(folder, in_process=True, out=tmp_path / "runs")
    for row in check(assemble_folder(folder)).traffic:
        booked = [b for b in finished.ledger[row["party"]] if b["phase"] in ("train", "valid", "test")]
        for way in ("sent", "received"):
            in_all = sum(b[f"{way}_bytes"] for b in booked)
            assert in_all <= row[f"{way}_in_all"] <= 1.5 * in_all, (row, in_all)


@pytest.mark.parametrize("words", [["job.toml"], ["job.toml", "bank.toml"], ["."]])
def test_check_measures_the_paillier_cut(
    vfl: Callable[..., Output], tmp_path: Path, words: list[str]
) -> None:
    folder = small_job(tmp_path / "job", **encrypted(encryption="paillier", key_bits=512))
    paths = [folder / word for word in words]
    said = vfl("check", *paths)
    assert said.exit_code == 0, said.output
    flat = " ".join(said.stdout.split())
    assert "time, at 16 rows a step" in flat
    assert "a step" in flat.partition("time, at")[2]
    assert ("for 2 epochs" in flat) == (words != ["job.toml"])
    assert max(map(len, said.stdout.splitlines())) <= 100
    found = json.loads(vfl("check", *paths, "--json").stdout)["time"]
    assert 0 < found["seconds_a_step"] < 5
    assert (found["seconds_in_all"] is None) == (words == ["job.toml"])


def test_hooks_are_read_from_a_protocols_module() -> None:
    paillier, splitnn = protocols.load("paillier"), protocols.load("splitnn")
    for hook in ("layers", "joint_widths", "step_seconds"):
        assert getattr(paillier, hook) is getattr(paillier.module, hook)
        assert getattr(splitnn, hook) is None
