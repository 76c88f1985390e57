"""The aggregator's side of a masked sum: who contributes, what it comes to, and who has vanished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from vfl.errors import PeerAborted, PeerLost, RemoteProtocolError
from vfl.journal import Journal
from vfl.masking.agreeing import Roster, relay_keys
from vfl.masking.contributing import FEWEST_CONTRIBUTORS, Contribution
from vfl.masking.ring import Ring
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

M = TypeVar("M", bound=Message)

_LOST = (PeerLost, PeerAborted)


class Gathering:
    """Sums what contributors say, and goes on without one that vanishes where the job allows it.

    What somebody who vanished had said, and the others in the same batch, is dropped and never summed:
    under a new roster its sum and the old one's would differ by a single contribution.

    Args:
        line: the aggregator's line; it must be the hub's.
        session: the run as it sees it.
        contributors: everybody who contributes at first under masks.
        ring: where contributions are summed.
        masked: whether masks are on.
        journal: what to tell.
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
    ) -> None:
        self.names = list(contributors)
        self.vanished: list[str] = []
        """Who has vanished so far."""
        self.fresh: list[str] = []
        """Who has vanished since the contributors last agreed on keys."""
        self.may_drop = True
        """Whether a batch can be dropped now; in the test there is nothing to go on with."""
        self._line, self._session, self._ring = line, session, ring
        self._masked, self._journal = masked, journal
        self._number = 0

    async def renew(self) -> None:
        """Has those who are left agree on fresh keys."""
        while True:
            self.fresh.clear()
            self._number += 1
            roster = Roster(self._number, tuple(self.names))
            try:
                if self._masked:
                    return await relay_keys(self._line, roster)
                return await self.say_all(roster)
            except _LOST as lost:
                await self._let_go(lost)

    async def sum_of(
        self, epoch: int, step: int, shape: tuple[int, int], mark: int | None = None
    ) -> tuple[Tensor, int] | None:
        """Hears what each contributor says of a batch, and sums it.

        Args:
            epoch: the batch's epoch.
            step: its place in it.
            shape: b and d.
            mark: the hash of its rows' ids, where this party knows it.

        Returns:
            The sum in the ring, [b, d], and the mark; None where somebody has vanished.

        Raises:
            RemoteProtocolError: if a contribution is another than is due.
            PeerLost: if somebody has vanished and the run cannot do without.
        """
        heard: dict[str, Contribution] = {}
        for name in tuple(self.names):
            said = await self.hear(name, Contribution) if name in self.names else None
            if said is not None:
                heard[name] = said
        if mark is None:  # most of them are taken to be right
            marks = [said.mark for said in heard.values()]
            mark = max(marks, key=marks.count)
        for name, said in heard.items():
            self._check(name, said, epoch, step, shape, mark)
        return None if self.fresh else (self._ring.total([said.q for said in heard.values()]), mark)

    def _check(
        self, name: str, said: Contribution, epoch: int, step: int, shape: tuple[int, int], mark: int
    ) -> None:
        if (said.epoch, said.step, said.mark) != (epoch, step, mark):
            raise RemoteProtocolError(
                name,
                f"contributes step {said.step} of epoch {said.epoch}, or other rows, where step {step} of "
                f"epoch {epoch} is due: each batch is summed once, and all tables must be aligned",
            )
        dtype = self._ring.dtype
        if (said.roster, tuple(said.q.shape), said.q.dtype) != (self._number, shape, dtype):
            raise RemoteProtocolError(
                name,
                f"contributes {said.q.dtype} {tuple(said.q.shape)} for roster {said.roster} where {dtype} "
                f"{shape} for roster {self._number} is due",
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
        replaceable = name in self.names and name != self._session.label
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
        self._journal.warn(f"{name} has vanished; the run goes on without it")
