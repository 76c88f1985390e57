"""Tables of ratings are read whole and checked; what is wrong is named with its file, row and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import SCALE

from vfl.errors import ConfigError, DataError
from vfl.ratings.catalogue import (
    LARGEST_FEATURE,
    MOST_CATEGORIES,
    Catalogue,
    bare_catalogue,
    list_items,
    read_catalogue,
)
from vfl.ratings.holding import hold
from vfl.ratings.personal import fit_mask
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings, read_ratings

GOOD = "user,item,rating,when\nann,m1,4.5,20\nbob,m1,0.5,10\nann,m2,3,15\n"


def read(folder: Path, text: str | bytes, name: str = "shop.csv", **more: object) -> Ratings:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_ratings(name, folder, **{"scale": SCALE, **more})  # type: ignore[arg-type]


def refusal(folder: Path, text: str | bytes, name: str = "shop.csv", **more: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text, name, **more)
    sentence = str(caught.value)
    assert sentence.startswith(f"{name}: ")
    assert "\n" not in sentence
    return sentence


def test_a_table_is_read_in_its_own_order(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD, time="when")
    assert (found.user_ids, found.item_ids, len(found)) == (("ann", "bob"), ("m1", "m2"), 3)
    assert found.user.tolist() == [0, 1, 0]
    assert found.item.tolist() == [0, 0, 1]
    assert found.value.tolist() == [4.5, 0.5, 3.0]
    assert found.times is not None
    assert found.times.tolist() == [20, 10, 15]
    assert found.row(2) == 4
    assert read(tmp_path, GOOD).times is None


def test_one_table_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    rows = [("ann", "m1", 4.5, 20), ("bob", "m1", 0.5, 10), ("ann", "m2", 3.0, 15)]
    names = ("user", "item", "rating", "when")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), tmp_path / "s.parquet"
    )
    dat = "".join("::".join(map(str, row)) + "\n" for row in rows)
    plain = read(tmp_path, GOOD, time="when")
    numbered = {"user": "1", "item": "2", "rating": "3", "time": "4"}
    others = [
        read_ratings("s.parquet", tmp_path, time="when"),
        read(tmp_path, GOOD.replace(",", "\t"), "s.tsv", time="when"),
        read(tmp_path, gzip.compress(GOOD.encode()), "s.csv.gz", time="when"),
        read(tmp_path, dat, "s.dat", **numbered),
        read(tmp_path, gzip.compress(dat.replace("\n", "\r\n").encode()), "s.dat.gz", **numbered),
    ]
    for other in others:
        assert (other.user_ids, other.item_ids) == (plain.user_ids, plain.item_ids)
        for name in ("user", "item", "value", "times"):
            assert np.array_equal(getattr(other, name), getattr(plain, name)), name


def test_times_may_be_dates(tmp_path: Path) -> None:
    dated = GOOD.replace(",20\n", ",2020-01-02\n").replace(",10\n", ",2020-01-01T00:00:05\n")
    found = read(tmp_path, dated.replace(",15\n", ",1970-01-01\n"), time="when").times
    assert found is not None
    assert found.tolist() == [1577923200, 1577836805, 0]
    assert "the time in column 'when' in row 3 '2020-02-31' is no date" in refusal(
        tmp_path, dated.replace("2020-01-01T00:00:05", "2020-02-31"), time="when"
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("eve,m1,5.5,1", "the rating 5.5 in row 5 is outside the scale from 0.5 to 5: correct it, or set"),
        ("eve,m1,0,1", "the rating 0 in row 5 is outside the scale"),
        ("eve,m1,nan,1", "the rating in column 'rating' in row 5 'nan' is no number: correct it"),
        ("eve,m1,inf,1", "in row 5 'inf' is no number"),
        ("eve,m1,,1", "the rating in column 'rating' in row 5 is missing: correct it, or drop the row"),
        ("eve,m1,good,1", "in row 5 'good' is no number"),
        ("eve,m1,1_0,1", "in row 5 '1_0' is no number"),
        ("ann,m1,2,1", "user 'ann' rates item 'm1' twice, in row 2 and in row 5: keep one of them"),
        (" ann ,m2,2,1", "user 'ann' rates item 'm2' twice, in row 4 and in row 5: keep one of them"),
        (",m1,2,1", "the user in row 5 is missing: give every row an id, or drop the row"),
        ("eve,,2,1", "the item in row 5 is missing"),
        ("eve,m1,2,", "the time in column 'when' in row 5 is missing: correct it, or drop the row"),
        ("eve,m1,2,soon", "the time in column 'when' in row 5 'soon' is no number: correct it"),
        ("eve,m1,2,1e30", "the time in column 'when' in row 5 is out of range"),
        ("eve,m1,2", "row 5 has 3 values where 4 are due, as in row 1: mend the file"),
        ("eve", "row 5 has 1 value where 4 are due, as in row 1: mend the file"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_remedy(tmp_path: Path, row: str, says: str) -> None:
    assert says in refusal(tmp_path, f"{GOOD}{row}\n", time="when")


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("user,item,rating\n", {}, "there is no rating in it: name a table with ratings"),
        ("", {}, "cannot be read"),
        (GOOD, {"rating": "ratings"}, "there is no column 'ratings' for rating: did you mean 'rating'?"),
        (GOOD, {"time": "user"}, "column 'user' is named for user and for time"),
        (b"user,item,rating\n\xff,a,1\n", {}, "it is not UTF-8 text"),
    ],
)
def test_a_bad_table_is_named_with_its_remedy(
    tmp_path: Path, text: str | bytes, more: dict[str, object], says: str
) -> None:
    assert says in refusal(tmp_path, text, **more)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a::b::3\na::c\n", "row 2 has 2 values where 3 are due, as in row 1: mend the file"),
        ("a::b::3\n::c::2\n", "'' in column '1' in row 2: the id is missing"),
        ("a::b::3\na::b::2\n", "in row 1 and in row 2"),
        ("a::b::9\n", "the rating 9 in row 1 is outside the scale"),
        (b"a::b::3\n\xff::c::2\n", "it is not UTF-8 text"),
        (
            b"",
            "there is nothing in it, where one row a line is due, with :: between its values: name the file",
        ),
        (b"\n\r\n", "there is nothing in it"),
    ],
)
def test_a_bad_dat_file_is_named_with_its_remedy(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refusal(tmp_path, text, "r.dat", user="1", item="2", rating="3")


def test_a_dat_file_that_is_not_there_or_garbled_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no\.dat: there is no such file in"):
        read_ratings("no.dat", tmp_path)
    assert "cannot be read" in refusal(
        tmp_path, gzip.compress(b"a::b::3\n")[:-9], "r.dat.gz", user="1", item="2", rating="3"
    )


#: What is wrong in the row that it ends a file with, and what is said of it.
WRONG = {
    "eve,m9,9,1": "the rating 9 in row {row} is outside the scale",
    "eve,m9,good,1": "in row {row} 'good' is no number",
    "eve,m9,2,soon": "the time in column 'when' in row {row} 'soon' is no number",
    "eve,m9,2,1e30": "the time in column 'when' in row {row} is out of range",
    "eve,m9,2": "row {row} has 3 values where 4 are due, as in row {header}",
    ",m9,2,1": "the user in row {row} is missing",
    "eve,,2,1": "the item in row {row} is missing",
    "ann,m1,2,1": "twice, in row {first} and in row {row}: keep one of them",
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("before", "between", "end", "packed"),
    [
        ("", "\n", "\n", False),
        ("", "\n\n", "\n", True),
        ("\n\n", "", "\n", False),
        ("", "\r\n", "\r\n", False),
    ],
)
def test_rows_count_with_the_empty_lines_before_them(
    tmp_path: Path, wrong: str, before: str, between: str, end: str, packed: bool
) -> None:
    header, *rows = GOOD.splitlines()
    lines = [header, *rows, wrong]
    text = before + "".join(f"{line}{end}{between}" for line in lines)
    numbers = [place + 1 for place, line in enumerate(text.splitlines()) if line]
    said = WRONG[wrong].format(row=numbers[-1], header=numbers[0], first=numbers[1])
    data, name = (gzip.compress(text.encode()), "s.csv.gz") if packed else (text.encode(), "s.csv")
    assert said in refusal(tmp_path, data, name, time="when")
    for path in (name, name.replace("csv", "tsv")):
        turned = text.replace(",", "\t").encode() if "tsv" in path else text.encode()
        assert said in refusal(tmp_path, gzip.compress(turned) if packed else turned, path, time="when")


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong[0] != "," and ",," not in wrong])
def test_rows_of_a_dat_file_count_with_the_empty_lines_before_them(tmp_path: Path, wrong: str) -> None:
    lines = ["", *GOOD.splitlines()[1:], "", "", wrong]
    text = "\r\n".join(lines).replace(",", "::")
    said = WRONG[wrong].format(row=7, header=2, first=2).replace("'when'", "'4'")
    named = {"user": "1", "item": "2", "rating": "3", "time": "4"}
    assert said in refusal(tmp_path, text, "r.dat", **named)
    assert "'' in column '2' in row 7: the id is missing" in refusal(
        tmp_path, text.replace(wrong.replace(",", "::"), "eve::::2::1"), "r.dat", **named
    )


VALUES = st.text(st.sampled_from('ab,"\n\r é'), min_size=1, max_size=6).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    users=st.lists(VALUES, min_size=1, max_size=8),
    blanks=st.lists(st.integers(0, 3), min_size=10, max_size=10),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_row_is_named_by_the_line_that_it_begins_on_whatever_its_values_hold(
    tmp_path_factory: pytest.TempPathFactory, users: list[str], blanks: list[int], end: str
) -> None:
    rows = [
        "user,item,rating",
        *(f'"{user.replace(chr(34), chr(34) * 2)}",m{at},3' for at, user in enumerate(users)),
    ]
    text = "".join(row + end * (1 + n) for row, n in zip(rows, blanks, strict=False))
    due = len((text + "x").splitlines())
    assert f"the rating 9 in row {due} is" in refusal(tmp_path_factory.mktemp("s"), f"{text}eve,last,9{end}")


def test_rows_of_a_parquet_file_count_from_one(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user": ["a", "b"], "item": ["m", "m"], "rating": [3.0, 9.0]}), tmp_path / "s.parquet"
    )
    with pytest.raises(DataError, match="the rating 9 in row 2 is outside"):
        read_ratings("s.parquet", tmp_path, scale=SCALE)


def test_a_parquet_file_that_is_cut_short_is_not_read_as_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["a", "b"], "item": ["m", "m"], "rating": [3.0, 4.0]}), tmp_path / "s")
    said = refusal(tmp_path, (tmp_path / "s").read_bytes()[:-20], "s.parquet")
    assert "s.parquet: it cannot be read" in said
    assert "values where" not in said


def test_a_long_value_does_not_hide_the_empty_lines_before_it(tmp_path: Path) -> None:
    text = f'user,item,rating\n"{"a" * 200_000}",m,3\n\nb,m,9\n'
    assert "row 4" in refusal(tmp_path, text, scale=SCALE)


def test_what_is_read_again_to_name_a_row_may_have_gone(tmp_path: Path) -> None:
    found = read(tmp_path, f"\n{GOOD}")
    assert found.row(0) == 3
    (tmp_path / "shop.csv").unlink()
    assert found.row(0) == 2


@pytest.mark.parametrize("scale", [(5.0, 0.5), (1.0, 1.0), (float("nan"), 5.0), (0.0, float("inf"))])
def test_a_scale_that_is_none_is_refused(tmp_path: Path, scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"^scale = .*give the lowest and the highest"):
        read(tmp_path, GOOD, scale=scale)


def test_a_large_table_is_read_in_blocks_and_its_last_row_is_named(tmp_path: Path) -> None:
    n = 150_000
    rows = [f"u{at % 1000},i{at // 1000},{(at % 10 + 1) / 2}" for at in range(n)]
    text = "user,item,rating\n" + "\n".join(rows) + "\n"
    found = read(tmp_path, text)
    assert (len(found), len(found.user_ids), len(found.item_ids)) == (n, 1000, 150)
    assert found.value[-1] == ((n - 1) % 10 + 1) / 2
    again = f"user 'u7' rates item 'i3' twice, in row {3007 + 2} and in row {n + 2}: keep one of them"
    assert again in refusal(tmp_path, f"{text}u7,i3,2\n")


CATALOGUE = "item,title,genres,year\nm2,Two,Drama|War,1990\nm1,One,Drama,2010\nm3,,,\n"


def catalogue(folder: Path, text: str, **more: object) -> Catalogue:
    (folder / "items.csv").write_text(text)
    asked = {"title": "title", "features": ["genres", "year"], **more}
    return read_catalogue("items.csv", folder, **asked)  # type: ignore[arg-type]


def test_a_catalogue_is_sorted_by_id_whatever_its_file(tmp_path: Path) -> None:
    found = catalogue(tmp_path, CATALOGUE)
    assert (found.ids, found.titles) == (("m1", "m2", "m3"), ("One", "Two", "m3"))
    assert found.feature_names == ("genres Drama", "genres War", "year")
    assert found.features.tolist() == [[1, 0, 1], [1, 1, -1], [0, 0, 0]]
    assert found.features_of(["m3", "m1"]).tolist() == [[0, 0, 0], [1, 0, 1]]
    assert (found.title_of("m1"), found.title_of("m9")) == ("One", "m9")
    lines = CATALOGUE.splitlines()
    turned = catalogue(tmp_path, "\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert (turned.ids, turned.features.tolist()) == (found.ids, found.features.tolist())
    assert bare_catalogue(["b", "a"]).ids == ("a", "b")


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (CATALOGUE + "m1,Again,,\n", {}, "item 'm1' is there twice, in row 3 and in row 5: keep one of them"),
        (CATALOGUE + ",Nameless,,\n", {}, "the item in row 5 is missing"),
        (
            CATALOGUE + "m4,Four,,inf\n",
            {},
            "the feature inf in column 'year' in row 5 is infinite: correct it, or leave",
        ),
        (
            CATALOGUE + "m4,Four,,-1e308\n",
            {},
            "the feature -1e+308 in column 'year' in row 5 is beyond 1e+100",
        ),
        ("\n" + CATALOGUE + "\n\nm1,Again,,\n", {}, "in row 4 and in row 8"),
        (CATALOGUE + "\n\n,Nameless,,\n", {}, "the item in row 7 is missing"),
        (CATALOGUE + "\n\nm4,Four,,1e101\n", {}, "the feature 1e+101 in column 'year' in row 7 is beyond"),
        (CATALOGUE + "\nm4,Four\n", {}, "row 6 has 2 values where 4 are due"),
        (CATALOGUE, {"title": "name"}, "there is no column 'name'"),
        ("item,title,genres,year\n", {}, "there is no item in it"),
        (
            "item,title,genres,year\n"
            + "".join(f"m{at},t{at},g{at},\n" for at in range(MOST_CATEGORIES + 1)),
            {},
            "column 'genres' holds 1001 categories and 1000 are the most: set separator",
        ),
    ],
)
def test_a_bad_catalogue_is_named_with_its_remedy(
    tmp_path: Path, text: str, more: dict[str, object], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        catalogue(tmp_path, text, **more)
    assert str(caught.value).startswith("items.csv: ")
    assert says in str(caught.value)


def test_features_up_to_the_largest_are_made_alike_and_can_be_trained_on(tmp_path: Path) -> None:
    years = [LARGEST_FEATURE, -LARGEST_FEATURE, 5e-324, 0.0, 1e-200, 3.0]
    text = "item,year\n" + "".join(f"m{at},{year!r}\n" for at, year in enumerate(years))
    found = catalogue(tmp_path, text, title=None, features=["year"])
    assert np.abs(found.features).max() < 10
    rows = [f"u{at % 3},m{at // 3},{1 + at % 4}" for at in range(18)]
    ratings = read(tmp_path, "user,item,rating\n" + "\n".join(rows) + "\n")
    holding = hold(ratings, by="user", shared_ids=found.ids, split=Split(), seed=0, scale=SCALE)
    assert np.isfinite(fit_mask("content", holding, found).row(0)).all()


def test_a_catalogues_items_can_be_listed_alone(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(CATALOGUE.replace("m1", "\nm1").replace("1990", "1e308"))
    found = list_items("items.csv", tmp_path)
    assert found.source == "items.csv"
    assert {name: found.find_row(place) for name, place in found.places.items()} == {
        "m2": 2,
        "m1": 4,
        "m3": 5,
    }
    with pytest.raises(DataError, match=r"^items\.csv: there is no column 'film': did you mean|there is"):
        list_items("items.csv", tmp_path, item="film")


def test_an_item_outside_the_catalogue_has_no_features(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^items\.csv: item 'm9' is not in the catalogue: add it there"):
        catalogue(tmp_path, CATALOGUE).features_of(["m1", "m9"])
