"""The only file that knows ZeroMQ: one socket a party, its keys, who may connect, who is there.

The hub binds a ROUTER, every other party connects a DEALER to it. On an encrypted port (CURVE) the hub
lets only listed keys in (ZAP), and a neighbour's name comes from its key. libzmq's own thread encrypts,
sends, receives and answers heartbeats while a role computes. The one thread of ours is the doorkeeper:
whoever comes back after a cut must be let in even while the hub computes for minutes.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from vfl.errors import ConfigError
from vfl.wire.codec import MAX_FRAME_BYTES, MAX_TENSORS, Buffer

#: Below this many bytes a copy costs less than handing memory over and hearing when it is free again.
_COPY_BELOW_BYTES: Final = 256 * 1024

_CHANGES: Final = {
    zmq.Event.HANDSHAKE_SUCCEEDED: "up",
    zmq.Event.DISCONNECTED: "down",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "denied",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "failed",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "failed",
}
_CONNECT_TIMEOUT_MS: Final = 1000
_LOOK_EVERY_S: Final = 0.25

#: More than encryption adds to a frame, so that the largest legal one still arrives.
_CURVE_BYTES: Final = 4096

#: As a plain number: arithmetic on pyzmq's enumerations costs microseconds a message.
_NOBLOCK: Final = int(zmq.NOBLOCK)


@dataclass(frozen=True)
class KeyPair:
    """Is a CURVE25519 key pair, each half in the 40 printable characters of Z85."""

    public: str
    secret: str = field(repr=False)


def raw_key(text: str) -> bytes:
    """Returns the 32 bytes of a key that is written in Z85."""
    return z85.decode(text)


@dataclass(frozen=True)
class Arrival:
    """Is one message; `name` is the sender's by its key, None on an unencrypted port."""

    route: bytes
    name: str | None
    frames: list[Buffer]


@dataclass(frozen=True)
class Change:
    """Tells of a connection.

    `what` is "up", "down", "denied" (at the hub, `key` may name the stranger) or "failed": the other
    end broke the handshake off without a word, as a hub with another key does.
    """

    what: str
    key: str = ""


