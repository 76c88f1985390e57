"""The aggregator's side of a masked sum: who contributes, what it comes to, and who has vanished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from torch import Tensor

from vfl.errors import PeerAborted, PeerLost, RemoteProtocolError
from vfl.journal import Journal
from vfl.masking.agreeing import FEWEST_CONTRIBUTORS, Roster, relay_keys
from vfl.masking.contributing import Contribution, vanished_words
from vfl.masking.graph import Graph
from vfl.masking.ring import Ring
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

M = TypeVar("M", bound=Message)

_LOST = (PeerLost, PeerAborted)

#: So many contributors are asked before the first of them is heard: what they say lies here at once.
_ASKED_AHEAD: Final = 64


class Gathering:
    """Sums what contributors say, and goes on without one that vanishes where the job allows it.

    A batch of which a contribution is missing is dropped and never summed: under a new roster its sum and
    the old one's would differ by a single contribution. One of which all have come is summed, even if
    somebody has vanished since: were its rows to come again before a step was taken, they would differ so.

    Args:
        line: the aggregator's line; it must be the hub's.
        session: the run as it sees it.
        contributors: everybody who contributes at first under masks.
        ring: where contributions are summed.
        masked: whether masks are on.
        journal: what to tell.
        graph: who masks with whom; None is all with all.
    """

    def __init__(
        self,
        line: Line,
        session: Session,
        contributors: Sequence[str],
        ring: Ring,
        *,
        masked: bool,
        journal: Journal,
        graph: Graph | None = None,
    ) -> None:
        self.names = list(contributors)
        self.vanished: list[str] = []
        """Who has vanished so far."""
        self.fresh: list[str] = []
        """Who has vanished since the contributors last agreed on keys."""
        self.may_drop = True
        """Whether a batch can be dropped now; in the test there is nothing to go on with."""
        self._line, self._session, self._ring = line, session, ring
        self._masked, self._journal, self._graph = masked, journal, graph
        self.number = 0
        """The number of the present roster."""

    async def renew(self) -> Roster:
        """Has those who are left agree on fresh keys; returns who they are."""
        while True:
            self.fresh.clear()
            self.number += 1
            roster = Roster(self.number, tuple(self.names))
            try:
                if self._masked:
                    await relay_keys(self._line, roster, graph=self._graph)
                else:
                    await self.say_all(roster)
                return roster
            except _LOST as lost:
                await self._let_go(lost)

    async def sum_of(
        self, epoch: int, step: int, shape: tuple[int, int], mark: int | None = None
    ) -> tuple[Tensor, int] | None:
        """Hears what each contributor says of a batch, and sums it if nothing is missing.

        Args:
            epoch: the batch's epoch.
            step: its place in it.
            shape: b and d.
            mark: the hash of its rows' ids, where this party knows it.

        Returns:
            The sum in the ring, [b, d], and the mark; None where somebody has vanished who had not said its
            part.

        Raises:
            RemoteProtocolError: if a contribution is another than is due.
            PeerLost: if somebody has vanished and the run cannot do without.
        """
        due = {*self.names, *self.fresh}
        heard = await self._hear_batch()
        if mark is None:  # most of them are taken to be right
            marks = [said.mark for said in heard.values()]
            mark = max(marks, key=marks.count)
        for name, said in heard.items():
            self.check(name, said, epoch, step, shape, mark)
        if self._is_whole(due, heard):
            return self._ring.total([said.q for said in heard.values()]), mark
        return None

    async def gather(self, kind: type[M], add: Callable[[str, M], None], ask: Message | None = None) -> bool:
        """Hears one message of each contributor, and gives it to `add` at once: none is kept.

        Args:
            kind: what is due.
            add: checks what a contributor said, and adds it to the rest.
            ask: what to say to each before it answers; not to all at once where they are many.

        Returns:
            Whether nobody is missing; else what was added is to be forgotten.

        Raises:
            PeerLost: if somebody has vanished and the run cannot do without.
        """
        due, names = {*self.names, *self.fresh}, tuple(self.names)
        heard: set[str] = set()
        asked = 0
        for place, name in enumerate(names):
            while ask is not None and asked < min(place + _ASKED_AHEAD, len(names)):
                if names[asked] in self.names:
                    await self.say(names[asked], ask)
                asked += 1
            for who, said in await self._hear_from(name, kind, heard):
                heard.add(who)
                add(who, said)
        return self._is_whole(due, heard)

    def _is_whole(self, due: set[str], heard: Collection[str]) -> bool:
        """Tells whether nobody's part is missing."""
        if due <= set(heard):
            return True
        if not self.may_drop:
            raise PeerLost(self.vanished[-1], "was lost, too late to go on without it: start anew")
        return False

    async def _hear_batch(self) -> dict[str, Contribution]:
        """Hears the next contribution of each contributor, and what one that vanishes had said before."""
        heard: dict[str, Contribution] = {}
        for name in tuple(self.names):
            if name not in heard:
                heard.update(await self._hear_from(name, Contribution, heard))
        return heard

    async def _hear_from(self, name: str, kind: type[M], heard: Collection[str]) -> list[tuple[str, M]]:
        """Hears a contributor, and what others that vanish meanwhile, and were not heard, had said before."""
        found: list[tuple[str, M]] = []
        while name in self.names:
            try:
                return [*found, (name, await self._line.hear(name, kind))]
            except _LOST as lost:
                if lost.peer in self.names and lost.peer not in heard:
                    with suppress(*_LOST):
                        found.append((lost.peer, await self._line.hear(lost.peer, kind)))
                await self._let_go(lost)
        return found

    def check(
        self,
        name: str,
        said: Contribution,
        epoch: int,
        step: int,
        shape: tuple[int, int],
        mark: int,
        ring: Ring | None = None,
    ) -> None:
        """Checks that a contribution is the one that is due.

        Raises:
            RemoteProtocolError: if it is not.
        """
        if (said.epoch, said.step, said.mark) != (epoch, step, mark):
            raise RemoteProtocolError(
                name,
                f"contributes step {said.step} of epoch {said.epoch}, or other rows, where step {step} of "
                f"epoch {epoch} is due: each batch is summed once, and all tables must be aligned",
            )
        dtype = (ring or self._ring).dtype
        if (said.roster, tuple(said.q.shape), said.q.dtype) != (self.number, shape, dtype):
            raise RemoteProtocolError(
                name,
                f"contributes {said.q.dtype} {tuple(said.q.shape)} for roster {said.roster} where {dtype} "
                f"{shape} for roster {self.number} is due",
            )

    def check_learned(self, learned: bool, *, is_last: bool) -> None:
        """Checks, before keys are renewed, that a step parts what is summed under one roster and another.

        Args:
            learned: whether a batch of this epoch was learned from.
            is_last: whether the batch that was dropped is the epoch's last.

        Raises:
            PeerLost: if rows would be seen again under the next roster with the same weights.
        """
        if is_last and not learned:
            raise PeerLost(
                self.vanished[-1],
                "was lost, and no batch of the epoch is left to learn from: start anew, or set a smaller "
                "batch_size",
            )

    async def hear(self, sender: str, kind: type[M]) -> M | None:
        """Hears a message; None of a contributor that has vanished.

        Raises:
            PeerLost: if someone has vanished and the run cannot do without.
        """
        while True:
            try:
                return await self._line.hear(sender, kind)
            except _LOST as lost:
                await self._let_go(lost)
                if sender == lost.peer:
                    return None

    async def say(self, to: str, message: Message) -> None:
        """Says a message, unless its hearer vanishes."""
        while True:
            try:
                return await self._line.say(to, message)
            except _LOST as lost:
                await self._let_go(lost)
                if to == lost.peer:
                    return None

    async def say_all(self, message: Message) -> None:
        """Says a message to every contributor that is left."""
        for name in tuple(self.names):
            if name in self.names:
                await self.say(name, message)

    async def _let_go(self, lost: PeerLost | PeerAborted) -> None:
        """Goes on without a contributor, or raises what happened again where that cannot be."""
        name = lost.peer
        is_gone = isinstance(lost, PeerLost) or lost.reason == "interrupted"
        replaceable = name in self.names and name not in self._session.with_role("label")
        if not (self._session.goes_on and self.may_drop and is_gone and replaceable):
            raise lost
        if len(self.names) - 1 < FEWEST_CONTRIBUTORS:
            raise PeerLost(
                name, "was lost, and without it too few contribute for masks to hide anything; start anew"
            ) from lost
        await self._line.dismiss(name)
        self.names.remove(name)
        self.vanished.append(name)
        self.fresh.append(name)
        self._journal.absent(name)
        self._journal.warn(vanished_words(name, self._line.me))
