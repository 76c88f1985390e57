from __future__ import annotations

import gzip
import math
import sys
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vfl.data.files import BLOCK_ROWS, Kind, open_file, write_file
from vfl.data.text import canonical_text, parse_date, parse_number
from vfl.errors import DataError, StorageError

often = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def column(folder: Path, values: Any, kind: Kind, **options: Any) -> np.ndarray:  # noqa: ANN401
    """Reads one Parquet column."""
    pq.write_table(pa.table({"v": values}), folder / "t.parquet")
    (block,) = open_file("t.parquet", folder, **options).blocks({"v": kind})
    return block["v"]


def until_it_fails(blocks: Iterator[dict[str, np.ndarray]], name: str) -> tuple[int, str]:
    """Reads on: how many rows came before the error, and its sentence."""
    rows = 0
    with pytest.raises(DataError) as caught:  # noqa: PT012
        for block in blocks:
            rows += len(block[name])
    assert "\n" not in str(caught.value)
    return rows, str(caught.value)


def test_opening_a_file_reads_no_value(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,a\nx,no number\n")
    file = open_file("t.csv", tmp_path)
    assert (file.source, file.names, file.first_row) == ("t.csv", ["id", "a"], 2)
    rows, sentence = until_it_fails(file.blocks({"a": "number"}), "a")
    assert rows == 0
    assert sentence.startswith("t.csv: 'no number' in column 'a' in row 2 is not a number")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_value_far_down_is_named_by_its_row_and_the_rows_before_it_are_read(
    tmp_path: Path, name: str
) -> None:
    n, bad = 400_000, 390_000
    values = [f"{row}.5" for row in range(n)]
    values[bad] = "5,5 m"
    wide = "x" * 60  # more than one block of a CSV reader
    if name == "t.parquet":
        pq.write_table(pa.table({"a": values, "wide": [wide] * n}), tmp_path / name)
    else:
        text = "a,wide\n" + "".join(f'"{value}",{wide}\n' for value in values)
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data, 1, mtime=0) if name.endswith(".gz") else data)
    file = open_file(name, tmp_path)
    rows, sentence = until_it_fails(file.blocks({"a": "number", "wide": "text"}), "a")
    assert bad - BLOCK_ROWS <= rows <= bad
    assert f"{name}: '5,5 m' in column 'a' in row {bad + file.first_row} is not a number" in sentence
    assert file.as_written("a", [bad, 7]) == ["7.5", "5,5 m"]


def test_blocks_of_a_text_table_are_no_larger_than_others(tmp_path: Path) -> None:
    n = 200_000
    (tmp_path / "t.csv").write_text("a\n" + "".join(f"{row}\n" for row in range(n)))
    blocks = [block["a"] for block in open_file("t.csv", tmp_path).blocks({"a": "number"})]
    assert max(map(len, blocks)) == BLOCK_ROWS
    assert np.concatenate(blocks).tolist() == list(range(n))


def test_a_line_with_a_field_too_many_far_down_is_named_by_its_row(tmp_path: Path) -> None:
    line = f"1,{'x' * 98}\n"  # 100 bytes: the third block of 16 MiB begins after row 335,545
    (tmp_path / "t.csv").write_text("a,b\n" + line * 340_000 + "1,2,3\n")
    rows, sentence = until_it_fails(open_file("t.csv", tmp_path).blocks({"a": "number"}), "a")
    assert rows > 300_000
    assert "Row #340002: Expected 2 columns, got 3" in sentence


