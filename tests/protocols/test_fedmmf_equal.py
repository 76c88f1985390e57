"""Plain, masked, encrypted and without any dialogue: the same factors and scores, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from casting import over_network
from fedmmf_cast import HUB, Setup, assert_same_factors, cast, holdings, play, train_directly
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import fedmmf
from vfl.errors import ConfigError, DataError
from vfl.learn.learner import Learner
from vfl.ratings.factors import begin_factors
from vfl.ratings.holding import Part, RatingsHolding, merge
from vfl.ratings.personal import fit_mask
from vfl.ratings.scores import error_sums

SMALL_KEY = {"key_bits": 256, "unsafe_small_key": True}
SOLVERS: dict[str, dict[str, Any]] = {
    "als": {"solver": "als"},
    "sgd": {"solver": "sgd"},
    "sgd in groups": {
        "solver": "sgd",
        "batches": 3,
        "optimizer": {"name": "SGD", "lr": 0.5, "momentum": 0.9},
    },
    "sgd in 64 bits": {"solver": "sgd", "ring_bits": 64},
}
solvers = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
by = pytest.mark.parametrize("by", ["user", "item"])


def assert_equals_one_process(setup: Setup) -> fedmmf.Outcome:
    played, company = play(setup)
    direct = train_directly(setup)
    outcome: fedmmf.Outcome = played.results[HUB]
    assert_same_factors(company.factors(), dict(zip(setup.names, direct.factors, strict=True)))
    assert [record["valid"] for record in outcome.history] == direct.history
    assert (outcome.best_epoch, outcome.valid, outcome.test) == (direct.best_round, direct.valid, direct.test)
    return outcome


@by
@solvers
@pytest.mark.parametrize("aggregation", ["plain", "masked", "adaptive"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_dialogue_gives_what_one_process_gives(
    k: int, aggregation: str, solver: dict[str, Any], by: str
) -> None:
    outcome = assert_equals_one_process(
        Setup(k=k, epochs=2, options={**solver, "by": by, "aggregation": aggregation})
    )
    assert outcome.ratings == k * 30
    assert bool(outcome.plain) == (aggregation == "plain") or aggregation == "adaptive"


@pytest.mark.parametrize("mask", ["none", "bias", "mf"])
def test_so_it_does_with_every_mask(mask: str) -> None:
    assert_equals_one_process(Setup(options={"mask": mask}))


@by
@pytest.mark.parametrize("solver", [SOLVERS["als"], SOLVERS["sgd in groups"]], ids=["als", "sgd"])
@pytest.mark.parametrize("items", ["rated", "all"])
def test_ciphertexts_give_what_plain_sums_give(items: str, solver: dict[str, Any], by: str) -> None:
    options = {**solver, **SMALL_KEY, "by": by, "aggregation": "paillier", "paillier_items": items}
    assert_equals_one_process(Setup(epochs=2, options=options))


def test_20_participants_in_a_graph_of_masks_give_what_one_process_gives() -> None:
    setup = Setup(k=20, own=2, epochs=2, options={"neighbours": 4})
    assert_equals_one_process(setup)


def test_60_participants_hear_their_neighbours_keys_alone_and_their_sums_are_exact() -> None:
    from vfl.masking.agreeing import Keys

    setup = Setup(k=60, own=1, epochs=1, identities=False)
    outcome = assert_equals_one_process(setup)
    assert any("Each of 60 masks with" in note for note in outcome.notes)
    played, _ = play(setup)
    heard = [len(said.message.keys) for said in played.transcript if isinstance(said.message, Keys)]
    assert len(heard) == 60
    assert len(set(heard)) == 1
    assert 5 < heard[0] < 40


@by
@solvers
def test_the_kept_round_is_the_best_and_training_ends_without_a_better_one(
    solver: dict[str, Any], by: str
) -> None:
    outcome = assert_equals_one_process(Setup(epochs=12, patience=1, options={**solver, "by": by}))
    valid = [record["valid"]["rmse"] for record in outcome.history]
    assert outcome.best_epoch == int(np.argmin(valid)) + 1
    assert [record["best"] for record in outcome.history][outcome.best_epoch - 1]


@pytest.mark.parametrize("metric", ["mae", "ndcg@10", "hr@10"])
def test_a_round_may_be_judged_by_another_score(metric: str) -> None:
    outcome = assert_equals_one_process(Setup(metric=metric, m=30))
    assert metric in outcome.history[0]["valid"]
    assert "ndcg@10" in outcome.test


def test_ranks_cannot_be_had_where_items_are_spread_over_participants() -> None:
    with pytest.raises(ConfigError, match=r'metric = .ndcg@10.: with by = "item"'):
        play(Setup(metric="ndcg@10", options={"by": "item"}))


def test_twice_with_one_seed_is_equal_and_with_another_it_is_not() -> None:
    (one, company), (again, other) = play(Setup()), play(Setup())
    assert one.results[HUB].test == again.results[HUB].test
    assert_same_factors(company.factors(), other.factors())
    assert play(Setup(seed=4))[0].results[HUB].test != one.results[HUB].test


@pytest.mark.parametrize("aggregation", ["masked", "adaptive", "paillier"])
def test_over_zeromq_it_is_as_in_memory(aggregation: str) -> None:
    setup = Setup(k=2, epochs=2, options={"aggregation": aggregation, **SMALL_KEY})
    (memory, company), other = play(setup), cast(setup)
    network = over_network(other.roles(), fedmmf.MESSAGES, hub=HUB, curve=True)
    assert network[HUB].test == memory.results[HUB].test
    assert {name: network[name] for name in setup.names} == {n: memory.results[n] for n in setup.names}
    assert_same_factors(company.factors(), other.factors())


def test_a_participant_scores_its_own_test_ratings_and_all_scores_are_their_mean() -> None:
    setup = Setup()
    played, company = play(setup)
    own = [played.results[name]["rmse"] ** 2 * len(company.held[name].test) for name in setup.names]
    n = sum(len(one.test) for one in company.held.values())
    assert played.results[HUB].test["rmse"] == pytest.approx((sum(own) / n) ** 0.5, abs=1e-6)


def test_scores_of_models_of_their_own_are_added_up_beside() -> None:
    setup, company = Setup(options={"by": "item"}), cast(Setup(options={"by": "item"}))
    for name in setup.names:
        factors = begin_factors(company.held[name], 2, 9)
        company.alone[name] = error_sums(factors, company.masks[name], company.held[name], "test")
    outcome = play(setup, company=company)[0].results[HUB]
    assert set(outcome.alone) == {"rmse", "mae"}
    assert outcome.alone != outcome.test
    assert outcome.test == play(setup)[0].results[HUB].test


def test_a_participant_with_one_rating_is_told_what_to_do() -> None:
    setup = Setup()
    company = cast(setup)
    one = company.held["shop1"]
    one.parts["train"] = Part(*(column[:1] for column in (one.train.own, one.train.shared, one.train.value)))
    with pytest.raises(DataError, match=r"shop1\.csv: it has one rating only"):
        play(setup, company=company)


# --- how own entities are spread over participants -------------------------------------------------------


def dealt(whole: RatingsHolding, to: list[int], k: int) -> dict[str, RatingsHolding]:
    """Deals the own entities of a holding to k participants."""
    held = {}
    for place in range(k):
        mine = [at for at, whose in enumerate(to) if whose == place]
        new = np.full(whole.n_own, -1)
        new[mine] = np.arange(len(mine))
        parts = {}
        for split, part in whole.parts.items():
            kept = new[part.own] >= 0
            parts[split] = Part(new[part.own[kept]], part.shared[kept], part.value[kept])
        ids = tuple(whole.own_ids[at] for at in mine)
        held[f"shop{place}"] = RatingsHolding(
            "dealt", whole.by, whole.scale, ids, whole.shared_ids, whole.seed, parts
        )
    return held


@settings(max_examples=12, deadline=None)
@given(
    deal=st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(lambda d: set(d) >= {0, 1}),
    solver=st.sampled_from(["als", "sgd"]),
    aggregation=st.sampled_from(["plain", "masked"]),
    by=st.sampled_from(["user", "item"]),
)
def test_how_own_entities_are_spread_changes_no_bit(
    deal: list[int], solver: str, aggregation: str, by: str
) -> None:
    places = sorted(set(deal))
    deal = [places.index(one) for one in deal]
    # Room for the sums and nothing clipped: fraction bits are the same for any number of participants.
    bits = {"ring_bits": 64} if solver == "sgd" else {}
    options = {"solver": solver, "by": by, "mask": "none", "aggregation": aggregation, **bits}
    whole = merge(list(holdings(Setup(k=2, options=options)).values()))
    outcomes, shared, own = [], [], []
    for k, to in ((len(places), deal), (2, [at % 2 for at in range(12)])):
        setup = Setup(k=k, epochs=2, options=options)
        company = cast(setup)
        company.held = dealt(whole, to, k)
        company.masks = {name: fit_mask("none", one) for name, one in company.held.items()}
        company.learners = {
            name: Learner(begin_factors(one, 2, setup.seed)) for name, one in company.held.items()
        }
        outcomes.append(play(setup, company=company)[0].results[HUB])
        shared.append(company.factors()["shop0"]["shared"])
        own.append(
            {
                name: weights["own"][at].tolist()
                for party, weights in company.factors().items()
                for at, name in enumerate(company.held[party].own_ids)
            }
        )
    assert torch.equal(*shared)
    assert own[0] == own[1]
    one, other = (replace(outcome, history=[], notes=(), plain=()) for outcome in outcomes)
    assert one == other
