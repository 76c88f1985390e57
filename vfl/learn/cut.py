"""The cut: where the parties' embeddings become one tensor, and the trunk that goes on from there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from vfl.errors import ConfigError
from vfl.learn.networks import one_line

#: Each joins k embeddings [b, d_k] into one [b, d]; all but concat need equal widths.
CUTS: Final[dict[str, Callable[[Sequence[Tensor]], Tensor]]] = {
    "concat": lambda hs: _concat(hs),
    "sum": lambda hs: _fold(torch.add, hs),
    "mean": lambda hs: _fold(torch.add, hs) / len(hs),
    "max": lambda hs: _fold(torch.maximum, hs),
    "product": lambda hs: _fold(torch.mul, hs),
}


class Joint(nn.Module):
    """Joins the embeddings at the cut and runs the trunk on the result."""

    def __init__(self, cut: str | nn.Module, trunk: nn.Module) -> None:
        super().__init__()
        self.cut = cut if isinstance(cut, nn.Module) else None
        self._join = CUTS[cut] if isinstance(cut, str) else None
        self.trunk = trunk

    def forward(self, *embeddings: Tensor) -> Tensor:
        """Maps embeddings [b, d_k], in the roster's order, to outputs [b, c]."""
        joined = self._join(embeddings) if self._join else self.cut(list(embeddings))  # type: ignore[misc]
        output: Tensor = self.trunk(joined)
        return output


def joined_width(cut: str | nn.Module, widths: Mapping[str, int]) -> int:
    """Tells the width d that the trunk is given.

    Args:
        cut: a name from `CUTS`, or the user's module, which is tried on two rows of zeros.
        widths: each contributor's, in the roster's order.

    Raises:
        ConfigError: if the widths do not fit the cut, or the module does not join them.
    """
    if isinstance(cut, nn.Module):
        return _tried_out(cut, widths)
    if cut == "concat":
        return sum(widths.values())
    if len(set(widths.values())) > 1:
        raise ConfigError(
            f"cut = {cut!r} needs one width for all parties, and they are {_listed(widths)}; "
            f"use concat or one width"
        )
    return next(iter(widths.values()))


def _concat(hs: Sequence[Tensor]) -> Tensor:
    for h in hs:
        if h.requires_grad:
            # A gradient that has crossed the wire is contiguous. In one process it would be a view of the
            # joint one, and where a layer has one neuron torch adds up in another order what is strided.
            h.register_hook(_contiguous)  # type: ignore[no-untyped-call]
    return torch.cat(list(hs), dim=1)


def is_finite(tensor: Tensor) -> bool:
    """Tells whether every element is finite; looks at each only where their sum is not."""
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def _contiguous(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()


def _fold(combine: Callable[[Tensor, Tensor], Tensor], hs: Sequence[Tensor]) -> Tensor:
    # In the roster's order, always: floating-point addition depends on it.
    total = hs[0]
    for h in hs[1:]:
        total = combine(total, h)
    return total


def _tried_out(cut: nn.Module, widths: Mapping[str, int]) -> int:
    name = type(cut).__name__
    modes = [(module, module.training) for module in cut.modules()]
    try:
        with torch.no_grad():  # in evaluation mode: zeros must not enter anybody's batch statistics
            joined = cut.eval()([torch.zeros(2, width) for width in widths.values()])
    except Exception as error:  # the user's own code
        raise ConfigError(
            f"cut = {name}: fails on widths {_listed(widths)} ({one_line(error)}); it must take a list of "
            f"one tensor a party"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(joined, Tensor) or joined.dim() != 2 or len(joined) != 2:
        shape = list(joined.shape) if isinstance(joined, Tensor) else type(joined).__name__
        raise ConfigError(f"cut = {name}: makes {shape} of 2 rows; it must give one row of numbers for each")
    return int(joined.shape[1])


def _listed(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in widths.items())
