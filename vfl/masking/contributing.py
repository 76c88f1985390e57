"""A contributor's side of a masked sum: its masks, renewed whenever who contributes changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor

from vfl.errors import DataError, RemoteProtocolError, RoleError
from vfl.journal import Journal
from vfl.learn.embedding import diverged
from vfl.masking.agreeing import FEWEST_CONTRIBUTORS, Roster, agree_on_keys
from vfl.masking.graph import Graph
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

#: The splits of a table as a mask's counter knows them.
SPLITS: Final = {"train": 0, "valid": 1, "test": 2, "all": 3}


@dataclass(frozen=True, eq=False)
class Contribution(Message):
    """Carries h [b, d] of one batch in the ring, masked; `mark` is the hash of the batch's ids."""

    roster: int
    epoch: int
    step: int
    mark: int
    q: Tensor


def clipped_words(ring: Ring) -> str:
    """Says that values were clipped, and what to do about it."""
    return f"values beyond ±{ring.clip:g} are clipped at the sum: set a larger clip, or scale the columns"


def vanished_words(name: str, aggregator: str) -> str:
    """Says that a party has vanished, and what that tells whoever sums."""
    return (
        f"{name} has vanished; the run goes on without it, and from the sums before and after {aggregator} "
        f"can estimate what {name} had contributed"
    )


class Contributing:
    """Makes one contributor's words: fixed-point numbers under the masks of the present roster.

    Args:
        line: this contributor's line.
        session: the run as it sees it.
        aggregator: who sums.
        contributors: everybody who contributes at first, this party among them.
        ring: where contributions are summed.
        masked: whether masks are on; without them the dialogue is the same, for debugging.
        journal: what to tell.
        graph: who masks with whom, as the aggregator knows it too; None is all with all.
    """

    def __init__(
        self,
        line: Line,
        session: Session,
        aggregator: str,
        contributors: Sequence[str],
        ring: Ring,
        *,
        masked: bool,
        journal: Journal,
        graph: Graph | None = None,
    ) -> None:
        self.clipped = 0
        self.keys: dict[str, bytes] = {}
        """The key of this party's pair with each that it masks with, once they are agreed on."""
        self._line, self._session, self._aggregator, self._ring = line, session, aggregator, ring
        self._masked, self._journal, self._graph = masked, journal, graph
        self._roster = Roster(0, tuple(contributors))
        self._masks: Masks | None = None  # none before keys are agreed on

    @property
    def names(self) -> tuple[str, ...]:
        """Who contributes now."""
        return self._roster.names

    @property
    def number(self) -> int:
        """The number of the present roster."""
        return self._roster.number

    async def begin(self) -> None:
        """Hears the first roster and agrees on keys with all in it.

        Raises:
            RemoteProtocolError: if the aggregator says another roster than the job's, or allows.
        """
        roster = await self._line.hear(self._aggregator, Roster)
        if roster.names != self._roster.names or roster.number <= 0:
            self._roster = replace(self._roster, number=1)  # somebody vanished before it could be said here
            self._check(roster)
        await self._agree(roster)

    async def renew(self, roster: Roster) -> None:
        """Goes on with fresh keys among those who are left.

        Raises:
            RemoteProtocolError: if the job does not allow that, or the roster is not one of those before.
        """
        self._check(roster)
        await self._agree(roster)

    async def say(self, split: str, epoch: int, step: int, mark: int, h: Tensor) -> None:
        """Says values [b, d] float32 of a batch, under a mask; no batch is said twice.

        Raises:
            RoleError: if the batch, or a later one of its split, was said before under this roster.
            DataError: if the values are not finite.
        """
        try:
            elements, clipped = self._ring.encode(h.detach().cpu())
        except ValueError as error:
            raise DataError(diverged("embedding", step)) from error
        if clipped and not self.clipped:
            self._journal.warn(clipped_words(self._ring))
        self.clipped += clipped
        await self.say_elements(split, epoch, step, mark, elements)

    async def say_elements(
        self, split: str, epoch: int, step: int, mark: int, elements: Tensor, ring: Ring | None = None
    ) -> None:
        """Says elements of a ring, under a mask that is added into their own memory.

        Args:
            split: as `SPLITS` has it; together with epoch and step it is said once.
            epoch: as above.
            step: as above.
            mark: the hash of what the elements are of.
            elements: of the ring's type; nobody else may have their memory.
            ring: theirs, if it is not the one in which all else is summed.

        Raises:
            RoleError: as for `say`.
        """
        mask = self._present.take(Counter(SPLITS[split], epoch, step), elements.shape, ring)
        q = (ring or self._ring).add(elements, mask)
        await self._line.say(self._aggregator, Contribution(self._roster.number, epoch, step, mark, q))

    def prepare(self, split: str, epoch: int, step: int, shape: Sequence[int]) -> None:
        """Makes the mask of a batch ahead of time, while there is nothing to do but wait."""
        self._present.prepare(Counter(SPLITS[split], epoch, step), shape)

    @property
    def _present(self) -> Masks:
        if self._masks is None:
            raise RoleError(f"{self._line.me} would contribute before masks are agreed on")
        return self._masks

    async def _agree(self, roster: Roster) -> None:
        keys: dict[str, bytes] = {}
        if self._masked:
            keys, roster = await agree_on_keys(
                self._line, self._session, self._aggregator, roster, self._check, graph=self._graph
            )
        still = set(roster.names)
        for name in self._roster.names:
            if name not in still:
                self._journal.absent(name)
                self._journal.warn(vanished_words(name, self._aggregator))
        self._roster, self.keys = roster, keys
        self._masks = Masks(self._line.me, keys, self._ring)

    def _check(self, roster: Roster) -> None:
        """Checks a roster that is to follow the present one."""
        fault = ""
        still = set(roster.names)
        left = tuple(name for name in self._roster.names if name in still)
        if not self._session.goes_on:
            fault = f"which the job does not allow: {', '.join(self._roster.names)} contribute"
        elif roster.number <= self._roster.number or left != roster.names:
            fault = "which does not follow from the one before"
        elif len(roster.names) < FEWEST_CONTRIBUTORS or self._line.me not in roster.names:
            fault = "whose masks would hide nothing"
        if fault:
            raise RemoteProtocolError(self._aggregator, f"says another roster, {fault}")
