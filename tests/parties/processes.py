"""Real processes for the tests, forked from a server that has torch imported: quick to start."""

from __future__ import annotations

import multiprocessing
import os
import select
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

PATIENCE_S = 60.0  # for a loaded machine; nothing here waits longer than it must

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "parties.cli",
        "parties.api",
        "parties.predicting",
        "parties.printing",
        "torch._dynamo",
        "sklearn.datasets",
        "sklearn.metrics",
    ]
)


class Vfl:
    """Is a `vfl` command in a process of its own, with its output read as it comes."""

    def __init__(
        self, *arguments: object, cwd: Path, env: dict[str, str] | None = None, unread: bool = False
    ) -> None:
        words = [str(argument) for argument in arguments]
        self.words = words
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(2)]
        if unread:  # as in `vfl … | true`
            pipes[0][0].close()
        ends = [write for _, write in pipes]
        self.process = _CONTEXT.Process(target=_be_vfl, args=(words, str(cwd), ends, env or {}))
        self.process.start()
        for end in ends:
            end.close()
        self._changed = threading.Condition()
        self._text = ["", ""]
        self._open = 1 if unread else 2
        for place, (read, _) in list(enumerate(pipes))[-self._open :]:
            threading.Thread(target=self._read, args=(place, read), daemon=True).start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def out(self) -> str:
        return self._text[0]

    @property
    def err(self) -> str:
        return self._text[1]

    def saw(self, words: str, patience_s: float = PATIENCE_S) -> None:
        """Waits until standard error holds the words."""
        with self._changed:
            self._changed.wait_for(lambda: words in self.err or not self._open, patience_s)
        assert words in self.err, f"{self.words}: {self.err}"

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Waits for the process, and for all that hold its output, to end; returns the exit code."""
        self.process.join(patience_s)
        assert self.process.exitcode is not None, f"{self.words} does not end: {self.err}"
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open, patience_s), f"{self.words}: {self.err}"
        return self.process.exitcode

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def end(self) -> None:
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join(PATIENCE_S)

    def _read(self, place: int, pipe: Connection) -> None:
        chunks = b""
        while chunk := os.read(pipe.fileno(), 65536):
            chunks += chunk
            with self._changed:
                self._text[place] = chunks.decode(errors="replace")
                self._changed.notify_all()
        pipe.close()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()


def all_gone(pids: Iterable[int], patience_s: float) -> bool:
    """Waits until none of the processes runs any more."""
    deadline = time.monotonic() + patience_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([handle], [], [], left)[0]:
                return False
        finally:
            os.close(handle)
    return True


def _be_vfl(words: Sequence[str], cwd: str, ends: Sequence[Connection], env: dict[str, str]) -> None:
    for number, end in enumerate(ends, start=1):
        os.dup2(end.fileno(), number)
        end.close()
    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = ["vfl", *words]
    # The server's own text streams buffer; these write at once, as a console script's do.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    from parties.cli import main

    main()
