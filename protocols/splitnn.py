"""Split learning: a bottom network at every party, and at the label party the trunk that joins them.

One training step on a batch of b rows, for each feature party k with cut width d_k:

    feature --Embedding--> label        h_k = bottom_k(x_k)     [b, d_k] float32
    label --EmbeddingGrad--> feature    dL/dh_k                 [b, d_k] float32

After each epoch the feature parties say the embeddings of the validation rows, and the label party
answers whether these weights are the best so far and whether training goes on; at the end they say
the test rows' embeddings with the best weights:

    label --EpochEnd--> feature         keep these weights? stop?

With the same initial weights and batches this is, bit for bit, the one-process network. A feature
party that runs `ahead` says so many further embeddings before it hears the first one's gradient, which
is then that of the weights which made the embedding, applied to later ones.

Who learns what:
    feature: The gradient of the loss at its own cut, for every training row. In a binary task its
        direction and length tell the label of single rows apart, so take it for granted that a
        curious feature party can infer training labels. Also which epoch scored best.
    label: Every feature party's embedding of every row, in the clear. It is as telling as the bottom
        is shallow: from a linear or wide bottom the columns can be reconstructed. It learns no column
        and no weight directly.
    feature to feature: Nothing of each other, beyond the job and the number of rows.

Source: Vepakomma, Gupta, Swedish and Raskar, Split learning for health, arXiv 1812.00564, section 2,
the vertically partitioned configuration; label inference from gradients: Li et al., arXiv 2102.08504.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor

from vfl.data.batches import Batch, Rows
from vfl.errors import ConfigError, DataError, RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.ahead import keeping_weights
from vfl.learn.course import direct
from vfl.learn.cut import CUTS, is_finite, joined_width
from vfl.learn.cut import Joint as Joint  # for whoever builds the label party's network
from vfl.learn.embedding import check_gradient, descend, diverged, embed
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan
from vfl.learn.presets import choose
from vfl.learn.scores import loss_function
from vfl.session import Session
from vfl.wire.codec import encode, frames_bytes, tensor_bytes
from vfl.wire.line import Line
from vfl.wire.messages import Message

MOST_FEATURE_PARTIES: Final = 16

#: The first of these roles that a job has is that of the party with the one open port.
HUB: Final = ("label",)


class Config(BaseModel):
    """Holds this protocol's options, from `[protocols.splitnn]` in the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cut: str = "concat"
    """concat, sum, mean, max, product, or `package.module:Class` of a module over the embeddings."""

    @field_validator("cut")
    @classmethod
    def _is_known(cls, cut: str) -> str:
        if cut not in CUTS and ":" not in cut:
            raise ValueError(f"is no cut: {choose(cut, CUTS)}, or package.module:Class")
        return cut


# --- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Embedding(Message):
    """Carries h [b, d_k] of one batch; `mark` is the hash of the batch's ids."""

    step: int
    mark: int
    h: Tensor


@dataclass(frozen=True, eq=False)
class EmbeddingGrad(Message):
    """Carries dL/dh [b, d_k] of the batch of that step."""

    step: int
    grad: Tensor


@dataclass(frozen=True, eq=False)
class EpochEnd(Message):
    """Tells whether the epoch's weights are the best so far, and whether it was the last."""

    best: bool
    stop: bool


MESSAGES: Final = (Embedding, EmbeddingGrad, EpochEnd)


# --- arithmetic: the cut itself is in vfl/learn/cut.py -----------------------------------------------


def check_roster(config: Config, roles: Mapping[str, str], widths: Mapping[str, int | None]) -> None:
    """Checks who takes part.

    Raises:
        ConfigError: unless there are one label party, 1 to 16 feature parties and widths that fit the cut.
    """
    features = [name for name, role in roles.items() if role == "feature"]
    labels = [name for name, role in roles.items() if role == "label"]
    if len(labels) != 1:
        raise ConfigError(f"parties: {len(labels)} have role = 'label'; exactly one holds the label")
    if not 1 <= len(features) <= MOST_FEATURE_PARTIES:
        raise ConfigError(
            f"parties: {len(features)} have role = 'feature'; there may be 1 to {MOST_FEATURE_PARTIES}"
        )
    for name in features:
        if widths[name] is None:
            raise ConfigError(
                f"parties.{name}.width: is missing; say how many numbers a row it brings to the cut"
            )
    if config.cut in CUTS:
        joined_width(config.cut, {name: width for name, width in widths.items() if width is not None})


