"""`vfl recommend`: what it shows, where it looks, and what it says of who is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Output
from small_ratings import CLUBS, add_rows, small_recommender
from test_bad_input import fails

from parties.api import Result, run
from parties.cli import cli
from parties.participant import ratings_digest
from parties.recommending import recommend
from vfl.config.load import load_job
from vfl.learn.checkpoint import load_checkpoint, save_checkpoint
from vfl.ratings.holding import hold
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings


@pytest.fixture(scope="module", params=["user", "item"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    place = tmp_path_factory.mktemp(f"by_{request.param}")
    folder = small_recommender(place / "job", by=request.param)
    return folder, run(folder, in_process=True, out=place / "runs")


def vfl(*words: object) -> Output:
    return CliRunner().invoke(cli, [str(word) for word in words])


def rated(folder: Path, user: str) -> set[str]:
    lines = [line.split(",") for name in CLUBS for line in (folder / f"{name}.csv").read_text().splitlines()]
    return {film for who, film, *_ in lines if who == user}


def expected(result: Result, user: str) -> dict[str, float]:
    """Predicts all films for a user from what each party has kept: factors, offsets, mu and mask."""
    found = {}
    for name in CLUBS:
        best = load_checkpoint(result.folder / name, "best")
        own, shared, mu = (best.tensors["factors"][key].numpy() for key in ("own", "shared", "mu"))
        mask = {key: tensor.numpy() for key, tensor in best.tensors["mask"].items()}
        ids = {axis: best.state["saved"][f"{axis}_ids"] for axis in ("own", "shared")}
        g = (
            mask["own"][:, -1:] + mask["shared"][:, -1] + mask["base"]
        )  # [own, shared]: user_mean has no factors
        whole = own[:, :-1] @ shared[:, :-1].T + own[:, -1:] + shared[:, -1] + mu + g
        if user in ids["own"]:
            found |= dict(zip(ids["shared"], whole[ids["own"].index(user)], strict=True))
        elif ids["own"][0].startswith("f"):
            found |= dict(zip(ids["own"], whole[:, ids["shared"].index(user)], strict=True))
    return {film: float(value) for film, value in found.items()}


def test_the_best_unrated_items_of_all_parties_come_first(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    known = rated(folder, "u07")
    scores = {film: value for film, value in expected(result, "u07").items() if film not in known}
    best = sorted(scores, key=lambda film: (-scores[film], film))
    found = recommend(result.folder, "u07", n=100)
    assert [one.item for one in found.items] == best
    assert len(best) + len(known) == 30
    clipped = [float(np.clip(scores[film], 1, 5)) for film in best]
    assert [one.rating for one in found.items] == pytest.approx(clipped, abs=1e-4)
    assert [one.title for one in found.items] == [f"Film no. {int(film[1:])}" for film in best]


def test_people_get_a_table_with_titles_and_programs_an_object(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    done = vfl("recommend", result.folder, "--user", "u07", "-n", 3)
    assert done.exit_code == 0, done.output
    head, *lines = done.stdout.splitlines()
    assert head.startswith("user 'u07' at ")
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    answer = json.loads(vfl("recommend", result.folder, "--user", " u07 ", "-n", 3, "--json").stdout)
    assert answer["status"] == "finished"
    assert all(
        one["title"] in line and one["item"] in line for one, line in zip(answer["items"], lines, strict=True)
    )
    assert not {one["item"] for one in answer["items"]} & rated(folder, "u07")


def test_the_party_that_has_the_user_needs_nobody_else(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    assert recommend(result.folder / "east", "u07") == recommend(result.folder, "u07")
    fails(vfl("recommend", result.folder / "north", "--user", "u07"), 2, "no such user at north")


def test_where_items_are_parted_all_parties_are_needed_and_whoever_asks_gets_the_same(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job", by="item")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    asked = [recommend(result.folder, "u07", party=name) for name in CLUBS]
    assert asked[0].items == asked[1].items == asked[2].items
    assert [one.party for one in asked] == [*CLUBS]
    words = ["holds north but not east, south, carol", "name a folder with all", "parties.carol.address"]
    fails(vfl("recommend", result.folder / "north", "--user", "u07"), 2, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--user", "u99"], ["--user 'u99': {nobody}", "once the run"]),
        (["--user", ""], ["--user '': {nobody}"]),
        (["--user", "u07", "-n", "0"], ["-n 0: ask for 1 to {most} items"]),
        (["--user", "u07", "-n", "1001"], ["-n 1001: ask for 1 to {most} items"]),
        (
            ["--user", "u07", "--party", "carol"],
            ["--party carol: is no participant", "known: north, east, south"],
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    finished: tuple[Path, Result], options: list[str], words: list[str]
) -> None:
    by_user = load_job(finished[0] / "job.toml").protocols["fedmmf"].get("by") != "item"
    there = "there is no such user at north or east or south"
    given = {
        "nobody": there if by_user else "is not among the users that all participants share",
        "most": 1000 if by_user else 100,
    }
    fails(vfl("recommend", finished[1].folder, *options), 2, *(word.format(**given) for word in words))


def test_a_user_of_two_parties_is_asked_whose(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job")
    for name in ("north", "south"):
        add_rows(folder, name, "twin,f01,3.0,5000", "twin,f02,4.0,5001", "twin,f03,4.0,5002")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    fails(vfl("recommend", result.folder, "--user", "twin"), 2, "north and south have a user", "--party")
    assert recommend(result.folder, "twin", party="south").party == "south"


def test_a_user_without_a_rating_that_trained_gets_what_users_like_there(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job")
    add_rows(folder, "north", *(f"new{n},f{n:02},4.0,5000" for n in range(12)))
    result = run(folder, in_process=True, out=tmp_path / "runs")
    cold = [found for n in range(12) if (found := recommend(result.folder, f"new{n}")).notes]
    assert cold, "a share of single ratings is held out"
    assert "has no rating of user 'new" in cold[0].notes[0]
    best = load_checkpoint(result.folder / "north", "best")
    offsets = best.tensors["factors"]["shared"].numpy()[:, -1]
    films = [best.state["saved"]["shared_ids"][place] for place in np.argsort(-offsets)]
    own = f"f{int(cold[0].user[3:]):02}"
    assert [one.item for one in cold[0].items] == [film for film in films if film != own][:10]


def test_a_table_that_has_changed_is_refused(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    add_rows(folder, "east", "u98,f01,3.0,5000")
    words = "east.csv: holds other ratings than were trained on"
    fails(vfl("recommend", result.folder, "--user", "u07"), 2, words)


def change_ratings(folder: Path, name: str, change: Callable[[list[str]], list[str]]) -> None:
    head, *lines = (folder / f"{name}.csv").read_text().splitlines()
    (folder / f"{name}.csv").write_text("\n".join([head, *change(lines)]) + "\n")


def another_rating(lines: list[str]) -> list[str]:
    user, film, stars, at = lines[7].split(",")
    return [*lines[:7], f"{user},{film},{'5.0' if stars < '5' else '1.0'},{at}", *lines[8:]]


def another_film(lines: list[str]) -> list[str]:
    """Lets a user have rated another film, so that the same users and films remain."""
    pairs = {tuple(line.split(",")[:2]) for line in lines}
    users, films = ({pair[place] for pair in pairs} for place in (0, 1))
    times = {film: sum(line.split(",")[1] == film for line in lines) for film in films}
    for at, line in enumerate(lines):
        user, film, *rest = line.split(",")
        free = sorted(other for other in films if (user, other) not in pairs)
        if free and times[film] > 2 and len(users) > 2:
            return [*lines[:at], ",".join([user, free[0], *rest]), *lines[at + 1 :]]
    raise AssertionError("everybody has rated everything")


@pytest.mark.parametrize("change", [another_rating, another_film])
@pytest.mark.parametrize("by", ["user", "item"])
def test_other_ratings_of_the_same_users_are_refused_at_each_who_is_needed(
    tmp_path: Path, by: str, change: Callable[[list[str]], list[str]]
) -> None:
    folder = small_recommender(tmp_path / "job", by=by)
    result = run(folder, in_process=True, out=tmp_path / "runs")
    whole = recommend(result.folder, "u07")
    change_ratings(folder, "east", change)
    if by == "user":  # nobody else is shown anything, and what users have rated since is known
        assert recommend(result.folder, "u07").items
        return
    words = ["east.csv: holds other ratings than were trained on", "put the table back", "repeat the run"]
    fails(vfl("recommend", result.folder, "--user", "u07"), 2, *words)
    assert whole.items


def test_the_same_ratings_in_another_order_are_the_same(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    before = recommend(result.folder, "u07")
    for name in CLUBS:
        change_ratings(folder, name, lambda lines: lines[::-1])
    try:
        assert recommend(result.folder, "u07") == before
    finally:
        for name in CLUBS:
            change_ratings(folder, name, lambda lines: lines[::-1])


def test_a_run_of_before_ratings_were_hashed_is_not_refused(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    before = recommend(result.folder, "u07")
    best = load_checkpoint(result.folder / "east", "best")
    state = {**best.state, "saved": {k: v for k, v in best.state["saved"].items() if k != "ratings"}}
    save_checkpoint(result.folder / "east", best.tensors, state, "best")
    change_ratings(folder, "east", another_rating)
    assert [one.item for one in recommend(result.folder, "u07").items] == [one.item for one in before.items]


def test_a_hash_of_ratings_tells_who_rated_what_and_how() -> None:
    def digest(*rows: tuple[str, str, float]) -> str:
        users, items = (tuple(dict.fromkeys(row[place] for row in rows)) for place in (0, 1))
        places = [(users.index(user), items.index(item)) for user, item, _ in rows]
        user, item = (np.array(column, np.int64) for column in zip(*places, strict=True))
        ratings = Ratings("r", 1, users, items, user, item, np.array([row[2] for row in rows]), None)
        shared, split = sorted({row[1] for row in rows}), Split("fraction", 0.3, 0.2)
        held = hold(ratings, by="user", shared_ids=shared, split=split, seed=0, scale=(0.0, 5.0))
        return ratings_digest(held)

    base = [("a", "bc", 1.0), ("a", "b", 2.0), ("d", "b", 3.0), ("d", "bc", 0.0)]
    assert digest(*base) == digest(*base[::-1]) == digest(*base[2:], *base[:2])
    others = [
        [*base[:3], ("d", "bc", 0.5)],
        base[:3],
        [("ab", "c", 1.0), *base[1:]],
        [("a", "b", 1.0), ("a", "bc", 2.0), *base[2:]],
        [("d", "bc", 1.0), ("d", "b", 2.0), ("a", "b", 3.0), ("a", "bc", 0.0)],
    ]
    assert len({digest(*rows) for rows in [base, *others]}) == 6


@pytest.mark.parametrize("party", ["north", "carol"])
def test_where_users_are_parted_a_single_party_is_to_name_one(tmp_path: Path, party: str) -> None:
    folder = small_recommender(tmp_path / "job")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    fails(vfl("recommend", result.folder / party), 2, "--user: is missing", "--user ID")
    fails(vfl("recommend", result.folder), 2, "--user: is missing", "--user ID")
    words = ["--party east", f"is the folder of {party} alone"]
    fails(vfl("recommend", result.folder / party, "--user", "u07", "--party", "east"), 2, *words)


def test_a_folder_that_lacks_parties_says_how_each_host_recommends(tmp_path: Path) -> None:
    folder = small_recommender(tmp_path / "job", by="item")
    result = run(folder, in_process=True, out=tmp_path / "runs")
    for name in ("east", "south", "carol"):
        (result.folder / name).rename(tmp_path / name)
    words = ["holds north but not east, south, carol", f"vfl recommend {result.folder}/north"]
    fails(vfl("recommend", result.folder, "--user", "u07"), 2, *words)


def test_a_run_of_columns_is_for_predict_and_one_of_ratings_for_recommend(
    tmp_path: Path, write_job: Callable[..., Path]
) -> None:
    columns: Any = run(write_job(), in_process=True, out=tmp_path / "runs")
    fails(vfl("recommend", columns.folder, "--user", "p001"), 2, "its task is binary", "vfl predict")
    rated_run = run(small_recommender(tmp_path / "films"), in_process=True, out=tmp_path / "runs")
    fails(vfl("predict", rated_run.folder), 2, "is a recommender", "vfl recommend")
    fails(vfl("predict", rated_run.folder / "north"), 2, "is a recommender", "vfl recommend")
