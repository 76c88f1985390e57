"""One party as a process of its own, started by `parties.local`.

It reads one line of JSON from standard input (its documents, its key, its folder) and, unless it is
the hub, a second one with the hub's address; it writes events as JSON lines to standard output. What
a user's own module prints goes to standard error instead. When standard input ends before the run
does, whoever started it has died, and it ends too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from parties.events import Event, Sink
from vfl.errors import EXIT_INTERNAL, Interrupted, VflError

#: The hub takes any free port and tells which; nothing outside this machine can reach it.
LOOPBACK = "tcp://127.0.0.1:*"


def main() -> int:
    """Runs the party and returns its exit code."""
    for wanted in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with SIGINT ignored
        signal.signal(wanted, signal.default_int_handler)
    emit = _emitter()
    party = "?"
    try:
        spec = msgspec.json.decode(sys.stdin.buffer.readline())
        party = spec["party"]
        _run(spec, emit)
    except BaseException as error:
        fault = Interrupted("interrupted") if isinstance(error, KeyboardInterrupt) else error
        own = isinstance(fault, VflError)
        exit_code = fault.exit_code if isinstance(fault, VflError) else EXIT_INTERNAL
        with suppress(Interrupted):
            emit({
                "event": "failed",
                "party": party,
                "error": str(fault) if own else f"{type(fault).__name__}: {fault}",
                "kind": type(fault).__name__ if own else "internal",
                "exit_code": exit_code,
                "where": "".join(traceback.format_exception(error)),
            })  # fmt: skip
        return exit_code
    return 0


def _emitter() -> Sink:
    """Keeps standard output for events alone, and gives everyone else standard error for it."""
    events: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def emit(event: Event) -> None:
        try:
            events.write(msgspec.json.encode(event) + b"\n")
            events.flush()
        except BrokenPipeError as error:
            raise Interrupted("whoever started this party has ended") from error

    return emit


def _run(spec: dict[str, Any], emit: Sink) -> None:
    import torch

    from parties.assembly import PlacedSite, assemble
    from parties.party import Connection, train_party
    from vfl.config.job import Job
    from vfl.config.site import Site
    from vfl.wire.zeromq import KeyPair

    torch.set_num_threads(spec["threads"])
    name, job = spec["party"], Job.model_validate(spec["job"])
    placed = PlacedSite(Site.model_validate(spec["site"]), Path(spec["folder"]))
    assembly = replace(assemble(job, {name: placed}), notes=tuple(spec["notes"]))
    is_hub = name == assembly.hub
    connection = Connection((lambda: LOOPBACK) if is_hub else _late_address(), KeyPair(**spec["keys"]))
    if is_hub:
        _watch_parent()
    result = train_party(assembly, name, Path(spec["into"]), emit, connection)
    emit({"event": "done", "party": name, "result": result})


def _late_address() -> Callable[[], str]:
    """Returns a function that waits for the hub's address, once."""
    known: list[str] = []

    def address() -> str:
        if not known:
            line = sys.stdin.buffer.readline()
            if not line:
                raise Interrupted("whoever started this party has ended")
            known.append(msgspec.json.decode(line)["address"])
            _watch_parent()
        return known[0]

    return address


def _watch_parent() -> None:
    def watch() -> None:
        # Not through sys.stdin: a thread that waits inside it when the interpreter ends is a fatal error.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
