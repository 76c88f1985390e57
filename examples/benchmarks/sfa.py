"""Times secure forward aggregation against split learning that sums in the clear, and against Paillier.

    python examples/benchmarks/sfa.py [--steps 300] [--rounds 5] [--batches 256 1024] [--contributors 2 4 8]

Each contributor holds 30 columns and a bottom 30 -> 64; the label party sums and holds the trunk
64 -> 64 -> 1; Adam on all; float32. Every party is a process with one thread, over links encrypted with CURVE
on loopback. Every round measures SplitNN with `cut = "sum"`, SFA, and SFA whose masks are made only when they
are due, one after the other with the same processes; the table shows medians over rounds and, in brackets,
the lowest and highest. *One thread* is the same dialogue in memory, in one thread, in CPU time: free of
scheduling and of waiting, so that it shows all that masks cost, at all parties one after the other.

The last row wants a package that this one does not: `pip install phe`, and gmpy2 for its faster arithmetic.
Each contributor enciphers the same fixed-point numbers under a key of 2048 bits, whoever sums multiplies the
ciphertexts, and the key's holder deciphers the sums; measured on a few values, and scaled to a whole batch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import zmq
from masked_sums import LABEL, WIDTH, report_parts
from torch import Tensor

from protocols import sfa, splitnn
from vfl.data.batches import Rows
from vfl.data.preparation import Features
from vfl.learn.cut import Joint
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.learn.presets import MLP
from vfl.masking.masks import Counter, Masks
from vfl.session import Member, Session
from vfl.wire.ledger import Ledger
from vfl.wire.line import Role
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.rehearse import rehearse
from vfl.wire.zeromq import KeyPair, Port, make_keys, raw_key

COLUMNS = 30
WARM_UP_STEPS = 20
SPAWN = multiprocessing.get_context("spawn")
SPLITNN, SFA, AT_NEED = "SplitNN, sum", "SFA", "SFA, masks at need"
WAYS = (SPLITNN, SFA, AT_NEED)


@dataclass(frozen=True)
class Setting:
    """Says what to train: which way, among how many, in what batches."""

    way: str
    k: int
    batch: int
    steps: int

    @property
    def protocol(self) -> Any:  # noqa: ANN401 - a protocol's module
        """The protocol's module."""
        return splitnn if self.way == SPLITNN else sfa

    @property
    def names(self) -> list[str]:
        """The contributors."""
        return [f"party{place:02}" for place in range(self.k)]

    def session(self, me: str, keys: Mapping[str, KeyPair]) -> Session:
        """Returns the run as one party sees it."""
        widths = dict.fromkeys(self.names, WIDTH) | {LABEL: None}
        members = {
            name: Member("feature" if width else "label", width, raw_key(keys[name].public))
            for name, width in widths.items()
        }
        options = self.protocol.Config(**({"cut": "sum"} if self.way == SPLITNN else {}))
        return Session(me, LABEL, members, options=options, secret_key=raw_key(keys[me].secret))


@dataclass
class Clock:
    """Is a journal that notes when each step ended."""

    times: list[float] = field(default_factory=list)
    now: Callable[[], float] = time.perf_counter

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Notes the time."""
        self.times.append(self.now())

    def epoch(self, record: object) -> None:
        """Does nothing."""

    def warn(self, text: str) -> None:
        """Does nothing."""

    def absent(self, party: str) -> None:
        """Does nothing."""

    def checkpoint(self, epoch: int, learners: object, *, best: bool) -> None:
        """Does nothing."""

    @property
    def ms_a_step(self) -> float:
        """The mean time of a step after warming up, in milliseconds."""
        kept = self.times[min(WARM_UP_STEPS, len(self.times) // 4) :]
        return 1000 * (kept[-1] - kept[0]) / (len(kept) - 1)


@dataclass
class Spent:
    """Is the time that masks took, in seconds: made ahead of time, or taken where they were due."""

    ahead: float = 0.0
    due: float = 0.0
    n_ahead: int = 0
    n_due: int = 0


@contextmanager
def timing_masks(at_need: bool, now: Callable[[], float] = time.perf_counter) -> Iterator[Spent]:
    """Notes the time that all masks of this process take; `at_need` makes none ahead of time."""
    spent, prepare, take = Spent(), Masks.prepare, Masks.take

    def prepare_timed(self: Masks, counter: Counter, shape: Any) -> None:  # noqa: ANN401
        if at_need:
            return
        started = now()
        prepare(self, counter, shape)
        spent.ahead += now() - started
        spent.n_ahead += 1

    def take_timed(self: Masks, counter: Counter, shape: Any, ring: Any = None) -> Tensor:  # noqa: ANN401
        started = now()
        mask = take(self, counter, shape, ring)
        spent.due += now() - started
        spent.n_due += 1
        return mask

    Masks.prepare, Masks.take = prepare_timed, take_timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Masks.prepare, Masks.take = prepare, take  # type: ignore[method-assign]


def learner(seed: int, columns: int, out: int, hidden: list[int], *, joint: bool = False) -> Learner:
    """Makes a perceptron with Adam."""
    torch.manual_seed(seed)
    network: torch.nn.Module = MLP(p=columns, out=out, hidden=hidden)
    network = Joint("sum", network) if joint else network
    return Learner(network, torch.optim.Adam(network.parameters(), lr=1e-3))


def table(setting: Setting, place: int | None) -> Rows:
    """Makes one epoch of random rows: a contributor's columns, or the labels."""
    n, nobody = setting.batch * setting.steps, np.empty(0, dtype=np.int64)
    x = torch.randn(n, COLUMNS, generator=torch.Generator().manual_seed(place or 0))
    return Rows(
        np.arange(n, dtype=np.uint64),
        {"train": np.arange(n), "valid": nobody, "test": nobody},
        features=None if place is None else Features(x, None),
        y=(x[:, 0] > 0).float() if place is None else None,
        batch_size=setting.batch,
        seed=0,
    )


