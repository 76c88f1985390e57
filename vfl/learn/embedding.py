"""One party's side of the cut: what its bottom gives, and what it learns from the gradient of it."""

from __future__ import annotations

import torch
from torch import Tensor

from vfl.data.batches import Batch
from vfl.errors import DataError, RemoteProtocolError
from vfl.learn.cut import is_finite
from vfl.learn.learner import Learner


def embed(bottom: Learner, batch: Batch) -> Tensor:
    """Runs a bottom on a batch: [b, d] float32, which is what crosses, whatever a module computes in.

    Raises:
        DataError: if the embedding is not finite.
    """
    h = embed_unchecked(bottom, batch)
    if not is_finite(h):
        raise DataError(diverged("embedding", batch.step))
    return h


def embed_unchecked(bottom: Learner, batch: Batch) -> Tensor:
    """Does what `embed` does, for who finds out in going on whether the embedding is finite."""
    return bottom(*batch.inputs).float()


def descend(bottom: Learner, h: Tensor, grad: Tensor) -> None:
    """Passes the gradient of an embedding back through the bottom that made it, and steps."""
    if h.requires_grad:  # a bottom without weights has nothing to learn
        torch.autograd.backward(h, grad.to(h.device))
        bottom.step()


def check_gradient(peer: str, step: int, h: Tensor, answered: int, grad: Tensor) -> None:
    """Checks what a peer answers to an embedding.

    Args:
        peer: who answers.
        step: the batch whose answer is due.
        h: [b, d] its embedding.
        answered: the batch that the peer answers for.
        grad: [b, d] its answer.

    Raises:
        RemoteProtocolError: if it is of another step, shape or type, or not finite.
    """
    if answered != step or grad.shape != h.shape or grad.dtype != h.dtype:
        raise RemoteProtocolError(
            peer,
            f"answered step {answered} with {grad.dtype} {tuple(grad.shape)} "
            f"where step {step} is {h.dtype} {tuple(h.shape)}",
        )
    if not is_finite(grad):
        raise RemoteProtocolError(peer, f"sent a gradient that is not finite at step {step}")


def diverged(what: str, step: int, epoch: int | None = None) -> str:
    """Says that a number has left the finite ones, and what to do about it."""
    where = f"step {step}" if epoch is None else f"epoch {epoch}, step {step}"
    return f"the {what} is not finite at {where}: training diverges; lower optimizer.lr or set clip_norm"
