"""The report of a recommendation: rounds, scores, what each reaches alone; and no rating."""

from __future__ import annotations

import pytest
from test_report_page import Reader

from vfl.report.page import Record, render_report
from vfl.report.record import Alone


@pytest.fixture
def recommended(blank: Record) -> Record:
    blank.update(
        run="films",
        protocol="fedmmf",
        task="recommendation",
        parties=[
            {"name": "north", "role": "participant", "width": None},
            {"name": "carol", "role": "coordinator", "width": None},
        ],
        rows={"train": 900},
        history=[
            {"epoch": e, "valid": {"mae": 0.6 + 0.1 / e, "rmse": 0.9 - 0.01 * e}, "seconds": 0.1}
            for e in range(1, 7)
        ],
        best_epoch=6,
        score="rmse",
        metrics={
            "valid": {"rmse": 0.84, "mae": 0.62},
            "test": {"rmse": 0.86, "mae": 0.65, "ndcg@10": 0.0312, "hr@10": 0.18, "recall@10": 0.01},
        },
        alone={"kind": "each participant", "test": {"rmse": 0.89, "mae": 0.68}},
        notes=["MADE-UP DATA: nothing here is of anything."],
    )
    return blank


def test_the_score_of_each_round_is_drawn_the_one_that_decides_first(recommended: Record) -> None:
    page = render_report(recommended)
    assert page.index('class="plot score"') < page.index('class="plot score1"')
    assert "On the validation ratings; it decides which weights are kept." in page
    assert 'class="plot loss"' not in page


def test_lower_is_better_and_the_gain_is_told_of_all_participants(recommended: Record) -> None:
    read = Reader(render_report(recommended))
    assert "The test RMSE on all participants’ ratings is 0.89" in read.text
    assert "on its own ratings alone" in read.text
    assert "together it is 0.86" in read.text
    assert "Joining makes it better by 0.03" in read.text
    assert read.exact["alone.rmse"] == 0.89
    assert read.exact["test.ndcg@10"] == 0.0312
    assert "The label is held" not in read.text


def test_the_page_has_no_section_and_no_column_for_what_a_recommendation_has_not(
    recommended: Record, binary: Record
) -> None:
    page = render_report(recommended)
    read = Reader(page)
    assert "On the test ratings" not in read.text
    assert 'id="outcome"' not in page
    assert "cut width" not in read.text
    assert "MADE-UP DATA: nothing here is of anything." in read.text
    other = render_report(binary)
    assert 'id="outcome"' in other
    assert "cut width" in other


def test_what_all_participants_learn_is_said_once(recommended: Record) -> None:
    names = [f"p{at}" for at in range(1, 41)]
    recommended["parties"] = [
        *({"name": name, "role": "participant", "width": None} for name in names),
        {"name": "carol", "role": "coordinator", "width": None},
    ]
    recommended["learned"] = [
        *({"party": name, "learns": "The shared factors."} for name in names[:-1]),
        {"party": "p40", "learns": "The shared factors, and more."},
        {"party": "carol", "learns": "The sums."},
        {"party": "whoever listens", "learns": "Nothing."},
    ]
    read = Reader(render_report(recommended))
    assert read.text.count("The shared factors.") == 1
    assert "p1, p2, p3, p4, p5 and 34 moreparticipantThe shared factors." in read.text
    assert "p40participantThe shared factors, and more." in read.text
    assert "carolcoordinatorThe sums." in read.text
    assert "whoever listensNothing." in read.text


def test_parties_with_a_cut_width_are_told_apart(binary: Record) -> None:
    binary["learned"] = [{"party": one["name"], "learns": "The same."} for one in binary["parties"]]
    assert Reader(render_report(binary)).text.count("The same.") == 3


@pytest.mark.parametrize("alone", [None, {"kind": "not measured", "test": {}}])
def test_without_what_is_reached_alone_the_page_is_made_all_the_same(
    recommended: Record, alone: Alone | None
) -> None:
    recommended["alone"] = alone
    read = Reader(render_report(recommended))
    assert "Nothing was measured alone" in read.text
    assert "test RMSE 0.86" in read.text


def test_scores_that_joining_makes_worse_are_named_beside_the_one_that_decides(recommended: Record) -> None:
    alone, together = recommended["alone"]["test"], recommended["metrics"]["test"]
    for name in ("hr@10", "ndcg@10"):
        alone[name], together[name] = 0.26, 0.2
    assert "better by 0.03" in Reader(render_report(recommended)).text
    assert "better by 0.030, and NDCG@10 and HR@10 worse." in Reader(render_report(recommended)).text
    alone["hr@10"] = alone["ndcg@10"] = 0.1
    assert "worse" not in Reader(render_report(recommended)).text.partition("Joining")[2].partition(".")[0]
