"""The middle floor: one dialogue a file. The module is the registry entry.

A protocol is a module in this folder, or one that an installed package names under the entry point
group `vfl.protocols`. It holds, in this order:

- a docstring: the first line says what it is; a line `sender --Message--> receiver` for each thing
  that is said (`a|b` stands for each of them); a section "Who learns what:" with `role: sentences` each,
  further lines indented; its source; where
  it is not the same in every job, `learns(session, drawn)` picks what holds of it;
- `Config`, a pydantic model of its options; `MESSAGES`, the kinds that it says;
- `HUB`, roles: the first of them that a job has is that of the party with the one open port; and, where
  it can go on without a party that vanishes, `GOES_ON = True`;
- its arithmetic as plain functions, among them `check_roster(config, roles, widths)`, which refuses who
  cannot work together, and `step_bytes(session, rows, learning=True)`, a bound on what a party that is not
  the hub sends and receives in a step, with or without a gradient;
- one `async def` a role, in `ROLES` for training and `PREDICTORS` for prediction; `vfl/session.py` tells
  it who takes part.

It may hold further plain functions, for what few protocols need; `widths` are those of the feature parties in
the job's order, then the label party's if it has columns:

- `layers(config, role, widths)`, networks of the protocol's own by name, none called bottom, own, joint or
  trunk. They are kept with the party's other networks, and its role and its predictor are given them as
  `layers`: learners without an optimiser, on the CPU;
- `joint_widths(config, widths)`, what of each party arrives at the label party's cut, where that is not what
  the party brings;
- `step_seconds(session, *, cores, steps, seconds=1.0)`, which measures this machine for about so many
  seconds and returns a function of a step's rows, and of whether it learns, that gives the seconds that
  such a step takes all parties, each with that many cores, in a training of so many steps.

`load` reads all that into a `Protocol`. No protocol imports another.

An alignment is a dialogue of another kind, which comes before a protocol: it finds out which rows all
parties share. Its module holds the docstring, `MESSAGES`, `MOST_PARTIES`, `ROLES` (of "hub" and of "party")
and `align`;
`load_alignment` reads it into an `Alignment`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel
from torch import nn

from vfl.config.load import suggestion
from vfl.errors import ConfigError, RoleError
from vfl.learn.networks import one_line
from vfl.wire.messages import Message

ENTRY_POINTS: Final = "vfl.protocols"
_ALIGNMENTS: Final = ("ids", "psi")
_ALIGNMENT_PARTS: Final = ("MESSAGES", "MOST_PARTIES", "ROLES", "align")
_PARTS: Final = ("Config", "MESSAGES", "HUB", "ROLES", "PREDICTORS", "check_roster", "step_bytes")
_HOOKS: Final = ("layers", "joint_widths", "step_seconds")
_ARROW: Final = re.compile(r"\s{2,}([\w|]+) --(\w+)--> ([\w|]+)")
_LEARNS: Final = re.compile(r"^ {4}([^\s:][^:\n]*): (.+(?:\n {5,}.+)*)$", re.MULTILINE)

StepSeconds = Callable[[int, bool], float]
"""Gives the seconds of a step of so many rows, and of whether it learns."""


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
    hub: tuple[str, ...]
    """The first of these roles that a job has is that of the party which the others connect to."""
    goes_on: bool
    """Whether it can go on without a party that vanishes."""
    roles: Mapping[str, Callable[..., Any]]
    predictors: Mapping[str, Callable[..., Any]]
    layers: Callable[..., Mapping[str, nn.Module]] | None = None
    """Makes a role's networks that are the protocol's own; None where it has none."""
    joint_widths: Callable[..., Mapping[str, int]] | None = None
    """Tells the widths at the label party's cut; None where they are those that the parties bring."""
    step_seconds: Callable[..., StepSeconds] | None = None
    """Estimates the time of a step; None where that is not known."""


@dataclass(frozen=True)
class Alignment:
    """Is what an alignment's module says of itself."""

    name: str
    summary: str
    arrows: frozenset[tuple[str, str, str]]
    """(sender role, message, receiver role) of all that may be said; the roles are hub and party."""
    learns: Mapping[str, str]
    """For each role, what it comes to know of the others."""
    messages: tuple[type[Message], ...]
    most_parties: int
    align: Callable[..., Any]
    """The role of every party; `protocols/psi.py` says what it is given and what it gives."""


def names() -> list[str]:
    """Lists every training protocol at hand, own and installed."""
    return sorted(_own_names() | {entry.name for entry in entry_points(group=ENTRY_POINTS)})


def load(name: str) -> Protocol:
    """Loads one protocol.

    Raises:
        ConfigError: if there is none of that name, or it needs what is not installed.
        RoleError: if its module lacks a part.
    """
    if name not in names():
        raise ConfigError(f"protocol = {name!r}: there is no such protocol; {suggestion(name, names())}")
    if name in _own_names():
        return describe(name, _own_module(name))
    entry = next(entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == name)
    try:
        module = entry.load()
    except Exception as error:  # another package's own code
        raise ConfigError(
            f"protocol = {name!r}: {entry.value} cannot be imported ({one_line(error)}); "
            f"correct or reinstall that package"
        ) from error
    return describe(name, module)


