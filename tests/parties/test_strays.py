"""A site that its job does not name is told of, and what only looks like one is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from small_jobs import small_job
from small_ratings import small_recommender

from parties.assembly import assemble, assemble_folder
from parties.strays import stray_sites
from vfl.config.load import load_job

#: All but the one whose job waits for keys to be pasted.
EXAMPLES = sorted(
    path.parent
    for path in Path(__file__).parents[2].glob("examples/*/job.toml")
    if path.parent.name != "three_hosts"
)


@pytest.mark.parametrize(
    ("make", "how"), [(small_job, []), (small_job, ["--in-process"]), (small_recommender, ["--in-process"])]
)
def test_a_site_that_the_job_does_not_name_is_told_of_in_a_line(
    tmp_path: Path, vfl: Callable[..., Result], make: Callable[[Path], Path], how: list[str]
) -> None:
    folder = make(tmp_path / "job")
    (folder / "stranger_d.toml").write_text('party = "stranger_d"\n')
    notice = "stranger_d.toml takes no part: the job names no party 'stranger_d'; "
    notice += "add [parties.stranger_d] to the job"
    checked = vfl("check", folder)
    assert checked.exit_code == 0
    assert f"note: {notice}" in " ".join(checked.stdout.split())
    assert [notice in note for note in json.loads(vfl("check", folder, "--json").stdout)["notes"]].count(
        True
    ) == 1
    ran = vfl("run", folder, "--set", "epochs=1", *how)
    assert ran.exit_code == 0, ran.output
    told = [line for line in ran.stderr.splitlines() if "stranger_d" in line]
    assert told == [f"notice: {notice}, or take the file away"]
    assert "stranger_d" not in ran.stdout


@pytest.mark.parametrize(
    ("name", "near"), [("Bank", "bank"), ("bank-", "bank"), ("clubb", "club"), ("clinic", None)]
)
def test_the_closest_party_is_named_where_there_is_one(tmp_path: Path, name: str, near: str | None) -> None:
    folder = small_job(tmp_path / "job")
    shutil.copy(folder / "bank.toml", folder / f"{name}.toml")
    (words,) = stray_sites(assemble_folder(folder))
    assert words.startswith(f"{name}.toml takes no part: the job names no party {name!r}; ")
    assert words.endswith(f"did you mean {near!r}?" if near else "or take the file away")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "[project]\nname = 'x'\n"),
        ("other.toml", "[party]\nat = 1\n"),
        ("table.toml", "party = 3\n"),
        ("garbled.toml", "party = \n"),
        (".hidden.toml", 'party = "hidden"\n'),
        ("note.txt", 'party = "note"\n'),
        ("latin.toml", b'party = "\xe9"\n'),
        ("deep.toml", f"party = {'[' * 5_000}\n"),
    ],
)
def test_what_is_no_site_is_passed_over(tmp_path: Path, name: str, text: str | bytes) -> None:
    folder = small_job(tmp_path / "job")
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    assert stray_sites(assemble_folder(folder)) == []


def test_a_site_of_another_job_in_the_folder_is_no_stray(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    (folder / "clinic.toml").write_text('party = "clinic"\n')
    (folder / "next.toml").write_text('name = "next"\n[parties.clinic]\nrole = "label"\n')
    assert stray_sites(assemble_folder(folder)) == []
    (folder / "next.toml").write_text('name = "next"\nparties = 3\n')
    assert len(stray_sites(assemble_folder(folder))) == 1


def test_nothing_is_said_where_the_sites_are_not_a_folders(tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job")
    shutil.copy(folder / "bank.toml", folder / "bank-old.toml")
    sites, job = assemble_folder(folder).sites, load_job(folder / "job.toml")
    assert len(stray_sites(assemble(job, sites))) == 1
    assert stray_sites(assemble(job, {"bank": sites["bank"]})) == []
    assert stray_sites(assemble(job, {})) == []
    elsewhere = {"bank": replace(sites["bank"], folder=tmp_path)}
    assert stray_sites(assemble(job, {**sites, **elsewhere})) == []
    (folder / "club.toml").unlink()  # as where a program makes the sites
    assert stray_sites(assemble(job, sites)) == []


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_the_examples_have_no_strays(folder: Path) -> None:
    assert stray_sites(assemble_folder(folder)) == []
