"""The label party of secure forward aggregation: it sums, or it has a coordinator in front of its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from protocols.sfa.contributor import (
    PREDICTING,
    TRAINING,
    begin_contributing,
    check_learns,
    check_moved,
    learn,
    say_counts,
)
from protocols.sfa.messages import Clipped, Dropped, EpochEnd, Hidden, HiddenGrad, SumGrad
from protocols.sfa.notes import hear_clipped, notes_on
from protocols.sfa.roster import sum_of
from vfl.data.batches import Batch, Rows
from vfl.errors import DataError, RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.course import direct
from vfl.learn.cut import is_finite
from vfl.learn.embedding import descend, diverged, embed, embed_unchecked
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan
from vfl.learn.scores import loss_function
from vfl.masking.agreeing import Roster
from vfl.masking.contributing import Contributing, clipped_words
from vfl.masking.gathering import Gathering
from vfl.session import Session
from vfl.wire.line import Line


async def label_party(
    line: Line,
    *,
    session: Session,
    own: Learner | None,
    joint: Learner,
    rows: Rows,
    task: str,
    plan: Plan,
    journal: Journal,
) -> Outcome:
    """Trains what lies behind the sum, or behind the coordinator's trunk, and this party's own bottom.

    Args:
        line: this party's line.
        session: who takes part.
        own: this party's bottom, if it has columns.
        joint: all that lies behind the sum; with a coordinator, the head behind its trunk.
        rows: this party's rows with labels.
        task: binary, multiclass or regression.
        plan: what all agree on.
        journal: what to tell.

    Raises:
        RemoteProtocolError: if a peer says another step, shape, roster or rows than is due.
        PeerLost: if a party has vanished and the job, or the protocol, cannot do without.
        DataError: if the loss is no longer finite.
    """
    if own and session.with_role("coordinator"):
        check_learns(session, own)
    top = await _top(line, session, own, joint, rows, task, journal)
    outcome = await direct(line, top, rows, task, plan, journal)
    clipped = await top.end()
    return replace(outcome, notes=notes_on(session, top.vanished, clipped))


async def label_predicts(
    line: Line,
    *,
    session: Session,
    own: Learner | None,
    joint: Learner,
    rows: Rows,
    journal: Journal,
) -> np.ndarray:
    """Returns the joint network's raw outputs [n, c] for all rows."""
    session = replace(session, goes_on=False)  # with the same weights a smaller sum tells a party's part
    top = await _top(line, session, own, joint, rows, "", journal, splits=PREDICTING)
    for learner in top.learners.values():
        learner.eval()
    with line.during("all"):
        outputs = await top.outputs("all", 0)
    assert outputs is not None  # noqa: S101 - a party that vanishes here ends the prediction
    return outputs


async def _top(
    line: Line,
    session: Session,
    own: Learner | None,
    joint: Learner,
    rows: Rows,
    task: str,
    journal: Journal,
    splits: Sequence[str] = TRAINING,
) -> _Summing | _Heading:
    """Begins this party's part: agrees on masks, or has the contributors agree."""
    if not session.with_role("coordinator"):
        summing = _Summing(line, session, own, joint, rows, task, journal, splits)
        await summing.begin()
        return summing
    await say_counts(line, session, rows, splits)
    masking = await begin_contributing(line, session, journal) if own else None
    heading = _Heading(line, session, own, joint, rows, task, journal, masking)
    heading.note_absent(masking.names if masking else (await line.hear(session.hub, Roster)).names)
    return heading


