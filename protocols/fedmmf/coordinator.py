"""The coordinator of a federated factorisation: it sums, and has no ratings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from protocols.fedmmf.adding import Summing
from protocols.fedmmf.messages import (
    Axis,
    Choice,
    Clipped,
    EncryptedSum,
    Group,
    Mean,
    RoundEnd,
    SharedFactors,
    Turn,
)
from protocols.fedmmf.roster import (
    Config,
    bound_words,
    check_metric,
    graph_of,
    joins_too_late,
    masked_group,
    ring_of,
    score_widths,
)
from protocols.fedmmf.shared import SharedSide, scores_of
from vfl.errors import PeerLost, RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.plan import Plan, Selection
from vfl.masking.gathering import Gathering
from vfl.ratings.scores import mean_residual
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

_FEW: Final = 8


@dataclass(frozen=True)
class Outcome:
    """Holds the course and the scores of one training.

    Attributes:
        history: one record a round: epoch, valid scores, seconds, best.
        best_epoch: the round, from 1, whose factors were kept.
        valid: their scores on all validation ratings.
        test: on all test ratings.
        alone: likewise, of the models that participants brought of their own, each on its own ratings.
        ratings: how many train.
        vanished: the parties that the run went on without.
        plain: who contributed in the clear.
        notes: sentences on what a reader of the scores should know.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    valid: dict[str, float]
    test: dict[str, float]
    alone: dict[str, float]
    ratings: int
    vanished: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def coordinator(
    line: Line, *, session: Session, seed: int, plan: Plan, journal: Journal, alone: bool = False
) -> Outcome:
    """Sums what participants contribute, and takes the step for the shared factors.

    Args:
        line: this party's line.
        session: who takes part.
        seed: the job's.
        plan: what all agree on.
        journal: what to tell.
        alone: whether participants bring scores of models of their own.

    Raises:
        RemoteProtocolError: if a participant says another size, step, shape or roster than is due.
        PeerLost: if one has vanished and the job, or the protocol, cannot do without.
        ConfigError: if training diverges, or the score that decides cannot be had.
    """
    check_metric(session.options, plan.metric)
    part = _Coordinator(line, session, seed, plan, journal)
    with line.during("setup"):
        ratings = await part.begin()
    history = await part.rounds()
    best = part.selection.best_epoch
    with line.during("test"):
        valid, test, own = await part.test(alone)
        notes = await part.end()
    plain = tuple(name for name in part.gathering.names if name not in part.masked())
    return Outcome(history, best, valid, test, own, ratings, tuple(part.gathering.vanished), plain, notes)


