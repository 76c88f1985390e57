"""What parties say to each other: frozen dataclasses of scalars and tensors.

    @dataclass(frozen=True, eq=False)
    class Embedding(Message):
        step: int
        h: Tensor

A field is an `int` (64 bits), `float`, `bool`, `str`, `bytes`, a homogeneous `tuple[...]` of one of
these, or a `Tensor`. Nothing else crosses: `schema_of` refuses any other annotation.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import Tensor

from vfl.errors import RoleError

_SCALARS = (int, float, bool, str, bytes)


class Message:
    """Is the base of everything that one party says to another."""

    __slots__ = ()


@dataclass(frozen=True)
class Schema:
    """Tells how a kind of message is laid out: scalars in one header, then one frame a tensor."""

    kind: type[Message]
    scalars: tuple[str, ...]
    tensors: tuple[str, ...]
    scalar_decoder: msgspec.msgpack.Decoder[Any]

    @property
    def name(self) -> str:
        """The name that the kind bears on the wire."""
        return self.kind.__name__


def schema_of(kind: type[Message]) -> Schema:
    """Reads a message's layout off its annotations.

    Raises:
        RoleError: if the class is no plain frozen dataclass, or has a field that cannot cross the wire.
    """
    hashable: Any = kind  # which mypy would not take it for
    return _read_schema(hashable)


def kinds_by_name(kinds: Iterable[type[Message]]) -> dict[str, Schema]:
    """Indexes the kinds of one session by the name they bear on the wire.

    Raises:
        RoleError: if two kinds share a name.
    """
    index: dict[str, Schema] = {}
    for kind in kinds:
        schema = schema_of(kind)
        if index.setdefault(schema.name, schema).kind is not kind:
            raise RoleError(f"two kinds of message are called {schema.name}; rename one")
    return index


@functools.cache
def _read_schema(kind: type[Any]) -> Schema:
    _check_plain(kind)
    hints = typing.get_type_hints(kind)
    scalars: list[str] = []
    tensors: list[str] = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if hint is Tensor:
            tensors.append(field.name)
        elif _is_scalar(hint):
            scalars.append(field.name)
        else:
            raise RoleError(
                f"{kind.__name__}.{field.name}: {hint} cannot cross the wire; "
                "say int, float, bool, str, bytes, tuple[one of these, ...] or Tensor"
            )
    layout: Any = tuple.__class_getitem__(tuple(hints[name] for name in scalars))
    return Schema(kind, tuple(scalars), tuple(tensors), msgspec.msgpack.Decoder(layout))


def _check_plain(kind: type[Any]) -> None:
    name = kind.__name__
    if not (dataclasses.is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen):  # noqa: B009
        raise RoleError(f"{name}: a message is a frozen dataclass; add @dataclass(frozen=True, eq=False)")
    # Making a message from a peer's bytes must not be able to fail, nor run a protocol's own code.
    if hasattr(kind, "__post_init__") or not all(field.init for field in dataclasses.fields(kind)):
        raise RoleError(f"{name}: a message only carries; move its __post_init__ or init=False into the role")


def _is_scalar(hint: Any) -> bool:  # noqa: ANN401 - an annotation can be anything
    if hint in _SCALARS:
        return True
    arguments = typing.get_args(hint)
    is_tuple = typing.get_origin(hint) is tuple and len(arguments) == 2
    return is_tuple and arguments[0] in _SCALARS and arguments[1] is ...
