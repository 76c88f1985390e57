"""Runs all parties of a job on this machine: one process each over encrypted loopback, or all in one."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from parties.assembly import Assembly
from parties.catalogues import check_catalogues
from parties.cores import share_of_cores, threads_for
from parties.events import Event, RunJournal, Sink
from parties.finishing import finish, now
from parties.fitting import DISPENSABLE
from parties.party import predictor_seat, take_seat
from parties.seat import Played, Seat
from parties.strays import stray_sites
from parties.trained import Trained
from vfl.errors import EXIT_INTERNAL, Interrupted, PeerLost, VflError
from vfl.wire.rehearse import rehearse
from vfl.wire.zeromq import KeyPair, make_keys

#: Begins a child where this process found its own packages, and never with a stranger's from the
#: working folder.
_HOME: Final = str(Path(__file__).resolve().parent.parent)
_CHILD: Final = "import sys; sys.path.append(sys.argv[1]); from parties.child import main; sys.exit(main())"

_GRACE_S: Final = 4.0
_KILL_AFTER_S: Final = 2.0
_REMOTE_KINDS: Final = frozenset({"PeerLost", "PeerAborted", "PeerTimeout", "Interrupted"})


class PartyFailed(VflError):
    """Is raised when a party's process has ended early; carries its words and its exit code."""

    def __init__(self, party: str, error: str, exit_code: int, kind: str, where: str = "") -> None:
        super().__init__(f"{party}: {error}")
        self.party = party
        self.exit_code = exit_code
        self.kind = kind
        self.where = where


# --- all in one process ----------------------------------------------------------------------------


def train_in_process(
    assembly: Assembly, folders: Mapping[str, Path], sink: Sink
) -> dict[str, dict[str, Any]]:
    """Trains all parties in this process, through the real codec; returns each party's result.

    Raises:
        VflError: the first that a party raises.
    """
    started, clock = now(), time.perf_counter()
    _look_over(assembly, sink)
    keys = {name: make_keys() for name in assembly.job.parties}
    assembly = _with_fresh_keys(assembly, keys)
    journals: dict[str, RunJournal] = {}
    seats: dict[str, Seat[Played]] = {}
    # As many threads as each process would have: sums over other numbers of threads round otherwise.
    with threads_for(share_of_cores(len(assembly.job.parties))):
        try:
            for name in assembly.job.parties:
                seats[name], journals[name] = take_seat(assembly, name, folders[name], sink, keys[name])
            played = _rehearse(seats)
            for name, journal in journals.items():
                journal.ledger = played.ledgers[name]
            return {
                name: finish(assembly, played.results[name], journals[name], started, clock) for name in seats
            }
        finally:
            for journal in journals.values():
                journal.close()


def predict_in_process(assembly: Assembly, trained: Mapping[str, Trained], sink: Sink) -> Played:
    """Predicts with all parties in this process; returns the label party's part and raw outputs.

    Raises:
        VflError: the first that a party raises.
    """
    with threads_for(share_of_cores(len(assembly.job.parties))):
        keys = {name: make_keys() for name in assembly.job.parties}
        assembly = _with_fresh_keys(assembly, keys)
        seats = {
            name: predictor_seat(assembly, name, trained[name], sink, keys[name])
            for name in assembly.job.parties
        }
        played: Played = _rehearse(seats).results[assembly.reporter]
        return played


def _rehearse(seats: Mapping[str, Seat[Played]]) -> Any:  # noqa: ANN401 - a Rehearsal
    first = next(iter(seats.values()))
    return rehearse(
        {name: seat.role for name, seat in seats.items()},
        first.kinds,
        streams={name: seat.stream for name, seat in seats.items()},
        record=False,
    )


# --- one process each ------------------------------------------------------------------------------


@dataclass
class _Child:
    party: str
    process: subprocess.Popen[bytes]
    result: Any = None
    failure: PartyFailed | None = None
    ended: bool = False


def train_in_processes(
    assembly: Assembly, folders: Mapping[str, Path], sink: Sink
) -> dict[str, dict[str, Any]]:
    """Trains all parties, one process each, over CURVE on loopback; returns each party's result.

    A party that the others went on without has none.

    Raises:
        PartyFailed: the party that failed first, for a reason of its own.
        Interrupted: on Ctrl-C, after all parties have ended.
    """
    _look_over(assembly, sink)
    keys = {name: make_keys() for name in assembly.job.parties}
    assembly = _with_fresh_keys(assembly, keys)
    events: queue.Queue[Event] = queue.Queue()
    children: dict[str, _Child] = {}
    try:
        for name in assembly.job.parties:
            children[name] = _start(assembly, name, folders[name], keys[name], events)
        _follow(assembly, children, events, sink)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; all parties have been ended") from error
    finally:
        _end(children)
    return {name: child.result for name, child in children.items() if child.result is not None}


