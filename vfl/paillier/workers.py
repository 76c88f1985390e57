"""Further processes of this party, one a core that it is granted beside its own.

Products of powers are thousands of multiplications of some microseconds, so threads would spend their time
handing the interpreter to each other. A worker is this module run as a program; it reads jobs as lines of
JSON from its parent and answers with lines; it ends when its parent does. Nothing of this crosses to a peer:
a pipe between processes of one party may carry what that party knows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from gmpy2 import mpz

from vfl.errors import ConfigError, WorkerLost
from vfl.paillier.exponentiation import products_of_powers
from vfl.paillier.keys import PrivateKey, PublicKey
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators, ShortExponent

#: This vfl and no other: not one that lies where the party was started.
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_PROGRAM: Final = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from vfl.paillier.workers import serve; serve()"
)
_ENDED: Final = (
    "a worker process has ended; its last words, if it had any, are above. If memory ran out, set "
    "threads = 1 in the site, which needs no workers"
)


class Workers:
    """Runs so many processes, which share work that comes as lists.

    Args:
        count: how many.

    Raises:
        ConfigError: if there would be none.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ConfigError(f"{count} worker processes: set 1 or more, or use none")
        with ExitStack() as begun:  # if one cannot start, those before it end
            self._workers = [begun.enter_context(closing(_Worker())) for _ in range(count)]
            begun.pop_all()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")

    def products_of_powers(self, bases: Sequence[mpz], exponents: np.ndarray, modulus: mpz) -> list[mpz]:
        """Computes what `exponentiation.products_of_powers` does, each worker some of the products."""
        shared: dict[str, Any] = {"bases": [hex(base) for base in bases], "modulus": hex(modulus)}
        bounds = [len(exponents) * part // len(self._workers) for part in range(len(self._workers) + 1)]
        jobs = [shared | {"exponents": exponents[start:end].tolist()} for start, end in pairwise(bounds)]
        parts = self._threads.map(lambda worker, job: worker.ask(job), self._workers, jobs)
        return [number for part in parts for number in part]

    def obfuscators(
        self, key: PublicKey | PrivateKey, kind: type[Obfuscators], place: int = 0
    ) -> Callable[[int], list[mpz]]:
        """Returns what draws several at once, in the worker at `place`: a `Pool` takes it as its batch.

        Args:
            key: of the obfuscators; the private one for `Exact`.
            kind: `Exact`, `Covering` or `ShortExponent` of the published length.
            place: which worker makes them.
        """
        source = {"kind": kind.__name__, "key": key.to_bytes().hex()}
        worker = self._workers[place]
        return lambda count: worker.ask(source | {"count": count})

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Worker:
    """Is one process and the pipes to it; one job at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this module, in this Python
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which then ends this one
        )
        self._busy = threading.Lock()

    def ask(self, job: dict[str, Any]) -> list[mpz]:
        """Returns the numbers that the process answers with.

        Raises:
            WorkerLost: if it has ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        with self._busy:
            try:
                if not stdin or not stdout:
                    raise OSError("no pipe")
                stdin.write(json.dumps(job).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except (OSError, ValueError) as error:
                raise WorkerLost(_ENDED) from error
        if not line:
            raise WorkerLost(_ENDED)
        return [mpz(number, 16) for number in json.loads(line)]

    def close(self) -> None:
        """Ends the process."""
        with self._busy:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with suppress(BrokenPipeError):  # a job that was never read
                        pipe.close()
        self._process.wait()


def serve(jobs: IO[bytes] | None = None, answers: IO[bytes] | None = None) -> None:
    """Answers jobs until there are no more: what a worker process runs."""
    jobs, answers = jobs or sys.stdin.buffer, answers or sys.stdout.buffer
    sources: dict[tuple[str, str], Obfuscators] = {}
    for line in jobs:
        job = json.loads(line)
        numbers = _drawn(job, sources) if "kind" in job else _multiplied(job)
        try:
            answers.write(json.dumps([hex(number)[2:] for number in numbers]).encode() + b"\n")
            answers.flush()
        except BrokenPipeError:
            return  # the parent has gone


def _multiplied(job: dict[str, Any]) -> list[mpz]:
    if not job["exponents"]:
        return []
    is_wide = any(abs(x).bit_length() > 62 for row in job["exponents"] for x in row)
    exponents = np.array(job["exponents"], object if is_wide else np.int64)
    return products_of_powers([mpz(base, 0) for base in job["bases"]], exponents, mpz(job["modulus"], 0))


def _drawn(job: dict[str, Any], sources: dict[tuple[str, str], Obfuscators]) -> list[mpz]:
    named = job["kind"], job["key"]
    if named not in sources:
        raw = bytes.fromhex(job["key"])
        if job["kind"] == "Exact":
            sources[named] = Exact(PrivateKey.from_bytes(raw))
        else:
            kind = {"Covering": Covering, "ShortExponent": ShortExponent}[job["kind"]]
            sources[named] = kind(PublicKey.from_bytes(raw, unsafe_small_key=True))
    return [sources[named].draw() for _ in range(job["count"])]
