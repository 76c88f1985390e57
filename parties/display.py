"""Progress for people, on standard error: a live table at a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from parties.events import Event

_PLAIN_EVERY_S: Final = 2.0
_ALIGN_EVERY_S: Final = 10.0
_STEP_EVERY_S: Final = 10.0
_TELL_AFTER_S: Final = 2.0
_COST: Final = ("rows/s", "sent", "received")
#: The live table's columns, each with the terminal's width from which on there is room for it.
_COLUMNS: Final = {"epoch": 0, "step": 60, "loss": 0, "rows/s": 90, "sent": 90, "received": 90}


def readable_bytes(n: float) -> str:
    """Writes a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError  # pragma: no cover - the last unit takes everything


def readable_seconds(seconds: float) -> str:
    """Writes a duration as people read it."""
    if seconds < 0.95:
        return f"{seconds:.2g} s"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


class Progress:
    """Tells how long a training has still to go, from how far it has come and in which time."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ends: float | None = None
        self._epochs = 0

    def note(self, event: Event) -> None:
        """Takes one event in; what is no part of training ends it."""
        if event["event"] in ("phase", "done", "failed"):
            self._ends = None
        if event["event"] not in ("step", "epoch"):
            return
        now, share = time.monotonic(), event["epoch"]
        if event["event"] == "step":
            share += event["step"] / max(event["steps"], 1) - 1
        self._epochs = event["epochs"]
        # The first step counts for nothing: before it, tables are made and others are waited for.
        began, before = self._began = self._began or (now, share)
        if share > before and now - began >= _TELL_AFTER_S:
            self._ends = now + (now - began) * (self._epochs - share) / (share - before)

    def words(self, before: str) -> str:
        """Says how long it is to the last epoch, with `before` before it; nothing while that is unknown."""
        left = self._ends - time.monotonic() if self._ends is not None else 0.0
        return f"{before}about {readable_seconds(left)} to epoch {self._epochs}" if left > 0 else ""


class Display:
    """Shows the events of one or all parties; use it in a `with` block, as the sink of a run."""

    def __init__(self, parties: list[str], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._rows: dict[str, dict[str, Any]] = {name: {"state": "starting"} for name in parties}
        self._is_live = self._console.is_terminal
        self._printed: dict[str, float] = {}
        self._warned: set[str] = set()
        self._started = time.monotonic()
        self._progress = Progress()
        self._live = Live(
            console=self._console, get_renderable=self._table, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Takes one event in."""
        row = self._rows.setdefault(event["party"], {"state": "starting"})
        _SHOW.get(event["event"], _show_nothing)(row, event)
        self._progress.note(event)
        line = self._line(event)
        if event["event"] == "warning":  # in a run on one machine several parties may say the same
            line = "" if event["text"] in self._warned else line
            self._warned.add(event["text"])
        if line:
            self._console.print(Text(line, style="yellow" if event["event"] in _LOUD else ""), soft_wrap=True)

    def _line(self, event: Event) -> str:
        """Says what is worth a line of its own: at a terminal only what the table cannot show."""
        always = _ALWAYS.get(event["event"])
        if always:
            return always.format(**event)
        if self._is_live:
            return ""
        if event["event"] == "waiting":
            line = f"{event['party']}: waiting for {_names(event['for'])} ({event['seconds']:.0f} s)"
            return self._seldom(event["party"], line, max(_PLAIN_EVERY_S, event["seconds"] / 4))
        if event["event"] == "align":
            line = f"{event['party']}: {_aligning(self._rows[event['party']], event)}"
            return (
                line
                if event["done"] == event["total"]
                else self._seldom(event["party"], line, _ALIGN_EVERY_S)
            )
        if event["event"] in ("step", "epoch"):
            return self._training(event)
        if event["event"] == "started":
            return f"{event['party']}: joined; {_counts(event['rows'], event.get('kind', 'rows'))}"
        return _PLAIN.get(event["event"], "").format(**event)

    def _training(self, event: Event) -> str:
        """Says how training goes; where epochs are long, between their ends too."""
        if event["event"] == "step":
            self._printed.setdefault("step", time.monotonic())
            if event["loss"] is None and len(self._rows) > 1:
                return ""  # the label party says it for all
            place = f"epoch {event['epoch']}/{event['epochs']}, step {event['step']}/{event['steps']}"
            line = f"{event['party']}: {place}{self._progress.words(', ')}"
            return self._seldom("step", line, _STEP_EVERY_S)
        if event.get("loss") is None and not event.get("valid"):
            return ""
        line = _epoch_line(event, self._rows[event["party"]]) + self._progress.words("; ")
        is_last = event["epoch"] == event["epochs"]
        line = self._seldom("epoch", line, 0.0 if is_last else _PLAIN_EVERY_S)
        if line:
            self._printed["step"] = time.monotonic()
        return line

    def _seldom(self, topic: str, line: str, every_s: float = _PLAIN_EVERY_S) -> str:
        now = time.monotonic()
        if now - self._printed.get(topic, 0.0) < every_s:
            return ""
        self._printed[topic] = now
        return line

    def _table(self) -> Table:
        shown = [name for name, columns in _COLUMNS.items() if self._console.width >= columns]
        table = Table(box=None, padding=(0, 1), expand=False)
        table.add_column("party", no_wrap=True)
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        lines = [[party, *(row.get(name, "") for name in shown)] for party, row in self._rows.items()]
        taken = sum(2 + max(map(len, column)) for column in zip(["party", *shown], *lines, strict=True))
        left = max(1, self._console.width - taken - 2)  # the state alone is cut short where room is scarce
        table.add_column("", no_wrap=True, overflow="ellipsis", max_width=left)
        for line, row in zip(lines, self._rows.values(), strict=True):
            # As text: a cell that is a string would be read for markup, and an error may hold "[label]".
            table.add_row(*map(Text, [*line, row["state"]]))
        table.caption = f"{time.monotonic() - self._started:.0f} s{self._progress.words(', ')}"
        return table


