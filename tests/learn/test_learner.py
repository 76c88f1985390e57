from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from vfl.errors import ConfigError, StorageError
from vfl.learn.learner import Learner, build_device
from vfl.learn.presets import MLP


class Remembering(nn.Module):
    """Keeps extra state that is no tensor."""

    def get_extra_state(self) -> object:
        return {"seen": 3}

    def set_extra_state(self, state: object) -> None:
        pass


def learner(lr: float = 1.0, **options: object) -> Learner:
    torch.manual_seed(0)
    network = MLP(3, 2, hidden=[4], batch_norm=True)
    return Learner(network, SGD(network.parameters(), lr=lr), **options)  # type: ignore[arg-type]


def backward(one: Learner, scale: float = 1.0) -> None:
    (one(torch.arange(12.0).reshape(4, 3)).square().sum() * scale).backward()


def norm_of_change(before: dict[str, Tensor], one: Learner) -> float:
    moved = [(parameter - before[name]).square().sum() for name, parameter in one.network.named_parameters()]
    return math.sqrt(sum(square.item() for square in moved))


def test_inputs_that_are_none_are_left_out() -> None:
    network = MLP(3, 2)
    x = torch.randn(4, 3)
    assert torch.equal(Learner(network)(x, None), network(x))


def test_codes_reach_the_network() -> None:
    network = MLP(1, 2, embeddings=[(3, 2)])
    x, codes = torch.randn(4, 1), torch.ones(4, 1, dtype=torch.int64)
    assert torch.equal(Learner(network)(x, codes), network(x, codes))


def test_inputs_and_network_move_to_the_device() -> None:
    one = Learner(nn.Linear(3, 2), device="meta")
    assert one(torch.zeros(4, 3)).device.type == "meta"


def test_train_and_eval_switch_the_whole_network() -> None:
    one = learner()
    one.eval()
    assert not any(module.training for module in one.network.modules())
    one.train()
    assert all(module.training for module in one.network.modules())


def test_a_step_applies_the_gradients_and_clears_them() -> None:
    one, plain = learner(), learner()
    for each in (one, plain):
        backward(each)
    one.step()
    assert plain.optimizer is not None
    plain.optimizer.step()
    assert all(parameter.grad is None for parameter in one.network.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(one.weights().values(), plain.weights().values(), strict=True)
    )


def test_the_gradient_norm_is_clipped_over_the_whole_network() -> None:
    one = learner(clip_norm=0.5)
    before = one.weights()
    backward(one, scale=100)
    one.step()
    assert norm_of_change(before, one) == pytest.approx(0.5, rel=1e-3)


def test_a_small_gradient_is_not_clipped() -> None:
    one, plain = learner(clip_norm=1e9), learner()
    for each in (one, plain):
        backward(each)
        each.step()
    assert all(
        torch.equal(a, b) for a, b in zip(one.weights().values(), plain.weights().values(), strict=True)
    )


def test_a_learner_without_an_optimiser_steps_as_a_no_op() -> None:
    one = Learner(nn.Linear(3, 2))
    before = one.weights()
    one.step()
    one.end_epoch()
    assert norm_of_change(before, one) == 0


@pytest.mark.parametrize(("every", "expected"), [("epoch", [1.0, 1.0, 0.5]), ("step", [0.5, 0.25, 0.25])])
def test_a_schedule_moves_when_it_is_told_to(every: str, expected: list[float]) -> None:
    network = nn.Linear(3, 2)
    optimizer = SGD(network.parameters(), lr=1.0)
    one = Learner(network, optimizer, StepLR(optimizer, 1, gamma=0.5), every)  # type: ignore[arg-type]
    rates = []
    for act in (one.step, one.step, one.end_epoch):
        act()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == expected


def test_a_schedule_at_its_end_says_to_give_it_more_steps() -> None:
    network = nn.Linear(3, 2)
    optimizer = SGD(network.parameters(), lr=1.0, momentum=0.9)
    one = Learner(network, optimizer, OneCycleLR(optimizer, 1.0, total_steps=2), "step")
    one.step()
    one.step()
    with pytest.raises(ConfigError, match=r"OneCycleLR is at its end \(ValueError: .* give it more steps"):
        one.step()


def test_kept_weights_do_not_change_with_training() -> None:
    one = learner()
    kept = one.weights()
    copies = {name: value.clone() for name, value in kept.items()}
    backward(one)
    one.step()
    assert all(torch.equal(kept[name], copies[name]) for name in kept)
    assert norm_of_change(kept, one) > 0
    one.load_weights(kept)
    assert all(torch.equal(one.weights()[name], copies[name]) for name in kept)


def test_buffers_are_weights_too() -> None:
    assert "layers.1.running_mean" in learner().weights()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            MLP(3, 2, hidden=[5], batch_norm=True),
            r"layers\.0\.weight has shape \[5, 3\], the network's \[4, 3\]",
        ),
        (MLP(3, 2, hidden=[4]), r"layers\.1\.weight is missing"),
        (MLP(3, 2, hidden=[4], batch_norm=True, embeddings=[(3, 2)]), "shape|is not in the network"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(other: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        learner().load_weights(other.state_dict())
    assert "\n" not in str(caught.value)


def test_surplus_weights_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="extra is not in the network"):
        learner().load_weights({**learner().weights(), "extra": torch.zeros(1)})


def test_state_that_is_no_tensor_is_refused_where_it_would_be_saved() -> None:
    with pytest.raises(StorageError, match="_extra_state of the network is dict, no tensor"):
        Learner(Remembering()).weights()


def test_a_state_is_a_snapshot() -> None:
    network = nn.Linear(3, 2)
    one = Learner(network, Adam(network.parameters()))
    backward(one)
    one.step()
    state = one.state_dict()
    moment = state["optimizer"]["state"][0]["exp_avg"].clone()
    backward(one)
    one.step()
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moment)


def test_the_state_of_another_setup_is_refused() -> None:
    network = nn.Linear(3, 2)
    state = Learner(network, SGD(network.parameters())).state_dict()
    with pytest.raises(ConfigError, match="the checkpoint has an optimizer"):
        Learner(nn.Linear(3, 2)).load_state_dict(state)
    optimizer = SGD(network.parameters())
    with pytest.raises(ConfigError, match="the checkpoint has no schedule"):
        Learner(network, optimizer, StepLR(optimizer, 1)).load_state_dict(state)
    with pytest.raises(ConfigError, match="the optimizer's state is another's"):
        Learner(network, SGD([network.weight])).load_state_dict(state)


def test_the_cpu_is_always_there() -> None:
    assert build_device("cpu", "x.toml: device") == torch.device("cpu")


def test_auto_takes_the_best_device_that_is_there() -> None:
    device = build_device("auto", "x.toml: device")
    if torch.cuda.is_available():
        assert device == torch.device("cuda:0")
    else:
        assert device.type in ("cpu", "mps")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0", "mps:1", "meta"])
def test_an_unknown_device_is_refused_with_what_may_be_written(name: str) -> None:
    with pytest.raises(ConfigError, match=r'x\.toml: device = .* is unknown: write "auto", "cpu"'):
        build_device(name, "x.toml")


def test_a_device_that_is_not_there_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(
            ConfigError, match=f"x.toml: device = '{name}' is not here .* write device = \"cpu\""
        ):
            build_device(name, "x.toml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert build_device("cuda", "x.toml") == build_device("auto", "x.toml") == torch.device("cuda:0")
    assert build_device("cuda:1", "x.toml") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="write cuda:0 to cuda:1"):
        build_device("cuda:2", "x.toml")
