"""Who learns what is said of the job at hand: without the options that it does not use."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import protocols
from protocols.fedmmf import Config
from protocols.fedmmf.roster import _named, learns
from vfl.session import Member, Session

DRAWN = protocols.load("fedmmf").learns
CONDITIONS = {"plain", "masked", "adaptive", "paillier", "als", "sgd", "of two", "absence", "rated only"}


def said(k: int = 3, goes_on: bool = False, **options: Any) -> dict[str, str]:  # noqa: ANN401
    members = {f"p{at}": Member("participant", None) for at in range(k)}
    session = Session(
        "c", "c", {**members, "c": Member("coordinator", None)}, options=Config(**options), goes_on=goes_on
    )
    return learns(session, DRAWN)


def every_job() -> list[dict[str, str]]:
    every = itertools.product(
        ["als", "sgd"], ["plain", "masked", "adaptive", "paillier"], ["rated", "all"], ["user", "item"],
        [2, 3], [False, True],
    )  # fmt: skip
    return [
        said(k, goes_on, solver=solver, aggregation=aggregation, paillier_items=items, by=by)
        for solver, aggregation, items, by, k, goes_on in every
        if not (aggregation == "adaptive" and k == 2)
    ]


def test_every_statement_is_of_conditions_that_are_known_and_is_made_of_some_job() -> None:
    jobs = every_job()
    for key in DRAWN:
        who, *conditions = key.split(", ")
        assert who in ("participant", "coordinator", "whoever asks for recommendations")
        assert {one for each in conditions for one in each.split("|")} <= CONDITIONS
        whole = {_named(DRAWN[key], Config(by=by)) for by in ("user", "item")}
        assert any(one in words for one in whole for job in jobs for words in job.values()), key


def test_no_word_is_of_an_option_that_the_job_does_not_use() -> None:
    for job in every_job():
        for words in job.values():
            assert not any(option in words for option in ('"', " = ", "paillier", "adaptive", "entit"))
            assert words.strip().endswith(".")
            assert "  " not in words
            assert ".." not in words


@pytest.mark.parametrize("aggregation", ["plain", "masked", "adaptive", "paillier"])
def test_mu_is_explained_wherever_it_is_named(aggregation: str) -> None:
    for name in ("p0", "c"):
        words = said(aggregation=aggregation)[name]
        assert words.count("mu, the mean of what the masks leave") == 1
        assert words.count("mu") == 1


def test_what_two_can_find_of_each_other_is_said_where_two_may_be_left() -> None:
    assert "Of two participants" not in said(3)["p0"]
    assert "can find the other's sums nearly, by" in said(2)["p0"]
    assert "can find the other's sums nearly, by" in said(3, goes_on=True)["p0"]
    assert "can find the other's sums exactly, by" in said(2, aggregation="paillier")["p0"]
    assert "can find the other's sums by taking" in said(2, solver="sgd")["p0"]


def test_what_an_option_brings_is_said_where_it_is_used() -> None:
    assert "Who chose masks" in said(aggregation="adaptive")["p0"]
    assert "Who chose masks" not in said()["p0"]
    rated = {"aggregation": "paillier", "paillier_items": "rated"}
    assert "Which items have ratings where" in said(**rated)["c"]
    assert "Which users have ratings where" in said(**rated, by="item")["c"]
    assert "how many ratings each item has in all" in said()["c"]
    assert "of some unnamed users, with which items they have ratings" in said()["c"]
    assert "of some unnamed items, with which users they have ratings" in said(by="item")["c"]
    assert "unnamed" not in said(solver="sgd")["c"]
    assert "much where it has one" in said(solver="sgd")["p0"]


def test_whoever_reads_the_sums_is_told_what_a_loss_shows() -> None:
    vanishes = "Once a participant vanishes"
    assert vanishes in said(goes_on=True)["c"]
    assert "Exactly how many ratings" in said(goes_on=True)["c"]
    assert vanishes not in said(goes_on=True)["p0"]
    encrypted = said(goes_on=True, aggregation="paillier")
    assert vanishes in encrypted["p0"]
    assert vanishes not in encrypted["c"]
    assert vanishes not in said(goes_on=True, aggregation="plain")["c"]  # which has every sum
    assert vanishes not in said()["c"]
