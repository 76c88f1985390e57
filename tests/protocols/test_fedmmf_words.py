"""Who learns what is said of the job at hand: without the options that it does not use."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import protocols
from protocols.fedmmf import Config
from protocols.fedmmf.roster import CLAUSES, learns
from vfl.session import Member, Session

DRAWN = protocols.load("fedmmf").learns


def said(k: int = 3, goes_on: bool = False, **options: Any) -> dict[str, str]:  # noqa: ANN401
    members = {f"p{at}": Member("participant", None) for at in range(k)}
    session = Session(
        "c", "c", {**members, "c": Member("coordinator", None)}, options=Config(**options), goes_on=goes_on
    )
    return learns(session, DRAWN)


@pytest.mark.parametrize("clause", CLAUSES)
def test_what_is_left_out_stands_in_the_docstring_word_for_word(clause: str) -> None:
    assert sum(clause in words for words in DRAWN.values()) == 1


@pytest.mark.parametrize("by", ["user", "item"])
def test_no_word_is_of_an_option_that_the_job_does_not_use(by: str) -> None:
    every = itertools.product(["als", "sgd"], ["plain", "masked", "paillier"], ["rated", "all"], [2, 3])
    for solver, aggregation, items, k in every:
        options = {"solver": solver, "aggregation": aggregation, "paillier_items": items, "by": by}
        for words in said(k, goes_on=True, **options).values():
            assert not any(option in words for option in ('"', " = ", "paillier", "adaptive"))
            assert words.strip().endswith(".")
            assert "  " not in words
            assert ".." not in words


def test_mu_is_explained_wherever_it_is_named() -> None:
    for aggregation in ("plain", "masked", "paillier"):
        for name in ("p0", "c"):
            words = said(aggregation=aggregation)[name]
            assert words.count("mu ") == 1
            assert "mu (the mean of all training ratings, less the personalised masks)" in words
    assert "mu (the mean of all training ratings)," in said(mask="none")["p0"]


def test_what_two_can_find_of_each_other_is_said_where_two_may_be_left() -> None:
    assert "Of two participants" not in said(3)["p0"]
    assert "can find the other's sums nearly by taking" in said(2)["p0"]
    assert "can find the other's sums nearly by taking" in said(3, goes_on=True)["p0"]
    assert "can find the other's sums exactly by taking" in said(2, aggregation="paillier")["p0"]
    assert "can find the other's sums by taking" in said(2, solver="sgd")["p0"]


def test_what_an_option_brings_is_said_where_it_is_used() -> None:
    assert "who chose masks" in said(aggregation="adaptive")["p0"]
    assert "who chose masks" not in said()["p0"]
    rated = said(aggregation="paillier", paillier_items="rated")["c"]
    assert "which items have ratings where" in rated
    assert "for every item how many ratings it has in all, and what" in said()["c"]
    assert "give away what some unnamed users rated" in said()["c"]
    assert "for every item what the shared factors follow from" in said(solver="sgd")["c"]
    assert "give away" not in said(solver="sgd")["c"]
    assert "for every shared entity" in said(by="item")["c"]
