"""Lets parties align: in turns, in any order, over loopback, past a relay, with liars among them."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from liars import Change, Wrap

from protocols import ids, psi
from vfl.crypto.pairs import new_secret, public_of
from vfl.errors import RemoteProtocolError
from vfl.session import Member, Session
from vfl.wire.line import Line, Receive, Role, Send
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.perform import perform
from vfl.wire.rehearse import Rehearsal, rehearse
from vfl.wire.timing import Timing
from vfl.wire.zeromq import Port, make_keys

Sets = Mapping[str, Sequence[str] | np.ndarray]


@contextmanager
def small_pieces(points: int = 4, values: int = 8) -> Iterator[None]:
    """Lets a few ids make many pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psi, "CHUNK_POINTS", points)
        patch.setattr(psi, "PIECE_VALUES", values)
        patch.setattr(ids, "PIECE_VALUES", values)
        yield


def overlapping(k: int, n: int = 30, of: int = 40, seed: int = 0) -> dict[str, list[str]]:
    """Draws for each of k parties n of the same ids, in an order of its own; the hub is in the middle."""
    drawn = random.Random(seed)
    names = [f"party{place}" for place in range(k)]
    names[k // 2] = "hub"
    return {name: [f"customer-{at:06d}" for at in drawn.sample(range(of), n)] for name in names}


def sessions_of(names: Sequence[str], relay: str = "hub", *, identified: bool = True) -> dict[str, Session]:
    """Returns what each party knows of the others; the relay need not be among `names`."""
    secrets = {name: new_secret() if identified else None for name in {**dict.fromkeys(names), relay: None}}
    members = {
        name: Member("coordinator" if name not in names else "feature", None, own and public_of(own))
        for name, own in secrets.items()
    }
    nonce = bytes(range(16))
    return {name: Session(name, relay, members, nonce, secret_key=own) for name, own in secrets.items()}


def roles_of(
    module: ModuleType,
    sets: Sets,
    liars: Mapping[str, Wrap] | None = None,
    sessions: Mapping[str, Session] | None = None,
) -> dict[str, Role[Any]]:
    """Returns each party's role; the hub compares, and relays unless the sessions say otherwise."""
    known = sessions or sessions_of(list(sets))
    roles: dict[str, Role[Any]] = {
        name: lambda line, own=own: module.align(
            line, session=known[line.me], hub="hub", roster=list(sets), ids=own
        )
        for name, own in sets.items()
    }
    return {name: (liars or {}).get(name, lambda role: role)(role) for name, role in roles.items()}


def play(
    module: ModuleType, sets: Sets, *, sessions: Mapping[str, Session] | None = None, **liars: Wrap
) -> Rehearsal:
    """Aligns in memory."""
    return rehearse(roles_of(module, sets, liars, sessions), module.MESSAGES)


def assert_aligned(sets: Sets, results: Mapping[str, Any]) -> None:
    """Asserts that every party found what Python's set intersection finds, in the order of its table."""
    shared = set.intersection(*(set(own) for own in sets.values()))
    for name, own in sets.items():
        found = results[name]
        assert found.dtype == np.int64
        assert found.tolist() == [row for row, one in enumerate(own) if one in shared], name


# --- in any order ------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Runs roles in an order drawn at random, with mail that waits as long as it likes."""

    roles: Mapping[str, Role[Any]]
    seed: int
    uncounted: tuple[type[Message], ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    peak: int = 0
    """The most messages that were under way at once, to all together."""

    def run(self) -> Crowd:
        drawn = random.Random(self.seed)
        running = {name: role(Line(name)) for name, role in self.roles.items()}
        asked: dict[str, Any] = {name: one.send(None) for name, one in running.items()}
        mail: dict[tuple[str, str], deque[Message]] = {(a, b): deque() for a in running for b in running}
        while running:
            ready = [name for name in running if self._senders(name, asked[name], mail) is not None]
            assert ready, f"nobody can go on: {asked}"
            name = drawn.choice(ready)
            request, answer = asked[name], None
            if isinstance(request, Send):
                mail[name, request.to].append(request.message)
            else:
                sender = drawn.choice(self._senders(name, request, mail) or [])
                answer = (sender, mail[sender, name].popleft())
            under_way = sum(not isinstance(one, self.uncounted) for box in mail.values() for one in box)
            self.peak = max(self.peak, under_way)
            try:
                asked[name] = running[name].send(answer)
            except StopIteration as stop:
                self.results[name] = stop.value
                del running[name]
        assert not any(mail.values())
        return self

    @staticmethod
    def _senders(
        name: str, request: Send | Receive, mail: Mapping[tuple[str, str], deque[Message]]
    ) -> list[str] | None:
        if isinstance(request, Send):
            return []
        return [sender for sender in request.senders if mail[sender, name]] or None


# --- over loopback -----------------------------------------------------------------------------------


def over_loopback(
    roles: Mapping[str, Role[Any]], kinds: Sequence[type[Message]], relay: str = "hub"
) -> dict[str, Any]:
    """Runs each role in a thread over CURVE; returns what each gave or raised."""
    keys = {name: make_keys() for name in roles}
    door = Port(
        "tcp://127.0.0.1:*",
        hub=True,
        keys=keys[relay],
        allowed={pair.public: name for name, pair in keys.items() if name != relay},
    )
    outcomes: dict[str, Any] = {}

    def run(name: str) -> None:
        if name == relay:
            port = door
        else:
            port = Port(door.address, hub=False, keys=keys[name], allowed={}, hub_key=keys[relay].public)
        peers = [peer for peer in roles if peer != name]
        link = Link(port, name, relay, peers, kinds, timing=Timing(join_s=20.0, hear_s=20.0))
        try:
            outcomes[name] = perform(roles[name], link)
        except Exception as error:  # handed to the test's own thread
            outcomes[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


# --- liars -------------------------------------------------------------------------------------------


def at(
    kind: type[Message], nth: int, alter: Callable[[Any], Any] | None = None, /, **fields: object
) -> Change:
    """Changes the message of this kind that is said as number `nth`, from 0."""
    count = 0

    def change(send: Send) -> Send:
        nonlocal count
        if not isinstance(send.message, kind):
            return send
        count += 1
        if count != nth + 1:
            return send
        lie = alter(send.message) if alter else replace(send.message, **fields)  # type: ignore[type-var]
        return send._replace(message=lie)

    return change


def besides(kind: type[Message], *more: tuple[str, Message], number: int = 0) -> Change:
    """Says more right after the message of this kind that is said as number `number`."""
    count = 0

    def change(send: Send) -> Sequence[Send]:
        nonlocal count
        count += isinstance(send.message, kind)
        if not isinstance(send.message, kind) or count != number + 1:
            return [send]
        return [send, *(Send(to, message, send.phase) for to, message in more)]

    return change


def caught(module: ModuleType, sets: Sets, liar: str, wrap: Wrap) -> str:
    """Lets one party lie; returns what whoever noticed said of it."""
    with pytest.raises(RemoteProtocolError) as it:
        play(module, sets, **{liar: wrap})
    assert it.value.peer == liar
    assert it.value.__notes__ != [f"in the role of {liar}"]
    return it.value.why
