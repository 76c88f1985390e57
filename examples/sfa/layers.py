"""The networks of the study: four linear layers, cut after the first, the second or the third.

Every variant is made from the same layers, each d wide in all. Below the cut, k parties have d / k hidden
units each, so a layer there falls into blocks, and what would cross them is lost. At the cut,

- `concat` puts k pieces of d / k numbers side by side: one more layer of blocks;
- `sum` and `sfa` add k contributions of d numbers: a layer that joins everything again.

So a sum at depth 1 is the centralised network, with its first matrix dealt out among the parties, and a sum
at depth 2 has the blocks that concat has at depth 1. The cut layer's bias and activation lie behind the cut.

b stands for rows, d for the width of a layer, k for parties, c for classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfl.rng import RngStream, derive_seed

#: Linear layers in every network; the cut may lie behind any but the last.
LAYERS = 4
DEPTHS = tuple(range(1, LAYERS))


class Trunk(nn.Module):
    """Goes on from the cut: its layer's bias and activation, then the hidden layers that are left."""

    def __init__(self, d: int, hidden: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d))
        stacked: list[nn.Module] = [nn.ReLU()]
        for linear in hidden:
            stacked += [linear, nn.ReLU()]
        self.layers = nn.Sequential(*stacked)

    def forward(self, z: Tensor) -> Tensor:
        """Maps z [b, d] to [b, d]."""
        result: Tensor = self.layers(z + self.bias)
        return result


@dataclass(frozen=True)
class Networks:
    """Is one variant's networks with their first weights: a bottom for each party, trunk and head.

    `width` is how many numbers a row each party brings to the cut.
    """

    bottoms: list[nn.Module]
    trunk: nn.Module
    head: nn.Module
    width: int


def build(inputs: Sequence[int], d: int, out: int, depth: int, *, summed: bool, seed: int) -> Networks:
    """Builds the networks of k parties with so many columns each.

    Variants that have a layer in common begin with the same weights in it.

    Args:
        inputs: each party's number of columns.
        d: the width of each hidden layer, of all parties together; k divides it.
        out: c, or 1.
        depth: how many linear layers lie below the cut.
        summed: whether contributions are summed, and so d wide, or put side by side.
        seed: draws all weights.
    """
    k = len(inputs)
    stacks: list[list[nn.Module]] = [[] for _ in inputs]
    for layer in range(1, depth + 1):
        shares = inputs if layer == 1 else [d // k] * k
        is_joint = summed and layer == depth
        # The cut layer lacks bias and activation: they are the trunk's.
        at_cut = layer == depth
        linears = (
            _dealt(shares, d, layer, seed) if is_joint else _blocks(shares, d // k, layer, seed, not at_cut)
        )
        for stack, linear in zip(stacks, linears, strict=True):
            stack += [linear] if at_cut else [linear, nn.ReLU()]
    hidden = [_whole(d, d, layer, seed) for layer in range(depth + 1, LAYERS)]
    return Networks(
        [nn.Sequential(*stack) for stack in stacks],
        Trunk(d, hidden),
        _whole(d, out, LAYERS, seed),
        d if summed else d // k,
    )


def _whole(inputs: int, outputs: int, layer: int, seed: int) -> nn.Linear:
    with RngStream(derive_seed(seed, "layer", str(layer))):
        return nn.Linear(inputs, outputs)


def _blocks(shares: Sequence[int], outputs: int, layer: int, seed: int, bias: bool) -> list[nn.Linear]:
    """Makes a layer that falls into one block a party."""
    with RngStream(derive_seed(seed, "blocks", str(layer))):
        return [nn.Linear(share, outputs, bias=bias) for share in shares]


def _dealt(shares: Sequence[int], outputs: int, layer: int, seed: int) -> list[nn.Linear]:
    """Makes a whole layer without its bias, and deals the columns of its matrix out."""
    whole = _whole(sum(shares), outputs, layer, seed)
    linears = []
    for weight in whole.weight.detach().split(list(shares), dim=1):
        linear = nn.Linear(weight.shape[1], outputs, bias=False)
        linear.load_state_dict({"weight": weight})
        linears.append(linear)
    return linears
