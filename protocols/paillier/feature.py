"""The feature party of the Paillier cut: it holds the key, and half of every weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from protocols.paillier.cost import counts
from protocols.paillier.kit import Kit, as_tensor, holding
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
from protocols.paillier.notes import activations_clipped, draws_of, warn_of
from protocols.paillier.roster import share_of
from protocols.paillier.scales import Scales, scales_for_prediction, scales_of_training
from protocols.paillier.start import draw_factor, read_share
from vfl.data.batches import Batch, Rows
from vfl.errors import RemoteProtocolError
from vfl.journal import Journal
from vfl.learn.embedding import descend, embed
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.paillier.noise import Draws
from vfl.paillier.share import Share
from vfl.session import Session
from vfl.wire.line import Line


async def feature_party(
    line: Line,
    *,
    session: Session,
    bottom: Learner,
    rows: Rows,
    plan: Plan,
    journal: Journal,
    layers: Mapping[str, Learner],
) -> None:
    """Trains this party's bottom and its share of W.

    Args:
        line: this party's line.
        session: who takes part.
        bottom: this party's network.
        rows: this party's rows.
        plan: what all agree on.
        journal: what to tell.
        layers: its share of W, by the name "share".

    Raises:
        RemoteProtocolError: if the label party says another step, or what is no answer to this one.
        DataError: if the embedding is no longer finite.
        ConfigError: if no plaintext holds the numbers, or batches are to run ahead.
    """
    draws, learners, steps = draws_of(session), {"bottom": bottom, **layers}, rows.steps("train")
    scales = scales_of_training(session, rows, plan)
    with _speaking(line, session, bottom, layers, rows, scales, journal, draws) as side:
        await side.begin(draws)
        best = {name: learner.weights() for name, learner in learners.items()}
        for epoch in range(1, plan.epochs + 1):
            bottom.train()
            with line.during("train"):
                for batch in rows.batches("train", epoch):
                    await side.learn(epoch, batch)
                    journal.step(epoch, batch.step + 1, steps, batch.rows, None)
            bottom.end_epoch()
            await side.say_split(rows, "valid", epoch)
            with line.during("valid"):
                end = await line.hear(session.label, EpochEnd)
            if end.best:
                best = {name: learner.weights() for name, learner in learners.items()}
            journal.checkpoint(epoch, learners, best=end.best)
            journal.epoch({"epoch": epoch, "best": end.best, "clipped": side.n_clipped})
            if end.stop:
                break
        for name, learner in learners.items():
            learner.load_weights(best[name])
        await side.say_split(rows, "test")
        await line.say(session.label, Clipped(side.n_clipped))


async def feature_predicts(
    line: Line,
    *,
    session: Session,
    bottom: Learner,
    rows: Rows,
    journal: Journal,
    layers: Mapping[str, Learner],
) -> None:
    """Brings all rows to the cut."""
    scales = scales_for_prediction(session, layers)
    with _speaking(line, session, bottom, layers, rows, scales, journal, None) as side:
        await side.begin(None)
        await side.say_split(rows, "all")


@contextmanager
def _speaking(
    line: Line,
    session: Session,
    bottom: Learner,
    layers: Mapping[str, Learner],
    rows: Rows,
    scales: Scales,
    journal: Journal,
    draws: Draws | None,
) -> Iterator[_Side]:
    """Makes this party's side, and ends what works in its background."""
    warn_of(session, journal)
    ahead = max([work.obfuscators for work, _ in counts(scales, rows)], default=1)
    with holding(session.options, session.label, ahead) as (kit, public):
        yield _Side(line, session, bottom, share_of(layers), scales, journal, kit, public, draws)


