"""How long a training has still to go, at a terminal and in a file."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from parties import display
from parties.display import Display, readable_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def step(epoch: int, number: int, party: str = "club", loss: float | None = 0.5) -> dict[str, Any]:
    return {
        "event": "step", "party": party, "epoch": epoch, "epochs": 4, "step": number, "steps": 10,
        "loss": loss, "rows_per_s": None,
    }  # fmt: skip


def epoch(number: int) -> dict[str, Any]:
    return {"event": "epoch", "party": "club", "epoch": number, "epochs": 4, "loss": 0.5}


def train(sink: Display, clock: list[float], seconds_a_step: float, until: tuple[int, int]) -> None:
    """Tells of every step of both parties up to one, as a run does."""
    for number in range(1, 5):
        for place in range(1, 11):
            sink(step(number, place))
            sink(step(number, place, "bank", None))
            if (number, place) == until:
                return
            clock[0] += seconds_a_step
        sink(epoch(number))


def test_a_file_is_told_how_long_slow_epochs_take_and_no_more_than_every_ten_seconds(
    clock: list[float],
) -> None:
    text = io.StringIO()
    with Display(["club", "bank"], Console(file=text, width=80)) as sink:
        train(sink, clock, 3.0, (2, 1))
    lines = text.getvalue().splitlines()
    # 12 s after the first step 4 of the 39 others are done; and 12 s after that, 8.
    assert lines == [
        "club: epoch 1/4, step 5/10, about 1.8 min to epoch 4",
        "club: epoch 1/4, step 9/10, about 93 s to epoch 4",
        "club: epoch 1/4, loss 0.5000; about 1.7 min to epoch 4",
    ]


def test_where_epochs_are_quick_steps_are_not_told_of(clock: list[float]) -> None:
    text = io.StringIO()
    with Display(["club", "bank"], Console(file=text, width=80)) as sink:
        train(sink, clock, 0.5, (4, 10))
        sink(epoch(4))
    assert [re.sub(",.*", "", line) for line in text.getvalue().splitlines()] == [
        f"club: epoch {number}/4" for number in (1, 2, 3, 4)
    ]
    assert "to epoch" not in text.getvalue().splitlines()[-1]


def test_a_party_alone_on_its_host_is_told_of_its_steps_too(clock: list[float]) -> None:
    text = io.StringIO()
    with Display(["bank"], Console(file=text, width=80)) as sink:
        for place in range(1, 9):
            sink(step(1, place, "bank", None))
            clock[0] += 5.0
    assert text.getvalue().splitlines()[0] == "bank: epoch 1/4, step 3/10, about 3.1 min to epoch 4"


def test_a_terminal_counts_down_and_stops_when_training_is_over(clock: list[float]) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, highlight=False)
    sink = Display(["club"], console)

    def caption() -> str:
        return str(sink._table().caption)

    assert caption() == "0 s"
    sink(step(1, 1))
    assert caption() == "0 s"  # nothing is known after one step
    clock[0] += 10.0
    sink(step(2, 1))
    assert caption() == "10 s, about 29 s to epoch 4"
    clock[0] += 9.0  # a long step: time goes on
    assert caption() == "19 s, about 20 s to epoch 4"
    sink({"event": "phase", "party": "club", "phase": "drawing the report"})
    assert caption() == "19 s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.0312, "0.031 s"), (0.96, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"),
     (99.6, "1.7 min"), (599, "10 min"), (5969, "99 min"), (6000, "1.7 h"), (360_000, "100.0 h")],
)  # fmt: skip
def test_durations_are_written_as_people_read_them(seconds: float, words: str) -> None:
    assert readable_seconds(seconds) == words
