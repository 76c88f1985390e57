from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.report import words

UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


@pytest.mark.parametrize(
    ("n", "said"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.50 KiB"), (14_848, "14.5 KiB"), (3 * 1024**2, "3 MiB")],
)
def test_bytes_are_said_in_the_unit_that_fits(n: float, said: str) -> None:
    assert words.humane_bytes(n) == said.replace(" ", "\u00a0")


@given(st.floats(1, 1e15))
def test_bytes_are_never_said_more_than_half_a_percent_off(n: float) -> None:
    number, unit = words.humane_bytes(n).split("\u00a0")
    assert float(number.replace(",", "")) * UNITS[unit] == pytest.approx(n, rel=0.0051)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0000021, "2.1 µs"),
        (0.0411, "41 ms"),
        (0.9996, "1.0 s"),
        (6.1034, "6.1 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600 * 26 + 60 * 4, "26 h 04 min"),
    ],
)
def test_seconds_are_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert words.humane_seconds(seconds) == said.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdef"), "a, b, c, d, e and f"),
        (list("abcdefg"), "a, b, c, d, e and 2 more"),
        ([f"p{at}" for at in range(2000)], "p0, p1, p2, p3, p4 and 1,995 more"),
    ],
)
def test_many_names_are_said_by_the_first_few(names: list[str], said: str) -> None:
    assert words.named(names) == said


def test_what_is_the_same_of_several_is_said_once() -> None:
    said = [("a", "x."), ("b", "y."), ("c", "x.")]
    assert words.said_once(said) == [("a and c", "x."), ("b", "y.")]


@given(st.floats(0.9, 1, exclude_max=True))
def test_a_score_short_of_perfect_is_not_said_to_be_perfect(value: float) -> None:
    said = words.humane_score(value)
    assert said != "1.000"
    assert float(said) == pytest.approx(value, abs=0.0005)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (0.0, "0.000"),
        (1.0, "1.000"),
        (-0.0127, "−0.013"),
        (0.00012, "0.00012"),
        (56.768, "56.77"),
        (123_456.7, "123,457"),
        (3.2e12, "3.2e+12"),
    ],
)
def test_scores_are_said_to_three_places_unless_that_hides_them(value: float | None, said: str) -> None:
    assert words.humane_score(value) == said


def test_a_difference_wears_its_sign() -> None:
    assert [words.humane_score(x, signed=True) for x in (0.1, -0.1, 0.0)] == ["+0.100", "−0.100", "0.000"]


@given(st.text(max_size=60), st.integers(1, 20))
def test_a_short_name_is_one_printable_line(name: str, most: int) -> None:
    said = words.short(name, most)
    assert len(said) <= most
    assert said.isprintable()


def test_a_name_that_fits_is_left_alone() -> None:
    assert words.short("river bank") == "river bank"
    assert words.short("coniferous forest") == "coniferous fo…"


def test_counts_are_said_in_words_up_to_ten() -> None:
    assert words.counted(0, "party", "parties") == "no parties"
    assert words.counted(1, "party", "parties") == "one party"
    assert words.counted(16, "party", "parties") == "16 parties"
    assert words.counted(1024, "epoch") == "1,024 epochs"


def test_lists_read_as_in_a_sentence() -> None:
    assert [words.listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_moment_is_said_as_people_write_it() -> None:
    assert words.humane_time("2026-03-05T14:07:31+00:00") == "5 March 2026, 14:07 UTC"
    assert words.humane_time("2026-03-05T14:07:31") == "5 March 2026, 14:07"
    assert words.humane_time("yesterday") == "yesterday"


def test_a_score_that_only_rounding_puts_above_1_is_1() -> None:
    assert words.humane_score(1.0000000000000002) == "1.000"
    assert words.humane_score(0.9999999999) == "0.999999"
