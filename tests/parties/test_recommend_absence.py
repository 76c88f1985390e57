"""A participant that vanishes while a recommendation is trained: who ends, who goes on, with which code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Vfl, all_gone
from small_jobs import SHORT, give_keys
from small_ratings import CLUBS, small_recommender
from test_absence import SLACK_S, ended, no_tracebacks

from parties.api import load_result
from parties.recommending import recommend
from parties.summary import read_json
from vfl.errors import ConfigError

FOR_EVER = 100_000
SOME = 60


@pytest.fixture
def begin(start: Callable[..., Vfl], tmp_path: Path) -> Callable[..., dict[str, Vfl]]:
    """Starts every party of a job as on a host of its own, and waits until they train."""

    def command(**changes: object) -> dict[str, Vfl]:
        folder = small_recommender(tmp_path / "net", timing=SHORT, alone=False, **changes)
        give_keys(folder)
        hosts = {
            name: start("party", folder / "job.toml", folder / f"{name}.toml") for name in (*CLUBS, "carol")
        }
        hosts["carol"].saw("carol: epoch")
        return hosts

    return command


@pytest.mark.parametrize("gone", ["north", "carol"])
def test_whoever_is_killed_ends_all_where_the_job_says_abort(
    begin: Callable[..., dict[str, Vfl]], tmp_path: Path, gone: str
) -> None:
    hosts = begin(epochs=FOR_EVER)
    hosts[gone].signal(signal.SIGKILL)
    others = [name for name in hosts if name != gone]
    assert all_gone([hosts[name].pid for name in others], SLACK_S)
    assert ended(hosts, gone) == dict.fromkeys(others, 4)
    for name in others:
        assert gone in hosts[name].err.splitlines()[-2]
    no_tracebacks(hosts)
    assert not (tmp_path / "runs" / "films").exists()


def test_the_others_go_on_and_recommend_without_who_is_gone(
    begin: Callable[..., dict[str, Vfl]], tmp_path: Path
) -> None:
    hosts = begin(epochs=SOME, on_absence="continue")
    hosts["north"].signal(signal.SIGKILL)
    rest = ("east", "south", "carol")
    assert ended(hosts, "north") == dict.fromkeys(rest, 0), hosts["carol"].err
    no_tracebacks(hosts)
    together = tmp_path / "runs" / "films"
    for name in rest:
        assert hosts[name].err.count(f"{name}: warning: north has vanished; the run goes on without it") == 1
    note = "north vanished, and the run went on without it"
    result = read_json(together / "carol" / "result.json")
    assert [text.startswith(note) for text in result["notes"]].count(True) == 1
    assert note in (together / "carol" / "report.html").read_text(encoding="utf-8")
    assert len(recommend(together, "u07").items) == 10
    with pytest.raises(ConfigError, match="no such user at east or south"):
        recommend(together, "u00")


def test_of_two_participants_nobody_goes_on_alone(begin: Callable[..., dict[str, Vfl]]) -> None:
    hosts = begin(epochs=FOR_EVER, on_absence="continue")
    hosts["north"].signal(signal.SIGKILL)
    hosts["east"].signal(signal.SIGKILL)
    assert ended(hosts, "north", "east") == {"south": 4, "carol": 4}
    no_tracebacks(hosts)


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_a_run_on_one_machine_goes_on_without_a_child_that_is_killed(
    start: Callable[..., Vfl], tmp_path: Path
) -> None:
    folder = small_recommender(tmp_path / "job", epochs=200, on_absence="continue", alone=False)
    local = start("run", folder, "--json")
    local.saw("carol: epoch")
    children = local.children()
    os.kill(children[0], signal.SIGKILL)
    assert local.wait() == 0, local.err
    assert all_gone(children, SLACK_S)
    assert local.err.count("warning: north has vanished; the run goes on without it") == 1
    summary = json.loads(local.out)
    assert sorted(summary["ratings"]) == ["east", "south"]
    assert sorted(summary["bytes"]) == ["carol", "east", "south"]
    result = load_result(tmp_path / "runs" / "films")
    assert result.rows == {
        split: sum(counts[split] for counts in summary["ratings"].values()) for split in result.rows
    }
