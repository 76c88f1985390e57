from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from vfl.errors import ConfigError
from vfl.learn.optimise import REFUSED, build_optimizer, build_schedule

WHERE = "bank.toml: optimizer"


def optimizer_for(spec: dict[str, Any]) -> Any:  # noqa: ANN401
    return build_optimizer(nn.Linear(2, 2).parameters(), spec, WHERE)


@pytest.mark.parametrize(
    "name", ["Adam", "adam", "SGD", "adamw", "RMSprop", "adagrad", "NAdam", "SparseAdam"]
)
def test_an_optimiser_is_named_as_torch_names_it_in_any_case(name: str) -> None:
    assert type(optimizer_for({"name": name})).__name__.lower() == name.lower()


def test_options_reach_the_optimiser() -> None:
    made = optimizer_for({"name": "Adam", "lr": 0.5, "betas": [0.8, 0.9], "amsgrad": True, "weight_decay": 1})
    group = made.param_groups[0]
    assert (group["lr"], group["betas"], group["amsgrad"], group["weight_decay"]) == (
        0.5,
        (0.8, 0.9),
        True,
        1,
    )


def test_there_is_no_optimiser_where_nothing_is_to_be_trained() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert build_optimizer([], {"name": "Adam"}, WHERE) is None
    assert build_optimizer(frozen.parameters(), {"name": "Adam"}, WHERE) is None
    assert build_schedule(None, {"name": "StepLR", "step_size": 1}, WHERE) == (None, "epoch")


def test_frozen_parameters_are_left_out() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    made = build_optimizer(network.parameters(), {"name": "SGD"}, WHERE)
    assert made is not None
    assert [len(group["params"]) for group in made.param_groups] == [1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "Addam"}, "name = 'Addam' is unknown: did you mean 'Adam'?"),
        ({"name": "Optimizer"}, "is unknown"),
        ({"lr": 0.1}, "name = None names nothing: Choose from"),
        ({"name": "lbfgs"}, "cannot be used: it evaluates the loss many times a step"),
        ({"name": "Adam", "learning_rate": 1}, "learning_rate is no option of Adam: "),
        ({"name": "Adam", "weightdecay": 1}, "did you mean 'weight_decay'?"),
        ({"name": "Adam", "params": 1}, "params is no option"),
        ({"name": "Adam", "lr": "fast"}, "lr = 'fast' does not fit: write a number"),
        ({"name": "Adam", "lr": True}, "write a number"),
        ({"name": "Adam", "lr": float("nan")}, "write a number"),
        ({"name": "Adam", "lr": [0.1, 0.2]}, "Adam refuses lr = [0.1, 0.2]"),
        ({"name": "Adam", "lr": -1.0}, "Adam refuses lr = -1.0 (ValueError: Invalid learning rate: -1.0)"),
        ({"name": "Adam", "amsgrad": "no"}, "amsgrad = 'no' does not fit: write true or false"),
        ({"name": "Adam", "betas": [0.9]}, "write 2 numbers"),
        ({"name": "Adam", "betas": 0.9}, "write 2 numbers"),
        ({"name": "SGD", "nesterov": True}, "SGD refuses nesterov = True"),
        ({"name": "SGD", "foreach": {"a": 1}}, "foreach = {'a': 1} does not fit"),
    ],
)
def test_an_optimiser_that_cannot_be_made_is_one_line_with_the_remedy(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        optimizer_for(spec)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    assert message in text
    assert "\n" not in text


def test_without_a_schedule_the_learning_rate_is_constant() -> None:
    assert build_schedule(optimizer_for({"name": "SGD"}), None, WHERE) == (None, "epoch")


def test_a_schedule_moves_by_epoch_or_by_step() -> None:
    made = optimizer_for({"name": "SGD", "lr": 1.0})
    schedule, every = build_schedule(
        made, {"name": "steplr", "step_size": 1, "gamma": 0.5, "every": "step"}, WHERE
    )
    assert isinstance(schedule, lr_scheduler.StepLR)
    assert every == "step"
    assert build_schedule(made, {"name": "ExponentialLR", "gamma": 0.5}, WHERE)[1] == "epoch"


def test_trying_a_schedule_out_does_not_move_it() -> None:
    made = optimizer_for({"name": "SGD", "lr": 1.0})
    schedule, _ = build_schedule(made, {"name": "StepLR", "step_size": 1, "gamma": 0.5}, WHERE)
    assert schedule is not None
    assert schedule.last_epoch == 0
    assert made.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "StepLr2"}, "did you mean 'StepLR'?"),
        ({"name": "LRScheduler"}, "is unknown"),
        ({"name": "StepLR"}, "StepLR needs step_size: add it"),
        ({"name": "StepLR", "step_size": "3"}, "StepLR refuses step_size = '3' (TypeError"),
        ({"name": "StepLR", "step_size": 0}, "ZeroDivisionError"),
        (
            {"name": "StepLR", "step_size": 3, "every": "day"},
            'every = \'day\' is unknown: write "epoch" or "step"',
        ),
        ({"name": "StepLR", "step_size": 3, "every": []}, "every = [] is unknown"),
        ({"name": "StepLR", "step_size": 3, "last_epoch": 3}, "last_epoch is no option"),
        ({"name": "OneCycleLR", "max_lr": 1}, "OneCycleLR refuses max_lr = 1"),
        ({"name": "CyclicLR", "base_lr": 1, "max_lr": 2, "scale_fn": "f"}, "CyclicLR refuses"),
        ({"name": "CyclicLR", "base_lr": 1, "max_lr": 2, "mode": 3}, "write a word, such as 'triangular'"),
        ({"name": "ReduceLROnPlateau"}, "feature parties do not see"),
        ({"name": "lambdalr"}, "takes a Python function"),
        ({"name": "SequentialLR"}, "made of other schedules"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_one_line_with_the_remedy(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_schedule(optimizer_for({"name": "SGD", "momentum": 0.9}), spec, WHERE)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: ")
    assert message in text
    assert "\n" not in text


def test_a_cyclic_schedule_needs_an_optimiser_with_momentum() -> None:
    with pytest.raises(ConfigError, match="momentum"):
        build_schedule(
            optimizer_for({"name": "Adagrad"}), {"name": "CyclicLR", "base_lr": 1, "max_lr": 2}, WHERE
        )


def test_everything_refused_exists_in_torch() -> None:
    assert all(hasattr(optim, name) or hasattr(lr_scheduler, name) for name in REFUSED)


def test_trying_out_draws_no_random_numbers() -> None:
    made, state = optimizer_for({"name": "SGD"}), torch.get_rng_state()
    build_schedule(made, {"name": "StepLR", "step_size": 3}, WHERE)
    assert torch.equal(torch.get_rng_state(), state)
