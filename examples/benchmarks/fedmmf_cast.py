"""Plays a federated factorisation: all parties in one process, or each in one of its own over CURVE."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from fedmmf_tables import Table, deal, deal_one

from protocols import fedmmf
from vfl.crypto.pairs import new_secret, public_of
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.ratings.factors import begin_factors
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import fit_mask
from vfl.session import Member, Session
from vfl.wire.ledger import Ledger
from vfl.wire.line import Role
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.rehearse import rehearse
from vfl.wire.zeromq import KeyPair, Port, make_keys, raw_key

HUB = "coordinator"
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Setting:
    """Says what to train: which table, among how many, how, for how many rounds."""

    table: Table
    k: int
    rounds: int
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, table: Table, k: int, rounds: int, **options: Any) -> Setting:  # noqa: ANN401
        """Takes the protocol's options by name."""
        return cls(table, k, rounds, tuple(options.items()))

    @property
    def config(self) -> fedmmf.Config:
        """The protocol's options."""
        return fedmmf.Config.model_validate(dict(self.options))

    @property
    def names(self) -> list[str]:
        """The participants."""
        return [f"shop{place:04}" for place in range(self.k)]

    @property
    def roles(self) -> dict[str, str]:
        """Everybody's role."""
        return dict.fromkeys(self.names, "participant") | {HUB: "coordinator"}


@dataclass
class Clock(Silent):
    """Is a journal that notes when each round ended, and what each party had worked until then.

    Attributes:
        wall: the ends of the rounds.
        worked: the processor's seconds of each party of this process, at these times.
        setup: when the first round began.
    """

    wall: list[float] = field(default_factory=list)
    worked: list[dict[str, float]] = field(default_factory=list)
    setup: float = 0.0
    _spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _at_work: tuple[str, float] = (HUB, 0.0)

    def begin(self, name: str) -> None:
        """Notes that a party takes its turn."""
        self._at_work = name, time.process_time()

    def book(self) -> None:
        """Books what the processor has done since on that party."""
        name, since = self._at_work
        self._at_work = name, time.process_time()
        self._spent[name] += self._at_work[1] - since

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Notes the time."""
        self.book()
        self.setup = self.setup or time.perf_counter() - record["seconds"]
        self.wall.append(time.perf_counter())
        self.worked.append(dict(self._spent))


@dataclass(frozen=True)
class Turns:
    """Is one party's turns in a rehearsal, which the clock books."""

    clock: Clock
    name: str

    def __enter__(self) -> None:
        self.clock.begin(self.name)

    def __exit__(self, *error: object) -> None:
        self.clock.book()


@dataclass(frozen=True)
class Played:
    """Is what a play took.

    Attributes:
        wall: seconds of each round but the first, which begins with what is done once.
        processor: the processor's in them, of all parties of this process.
        path: the processor's of the participant that worked most, and of the coordinator.
        round_bytes: true frame lengths of a round, of all links together.
        test: the scores.
        setup_s: from the start to the first round.
    """

    wall: list[float]
    processor: list[float]
    path: list[float]
    round_bytes: float
    test: dict[str, float]
    setup_s: float

    @classmethod
    def of(cls, clock: Clock, ledger: Ledger, rounds: int, outcome: fedmmf.Outcome, began: float) -> Played:
        """Reads the coordinator's clock and ledger."""
        booked = [entry for (_, phase), entry in ledger.entries.items() if phase in ("train", "valid")]
        n_bytes = sum(one.sent_bytes + one.received_bytes for one in booked) / rounds
        each = [
            {name: after[name] - before.get(name, 0.0) for name in after}
            for before, after in itertools.pairwise(clock.worked)
        ]
        path = [one[HUB] + max([one[name] for name in one if name != HUB], default=0.0) for one in each]
        wall = [after - before for before, after in itertools.pairwise(clock.wall)]
        processor = [sum(one.values()) for one in each]
        return cls(wall, processor, path, n_bytes, outcome.test, clock.setup - began)


def participant(setting: Setting, holding: RatingsHolding, session: Session) -> Role[Any]:
    """Returns a participant's role; its mask and factors are made here, and not timed."""
    config = setting.config
    given = {
        "session": session,
        "holding": holding,
        "mask": fit_mask(config.mask, holding),
        "factors": Learner(begin_factors(holding, config.rank, 0)),
        "plan": Plan(setting.rounds, metric="rmse"),
        "journal": Silent(),
    }
    return lambda line: fedmmf.participant(line, **given)


