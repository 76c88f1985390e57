from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read, read_parquet, refusal

from vfl.data.rows import canonical_id
from vfl.errors import DataError


def test_missing_values_of_every_kind_stay_missing(tmp_path: Path) -> None:
    text = "id,a,b,d,e,risk\nx,1,NA,2020-01-01,True,low\ny,NA, ,, n/a ,\nz,?,?,?,?, ? \n"
    asked: dict[str, Any] = {"columns": ["a", "e"], "categorical": ["b"], "dates": ["d"], "label": "risk"}
    table = read(tmp_path, text, missing=["?"], **asked)
    np.testing.assert_array_equal(table.numeric, [[1, 1], [np.nan, np.nan], [np.nan, np.nan]])
    assert table.categorical.tolist() == [["NA"], [""], [""]]  # "NA" may be a name
    assert np.isnat(table.dates).tolist() == [[False], [True], [True]]
    assert table.label is not None
    assert table.label.tolist() == ["low", "", ""]
    assert "'?' in column 'a' at id 'z' is not a number: correct it, list it under missing" in refusal(
        tmp_path, text, **asked
    )


def test_missing_values_of_parquet_columns_stay_missing(tmp_path: Path) -> None:
    data = {
        "id": ["x", "y", "z"],
        "a": [1.0, None, float("nan")],
        "b": [True, None, False],
        "c": ["1", None, "none"],
        "n": pa.nulls(3),
        "t": pa.nulls(3),
        "s": pa.array(["u", None, "u"]).dictionary_encode(),
        "d": [date(2020, 1, 1), None, date(1969, 12, 31)],
        "e": pa.nulls(3),
    }
    table = read_parquet(
        tmp_path, data, columns=["a", "b", "c", "n"], categorical=["t", "s"], dates=["d", "e"]
    )
    nan = np.nan
    np.testing.assert_array_equal(table.numeric, [[1, 1, 1, nan], [nan] * 4, [nan, 0, nan, nan]])
    assert table.categorical.tolist() == [["", "u"], ["", ""], ["", "u"]]
    assert np.isnat(table.dates).tolist() == [[False, True], [True, True], [False, True]]


def test_a_number_can_be_declared_missing_however_it_is_written(tmp_path: Path) -> None:
    assert np.isnan(read(tmp_path, "id,a\nx,-999\ny,-999.0\n", columns=["a"], missing=["-999"]).numeric).all()
    table = read_parquet(tmp_path, {"id": ["x"], "a": [-999], "b": [-999.0]}, columns=["a"], missing=["-999"])
    assert np.isnan(table.numeric).all()
    table = read_parquet(tmp_path, {"id": ["x"], "b": [-999.0]}, categorical=["b"], missing=["-999"])
    assert table.categorical.tolist() == [[""]]


def test_what_is_declared_missing_is_still_an_id(tmp_path: Path) -> None:
    assert read(tmp_path, "id,a\n?,1\nNA,2\n", columns=["a"], missing=["?"]).ids.tolist() == ["?", "NA"]


def test_dates_are_read_to_the_second_and_in_utc(tmp_path: Path) -> None:
    text = "id,d\n1,2020-02-29\n2,2020-02-29 13:14:15.9\n3,2020-02-29T13:14:15Z\n4, 20200229T131415+0200 \n"
    day = datetime(2020, 2, 29)
    expected = [[day], [day.replace(hour=13, minute=14, second=15)]] + [
        [day.replace(hour=hour, minute=14, second=15)] for hour in (13, 11)
    ]
    assert read(tmp_path, text, dates=["d"]).dates.tolist() == expected
    ahead = timezone(timedelta(hours=5, minutes=30))
    for kind, value in [
        (pa.timestamp("ns", "UTC"), datetime(2020, 2, 29, 13, 14, 15, tzinfo=UTC)),
        (pa.timestamp("us", "+05:30"), datetime(2020, 2, 29, 18, 44, 15, 7, tzinfo=ahead)),
        (pa.timestamp("s"), datetime(2020, 2, 29, 13, 14, 15)),
    ]:
        table = read_parquet(tmp_path, {"id": ["x"], "d": pa.array([value], kind)}, dates=["d"])
        assert table.dates.tolist() == expected[1:2]
    for kind in (pa.date32(), pa.date64()):
        table = read_parquet(tmp_path, {"id": ["x"], "d": pa.array([day.date()], kind)}, dates=["d"])
        assert table.dates.tolist() == expected[:1]


