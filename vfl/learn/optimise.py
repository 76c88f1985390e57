"""Makes optimisers and learning-rate schedules from the names that torch gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, Literal, TypeGuard, get_args

import torch
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from vfl.errors import ConfigError
from vfl.learn.networks import one_line
from vfl.learn.presets import choose

Every = Literal["epoch", "step"]

_CALLABLE: Final = (
    "it takes a Python function, which a TOML file cannot hold: use StepLR or CosineAnnealingLR"
)
_NESTED: Final = "it is made of other schedules, which a TOML table cannot hold: use OneCycleLR or CyclicLR"

#: Optimisers and schedules of torch that cannot be used here, each with the reason.
REFUSED: Final[dict[str, str]] = {
    "LBFGS": "it evaluates the loss many times a step, each a round trip to all parties: use Adam",
    "ReduceLROnPlateau": "it follows the validation score, which feature parties do not see: use StepLR",
    "LambdaLR": _CALLABLE,
    "MultiplicativeLR": _CALLABLE,
    "SequentialLR": _NESTED,
    "ChainedScheduler": _NESTED,
}

# Taken from elsewhere than the table.
_GIVEN: Final = ("self", "params", "optimizer", "last_epoch")


def build_optimizer(params: Iterable[nn.Parameter], spec: Mapping[str, Any], where: str) -> Optimizer | None:
    """Makes the optimiser `{"name": "Adam", "lr": 1e-3, …}`; the other keys are torch's own options.

    Args:
        params: The network's parameters; those that need no gradient are left out.
        spec: The site's table; `name` in any case.
        where: Names the document and the key in an error.

    Returns:
        The optimiser, or None where there is nothing to train.

    Raises:
        ConfigError: The name or an option is unknown or cannot be used.
    """
    kind = _find(spec, _kinds(optim, Optimizer), where)
    options = _options(kind, spec, where)
    trained = [parameter for parameter in params if parameter.requires_grad]
    if not trained:
        return None
    try:
        made: Optimizer = kind(trained, **options)
    except Exception as error:  # torch checks values by raising what it likes
        raise _refusal(kind, spec, where, error) from error
    return made


def build_schedule(
    optimizer: Optimizer | None, spec: Mapping[str, Any] | None, where: str
) -> tuple[LRScheduler | None, Every]:
    """Makes the schedule `{"name": "StepLR", "every": "epoch", …}`; the other keys are torch's options.

    Args:
        optimizer: What `build_optimizer` gave.
        spec: The site's table, or None for a constant learning rate.
        where: Names the document and the key in an error.

    Returns:
        The schedule, if any, and whether it moves every epoch (the default) or every step.

    Raises:
        ConfigError: The name or an option is unknown or cannot be used.
    """
    if spec is None:
        return None, "epoch"
    every: Every = spec.get("every", "epoch")
    if every not in get_args(Every):
        raise ConfigError(f'{where}: every = {every!r} is unknown: write "epoch" or "step"')
    kind = _find(spec, _kinds(lr_scheduler, LRScheduler), where)
    options = _options(kind, {key: value for key, value in spec.items() if key != "every"}, where)
    if optimizer is None:
        return None, every
    try:
        _try_out(kind, options)
        made: LRScheduler = kind(optimizer, **options)
    except Exception as error:  # torch checks values by raising what it likes
        raise _refusal(kind, spec, where, error) from error
    return made, every


def _kinds(module: ModuleType, base: type) -> dict[str, type]:
    found = {
        name: kind for name, kind in vars(module).items() if inspect.isclass(kind) and issubclass(kind, base)
    }
    return {name: kind for name, kind in found.items() if kind is not base and not name.startswith("_")}


def _find(spec: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> type:
    name = spec.get("name")
    usable = [kind for kind in kinds if kind not in REFUSED]
    if not isinstance(name, str):
        raise ConfigError(f"{where}: name = {name!r} names nothing: {choose('', usable)}")
    hit = {kind.lower(): kind for kind in kinds}.get(name.lower())
    if hit in REFUSED:
        raise ConfigError(f"{where}: name = {name!r} cannot be used: {REFUSED[hit]}")
    if hit is None:
        raise ConfigError(f"{where}: name = {name!r} is unknown: {choose(name, usable)}")
    return kinds[hit]


def _options(kind: type, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    signature = {k: v for k, v in inspect.signature(kind).parameters.items() if k not in _GIVEN}
    options = {key: value for key, value in spec.items() if key != "name"}
    for key, value in options.items():
        if key not in signature:
            raise ConfigError(f"{where}: {key} is no option of {kind.__name__}: {choose(key, signature)}")
        options[key] = _fitted(key, value, signature[key].default, where)
    for key, parameter in signature.items():
        if parameter.default is parameter.empty and key not in options:
            raise ConfigError(f"{where}: {kind.__name__} needs {key}: add it")
    return options


def _fitted(key: str, value: object, default: object, where: str) -> object:
    """Checks a value by the kind of its default, since torch takes "no" for true, say."""
    if isinstance(default, bool):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, int | float):
        wanted, fits = "a number", _is_number(value) or _are_numbers(value)
    elif isinstance(default, tuple):
        wanted, fits = f"{len(default)} numbers", _are_numbers(value) and len(value) == len(default)
    elif isinstance(default, str):
        wanted, fits = f"a word, such as {default!r}", isinstance(value, str)
    else:  # no default, or None
        fits = isinstance(value, bool | str) or _is_number(value) or _are_numbers(value)
        wanted = "a number, a word, or a list of numbers"
    if not fits:
        raise ConfigError(f"{where}: {key} = {value!r} does not fit: write {wanted}")
    return tuple(value) if isinstance(default, tuple) and _are_numbers(value) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: object) -> TypeGuard[Sequence[float]]:
    return isinstance(value, list | tuple) and all(_is_number(item) for item in value)


def _try_out(kind: type[LRScheduler], options: Mapping[str, Any]) -> None:
    """Moves the schedule once on a throw-away optimiser: many check their options only then."""
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = kind(optimizer, **options)
    optimizer.step()
    schedule.step()


def _refusal(kind: type, spec: Mapping[str, Any], where: str, error: Exception) -> ConfigError:
    written = ", ".join(f"{key} = {value!r}" for key, value in spec.items() if key not in ("name", "every"))
    return ConfigError(
        f"{where}: {kind.__name__} refuses {written or 'its defaults'} ({one_line(error)}): correct it"
    )