def coordinator(setting: Setting, session: Session, clock: Clock) -> Role[Any]:
    """Returns the coordinator's role."""
    plan = Plan(setting.rounds, metric="rmse")
    return lambda line: fedmmf.coordinator(line, session=session, seed=0, plan=plan, journal=clock)


# --- all in one process --------------------------------------------------------------------------------


def sessions(setting: Setting) -> dict[str, Session]:
    """Returns the run as each party sees it: keys and nonce are new."""
    secrets = {name: new_secret() for name in setting.roles}
    members = {name: Member(setting.roles[name], None, public_of(one)) for name, one in secrets.items()}
    nonce, config = os.urandom(16), setting.config
    return {name: Session(name, HUB, members, nonce, config, one) for name, one in secrets.items()}


def play(setting: Setting, holdings: list[RatingsHolding] | None = None) -> Played:
    """Plays a setting in one thread, through the real codec."""
    holdings = deal(setting.table, setting.k) if holdings is None else holdings
    seen, clock = sessions(setting), Clock()
    roles = {
        name: participant(setting, holding, seen[name])
        for name, holding in zip(setting.names, holdings, strict=True)
    }
    roles[HUB] = coordinator(setting, seen[HUB], clock)
    streams = {name: Turns(clock, name) for name in roles}  # nobody draws from a generator that all share
    began = time.perf_counter()
    rehearsal = rehearse(roles, fedmmf.MESSAGES, streams=streams, record=False, hub=HUB)
    return Played.of(clock, rehearsal.ledgers[HUB], setting.rounds, rehearsal.results[HUB], began)


# --- a process a party ---------------------------------------------------------------------------------


@dataclass
class Crew:
    """Is the participants' processes, which play one setting after another."""

    keys: dict[str, KeyPair]
    pipes: list[Connection]
    processes: list[BaseProcess]

    @classmethod
    def of(cls, setting: Setting) -> Crew:
        """Starts a process a participant."""
        keys = {name: make_keys() for name in setting.roles}
        pipes, theirs = zip(*(SPAWN.Pipe() for _ in range(setting.k)), strict=True)
        processes = [SPAWN.Process(target=_work, args=(pipe, place)) for place, pipe in enumerate(theirs)]
        for process in processes:
            process.start()
        return cls(keys, list(pipes), list(processes))

    def play(self, setting: Setting) -> Played:
        """Plays a setting over CURVE on loopback."""
        allowed = {self.keys[name].public: name for name in setting.names}
        port = Port("tcp://127.0.0.1:*", hub=True, keys=self.keys[HUB], allowed=allowed)
        clock = Clock()
        role = coordinator(setting, _session(setting, HUB, self.keys), clock)
        for pipe in self.pipes:
            pipe.send((setting, self.keys, port.address))
        link, began = Link(port, HUB, HUB, setting.names, fedmmf.MESSAGES), time.perf_counter()
        outcome = perform(role, link)
        for pipe in self.pipes:
            pipe.recv()
        return Played.of(clock, link.ledger, setting.rounds, outcome, began)

    def end(self) -> None:
        """Ends the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def _session(setting: Setting, me: str, keys: Mapping[str, KeyPair]) -> Session:
    members = {name: Member(role, None, raw_key(keys[name].public)) for name, role in setting.roles.items()}
    return Session(me, HUB, members, options=setting.config, secret_key=raw_key(keys[me].secret))


def _work(pipe: Connection, place: int) -> None:
    """Is a participant's process."""
    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        setting, keys, address = order
        me = setting.names[place]
        role = participant(setting, deal_one(setting.table, setting.k, place), _session(setting, me, keys))
        peers = [name for name in setting.roles if name != me]
        port = Port(address, hub=False, keys=keys[me], allowed={}, hub_key=keys[HUB].public)
        perform(role, Link(port, me, HUB, peers, fedmmf.MESSAGES))
        pipe.send(None)


# --- a fresh process -----------------------------------------------------------------------------------


def in_fresh_process(work: Callable[..., Any], *given: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """Does some work in a process of its own, so that the memory it takes is its own, too."""
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_answer, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    finally:
        process.join()


def _answer(pipe: Connection, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    pipe.send(work(*given))


def memory_mib(what: str) -> float:
    """Reads this process's memory, now ("VmRSS") or at its peak ("VmHWM"), in MiB; Linux only."""
    with open("/proc/self/status") as status:
        found = next(line for line in status if line.startswith(f"{what}:"))
    return int(found.split()[1]) / 1024


def forget_peak() -> None:
    """Lets the peak begin anew from what is in memory now; Linux only."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
