from __future__ import annotations

from datetime import datetime
from pathlib import Path

from reading import read


def test_patterns_choose_columns_in_the_tables_order_and_each_once(tmp_path: Path) -> None:
    text = "id,mean b,worst a,mean a,Mean c,risk\nx,1,2,3,4,0\n"
    table = read(tmp_path, text, columns=["worst a", "mean *", "* a"], label="risk")
    assert table.numeric_names == ("worst a", "mean b", "mean a")


def test_a_pattern_never_takes_the_id_or_the_label(tmp_path: Path) -> None:
    table = read(tmp_path, "id,a,risk\nx,1,low\n", columns=["*"], label="risk")
    assert table.numeric_names == ("a",)


def test_a_column_asked_for_twice_is_categorical_only(tmp_path: Path) -> None:
    table = read(tmp_path, "id,a,zip\nx,1,007\n", columns=["*"], categorical=["zip"])
    assert (table.numeric_names, table.categorical_names) == (("a",), ("zip",))
    assert table.categorical.tolist() == [["007"]]


def test_an_exclamation_mark_takes_out_of_what_stands_before_it(tmp_path: Path) -> None:
    text = "id,mean a,mean b,worst a,risk\nx,1,2,3,0\n"
    table = read(tmp_path, text, columns=["*", "!mean *", "mean b", "!worst a"], label="risk")
    assert table.numeric_names == ("mean b",)
    kept = read(tmp_path, text, columns=["*"], categorical=["mean *", "!* a"])
    assert (kept.numeric_names, kept.categorical_names) == (("mean a", "worst a", "risk"), ("mean b",))


def test_a_name_that_begins_with_an_exclamation_mark_is_a_name_first(tmp_path: Path) -> None:
    table = read(tmp_path, "id,a,!a\nx,1,2\n", columns=["a", "!a"])
    assert table.numeric_names == ("a", "!a")


def test_a_column_of_several_lists_is_a_date_before_a_category_before_a_number(tmp_path: Path) -> None:
    text = "id,since,zip,age,until\nx,2020-02-29,007,30,2020-03-01\n"
    lists = {"columns": ["*"], "categorical": ["since", "zip"], "dates": ["until", "since"]}
    table = read(tmp_path, text, **lists)
    assert (table.categorical_names, table.numeric_names) == (("zip",), ("age",))
    assert table.date_names == ("until", "since")
    assert table.dates.tolist() == [[datetime(2020, 3, 1), datetime(2020, 2, 29)]]


def test_a_name_that_looks_like_a_pattern_is_a_name_first(tmp_path: Path) -> None:
    assert read(tmp_path, "id,x0,x[0]\nx,1,2\n", columns=["x[0]"]).numeric_names == ("x[0]",)
