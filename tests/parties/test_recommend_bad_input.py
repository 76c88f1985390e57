"""Whatever is wrong with a recommendation's documents or tables: one line, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from small_jobs import small_job
from small_ratings import CLUBS, add_rows, small_recommender
from test_bad_input import fails


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": None}, ["job.toml: scale is missing"]),
        ({"scale": [5.0, 1.0]}, ["scale = [5, 1]", "the lowest rating, then the highest"]),
        ({"scale": [1.0]}, ["job.toml: scale", "at least 2"]),
        ({"batch_size": 32}, ["batch_size = 32 is of no use", "leave it out", "protocols.fedmmf.batches"]),
        ({"optimizer": {"name": "SGD", "lr": 0.1}}, ["optimizer = ", "protocols.fedmmf.optimizer"]),
        ({"clip_norm": 1.0}, ["clip_norm = 1.0 is of no use"]),
        ({"schedule": {"name": "StepLR"}}, ["schedule = ", "leave it out"]),
        ({"ahead": 2}, ["ahead = 2 is of no use"]),
        ({"parties": {"east": {"width": 4}}}, ["parties.east.width = 4 is of no use"]),
        ({"parties": {"east": {"role": "participent"}}}, ["did you mean 'participant'?"]),
        ({"parties": {"east": None, "south": None}}, ["1 have role = 'participant'"]),
        ({"parties": {"carol": {"role": "participant"}}}, ["0 have role = 'coordinator'"]),
        ({"metric": "auc"}, ["metric = 'auc'", "rmse"]),
        ({"align": "psi"}, ["align = 'psi'", "users of their own", "leave it out"]),
        ({"split": {"kind": "latest"}}, ["split.kind = 'latest'", "'leave-one-out'"]),
        ({"task": "regression", "batch_size": 4, "scale": None}, ["task = 'regression'", "'recommendation'"]),
        ({"protocol": "splitnn"}, ["task = 'recommendation': splitnn is for", "choose another protocol"]),
        ({"protocols": {"fedmmf": {"rnk": 3}}}, ["protocols.fedmmf: rnk: unknown key", "'rank'"]),
        ({"on_absence": "continue", "parties": {"south": None}}, ["cannot do without a party"]),
        ({"east": {"ratings": {"users": "user"}}}, ["east.toml: ratings.users: unknown key", "'user'"]),
        ({"east": {"ratings": None}}, ["east.toml: ratings: is missing"]),
        ({"east": {"catalogue": None}}, ["east.toml: catalogue: is missing"]),
        ({"east": {"bottom": {"preset": "mlp"}}}, ["east.toml: bottom: is of no use", "leave it out"]),
        ({"east": {"table": {"source": "x.csv"}}}, ["east.toml: table: is of no use"]),
        ({"east": {"prepare": {"scale": "none"}}}, ["east.toml: prepare: is of no use"]),
        ({"carol": {"ratings": {"source": "x.csv"}}}, ["carol.toml: ratings: a coordinator has no ratings"]),
        ({"carol": {"catalogue": {"source": "x.csv"}}}, ["carol.toml: catalogue: a coordinator has no"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_documents_that_cannot_be_used_say_so(
    tmp_path: Path, vfl: Callable[..., Result], changes: dict[str, Any], words: list[str]
) -> None:
    folder = small_recommender(tmp_path / "job", **changes)
    fails(vfl("run", folder, "--in-process"), 2, *words)
    assert not (tmp_path / "runs").exists()


def test_where_items_are_parted_ranks_are_refused(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    folder = small_recommender(tmp_path / "job", by="item", metric="ndcg@10")
    fails(vfl("check", folder), 2, "metric = 'ndcg@10'", "items of its own", '"rmse" or "mae"')


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("east", "u98,f01,9.0,5000", ["east.toml: east.csv: the rating 9 in row", "scale from 1 to 5"]),
        ("east", "u98,f01,good,5000", ["east.toml: east.csv: the rating", "'good' is no number", "in row"]),
        ("east", "u98,f99,3.0,5000", ["east.csv: item 'f99' in row", "is not in the catalogue"]),
        ("east", ",f01,3.0,5000", ["east.csv: the user in row", "is missing"]),
        (
            "east_films",
            "f01,Again,calm",
            ["east_films.csv: item 'f01' is there twice", "in row 3 and in row"],
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path: Path, vfl: Callable[..., Result], name: str, row: str, words: list[str]
) -> None:
    folder = small_recommender(tmp_path / "job")
    add_rows(folder, name, row)
    fails(vfl("run", folder, "--in-process"), 2, *words)
    fails(vfl("check", folder), 2, *words)


def test_a_pair_that_is_rated_twice_is_named_with_both_rows(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job")
    lines = (folder / "east.csv").read_text().splitlines()
    add_rows(folder, "east", lines[4])
    fails(vfl("run", folder, "--in-process"), 2, "east.csv", "twice, in row 5 and in row", "keep one of them")


@pytest.mark.parametrize("kept", [0, 1])
def test_a_participant_with_no_rating_or_one_is_told_what_to_do(
    tmp_path: Path, vfl: Callable[..., Result], kept: int
) -> None:
    folder = small_recommender(tmp_path / "job", split={"valid": 0.0, "test": 0.0})
    lines = (folder / "east.csv").read_text().splitlines()
    (folder / "east.csv").write_text("\n".join(lines[: 1 + kept]) + "\n")
    words = ["there is no rating in it"] if not kept else ["one rating only", "add ratings"]
    fails(vfl("run", folder, "--in-process"), 2, "east.toml: east.csv: ", *words)


@pytest.mark.parametrize("extra", ["f77,Another,calm", None])
def test_participants_that_disagree_on_the_catalogue_are_refused_before_anything_is_trained(
    tmp_path: Path, vfl: Callable[..., Result], extra: str | None
) -> None:
    folder = small_recommender(tmp_path / "job")
    if extra:
        add_rows(folder, "south_films", extra)
    else:
        text = (folder / "south_films.csv").read_text().replace("f29,", "f30,")
        (folder / "south_films.csv").write_text(text)
        rated = (folder / "south.csv").read_text().replace(",f29,", ",f30,")
        (folder / "south.csv").write_text(rated)
    count = "yours 30, theirs 31" if extra else "as many as yours, but not the same ids"
    done = vfl("run", folder, "--in-process")
    fails(done, 3, "items: ", "all participants need a catalogue of the same items")
    assert count.replace("yours", "the other parties'") in done.stderr or "yours is" in done.stderr
    assert not (tmp_path / "runs" / "films").exists()


def test_where_items_are_parted_a_rating_of_an_item_that_ones_own_catalogue_lacks_is_named(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job", by="item")
    add_rows(folder, "east", "u01,f99,3.0,5000")
    n = len((folder / "east.csv").read_text().splitlines())
    words = [f"east.csv: item 'f99' in row {n} is not in east_films.csv", "drop its ratings"]
    fails(vfl("run", folder, "--in-process"), 2, *words)


def test_too_few_users_in_common_are_refused_as_rows_are(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    folder = small_recommender(tmp_path / "job", by="item", align="ids", min_rows=50)
    fails(vfl("run", folder, "--in-process"), 2, "all parties share 42 of its 42 users", "ratings.user")


def test_ratings_and_a_catalogue_are_for_a_recommendation(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    folder = small_job(tmp_path / "job", bank={"ratings": {"source": "bank.csv"}})
    fails(vfl("check", folder), 2, "bank.toml: ratings: is for a recommendation", "leave it out")
    folder = small_job(tmp_path / "scaled", scale=[1.0, 5.0])
    fails(vfl("check", folder), 2, "scale is for a recommendation")
    folder = small_job(tmp_path / "unbatched", batch_size=None)
    fails(vfl("check", folder), 2, "job.toml: batch_size: is missing; add it")


def test_nothing_is_measured_alone_where_the_job_says_so(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    folder = small_recommender(tmp_path / "job", alone=False)
    summary = json.loads(vfl("run", folder, "--in-process", "--json").stdout)
    assert summary["alone"] == {"kind": "not measured", "test": {}}
    assert summary["metrics"]["test"]["rmse"] > 0
    words = vfl("run", folder, "--in-process").stdout
    assert "(alone: not measured, as the job says)" in words
    assert {*CLUBS} < {*summary["parties"]}
