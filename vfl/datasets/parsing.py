"""Originals turned into one table each: [n] a column, text as text, whole numbers as int64.

Every function takes what the originals hold, by file name, and returns columns by name, `id` first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from vfl.data.builtin import builtin_columns, load_builtin
from vfl.errors import DataError

Contents = Mapping[str, bytes]
Columns = dict[str, np.ndarray]

ADULT_COLUMNS: Final = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country",
    "income",
)  # fmt: skip
_ADULT_NUMBERS: Final = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_BANK_NUMBERS: Final = ("age", "balance", "day", "duration", "campaign", "pdays", "previous")
_SIDE: Final = 28


def parse_breast_cancer(contents: Contents) -> Columns:
    """Reads scikit-learn's own copy."""
    table = load_builtin("breast_cancer", builtin_columns("breast_cancer"))
    return {**table, "id": _made_ids("breast-cancer", len(table["id"]))}


def parse_digits(contents: Contents) -> Columns:
    """Reads scikit-learn's own copy."""
    table = load_builtin("digits", builtin_columns("digits"))
    return {**table, "id": _made_ids("digit", len(table["id"]))}


def parse_credit(contents: Contents) -> Columns:
    """Reads the credit table; its own ID is the id, and every code stays the number that it is."""
    header, rows = _rows(contents["UCI_Credit_Card.csv"], "UCI_Credit_Card.csv")
    table = dict(zip(header, _turned(rows), strict=True))
    ids = np.array(table.pop("ID"), dtype=object)  # [n]
    columns = {name: _numbers(values) for name, values in table.items()}
    columns["default"] = columns.pop("default.payment.next.month")
    return {"id": ids, **columns}


def parse_bank(contents: Contents) -> Columns:
    """Reads the bank table; "unknown" stays a category, as its description has it."""
    header, rows = _rows(contents["bank-full.csv"], "bank-full.csv", delimiter=";")
    table = dict(zip(header, _turned(rows), strict=True))
    return {"id": _made_ids("client", len(rows)), **_mixed(table, _BANK_NUMBERS)}


def parse_adult(contents: Contents) -> Columns:
    """Reads both parts of adult, training rows first; "?" becomes "", which is missing.

    The parts come in several forms: with or without a first line of comment, a full stop after each
    label, an empty last line.
    """
    rows: list[list[str]] = []
    for name in ("adult.data", "adult.test"):
        lines = (line for line in _text(contents[name], name).split("\n") if not line.startswith("|"))
        rows += _even(csv.reader(lines, skipinitialspace=True), name, len(ADULT_COLUMNS))
    table = dict(zip(ADULT_COLUMNS, _turned(rows), strict=True))
    table["income"] = [label.rstrip(".") for label in table["income"]]
    mixed = _mixed(table, _ADULT_NUMBERS)
    for values in mixed.values():
        if values.dtype == object:
            values[values == "?"] = ""
    return {"id": _made_ids("adult", len(rows)), **mixed}


def parse_mnist(contents: Contents) -> Columns:
    """Reads the 70,000 images, training images first: pixels p_ROW_COLUMN from 0 to 255, as uint8."""
    parts = [("train", "train"), ("t10k", "test")]
    images = [_idx(contents, f"{part}-images-idx3-ubyte", (_SIDE, _SIDE)) for part, _ in parts]
    labels = np.concatenate([_idx(contents, f"{part}-labels-idx1-ubyte", ()) for part, _ in parts])  # [n]
    # One row a pixel, so that a column lies in one piece.
    pixels = np.ascontiguousarray(np.concatenate(images).reshape(len(labels), -1).T)  # [p, n]
    names = [f"p_{row:02}_{column:02}" for row in range(_SIDE) for column in range(_SIDE)]
    official = np.repeat(np.array([part for _, part in parts], dtype=object), [len(part) for part in images])
    return {
        "id": _made_ids("mnist", len(labels)),
        **dict(zip(names, pixels, strict=True)),
        "digit": labels.astype(np.int64),
        "official": official,
    }


def parse_movielens(contents: Contents) -> Columns:
    """Reads the ratings, [n] a column, each with its movie's title and genres."""
    _, ratings = _rows(contents["ratings.csv"], "ratings.csv")
    _, movies = _rows(contents["movies.csv"], "movies.csv")
    titles = {movie: (title, genres) for movie, title, genres in movies}
    user, movie, rating, timestamp = _turned(ratings)
    return {
        "id": np.array([f"{who}-{what}" for who, what in zip(user, movie, strict=True)], dtype=object),
        "user": _numbers(user),
        "movie": _numbers(movie),
        "rating": np.array(rating, dtype=np.float64),
        "timestamp": _numbers(timestamp),
        "title": np.array([titles[one][0] for one in movie], dtype=object),
        "genres": np.array([titles[one][1] for one in movie], dtype=object),
    }


def _made_ids(stem: str, n: int) -> np.ndarray:
    """Makes ids by place in the original, "adult-00001" onwards: [n] object."""
    width = len(str(n))
    return np.array([f"{stem}-{place:0{width}}" for place in range(1, n + 1)], dtype=object)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: it is not UTF-8 text: get the original") from error


def _rows(content: bytes, name: str, delimiter: str = ",") -> tuple[list[str], list[list[str]]]:
    reader = csv.reader(io.StringIO(_text(content, name), newline=""), delimiter=delimiter)
    header = next(reader, [])
    return header, _even(reader, name, len(header))


def _even(rows: Iterable[list[str]], name: str, width: int) -> list[list[str]]:
    kept = [row for row in rows if row]
    if not kept or any(len(row) != width for row in kept):
        raise DataError(f"{name}: not every row has {width} values: get the original")
    return kept


def _turned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _mixed(table: Mapping[str, Sequence[str]], numbers: Sequence[str]) -> Columns:
    return {
        name: _numbers(values)
        if name in numbers
        else np.array([text.strip() for text in values], dtype=object)
        for name, values in table.items()
    }


def _numbers(texts: Sequence[str]) -> np.ndarray:
    """Reads one column of numbers: [n] int64 where all are whole and there, else float64 with NaN."""
    values = np.array([text or "nan" for text in texts], dtype=np.float64)  # [n]
    if np.isnan(values).any():
        return values
    whole = values.astype(np.int64)
    return whole if np.array_equal(whole, values) else values


def _idx(contents: Contents, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an idx file of bytes: a magic number that ends in the rank, the sizes, the values."""
    data = contents[name]
    rank = 1 + len(shape)
    sizes = np.frombuffer(data[: 4 * (1 + rank)], dtype=">u4").tolist()
    fits = len(sizes) == 1 + rank and sizes[0] == 0x0800 + rank and tuple(sizes[2:]) == shape
    if not fits or len(data) != 4 * (1 + rank) + math.prod(sizes[1:]):
        raise DataError(f"{name}: it is not an idx file of {rank} dimensions: get the original")
    return np.frombuffer(data, dtype=np.uint8, offset=4 * (1 + rank)).reshape(sizes[1:])
