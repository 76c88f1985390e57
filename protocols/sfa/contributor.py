"""The contributors' side of secure forward aggregation; the feature party is nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from protocols.sfa.messages import Clipped, Counts, EpochEnd, SumGrad
from protocols.sfa.roster import sum_of
from vfl.data.batches import Batch, Rows
from vfl.errors import ConfigError
from vfl.journal import Journal
from vfl.learn.ahead import keeping_weights
from vfl.learn.embedding import check_gradient, descend, embed_unchecked
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.masking.agreeing import Roster
from vfl.masking.contributing import Contributing
from vfl.session import Session
from vfl.wire.line import Line

#: The splits that are summed.
TRAINING: Final = ("train", "valid", "test")
PREDICTING: Final = ("all",)


async def feature_party(
    line: Line, *, session: Session, bottom: Learner, rows: Rows, plan: Plan, journal: Journal
) -> None:
    """Trains this party's bottom on the gradient at the sum.

    Raises:
        RemoteProtocolError: if whoever sums answers another step, shape or roster, or passes on false keys.
        DataError: if the embedding is no longer finite.
        ConfigError: if the run may go on without a party and the bottom has nothing to train.
    """
    check_learns(session, bottom)
    await say_counts(line, session, rows, TRAINING)
    masking = await begin_contributing(line, session, journal)
    best = bottom.weights()
    for epoch in range(1, plan.epochs + 1):
        before = bottom.weights() if session.goes_on else None
        with line.during("train"):
            await _train(line, masking, session.hub, bottom, rows, plan.ahead, epoch, journal)
        if before:
            check_moved(session, epoch, before, bottom)
        bottom.end_epoch()
        await _say_split(line, masking, bottom, rows, "valid", epoch)
        with line.during("valid"):
            end = await end_epoch(line, session.hub, masking)
        if end.best:
            best = bottom.weights()
        journal.checkpoint(epoch, {"bottom": bottom}, best=end.best)
        journal.epoch({"epoch": epoch, "best": end.best, "clipped": masking.clipped})
        if end.stop:
            break
    bottom.load_weights(best)
    await _say_split(line, masking, bottom, rows, "test")
    await line.say(session.hub, Clipped((line.me,), (masking.clipped,)))


async def _train(
    line: Line,
    masking: Contributing,
    aggregator: str,
    bottom: Learner,
    rows: Rows,
    ahead: int,
    epoch: int,
    journal: Journal,
) -> None:
    """Contributes each batch of an epoch, and learns from what comes back."""
    bottom.train()
    sizes = rows.sizes("train")
    unanswered: deque[tuple[Batch, Tensor]] = deque()
    for batch in rows.batches("train", epoch):
        with keeping_weights(bottom.network) if ahead else nullcontext():
            h = embed_unchecked(bottom, batch)  # [b, d]
        await masking.say("train", epoch, batch.step, batch.mark, h)
        unanswered.append((batch, h))
        if (after := batch.step + 1) < len(sizes):  # made now, while others compute
            masking.prepare("train", epoch, after, (sizes[after], h.shape[1]))
        if len(unanswered) > ahead:
            await learn(line, aggregator, bottom, masking, *unanswered.popleft())
        journal.step(epoch, batch.step + 1, len(sizes), batch.rows, None)
    while unanswered:
        await learn(line, aggregator, bottom, masking, *unanswered.popleft())


async def feature_predicts(
    line: Line, *, session: Session, bottom: Learner, rows: Rows, journal: Journal
) -> None:
    """Contributes all rows."""
    session = replace(session, goes_on=False)  # with the same weights a smaller sum tells a party's part
    await say_counts(line, session, rows, PREDICTING)
    masking = await begin_contributing(line, session, journal)
    await _say_split(line, masking, bottom, rows, "all")


def check_learns(session: Session, bottom: Learner) -> None:
    """Checks that what this party says of a row changes as it learns, where a roster may change.

    Raises:
        ConfigError: if the difference of two sums of one row could be what one that vanished had said of it.
    """
    if session.goes_on and bottom.optimizer is None:
        raise ConfigError(
            f"{session.me}.toml: bottom has no weights to train, so that the sums before and after somebody "
            f'vanishes show what that party said; give it a layer, or set on_absence = "abort" in the job'
        )


def check_moved(session: Session, epoch: int, before: Mapping[str, Tensor], bottom: Learner) -> None:
    """Checks that an epoch has changed a bottom, for the reason that `check_learns` gives.

    Raises:
        ConfigError: if its weights are what they were.
    """
    after = bottom.weights()
    if all(torch.equal(weight, after[name]) for name, weight in before.items()):
        raise ConfigError(
            f"{session.me}: its bottom has not changed in epoch {epoch}, so that the sums before and after "
            f"somebody vanishes would show what that party said; keep the learning rate above 0, or set "
            f'on_absence = "abort" in the job'
        )


async def say_counts(line: Line, session: Session, rows: Rows, splits: Sequence[str]) -> None:
    """Tells a coordinator, if there is one, how many rows each split has."""
    if session.with_role("coordinator"):
        await line.say(session.hub, Counts(tuple(splits), tuple(rows.count(split) for split in splits)))


async def begin_contributing(line: Line, session: Session, journal: Journal) -> Contributing:
    """Agrees on masks with the other contributors."""
    names, ring = sum_of(session)
    masked = session.options.masks
    if not masked:
        journal.warn(f"masks = false: {session.hub} sees every contribution; for debugging only")
    elif session.members[line.me].identity is None:
        journal.warn(f"the job lists no public keys: {session.hub} could pass on false ones")
    masking = Contributing(line, session, session.hub, names, ring, masked=masked, journal=journal)
    await masking.begin()
    return masking


async def learn(
    line: Line, aggregator: str, bottom: Learner, masking: Contributing, batch: Batch, h: Tensor
) -> None:
    """Hears the gradient of a batch and steps, or goes on under a new roster without that batch."""
    _, reply = await line.hear_any((aggregator,), SumGrad, Roster)
    if isinstance(reply, Roster):
        await masking.renew(reply)
    elif isinstance(reply, SumGrad):
        check_gradient(aggregator, batch.step, h, reply.step, reply.grad)
        descend(bottom, h, reply.grad)


async def end_epoch(line: Line, aggregator: str, masking: Contributing) -> EpochEnd:
    """Hears how an epoch ended, and goes on under a new roster where one follows."""
    end = await line.hear(aggregator, EpochEnd)
    if end.vanished:
        await masking.renew(await line.hear(aggregator, Roster))
    return end


async def _say_split(
    line: Line, masking: Contributing, bottom: Learner, rows: Rows, split: str, epoch: int = 0
) -> None:
    bottom.eval()
    with line.during(split), torch.no_grad():
        for batch in rows.batches(split):
            await masking.say(split, epoch, batch.step, batch.mark, embed_unchecked(bottom, batch))
