"""Joins bottoms, cut and trunk into the one-process network that a split one must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from vfl.rng import RngStream


class JoinedNetwork(nn.Module):
    """Computes in one forward pass what the parties compute together.

    Args:
        bottoms: Each party's bottom by its name, in the job's order.
        cut: Makes one tensor [b, d] of the embeddings, a list in the same order; may be a module.
        trunk: Makes the output [b, c] of it.
        streams: Each party's random stream, so that dropout draws as in a split run; a party
            without one draws from the caller's state.
        trunk_party: Whose stream cut and trunk draw from.
    """

    def __init__(
        self,
        bottoms: Mapping[str, nn.Module],
        cut: Callable[[list[Tensor]], Tensor],
        trunk: nn.Module,
        streams: Mapping[str, RngStream] | None = None,
        trunk_party: str = "",
    ) -> None:
        super().__init__()
        # Registered one by one under a prefix: a ModuleDict takes no party called "items" or "type".
        self.bottoms = dict(bottoms)
        for name, bottom in self.bottoms.items():
            self.add_module(f"bottom_{name}", bottom)
        self.cut = cut
        self.trunk = trunk
        self.trunk_party = trunk_party
        self._streams = dict(streams or {})

    def forward(self, inputs: Mapping[str, tuple[Tensor | None, ...]]) -> Tensor:
        """Maps each party's x [b, p] and codes [b, q] (None for no codes) to the output [b, c]."""
        grad = torch.is_grad_enabled()  # the caller's holds here, not each stream's
        embeddings = []
        for name, bottom in self.bottoms.items():
            with self._stream(name):
                torch.set_grad_enabled(grad)
                embeddings.append(
                    bottom(*(tensor for tensor in inputs[name] if tensor is not None))
                )  # [b, d]
        with self._stream(self.trunk_party):
            torch.set_grad_enabled(grad)
            result: Tensor = self.trunk(self.cut(embeddings))
        return result

    def _stream(self, party: str) -> AbstractContextManager[object]:
        return self._streams.get(party) or nullcontext()
