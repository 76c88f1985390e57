"""The data sets themselves: what the catalogue says is what the originals hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tiny_originals import ROWS

from vfl.data.files import open_file
from vfl.datasets import dataset_columns, load_dataset, split_dataset
from vfl.datasets.catalogue import DATASETS, Dataset, find_dataset
from vfl.datasets.originals import DATA_VARIABLE, Original
from vfl.datasets.parsing import parse_adult, parse_bank, parse_credit, parse_mnist
from vfl.errors import ConfigError, DataError

ORIGINALS = os.environ.get(DATA_VARIABLE, "")  # before any fixture takes it away
NAMES = list(DATASETS)
TABLES = [name for name in NAMES if DATASETS[name].shares_rows]


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Dataset]:
    """Finds a data set whose originals are on this machine, or skips."""

    def find(name: str) -> Dataset:
        dataset = find_dataset(name)
        if dataset.originals and not (ORIGINALS and Path(ORIGINALS).is_dir()):
            pytest.skip(f"{DATA_VARIABLE} names no folder with the originals of {name}")
        if dataset.originals:
            monkeypatch.setenv(DATA_VARIABLE, str(Path(ORIGINALS).resolve()))
        return dataset

    return find


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_says_where_it_is_from_and_under_which_terms(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name
    for words in (dataset.what, dataset.licence, dataset.citation, dataset.origin, dataset.ids):
        assert words.strip() == words != ""
    for original in dataset.originals:
        assert original.url.startswith("https://")
        assert original.sha256
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in original.sha256)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_one_label_and_every_column_once(name: str) -> None:
    parties = DATASETS[name].parties
    columns = [column for party in parties for column in party.columns]
    assert len(columns) == len(set(columns))
    assert "id" not in columns
    assert sum(bool(party.label) for party in parties) == 1
    for party in parties:
        assert {party.label, *party.categorical, *party.aside} - {""} <= set(party.columns)
        kinds = [*party.numeric, *party.categorical, *party.aside, *filter(None, [party.label])]
        assert sorted(kinds) == sorted(party.columns)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_of_the_originals_is_at_one_party_or_named_as_left_out(
    name: str, at_hand: Callable[[str], Dataset]
) -> None:
    dataset = at_hand(name)
    tables = split_dataset(dataset)
    given = {column for party in dataset.parties for column in party.columns}
    if not dataset.shares_rows:
        for cut in ("shop", "club"):
            parts = [tables[party.name] for party in dataset.parties if party.name.startswith(cut)]
            assert sum(len(part["user"]) for part in parts) in ({dataset.rows} if parts else {0})
        assert sorted(tables) == sorted(dataset.files())
        assert {name: list(columns) for name, columns in tables.items()} == {
            name: dataset.columns(name) for name in dataset.files()
        }
        assert given == {"user", "movie", "rating", "timestamp"}
        return
    whole = _parsed(dataset)
    assert set(whole) - {"id"} == given | {column for column, _ in dataset.left_out}
    for party in dataset.parties:
        assert list(tables[party.name]) == ["id", *party.columns]
        assert len(set(tables[party.name]["id"])) == dataset.rows
        for column in party.columns:
            text = tables[party.name][column].dtype == object
            assert not text or column in {party.label, *party.categorical, *party.aside}
            if text and not party.missing:
                assert "" not in tables[party.name][column]


SHARES = {
    "breast-cancer": {"benign": 357, "malignant": 212},
    "digits": dict(zip(range(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180], strict=True)),
    "credit-default": {0: 23364, 1: 6636},
    "bank-marketing": {"no": 39922, "yes": 5289},
    "adult": {"<=50K": 37155, ">50K": 11687},
    "mnist": dict(zip(range(10), [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958], strict=True)),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_label_has_the_published_shares(name: str, at_hand: Callable[[str], Dataset]) -> None:
    dataset = at_hand(name)
    holder = next(party for party in dataset.parties if party.label)
    values, counts = np.unique(load_dataset(f"{name}/{holder.name}", None)[holder.label], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == SHARES[name]


@pytest.mark.parametrize("name", TABLES)
def test_a_source_reads_as_the_columns_say_and_shares_what_was_asked(
    name: str, at_hand: Callable[[str], Dataset]
) -> None:
    dataset = at_hand(name)
    held = []
    for party in dataset.parties:
        source = f"{name}/{party.name}"
        table = load_dataset(source, 0.8)
        assert list(table) == dataset_columns(source, 0.8)
        assert load_dataset(source, 0.8)["id"] is table["id"], "the second call reads nothing"
        held.append(set(table["id"].tolist()))
        file = open_file(f"dataset:{source}", Path(), overlap=0.8)
        block = next(file.blocks({"id": "id", party.columns[0]: "text"}))
        assert block["id"].tolist() == table["id"][: len(block["id"])].tolist()
    assert len(set.intersection(*held)) == int(0.8 * dataset.rows + 0.5)
    assert len(set.union(*held)) == dataset.rows


def test_the_official_split_of_mnist_is_kept_and_the_halves_fit(at_hand: Callable[[str], Dataset]) -> None:
    at_hand("mnist")
    left, right = (load_dataset(f"mnist/{side}", None) for side in ("left", "right"))
    training = left["official"] == "train"
    assert training.sum() == 60_000
    assert set(left["id"][~training]) == {f"mnist-{place:05}" for place in range(60_001, 70_001)}
    first = [int(np.flatnonzero(side["id"] == "mnist-00001")[0]) for side in (left, right)]
    rows = [
        [int(side[f"p_14_{column:02}"][at]) for column in range(start, start + 14)]
        for side, at, start in zip((left, right), first, (0, 14), strict=True)
    ]
    assert left["digit"][first[0]] == 5
    # The middle of the well-known first image, a 5.
    assert [value for value in rows[0] + rows[1] if value] == [81, 240, 253, 253, 119, 25]
    assert [name for name in left if name.startswith("p_")][13:15] == ["p_00_13", "p_01_00"]


ADULT = [
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, "
    "40, United-States, <=50K",
    "50, ?, 83311, Bachelors, 13, Divorced, ?, Husband, White, Male, 0, 0, 13, ?, >50K",
]
ADULT_FORMS = {
    "as UCI serves it": ("{0}\n{1}\n\n", "|1x3 Cross validator\n{0}.\n{1}.\n\n"),
    "bare": ("{0}\n{1}\n", "{0}\n{1}"),
    "from Windows": ("{0}\r\n{1}\r\n\r\n", "|1x3 Cross validator\r\n{0}.\r\n{1}.\r\n"),
    "without blanks": ("{2}\n{3}\n", "{2}.\n{3}.\n"),
}


@pytest.mark.parametrize("form", ADULT_FORMS)
def test_adult_reads_alike_in_every_known_form(form: str) -> None:
    lines = [*ADULT, *(line.replace(", ", ",") for line in ADULT)]
    data, test = (text.format(*lines).encode() for text in ADULT_FORMS[form])
    table = parse_adult({"adult.data": data, "adult.test": test})
    assert table["id"].tolist() == ["adult-1", "adult-2", "adult-3", "adult-4"]
    assert table["age"].tolist() == [39, 50, 39, 50]
    assert table["age"].dtype == np.int64
    assert table["workclass"].tolist() == ["State-gov", "", "State-gov", ""]
    assert table["native_country"].tolist() == ["United-States", "", "United-States", ""]
    assert table["income"].tolist() == ["<=50K", ">50K", "<=50K", ">50K"]


def test_missing_numbers_are_nan_and_fractions_stay() -> None:
    head = b"ID,X,default.payment.next.month\n"
    table = parse_credit({"UCI_Credit_Card.csv": head + b"7,,1\n8,2.5,0\n"})
    assert table["id"].tolist() == ["7", "8"]
    assert np.isnan(table["X"][0])
    assert table["X"][1] == 2.5


@pytest.mark.parametrize(
    ("parse", "contents"),
    [
        (parse_adult, {"adult.data": b"1,2,3\n", "adult.test": b""}),
        (parse_bank, {"bank-full.csv": b'"age";"job"\n1\n'}),
        (parse_bank, {"bank-full.csv": b"\xff\xfe"}),
        (parse_credit, {"UCI_Credit_Card.csv": b""}),
        (parse_mnist, dict.fromkeys([one.name for one in DATASETS["mnist"].originals], b"\0\0\x08\x03junk")),
    ],
)
def test_an_original_of_another_shape_is_one_line(
    parse: Callable[[Mapping[str, bytes]], object], contents: Mapping[str, bytes]
) -> None:
    with pytest.raises(DataError, match="get the original"):
        parse(contents)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adlut/employer", "adlut: there is no such data set: did you mean 'adult'"),
        ("adult/employers", "did you mean 'employer'"),
        ("adult", "say whose part: dataset:adult/employer, dataset:adult/registry"),
        ("movielens", "dataset:movielens/club_a, dataset:movielens/club_b, dataset:movielens/club_c, "),
        ("movielens/film", "there is no such party in it"),
    ],
)
def test_a_source_that_is_none_is_an_error_that_names_the_right_one(name: str, words: str) -> None:
    for read in (dataset_columns, load_dataset):
        with pytest.raises(DataError, match=re.escape(words)):
            read(name, None)


def test_naming_columns_reads_no_original(register: Callable[[Original], Dataset]) -> None:
    register(Original("tiny.csv", "http://127.0.0.1:9/tiny.csv", ("0" * 64,)))
    assert dataset_columns("tiny/clinic", 0.5) == ["id", "height", "ill"]
    with pytest.raises(ConfigError, match="overlap is 2"):
        dataset_columns("tiny/clinic", 2)
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset("tiny/clinic", 0.5)


def test_what_was_read_cannot_be_changed_for_the_next_reader() -> None:
    table = load_dataset("digits/reader", None)
    with pytest.raises(ValueError, match="read-only"):
        table["digit"][0] = 3
    table.clear()
    assert len(load_dataset("digits/reader", None)["digit"]) == 1797


def test_another_vfl_data_is_read_anew(
    originals: Path,
    register: Callable[[Original], Dataset],
    monkeypatch: pytest.MonkeyPatch,
    tiny: Original,
) -> None:
    register(tiny)
    assert len(load_dataset("tiny/town", None)["id"]) == ROWS
    monkeypatch.setenv(DATA_VARIABLE, str(originals / "nowhere"))
    with pytest.raises(ConfigError, match="there is no such folder"):
        load_dataset("tiny/town", None)


def _parsed(dataset: Dataset) -> Mapping[str, np.ndarray]:
    from vfl.datasets.originals import read_originals

    return dataset.parse(read_originals(dataset.name, dataset.originals))


def test_the_page_names_every_hash_and_address_of_the_catalogue() -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for dataset in DATASETS.values():
        assert f"### {dataset.name}\n" in page
        assert f"| `{dataset.name}` | {dataset.rows:,} |" in page
        for original in dataset.originals:
            folder, _, name = original.url.rpartition("/")
            assert original.url in page or (folder in page and name == f"{original.name}.gz")
            assert all(digest in page for digest in original.sha256)