def contributor(setting: Setting, place: int, keys: Mapping[str, KeyPair]) -> Role[Any]:
    """Returns a contributor's role."""
    bottom, rows = learner(place, COLUMNS, WIDTH, []), table(setting, place)
    common: dict[str, Any] = {"plan": Plan(epochs=1), "journal": Clock()}
    session = setting.session(setting.names[place], keys)
    return lambda line: setting.protocol.feature_party(
        line, session=session, bottom=bottom, rows=rows, **common
    )


def summing(setting: Setting, keys: Mapping[str, KeyPair], clock: Clock) -> Role[Any]:
    """Returns the label party's role."""
    joint, rows = learner(99, WIDTH, 1, [64], joint=True), table(setting, None)
    common: dict[str, Any] = {"task": "binary", "plan": Plan(epochs=1), "journal": clock}
    session = setting.session(LABEL, keys)
    return lambda line: setting.protocol.label_party(
        line, session=session, own=None, joint=joint, rows=rows, **common
    )


# --- a process a party ---------------------------------------------------------------------------------


@dataclass
class Crew:
    """Is the contributors' processes, which play one setting after another."""

    keys: dict[str, KeyPair]
    pipes: list[Connection]
    processes: list[BaseProcess]

    @classmethod
    def of(cls, k: int) -> Crew:
        """Starts a process a contributor."""
        keys = {name: make_keys() for name in [*Setting(SFA, k, 1, 1).names, LABEL]}
        pipes, theirs = zip(*(SPAWN.Pipe() for _ in range(k)), strict=True)
        processes = [SPAWN.Process(target=work, args=(pipe, place)) for place, pipe in enumerate(theirs)]
        for process in processes:
            process.start()
        return cls(keys, list(pipes), list(processes))

    def play(self, setting: Setting) -> tuple[float, list[Spent], Ledger]:
        """Plays a setting; returns milliseconds a step, the contributors' masks and the label's ledger."""
        allowed = {self.keys[name].public: name for name in setting.names}
        port = Port("tcp://127.0.0.1:*", hub=True, keys=self.keys[LABEL], allowed=allowed)
        clock = Clock()
        role = summing(setting, self.keys, clock)
        for pipe in self.pipes:
            pipe.send((setting, self.keys, port.address))
        link = Link(port, LABEL, LABEL, setting.names, setting.protocol.MESSAGES)
        perform(role, link)
        return clock.ms_a_step, [pipe.recv() for pipe in self.pipes], link.ledger

    def end(self) -> None:
        """Ends the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def work(pipe: Connection, place: int) -> None:
    """Is a contributor's process."""
    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        setting, keys, address = order
        me = setting.names[place]
        peers = [name for name in [*setting.names, LABEL] if name != me]
        port = Port(address, hub=False, keys=keys[me], allowed={}, hub_key=keys[LABEL].public)
        with timing_masks(setting.way == AT_NEED) as spent:
            perform(
                contributor(setting, place, keys), Link(port, me, LABEL, peers, setting.protocol.MESSAGES)
            )
        pipe.send(spent)


