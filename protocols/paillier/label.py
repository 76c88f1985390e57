"""The label party of the Paillier cut: it computes without reading, and holds the other half of W."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from protocols.paillier.cost import counts
from protocols.paillier.kit import Kit, computing
from protocols.paillier.messages import (
    Activations,
    Clipped,
    EpochEnd,
    InitialShare,
    MaskedGradient,
    MaskedProduct,
    NoisedGradient,
    NoisedProduct,
    PublicKey,
)
from protocols.paillier.notes import draws_of, gradients_clipped, notes_on, warn_of
from protocols.paillier.roster import ends, share_of
from protocols.paillier.scales import Scales, scales_for_prediction, scales_of_training
from protocols.paillier.start import rotate
from vfl.data.batches import Batch, Rows
from vfl.errors import DataError, RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.course import direct
from vfl.learn.cut import is_finite
from vfl.learn.embedding import descend, diverged, embed
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan
from vfl.learn.scores import loss_function
from vfl.paillier.share import Share
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
    layers: Mapping[str, Learner],
) -> Outcome:
    """Trains what lies behind the cut layer, its share of that, and this party's own bottom.

    Args:
        line: this party's line.
        session: who takes part.
        own: this party's bottom, if it has columns; its embedding comes last at the joint.
        joint: the cut and the trunk.
        rows: this party's rows with labels.
        task: binary, multiclass or regression.
        plan: what all agree on.
        journal: what to tell.
        layers: its share of W, by the name "share".

    Raises:
        RemoteProtocolError: if the feature party says another step or other rows than are due, no public
            key, no ciphertexts, or numbers that are no answer.
        DataError: if the loss is no longer finite.
        ConfigError: if no plaintext holds the numbers, or batches are to run ahead.
    """
    scales = scales_of_training(session, rows, plan)
    warn_of(session, journal)
    said_key = await line.hear(ends(session)[0], PublicKey)
    with _hearing(session, rows, scales, said_key) as kit:
        draws = draws_of(session)
        answer, share = rotate(kit, scales, said_key.weights, draws)
        share_of(layers).begin(share, scales.batch_rows, draws.key())
        await line.say(kit.peer, InitialShare(answer))
        top = _Top(line, session, own, joint, rows, task, journal, layers, scales, kit)
        outcome = await direct(line, top, rows, task, plan, journal)
        said = await line.hear(kit.peer, Clipped)
    if said.count < 0:
        raise RemoteProtocolError(kit.peer, f"says that it clipped {said.count} values")
    return replace(outcome, notes=notes_on(session, said.count, top.n_clipped))


async def label_predicts(
    line: Line,
    *,
    session: Session,
    own: Learner | None,
    joint: Learner,
    rows: Rows,
    journal: Journal,
    layers: Mapping[str, Learner],
) -> np.ndarray:
    """Returns the joint network's raw outputs [n, c] for all rows."""
    scales = scales_for_prediction(session, layers)
    warn_of(session, journal)
    said = await line.hear(ends(session)[0], PublicKey)
    with _hearing(session, rows, scales, said) as kit:
        if said.weights.numel():
            raise RemoteProtocolError(kit.peer, "sent weights to begin with, where nothing is learned")
        top = _Top(line, session, own, joint, rows, "", journal, layers, scales, kit)
        for learner in top.learners.values():
            learner.eval()
        with line.during("all"):
            return await top.outputs("all", 0)


@contextmanager
def _hearing(session: Session, rows: Rows, scales: Scales, said: PublicKey) -> Iterator[Kit]:
    """Makes this party's kit, and ends what works in its background."""
    ahead = max([work.obfuscators for _, work in counts(scales, rows)], default=1)
    with computing(session.options, ends(session)[0], said.key, ahead) as kit:
        yield kit