class _Coordinator:
    """Is the coordinator at work."""

    side: SharedSide
    gathering: Gathering
    _sums: Summing

    def __init__(self, line: Line, session: Session, seed: int, plan: Plan, journal: Journal) -> None:
        self.selection = Selection(plan)
        self._line, self._session, self._seed, self._plan = line, session, seed, plan
        self._journal = journal
        self._config: Config = session.options
        self._names = session.with_role("participant")
        self._ring = ring_of(self._config, len(self._names))
        self._wanting: tuple[str, ...] | None = None
        self._ask: Message = Turn(1)
        if self._config.aggregation == "plain":
            journal.warn('aggregation = "plain": every contribution can be seen here')

    def masked(self) -> tuple[str, ...]:
        """Lists whose contributions cannot be seen here."""
        names = tuple(self.gathering.names)
        if self._wanting is not None:
            return masked_group(names, self._wanting, self._session.nonce)
        return () if self._config.aggregation == "plain" else names

    async def begin(self) -> int:
        """Has participants agree on how to sum, and says mu; returns how many ratings train."""
        m, mark = await self._hear_sizes()
        self.side = SharedSide(self._config, m, self._ring, self._seed)
        if self._config.aggregation == "adaptive":
            self._wanting = await self._hear_choices()
        self.gathering = Gathering(
            self._line,
            self._session,
            self._names,
            self._ring,
            masked=self._config.aggregation != "plain",
            journal=self._journal,
            graph=graph_of(self._session, self._wanting),
        )
        self._sums = Summing(self._line, self._session, self.gathering, self._ring, m, mark)
        await self._sums.renew()
        self.gathering.may_drop = False  # a second mean would tell the first one's part who vanished
        total = await self._sums.scores("all", 0, 2)
        assert total is not None  # noqa: S101 - nothing is dropped here
        mu, ratings = mean_residual(total)
        if ratings < 2 * len(self._names):
            raise RemoteProtocolError(
                self._names[0],
                f"and the others count {ratings} ratings to train on in all; each has two at least",
            )
        self.gathering.may_drop = True
        self.side.weight = m / ratings
        await self.gathering.say_all(Mean(mu, ratings))
        return ratings

    async def rounds(self) -> list[dict[str, Any]]:
        """Goes through all rounds; returns a record of each."""
        history: list[dict[str, Any]] = []
        n_vanished = 0
        for epoch in range(1, self._plan.epochs + 1):
            started = time.perf_counter()
            self._ask = Turn(epoch)
            with self._line.during("train"):
                await self._train(epoch)
            vanished = self.gathering.vanished
            scores = await self._validate(epoch)
            if len(vanished) > n_vanished:
                self.selection, n_vanished = (
                    Selection(self._plan, epoch - (scores is not None)),
                    len(vanished),
                )
            best = scores is not None and self.selection.judge(epoch, scores)
            stop = self.selection.is_over(epoch)
            await self._end_round(best, stop, n_vanished)
            seconds = time.perf_counter() - started
            history.append({"epoch": epoch, "valid": scores or {}, "seconds": seconds, "best": best})
            self._journal.checkpoint(epoch, self._kept(), best=best)
            self._journal.epoch(history[-1])
            if stop:
                break
        return history

    async def test(self, alone: bool) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Sums the scores of the factors that are kept, on validation and test ratings; then those alone."""
        self.gathering.may_drop = False
        width = score_widths(self._config, self._plan.metric)[1]
        half = width // 2
        total = await self._sums.scores("test", 0, width + half * alone)
        assert total is not None  # noqa: S101 - nothing is dropped here
        own = scores_of(total[width:]) if alone else {}
        return scores_of(total[:half]), scores_of(total[half:width]), own

    async def end(self) -> tuple[str, ...]:
        """Hears what was clipped; returns what a reader of the scores should know."""
        notes = []
        plain = [name for name in self.gathering.names if name not in self.masked()]
        hub = self._line.me
        if plain:
            notes.append(
                f"{_listed(plain)} contributed in the clear: {hub} saw which shared entities have ratings "
                f"there, and can find nearly every rating less its mask."
            )
        if self._config.aggregation == "paillier" and self._config.paillier_items == "rated":
            notes.append(f'paillier_items = "rated": {hub} saw which shared entities have ratings where.')
        if self._config.aggregation in ("masked", "adaptive"):
            notes.append(bound_words(self._config, len(self.masked()), all_mask=not plain))
        notes += [
            f"{name} vanished, and the run went on without it. From the sums before and after, {hub} can "
            f"estimate what it had contributed."
            for name in self.gathering.vanished
        ]
        for name in tuple(self.gathering.names):
            said = await self.gathering.hear(name, Clipped)
            if said is None or said.values < 0:
                raise RemoteProtocolError(name, "says that fewer than no sums were clipped")
            if said.values:
                notes.append(f"{name} clipped {said.values} sum{'s' if said.values > 1 else ''}.")
        return tuple(notes)

    async def _train(self, epoch: int) -> None:
        """Takes the steps of a round, without those in which somebody has vanished."""
        for step in range(self._config.batches):
            cells = await self._step(epoch, step)
            if cells is None:
                await self._drop(epoch)
            self._ask = SharedFactors(epoch, step, self.side.say())
            if self._config.aggregation == "paillier":
                self._ask = EncryptedSum(epoch, step, self._sums.nothing() if cells is None else cells)
            self._journal.step(epoch, step + 1, self._config.batches, 0, None)

    async def _step(self, epoch: int, step: int) -> Tensor | None:
        """Sums a step, and takes it where the sum can be read here."""
        if self._config.aggregation == "paillier":
            return await self._sums.encrypted_table(epoch, step, self._ask)
        total = await self._sums.table(epoch, step, self._ask)
        if total is not None:
            self.side.learn(total)
        return total

    async def _drop(self, epoch: int) -> None:
        """Goes on without whoever has vanished, under a new roster."""
        if self._config.solver == "als" and epoch == self._plan.epochs:
            raise PeerLost(self.gathering.vanished[-1], "was lost in the last round: start anew, or set more")
        await self._renew()
        self.side.drop(self.gathering.number)

    async def _validate(self, epoch: int) -> dict[str, float] | None:
        """Scores a round; None where somebody has vanished meanwhile."""
        before = len(self.gathering.vanished)
        width = score_widths(self._config, self._plan.metric)[0]
        with self._line.during("valid"):
            total = await self._sums.scores("valid", epoch, width, self._ask)
        whole = total is not None and len(self.gathering.vanished) == before
        return scores_of(total) if total is not None and whole else None

    async def _end_round(self, best: bool, stop: bool, n_vanished: int) -> None:
        """Tells how a round ended, and has who is left agree anew where somebody has vanished."""
        gathering = self.gathering
        if stop and (gathering.fresh or not self.selection.best_epoch):
            self._too_late()
        with self._line.during("valid"):
            vanished = tuple(gathering.fresh)
            await gathering.say_all(RoundEnd(best, stop, vanished))
            if stop and len(gathering.vanished) > n_vanished:
                self._too_late()
            if vanished:
                await self._renew()

    async def _renew(self) -> None:
        """Has those who are left agree on fresh masks or a fresh key.

        Raises:
            PeerLost: if one of them would have to begin to mask after its sums were seen here.
        """
        gone = self.gathering.vanished[-1]
        late = joins_too_late(self._names, self.gathering.names, self._wanting, self._session.nonce)
        if late:
            raise PeerLost(
                gone,
                f"was lost, and {late}, whose sums were in the clear, cannot mask in its place: start anew",
            )
        await self._sums.renew()

    def _too_late(self) -> None:
        raise PeerLost(self.gathering.vanished[-1], "vanished when training was over: start anew")

    def _kept(self) -> dict[str, Any]:
        return {} if self._config.aggregation == "paillier" else {"shared": self.side.learner}

    async def _hear_sizes(self) -> tuple[int, int]:
        """Hears how many shared entities each has; what most of them say is taken to be right."""
        heard = {}
        for name in self._names:
            said = await self._line.hear(name, Axis)
            heard[name] = (said.shared, said.mark)
        found = list(heard.values())
        right = max(found, key=found.count)
        kind = "items" if self._config.by == "user" else "users"
        for name, size in heard.items():
            if size != right:
                raise RemoteProtocolError(
                    name,
                    f"has {size[0]} {kind} in common with the others, or other ones, where they say "
                    f"{right[0]}: all participants need the same catalogue, in one order",
                )
        if not 1 <= right[0] < 2**31:
            raise RemoteProtocolError(self._names[0], f"has {right[0]} {kind} in common with the others")
        return right

    async def _hear_choices(self) -> tuple[str, ...]:
        """Hears who chose masks, and tells everybody."""
        choices = {name: (await self._line.hear(name, Choice)).plain for name in self._names}
        wanting = tuple(name for name, plain in choices.items() if not plain)
        for name in self._names:
            await self._line.say(name, Group(wanting))
        return wanting


def _listed(names: Sequence[str]) -> str:
    """Names the first few, and counts the rest."""
    few, rest = names[:_FEW], len(names) - _FEW
    return ", ".join(few) + (f" and {rest} more" if rest > 0 else "")
