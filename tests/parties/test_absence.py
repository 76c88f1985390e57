"""A party that vanishes in a run of masked sums: who ends, who goes on, and what each is told."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result as Output
from processes import Vfl, all_gone
from small_jobs import on_the_network, small_job, summed
from test_coordinator import weights

from parties.api import load_result, run
from parties.summary import read_json

FOUR = ("bank", "shop", "club", "carol")
FOR_EVER = 100_000
#: Enough to be still under way when the first epoch's line has been read.
SOME = 40
SLACK_S = 8.0


@pytest.fixture
def begin(start: Callable[..., Vfl], tmp_path: Path) -> Callable[..., dict[str, Vfl]]:
    """Starts every party of a job as on a host of its own, and waits until they train."""

    def command(**changes: object) -> dict[str, Vfl]:
        folder = on_the_network(tmp_path / "net", **(summed(align="given") | changes))
        names = [path.stem for path in folder.glob("*.secret")]
        hosts = {name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in names}
        hosts["club"].saw("club: epoch")
        return hosts

    return command


def ended(hosts: dict[str, Vfl], *without: str) -> dict[str, int]:
    return {name: host.wait() for name, host in hosts.items() if name not in without}


def no_tracebacks(hosts: dict[str, Vfl]) -> None:
    for host in hosts.values():
        assert "Traceback" not in host.err
        assert "fault in the framework" not in host.err


@pytest.mark.parametrize("gone", ["bank", "club", "carol"])
def test_whoever_is_killed_ends_all_where_the_job_says_abort(
    begin: Callable[..., dict[str, Vfl]], tmp_path: Path, gone: str
) -> None:
    hosts = begin(epochs=FOR_EVER)
    hosts[gone].signal(signal.SIGKILL)
    others = [name for name in FOUR if name != gone]
    assert all_gone([hosts[name].pid for name in others], SLACK_S)
    assert ended(hosts, gone) == dict.fromkeys(others, 4)
    for name in others:
        assert gone in hosts[name].err.splitlines()[-2]
        assert hosts[name].err.splitlines()[-1].startswith("vfl: what was trained so far is kept in ")
    no_tracebacks(hosts)
    assert not (tmp_path / "runs" / "small").exists()


@pytest.mark.parametrize("gone", ["club", "carol"])
def test_without_the_label_party_or_the_coordinator_nobody_goes_on(
    begin: Callable[..., dict[str, Vfl]], gone: str
) -> None:
    hosts = begin(epochs=FOR_EVER, on_absence="continue")
    hosts[gone].signal(signal.SIGKILL)
    assert all_gone([host.pid for name, host in hosts.items() if name != gone], SLACK_S)
    assert set(ended(hosts, gone).values()) == {4}
    no_tracebacks(hosts)


def test_a_single_contributor_does_not_go_on(begin: Callable[..., dict[str, Vfl]]) -> None:
    hosts = begin(epochs=FOR_EVER, on_absence="continue")
    hosts["bank"].signal(signal.SIGKILL)
    hosts["shop"].signal(signal.SIGKILL)
    assert ended(hosts, "bank", "shop") == {"club": 4, "carol": 4}
    assert re.search(
        r"(bank|shop): was lost, and without it too few contribute for masks", hosts["carol"].err
    )
    assert "carol: ended the run: a peer was lost (" in hosts["club"].err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_the_others_go_on_and_predict_without_who_is_gone(
    begin: Callable[..., dict[str, Vfl]], start: Callable[..., Vfl], tmp_path: Path, how: signal.Signals
) -> None:
    hosts = begin(epochs=SOME, on_absence="continue")
    hosts["bank"].signal(how)
    assert hosts["bank"].wait() == (-9 if how == signal.SIGKILL else 130)
    rest = ("shop", "club", "carol")
    assert ended(hosts, "bank") == dict.fromkeys(rest, 0), hosts["club"].err
    no_tracebacks(hosts)
    together = tmp_path / "runs" / "small"
    for name in rest:
        assert hosts[name].err.count(f"{name}: warning: bank has vanished; the run goes on without it") == 1
        notes = read_json(together / name / "result.json")["notes"]
        assert len(notes) == 1
        assert "bank" in notes[0]
    note = read_json(together / "club" / "record.json")["notes"][0]
    assert note in (together / "club" / "report.html").read_text(encoding="utf-8")
    assert note[:40] in hosts["club"].out

    hosts = {name: start("predict", together / name) for name in rest}
    assert ended(hosts) == dict.fromkeys(rest, 0), hosts["carol"].err
    assert len(hosts["club"].out.splitlines()) == 81


def test_the_label_party_that_sums_goes_on_with_two_others(
    begin: Callable[..., dict[str, Vfl]], start: Callable[..., Vfl], tmp_path: Path
) -> None:
    parties = {"carol": None, "mall": {"role": "feature", "width": 4}}
    hosts = begin(epochs=SOME, on_absence="continue", **summed(parties))
    hosts["bank"].signal(signal.SIGKILL)
    rest = ("shop", "mall", "club")
    assert ended(hosts, "bank") == dict.fromkeys(rest, 0), hosts["club"].err
    predicts = {name: start("predict", tmp_path / "runs" / "small" / name) for name in rest}
    assert ended(predicts) == dict.fromkeys(rest, 0), predicts["club"].err


def test_who_comes_back_is_told_that_the_others_went_on(
    begin: Callable[..., dict[str, Vfl]], start: Callable[..., Vfl], tmp_path: Path
) -> None:
    hosts = begin(epochs=FOR_EVER, on_absence="continue")
    hosts["bank"].signal(signal.SIGKILL)
    hosts["carol"].saw("carol: warning: bank has vanished; the run goes on without it")
    back = start("party", tmp_path / "net" / "job.toml", tmp_path / "net" / "bank.toml")
    assert back.wait() == 4
    assert back.err.splitlines()[-1] == "vfl: carol: goes on without this party, which was away too long"
    assert not hosts["shop"].err.count("vfl: ")
    hosts["club"].signal(signal.SIGINT)
    assert ended(hosts, "bank") == {"shop": 8, "club": 130, "carol": 8}
    no_tracebacks(hosts)
    kept = {path.name for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")}
    assert all(name.startswith("small.stopped") for name in kept)
    assert len([path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".")]) == 1  # killed


#: A party that is frozen for longer than about a second counts as lost.
HASTY = {"join_s": 30.0, "hear_s": 20.0, "reconnect_s": 0.3, "heartbeat_s": 0.2}


@pytest.mark.parametrize("frozen", ["bank", "carol"])
def test_a_run_that_waits_outlives_a_frozen_party_and_trains_the_same(
    begin: Callable[..., dict[str, Vfl]], tmp_path: Path, frozen: str
) -> None:
    hosts = begin(epochs=SOME, timing=HASTY, on_absence="wait", patience_s=30.0)
    hosts[frozen].signal(signal.SIGSTOP)
    witness = "club" if frozen == "carol" else "carol"
    hosts[witness].saw(f"{witness}: waiting for {frozen} (")
    hosts[frozen].signal(signal.SIGCONT)
    assert ended(hosts) == dict.fromkeys(hosts, 0), hosts[witness].err
    alone = run(tmp_path / "net", in_process=True, out=tmp_path / "alone")
    assert weights(tmp_path / "runs" / "small") == weights(alone.folder)
    assert read_json(tmp_path / "runs" / "small" / "club" / "result.json")["metrics"] == alone.metrics


def test_a_frozen_party_ends_a_run_that_does_not_wait(begin: Callable[..., dict[str, Vfl]]) -> None:
    hosts = begin(epochs=FOR_EVER, timing=HASTY)
    hosts["bank"].signal(signal.SIGSTOP)
    assert ended(hosts, "bank") == {"shop": 4, "club": 4, "carol": 4}


def test_a_frozen_party_is_left_behind_by_a_run_that_goes_on(begin: Callable[..., dict[str, Vfl]]) -> None:
    hosts = begin(epochs=SOME, timing=HASTY, on_absence="continue")
    hosts["bank"].signal(signal.SIGSTOP)
    assert ended(hosts, "bank") == {"shop": 0, "club": 0, "carol": 0}
    hosts["bank"].signal(signal.SIGCONT)
    assert hosts["bank"].wait() == 4
    assert "Traceback" not in hosts["bank"].err


def test_a_killed_party_is_waited_for_no_longer_than_the_job_says(
    begin: Callable[..., dict[str, Vfl]],
) -> None:
    hosts = begin(epochs=FOR_EVER, timing=HASTY, on_absence="wait", patience_s=2.5)
    hosts["bank"].signal(signal.SIGKILL)
    assert not all_gone([hosts["carol"].pid], 1.5)
    assert all_gone([host.pid for name, host in hosts.items() if name != "bank"], 2.5 + SLACK_S)
    assert ended(hosts, "bank") == {"shop": 4, "club": 4, "carol": 4}
    assert "bank: " in hosts["carol"].err


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_a_run_on_one_machine_goes_on_without_a_child_that_is_killed(
    start: Callable[..., Vfl], vfl: Callable[..., Output], tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", **summed(epochs=SOME, on_absence="continue"))
    local = start("run", folder)
    local.saw("club: epoch")
    children = local.children()
    os.kill(children[0], signal.SIGKILL)
    assert local.wait() == 0, local.err
    assert all_gone(children, SLACK_S)
    assert local.err.count("warning: bank has vanished; the run goes on without it") == 1
    assert "note: bank vanished, and the run went on without it" in " ".join(local.out.split())
    assert "bank: sent" not in local.out
    result = load_result(tmp_path / "runs" / "small")
    assert len(result.summary["notes"]) == 1
    assert sorted(result.ledger) == ["carol", "club", "shop"]
    answer = vfl("predict", result.folder, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["rows"] == 80
    assert vfl("report", result.folder).exit_code == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small"]
