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

import time
from collections import deque
from collections.abc import Mapping
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
from vfl.learn.cut import CUTS, is_finite, joined_width
from vfl.learn.cut import Joint as Joint  # for whoever builds the label party's network
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan, Selection
from vfl.learn.presets import choose
from vfl.learn.scores import loss_function, score
from vfl.wire.codec import encode, frames_bytes
from vfl.wire.line import Line
from vfl.wire.messages import Message

MOST_FEATURE_PARTIES: Final = 16
_FLOAT_BYTES: Final = 4

#: The role whose party has the one open port; every other party connects to it.
HUB: Final = "label"


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


def step_bytes(width: int, rows: int) -> tuple[int, int]:
    """Bounds the bytes that one feature party sends and receives in a training step of `rows` rows."""
    # The largest header there is, without making the tensor: both sizes at a byte for the smallest
    # number and eight more for the largest.
    none, most, names = torch.zeros(0, 0), 2**62, {"to": "x" * 32, "sender": "x" * 32}
    content = _FLOAT_BYTES * rows * width + 2 * 8
    sent = frames_bytes(encode(Embedding(most, most, none), **names))
    return sent + content, frames_bytes(encode(EmbeddingGrad(most, none), **names)) + content


# --- roles -----------------------------------------------------------------------------------------


async def feature_party(
    line: Line, *, label: str, bottom: Learner, rows: Rows, plan: Plan, journal: Journal
) -> None:
    """Trains this party's bottom on the gradients that the label party sends.

    Raises:
        RemoteProtocolError: if the label party answers another step or with another shape.
        DataError: if the embedding is no longer finite.
    """
    best = bottom.weights()
    steps = rows.steps("train")
    for epoch in range(1, plan.epochs + 1):
        bottom.train()
        unanswered: deque[tuple[Batch, Tensor]] = deque()
        with line.during("train"):
            for batch in rows.batches("train", epoch):
                # Without running ahead no step comes between a batch's way there and back.
                with keeping_weights(bottom.network) if plan.ahead else nullcontext():
                    h = _embed(bottom, batch)  # [b, d]
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
    contributors: Mapping[str, int],
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
        contributors: each feature party's cut width, in the roster's order.
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
    learners = {"joint": joint} | ({"own": own} if own else {})
    best = {name: learner.weights() for name, learner in learners.items()}
    selection = Selection(plan)
    history: list[dict[str, Any]] = []
    for epoch in range(1, plan.epochs + 1):
        started = time.perf_counter()
        with line.during("train"):
            loss = await _train_epoch(line, contributors, own, joint, rows, task, epoch, journal)
        for learner in learners.values():
            learner.end_epoch()
        outputs = await _outputs(line, contributors, own, joint, rows, "valid")
        scores = score(task, rows.truth("valid"), outputs) if len(outputs) else {}
        is_best = selection.judge(epoch, scores)
        stop = selection.is_over(epoch)
        if is_best:
            best = {name: learner.weights() for name, learner in learners.items()}
        with line.during("valid"):
            for name in contributors:
                await line.say(name, EpochEnd(is_best, stop))
        seconds = time.perf_counter() - started
        history.append({"epoch": epoch, "loss": loss, "valid": scores, "seconds": seconds, "best": is_best})
        journal.checkpoint(epoch, learners, best=is_best)
        journal.epoch(history[-1])
        if stop:
            break
    for name, learner in learners.items():
        learner.load_weights(best[name])
    test = await _outputs(line, contributors, own, joint, rows, "test")
    return Outcome(
        history=history,
        best_epoch=selection.best_epoch,
        valid=history[selection.best_epoch - 1]["valid"],
        test=score(task, rows.truth("test"), test) if len(test) else {},
        test_truth=rows.truth("test"),
        test_output=test,
    )


async def feature_predicts(line: Line, *, label: str, bottom: Learner, rows: Rows) -> None:
    """Says the embeddings of all rows."""
    await _say_embeddings(line, label, bottom, rows, "all")


async def label_predicts(
    line: Line, *, contributors: Mapping[str, int], own: Learner | None, joint: Learner, rows: Rows
) -> np.ndarray:
    """Returns the joint network's raw outputs [n, c] for all rows."""
    return await _outputs(line, contributors, own, joint, rows, "all")