class _Summing:
    """Is the label party that sums; a `vfl.learn.course.Top`."""

    def __init__(
        self,
        line: Line,
        session: Session,
        own: Learner | None,
        joint: Learner,
        rows: Rows,
        task: str,
        journal: Journal,
        splits: Sequence[str],
    ) -> None:
        names, self._ring = sum_of(session)
        masked = session.options.masks
        self._gathering = Gathering(line, session, names, self._ring, masked=masked, journal=journal)
        self._own, self._joint, self._rows, self._task, self._journal = own, joint, rows, task, journal
        self._width = session.widths[names[0]]
        self._name, self._clipped = line.me, 0
        self._may_drop = splits == TRAINING
        if not masked:
            journal.warn("masks = false: every contribution can be seen here; for debugging only")

    @property
    def learners(self) -> dict[str, Learner]:
        return {"joint": self._joint} | ({"own": self._own} if self._own else {})

    @property
    def vanished(self) -> list[str]:
        return self._gathering.vanished

    async def begin(self) -> None:
        self._gathering.may_drop = self._may_drop
        await self._gathering.renew()

    async def train(self, epoch: int) -> float:
        own, joint, gathering = self._own, self._joint, self._gathering
        for learner in self.learners.values():
            learner.train()
        losses = _Losses(self._task, self._rows, self._journal)
        for batch in self._rows.batches("train", epoch):
            summed = await gathering.sum_of(epoch, batch.step, (batch.rows, self._width), batch.mark)
            if summed is None:  # somebody has vanished: this batch is dropped
                is_last = batch.step + 1 == self._rows.steps("train")
                gathering.check_learned(losses.rows > 0, is_last=is_last)
                await gathering.renew()
                continue
            own_h = embed(own, batch) if own else None
            z = self._decoded(summed[0], own_h).requires_grad_()  # [b, d]
            value = losses.of(joint(z), batch, joint)
            grad = _finite(_grad_of(z), value, batch.step, epoch)
            await gathering.say_all(SumGrad(batch.step, grad))
            if own and own_h is not None:
                descend(own, own_h, grad)
            joint.step()
            losses.add(epoch, batch, value)
        return losses.mean

    async def outputs(self, split: str, epoch: int) -> np.ndarray | None:
        self._gathering.may_drop = split == "valid"
        outputs, whole = [], True
        for batch in self._rows.batches(split):
            summed = await self._gathering.sum_of(epoch, batch.step, (batch.rows, self._width), batch.mark)
            whole = whole and summed is not None
            if summed is not None and whole:
                with torch.no_grad():
                    own_h = embed(self._own, batch) if self._own else None
                    outputs.append(self._joint(self._decoded(summed[0], own_h)).cpu().numpy())
        return _joined(outputs) if whole else None

    async def end_epoch(self, best: bool, stop: bool) -> None:
        end = EpochEnd(best, stop, tuple(self._gathering.fresh))
        await self._gathering.say_all(end)
        if end.vanished:
            await self._gathering.renew()

    async def end(self) -> dict[str, int]:
        """Hears how many values each contributor clipped."""
        return await hear_clipped(self._gathering) | ({self._name: self._clipped} if self._own else {})

    def _decoded(self, total: Tensor, own_h: Tensor | None) -> Tensor:
        """Adds this party's own contribution, which needs no mask here, and reads the sum."""
        if own_h is not None:
            elements, clipped = self._ring.encode(own_h.detach().cpu())
            if clipped and not self._clipped:
                self._journal.warn(clipped_words(self._ring))
            self._clipped += clipped
            total = self._ring.total([total, elements])
        return self._ring.decode(total).to(self._joint.device)


