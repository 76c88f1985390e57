from __future__ import annotations

import gzip
import subprocess
import sys
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading import read, read_parquet, refusal, whole

from vfl.data.builtin import builtin_columns
from vfl.data.table import join_chunks, open_table
from vfl.errors import DataError

CSV = "id,age,city,income,risk\n007,30,Bonn,1e3,low\n08,41.5,Köln,-2,high\n"


def test_a_csv_file_is_read_with_ids_as_text(tmp_path: Path) -> None:
    table = read(tmp_path, CSV, columns=["income", "age"], categorical=["city"], label="risk")
    assert table.source == "bank.csv"
    assert table.ids.tolist() == ["007", "08"]
    assert table.numeric_names == ("income", "age")
    assert table.numeric.dtype == np.float64
    assert table.numeric.tolist() == [[1000, 30], [-2, 41.5]]
    assert table.categorical_names == ("city",)
    assert table.categorical.tolist() == [["Bonn"], ["Köln"]]
    assert table.label is not None
    assert table.label.tolist() == ["low", "high"]
    assert table.label_name == "risk"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", CSV.encode()),
        ("t.CSV", CSV.replace("\n", "\r\n").encode("utf-8-sig")),
        ("t.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("t.tsv", CSV.replace(",", "\t").encode()),
        ("t.tsv.gz", gzip.compress(CSV.replace(",", "\t").encode(), mtime=0)),
    ],
)
def test_every_way_of_writing_a_text_table_reads_alike(tmp_path: Path, name: str, data: bytes) -> None:
    table = read(tmp_path, data, name, columns=["age"], categorical=["city"])
    assert table.ids.tolist() == ["007", "08"]
    assert table.numeric.tolist() == [[30], [41.5]]
    assert table.categorical.tolist() == [["Bonn"], ["Köln"]]


def test_parquet_numbers_of_every_kind_become_float64(tmp_path: Path) -> None:
    columns = {
        "id": [1, 2],
        "int": pa.array([1, 2], pa.int8()),
        "half": pa.array([0.5, 1.5], pa.float32()),
        "flag": [True, False],
        "exact": [Decimal("1.25"), Decimal("-3.00")],
        "text": ["1.5", " 2 "],
        "kind": pa.array(["7", "8"]).dictionary_encode(),
        "wide": [2**60 + 1, 0],
    }
    table = read_parquet(tmp_path, columns, columns=list(columns)[1:])
    assert table.ids.tolist() == ["1", "2"]
    assert table.numeric.T.tolist() == [
        [1, 2],
        [0.5, 1.5],
        [1, 0],
        [1.25, -3],
        [1.5, 2],
        [7, 8],
        [2.0**60, 0],
    ]


def test_ids_of_a_float_column_are_whole_numbers(tmp_path: Path) -> None:
    table = read_parquet(tmp_path, {"id": [7.0, 8.0], "a": [1, 2]}, columns=["a"])
    assert table.ids.tolist() == ["7", "8"]
    with pytest.raises(
        DataError, match=r"bank\.parquet: id 8\.5 in row 2 is no id: use text or whole numbers"
    ):
        read_parquet(tmp_path, {"id": [7.0, 8.5], "a": [1, 2]}, columns=["a"])
    with pytest.raises(DataError, match="is no id"):
        read_parquet(tmp_path, {"id": [date(2020, 1, 1)], "a": [1]}, columns=["a"])


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    # The column that is not asked for holds what could not be read.
    text = b"key,a,secret\n1,2,\xff\xfe\n"
    table = read(tmp_path, text, id_column="key", columns=["a"])
    assert (table.ids.tolist(), table.numeric.tolist()) == (["1"], [[2]])
    struct = read_parquet(tmp_path, {"id": ["x"], "a.b": [1], "s": [{"q": 1}]}, columns=["a.b"])
    assert struct.numeric.tolist() == [[1]]


def test_a_label_party_needs_no_features(tmp_path: Path) -> None:
    table = read(tmp_path, "id,risk\nx,1\ny,0\n", label="risk")
    assert table.numeric.shape == (2, 0)
    assert table.categorical.shape == (2, 0)


def test_true_and_false_count_as_1_and_0(tmp_path: Path) -> None:
    assert read(tmp_path, "id,a\nx,True\ny,false\nz,1\n", columns=["a"]).numeric.tolist() == [[1], [0], [1]]


def test_categories_of_a_number_column_are_whole_where_they_can_be(tmp_path: Path) -> None:
    table = read_parquet(tmp_path, {"id": ["x", "y"], "zip": [53111.0, 0.5]}, categorical=["zip"])
    assert table.categorical.tolist() == [["53111"], ["0.5"]]