def alignments() -> list[str]:
    """Lists the ways in which parties can find out which rows they share."""
    return sorted(_ALIGNMENTS)


def load_alignment(name: str) -> Alignment:
    """Loads one alignment.

    Raises:
        ConfigError: if there is none of that name.
        RoleError: if its module lacks a part, or its parts and its docstring do not agree.
    """
    if name not in _ALIGNMENTS:
        raise ConfigError(f"align = {name!r}: there is no such alignment; {suggestion(name, alignments())}")
    return describe_alignment(name, importlib.import_module(f"{__name__}.{name}"))


def describe_alignment(name: str, module: ModuleType) -> Alignment:
    """Reads an alignment's module.

    Raises:
        RoleError: if it lacks a part, or its parts and its docstring do not agree.
    """
    summary, arrows, learns = _read(f"alignment {name}", module, _ALIGNMENT_PARTS)
    messages = tuple(module.MESSAGES)
    faults = list(_undrawn(set(module.ROLES), messages, arrows, learns))
    if faults:
        raise RoleError(f"alignment {name}: {'; '.join(faults)}; make its docstring and its parts agree")
    return Alignment(name, summary, arrows, learns, messages, module.MOST_PARTIES, module.align)


def describe(name: str, module: ModuleType) -> Protocol:
    """Reads a protocol's module.

    Raises:
        RoleError: if it lacks a part, or its parts and its docstring do not agree.
    """
    summary, arrows, learns = _read(f"protocol {name}", module, _PARTS)
    protocol = Protocol(
        name=name,
        module=module,
        summary=summary,
        arrows=arrows,
        learns=learns,
        config=module.Config,
        messages=tuple(module.MESSAGES),
        hub=tuple(module.HUB),
        goes_on=getattr(module, "GOES_ON", False),
        roles=module.ROLES,
        predictors=module.PREDICTORS,
        **{hook: getattr(module, hook, None) for hook in _HOOKS},
    )
    faults = list(_disagreements(protocol))
    if faults:
        raise RoleError(f"protocol {name}: {'; '.join(faults)}; make its docstring and its parts agree")
    return protocol


def _own_module(name: str) -> ModuleType:
    """Imports a module of this folder; what it needs beyond the package itself is an extra of its name."""
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("vfl", "protocols"):
            raise
        raise ConfigError(
            f"protocol = {name!r}: needs {error.name}, which is not installed: "
            f'pip install "vfl-framework[{name}]", or in a checkout ".[{name}]"'
        ) from error


def _own_names() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)} - set(_ALIGNMENTS)


def _read(
    what: str, module: ModuleType, parts: tuple[str, ...]
) -> tuple[str, frozenset[tuple[str, str, str]], dict[str, str]]:
    """Reads a module's docstring: summary, arrows, who learns what."""
    text = module.__doc__ or ""
    arrows = frozenset(
        (sender, kind, to)
        for senders, kind, hearers in _ARROW.findall(text)
        for sender in senders.split("|")
        for to in hearers.split("|")
    )
    _, _, after = text.partition("Who learns what:\n")
    found = _LEARNS.findall(after.partition("\n\n")[0])
    learns = {role: " ".join(words.split()) for role, words in found}
    missing = [part for part in parts if not hasattr(module, part)]
    missing += ["arrows in its docstring"] * (not arrows)
    missing += ["'Who learns what:' in its docstring"] * (not learns)
    if missing:
        raise RoleError(f"{what}: lacks {', '.join(missing)}; see protocols/__init__.py")
    return text.partition("\n")[0], arrows, learns


def _disagreements(protocol: Protocol) -> Iterator[str]:
    roles = set(protocol.roles)
    if not protocol.hub or not set(protocol.hub) <= roles:
        yield f"HUB = {protocol.hub!r} does not list some of its ROLES"
    if roles != set(protocol.predictors):
        yield "ROLES and PREDICTORS name other roles"
    yield from _undrawn(roles, protocol.messages, protocol.arrows, protocol.learns)


def _undrawn(
    roles: set[str],
    messages: tuple[type[Message], ...],
    arrows: frozenset[tuple[str, str, str]],
    learns: Mapping[str, str],
) -> Iterator[str]:
    kinds = {kind.__name__ for kind in messages}
    for role in sorted(roles - {who.partition(",")[0] for who in learns}):
        yield f"'Who learns what:' says nothing of {role}"
    drawn = {kind for _, kind, _ in arrows}
    for kind in sorted(drawn ^ kinds):
        yield f"{kind} is {'drawn and not in MESSAGES' if kind in drawn else 'in MESSAGES and not drawn'}"
    for role in sorted({end for sender, _, to in arrows for end in (sender, to)} - roles):
        yield f"an arrow names {role}, who is none of its ROLES"