async def _learn(line: Line, label: str, bottom: Learner, batch: Batch, h: Tensor) -> None:
    reply = await line.hear(label, EmbeddingGrad)
    grad = reply.grad
    if reply.step != batch.step or grad.shape != h.shape or grad.dtype != h.dtype:
        raise RemoteProtocolError(
            label,
            f"answered step {reply.step} with {grad.dtype} {tuple(grad.shape)} "
            f"where step {batch.step} is {h.dtype} {tuple(h.shape)}",
        )
    if not is_finite(grad):
        raise RemoteProtocolError(label, f"sent a gradient that is not finite at step {batch.step}")
    if h.requires_grad:  # a bottom without weights has nothing to learn
        torch.autograd.backward(h, grad.to(h.device))
        bottom.step()


async def _say_embeddings(line: Line, label: str, bottom: Learner, rows: Rows, split: str) -> None:
    bottom.eval()
    with line.during(split), torch.no_grad():
        for batch in rows.batches(split):
            await line.say(label, Embedding(batch.step, batch.mark, _embed(bottom, batch)))


def _embed(bottom: Learner, batch: Batch) -> Tensor:
    h = bottom(*batch.inputs).float()  # float32 is what crosses, whatever a user's module computes in
    if not is_finite(h):
        raise DataError(_diverged("embedding", batch.step))
    return h


async def _train_epoch(
    line: Line,
    contributors: Mapping[str, int],
    own: Learner | None,
    joint: Learner,
    rows: Rows,
    task: str,
    epoch: int,
    journal: Journal,
) -> float:
    loss_of = loss_function(task)
    steps, total = rows.steps("train"), 0.0
    joint.train()
    if own:
        own.train()
    for batch in rows.batches("train", epoch):
        cuts = [h.to(joint.device) for h in await _hear_embeddings(line, contributors, batch)]
        own_h = _embed(own, batch) if own else None
        if own_h is not None:
            cuts.append(own_h.detach().to(joint.device))
        cuts = [h.detach().requires_grad_() for h in cuts]  # what was heard stays as it was
        assert batch.y is not None  # noqa: S101 - the label party's rows have labels
        loss = loss_of(joint(*cuts), batch.y.to(joint.device))
        value = loss.item()
        torch.autograd.backward(loss)
        grads = [_grad_of(h) for h in cuts]
        if not (np.isfinite(value) and all(is_finite(grad) for grad in grads)):
            raise DataError(_diverged(f"loss ({value:g}) or its gradient", batch.step, epoch))
        # The feature parties go on with their part while this one does the rest of its own.
        for name, grad in zip(contributors, grads, strict=False):
            await line.say(name, EmbeddingGrad(batch.step, grad))
        if own and own_h is not None and own_h.requires_grad:
            torch.autograd.backward(own_h, grads[-1].to(own_h.device))
            own.step()
        joint.step()
        total += value * batch.rows
        journal.step(epoch, batch.step + 1, steps, batch.rows, value)
    return total / rows.count("train")


async def _outputs(
    line: Line, contributors: Mapping[str, int], own: Learner | None, joint: Learner, rows: Rows, split: str
) -> np.ndarray:
    joint.eval()
    if own:
        own.eval()
    outputs = []
    with line.during(split), torch.no_grad():
        for batch in rows.batches(split):
            cuts = [h.to(joint.device) for h in await _hear_embeddings(line, contributors, batch)]
            if own:
                cuts.append(_embed(own, batch).to(joint.device))
            outputs.append(joint(*cuts).cpu().numpy())
    return np.concatenate(outputs) if outputs else np.empty((0, 1), dtype=np.float32)


async def _hear_embeddings(line: Line, contributors: Mapping[str, int], batch: Batch) -> list[Tensor]:
    return [
        _checked(name, width, batch, await line.hear(name, Embedding)) for name, width in contributors.items()
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


def _diverged(what: str, step: int, epoch: int | None = None) -> str:
    where = f"step {step}" if epoch is None else f"epoch {epoch}, step {step}"
    return f"the {what} is not finite at {where}: training diverges; lower optimizer.lr or set clip_norm"


ROLES: Final[dict[str, Any]] = {"feature": feature_party, "label": label_party}
PREDICTORS: Final[dict[str, Any]] = {"feature": feature_predicts, "label": label_predicts}
