"""What `vfl check` prints fits the terminal, and says what holds of several parties once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from small_jobs import small_job
from small_ratings import small_recommender


@pytest.mark.parametrize("make", [small_job, small_recommender])
def test_no_line_is_wider_than_the_terminal(
    tmp_path: Path,
    vfl: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Path],
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long = "a-name-that-takes-some-room"
    lines = vfl("check", make(tmp_path / "job", name=long)).stdout.splitlines()
    assert lines[0].startswith(f"{long}: valid; ")
    assert max(map(len, lines)) <= 60


def test_what_all_participants_learn_is_said_once(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    words = vfl("check", small_recommender(tmp_path / "job")).stdout
    assert words.count("The shared factors after every step") == 1
    assert "north, east and south: The shared factors" in words
