"""The module is the registry entry: what is found, what is refused, what an installed package adds."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aligning import overlapping, play, small_pieces

import protocols
from protocols import ids, psi, splitnn
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


def toy_alignment(**changes: object) -> ModuleType:
    """Makes an alignment's module out of the one called ids; a change to None takes a part away."""
    parts = (
        {part: getattr(ids, part) for part in protocols._ALIGNMENT_PARTS} | {"__doc__": ids.__doc__} | changes
    )
    module = ModuleType("toy")
    for part, value in parts.items():
        if value is not None:
            setattr(module, part, value)
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
    assert (protocol.hub, set(protocol.roles)) == (("label",), {"feature", "label"})
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
        ({"HUB": ("coordinator",)}, r"HUB = \('coordinator',\) does not list some of its ROLES"),
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


# --- alignments --------------------------------------------------------------------------------------


def test_alignments_are_listed_apart_from_training_protocols() -> None:
    assert protocols.alignments() == ["ids", "psi"]
    assert not set(protocols.alignments()) & set(protocols.names())
    with pytest.raises(ConfigError, match="protocol = 'psi': there is no such protocol"):
        protocols.load("psi")


def test_every_file_in_the_folder_is_a_protocol_or_an_alignment() -> None:
    folder = Path(protocols.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    files -= {"__init__"}
    assert files == protocols._own_names() | set(protocols.alignments())


def test_listing_names_imports_none_of_them() -> None:
    code = (
        "import protocols, sys; protocols.names(); protocols.alignments(); "
        "print([name for name in sys.modules if name.startswith('protocols.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "module"), [("ids", ids), ("psi", psi)])
def test_an_alignment_says_of_itself_what_its_module_says(name: str, module: ModuleType) -> None:
    alignment = protocols.load_alignment(name)
    assert alignment.name == name
    assert alignment.align is module.align
    assert alignment.messages == module.MESSAGES
    assert {"hub": module.align, "party": module.align} == module.ROLES
    assert (module.__doc__ or "").startswith(alignment.summary)
    assert {"hub", "party"} <= set(alignment.learns)


def test_what_psi_says_of_who_learns_what_covers_those_who_collude_or_guess() -> None:
    learns = protocols.load_alignment("psi").learns
    assert set(learns) == {"party", "hub", "relay", "party with guesses", "colluding parties"}
    assert "as a number and not which" in learns["hub"]


@pytest.mark.parametrize("name", ["ids", "psi"])
def test_the_transcript_of_an_alignment_matches_its_arrows(name: str) -> None:
    alignment = protocols.load_alignment(name)
    with small_pieces(2, 2):
        transcript = play(importlib.import_module(f"protocols.{name}"), overlapping(4)).transcript

    def role(party: str) -> str:
        return "hub" if party == "hub" else "party"

    said = {(role(one.sender), type(one.message).__name__, role(one.to)) for one in transcript}
    assert said == alignment.arrows
    assert {one.phase for one in transcript} == {"align"}


def test_a_protocol_whose_extra_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("protocols.paillier", "vfl.paillier"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(protocols, "paillier", raising=False)
    monkeypatch.setitem(sys.modules, "gmpy2", None)
    with pytest.raises(ConfigError, match=r"'paillier': needs gmpy2, .*install .*\[paillier\]"):
        protocols.load("paillier")


def test_an_unknown_alignment_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"align = 'pis': there is no such alignment; .*psi"):
        protocols.load_alignment("pis")
    with pytest.raises(ConfigError, match="align = 'splitnn': there is no such alignment"):
        protocols.load_alignment("splitnn")


@pytest.mark.parametrize("part", protocols._ALIGNMENT_PARTS)
def test_an_alignment_that_lacks_a_part_is_refused_and_the_part_named(part: str) -> None:
    with pytest.raises(RoleError, match=f"alignment toy: lacks {part}; see"):
        protocols.describe_alignment("toy", toy_alignment(**{part: None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"__doc__": "A toy."}, "lacks arrows in its docstring, 'Who learns what:' in its docstring"),
        ({"ROLES": {"hub": None, "party": None, "third": None}}, "says nothing of third"),
        ({"MESSAGES": ids.MESSAGES[1:]}, "Salt is drawn and not in MESSAGES"),
        ({"MESSAGES": (*ids.MESSAGES, psi.Found)}, "Found is in MESSAGES and not drawn"),
        ({"ROLES": {"hub": None}}, "an arrow names party, who is none of its ROLES"),
    ],
)
def test_an_alignment_that_disagrees_with_its_docstring_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RoleError, match=f"alignment toy: .*{words}"):
        protocols.describe_alignment("toy", toy_alignment(**changes))