def test_a_gzip_file_cut_short_is_found_out_while_it_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = "".join(f"{value},{'x' * 200}\n" for value in rng.normal(size=400_000).round(3).tolist())
    data = gzip.compress(f"a,b\n{lines}".encode(), 1, mtime=0)
    (tmp_path / "t.csv.gz").write_bytes(data[: len(data) * 9 // 10])
    rows, sentence = until_it_fails(open_file("t.csv.gz", tmp_path).blocks({"a": "number"}), "a")
    assert rows < 400_000 * 9 // 10 + BLOCK_ROWS  # or fewer: the reader reads ahead
    assert sentence.startswith("t.csv.gz: it cannot be read (Truncated compressed stream)")


def test_a_parquet_page_that_is_garbled_is_found_out_while_it_is_read(tmp_path: Path) -> None:
    data = {"a": np.random.default_rng(0).normal(size=300_000), "b": [f"né {row}" for row in range(300_000)]}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(data), path, row_group_size=100_000, use_dictionary=False, compression="none")
    sound = path.read_bytes()

    at = sound.index("né 250000".encode()) + 1
    path.write_bytes(sound[:at] + b"\xff" + sound[at + 1 :])
    rows, sentence = until_it_fails(open_file("t.parquet", tmp_path).blocks({"b": "text"}), "b")
    assert rows >= 200_000 - BLOCK_ROWS
    assert sentence == "t.parquet: it cannot be read (it is not UTF-8 text): mend the file or write it anew"

    offset = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    path.write_bytes(sound[:offset] + b"\xff" * 40 + sound[offset + 40 :])
    rows, sentence = until_it_fails(open_file("t.parquet", tmp_path).blocks({"a": "number"}), "a")
    assert rows >= 200_000 - BLOCK_ROWS
    assert sentence.startswith("t.parquet: it cannot be read (")


def test_a_parquet_file_whose_end_is_gone_is_one_line(tmp_path: Path) -> None:
    write_file(tmp_path / "t.parquet", {"a": np.arange(1000)})
    sound = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(sound[:-20])
    with pytest.raises(DataError, match=r"t\.parquet: it cannot be read \(.*\): mend the file"):
        open_file("t.parquet", tmp_path)


def test_a_file_that_is_gone_after_it_was_opened_is_one_line(tmp_path: Path) -> None:
    write_file(tmp_path / "t.csv", {"a": np.arange(3)})
    file = open_file("t.csv", tmp_path)
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DataError, match=r"t\.csv: it cannot be read \(.*No such file"):
        list(file.blocks({"a": "number"}))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array(["a ", None, "1.0"], pa.large_string()), ["a", "", "1"]),
        (pa.array([b"a", None, "ä".encode()]), ["a", "", "ä"]),
        (pa.array(["u", None, "u"]).dictionary_encode(), ["u", "", "u"]),
        ([1.0, None, 0.5], ["1", "", "0.5"]),
        ([float("nan"), -0.0, 1e300], ["", "0", canonical_text(1e300)]),
        ([True, None, False], ["true", "", "false"]),
        ([Decimal("2.00"), None, Decimal("2.50")], ["2", "", "2.50"]),
        ([2**60 + 1, None, -3], [str(2**60 + 1), "", "-3"]),
        ([date(2020, 2, 29), None], ["2020-02-29", ""]),
        (pa.array([datetime(2020, 2, 29, 13)], pa.timestamp("ms")), ["2020-02-29 13:00:00.000"]),
        (pa.nulls(2), ["", ""]),
    ],
)
def test_whatever_a_column_holds_can_be_read_as_text(tmp_path: Path, values: Any, texts: list[str]) -> None:  # noqa: ANN401
    assert column(tmp_path, values, "text").tolist() == texts


@pytest.mark.parametrize("kind", ["number", "text", "date"])
@pytest.mark.parametrize("values", [[[1]], [{"x": 1}]])
def test_nested_columns_are_refused(tmp_path: Path, kind: Kind, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"t\.parquet: column 'v' holds (list|struct)<.*>, not "):
        column(tmp_path, values, kind)


def test_ids_are_read_from_every_way_of_storing_text(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        assert column(tmp_path, pa.array(["é ", "x"]).cast(kind), "id").tolist() == ["é", "x"]
    assert column(tmp_path, pa.array([2**63 + 1], pa.uint64()), "id").tolist() == [str(2**63 + 1)]


@pytest.mark.parametrize(
    "values", [["x", None], ["x", " "], [1, None], [1.0, None], [1.0, float("nan")], ["é", None]]
)
def test_a_missing_id_is_an_error_in_every_kind_of_column(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"t\.parquet: the v in row 2 is missing: give every row an id"):
        column(tmp_path, values, "id")


_PIECES = st.sampled_from([*"+-.0123456789eE_ x", "inf", "nan", "NA", "None", "true", "1e5", "١"])
_messy = st.lists(_PIECES, max_size=5).map("".join)


@often
@given(texts=st.lists(_messy, min_size=1, max_size=5))
def test_numbers_in_bulk_are_as_the_rule_for_one_has_them(tmp_path: Path, texts: list[str]) -> None:
    expected = [parse_number(text) for text in texts]
    if None in expected:
        row = expected.index(None) + 1
        with pytest.raises(DataError, match=rf"in column 'v' in row {row} is not a number"):
            column(tmp_path, texts, "number")
    else:
        np.testing.assert_array_equal(column(tmp_path, texts, "number"), np.array(expected, dtype=float))


_dates = st.one_of(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(str),
    st.dates().map(str),
    st.lists(st.sampled_from(["2020", "-", "02", "29", "T", " ", "10", ":", "Z", "+02:00", "NA"])).map(
        "".join
    ),
)


@often
@given(texts=st.lists(_dates, min_size=1, max_size=4))
def test_dates_in_bulk_are_as_the_rule_for_one_has_them(tmp_path: Path, texts: list[str]) -> None:
    expected = [parse_date(text, None) for text in texts]
    try:
        found = column(tmp_path, texts, "date")
    except DataError:
        assert None in expected
        return
    for one, other in zip(found, expected, strict=True):
        assert other is None or one == other or (np.isnat(one) and np.isnat(other))


@often
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=5))
def test_texts_in_bulk_are_as_the_rule_for_one_has_them(tmp_path: Path, texts: list[str]) -> None:
    assert column(tmp_path, texts, "text").tolist() == [canonical_text(text) for text in texts]


