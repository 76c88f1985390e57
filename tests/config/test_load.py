"""Reading documents, changing keys from the command line, and errors that say what to do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from vfl.config.job import Job
from vfl.config.load import load_job, load_site, override, read_toml, suggestion, validate, write_document
from vfl.config.site import Site
from vfl.errors import ConfigError, StorageError

JOB = """
name = "j"
protocol = "splitnn"
task = "binary"
epochs = 1
batch_size = 8
[parties.bank]
role = "feature"
width = 4
[parties.club]
role = "label"
"""
SITE = """
party = "bank"
[table]
source = "bank.csv"
columns = ["x"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    (tmp_path / "bank.toml").write_text(SITE, encoding="utf-8")
    return tmp_path / "job.toml"


def test_overrides_are_toml_or_else_plain_text(path: Path) -> None:
    job = load_job(
        path, ["epochs=3", "optimizer.name=SGD", 'metric="auc"', " seed = 7 ", "early_stopping.patience=2"]
    )
    assert (job.epochs, job.seed, job.metric) == (3, 7, "auc")
    assert job.optimizer == {"name": "SGD"}
    assert job.early_stopping is not None
    assert job.early_stopping.patience == 2


def test_an_override_may_hold_anything_after_its_first_equals_sign() -> None:
    assert override({}, ["a.b=c=d.e", "l=[1, 2]", "t={x = 1}", "e="]) == {
        "a": {"b": "c=d.e"},
        "l": [1, 2],
        "t": {"x": 1},
        "e": "",
    }


@pytest.mark.parametrize("text", ["epochs", "=1", " =1", ""])
def test_an_override_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write it as key=value, for example --set epochs=3"):
        override({}, [text])


def test_an_override_does_not_go_through_a_value() -> None:
    with pytest.raises(ConfigError, match=r"--set a\.b\.c=1: b is a value, not a table"):
        override({"a": {"b": 1}}, ["a.b.c=1"])


@given(st.dictionaries(st.sampled_from("xyz"), st.integers() | st.booleans() | st.text("ab ", max_size=3)))
def test_what_an_override_sets_is_what_a_file_would_hold(values: dict[str, object]) -> None:
    import tomli_w

    lines = [line.replace(" = ", "=", 1) for line in tomli_w.dumps(values).splitlines()]
    assert override({}, lines) == values


def test_a_document_is_written_as_it_can_be_read_again(path: Path) -> None:
    job, site = load_job(path), load_site(path.parent / "bank.toml")
    for document, load in ((job, load_job), (site, load_site)):
        copy = path.parent / "copy.toml"
        write_document(copy, document)
        assert load(copy) == document
    assert tomllib.loads((path.parent / "copy.toml").read_text())["device"] == "cpu", "defaults are spelt out"


def test_a_document_that_cannot_be_written_is_a_storage_error(path: Path) -> None:
    with pytest.raises(StorageError, match=r"bank\.toml/x: cannot be written \(Not a directory\); free some"):
        write_document(path.parent / "bank.toml" / "x", load_job(path))


def test_a_missing_file_is_named_with_those_beside_it(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jobb\.toml: no such file; .* holds bank\.toml, job\.toml"):
        load_job(path.with_name("jobb.toml"))
    with pytest.raises(ConfigError, match=r"nowhere/job\.toml: no such file$"):
        load_job(path.parent / "nowhere" / "job.toml")


def test_what_is_no_toml_names_line_and_column(path: Path) -> None:
    path.write_text("epochs = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"job\.toml: is no valid TOML: .*line 1, column"):
        load_job(path)


def test_a_file_may_begin_with_the_mark_that_some_editors_write(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_job(path).name == "j"


def test_every_fault_is_a_line_with_place_value_and_remedy(path: Path) -> None:
    overrides = ["epochs=0", "optimiser.lr=1", "parties.bank.wdth=3", "parties.club={}", "batch_size=[1]"]
    with pytest.raises(ConfigError) as caught:
        load_job(path, overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for words in (
        "job.toml: epochs = 0: should be greater than or equal to 1",
        "job.toml: optimiser: unknown key; did you mean 'optimizer'?",
        "job.toml: parties.bank.wdth: unknown key; did you mean 'width'?",
        "job.toml: parties.club.role: is missing; add it",
        "job.toml: batch_size = [1]: should be a valid integer",
    ):
        assert words in lines


def test_a_long_value_is_cut_short(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_job(path, [f"epochs={'x' * 500}"])
    assert len(str(caught.value)) < 150


def test_a_suggestion_is_the_nearest_word_or_all_of_them() -> None:
    assert suggestion("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert suggestion("zzz", ["epochs", "seed"]) == "known: epochs, seed"


@pytest.mark.parametrize("model", [Job, Site])
def test_an_unknown_key_names_the_known_ones(model: type[BaseModel]) -> None:
    with pytest.raises(ConfigError, match=r"x\.toml: zzzz: unknown key; known: "):
        validate(model, {"zzzz": 1}, "x.toml")


def test_reading_a_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(IsADirectoryError\); check the path"):
        read_toml(tmp_path)


def test_an_override_may_quote_a_part_of_its_key() -> None:
    found = override({}, ['prepare.columns."a.b".scale="none"', "plain.key=1", "PAY_*.x=2"])
    assert found == {
        "prepare": {"columns": {"a.b": {"scale": "none"}}},
        "plain": {"key": 1},
        "PAY_*": {"x": 2},
    }