@pytest.mark.parametrize("optional", [True, False])
def test_new_rows_need_no_label(tmp_path: Path, optional: bool) -> None:
    asked: dict[str, Any] = {"columns": ["a"], "label": "risk", "label_optional": optional}
    if not optional:
        assert "no label column 'risk': did you mean 'risks'?" in refusal(
            tmp_path, "id,a,risks\nx,1,2\n", **asked
        )
        return
    table = read(tmp_path, "id,a\nx,1\n", **asked)
    assert (table.label, table.label_name) == (None, None)
    table = read(tmp_path, "id,a,risk\nx,1,low\ny,2, \n", **asked)
    assert table.label is not None
    assert (table.label.tolist(), table.label_name) == (["low", ""], "risk")


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_a_builtin_table_reads_like_a_file(name: str, tmp_path: Path) -> None:
    *_, last, label = builtin_columns(name)
    table = whole(f"builtin:{name}", folder=tmp_path, columns=[last], label=label)
    assert table.ids[:2].tolist() == ["0", "1"]
    assert table.numeric.shape == (len(table), 1)
    assert table.label_name == label


def test_a_builtin_table_names_itself_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="builtin:digits: no column matches 'pixl_0_\\*': did you mean 'pixel_0_"
    ):
        whole("builtin:digits", folder=tmp_path, columns=["pixl_0_*"])
    with pytest.raises(DataError, match="builtin:digit: there is no such built-in table"):
        whole("builtin:digit", folder=tmp_path, columns=["*"])


def test_rows_can_be_taken_in_another_order(tmp_path: Path) -> None:
    table = read(tmp_path, CSV, columns=["age"], categorical=["city"], label="risk")
    taken = table.take(np.array([1]))
    assert (taken.ids.tolist(), taken.numeric.tolist(), taken.categorical.tolist()) == (
        ["08"],
        [[41.5]],
        [["Köln"]],
    )
    assert taken.label is not None
    assert taken.label.tolist() == ["high"]
    assert (taken.source, taken.label_name) == (table.source, "risk")


def test_a_missing_file_is_named_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        whole("bnk.csv", folder=tmp_path, columns=["a"])
    assert str(caught.value).startswith(f"bnk.csv: there is no such file in {tmp_path}: give the path")


def test_a_folder_or_an_unknown_kind_of_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match=r"d\.csv: this is a folder"):
        whole("d.csv", folder=tmp_path, columns=["a"])
    assert "ends in .csv, .csv.gz" in refusal(tmp_path, b"", "bank.xlsx", columns=["a"])


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("t.csv", b"", "Empty CSV file"),
        ("t.csv", b"id,a\nx,1\ny,2,3\n", "Row #3: Expected 2 columns, got 3"),
        ("t.csv", b"id,a\nx\n", "Row #2: Expected 2 columns, got 1"),
        ("t.csv", b'id,a\n"x,1\n', "cannot be read"),
        ("t.csv", "id,a\nMüller,1\n".encode("latin-1"), "it is not UTF-8 text"),
        ("t.csv", "ïd,a\nx,1\n".encode("latin-1"), "it is not UTF-8 text"),
        ("t.csv.gz", b"id,a\nx,1\n", "incorrect header check"),
        ("t.csv.gz", gzip.compress(b"id,a\nx,1\n", mtime=0)[:-4], "Truncated compressed stream"),
        ("t.parquet", b"", "file size is 0 bytes"),
        ("t.parquet", b"PAR1 and then nothing", "magic bytes"),
    ],
)
def test_a_garbled_file_is_one_line(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    sentence = refusal(tmp_path, data, name, columns=["a"])
    assert complaint in sentence
    assert sentence.endswith(": mend the file or write it anew")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=80), where=st.integers(0, 400))
@example(data=b"\x00\x00\x00\x00\x00\x00\x06", where=4)  # a gzip header and then no deflate stream
def test_whatever_the_bytes_are_reading_gives_a_table_or_a_data_error(
    tmp_path: Path, data: bytes, where: int
) -> None:
    pq.write_table(pa.table({"id": ["x", "y"], "a": [1.0, 2.0]}), tmp_path / "t.parquet")
    sound = (tmp_path / "t.parquet").read_bytes()
    for name, bytes_ in (
        ("t.csv", b"id,a\n" + data),
        ("t.csv.gz", gzip.compress(b"id,a\nx,1\n", mtime=0)[:where] + data),
        ("t.parquet", sound[:where] + data + sound[where + len(data) :]),
    ):
        (tmp_path / name).write_bytes(bytes_)
        with suppress(DataError):  # any other error fails the test
            assert len(whole(name, folder=tmp_path, columns=["a"])) > 0


