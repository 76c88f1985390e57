"""Progress for people: plain lines in a file, a table at a terminal of any width."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from parties import display
from parties.display import Display, readable_bytes

STEP = {
    "epoch": 1,
    "epochs": 10,
    "step": 3,
    "steps": 100,
    "rows_per_s": 12345.6,
    "sent": 2048,
    "received": 99,
}
EVENTS: list[dict[str, Any]] = [
    {"event": "listening", "party": "club", "address": "tcp://[::1]:5555"},
    {"event": "waiting", "party": "club", "for": ["bank", "shop"], "seconds": 2.0},
    {"event": "stranger", "party": "club", "key": "[bold]{0}%s" + "x" * 30},
    {"event": "started", "party": "bank", "rows": {"train": 6, "valid": 2, "test": 2}},
    {"event": "step", "party": "bank", "loss": None, **STEP},
    {"event": "step", "party": "club", "loss": 0.25, **STEP},
    {"event": "epoch", "party": "bank", "epoch": 1, "epochs": 10, "best": True},
    {"event": "epoch", "party": "club", "epoch": 1, "epochs": 10, "best": True, "loss": 0.5,
     "valid": {"auc": 0.75, "accuracy": 0.5}},
    {"event": "step", "party": "club", "loss": 0.25, **STEP},
    {"event": "phase", "party": "club", "phase": "drawing the report"},
    {"event": "done", "party": "bank", "result": {}},
    {"event": "failed", "party": "club", "error": "job: {x}: " + "a long story " * 9, "exit_code": 2},
    {"event": "ended", "party": "club", "exit_code": 2},
    {"event": "of a later release", "party": "club"},
]  # fmt: skip


def shown(width: int, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, highlight=False)
    with Display(["bank", "club"], console) as sink:
        for event in EVENTS:
            sink(event)
    return text.getvalue()


@pytest.mark.parametrize("width", [200, 90, 80, 40, 12])
def test_a_table_never_wraps(width: int) -> None:
    text = shown(width, terminal=True)
    frames = re.split(r"\x1b\[[0-9;?]*[a-zA-Z]", text)
    for line in "".join(frames).replace("\r", "\n").splitlines():
        if not line.startswith("club: turned away"):  # a key is printed whole, to be pasted
            assert len(line) <= width, line
    assert "club: turned away a stranger: [bold]{0}%s" in text


def test_a_wide_terminal_shows_speed_and_bytes_and_for_whom_a_party_waits() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, highlight=False)
    sink = Display(["bank", "club"], console)
    for event in EVENTS[:6]:
        sink(event)
    console.print(sink._table())
    for words in ("12,346", "2.0 KiB", "1/10", "3/100", "0.2500"):
        assert words in text.getvalue()
    sink = Display(["club"], console)
    sink(EVENTS[1])
    console.print(sink._table())
    assert "waiting for bank and shop (2 s)" in text.getvalue()


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, highlight=False)
    sink = Display(["club"], console)
    sink({"event": "failed", "party": "club", "error": "club.toml: [label] is missing [/b]", "exit_code": 2})
    console.print(sink._table())
    assert "failed: club.toml: [label] is missing [/b]" in text.getvalue()


def test_a_file_gets_plain_lines() -> None:
    lines = shown(40, terminal=False).splitlines()
    assert lines == [
        "club: listening on tcp://[::1]:5555",
        "club: waiting for bank and shop (2 s)",
        "club: turned away a stranger: [bold]{0}%s" + "x" * 30,
        "bank: joined; 6 train, 2 valid, 2 test rows",
        "club: epoch 1/10, loss 0.5000; validation auc 0.7500, accuracy 0.5000 (best so far); "
        "12,346 rows/s, sent 2.0 KiB, received 99 B",
        "club: drawing the report",
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_two_seconds_and_the_last_epoch(clock: list[float]) -> None:
    text = io.StringIO()
    with Display(["club"], Console(file=text, width=80)) as sink:
        for epoch in range(1, 101):
            sink({"event": "epoch", "party": "club", "epoch": epoch, "epochs": 100, "loss": 1.0})
            clock[0] += 0.1
    lines = text.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[-1] == "club: epoch 100/100, loss 1.0000"


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (3 * 2**30, "3.0 GiB"),
     (2**42, "4096.0 GiB")],
)  # fmt: skip
def test_bytes_are_written_as_people_read_them(n: int, words: str) -> None:
    assert readable_bytes(n) == words


def test_a_narrow_terminal_cuts_the_state_short_and_no_number() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=40, highlight=False)
    sink = Display(["bank", "club"], console)
    for event in EVENTS[:6]:
        sink(event)
    sink({"event": "phase", "party": "club", "phase": "drawing the report, which takes long"})
    console.print(sink._table())
    for words in ("1/10", "0.2500", "drawing the"):
        assert words in text.getvalue()
    assert "…" in text.getvalue()


def test_what_several_parties_here_warn_of_is_said_once() -> None:
    text = io.StringIO()
    sink = Display(["bank", "club"], Console(file=text, width=80))
    for party, words in (("bank", "shop has vanished"), ("club", "shop has vanished"), ("bank", "other")):
        sink({"event": "warning", "party": party, "text": words})
    assert text.getvalue() == "bank: warning: shop has vanished\nbank: warning: other\n"