@dataclass
class _Side:
    """Is what the feature party does at the cut."""

    line: Line
    session: Session
    bottom: Learner
    share: Share
    scales: Scales
    journal: Journal
    kit: Kit
    public: Tensor
    draws: Draws | None
    n_clipped: int = 0

    async def begin(self, draws: Draws | None) -> None:
        """Says the public key; where anything is to be learned, begins this party's share of W."""
        kit, scales, label = self.kit, self.scales, self.session.label
        if draws is None:
            await self.line.say(label, PublicKey(self.public, as_tensor(b"")))
            return
        drawn = kit.encrypt(scales.start, draw_factor(scales, draws), scales.factor_bound)
        await self.line.say(label, PublicKey(self.public, drawn))
        said = await self.line.hear(label, InitialShare)
        self.share.begin(read_share(kit, scales, said.weights), scales.batch_rows, draws.key())

    async def learn(self, epoch: int, batch: Batch) -> None:
        """Goes through one training step."""
        h = embed(self.bottom, batch)  # [b, d]
        await self._bring(epoch, batch, h, learning=True)
        said = await self.line.hear(self.session.label, MaskedGradient)
        self._check_step(batch, said.step)
        kit, scales = self.kit, self.scales
        masked = kit.open(said.weights, scales.gradient, scales.product_bound)
        noise = scales.gradient.packing.noise(scales.product_bound, scales.k, scales.d, draws=self.draws)
        noised = [number + more for number, more in zip(masked, scales.gradient.pack(noise), strict=True)]
        # Said before the rest is decrypted: the label party goes on meanwhile.
        await self.line.say(self.session.label, NoisedGradient(batch.step, kit.say_plain(noised)))
        descend(self.bottom, h, self._gradient(said, batch))
        self.share.add(noise.T)

    async def say_split(self, rows: Rows, split: str, epoch: int = 0) -> None:
        """Brings a split's rows to the cut, with nothing learned."""
        self.bottom.eval()
        with self.line.during(split), torch.no_grad():
            for batch in rows.batches(split):
                await self._bring(epoch, batch, embed(self.bottom, batch), learning=False)

    async def _bring(self, epoch: int, batch: Batch, h: Tensor, *, learning: bool) -> None:
        """Says h under the key, and adds this party's part to what comes back."""
        kit, scales, b = self.kit, self.scales, batch.rows
        h_int, n_clipped = scales.activation.encode(h.detach().cpu().numpy())
        if n_clipped and not self.n_clipped:
            self.journal.warn(activations_clipped(scales))
        self.n_clipped += n_clipped
        used = self.share.rounded_down(scales.dropped_bits)  # [d, k]
        most, none = scales.activation.limit, as_tensor(b"")
        columns = kit.encrypt(scales.columns(b), h_int.T, most)
        rows = kit.encrypt(scales.rows(b), h_int, most) if learning else none
        share = kit.encrypt(scales.share(b), used.T, scales.used_bound) if learning else none
        label = self.session.label
        await self.line.say(label, Activations(epoch, batch.step, batch.mark, columns, rows, share))
        blurred = h_int.astype(object) @ used + self.share.blurred(h_int, scales.k, scales.blur)
        mine = scales.product(b).pack(blurred.T)
        said = await self.line.hear(label, MaskedProduct)
        self._check_step(batch, said.step)
        masked = kit.open(said.product, scales.product(b), scales.z_bound)
        noised = [number + more for number, more in zip(masked, mine, strict=True)]
        await self.line.say(label, NoisedProduct(batch.step, kit.say_plain(noised)))

    def _gradient(self, said: MaskedGradient, batch: Batch) -> Tensor:
        """Returns dL/dh, [b, d] float32."""
        kit, scales, bound = self.kit, self.scales, self.scales.embedding_bound(batch.rows)
        layout = scales.embedding(batch.rows)
        grad = kit.read(kit.open(said.embedding, layout, bound), layout, bound)
        return torch.from_numpy(scales.embedding_gradient(grad))

    def _check_step(self, batch: Batch, step: int) -> None:
        if step != batch.step:
            raise RemoteProtocolError(
                self.session.label, f"answers step {step} where step {batch.step} was due"
            )
