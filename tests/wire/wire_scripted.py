"""A hub on a port that hands it what a test wrote."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from vfl.wire.codec import Buffer, encode, stamp
from vfl.wire.link import Link
from vfl.wire.messages import Message
from vfl.wire.timing import Timing
from vfl.wire.zeromq import Arrival, Change, Port


@dataclass(frozen=True, eq=False)
class Word(Message):
    step: int


@dataclass(frozen=True, eq=False)
class Load(Message):
    step: int
    h: Tensor


class ScriptedPort:
    """Hands a link what the test wrote, and keeps what the link sends."""

    address = "tcp://127.0.0.1:1"

    def __init__(self) -> None:
        self.arriving: deque[Arrival | Change] = deque()
        self.otherwise: Arrival | None = None  # arrives whenever nothing else does
        self.sent: list[list[Buffer]] = []

    def transmit(self, route: bytes, frames: list[Buffer]) -> bool:
        self.sent.append(frames)
        return True

    def wait(self, timeout_s: float) -> list[Arrival | Change]:
        if self.arriving:
            return [self.arriving.popleft()]
        return [self.otherwise] if self.otherwise else []

    def close(self, linger_s: float) -> None:
        pass


class Hub:
    """Is a hub that `mean` and `worst` have joined, on a scripted port."""

    def __init__(self) -> None:
        self.port = ScriptedPort()
        timing = Timing(hear_s=0.5)
        peers = ["mean", "worst"]
        self.link = Link(cast(Port, self.port), "label", "label", peers, [Word, Load], timing=timing)
        self.neighbours = self.link._neighbours
        for name in peers:
            self.neighbours.attach(self.neighbours.channels[name], name.encode())
        self.neighbours.open = True

    def arrives(
        self,
        message: Message,
        sequence: int = 1,
        *,
        to: str = "label",
        sender: str = "mean",
        session: bytes | None = None,
        key: str | None = "mean",
        route: bytes = b"mean",
    ) -> Arrival:
        frames = encode(message, to=to, sender=sender)
        session = self.neighbours.session if session is None else session
        stamped = stamp(frames, session=session, sequence=sequence, acknowledged=0)
        arrival = Arrival(route, key, stamped)
        self.port.arriving.append(arrival)
        return arrival
