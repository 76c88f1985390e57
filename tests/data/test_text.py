from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.data.text import canonical_text, did_you_mean, parse_date, parse_number, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1.0", "1"),
        (" 1 ", "1"),
        ("-0.0", "0"),
        (-0.0, "0"),
        (np.int64(3), "3"),
        (0.5, "0.5"),
        ("007", "007"),
        ("0.50", "0.50"),
        (True, "true"),
        ("e\u0301", "\u00e9"),
        (Decimal("2.00"), "2"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_a_category_is_written_one_way(value: object, text: str) -> None:
    assert canonical_text(value) == text


@given(value=st.one_of(st.text(), st.floats(allow_infinity=False), st.integers(), st.none()))
def test_canonical_text_is_its_own_canonical_text(value: object) -> None:
    once = canonical_text(value)
    assert canonical_text(once) == once


@given(number=st.floats())
def test_a_number_is_read_from_how_it_is_written(number: float) -> None:
    assert parse_number(f" {number!r}\t") == number or math.isnan(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("True", 1),
        (" false", 0),
        ("+1", 1),
        (".5", 0.5),
        ("1_0", None),
        ("١", None),
        ("0x1", None),
        ("1,5", None),
    ],
)
def test_only_plain_numbers_and_truth_values_are_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "NA", "n/a", "NaN", "null", "None", "NaT"])
def test_a_word_for_nothing_is_a_missing_number_and_a_missing_date(text: str) -> None:
    number, when = parse_number(text), parse_date(text, None)
    assert number is not None
    assert math.isnan(number)
    assert when is not None
    assert np.isnat(when)


@pytest.mark.parametrize(
    ("text", "form", "when"),
    [
        ("2020-02-29", None, datetime(2020, 2, 29)),
        ("2020-02-29T01:30:00+02:00", None, datetime(2020, 2, 28, 23, 30)),
        ("29.2.2020 ", "%d.%m.%Y", datetime(2020, 2, 29)),
        ("29.2.2020 01:30 +0200", "%d.%m.%Y %H:%M %z", datetime(2020, 2, 28, 23, 30)),
        ("30.2.2020", "%d.%m.%Y", None),
        ("2020-02-29", "%d.%m.%Y", None),
        ("2020-02-30", None, None),
        ("0001-01-01T00:00:00+02:00", None, None),
        ("2020", "%", None),
        ("2020", "%Q", None),
    ],
)
def test_a_date_is_read_as_the_format_says(text: str, form: str | None, when: datetime | None) -> None:
    assert parse_date(text, form) == (None if when is None else np.datetime64(when, "s"))


def test_what_is_shown_is_one_short_line() -> None:
    assert shown(np.float64(1.5)) == "1.5"
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1000)) == 60


def test_a_close_name_is_proposed_or_else_the_first_few() -> None:
    assert did_you_mean("incom", ["age", "income"]) == "did you mean 'income'?"
    known = [f"c{at}" for at in range(9)]
    assert did_you_mean("zzz", known) == "there is 'c0', 'c1', 'c2', 'c3', 'c4', 'c5' and 3 more"


def test_truth_values_and_short_floats_are_written_as_text_tables_have_them() -> None:
    assert {canonical_text(value) for value in (True, "True", "true", "TRUE", np.True_)} == {"true"}
    assert canonical_text(np.float32(0.1)) == canonical_text("0.1") == canonical_text(0.1) == "0.1"
    assert canonical_text(np.float32(3)) == "3"
