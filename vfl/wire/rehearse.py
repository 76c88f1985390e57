"""The in-memory driver: every party of a dialogue in one thread, through the real codec.

A rehearsal gives the same results, bit for bit, as the same roles over a network, and three things
beside: a transcript of all that was said, each party's view of it (what an attack may use), and the
name of everyone who waits for whom where a dialogue cannot go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from vfl.errors import Deadlock, RoleError
from vfl.rng import RngStream
from vfl.wire.codec import NO_SESSION, decode, encode, frames_bytes, open_envelope, stamp
from vfl.wire.ledger import Ledger
from vfl.wire.line import Line, Receive, Request, Role, Send
from vfl.wire.messages import Message, Schema, kinds_by_name

#: So many unheard messages of one party to another let the others work first: a role that only says
#: (a long evaluation) would else pile its whole table up before anybody hears the first row.
_AHEAD: Final = 32


@dataclass(frozen=True)
class Said:
    """Is one message of a transcript, as the receiver decoded it."""

    sender: str
    to: str
    message: Message
    phase: str
    n_bytes: int


@dataclass(frozen=True)
class Rehearsal:
    """Holds what came of a rehearsal: each role's result, what was said, what it cost."""

    results: dict[str, Any]
    transcript: list[Said]
    ledgers: dict[str, Ledger]

    def view(self, party: str) -> list[Said]:
        """Returns what `party` received: all that it can know of the others beside its own data."""
        return [said for said in self.transcript if said.to == party]


def rehearse(
    roles: Mapping[str, Role[Any]],
    kinds: Iterable[type[Message]],
    *,
    streams: Mapping[str, AbstractContextManager[object]] | None = None,
    record: bool = True,
) -> Rehearsal:
    """Runs every role to its end, in turns.

    Args:
        roles: one role a party, each a function of its `Line`.
        kinds: the messages that may be said; anything else is refused as over a network.
        streams: the random state and grad mode in which each role runs (torch's are process-wide:
            one role's dropout or `no_grad` would else change another's); by default one stream a
            party, seeded by its place.
        record: whether to keep the transcript; without it memory does not grow with the run.

    Raises:
        Deadlock: if every role that has not ended waits for another.
        Exception: the first that a role raises; a note on it names the role.
    """
    if streams is None:
        streams = {name: RngStream(place) for place, name in enumerate(roles)}
    stage = _Stage(roles, kinds_by_name(kinds), record)
    try:
        while stage.running:
            progress = [stage.advance(name, streams[name], patient=True) for name in list(stage.running)]
            if not any(progress):
                # Whoever was only held back for running ahead may go on after all.
                progress = [stage.advance(name, streams[name], patient=False) for name in list(stage.running)]
            if stage.running and not any(progress):
                raise Deadlock(stage.who_waits())
    finally:
        for name, coroutine in stage.running.items():
            with streams[name]:  # a role's own `finally` and `no_grad` end where they began
                coroutine.close()
    return Rehearsal(stage.results, stage.transcript, stage.ledgers)


class _Stage:
    """Holds the coroutines, what each has asked for and has not got, and the mail between them."""

    def __init__(self, roles: Mapping[str, Role[Any]], kinds: Mapping[str, Schema], record: bool) -> None:
        self.running: dict[str, Coroutine[Request, Any, Any]] = {
            name: role(Line(name)) for name, role in roles.items()
        }
        self.asked: dict[str, Request | None] = dict.fromkeys(roles)
        self.results: dict[str, Any] = {}
        self.transcript: list[Said] = []
        self.ledgers = {name: Ledger() for name in roles}
        self._kinds = kinds
        self._record = record
        self._mail: dict[tuple[str, str], deque[Said]] = {}
        self._order: dict[str, deque[str]] = {name: deque() for name in roles}

    def advance(self, name: str, stream: AbstractContextManager[object], *, patient: bool) -> bool:
        """Runs one role until it must wait; tells whether it got anywhere.

        A patient role says no more than others keep up with; an impatient one a window more.
        """
        moved = False
        extra = 0 if patient else _AHEAD
        with stream:
            while name in self.running:
                request = self.asked[name]
                answer: Any = None
                if isinstance(request, Send):
                    if self._is_ahead(name, request.to):
                        if not extra:
                            return moved
                        extra -= 1
                    self._deliver(name, request)
                elif isinstance(request, Receive):
                    answer = self._collect(name, request)
                    if answer is None:
                        return moved
                moved = True
                self._resume(name, answer)
        return moved

    def who_waits(self) -> str:
        parts = []
        for name in self.running:
            request = self.asked[name]
            assert isinstance(request, Receive)  # noqa: S101 - every Send was let through before
            senders = (f"{s} (which has ended)" if s in self.results else s for s in request.senders)
            kinds = (kind.__name__ for kind in request.kinds)
            parts.append(f"{name} waits for {' or '.join(kinds)} from {' or '.join(senders)}")
        return "nobody can go on: " + "; ".join(parts)

    def _is_ahead(self, sender: str, to: str) -> bool:
        return len(self._mail.get((sender, to), ())) >= _AHEAD

    def _resume(self, name: str, answer: Any) -> None:  # noqa: ANN401 - whatever a role is answered
        try:
            self.asked[name] = self.running[name].send(answer)
        except StopIteration as stop:
            self.results[name] = stop.value
            del self.running[name]
        except Exception as error:
            error.add_note(f"in the role of {name}")
            del self.running[name]
            raise

    def _deliver(self, sender: str, request: Send) -> None:
        if request.to == sender or request.to not in self.ledgers:
            kind = type(request.message).__name__
            raise RoleError(f"{sender} would say {kind} to {request.to!r}, who is no peer")
        frames = encode(request.message, to=request.to, sender=sender)
        frames = stamp(frames, session=NO_SESSION, sequence=0, acknowledged=0)
        message = decode(open_envelope(frames, sender), self._kinds, sender)
        n_bytes = frames_bytes(frames)
        self.ledgers[sender].sent(request.to, request.phase, n_bytes)
        said = Said(sender, request.to, message, request.phase, n_bytes)
        self._mail.setdefault((sender, request.to), deque()).append(said)
        self._order[request.to].append(sender)
        if self._record:
            self.transcript.append(said)

    def _collect(self, name: str, request: Receive) -> tuple[str, Message] | None:
        order = self._order[name]
        sender = next((s for s in order if s in request.senders), None)
        if sender is None:
            return None
        order.remove(sender)
        said = self._mail[sender, name].popleft()
        self.ledgers[name].received(sender, request.phase, said.n_bytes)
        return sender, said.message