@dataclass
class _Heading:
    """Is the label party behind a coordinator's trunk; a `vfl.learn.course.Top`."""

    line: Line
    session: Session
    own: Learner | None
    joint: Learner
    rows: Rows
    task: str
    journal: Journal
    masking: Contributing | None
    vanished: list[str] = field(default_factory=list)

    @property
    def learners(self) -> dict[str, Learner]:
        return {"joint": self.joint} | ({"own": self.own} if self.own else {})

    async def train(self, epoch: int) -> float:
        hub, own, joint, masking = self.session.hub, self.own, self.joint, self.masking
        for learner in self.learners.values():
            learner.train()
        losses = _Losses(self.task, self.rows, self.journal)
        before = own.weights() if own and self.session.goes_on else None
        for batch in self.rows.batches("train", epoch):
            own_h = await self._contribute("train", epoch, batch)
            heard = await self._hear("train", batch)
            if heard is None:
                await self._renew()
                continue
            hidden = heard.requires_grad_()  # [b, t]
            value = losses.of(joint(hidden), batch, joint)
            grad = _finite(_grad_of(hidden), value, batch.step, epoch)
            await self.line.say(hub, HiddenGrad(batch.step, grad))
            joint.step()
            if own and masking and own_h is not None:
                await learn(self.line, hub, own, masking, batch, own_h)
            losses.add(epoch, batch, value)
        if own and before:
            check_moved(self.session, epoch, before, own)
        return losses.mean

    async def outputs(self, split: str, epoch: int) -> np.ndarray | None:
        outputs, whole = [], True
        for batch in self.rows.batches(split):
            with torch.no_grad():
                await self._contribute(split, epoch, batch)
            heard = await self._hear(split, batch) if whole else None
            whole = heard is not None
            if heard is not None:
                with torch.no_grad():
                    outputs.append(self.joint(heard).cpu().numpy())
        return _joined(outputs) if whole else None

    async def end_epoch(self, best: bool, stop: bool) -> None:
        hub = self.session.hub
        await self.line.say(hub, EpochEnd(best, stop, ()))
        end = await self.line.hear(hub, EpochEnd)
        if (end.best, end.stop) != (best, stop):
            raise RemoteProtocolError(hub, "passes on another end of the epoch than was said")
        self._note(end.vanished)
        if end.vanished:
            await self._renew()

    async def end(self) -> dict[str, int]:
        """Says how many values this party clipped, and hears of all."""
        hub = self.session.hub
        if self.masking:
            await self.line.say(hub, Clipped((self.line.me,), (self.masking.clipped,)))
        clipped = await self.line.hear(hub, Clipped)
        left = {name for name in sum_of(self.session)[0] if name not in self.vanished}
        if set(clipped.names) != left or len(clipped.values) != len(clipped.names) or min(clipped.values) < 0:
            raise RemoteProtocolError(hub, "says of others than those who contribute what was clipped")
        return dict(zip(clipped.names, clipped.values, strict=True))

    def note_absent(self, names: Sequence[str]) -> None:
        """Notes who of the job's contributors is not among those who are left."""
        contributors = sum_of(self.session)[0]
        if not set(names) <= set(contributors):
            raise RemoteProtocolError(self.session.hub, "says a roster of others than those who contribute")
        self._note([name for name in contributors if name not in names])

    async def _renew(self) -> None:
        """Hears who is left, and goes on under fresh masks where this party contributes."""
        roster = await self.line.hear(self.session.hub, Roster)
        if self.masking:
            await self.masking.renew(roster)
        self.note_absent(self.masking.names if self.masking else roster.names)

    async def _contribute(self, split: str, epoch: int, batch: Batch) -> Tensor | None:
        if self.own is None or self.masking is None:
            return None
        h = embed_unchecked(self.own, batch)
        await self.masking.say(split, epoch, batch.step, batch.mark, h)
        return h

    async def _hear(self, split: str, batch: Batch) -> Tensor | None:
        """Hears what the trunk makes of a batch, [b, t]; None if it was dropped."""
        hub = self.session.hub
        _, said = await self.line.hear_any((hub,), Hidden, Dropped)
        if isinstance(said, Dropped):
            if said.step != batch.step or not said.vanished or split not in ("train", "valid"):
                raise RemoteProtocolError(hub, f"drops step {said.step} where step {batch.step} was due")
            self._note(said.vanished)
            return None
        assert isinstance(said, Hidden)  # noqa: S101 - the one other kind that was asked for
        shape = (batch.rows, self.session.members[hub].width)
        if (said.step, said.mark) != (batch.step, batch.mark):
            raise RemoteProtocolError(hub, f"says step {said.step} of other rows than step {batch.step} here")
        if tuple(said.h.shape) != shape or said.h.dtype != torch.float32 or not is_finite(said.h):
            raise RemoteProtocolError(
                hub, f"says {said.h.dtype} {tuple(said.h.shape)} where finite float32 {shape} was due"
            )
        return said.h.to(self.joint.device)

    def _note(self, names: Sequence[str]) -> None:
        """Notes who has vanished, which may be said twice."""
        could = self.session.with_role("feature") if self.session.goes_on else []
        for name in names:
            if name not in could:
                raise RemoteProtocolError(self.session.hub, f"says that {name[:32]!r} vanished, who cannot")
            if name not in self.vanished:
                self.vanished.append(name)
                if self.masking is None:  # which tells of it otherwise
                    self.journal.absent(name)


class _Losses:
    """Adds up an epoch's losses, over the batches that were not dropped."""

    def __init__(self, task: str, rows: Rows, journal: Journal) -> None:
        self._loss_of, self._journal = loss_function(task), journal
        self._steps, self._total, self.rows = rows.steps("train"), 0.0, 0

    @property
    def mean(self) -> float:
        return self._total / max(self.rows, 1)

    def of(self, output: Tensor, batch: Batch, joint: Learner) -> float:
        """Returns a batch's loss, passed back as far as what was heard."""
        assert batch.y is not None  # noqa: S101 - the label party's rows have labels
        loss = self._loss_of(output, batch.y.to(joint.device))
        torch.autograd.backward(loss)
        return float(loss.item())

    def add(self, epoch: int, batch: Batch, value: float) -> None:
        self._total += value * batch.rows
        self.rows += batch.rows
        self._journal.step(epoch, batch.step + 1, self._steps, batch.rows, value)


def _grad_of(z: Tensor) -> Tensor:
    # A module of the user's may leave the sum out of account.
    return torch.zeros_like(z) if z.grad is None else z.grad


def _finite(grad: Tensor, value: float, step: int, epoch: int) -> Tensor:
    if not (np.isfinite(value) and is_finite(grad)):
        raise DataError(diverged(f"loss ({value:g}) or its gradient", step, epoch))
    return grad


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(outputs) if outputs else np.empty((0, 1), dtype=np.float32)
