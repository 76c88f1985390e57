"""`vfl data`: what it prints, what it writes, and what it leaves alone."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_originals import CONTENT, ROWS, sending, serving, tiny_original

from parties.cli import cli
from vfl.config.site import Site
from vfl.data.files import open_file
from vfl.datasets.catalogue import DATASETS, Dataset
from vfl.datasets.originals import Original


def vfl_data(*words: object) -> Result:
    return CliRunner().invoke(cli, ["data", *map(str, words)])


def ids_in(path: Path) -> list[str]:
    with path.open(newline="") as lines:
        return [row["id"] for row in csv.DictReader(lines)]


@pytest.fixture
def known(register: Callable[[Original], Dataset], tiny: Original) -> None:
    register(tiny)


@pytest.mark.usefixtures("known", "originals")
def test_get_writes_one_file_a_party_with_the_overlap_asked_for(tmp_path: Path) -> None:
    done = vfl_data("get", "tiny", "--overlap", 0.5, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clinic.csv", "town.csv"]
    clinic, town = (ids_in(tmp_path / "out" / f"{party}.csv") for party in ("clinic", "town"))
    assert len({*clinic} & {*town}) == ROWS // 2
    assert len({*clinic} | {*town}) == ROWS
    assert len(clinic) == len(town) == ROWS * 3 // 4
    with (tmp_path / "out" / "town.csv").open(newline="") as lines:
        assert "ill" not in next(csv.reader(lines)), "the label is in the label party's file only"
    for words in ("licence: none needed", "cite: Nobody (2000).", "clinic.csv: 30 rows"):
        assert words in done.stderr


@pytest.mark.usefixtures("known", "originals")
def test_what_get_prints_is_how_each_site_names_its_file(tmp_path: Path) -> None:
    done = vfl_data("get", "tiny", "--out", tmp_path)
    parts = done.stdout.split("# ")[1:]
    sites = [Site.model_validate(tomllib.loads(part.partition("\n")[2])) for part in parts]
    assert [site.party for site in sites] == ["clinic", "town"]
    assert [part.partition("\n")[0] for part in parts] == [
        f"for {tmp_path}/{site.party}.toml, which is not written:" for site in sites
    ]
    assert sites[0].label is not None
    assert (sites[0].table.columns, sites[0].label.column) == (["height"], "ill")
    assert (sites[1].table.columns, sites[1].table.categorical) == ([], ["town"])
    for site in sites:
        assert "id" in open_file(site.table.source, tmp_path).names


@pytest.mark.usefixtures("known", "originals")
def test_parquet_holds_what_csv_holds_and_a_seed_draws_other_people(tmp_path: Path) -> None:
    for out, words in (("csv", []), ("parquet", ["--format", "parquet"]), ("seed", ["--seed", 1])):
        assert vfl_data("get", "tiny", "--overlap", 0.5, "--out", tmp_path / out, *words).exit_code == 0
    kinds = {"id": "id", "height": "number", "ill": "text"}
    one, two, other = (
        next(open_file(path, tmp_path).blocks(kinds))  # type: ignore[arg-type]
        for path in ("csv/clinic.csv", "parquet/clinic.parquet", "seed/clinic.csv")
    )
    assert all(np.array_equal(one[name], two[name]) for name in kinds)
    assert set(one["id"]) != set(other["id"])


@pytest.mark.usefixtures("known", "originals")
def test_json_is_one_object_of_the_documented_shape(tmp_path: Path) -> None:
    done = vfl_data("get", "tiny", "--out", tmp_path, "--json")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert (found["status"], found["name"], found["overlap"], found["seed"]) == ("finished", "tiny", 1.0, 0)
    assert found["files"] == [
        {"name": name, "file": str(tmp_path / f"{name}.csv"), "rows": ROWS, "columns": columns}
        for name, columns in (("clinic", ["id", "height", "ill"]), ("town", ["id", "town"]))
    ]


@pytest.mark.usefixtures("known", "originals")
def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "town.csv").write_text("mine")
    done = vfl_data("get", "tiny", "--out", tmp_path, "--json")
    assert done.exit_code == 7
    assert f"{tmp_path}/town.csv: it is there already: choose another --out, or add --force" in done.stderr
    assert json.loads(done.stdout)["status"] == "failed"
    assert (tmp_path / "town.csv").read_text() == "mine"
    assert not (tmp_path / "clinic.csv").exists()
    assert vfl_data("get", "tiny", "--out", tmp_path, "--force").exit_code == 0
    assert len(ids_in(tmp_path / "town.csv")) == ROWS


@pytest.mark.usefixtures("known", "originals")
def test_ctrl_c_while_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vfl.data import files

    written = []

    def write_one(path: Path, columns: object) -> None:
        if written:
            path.write_text("half a fi")
            raise KeyboardInterrupt
        written.append(path)
        path.write_text("whole")

    monkeypatch.setattr(files, "write_file", write_one)
    done = vfl_data("get", "tiny", "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (130, "vfl: interrupted\n")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("known", "originals")
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    done = vfl_data("get", "tiny", "--out", tmp_path / "out")
    assert done.exit_code == 7
    assert done.stderr.splitlines()[-1].startswith(f"vfl: {tmp_path}/out: it cannot be written to")


def test_a_download_is_told_on_standard_error_and_a_wrong_one_writes_nothing(
    tmp_path: Path, register: Callable[[Original], Dataset], cache: Path
) -> None:
    with serving(sending(CONTENT)) as address:
        url = f"{address}/tiny.csv"
        register(tiny_original(url, sha256=("0" * 64,)))
        wrong = vfl_data("get", "tiny", "--out", tmp_path / "out")
        assert wrong.exit_code == 2
        assert f"not {'0' * 64}" in wrong.stderr
        assert not (tmp_path / "out").exists()
        assert not cache.exists()
        register(tiny_original(url))
        right = vfl_data("get", "tiny", "--out", tmp_path / "out", "--json")
    assert right.exit_code == 0
    assert f"downloading {url}" in right.stderr
    assert json.loads(right.stdout)["where"] == str(cache / "tiny")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["digit"], "digit: there is no such data set: did you mean 'digits'?"),
        (["digits", "--overlap", "0"], "overlap is 0: give the share of all people, above 0 and up to 1"),
        (["digits", "--overlap", "nan"], "overlap is nan: give the share of all people, above 0 and up to 1"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(words: list[str], error: str, tmp_path: Path) -> None:
    done = vfl_data("get", *words, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (2, f"vfl: {error}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("known", "originals")
def test_list_names_every_data_set_and_where_its_originals_are(originals: Path) -> None:
    plain = vfl_data("list")
    assert plain.exit_code == 0
    for name in DATASETS:
        assert f"\n{name}  " in f"\n{plain.stdout}"
    assert f"originals: {originals}" in plain.stdout
    assert "originals: not on this machine; `vfl data get adult` downloads them" in plain.stdout
    found = {one["name"]: one for one in json.loads(vfl_data("list", "--json").stdout)["datasets"]}
    assert list(found) == list(DATASETS)
    assert (found["tiny"]["at_hand"], found["tiny"]["where"]) == (True, str(originals))
    assert (found["adult"]["at_hand"], found["adult"]["where"]) == (False, None)
    assert found["digits"]["where"] == "scikit-learn"
    assert found["credit-default"]["labels"] == {"bank": "default"}


def test_the_shops_get_their_movies_too_and_the_clubs_all_of_them() -> None:
    assert DATASETS["movielens"].files() == [
        "shop_a", "shop_b", "shop_c", "club_a", "club_b", "club_c",
        "shop_a_movies", "shop_b_movies", "shop_c_movies", "movies",
    ]  # fmt: skip


def test_made_up_ratings_are_written_like_any_and_called_what_they_are(tmp_path: Path) -> None:
    done = vfl_data("get", "made-ratings", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["club_a", "club_b", "club_c", "movies"]
    assert "licence: none needed" in done.stderr
    described = json.loads(vfl_data("list", "--json").stdout)["datasets"]
    made = next(one for one in described if one["name"] == "made-ratings")
    assert made["what"].startswith("MADE UP")
    assert made["where"] == "made by this package"
