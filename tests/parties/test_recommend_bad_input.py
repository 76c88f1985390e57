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

from parties.assembly import assemble_folder
from parties.catalogues import check_catalogues


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
        ("east", "u98,f99,3.0,5000", ["east.csv: item 'f99' in row", "the catalogue east_films.csv"]),
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


@pytest.mark.parametrize("by", ["user", "item"])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_participant_with_no_rating_or_one_is_told_what_to_do(
    tmp_path: Path, vfl: Callable[..., Result], kept: int, by: str
) -> None:
    folder = small_recommender(tmp_path / "job", by=by, split={"valid": 0.0, "test": 0.0})
    lines = (folder / "east.csv").read_text().splitlines()
    (folder / "east.csv").write_text("\n".join(lines[: 1 + kept]) + "\n")
    words = ["there is no rating in it"] if not kept else ["one rating only", "add ratings"]
    for command in (["check", folder], ["run", folder, "--in-process"]):
        fails(vfl(*command), 2, "east.toml: east.csv: ", *words)


def test_a_rating_below_empty_lines_is_named_by_its_true_row(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job")
    lines = (folder / "east.csv").read_text().splitlines()
    (folder / "east.csv").write_text("\n\n".join([*lines, "u98,f01,9.0,5000"]) + "\n")
    row = 2 * len(lines) + 1
    for command in ("check", "run"):
        fails(vfl(command, folder), 2, f"east.toml: east.csv: the rating 9 in row {row} is outside the scale")


def test_an_empty_dat_file_says_what_is_due(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    named = {"source": "east.dat", "user": "1", "item": "2", "rating": "3"}
    folder = small_recommender(tmp_path / "job", east={"ratings": named})
    (folder / "east.dat").write_text("")
    words = ["east.toml: east.dat: there is nothing in it", "with :: between its values", "name the file"]
    fails(vfl("check", folder), 2, *words)


def test_a_feature_that_is_absurdly_large_is_named(tmp_path: Path, vfl: Callable[..., Result]) -> None:
    folder = small_recommender(tmp_path / "job", protocols={"fedmmf": {"mask": "content"}})
    for name in CLUBS:
        path = folder / f"{name}_films.csv"
        lines = path.read_text().splitlines()
        years = ["year", *("1e308" if at % 2 else "-1e308" for at in range(len(lines) - 1))]
        text = "".join(f"{line},{year}\n" for line, year in zip(lines, years, strict=True))
        path.write_text(text.replace(",genres,", ",genre,").replace(",year\n", ",genres\n"))
    words = ["north.toml: north_films.csv: the feature -1e+308 in column 'genres' in row 2", "leave it empty"]
    fails(vfl("check", folder), 2, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"south": ["f77,Another,calm"]},
            ["south.toml: south_films.csv: item 'f77' in row 32 is not in north_films.csv (north.toml)"],
        ),
        (
            {"north": ["", "f78,Other,odd", "f77,Another,calm"], "east": ["f77,Another,calm"]},
            ["north.toml: north_films.csv: item 'f78' in row 33 is not in east_films.csv (east.toml)"],
        ),
        (
            {"east": ["f77,Another,calm", "f78,Other,odd", "f79,Third,odd"]},
            [
                "item 'f77' in row 32, and 2 more, are not in north_films.csv",
                "add them there, or drop them here",
            ],
        ),
    ],
)
@pytest.mark.parametrize("how", [["check"], ["run"], ["run", "--in-process"]])
def test_where_all_catalogues_are_at_hand_an_item_that_one_lacks_is_named_with_both_files(
    tmp_path: Path,
    vfl: Callable[..., Result],
    changes: dict[str, list[str]],
    words: list[str],
    how: list[str],
) -> None:
    folder = small_recommender(tmp_path / "job")
    for name, rows in changes.items():
        add_rows(folder, f"{name}_films", *rows)
    words = [*words, "all participants need a catalogue of the same items, in any order"]
    fails(vfl(how[0], folder, *how[1:]), 2, *words)
    assert not (tmp_path / "runs" / "films").exists()


def test_one_file_may_be_the_catalogue_of_all_and_the_order_of_others_does_not_matter(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job", east={"catalogue": {"source": "north_films.csv"}})
    header, *rows = (folder / "south_films.csv").read_text().splitlines()
    (folder / "south_films.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    assert vfl("check", folder).exit_code == 0


def test_a_catalogue_that_cannot_be_read_is_told_of_by_its_own_participant(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job", by="user", south={"catalogue": {"source": "no.csv"}})
    for how in (["check"], ["run"], ["run", "--in-process"]):
        fails(vfl(how[0], folder, *how[1:]), 2, "south.toml: no.csv: there is no such file")


def test_where_items_are_parted_catalogues_may_differ(tmp_path: Path) -> None:
    check_catalogues(assemble_folder(small_recommender(tmp_path / "job", by="item")))


@pytest.mark.parametrize("extra", ["f77,Another,calm", None])
def test_between_hosts_participants_that_disagree_on_the_catalogue_are_refused_by_hashes_alone(
    tmp_path: Path, vfl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, extra: str | None
) -> None:
    monkeypatch.setattr("parties.local.check_catalogues", lambda assembly: None)
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
    assert "f77" not in done.stderr
    assert "f30" not in done.stderr
    assert not (tmp_path / "runs" / "films").exists()


def test_where_items_are_parted_a_rating_of_an_item_that_ones_own_catalogue_lacks_is_named(
    tmp_path: Path, vfl: Callable[..., Result]
) -> None:
    folder = small_recommender(tmp_path / "job", by="item")
    add_rows(folder, "east", "u01,f99,3.0,5000")
    lines = (folder / "east.csv").read_text().splitlines()
    (folder / "east.csv").write_text("\n\n".join(lines) + "\n")
    n = 2 * len(lines) - 1
    words = [f"east.csv: item 'f99' in row {n} is not in the catalogue east_films.csv", "drop its ratings"]
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