def test_dates_before_1970_round_down_to_the_second(tmp_path: Path) -> None:
    data = {"id": ["x"], "d": pa.array([-1], pa.timestamp("us"))}
    assert read_parquet(tmp_path, data, dates=["d"]).dates.tolist() == [[datetime(1969, 12, 31, 23, 59, 59)]]


def test_numbers_are_no_dates(tmp_path: Path) -> None:
    for values in ([20200229], [2020.5], [True]):
        with pytest.raises(DataError, match=r"column 'd' holds .*, not dates: write them as dates or as ISO"):
            read_parquet(tmp_path, {"id": ["x"], "d": values}, dates=["d"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(whens=st.lists(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), min_size=1, max_size=6))
@pytest.mark.parametrize("form", [None, "%d/%m/%Y %H:%M:%S"])
def test_dates_are_read_from_text_exactly(tmp_path: Path, whens: list[datetime], form: str | None) -> None:
    whole_seconds = [when.replace(microsecond=0) for when in whens]
    # %Y of strftime drops the zeros before a year below 1000, and strptime asks for them.
    written = [
        when.isoformat() if form is None else f"{when:%d/%m}/{when.year:04} {when:%H:%M:%S}"
        for when in whole_seconds
    ]
    text = "id,d\n" + "".join(f"{row},{when}\n" for row, when in enumerate(written))
    table = read(tmp_path, text, dates=["d"], date_format=form)
    assert table.dates[:, 0].tolist() == whole_seconds


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (["7", "a", " 7"], "id '7' in row 1 and ' 7' in row 3 both become '7'"),
        (["\u00e9", "e\u0301"], r"id '\xe9' in row 1 and 'e\u0301' in row 2 both become 'é'"),
        ([7.0, 8.0, 7.0], "id 7.0 is in row 1 and again in row 3: keep one"),
        (["\u2003x", "x\t"], "id '\\u2003x' in row 1 and 'x\\t' in row 2 both become 'x'"),
        ([1, 2, 1, 2], "id 1 is in row 1 and again in row 3: keep one"),
        (["b", "a", "a", "b"], "id 'a' is in row 2 and again in row 3: keep one"),
    ],
)
def test_ids_that_clash_are_named_as_they_are_written(tmp_path: Path, ids: list[Any], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        read_parquet(tmp_path, {"id": ids, "a": [1] * len(ids)}, columns=["a"])
    assert sentence in str(caught.value)


def test_007_and_7_are_two_ids(tmp_path: Path) -> None:
    table = read(tmp_path, "id,a\n007,1\n7,2\n7.0,3\n07,4\n", columns=["a"])
    assert table.ids.tolist() == ["007", "7", "7.0", "07"]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=6))
def test_ids_in_bulk_are_as_the_rule_for_one_has_them(tmp_path: Path, raw: list[str]) -> None:
    expected = [canonical_id(one) for one in raw]
    data = {"id": pa.array(raw, pa.string()), "a": pa.array([1] * len(raw))}
    if "" in expected or len(set(expected)) < len(expected):
        with pytest.raises(DataError):
            read_parquet(tmp_path, data, columns=["a"])
    else:
        assert read_parquet(tmp_path, data, columns=["a"]).ids.tolist() == expected


def test_the_first_clash_of_many_is_found_though_hashes_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfl.data.table.hash", lambda one: len(one) % 3, raising=False)
    ids = [f"{'x' * (row % 5)}{row}" for row in range(500)]
    assert read_parquet(tmp_path, {"id": ids, "a": [1] * 500}, columns=["a"]).ids.tolist() == ids
    with pytest.raises(DataError, match="id 'xx7' is in row 8 and again in row 301: keep one"):
        read_parquet(tmp_path, {"id": [*ids[:300], ids[7], ids[3], ids[7]], "a": [1] * 303}, columns=["a"])
