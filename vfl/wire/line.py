"""A role's only way out: it says messages to peers and hears theirs.

A role is an `async def` that awaits nothing but its line. `say`, `hear` and `dismiss` do no input or
output: they yield a request to whichever driver runs the role (`rehearse` in memory, `perform` over
ZeroMQ), so the same role runs, bit for bit alike, in a test, in a notebook and across hosts.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from vfl.errors import RemoteProtocolError, RoleError
from vfl.wire.messages import Message

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Send(NamedTuple):
    """Asks the driver to send `message` to the party `to`; answered with None, at once."""

    to: str
    message: Message
    phase: str


class Receive(NamedTuple):
    """Asks the driver for the next message of any of `senders`; answered with (sender, message)."""

    senders: tuple[str, ...]
    kinds: tuple[type[Message], ...]
    phase: str


class Dismiss(NamedTuple):
    """Asks the driver to go on without the party `name`; answered with None, at once."""

    name: str


Request = Send | Receive | Dismiss
Role = Callable[["Line"], Coroutine[Request, Any, T]]


class Line:
    """Is the line of the party `me`; `phase` labels what passes over it in the ledger."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.phase = "session"

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Books what is said and heard inside the block under `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    async def say(self, to: str, message: Message) -> None:
        """Sends a message; does not wait for the network or for the peer."""
        await _ask(Send(to, message, self.phase))

    async def hear(self, sender: str, kind: type[M]) -> M:
        """Waits for the next message of one peer.

        Raises:
            RemoteProtocolError: if it is of another kind.
            RemoteError: as the driver finds: the peer was lost, silent or gave up.
        """
        _, message = await self.hear_any((sender,), kind)
        return message

    async def hear_any(self, senders: Sequence[str], *kinds: type[M]) -> tuple[str, M]:
        """Waits for the first of several peers to speak; returns (sender, message).

        Raises:
            RemoteProtocolError: if the message is of none of `kinds`.
            RemoteError: as for `hear`.
        """
        if not senders or not kinds:
            raise RoleError(f"{self.me} would wait for nobody or for nothing")
        sender, message = await _ask(Receive(tuple(senders), kinds, self.phase))
        if not isinstance(message, kinds):
            due = " or ".join(kind.__name__ for kind in kinds)
            raise RemoteProtocolError(sender, f"said {type(message).__name__} where {due} was due")
        return sender, message

    async def dismiss(self, name: str) -> None:
        """Goes on without a peer that vanished; only the hub's role can, since all pass through it.

        From here on nothing is said to that peer, passed on to or from it or awaited from it, and what
        it said before and nobody heard is forgotten. Where a `say` or `hear` raised `PeerLost`, or
        `PeerAborted` of a peer that was interrupted, nothing was said or heard: the role dismisses that
        peer and repeats the call. Should the peer come back, it is told that the run goes on without it.

        Raises:
            RoleError: if there is no such peer, or this party is not the hub.
        """
        await _ask(Dismiss(name))


@types.coroutine
def _ask(request: Request) -> Generator[Request, Any, Any]:
    return (yield request)
