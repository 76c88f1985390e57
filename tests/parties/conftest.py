"""Commands to run a small job with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from processes import Vfl
from small_jobs import small_job

from parties.cli import cli


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[..., Path]:
    return lambda **changes: small_job(tmp_path / "job", **changes)


@pytest.fixture
def vfl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in this process, in the test's own folder."""

    def command(*words: object) -> Result:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            return CliRunner().invoke(cli, [str(word) for word in words])

    return command


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Vfl]]:
    """Starts commands as processes, and makes sure that none is left."""
    started: list[Vfl] = []

    def command(*words: object, env: dict[str, str] | None = None, unread: bool = False) -> Vfl:
        started.append(Vfl(*words, cwd=tmp_path, env=env, unread=unread))
        return started[-1]

    yield command
    for process in started:
        process.end()