@pytest.mark.parametrize(
    ("text", "asked", "complaint"),
    [
        ("key,a\nx,1\n", {"columns": ["a"]}, "no id column 'id': there is 'key', 'a'"),
        ("id,a\nx,1\n", {"columns": ["a"], "id_column": "ids"}, "no id column 'ids': did you mean 'id'?"),
        ("id,mean a\nx,1\n", {"columns": ["mean_a"]}, "no column is called 'mean_a': did you mean 'mean a'?"),
        ("id,mean a\nx,1\n", {"columns": ["Mean *"]}, "no column matches 'Mean *'"),
        ("id,a\nx,1\n", {"columns": ["a", "id"]}, "column 'id' is the id: take it out"),
        ("id,a\nx,1\n", {"columns": ["a"], "label": "a"}, "column 'a' is the label: take it out"),
        ("id,a\nx,1\n", {"label": "id"}, "column 'id' is both the id and the label"),
        ("id,a\nx,1\n", {}, "no column is asked for"),
        ("id,a,b,a\nx,1,2,3\n", {"columns": ["b"]}, "two columns are called 'a': rename one"),
        ("id,a\n", {"columns": ["a"]}, "the table has no rows"),
        ("id,a\nx,1\n ,2\n", {"columns": ["a"]}, "the id in row 3 is missing"),
        ("id,a\nx,1\ny,2\nx,3\n", {"columns": ["a"]}, "id 'x' is in row 2 and again in row 4: keep one"),
        (
            "id,a\nx,1\ny,2\n x,3\n",
            {"columns": ["a"]},
            "id 'x' in row 2 and ' x' in row 4 both become 'x': keep one",
        ),
        (
            "id,a\nx,1\ny,old\n",
            {"columns": ["a"]},
            "'old' in column 'a' at id 'y' is not a number: correct it",
        ),
        ("id,a\nx,1\ny,1_0\n", {"columns": ["a"]}, "'1_0' in column 'a' at id 'y' is not a number"),
        (
            "id|a\nx|1\n",
            {"columns": ["a"]},
            "only one column was found, 'id|a'; the separator may be another",
        ),
        ("id\nx\n", {"columns": ["a"]}, "no column is called 'a': there is 'id'"),
        (
            "id,a\nx,1\n",
            {"columns": ["a", "!b*"]},
            "'!b*' takes out none of the columns that stand before it",
        ),
        ("id,a\nx,1\n", {"columns": ["!a"]}, "'!a' takes out none of the columns that stand before it"),
        ("id,a\nx,1\n", {"columns": ["a"], "overlap": 0.5}, "table.overlap is for dataset: sources only"),
        ("id,a\nx,1\n", {"dates": ["a"]}, "'1' in column 'a' at id 'x' is not a date as ISO 8601 has it"),
        (
            "id,a\nx,1.2.2020\ny,31.2.2020\n",
            {"dates": ["a"], "date_format": "%d.%m.%Y"},
            "'31.2.2020' in column 'a' at id 'y' is not a date as table.date_format = '%d.%m.%Y' has it",
        ),
        ("id,a\nx,1\n", {"dates": ["a"], "date_format": "%"}, "is not a date as table.date_format = '%'"),
        ("id,a\nx,1\ny,-inf\n", {"columns": ["a"]}, "infinite value in column 'a' at id 'y'"),
    ],
)
def test_bad_input_is_one_line_with_column_row_and_remedy(
    tmp_path: Path, text: str, asked: dict[str, Any], complaint: str
) -> None:
    assert complaint in refusal(tmp_path, text, **asked)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([1.0, float("inf")], "infinite value in column 'a' at id 'y'"),
        ([date(2020, 1, 1), date(2020, 1, 2)], "column 'a' holds date32[day], not numbers"),
        ([[1], [2]], "not numbers"),
    ],
)
def test_bad_values_in_parquet_are_one_line_too(tmp_path: Path, values: list[Any], complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        read_parquet(tmp_path, {"id": ["x", "y"], "a": values}, columns=["a"])
    assert complaint in str(caught.value)


def test_a_long_or_many_lined_value_is_shown_on_one_short_line(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, f'id,a\nx,"1\n{"9" * 500}z"\n', columns=["a"])
    assert r"'1\n999" in sentence
    assert len(sentence) < 200


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_numbers_are_read_from_text_exactly(tmp_path: Path, numbers: list[float]) -> None:
    text = "id,a\n" + "".join(f"{row},{number!r}\n" for row, number in enumerate(numbers))
    assert read(tmp_path, text, columns=["a"]).numeric[:, 0].tolist() == numbers


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_file_may_separate_with_semicolons_or_tabs(tmp_path: Path, name: str, mark: str) -> None:
    text = f'id{mark}"a, b; c"{mark}age\n007{mark}x, y{mark}5\n'.encode()
    data = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
    table = read(tmp_path, data, name, columns=["age"], categorical=["a, b; c"])
    assert table.ids.tolist() == ["007"]
    assert table.numeric.tolist() == [[5.0]]
    assert table.categorical.tolist() == [["x, y"]]


def test_a_chunk_that_is_picked_from_has_no_place_in_the_table_any_more(tmp_path: Path) -> None:
    chunk = read(tmp_path, CSV, columns=["age"], label="risk")
    first, second = chunk.take(np.array([0])), chunk.take(np.array([1]))
    assert first.start == second.start == -1
    joined = join_chunks([second, first])
    assert (joined.start, joined.ids.tolist()) == (-1, ["08", "007"])
    assert joined.label is not None
    assert joined.label.tolist() == ["high", "low"]
    with pytest.raises(ValueError, match="other columns"):
        join_chunks([chunk, read(tmp_path, CSV, columns=["income"])])
    with pytest.raises(ValueError, match="no chunk"):
        join_chunks([])


def test_chunks_hold_only_what_is_asked_of_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,a,risk\nx,not read,1.5\ny,nor this,NA\n")
    table = open_table("t.csv", folder=tmp_path, columns=["a"], label="risk")
    (chunk,) = table.chunks(features=False, label="number")
    assert (chunk.numeric.shape, chunk.numeric_names) == ((2, 0), ())
    np.testing.assert_array_equal(chunk.label, [1.5, np.nan])
    (bare,) = table.chunks(features=False)
    assert (bare.label, bare.label_name, bare.ids.tolist()) == (None, None, ["x", "y"])
    with pytest.raises(DataError, match="'not read' in column 'a' at id 'x' is not a number"):
        list(table.chunks())


def test_an_infinite_label_is_an_error_where_it_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,risk\nx,1\ny,inf\n")
    table = open_table("t.csv", folder=tmp_path, label="risk")
    with pytest.raises(DataError, match="infinite value in column 'risk' at id 'y'"):
        list(table.chunks(label="number"))


def test_a_table_of_many_blocks_is_read_in_order_and_alike_each_time(tmp_path: Path) -> None:
    n = 150_001
    data = {
        "id": [f"é{row}" for row in range(n)],
        "a": np.arange(n) / 7,
        "c": [str(row % 9) for row in range(n)],
    }
    pq.write_table(pa.table(data), tmp_path / "t.parquet", row_group_size=40_000)
    table = open_table("t.parquet", folder=tmp_path, columns=["a"], categorical=["c"])
    for _ in range(2):
        chunks = list(table.chunks())
        assert max(map(len, chunks)) <= 65_536
        assert [chunk.start for chunk in chunks] == np.cumsum([0, *map(len, chunks[:-1])]).tolist()
        joined = join_chunks(chunks)
        assert joined.start == 0
        assert joined.ids.tolist() == data["id"]
        assert joined.numeric[:, 0].tolist() == data["a"].tolist()
        assert joined.categorical[:, 0].tolist() == data["c"]
    assert join_chunks(chunks[1:]).start == len(chunks[0])
    assert join_chunks([chunks[1], chunks[0]]).start == -1
    assert table.read_ids().tolist() == data["id"]


_PEAK = """
import sys
from pathlib import Path
from vfl.data.table import open_table

def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

table = open_table("t.parquet", folder=Path(sys.argv[1]), columns=["x*"])
before = peak_mib()
assert sum(len(chunk) for chunk in table.chunks()) == 800_000
print(peak_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_memory_does_not_grow_with_the_rows_of_a_row_group(tmp_path: Path) -> None:
    n = 800_000  # 40 columns of these are 244 MiB, in one row group
    column = np.random.default_rng(0).normal(size=n)
    data = {"id": np.arange(n), **{f"x{j}": np.roll(column, j) for j in range(40)}}
    pq.write_table(pa.table(data), tmp_path / "t.parquet", row_group_size=n, use_dictionary=False)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 330
