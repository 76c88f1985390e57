from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor
from wire_messages import Everything, Number

from vfl.errors import RoleError
from vfl.wire.messages import Message, kinds_by_name, schema_of


@dataclass(frozen=True, eq=False)
class Optional(Message):
    x: Tensor | None


@dataclass(frozen=True, eq=False)
class Listing(Message):
    xs: list[int]


@dataclass(frozen=True, eq=False)
class Pair(Message):
    xs: tuple[int, str]


@dataclass(frozen=True, eq=False)
class Anything(Message):
    x: Any


@dataclass
class Thawed(Message):
    x: int


class Plain(Message):
    x: int


@dataclass(frozen=True, eq=False)
class Checking(Message):
    x: int

    def __post_init__(self) -> None:
        raise ValueError


@dataclass(frozen=True, eq=False)
class Hidden(Message):
    x: int = field(default=1, init=False)


def test_a_schema_lists_scalars_and_tensors_in_their_order() -> None:
    schema = schema_of(Everything)
    assert schema.name == "Everything"
    assert schema.scalars == ("count", "rate", "last", "word", "blob", "counts", "words")
    assert schema.tensors == ("left", "right")


@pytest.mark.parametrize("kind", [Optional, Listing, Pair, Anything])
def test_a_field_that_cannot_cross_is_named(kind: type[Message]) -> None:
    with pytest.raises(RoleError, match=rf"{kind.__name__}\.xs?: .* cannot cross the wire; say int"):
        schema_of(kind)


@pytest.mark.parametrize("kind", [Thawed, Plain])
def test_a_message_is_a_frozen_dataclass(kind: type[Message]) -> None:
    with pytest.raises(RoleError, match="a message is a frozen dataclass"):
        schema_of(kind)


@pytest.mark.parametrize("kind", [Checking, Hidden])
def test_making_a_message_from_bytes_runs_no_code_of_a_protocol(kind: type[Message]) -> None:
    with pytest.raises(RoleError, match="a message only carries"):
        schema_of(kind)


def test_two_kinds_of_one_name_are_refused() -> None:
    twin = dataclass(frozen=True, eq=False)(type("Number", (Message,), {"__annotations__": {"n": "int"}}))
    assert list(kinds_by_name([Number, Number])) == ["Number"]
    with pytest.raises(RoleError, match="two kinds of message are called Number"):
        kinds_by_name([Number, twin])
