"""One party as a process of its own, started by `parties.local`: `python -m parties.child`.

It reads one line of JSON from standard input (its documents, its key, its folder) and, unless it is
the hub, a second one with the hub's address; it writes events as JSON lines to standard output. When
standard input ends before the run does, whoever started it has died, and it ends too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from parties.events import Event
from vfl.errors import EXIT_INTERNAL, Interrupted, VflError

#: The hub takes any free port and tells which; nothing outside this machine can reach it.
LOOPBACK = "tcp://127.0.0.1:*"


def main() -> int:
    """Runs the party and returns its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    party = "?"
    try:
        spec = msgspec.json.decode(sys.stdin.readline())
        party = spec["party"]
        return _run(spec)
    except (VflError, KeyboardInterrupt) as error:
        fault = Interrupted("interrupted") if isinstance(error, KeyboardInterrupt) else error
        _emit({"event": "failed", "party": party, "error": str(fault), "kind": type(fault).__name__,
               "exit_code": fault.exit_code, "where": _where(error)})  # fmt: skip
        return fault.exit_code
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        _emit({"event": "failed", "party": party, "error": text, "kind": "internal",
               "exit_code": EXIT_INTERNAL, "where": _where(error)})  # fmt: skip
        return EXIT_INTERNAL


def _run(spec: dict[str, Any]) -> int:
    import torch

    from parties.assembly import PlacedSite, assemble
    from parties.party import Connection, predict_party, train_party
    from parties.trained import load_trained
    from vfl.config.job import Job
    from vfl.config.site import Site
    from vfl.wire.zeromq import KeyPair

    torch.set_num_threads(spec["threads"])
    name, job = spec["party"], Job.model_validate(spec["job"])
    placed = PlacedSite(Site.model_validate(spec["site"]), Path(spec["folder"]))
    assembly = assemble(job, {name: placed})
    is_hub = name == assembly.hub
    connection = Connection((lambda: LOOPBACK) if is_hub else _late_address(), KeyPair(**spec["keys"]))
    if is_hub:
        _watch_parent()
    if spec["task"] == "train":
        result = train_party(assembly, name, Path(spec["into"]), _emit, connection)
        _emit({"event": "done", "party": name, "result": result})
        return 0
    seat, outputs = predict_party(assembly, name, load_trained(Path(spec["into"])), _emit, connection)
    answer = None if outputs is None else {"ids": seat.holding.table.ids, "output": outputs.tolist()}
    _emit({"event": "done", "party": name, "result": answer})
    return 0


def _late_address() -> Callable[[], str]:
    """Returns a function that waits for the hub's address, once."""
    known: list[str] = []

    def address() -> str:
        if not known:
            line = sys.stdin.readline()
            if not line:
                raise Interrupted("whoever started this party has ended")
            known.append(msgspec.json.decode(line)["address"])
            _watch_parent()
        return known[0]

    return address


def _watch_parent() -> None:
    def watch() -> None:
        while sys.stdin.readline():
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def _emit(event: Event) -> None:
    try:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise Interrupted("whoever started this party has ended") from error


def _where(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


if __name__ == "__main__":
    sys.exit(main())