@dataclass
class _Top:
    """Is what the label party does at the cut and behind it; a `vfl.learn.course.Top`."""

    line: Line
    session: Session
    own: Learner | None
    joint: Learner
    rows: Rows
    task: str
    journal: Journal
    layers: Mapping[str, Learner]
    scales: Scales
    kit: Kit
    n_clipped: int = 0
    vanished: Sequence[str] = field(default_factory=tuple)

    @property
    def learners(self) -> dict[str, Learner]:
        return {"joint": self.joint, **self.layers} | ({"own": self.own} if self.own else {})

    @property
    def share(self) -> Share:
        return share_of(self.layers)

    async def train(self, epoch: int) -> float:
        own, joint, loss_of = self.own, self.joint, loss_function(self.task)
        steps, total = self.rows.steps("train"), 0.0
        for learner in self.learners.values():
            learner.train()
        for batch in self.rows.batches("train", epoch):
            own_h = embed(own, batch) if own else None
            used = self.share.rounded_up(self.scales.dropped_bits)  # [d, k]
            said = await self._hear(epoch, batch)
            z = await self._product(batch, said, used)
            cuts = [h.detach().to(joint.device).requires_grad_() for h in (z, own_h) if h is not None]
            assert batch.y is not None  # noqa: S101 - the label party's rows have labels
            loss = loss_of(joint(*cuts), batch.y.to(joint.device))
            value = loss.item()
            torch.autograd.backward(loss)
            grads = [_grad_of(h) for h in cuts]
            if not (np.isfinite(value) and all(is_finite(grad) for grad in grads)):
                raise DataError(diverged(f"loss ({value:g}) or its gradient", batch.step, epoch))
            masks = await self._answer(batch, said, used, grads[0])
            # The feature party decrypts meanwhile.
            if own and own_h is not None:
                descend(own, own_h, grads[-1])
            joint.step()
            await self._update(batch, masks)
            total += value * batch.rows
            self.journal.step(epoch, batch.step + 1, steps, batch.rows, value)
        return total / self.rows.count("train")

    async def outputs(self, split: str, epoch: int) -> np.ndarray:
        outputs, used = [], self.share.rounded_up(self.scales.dropped_bits)
        epoch = epoch if split == "valid" else 0
        for batch in self.rows.batches(split):
            z = await self._product(batch, await self._hear(epoch, batch, learning=False), used)
            with torch.no_grad():
                cuts = [z] if self.own is None else [z, embed(self.own, batch)]
                outputs.append(self.joint(*(h.to(self.joint.device) for h in cuts)).cpu().numpy())
        return np.concatenate(outputs) if outputs else np.empty((0, 1), dtype=np.float32)

    async def end_epoch(self, best: bool, stop: bool) -> None:
        await self.line.say(self.kit.peer, EpochEnd(best, stop))

    async def _hear(self, epoch: int, batch: Batch, *, learning: bool = True) -> Activations:
        """Hears a batch's ciphertexts."""
        said = await self.line.hear(self.kit.peer, Activations)
        if (said.epoch, said.step, said.mark) != (epoch, batch.step, batch.mark):
            raise RemoteProtocolError(
                self.kit.peer,
                f"sent step {said.step} of epoch {said.epoch}, or other rows, where step {batch.step} of "
                f"epoch {epoch} was due: the tables are not aligned",
            )
        if not learning and (said.rows.numel() or said.share.numel()):
            raise RemoteProtocolError(self.kit.peer, "sent what is to be learned from, where nothing is")
        return said

    async def _product(self, batch: Batch, said: Activations, used: np.ndarray) -> Tensor:
        """Returns z = h W, [b, k] float32, of which the feature party computes its part."""
        kit, scales, layout = self.kit, self.scales, self.scales.product(batch.rows)
        columns = kit.receive(said.columns, scales.columns(batch.rows), scales.activation.limit)
        product, masks = columns.left_multiply(used.T, scales.z_bound, kit.workers).masked()
        await self.line.say(kit.peer, MaskedProduct(batch.step, kit.ship(product)))
        noised = await self.line.hear(kit.peer, NoisedProduct)
        self._check_step(batch, noised.step)
        z = kit.read(kit.hear_plain(noised.product, masks), layout, scales.z_bound)  # [k, b]
        return torch.from_numpy(scales.z(np.ascontiguousarray(z.T)))

    async def _answer(self, batch: Batch, said: Activations, used: np.ndarray, grad: Tensor) -> list[int]:
        """Says both gradients under the key; returns the masks of that of W."""
        kit, scales, b = self.kit, self.scales, batch.rows
        g, n_clipped = scales.gradient_integers(grad.cpu().numpy())  # [b, k]
        if n_clipped and not self.n_clipped:
            self.journal.warn(gradients_clipped(scales))
        self.n_clipped += n_clipped
        h = kit.receive(said.rows, scales.rows(b), scales.activation.limit)
        share = kit.receive(said.share, scales.share(b), scales.used_bound)
        weights = h.left_multiply(g.T, scales.product_bound, kit.workers)
        if scales.gradient.rows_each > 1:
            weights = weights.fold(scales.gradient.rows_each)
        weights, masks = weights.masked()
        bound = scales.embedding_bound(b)
        mine = g.astype(object) @ used.T + self.share.blurred(g, scales.d, scales.blur)
        embedding = share.left_multiply(g, bound, kit.workers).add_plain(mine, bound)
        answer = MaskedGradient(batch.step, kit.ship(weights), kit.ship(embedding))
        await self.line.say(kit.peer, answer)
        return masks

    async def _update(self, batch: Batch, masks: Sequence[int]) -> None:
        """Takes the gradient of W, and the feature party's noise with it, from this party's share."""
        kit, layout = self.kit, self.scales.gradient
        said = await self.line.hear(kit.peer, NoisedGradient)
        self._check_step(batch, said.step)
        noised = kit.read(kit.hear_plain(said.weights, masks), layout, layout.packing.limit)  # [k, d]
        self.share.add(-noised.T)

    def _check_step(self, batch: Batch, step: int) -> None:
        if step != batch.step:
            raise RemoteProtocolError(self.kit.peer, f"answers step {step} where step {batch.step} was due")


def _grad_of(h: Tensor) -> Tensor:
    # A module of the user's may leave an embedding out of account.
    return torch.zeros_like(h) if h.grad is None else h.grad
