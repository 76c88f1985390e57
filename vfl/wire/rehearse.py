"""The in-memory driver: every party of a dialogue in one thread, through the real codec.

A rehearsal gives the same results, bit for bit, as the same roles over a network, and four things
beside: a transcript of all that was said, each party's view of it (what an attack may use), the name
of everyone who waits for whom where a dialogue cannot go on, and parties that die when it is their cue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from vfl.errors import Deadlock, PeerAborted, PeerLost, RemoteError, RoleError
from vfl.rng import RngStream
from vfl.wire.codec import NO_SESSION, decode, encode, frames_bytes, open_envelope, stamp
from vfl.wire.ledger import Ledger
from vfl.wire.line import Dismiss, Line, Receive, Request, Role, Send
from vfl.wire.messages import Message, Schema, kinds_by_name

#: So many unheard messages of one party to another let the others work first: a role that only says
#: (a long evaluation) would else pile its whole table up before anybody hears the first row.
_AHEAD: Final = 32


class Gone(Exception):
    """Is raised by a rehearsed role to play a process that dies here, or with "interrupted" gives up here.

    What it said before is still heard. Then whoever waits for it gets the error that a network would
    raise, at each wait until it is dismissed.
    """

    def __init__(self, reason: str = "lost") -> None:
        super().__init__(reason)
        self.reason = reason


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
    """Holds what came of a rehearsal: each role's result, what was said, what it cost.

    A party that has gone, or ended because it was dismissed, has no result.
    """

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
    hub: str | None = None,
) -> Rehearsal:
    """Runs every role to its end, in turns.

    Args:
        roles: one role a party, each a function of its `Line`.
        kinds: the messages that may be said; anything else is refused as over a network.
        streams: the random state and grad mode in which each role runs (torch's are process-wide:
            one role's dropout or `no_grad` would else change another's); by default one stream a
            party, seeded by its place.
        record: whether to keep the transcript; without it memory does not grow with the run.
        hub: who passes on what the others say, as over a network: it learns that a party has gone at
            any wait, the others only that it has gone itself. Without a hub everybody is everybody's
            neighbour, and learns of it by waiting for the one that has gone.

    Raises:
        Deadlock: if every role that has not ended waits for another.
        Exception: the first that a role raises; a note on it names the role.
    """
    if streams is None:
        streams = {name: RngStream(place) for place, name in enumerate(roles)}
    stage = _Stage(roles, kinds_by_name(kinds), record, hub)
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

    def __init__(
        self, roles: Mapping[str, Role[Any]], kinds: Mapping[str, Schema], record: bool, hub: str | None
    ) -> None:
        self.running: dict[str, Coroutine[Request, Any, Any]] = {
            name: role(Line(name)) for name, role in roles.items()
        }
        self.asked: dict[str, Request | None] = dict.fromkeys(roles)
        self.results: dict[str, Any] = {}
        self.transcript: list[Said] = []
        self.ledgers = {name: Ledger() for name in roles}
        self._kinds = kinds
        self._record = record
        self._hub = hub
        self._gone: dict[str, str] = {}  # who has gone, and for what reason
        self._dismissed: dict[str, list[str]] = {}  # who was dismissed, and by whom
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
                awaited = self._awaits(name, request)
                fault = self._loss(name, awaited) if awaited else None
                if awaited and not fault:
                    if isinstance(request, Receive) or not extra:
                        return moved
                    extra -= 1
                answer = None if fault else self._grant(name, request)
                moved = True
                self._resume(name, answer, fault)
        return moved

    def who_waits(self) -> str:
        parts = []
        for name in self.running:
            request = self.asked[name]
            assert isinstance(request, Receive)  # noqa: S101 - every Send was let through before
            senders = (f"{s}{self._state(s)}" for s in request.senders)
            kinds = (kind.__name__ for kind in request.kinds)
            parts.append(f"{name} waits for {' or '.join(kinds)} from {' or '.join(senders)}")
        return "nobody can go on: " + "; ".join(parts)

    def _state(self, name: str) -> str:
        if name in self._gone:
            return " (which has gone)"
        return " (which has ended)" if name in self.results else ""

    def _awaits(self, name: str, request: Request | None) -> Sequence[str]:
        """Returns whom a role must wait for before its request can be granted; nobody, if it can be now."""
        if isinstance(request, Send):
            self._check_on_stage(name, (request.to,))
            ahead = len(self._mail.get((name, request.to), ())) >= _AHEAD
            return (request.to,) if ahead else ()
        if isinstance(request, Receive):
            self._check_on_stage(name, request.senders)
            there = any(sender in request.senders for sender in self._order[name])
            return () if there else request.senders
        return ()

    def _check_on_stage(self, name: str, others: Sequence[str]) -> None:
        for other in others if self._dismissed else ():
            if name in self._dismissed.get(other, ()):
                raise RoleError(f"{name} would say to or hear {other!r}, whom it has dismissed")

    def _loss(self, name: str, awaited: Sequence[str]) -> RemoteError | None:
        """Returns what a network would raise in this wait, if somebody has gone."""
        for by in self._dismissed.get(name, ()):
            return PeerAborted(by, "dismissed", name)
        for gone, reason in self._gone.items():
            noticed = self._hub in (name, gone) if self._hub else gone in awaited
            if noticed and name not in self._dismissed.get(gone, ()):
                if reason == PeerLost.reason:
                    return PeerLost(gone, "its process has ended")
                return PeerAborted(gone, reason, gone)
        return None

    def _grant(self, name: str, request: Request | None) -> tuple[str, Message] | None:
        if isinstance(request, Send):
            self._deliver(name, request)
        elif isinstance(request, Receive):
            return self._collect(name, request)
        elif isinstance(request, Dismiss):
            self._dismiss(name, request.name)
        return None

    def _resume(self, name: str, answer: Any, fault: RemoteError | None) -> None:  # noqa: ANN401 - as asked
        role = self.running[name]
        try:
            self.asked[name] = role.throw(fault) if fault else role.send(answer)
        except StopIteration as stop:
            self.results[name] = stop.value
            del self.running[name]
        except Gone as gone:
            self._gone[name] = gone.reason
            del self.running[name]
        except Exception as error:
            del self.running[name]
            if error is fault and name in self._dismissed:
                return  # the others go on without it, and so does the rehearsal
            error.add_note(f"in the role of {name}")
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
        if self._is_cut(sender, request.to):
            return
        said = Said(sender, request.to, message, request.phase, n_bytes)
        self._mail.setdefault((sender, request.to), deque()).append(said)
        self._order[request.to].append(sender)
        if self._record and request.to not in self._gone:
            self.transcript.append(said)

    def _collect(self, name: str, request: Receive) -> tuple[str, Message]:
        order = self._order[name]
        sender = next(s for s in order if s in request.senders)
        order.remove(sender)
        said = self._mail[sender, name].popleft()
        self.ledgers[name].received(sender, request.phase, said.n_bytes)
        return sender, said.message

    def _is_cut(self, sender: str, to: str) -> bool:
        """Tells whether nothing passes between two parties any more, as one of them was dismissed."""
        if self._hub:
            return sender in self._dismissed or to in self._dismissed
        return to in self._dismissed.get(sender, ())

    def _dismiss(self, name: str, whom: str) -> None:
        if whom == name or whom not in self.ledgers:
            raise RoleError(f"{name} would dismiss {whom!r}, who is no peer")
        if self._hub not in (None, name):
            raise RoleError(f"{name} would dismiss {whom!r}, which only the hub ({self._hub}) can")
        if name in self._dismissed.setdefault(whom, []):
            return
        self._dismissed[whom].append(name)
        unheard = [(whom, name), *((other, whom) for other in self.ledgers if self._hub or other == name)]
        for sender, to in unheard:
            self._mail.pop((sender, to), None)
            self._order[to] = deque(s for s in self._order[to] if s != sender)