def step_bytes(session: Session, rows: int, *, learning: bool = True) -> tuple[int, int]:
    """Bounds what the feature party `session.me` sends and receives in a step of `rows` rows, in bytes."""
    none, most, names = torch.zeros(0, 0), 2**62, {"to": "x" * 32, "sender": "x" * 32}
    content = tensor_bytes(rows, session.members[session.me].width or 0, torch.float32)
    sent = frames_bytes(encode(Embedding(most, most, none), **names)) + content
    return sent, (frames_bytes(encode(EmbeddingGrad(most, none), **names)) + content) * learning


# --- roles -----------------------------------------------------------------------------------------


async def feature_party(
    line: Line, *, session: Session, bottom: Learner, rows: Rows, plan: Plan, journal: Journal
) -> None:
    """Trains this party's bottom on the gradients that the label party sends.

    Raises:
        RemoteProtocolError: if the label party answers another step or with another shape.
        DataError: if the embedding is no longer finite.
    """
    label, best = session.label, bottom.weights()
    steps = rows.steps("train")
    for epoch in range(1, plan.epochs + 1):
        bottom.train()
        unanswered: deque[tuple[Batch, Tensor]] = deque()
        with line.during("train"):
            for batch in rows.batches("train", epoch):
                # Without running ahead no step comes between a batch's way there and back.
                with keeping_weights(bottom.network) if plan.ahead else nullcontext():
                    h = embed(bottom, batch)  # [b, d]
                await line.say(label, Embedding(batch.step, batch.mark, h.detach()))
                unanswered.append((batch, h))
                if len(unanswered) > plan.ahead:
                    await _learn(line, label, bottom, *unanswered.popleft())
                journal.step(epoch, batch.step + 1, steps, batch.rows, None)
            while unanswered:
                await _learn(line, label, bottom, *unanswered.popleft())
        bottom.end_epoch()
        await _say_embeddings(line, label, bottom, rows, "valid")
        with line.during("valid"):
            end = await line.hear(label, EpochEnd)
        if end.best:
            best = bottom.weights()
        journal.checkpoint(epoch, {"bottom": bottom}, best=end.best)
        journal.epoch({"epoch": epoch, "best": end.best})
        if end.stop:
            break
    bottom.load_weights(best)
    await _say_embeddings(line, label, bottom, rows, "test")


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
    """Trains the trunk, and this party's own bottom if it has one, on what all contribute.

    Args:
        line: this party's line.
        session: who takes part; the feature parties' embeddings come in this order at the cut.
        own: this party's bottom; its embedding comes last at the cut.
        joint: the cut and the trunk, a `Joint`.
        rows: this party's rows with labels.
        task: binary, multiclass or regression.
        plan: what all agree on.
        journal: what to tell.

    Raises:
        RemoteProtocolError: if a feature party's batch holds other rows or has another shape.
        DataError: if the loss is no longer finite.
    """
    top = _Top(line, session.widths, own, joint, rows, task, journal)
    return await direct(line, top, rows, task, plan, journal)


async def feature_predicts(
    line: Line, *, session: Session, bottom: Learner, rows: Rows, journal: Journal
) -> None:
    """Says the embeddings of all rows."""
    await _say_embeddings(line, session.label, bottom, rows, "all")


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
    top = _Top(line, session.widths, own, joint, rows, "", journal)
    for learner in top.learners.values():
        learner.eval()
    with line.during("all"):
        return await top.outputs("all", 0)


async def _learn(line: Line, label: str, bottom: Learner, batch: Batch, h: Tensor) -> None:
    reply = await line.hear(label, EmbeddingGrad)
    check_gradient(label, batch.step, h, reply.step, reply.grad)
    descend(bottom, h, reply.grad)


