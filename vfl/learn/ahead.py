"""Lets a party run ahead of its gradients: the weights that a batch saw are kept for its way back.

Known as weight stashing: Harlap et al., PipeDream, arXiv 1806.03377.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def keeping_weights(network: nn.Module) -> AbstractContextManager[None]:
    """Makes a forward pass inside it outlive an optimiser's step on `network`.

    Autograd keeps a weight by reference for the backward pass and refuses to use it once a step has
    changed it. Inside this, copies are kept instead, so that each batch's gradient is that of the
    weights which made its embedding. It must not be left open across a `say` or a `hear`.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in weights else tensor

    return saved_tensors_hooks(pack, _as_it_is)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
