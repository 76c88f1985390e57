from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vfl.errors import ConfigError
from vfl.learn.ahead import keeping_weights
from vfl.learn.cut import CUTS, Joint, joined_width
from vfl.learn.presets import MLP

HS = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[-5.0, 6.0]])]


class Noisy(nn.Module):
    """Is a user's cut with dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        joined: Tensor = self.frozen(self.drop(self.norm(embeddings[0] + embeddings[1])))
        return joined


class Gives(nn.Module):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, embeddings: list[Tensor]) -> object:
        return self.result


@pytest.mark.parametrize(
    ("cut", "joined"),
    [
        ("concat", [1.0, -2.0, 3.0, 4.0, -5.0, 6.0]),
        ("sum", [-1.0, 8.0]),
        ("mean", [-1.0 / 3.0, 8.0 / 3.0]),
        ("max", [3.0, 6.0]),
        ("product", [-15.0, -48.0]),
    ],
)
def test_each_cut_joins_as_it_is_called(cut: str, joined: list[float]) -> None:
    assert torch.equal(CUTS[cut](HS), torch.tensor([joined]))
    assert joined_width(cut, {"a": 2, "b": 2, "c": 2}) == len(joined)


@pytest.mark.parametrize("cut", CUTS)
def test_one_embedding_is_joined_to_itself(cut: str) -> None:
    assert torch.equal(CUTS[cut](HS[:1]), HS[0])


@pytest.mark.parametrize("cut", CUTS)
def test_the_gradients_of_each_cut_are_right(cut: str) -> None:
    hs = [torch.rand(3, 2, dtype=torch.float64, requires_grad=True) + 0.5 * k for k in range(3)]
    assert torch.autograd.gradcheck(lambda *each: CUTS[cut](each), hs)


def test_a_gradient_through_concat_is_contiguous_as_one_that_has_crossed_the_wire() -> None:
    weights = [torch.ones(5, 1, requires_grad=True) for _ in range(2)]
    hs, strides = [weight * 1 for weight in weights], []
    joined = CUTS["concat"](hs)
    for h in hs:
        h.register_hook(lambda grad: strides.append(grad.stride()))  # type: ignore[no-untyped-call]
    torch.autograd.backward(joined.square().sum())
    assert strides == [(1, 1), (1, 1)]


def test_a_joint_runs_the_trunk_on_what_the_cut_makes() -> None:
    trunk = nn.Linear(2, 1)
    assert torch.equal(Joint("sum", trunk)(*HS), trunk(CUTS["sum"](HS)))


def test_a_users_cut_is_trained_and_switched_with_the_trunk() -> None:
    joint = Joint(Noisy(), nn.Linear(4, 1))
    assert {name.partition(".")[0] for name, _ in joint.named_parameters()} == {"cut", "trunk"}
    assert not joint.eval().cut.norm.training  # type: ignore[union-attr]


def test_a_users_cut_is_tried_out_and_left_as_it_was() -> None:
    cut, before = Noisy(), torch.get_rng_state()
    state = {name: value.clone() for name, value in cut.state_dict().items()}
    assert joined_width(cut, {"a": 4, "b": 4}) == 4
    assert (cut.training, cut.drop.training, cut.frozen.training) == (True, True, False)
    assert all(torch.equal(value, state[name]) for name, value in cut.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_cut_that_fails_on_the_widths_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cut = Noisy: fails on widths a 4, b 5 .*one tensor a party"):
        joined_width(Noisy(), {"a": 4, "b": 5})


@pytest.mark.parametrize(
    ("result", "shape"), [(None, "NoneType"), (torch.zeros(4), r"\[4\]"), (torch.zeros(1, 4), r"\[1, 4\]")]
)
def test_a_users_cut_that_makes_no_rows_is_refused(result: object, shape: str) -> None:
    with pytest.raises(ConfigError, match=f"cut = Gives: makes {shape} of 2 rows"):
        joined_width(Gives(result), {"a": 4})


def test_unequal_widths_can_only_be_concatenated() -> None:
    assert joined_width("concat", {"a": 2, "b": 3}) == 5
    with pytest.raises(ConfigError, match=r"cut = 'sum' needs one width .* a 2, b 3; use concat"):
        joined_width("sum", {"a": 2, "b": 3})


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_pass_that_keeps_weights_has_its_own_gradients_after_a_step(batch_norm: bool) -> None:
    network, x = MLP(3, 2, [5, 4], batch_norm=batch_norm), torch.randn(6, 3)
    network(x).square().sum().backward()
    expected = [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]
    network.zero_grad()
    with keeping_weights(network):
        h = network(x)
    change(network)
    h.square().sum().backward()
    for weight, grad in zip(network.parameters(), expected, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, grad)


def test_a_pass_that_keeps_none_is_refused_by_autograd_after_a_step() -> None:
    network = MLP(3, 2, [5, 4])
    h = network(torch.randn(6, 3))
    change(network)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


def change(network: nn.Module) -> None:
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2.0)