def one_thread(setting: Setting, keys: Mapping[str, KeyPair]) -> tuple[float, float]:
    """Plays a setting in memory; returns CPU milliseconds a step, and the share of masks."""
    clock = Clock(now=time.process_time)
    roles = {name: contributor(setting, place, keys) for place, name in enumerate(setting.names)}
    roles[LABEL] = summing(setting, keys, clock)
    with timing_masks(setting.way == AT_NEED, time.process_time) as spent:
        rehearse(roles, setting.protocol.MESSAGES, record=False, hub=LABEL)
    return clock.ms_a_step, 1000 * (spent.ahead + spent.due) / setting.steps / clock.ms_a_step


@dataclass
class Found:
    """Is what one setting came to, round by round."""

    ms: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    alone_ms: dict[str, list[float]] = field(default_factory=lambda: {SPLITNN: [], SFA: []})
    shares: list[float] = field(default_factory=list)
    alone_shares: list[float] = field(default_factory=list)
    n_ahead: float = 0.0
    step_bytes: dict[str, float] = field(default_factory=dict)


def measure(crew: Crew, k: int, batch: int, steps: int, rounds: int) -> Found:
    """Measures all ways in turn, `rounds` times."""
    found = Found()
    for number in range(rounds):
        for way in WAYS if number % 2 else reversed(WAYS):
            setting = Setting(way, k, batch, steps)
            ms, spent, ledger = crew.play(setting)
            found.ms[way].append(ms)
            booked = [entry for (_, phase), entry in ledger.entries.items() if phase == "train"]
            found.step_bytes[way] = sum(one.sent_bytes + one.received_bytes for one in booked) / steps
            if way == SFA:
                seconds = statistics.fmean(one.ahead + one.due for one in spent)
                found.shares.append(1000 * seconds / steps / ms)
                found.n_ahead = sum(one.n_ahead for one in spent) / sum(one.n_due for one in spent)
        for way in found.alone_ms:
            ms, share = one_thread(Setting(way, k, batch, steps), crew.keys)
            found.alone_ms[way].append(ms)
            if way == SFA:
                found.alone_shares.append(share)
    return found


# --- the table ----------------------------------------------------------------------------------------


def report(k: int, batch: int, found: Found) -> None:
    """Prints one row, as Markdown."""
    cells = [
        *(f"{1000 * batch / statistics.median(found.ms[way]):,.0f}" for way in WAYS),
        _ratio(found.ms[SPLITNN], found.ms[SFA]),
        _ratio(found.alone_ms[SPLITNN], found.alone_ms[SFA]),
        _ratio(found.ms[AT_NEED], found.ms[SFA]),
        *(f"{found.step_bytes[way]:,.0f}" for way in (SPLITNN, SFA)),
        f"{100 * found.n_ahead:.1f} %",
        f"{100 * statistics.median(found.shares):.1f} %",
        f"{100 * statistics.median(found.alone_shares):.1f} %",
    ]
    print(f"| {k} | {batch} | {' | '.join(cells)} |", flush=True)


def _ratio(before: list[float], after: list[float]) -> str:
    ratios = [one / two for one, two in zip(before, after, strict=True)]
    return f"**{statistics.median(ratios):.2f}** [{min(ratios):.2f} – {max(ratios):.2f}]"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure everything")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--contributors", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--values", type=int, default=20, help="how many values to sum under Paillier")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cores, most = os.cpu_count() or 1, max(arguments.contributors) + 1
    print(
        f"{cores} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}, pyzmq {zmq.__version__} (libzmq {zmq.zmq_version()}), "
        f"cryptography {importlib.metadata.version('cryptography')}; width {WIDTH}, {arguments.steps} steps, "
        f"{arguments.rounds} rounds."
    )
    if most > cores:
        print(f"Up to {most} processes, and libzmq's threads with them, share {cores} cores.")
    head = [
        "contributors",
        "batch",
        *(f"{way}, samples/s" for way in WAYS),
        "SFA ÷ SplitNN",
        "the same, one thread",
        "SFA ÷ SFA with masks at need",
        "SplitNN, bytes a step",
        "SFA, bytes a step",
        "masks made while waiting",
        "masks' share of the time",
        "the same, one thread",
    ]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for k in arguments.contributors:
        crew = Crew.of(k)
        try:
            for batch in arguments.batches:
                report(k, batch, measure(crew, k, batch, arguments.steps, arguments.rounds))
        finally:
            crew.end()
    report_parts(arguments.batches[0], arguments.contributors, arguments.rounds, arguments.values)
    print("\nTarget: SFA ÷ SplitNN at least 0.95, with the same bytes; 64 contributors' keys in under 2 s.")


if __name__ == "__main__":
    main()
