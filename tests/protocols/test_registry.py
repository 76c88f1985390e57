"""The module is the registry entry: what is found, what is refused, what an installed package adds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

import protocols
from protocols import splitnn
from vfl.errors import ConfigError, RoleError

DOC = """A toy: one says, one hears.

    feature --Embedding--> label        a remark
    label --EmbeddingGrad--> feature
    label --EpochEnd--> feature

Who learns what:
    feature: One thing: the gradient. In a
        second line, more.
    label: All.
    feature to feature: Nothing.

Source: none.
    nobody: is named after the section.
"""


def toy(**changes: object) -> ModuleType:
    """Makes a protocol's module out of splitnn's parts; a change to None takes a part away."""
    parts = {part: getattr(splitnn, part) for part in protocols._PARTS} | {"__doc__": DOC} | changes
    module = ModuleType("toy")
    for part, value in parts.items():
        if value is not None:
            setattr(module, part, value)
    if changes.get("__doc__", DOC) is None:
        module.__doc__ = None
    return module


def install(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType | None) -> None:
    """Lets it look as if an installed package brought a protocol."""
    entry = EntryPoint(name, f"toys.{name}", protocols.ENTRY_POINTS)

    def installed(*, group: str) -> Sequence[EntryPoint]:
        return [entry] if group == protocols.ENTRY_POINTS else []

    monkeypatch.setattr(protocols, "entry_points", installed)
    if module is not None:
        monkeypatch.setitem(sys.modules, "toys", ModuleType("toys"))
        monkeypatch.setitem(sys.modules, f"toys.{name}", module)


def test_a_file_in_the_folder_is_a_protocol() -> None:
    assert "splitnn" in protocols.names()
    assert protocols.load("splitnn").module is splitnn


def test_splitnn_says_of_itself_what_its_module_says() -> None:
    protocol = protocols.load("splitnn")
    assert protocol.summary.startswith("Split learning: ")
    assert protocol.arrows == {
        ("feature", "Embedding", "label"),
        ("label", "EmbeddingGrad", "feature"),
        ("label", "EpochEnd", "feature"),
    }
    assert (protocol.hub, set(protocol.roles)) == ("label", {"feature", "label"})
    assert protocol.config is splitnn.Config
    assert "label of single rows" in protocol.learns["feature"]
    assert protocol.learns["label"].endswith("no column and no weight directly.")


def test_an_unknown_protocol_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        ConfigError, match=r"protocol = 'splitn': there is no such protocol; did you mean 'splitnn'"
    ):
        protocols.load("splitn")


def test_a_docstring_is_read_for_arrows_and_who_learns_what() -> None:
    protocol = protocols.describe("toy", toy())
    assert protocol.summary == "A toy: one says, one hears."
    assert len(protocol.arrows) == 3
    assert protocol.learns == {
        "feature": "One thing: the gradient. In a second line, more.",
        "label": "All.",
        "feature to feature": "Nothing.",
    }


@pytest.mark.parametrize("part", protocols._PARTS)
def test_a_module_that_lacks_a_part_is_refused_and_the_part_named(part: str) -> None:
    with pytest.raises(RoleError, match=f"protocol toy: lacks {part}; see"):
        protocols.describe("toy", toy(**{part: None}))


@pytest.mark.parametrize("doc", [None, "", "A toy."])
def test_a_module_that_does_not_describe_itself_is_refused(doc: str | None) -> None:
    with pytest.raises(RoleError, match="lacks arrows in its docstring, 'Who learns what:' in its docstring"):
        protocols.describe("toy", toy(__doc__=doc))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"HUB": "coordinator"}, "HUB = 'coordinator' is none of its ROLES"),
        ({"PREDICTORS": {"label": None}}, "ROLES and PREDICTORS name other roles"),
        ({"__doc__": DOC.replace("    label: All.\n", "")}, "says nothing of label"),
        (
            {"__doc__": DOC.replace("EpochEnd", "End")},
            "End is drawn and not in MESSAGES; EpochEnd is in MESSAGES and",
        ),
        ({"__doc__": DOC.replace("--> label", "--> hub")}, "an arrow names hub, who is none of its ROLES"),
    ],
)
def test_a_module_that_disagrees_with_its_docstring_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RoleError, match=words):
        protocols.describe("toy", toy(**changes))


def test_an_installed_package_adds_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    module = toy()
    install(monkeypatch, "toy", module)
    assert protocols.names() == sorted({*protocols._own_names(), "toy"})
    assert protocols.load("toy").module is module


def test_an_installed_package_does_not_replace_a_protocol_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "splitnn", toy())
    assert protocols.names().count("splitnn") == 1
    assert protocols.load("splitnn").module is splitnn


def test_an_installed_protocol_that_lacks_a_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "toy", toy(HUB=None))
    with pytest.raises(RoleError, match="protocol toy: lacks HUB"):
        protocols.load("toy")


def test_an_installed_protocol_that_cannot_be_imported_is_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "gone", None)
    with pytest.raises(
        ConfigError, match=r"protocol = 'gone': toys\.gone cannot be imported \(.*; correct or"
    ) as it:
        protocols.load("gone")
    assert "\n" not in str(it.value)
