from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest

from vfl.report import figures
from vfl.report.figures import Band, Drawing, Pair

TRUTH = np.array([0, 0, 0, 1, 1, 1, 1, 0])
OUTPUT = np.array([0.1, 0.2, 0.6, 0.55, 0.8, 0.9, 0.97, 0.02])

DRAWN: dict[str, Callable[[], Drawing]] = {
    "comparison": lambda: figures.draw_comparison([Band("hint", [Pair("AUC", 0.87, 0.99)])]),
    "loss": lambda: figures.draw_curves("loss", "loss", [1, 2, 3], [0.5, 0.4, 0.45], [0.6, 0.4, 0.3], 2),
    "roc": lambda: figures.draw_roc(TRUTH, OUTPUT),
    "calibration": lambda: figures.draw_calibration(TRUTH, OUTPUT),
    "confusion": lambda: figures.draw_confusion(np.array([[3, 1], [0, 4]]), ["cat", "dog"]),
    "predictions": lambda: figures.draw_predictions(TRUTH * 2.0, OUTPUT),
}
drawn = functools.cache(lambda name: DRAWN[name]())
every_figure = pytest.mark.parametrize("name", DRAWN)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>(.*?)</text>", svg)


@every_figure
def test_the_same_numbers_give_the_same_bytes(name: str) -> None:
    assert DRAWN[name]() == drawn(name)


@every_figure
def test_a_figure_takes_its_colours_from_the_page(name: str) -> None:
    svg = drawn(name).svg
    assert "currentColor" in svg
    assert not re.search(r"#[0-9a-fA-F]{6}\b|rgb\(", svg)


@every_figure
def test_a_figure_brings_no_stylesheet_address_or_metadata(name: str) -> None:
    svg = drawn(name).svg
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert not re.search(r"<style|<metadata|<\?xml|<!|http|xlink|<image|\n", svg)


@every_figure
def test_every_reference_inside_a_figure_is_to_itself(name: str) -> None:
    svg = drawn(name).svg
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith(f"{name}-") for one in ids)
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }


@every_figure
def test_a_figure_fits_half_a_column_and_says_in_words_what_it_shows(name: str) -> None:
    drawing = drawn(name)
    assert drawing.width_px == figures.HALF_PX
    assert f'viewBox="0 0 {figures.HALF_PX} ' in drawing.svg
    assert drawing.alt.endswith(".")
    assert texts(drawing.svg)


def test_the_callers_style_neither_shows_nor_changes() -> None:
    plain = drawn("roc")
    mine = {"lines.linewidth": 9.0, "font.size": 30.0, "svg.fonttype": "path", "axes.facecolor": "red"}
    with matplotlib.rc_context(mine):
        assert DRAWN["roc"]() == plain
        assert all(matplotlib.rcParams[key] == value for key, value in mine.items())