def _epoch_line(event: Event, row: dict[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in list(event.get("valid", {}).items())[:2])
    best = " (best so far)" if event.get("best") else ""
    scored = f"; validation {scores}{best}" if scores else ""
    known = [
        f"{row[name]} rows/s" if name == "rows/s" else f"{name} {row[name]}" for name in _COST if name in row
    ]
    cost = f"; {', '.join(known)}" if known else ""
    loss = f", loss {event['loss']:.4f}" if event.get("loss") is not None else ""
    return f"{event['party']}: epoch {event['epoch']}/{event['epochs']}{loss}{scored}{cost}"


def _show_nothing(row: dict[str, Any], event: Event) -> None:
    pass


def _show_step(row: dict[str, Any], event: Event) -> None:
    row["epoch"], row["step"] = f"{event['epoch']}/{event['epochs']}", f"{event['step']}/{event['steps']}"
    if event["rows_per_s"] is not None:
        row["rows/s"] = f"{event['rows_per_s']:,.0f}"
    if event["loss"] is not None:
        row["loss"] = f"{event['loss']:.4f}"
    _show_bytes(row, event)
    if not row["state"].startswith("best"):
        row["state"] = "training"


def _show_epoch(row: dict[str, Any], event: Event) -> None:
    row["epoch"] = f"{event['epoch']}/{event['epochs']}"
    if event.get("loss") is not None:
        row["loss"] = f"{event['loss']:.4f}"
    _show_bytes(row, event)
    scores = list(event.get("valid", {}).items())[:1]
    if scores and event.get("best"):
        row["state"] = f"best validation {scores[0][0]} {scores[0][1]:.4f}"


def _show_bytes(row: dict[str, Any], event: Event) -> None:
    for key in ("sent", "received"):
        if key in event:
            row[key] = readable_bytes(event[key])


def _show_align(row: dict[str, Any], event: Event) -> None:
    row["state"] = _aligning(row, event)


def _aligning(row: dict[str, Any], event: Event) -> str:
    """Says how far aligning has come and, once that can be told, how long it will take."""
    now, done, total = time.monotonic(), event["done"], max(event["total"], 1)
    began, before = row.setdefault("aligning since", (now, done))
    words = f"finding the rows that all share: {100 * done // total} %"
    if total > done > before and now - began > 1.0:
        words += f", about {(now - began) * (total - done) / (done - before):.0f} s left"
    return words


def _show_waiting(row: dict[str, Any], event: Event) -> None:
    row["state"] = f"waiting for {_names(event['for'])} ({event['seconds']:.0f} s)"


def _state(text: str) -> Any:  # noqa: ANN401 - a function of row and event
    def show(row: dict[str, Any], event: Event) -> None:
        row["state"] = text.format(**event)

    return show


_SHOW: Final = {
    "step": _show_step,
    "epoch": _show_epoch,
    "waiting": _show_waiting,
    "listening": _state("listening on {address}"),
    "align": _show_align,
    "started": _state("joined"),
    "phase": _state("{phase}"),
    "done": _state("done"),
    "failed": _state("failed: {error}"),
    "vanished": _state("vanished"),
}
_ALWAYS: Final = {
    "stranger": "{party}: turned away a stranger: {key}",
    "warning": "{party}: warning: {text}",
    "notice": "notice: {text}",
}
_PLAIN: Final = {"listening": "{party}: listening on {address}", "phase": "{party}: {phase}"}
_LOUD: Final = ("stranger", "warning", "notice")


def _names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _counts(rows: dict[str, int], kind: str) -> str:
    if "all" in rows:
        return f"{rows['all']} {kind}"
    return ", ".join(f"{count} {name}" for name, count in rows.items()) + f" {kind}" if rows else f"no {kind}"
