from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vfl.learn.joined import JoinedNetwork
from vfl.learn.presets import MLP
from vfl.rng import RngStream


def concat(embeddings: list[Tensor]) -> Tensor:
    return torch.cat(embeddings, dim=1)


class WeightedSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        return torch.einsum("k,kbd->bd", self.weight, torch.stack(embeddings))


def parts(dropout: float = 0.0) -> tuple[dict[str, nn.Module], nn.Module]:
    torch.manual_seed(0)
    bottoms: dict[str, nn.Module] = {
        "items": MLP(3, 4, hidden=[5], dropout=dropout),
        "shop": MLP(2, 4, hidden=[5], dropout=dropout, embeddings=[(3, 2)]),
    }
    return bottoms, MLP(8, 1, hidden=[6], dropout=dropout)


INPUTS: dict[str, tuple[Tensor | None, ...]] = {
    "shop": (torch.randn(6, 2), torch.tensor([[0], [1], [2], [3], [1], [2]])),
    "items": (torch.randn(6, 3), None),
}


def grads(*modules: nn.Module) -> list[Tensor]:
    found = [parameter.grad for module in modules for parameter in module.parameters()]
    return [grad for grad in found if grad is not None]


def split_step(bottoms: dict[str, nn.Module], trunk: nn.Module, streams: dict[str, RngStream]) -> Tensor:
    """Trains one step as separate parties do: activations forward, gradients backward."""
    sent = {}
    for name, bottom in bottoms.items():
        with streams[name]:
            sent[name] = bottom(*(tensor for tensor in INPUTS[name] if tensor is not None))
    heard = {name: tensor.detach().requires_grad_() for name, tensor in sent.items()}
    with streams["shop"]:
        output: Tensor = trunk(concat(list(heard.values())))
        output.sum().backward()
    for name, tensor in sent.items():
        with streams[name]:
            tensor.backward(heard[name].grad)
    return output


def test_a_joined_network_equals_the_split_one_bit_for_bit_with_dropout() -> None:
    bottoms, trunk = parts(dropout=0.5)
    twins, top = copy.deepcopy(bottoms), copy.deepcopy(trunk)
    streams = {name: RngStream(seed) for seed, name in enumerate(bottoms)}
    joined = JoinedNetwork(
        twins, concat, top, {n: RngStream(s) for s, n in enumerate(bottoms)}, trunk_party="shop"
    )
    for _ in range(3):
        split_output = split_step(bottoms, trunk, streams)
        output = joined(INPUTS)
        output.sum().backward()
        assert torch.equal(output, split_output)
        pairs = zip(grads(*bottoms.values(), trunk), grads(*twins.values(), top), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_embeddings_reach_the_cut_in_the_jobs_order() -> None:
    bottoms, trunk = parts()
    expected = trunk(concat([bottoms["items"](INPUTS["items"][0]), bottoms["shop"](*INPUTS["shop"])]))
    assert torch.equal(JoinedNetwork(bottoms, concat, trunk)(INPUTS), expected)


def test_all_parts_are_trained_and_named_by_party() -> None:
    bottoms, _ = parts()
    joined = JoinedNetwork(bottoms, WeightedSum(), nn.Linear(4, 1))
    joined(INPUTS).sum().backward()
    names = {name.rpartition(".")[0].split(".")[0] for name, _ in joined.named_parameters()}
    assert names == {"bottom_items", "bottom_shop", "cut", "trunk"}
    assert all(parameter.grad is not None for parameter in joined.parameters())


@pytest.mark.parametrize("streamed", [False, True])
def test_the_callers_grad_mode_holds_inside(streamed: bool) -> None:
    bottoms, trunk = parts()
    streams = {name: RngStream(0) for name in bottoms} if streamed else None
    joined = JoinedNetwork(bottoms, concat, trunk, streams, trunk_party="shop")
    with torch.no_grad():
        assert not joined(INPUTS).requires_grad
    assert joined(INPUTS).requires_grad


def test_the_callers_random_state_is_untouched_by_streamed_parts() -> None:
    bottoms, trunk = parts(dropout=0.5)
    joined = JoinedNetwork(
        bottoms, concat, trunk, {name: RngStream(0) for name in bottoms}, trunk_party="shop"
    )
    before = torch.get_rng_state()
    joined(INPUTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_has_weights_of_its_own() -> None:
    bottoms, trunk = parts()
    joined = JoinedNetwork(bottoms, concat, trunk)
    twin = copy.deepcopy(joined)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(INPUTS).any()
    assert joined(INPUTS).any()