def make_keys() -> KeyPair:
    """Makes a new key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def keys_from_secret(secret: str, where: str) -> KeyPair:
    """Completes a key pair from its secret half.

    Raises:
        ConfigError: if the text is no secret key.
    """
    try:
        return KeyPair(zmq.curve_public(secret.encode()).decode(), secret)
    except (zmq.ZMQError, ValueError) as error:
        raise ConfigError(f"{where}: holds no secret key; make one with: vfl keys NAME") from error


#: How long ending libzmq's context may take beyond what is still sent.
_END_WITHIN_S: Final = 1.0


class _Doorkeeper:
    """Answers libzmq, for every connection, whether the holder of a public key may enter (ZAP 1.0)."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Mapping[str, str]) -> None:
        self.denied: deque[str] = deque(maxlen=64)
        self._allowed = dict(allowed)
        self._socket = context.socket(zmq.REP)
        self._socket.bind("inproc://zeromq.zap.01")
        threading.Thread(target=self._serve, name="doorkeeper", daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        except zmq.ContextTerminated:
            self._socket.close(linger=0)

    def _answer(self, question: list[bytes]) -> list[bytes]:
        version, request, _domain, _address, _identity, _mechanism, *credentials = question
        # libzmq asks with the 32 bytes of the client's key; anything else is in nobody's name.
        key = z85.encode(credentials[0]).decode() if credentials and len(credentials[0]) == 32 else ""
        party = self._allowed.get(key)
        if party is None:
            self.denied.append(key)
            return [version, request, b"400", b"unknown key", b"", b""]
        return [version, request, b"200", b"OK", party.encode(), b""]


class Port:
    """Is one party's socket, with its monitor and, at an encrypted hub, its doorkeeper."""

    def __init__(
        self,
        address: str,
        *,
        hub: bool,
        keys: KeyPair | None,
        allowed: Mapping[str, str],
        hub_key: str | None = None,
        heartbeat_s: float = 1.0,
    ) -> None:
        """Opens the port.

        Args:
            address: `tcp://host:port`; a hub may say port `*` and finds the real one in `.address`.
            hub: whether to bind and let others connect, or to connect.
            keys: this party's own; None for clear text.
            allowed: at a hub, each listed public key and the party that it stands for.
            hub_key: at any other party, the hub's public key.
            heartbeat_s: how often to make sure that the neighbour is there, in seconds.

        Raises:
            ConfigError: if the address or a key cannot be used.
        """
        self._hub = hub
        # A context of its own, not the process-wide one: two runs in one process have two doorkeepers.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._doorkeeper = _Doorkeeper(self._context, allowed) if hub and keys else None
        self._socket = self._context.socket(zmq.ROUTER if hub else zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket()
        self._timeout_ms = -1
        self._look_at = 0.0
        try:
            self._configure(heartbeat_s)
            self._encrypt(keys, hub_key)
            self._socket.bind(address) if hub else self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close(0.0)
            raise ConfigError(_address_trouble(address, error)) from error
        except ConfigError:
            self.close(0.0)
            raise
        # Listening for both kinds of address, libzmq writes 127.0.0.1 as [::ffff:127.0.0.1].
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.address: str = re.sub(r"\[::ffff:([0-9.]+)\]", r"\1", endpoint)

    def transmit(self, route: bytes, frames: list[Buffer]) -> bool:
        """Hands a message to libzmq, which sends it while the role goes on; False if `route` is gone."""
        parts = [route, *frames] if self._hub else frames
        try:
            self._socket.send_multipart(parts, _NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def wait(self, timeout_s: float) -> list[Arrival | Change]:
        """Returns the next message, or, if none comes within `timeout_s`, how connections have changed."""
        timeout_ms = max(1, int(timeout_s * 1000))
        if timeout_ms != self._timeout_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._timeout_ms = timeout_ms
        try:
            events = self._receive()  # waits inside libzmq: a poller's bookkeeping costs more than the wait
        except zmq.Again:
            return self._changes()
        now = time.monotonic()
        if now > self._look_at:  # a steady stream of messages must not hide that someone has gone
            self._look_at = now + _LOOK_EVERY_S
            events += self._changes()
        return events

    def close(self, linger_s: float) -> None:
        """Closes the port; what was handed over is still sent for up to `linger_s` seconds."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger_s * 1000))
        # The doorkeeper hears of it and goes. In a thread: once in some forty times libzmq does not come
        # back from ending a context whose socket was monitored, and a run that is over must not wait for it.
        ending = threading.Thread(target=self._context.term, name="ending", daemon=True)
        ending.start()
        ending.join(linger_s + _END_WITHIN_S)

    def _configure(self, heartbeat_s: float) -> None:
        socket = self._socket
        socket.copy_threshold = _COPY_BELOW_BYTES
        # Windows bound what is under way (see channel.py); libzmq's own marks would drop messages.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES + _CURVE_BYTES)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.HEARTBEAT_IVL, int(heartbeat_s * 1000))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(heartbeat_s * 1500))
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        # The system's own retries grow apart so fast that a way back after 2 s would be found after 3.
        socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_TIMEOUT_MS)
        if self._hub:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)

    def _encrypt(self, keys: KeyPair | None, hub_key: str | None) -> None:
        if not keys:
            return
        try:
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
            if self._hub:
                self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            else:
                self._socket.setsockopt(zmq.CURVE_SERVERKEY, (hub_key or "").encode())
        except zmq.ZMQError as error:
            named = keys.public if self._hub else hub_key
            raise ConfigError(f"{named!r} is no public key; make a pair with: vfl keys NAME") from error

    def _changes(self) -> list[Arrival | Change]:
        events: list[Arrival | Change] = []
        while True:
            try:
                message: Any = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                break
            what = _CHANGES.get(message["event"])
            took_too_long = what == "failed" and message["value"] == errno.EAGAIN
            if what and not took_too_long:
                events.append(Change(what))
        while self._doorkeeper and self._doorkeeper.denied:
            events.append(Change("denied", self._doorkeeper.denied.popleft()))
        return events

    def _receive(self) -> list[Arrival | Change]:
        """Takes one message; there are none in it only where a peer sent a route and nothing else."""
        frame = self._socket.recv(copy=False)
        parts = [frame]
        while frame.more:
            frame = self._socket.recv(copy=False)
            if len(parts) <= MAX_TENSORS + 2:  # one more than is legal, so that the codec refuses it
                parts.append(frame)
        route = parts.pop(0).bytes if self._hub else b""
        if not parts:
            return []
        return [Arrival(route, self._name_of(parts[0]), [part.buffer for part in parts])]

    def _name_of(self, frame: zmq.Frame) -> str | None:
        if not self._doorkeeper:
            return None
        return str(frame.get("User-Id"))


def _address_trouble(address: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"address = {address!r}: the port is in use; end the other process or choose another port"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return (
            f"address = {address!r}: this machine has no such address; name one of its own, or tcp://*:PORT"
        )
    if error.errno == errno.EACCES:
        return f"address = {address!r}: not permitted; choose a port above 1023"
    return f"address = {address!r}: {error.strerror}; write it as tcp://HOST:PORT"
