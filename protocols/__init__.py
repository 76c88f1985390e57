"""The middle floor: one dialogue a file. The module is the registry entry.

A protocol is a module in this folder, or one that an installed package names under the entry point
group `vfl.protocols`. It holds, in this order:

- a docstring: the first line says what it is; a line `sender --Message--> receiver` for each thing
  that is said; a section "Who learns what:" with one line `role: sentence` each; its source;
- `Config`, a pydantic model of its options; `MESSAGES`, the kinds that it says;
- `HUB`, the role whose party has the one open port;
- its arithmetic as plain functions, among them `check_roster(config, roles, widths)`, which refuses who
  cannot work together, and `step_bytes(width, rows)`, a bound on what a feature party sends and
  receives in a training step;
- one `async def` a role, in `ROLES` for training and `PREDICTORS` for prediction.

`load` reads all that into a `Protocol`. No protocol imports another.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from vfl.config.load import suggestion
from vfl.errors import ConfigError, RoleError
from vfl.wire.messages import Message

ENTRY_POINTS: Final = "vfl.protocols"
_PARTS: Final = ("Config", "MESSAGES", "HUB", "ROLES", "PREDICTORS", "check_roster", "step_bytes")
_ARROW: Final = re.compile(r"^\s+(\w+) --(\w+)--> (\w+)", re.MULTILINE)
_LEARNS: Final = re.compile(r"^    ([^:\n]+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Protocol:
    """Is what a protocol's module says of itself."""

    name: str
    module: ModuleType
    summary: str
    arrows: frozenset[tuple[str, str, str]]
    """(sender role, message, receiver role) of all that may be said."""
    learns: Mapping[str, str]
    """For each role, what it comes to know of the others."""
    config: type[BaseModel]
    messages: tuple[type[Message], ...]
    hub: str
    roles: Mapping[str, Callable[..., Any]]
    predictors: Mapping[str, Callable[..., Any]]


def names() -> list[str]:
    """Lists every protocol at hand, own and installed."""
    own = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(own | {entry.name for entry in entry_points(group=ENTRY_POINTS)})


def load(name: str) -> Protocol:
    """Loads one protocol.

    Raises:
        ConfigError: if there is none of that name.
        RoleError: if its module lacks a part.
    """
    if name not in names():
        raise ConfigError(f"protocol = {name!r}: there is no such protocol; {suggestion(name, names())}")
    foreign = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    own = any(module.name == name for module in pkgutil.iter_modules(__path__))
    module = importlib.import_module(f"{__name__}.{name}") if own else foreign[name].load()
    return describe(name, module)


def describe(name: str, module: ModuleType) -> Protocol:
    """Reads a protocol's module.

    Raises:
        RoleError: if it lacks a part, or its docstring lacks arrows or who learns what.
    """
    text = module.__doc__ or ""
    arrows = frozenset(_ARROW.findall(text))
    _, _, after = text.partition("Who learns what:\n")
    learns = dict(_LEARNS.findall(after.partition("\n\n")[0]))
    missing = [part for part in _PARTS if not hasattr(module, part)]
    missing += ["arrows in its docstring"] * (not arrows) + ["'Who learns what:' in its docstring"] * (not learns)
    if missing:
        raise RoleError(f"protocol {name}: lacks {', '.join(missing)}; see protocols/__init__.py")
    return Protocol(
        name=name,
        module=module,
        summary=text.partition("\n")[0],
        arrows=arrows,
        learns=learns,
        config=module.Config,
        messages=tuple(module.MESSAGES),
        hub=module.HUB,
        roles=module.ROLES,
        predictors=module.PREDICTORS,
    )