async def _say_embeddings(line: Line, label: str, bottom: Learner, rows: Rows, split: str) -> None:
    bottom.eval()
    with line.during(split), torch.no_grad():
        for batch in rows.batches(split):
            await line.say(label, Embedding(batch.step, batch.mark, embed(bottom, batch)))


@dataclass
class _Top:
    """Is what the label party does behind the cut; a `vfl.learn.course.Top`."""

    line: Line
    contributors: Mapping[str, int]
    own: Learner | None
    joint: Learner
    rows: Rows
    task: str
    journal: Journal
    vanished: Sequence[str] = ()

    @property
    def learners(self) -> dict[str, Learner]:
        return {"joint": self.joint} | ({"own": self.own} if self.own else {})

    async def train(self, epoch: int) -> float:
        own, joint, loss_of = self.own, self.joint, loss_function(self.task)
        steps, total = self.rows.steps("train"), 0.0
        joint.train()
        if own:
            own.train()
        for batch in self.rows.batches("train", epoch):
            cuts = [h.to(joint.device) for h in await self._hear(batch)]
            own_h = embed(own, batch) if own else None
            if own_h is not None:
                cuts.append(own_h.detach().to(joint.device))
            cuts = [h.detach().requires_grad_() for h in cuts]  # what was heard stays as it was
            assert batch.y is not None  # noqa: S101 - the label party's rows have labels
            loss = loss_of(joint(*cuts), batch.y.to(joint.device))
            value = loss.item()
            torch.autograd.backward(loss)
            grads = [_grad_of(h) for h in cuts]
            if not (np.isfinite(value) and all(is_finite(grad) for grad in grads)):
                raise DataError(diverged(f"loss ({value:g}) or its gradient", batch.step, epoch))
            # The feature parties go on with their part while this one does the rest of its own.
            for name, grad in zip(self.contributors, grads, strict=False):
                await self.line.say(name, EmbeddingGrad(batch.step, grad))
            if own and own_h is not None:
                descend(own, own_h, grads[-1])
            joint.step()
            total += value * batch.rows
            self.journal.step(epoch, batch.step + 1, steps, batch.rows, value)
        return total / self.rows.count("train")

    async def outputs(self, split: str, epoch: int) -> np.ndarray:
        outputs = []
        for batch in self.rows.batches(split):
            cuts = [h.to(self.joint.device) for h in await self._hear(batch)]
            with torch.no_grad():
                if self.own:
                    cuts.append(embed(self.own, batch).to(self.joint.device))
                outputs.append(self.joint(*cuts).cpu().numpy())
        return np.concatenate(outputs) if outputs else np.empty((0, 1), dtype=np.float32)

    async def end_epoch(self, best: bool, stop: bool) -> None:
        for name in self.contributors:
            await self.line.say(name, EpochEnd(best, stop))

    async def _hear(self, batch: Batch) -> list[Tensor]:
        return [
            _checked(name, width, batch, await self.line.hear(name, Embedding))
            for name, width in self.contributors.items()
        ]


def _checked(name: str, width: int, batch: Batch, said: Embedding) -> Tensor:
    if said.step != batch.step or said.mark != batch.mark:
        raise RemoteProtocolError(
            name,
            f"sent step {said.step} of other rows than step {batch.step} here: the tables are not aligned",
        )
    if tuple(said.h.shape) != (batch.rows, width) or said.h.dtype != torch.float32:
        raise RemoteProtocolError(
            name, f"sent {said.h.dtype} {tuple(said.h.shape)} where float32 {(batch.rows, width)} was due"
        )
    if not is_finite(said.h):
        raise RemoteProtocolError(name, f"sent an embedding that is not finite at step {batch.step}")
    return said.h


def _grad_of(h: Tensor) -> Tensor:
    # A module of the user's may leave an embedding out of account.
    return torch.zeros_like(h) if h.grad is None else h.grad


ROLES: Final[dict[str, Any]] = {"feature": feature_party, "label": label_party}
PREDICTORS: Final[dict[str, Any]] = {"feature": feature_predicts, "label": label_predicts}
