"""Holds a network together with its optimiser, its schedule and the device that it lives on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from vfl.errors import ConfigError, StorageError
from vfl.learn.networks import one_line
from vfl.learn.optimise import Every


def build_device(name: str, where: str) -> torch.device:
    """Gives the device that a site names, if it is there.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first of cuda, mps, cpu that is there.
        where: Names the document and the key in an error.

    Raises:
        ConfigError: There is no such device on this machine, or the name means none.
    """
    kind, colon, number = name.partition(":")
    if name in ("cpu", "auto", "mps") or (kind == "cuda" and (not colon or number.isdecimal())):
        return _present(name, kind, int(number or 0), where)
    raise ConfigError(
        f'{where}: device = {name!r} is unknown: write "auto", "cpu", "cuda", "cuda:1" or "mps"'
    )


def _present(name: str, kind: str, index: int, where: str) -> torch.device:
    gpus = torch.cuda.device_count() if kind in ("cuda", "auto") and torch.cuda.is_available() else 0
    apple = kind in ("mps", "auto") and torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if gpus else "mps" if apple else "cpu"
    if kind == "cuda" and index >= gpus:
        remedy = f"write cuda:0 to cuda:{gpus - 1}" if gpus else 'write device = "cpu" or "auto"'
        raise ConfigError(
            f"{where}: device = {name!r} is not here (this machine has {gpus} CUDA devices): {remedy}"
        )
    if kind == "mps" and not apple:
        raise ConfigError(
            f'{where}: device = {name!r} is not here (no Apple GPU): write device = "cpu" or "auto"'
        )
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def _mismatch(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Says in which weight two networks differ first; empty if in none."""
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        if name not in theirs:
            return f"{name} is missing"
        if name not in mine:
            return f"{name} is not in the network"
        if mine[name].shape != theirs[name].shape:
            return f"{name} has shape {list(theirs[name].shape)}, the network's {list(mine[name].shape)}"
    return ""


class Learner:
    """A network with its optimiser, schedule and device.

    Args:
        network: Is moved to the device.
        optimizer: None if there is nothing to train, or in prediction.
        schedule: Moves the learning rate.
        schedule_every: Whether it moves at the end of each "epoch" or after each "step".
        device: Where the network computes.
        clip_norm: The largest gradient norm, over this network's parameters alone; None for no limit.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer | None = None,
        schedule: LRScheduler | None = None,
        schedule_every: Every = "epoch",
        *,
        device: torch.device | str = "cpu",
        clip_norm: float | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self._schedule = schedule
        self._every_step = schedule is not None and schedule_every == "step"
        self._on_cpu = self.device.type == "cpu"
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Moves the inputs to the device, leaves out those that are None, and gives [b, out] there."""
        if self._on_cpu:
            given = [tensor for tensor in inputs if tensor is not None]
        else:
            given = [tensor.to(self.device, non_blocking=True) for tensor in inputs if tensor is not None]
        result: Tensor = self.network(*given)
        return result

    def train(self) -> None:
        """Switches dropout and batch statistics on."""
        self.network.train()

    def eval(self) -> None:
        """Switches dropout and batch statistics off."""
        self.network.eval()

    def step(self) -> None:
        """Applies the gradients and clears them: clip, optimise, move a per-step schedule.

        Raises:
            ConfigError: The schedule is at its end.
        """
        if self.optimizer is None:
            return
        if self.clip_norm is not None:
            clip_grad_norm_(self._parameters, self.clip_norm)
        self.optimizer.step()
        if self._every_step:
            self._move_schedule()
        self.optimizer.zero_grad(set_to_none=True)

    def end_epoch(self) -> None:
        """Moves a per-epoch schedule.

        Raises:
            ConfigError: The schedule is at its end.
        """
        if self._schedule is not None and not self._every_step:
            self._move_schedule()

    def weights(self) -> dict[str, Tensor]:
        """Copies the network's weights and buffers to the CPU, for keeping the best.

        Raises:
            StorageError: The user's module keeps extra state that is no tensor.
        """
        state = self.network.state_dict()
        for name, value in state.items():
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise StorageError(
                    f"{name} of the network is {kind}, no tensor: keep it in a buffer to have it saved"
                )
        return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over what `weights` gave.

        Raises:
            ConfigError: The weights are another network's.
        """
        wrong = _mismatch(self.network.state_dict(), weights)
        if wrong:
            raise ConfigError(
                f"the weights are another network's ({wrong}): restore the network's settings, or train anew"
            )
        self.network.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """Copies all that training goes on from: weights, optimiser and schedule.

        Raises:
            StorageError: The user's module keeps extra state that is no tensor.
        """
        return {
            "network": self.weights(),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()) if self.optimizer else None,
            "schedule": copy.deepcopy(self._schedule.state_dict()) if self._schedule else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, bit for bit.

        Raises:
            ConfigError: The state is of another network, optimiser or schedule.
        """
        self.load_weights(state["network"])
        for part, mine in (("optimizer", self.optimizer), ("schedule", self._schedule)):
            theirs = state[part]
            if (mine is None) != (theirs is None):
                raise ConfigError(
                    f"the checkpoint has {'no' if theirs is None else 'an'} {part}: restore its settings"
                )
            if mine is None:
                continue
            try:
                mine.load_state_dict(copy.deepcopy(theirs))
            except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
                raise ConfigError(
                    f"the {part}'s state is another's ({one_line(error)}): restore its settings"
                ) from error

    def _move_schedule(self) -> None:
        assert self._schedule is not None  # noqa: S101
        try:
            self._schedule.step()
        except ValueError as error:  # OneCycleLR, past its total_steps
            name = type(self._schedule).__name__
            raise ConfigError(
                f"schedule {name} is at its end ({one_line(error)}): give it more steps"
            ) from error