def test_drawing_never_starts_pyplot() -> None:
    code = (
        "import sys, numpy as np; from vfl.report.figures import draw_predictions as draw; "
        "draw(np.arange(3.0), np.arange(3.0)); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_class_name_is_shown_as_it_is_written() -> None:
    names = ["<script>", "$x^{2$", 'id="a"', "#010203", "漢字", "two\nlines"]
    shown = texts(figures.draw_confusion(np.eye(6, dtype=int), names).svg)
    for name in ("&lt;script&gt;", "$x^{2$", 'id="a"', "#010203", "漢字", "two lines"):
        assert shown.count(name) == 2


def test_a_confusion_matrix_shows_every_count_that_is_not_zero() -> None:
    counts = np.array([[30, 2, 0], [0, 12_345, 0], [7, 0, 999]])
    drawing = figures.draw_confusion(counts, ["a", "b", "c"])
    assert texts(drawing.svg)[6:11] == ["30", "2", "12k", "7", "999"]
    assert drawing.alt == "Confusion matrix of 3 classes: 13374 of 13383 rows are right."


def test_a_class_without_rows_leaves_its_row_of_the_matrix_empty() -> None:
    drawing = figures.draw_confusion(np.array([[2, 0], [0, 0]]), ["a", "b"])
    assert texts(drawing.svg).count("2") == 1


@pytest.mark.parametrize(("c", "most_px"), [(2, 352), (10, 352), (20, 736)])
def test_the_squares_of_a_matrix_stay_large_enough_to_read(c: int, most_px: int) -> None:
    drawing = figures.draw_confusion(np.full((c, c), 88), [f"k{i}" for i in range(c)])
    assert drawing.width_px <= most_px
    starts = [float(x) for x in re.findall(r'<text[^>]* x="([0-9.]+)"[^>]*>88<', drawing.svg)[:2]]
    assert starts[1] - starts[0] >= 29.9


def test_a_loss_that_ran_away_leaves_a_gap() -> None:
    drawing = figures.draw_curves("loss", "loss", [1, 2, 3], None, [0.5, float("inf"), float("nan")], 3)
    assert "training 0.500 at epoch 1, – at epoch 3" in drawing.alt


def test_one_epoch_is_a_dot() -> None:
    drawing = figures.draw_curves("score", "AUC", [1], [0.9], None, 1)
    assert "best: epoch 1" in texts(drawing.svg)
    assert [t for t in texts(drawing.svg) if t.isdigit()] == ["1"]


def test_epochs_are_whole_numbers_that_happened() -> None:
    drawing = figures.draw_curves("score", "AUC", list(range(1, 101)), [0.9] * 100)
    assert [t for t in texts(drawing.svg) if t.isdigit()] == ["20", "40", "60", "80", "100"]


def test_a_best_epoch_that_is_not_drawn_is_not_marked() -> None:
    drawing = figures.draw_curves("score", "AUC", [3, 4], [0.9, 0.8], None, 2)
    assert not [t for t in texts(drawing.svg) if t.startswith("best")]


@pytest.mark.parametrize(
    ("pair", "shown"),
    [
        (Pair("R²", -12.5, 0.25), {"−12.50", "0.250"}),
        (Pair("AUC", 0.5, 0.5), {"0.500"}),
        (Pair("AUC", None, 0.75), {"0.750"}),
        (Pair("RMSE", 3e7, 1e7), {"30,000,000", "10,000,000"}),
    ],
)
def test_dots_carry_their_numbers(pair: Pair, shown: set[str]) -> None:
    assert shown <= set(texts(figures.draw_comparison([Band("", [pair])]).svg))


def test_the_smaller_number_stands_left_of_its_dot_and_the_larger_right() -> None:
    svg = figures.draw_comparison([Band("", [Pair("AUC", 0.9912, 0.9911)])]).svg
    assert re.search(r"text-anchor: end[^>]*>0.991<", svg)
    assert re.search(r"text-anchor: start[^>]*>0.991<", svg)


def test_the_roc_curve_tells_its_area_and_the_rates_at_one_half() -> None:
    drawing = figures.draw_roc(TRUTH, OUTPUT)
    assert "AUC 0.938" in texts(drawing.svg)
    assert "false positive rate is 0.250 and the true positive rate 1.000" in drawing.alt


def test_the_calibration_counts_the_rows_behind_each_dot() -> None:
    output = np.array([0.0, 0.1, 0.10001, 0.95, 1.0])
    alt = figures.draw_calibration(np.array([0, 0, 1, 1, 1]), output).alt
    assert re.findall(r"\((\d+) rows\)", alt) == ["2", "1", "2"]


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert figures.wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert figures.wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert figures.wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_many_rows_are_thinned_evenly() -> None:
    values = np.arange(100_000, dtype=np.float64)
    drawing = figures.draw_predictions(values, values)
    assert 1400 < drawing.svg.count("<use ") <= 1520
    assert "of 1500 rows, from 0.000 to 99,999" in drawing.alt


@pytest.mark.parametrize("value", [0.0, 7.5, -1e6])
def test_values_that_are_all_equal_can_be_drawn(value: float) -> None:
    assert figures.draw_predictions(np.full(3, value), np.full(3, value)).svg
