"""The coordinator of secure forward aggregation: it sums and runs the trunk, and has no rows or labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from protocols.sfa.contributor import PREDICTING, TRAINING
from protocols.sfa.messages import Clipped, Counts, Dropped, EpochEnd, Hidden, HiddenGrad, SumGrad
from protocols.sfa.notes import hear_clipped
from protocols.sfa.roster import sum_of
from vfl.data.batches import batch_sizes
from vfl.errors import DataError, RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.cut import is_finite
from vfl.learn.embedding import check_gradient, diverged
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.masking.gathering import Gathering
from vfl.session import Session
from vfl.wire.line import Line


async def coordinator_party(
    line: Line, *, session: Session, trunk: Learner, batch_size: int, plan: Plan, journal: Journal
) -> None:
    """Sums what the others contribute, and trains the trunk on the sum.

    Args:
        line: this party's line.
        session: who takes part.
        trunk: maps the sum [b, d] to what the label party's head is given, [b, t].
        batch_size: rows a training batch.
        plan: what all agree on.
        journal: what to tell.

    Raises:
        RemoteProtocolError: if a peer says another step, shape, roster or rows than is due.
        PeerLost: if a party has vanished and the job, or the protocol, cannot do without.
        DataError: if the trunk's output or gradient is no longer finite.
    """
    part = _Coordinator(line, session, trunk, journal)
    sizes = await part.begin(TRAINING, batch_size)
    best = trunk.weights()
    for epoch in range(1, plan.epochs + 1):
        trunk.train()
        with line.during("train"):
            await part.train(epoch, sizes["train"])
        trunk.end_epoch()
        await part.evaluate("valid", epoch, sizes["valid"])
        with line.during("valid"):
            end = await part.end_epoch()
        if end.best:
            best = trunk.weights()
        journal.checkpoint(epoch, {"trunk": trunk}, best=end.best)
        journal.epoch({"epoch": epoch, "best": end.best})
        if end.stop:
            break
    trunk.load_weights(best)
    await part.evaluate("test", 0, sizes["test"])
    clipped = await hear_clipped(part.gathering)
    await line.say(session.label, Clipped(tuple(clipped), tuple(clipped.values())))


async def coordinator_predicts(
    line: Line, *, session: Session, trunk: Learner, batch_size: int, journal: Journal
) -> None:
    """Sums what the others contribute of all rows, and says what the trunk makes of it."""
    part = _Coordinator(line, replace(session, goes_on=False), trunk, journal)
    sizes = await part.begin(PREDICTING, batch_size)
    await part.evaluate("all", 0, sizes["all"])


class _Coordinator:
    """Is the coordinator at work on one batch after another."""

    def __init__(self, line: Line, session: Session, trunk: Learner, journal: Journal) -> None:
        names, self._ring = sum_of(session)
        masked = session.options.masks
        self.gathering = Gathering(line, session, names, self._ring, masked=masked, journal=journal)
        self._label, self._trunk = session.label, trunk
        self._line, self._journal = line, journal
        width = session.members[names[0]].width
        assert width is not None  # noqa: S101 - who contributes has one
        self._width = width
        if not masked:
            journal.warn("masks = false: every contribution can be seen here; for debugging only")

    async def begin(self, splits: Sequence[str], batch_size: int) -> Mapping[str, list[int]]:
        """Has the contributors agree on masks; returns how many rows each batch of a split has."""
        self.gathering.may_drop = splits == TRAINING
        counts = await self._hear_counts(splits)
        await self._renew()
        return {split: batch_sizes(split, n, batch_size) for split, n in counts.items()}

    async def train(self, epoch: int, sizes: Sequence[int]) -> None:
        """Trains one epoch, without the batches in which somebody has vanished."""
        gathering, learned = self.gathering, False
        for step, rows in enumerate(sizes):
            summed = await gathering.sum_of(epoch, step, (rows, self._width))
            if summed is None:
                gathering.check_learned(learned, is_last=step + 1 == len(sizes))
                await gathering.say(self._label, Dropped(step, tuple(gathering.fresh)))
                await self._renew()
            else:
                await self._learn(epoch, step, *summed)
                learned = True
            self._journal.step(epoch, step + 1, len(sizes), rows, None)

    async def _learn(self, epoch: int, step: int, total: Tensor, mark: int) -> None:
        gathering, trunk = self.gathering, self._trunk
        z = self._ring.decode(total).to(trunk.device).requires_grad_()  # [b, d]
        hidden = self._hidden(z, step)
        await gathering.say(self._label, Hidden(step, mark, hidden.detach()))
        reply = await gathering.hear(self._label, HiddenGrad)
        assert reply is not None  # noqa: S101 - without the label party the run is over
        check_gradient(self._label, step, hidden, reply.step, reply.grad)
        if hidden.requires_grad:
            torch.autograd.backward(hidden, reply.grad.to(hidden.device))
        grad = torch.zeros_like(z) if z.grad is None else z.grad
        if not is_finite(grad):
            raise DataError(diverged("gradient at the sum", step, epoch))
        await gathering.say_all(SumGrad(step, grad))
        trunk.step()

    async def evaluate(self, split: str, epoch: int, sizes: Sequence[int]) -> None:
        """Says what the trunk makes of a split's sums, up to where somebody vanishes."""
        self.gathering.may_drop = split == "valid"
        self._trunk.eval()
        whole = True
        with self._line.during(split):
            for step, rows in enumerate(sizes):
                summed = await self.gathering.sum_of(epoch, step, (rows, self._width))
                if summed is None:
                    if whole:
                        await self.gathering.say(self._label, Dropped(step, tuple(self.gathering.fresh)))
                    whole = False
                    continue
                with torch.no_grad():
                    hidden = self._hidden(self._ring.decode(summed[0]).to(self._trunk.device), step)
                await self.gathering.say(self._label, Hidden(step, summed[1], hidden))

    async def end_epoch(self) -> EpochEnd:
        """Passes on how the epoch ended, and has who is left agree anew where somebody has vanished."""
        end = await self.gathering.hear(self._label, EpochEnd)
        assert end is not None  # noqa: S101 - without the label party the run is over
        end = EpochEnd(end.best, end.stop, tuple(self.gathering.fresh))
        await self.gathering.say_all(end)
        if self._label not in self.gathering.names:
            await self.gathering.say(self._label, end)
        if end.vanished:
            await self._renew()
        return end

    async def _renew(self) -> None:
        """Has who is left agree on keys, and tells a label party that does not contribute who that is."""
        roster = await self.gathering.renew()
        if self._label not in roster.names:
            await self.gathering.say(self._label, roster)

    async def _hear_counts(self, splits: Sequence[str]) -> dict[str, int]:
        """Hears of everybody how many rows each split has; the most of them are taken to be right."""
        heard = {}
        for name in dict.fromkeys((self._label, *self.gathering.names)):
            said = await self._line.hear(name, Counts)
            if said.splits != tuple(splits) or len(said.rows) != len(splits) or min(said.rows) < 0:
                raise RemoteProtocolError(name, "says how many rows other splits have than are due")
            heard[name] = said.rows
        found = list(heard.values())
        right = max(found, key=found.count)
        for name, rows in heard.items():
            if rows != right:
                raise RemoteProtocolError(
                    name,
                    f"says that the splits have {_listed(rows)} rows where others say {_listed(right)}: all "
                    f"tables must be aligned, and all parties have one job",
                )
        return dict(zip(splits, right, strict=True))

    def _hidden(self, z: Tensor, step: int) -> Tensor:
        hidden = self._trunk(z).float()  # [b, t]
        if not is_finite(hidden):
            raise DataError(diverged("trunk's output", step))
        return hidden


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(f"{n}" for n in rows)
