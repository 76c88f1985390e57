"""Parties over loopback in threads, and a way between them that can be cut."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from wire_messages import KINDS

from vfl.wire.line import Role
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.perform import perform
from vfl.wire.timing import Timing
from vfl.wire.zeromq import KeyPair, Port, make_keys

LOOPBACK = "tcp://127.0.0.1:*"
PATIENT = Timing(join_s=20, hear_s=20, reconnect_s=5, heartbeat_s=1)


class Session:
    """Is one job's keys, ports and threads; the first party is the hub."""

    def __init__(
        self,
        *names: str,
        curve: bool = True,
        timing: Timing = PATIENT,
        kinds: Sequence[type[Message]] = KINDS,
    ) -> None:
        self.kinds = kinds
        self.names = names
        self.hub = names[0]
        self.timing = timing
        self.keys: dict[str, KeyPair] | None = {name: make_keys() for name in names} if curve else None
        self.outcomes: dict[str, Any] = {}
        self.strangers: list[str] = []
        self.waits: dict[str, list[tuple[str, ...]]] = {}
        self.links: dict[str, Link] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.hub_port = self.port(self.hub)
        self.address = self.hub_port.address

    def port(self, name: str, address: str | None = None, keys: KeyPair | None = None) -> Port:
        hub = name == self.hub
        allowed = {pair.public: n for n, pair in self.keys.items() if n != name} if self.keys else {}
        return Port(
            address or (LOOPBACK if hub else self.address),
            hub=hub,
            keys=keys or (self.keys[name] if self.keys else None),
            allowed=allowed if hub else {},
            hub_key=self.keys[self.hub].public if self.keys else None,
            heartbeat_s=self.timing.heartbeat_s,
        )

    def link(self, name: str, port: Port | None = None, timing: Timing | None = None) -> Link:
        port = port or (self.hub_port if name == self.hub else self.port(name))
        self.waits[name] = []
        link = Link(
            port,
            name,
            self.hub,
            [peer for peer in self.names if peer != name],
            self.kinds,
            timing=timing or self.timing,
            on_wait=lambda names, seconds: self.waits[name].append(tuple(names)),
            on_stranger=self.strangers.append,
        )
        self.links[name] = link
        return link

    def start(
        self,
        name: str,
        role: Role[Any],
        port: Port | None = None,
        alias: str = "",
        timing: Timing | None = None,
    ) -> None:
        link = self.link(name, port, timing)
        self.call(alias or name, lambda: perform(role, link))

    def call(self, name: str, work: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                self.outcomes[name] = work()
            except BaseException as error:
                self.outcomes[name] = error

        self._threads[name] = threading.Thread(target=run, name=name, daemon=True)
        self._threads[name].start()

    def join(self, *names: str, within_s: float = 40) -> dict[str, Any]:
        for name in names or tuple(self._threads):
            self._threads[name].join(within_s)
            assert not self._threads[name].is_alive(), f"{name} hangs"
        return self.outcomes


def play(roles: Mapping[str, Role[Any]], *, curve: bool = True, order: Sequence[str] = ()) -> Session:
    """Runs every role over loopback, started in `order`; the first party is the hub."""
    session = Session(*roles, curve=curve)
    for name in order or tuple(roles):
        session.start(name, roles[name])
    session.join()
    return session


class Way:
    """Is a TCP proxy in a thread: it can drop its connections, stop carrying, and carry again."""

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._carrying = True
        self._closed = False
        self.carried_bytes = 0
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drops every connection at once; new ones are let through."""
        with self._lock:
            for one in list(self._pairs):
                self._drop(one)

    def close(self) -> None:
        """Drops every connection and refuses new ones."""
        self.refuse_newcomers()
        self.cut()

    def open(self) -> None:
        """Lets new connections in again."""
        self._closed = False

    def refuse_newcomers(self) -> None:
        """Lets no new connection in, and leaves those that are there."""
        self._closed = True

    def swallow(self) -> None:
        """Carries nothing more and says nothing about it, as a pulled cable."""
        with self._lock:
            self._carrying = False

    def restore(self) -> None:
        with self._lock:
            self._carrying = True

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._server:
                        self._let_in()
                    elif self._carrying:
                        self._carry(key.fileobj)  # type: ignore[arg-type]
            if not self._carrying:
                threading.Event().wait(0.01)  # else the unread bytes would keep select awake

    def _let_in(self) -> None:
        one, _ = self._server.accept()
        if self._closed:
            one.close()
            return
        try:
            other = socket.create_connection(self._target)
        except OSError:
            one.close()
            return
        self.connections += 1
        self._pairs[one], self._pairs[other] = other, one
        for end in (one, other):
            self._selector.register(end, selectors.EVENT_READ)

    def _carry(self, one: socket.socket) -> None:
        if one not in self._pairs:
            return
        try:
            data = one.recv(65536)
            if data:
                self._pairs[one].sendall(data)
                self.carried_bytes += len(data)
                return
        except OSError:
            pass
        self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for end in (one, other):
            with suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()