def _look_over(assembly: Assembly, sink: Sink) -> None:
    """Finds what no party can by itself, since only here all their files are at hand.

    Raises:
        DataError: if participants disagree on the items.
    """
    for words in stray_sites(assembly):
        sink({"event": "notice", "party": assembly.reporter, "text": words})
    check_catalogues(assembly)


def _with_fresh_keys(assembly: Assembly, keys: Mapping[str, KeyPair]) -> Assembly:
    """Gives every party a key for this run alone: local parties need no key files."""
    parties = {
        name: party.model_copy(update={"public_key": keys[name].public, "address": None})
        for name, party in assembly.job.parties.items()
    }
    return replace(assembly, job=assembly.job.model_copy(update={"parties": parties}))


def _start(assembly: Assembly, name: str, into: Path, keys: KeyPair, events: queue.Queue[Event]) -> _Child:
    placed = assembly.sites[name]
    threads = placed.site.threads or share_of_cores(len(assembly.job.parties))
    spec = {
        "party": name,
        "job": assembly.job.model_dump(mode="json"),
        "site": placed.site.model_dump(mode="json"),
        "notes": assembly.notes,
        "folder": str(placed.folder),
        "into": str(into.resolve()),
        "keys": {"public": keys.public, "secret": keys.secret},
        "threads": threads,
    }
    process = subprocess.Popen(  # noqa: S603 - this Python, and code of ours
        [sys.executable, "-P", "-c", _CHILD, _HOME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        start_new_session=True,  # Ctrl-C comes to us alone, and we end the parties in order
    )
    child = _Child(name, process)
    _write(process.stdin, spec)
    threading.Thread(target=_read, args=(child, events), daemon=True).start()
    return child


def _read(child: _Child, events: queue.Queue[Event]) -> None:
    assert child.process.stdout is not None  # noqa: S101 - it was asked for
    with child.process.stdout as lines:
        for line in lines:
            with suppress(msgspec.DecodeError):  # the last line of a process that was killed
                events.put(msgspec.json.decode(line))
    events.put({"event": "ended", "party": child.party, "exit_code": child.process.wait()})


def _follow(assembly: Assembly, children: dict[str, _Child], events: queue.Queue[Event], sink: Sink) -> None:
    give_up_at: float | None = None
    while not all(child.ended for child in children.values()):
        try:
            event = events.get(timeout=0.2)
        except queue.Empty:
            event = None
        if event is not None:
            _heed(assembly, children, event, sink)
        failed = [child for child in children.values() if child.failure and not _can_go(assembly, child)]
        if failed and give_up_at is None:
            give_up_at = time.monotonic() + _GRACE_S  # the others hear of it by themselves
        if give_up_at is not None and time.monotonic() > give_up_at:
            break
    failures = [child.failure for child in children.values() if child.failure]
    if any(child.failure and not _can_go(assembly, child) for child in children.values()):
        raise _root_cause(failures)


def _can_go(assembly: Assembly, child: _Child) -> bool:
    """Tells whether the others can go on without a party that has failed."""
    job = assembly.job
    return job.on_absence == "continue" and job.parties[child.party].role in DISPENSABLE


def _heed(assembly: Assembly, children: dict[str, _Child], event: Event, sink: Sink) -> None:
    child = children[event["party"]]
    if event["event"] == "listening":
        for name, other in children.items():
            if name != assembly.hub:
                _write(other.process.stdin, {"address": event["address"]})
    elif event["event"] == "done":
        child.result = event["result"]
    elif event["event"] == "failed":
        child.failure = PartyFailed(
            child.party, event["error"], event["exit_code"], event["kind"], event.get("where", "")
        )
    elif event["event"] == "ended":
        child.ended = True
        if event["exit_code"] != 0 and child.failure is None:
            child.failure = PartyFailed(child.party, _death(event["exit_code"]), PeerLost.exit_code, "died")
    sink(event)


def _root_cause(failures: list[PartyFailed]) -> PartyFailed:
    """Picks the failure that the others follow from: one that a party has of its own."""
    own = [failure for failure in failures if failure.kind not in _REMOTE_KINDS]
    return (own or failures)[0]


def _death(exit_code: int) -> str:
    if exit_code < 0:
        return f"its process was killed ({signal.Signals(-exit_code).name})"
    return f"its process ended with exit code {exit_code or EXIT_INTERNAL}"


def _end(children: Mapping[str, _Child]) -> None:
    running = [child.process for child in children.values() if child.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _KILL_AFTER_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in children.values():
        _close(child.process.stdin)


def _write(stream: IO[bytes] | None, value: object) -> None:
    assert stream is not None  # noqa: S101 - it was asked for
    with suppress(BrokenPipeError):  # the child has died; its end is reported by who reads from it
        stream.write(msgspec.json.encode(value) + b"\n")
        stream.flush()


def _close(stream: IO[bytes] | None) -> None:
    with suppress(BrokenPipeError):
        if stream is not None:
            stream.close()