@often
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
            st.one_of(st.floats(allow_infinity=False), st.integers(-9, 9).map(float)),
            st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(
                lambda when: when.replace(microsecond=0)
            ),
        ),
        min_size=1,
        max_size=5,
    ),
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_what_is_written_is_read_again(
    tmp_path: Path, name: str, rows: list[tuple[str, float, datetime]]
) -> None:
    texts, numbers, dates = zip(*rows, strict=True)
    columns = {
        "id": np.array([f"{at:03}" for at in range(len(rows))], dtype=object),
        'a, "b"\n;': np.array(texts, dtype=object),
        "x": np.array(numbers),
        "when": np.array(dates, dtype="datetime64[s]"),
    }
    write_file(tmp_path / name, columns)
    file = open_file(name, tmp_path)
    assert file.names == list(columns)
    kinds: list[Kind] = ["id", "text", "number", "date"]
    (block,) = file.blocks(dict(zip(columns, kinds, strict=True)))
    assert block["id"].tolist() == columns["id"].tolist()
    assert block['a, "b"\n;'].tolist() == [canonical_text(text) for text in texts]
    np.testing.assert_array_equal(block["x"], columns["x"])
    assert block["when"].tolist() == columns["when"].tolist()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_missing_values_are_written_so_that_they_are_missing(tmp_path: Path, name: str) -> None:
    columns = {
        "x": np.array([1, math.nan]),
        "t": np.array(["a", None], dtype=object),
        "u": np.array(["a", math.nan], dtype=object),
        "d": np.array(["2020-02-29", "NaT"], dtype="datetime64[D]"),
        "s": np.array(["ä", ""], dtype=np.dtypes.StringDType()),
    }
    write_file(tmp_path / name, columns)
    (block,) = open_file(name, tmp_path).blocks(
        {"x": "number", "t": "text", "d": "date", "s": "text", "u": "text"}
    )
    np.testing.assert_array_equal(block["x"], columns["x"])
    assert block["t"].tolist() == block["u"].tolist() == ["a", ""]
    assert block["s"].tolist() == ["ä", ""]
    assert block["d"].tolist() == [datetime(2020, 2, 29), None]


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    write_file(path, {"a": np.array([1])})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vfl.data.files.os.replace", full)
    with pytest.raises(StorageError, match=r"t\.csv: it cannot be written \(No space left on device\): free"):
        write_file(path, {"a": np.array([2])})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_only_where_it_can_be(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"t\.csv: it cannot be written \(No such file or directory\)"):
        write_file(tmp_path / "none" / "t.csv", {"a": np.array([1])})
    with pytest.raises(StorageError, match=r"t\.xlsx: this kind of file is unknown: give one that ends in"):
        write_file(tmp_path / "t.xlsx", {"a": np.array([1])})


def test_a_data_set_is_loaded_once_and_only_when_a_value_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, float | None]] = []

    def load_dataset(name: str, overlap: float | None) -> dict[str, np.ndarray]:
        loads.append((name, overlap))
        return {
            "id": np.array(["a", "b"], dtype=object),
            "x": np.array([1.5, math.nan]),
            "y": np.array([1, 0]),
        }

    stand_in = ModuleType("vfl.datasets")
    stand_in.dataset_columns = lambda name, overlap: ["id", "x", "y"]  # type: ignore[attr-defined]
    stand_in.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vfl.datasets", stand_in)
    file = open_file("dataset:adult/bank", tmp_path, overlap=0.8)
    assert (file.source, file.names, loads) == ("dataset:adult/bank", ["id", "x", "y"], [])
    for _ in range(2):
        (block,) = file.blocks({"id": "id", "x": "number"})
        assert list(block) == ["id", "x"]
        np.testing.assert_array_equal(block["x"], [1.5, math.nan])
    assert loads == [("adult/bank", 0.8)]


def test_an_overlap_is_for_data_sets_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"builtin:digits: table\.overlap is for dataset: sources only"):
        open_file("builtin:digits", tmp_path, overlap=0.8)
