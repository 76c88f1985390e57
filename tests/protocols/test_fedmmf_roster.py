"""Who may factorise together, with which options, what they are told of it, and what they recommend."""

from __future__ import annotations

from dataclasses import replace
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import pytest
import torch
from fedmmf_cast import HUB, SCALE, Company, Setup, play, recommend
from liars import lying
from pydantic import ValidationError

import protocols
from protocols import fedmmf
from protocols.fedmmf import roster
from protocols.fedmmf.messages import Ask, Askers, Best, Wish
from protocols.fedmmf.recommending import MOST_SHOWN, best_items
from vfl.errors import ConfigError, DataError, RemoteProtocolError
from vfl.learn.learner import Learner
from vfl.masking.contributing import Contribution
from vfl.ratings.factors import predict
from vfl.wire.line import Send


def roles_of(k: int, hubs: int = 1) -> dict[str, str]:
    return {f"hub{n}": "coordinator" for n in range(hubs)} | {f"shop{n}": "participant" for n in range(k)}


def check(k: int = 3, hubs: int = 1, **options: Any) -> None:  # noqa: ANN401
    fedmmf.check_roster(fedmmf.Config.model_validate(options), roles_of(k, hubs), {})


@pytest.mark.parametrize("k", [2, 3, 1000])
@pytest.mark.parametrize("solver", ["als", "sgd"])
def test_2_to_1000_participants_and_a_coordinator_are_let_in(k: int, solver: str) -> None:
    check(k, solver=solver)


@pytest.mark.parametrize(
    ("k", "hubs", "options", "words"),
    [
        (3, 0, {}, "0 have role = 'coordinator'; exactly one sums"),
        (3, 2, {}, "2 have role = 'coordinator'"),
        (1, 1, {}, "1 have role = 'participant'; there may be 2 to 1000"),
        (1001, 1, {}, "1001 have role = 'participant'"),
        (3, 1, {"batches": 2}, 'batches: is for solver = "sgd"'),
        (3, 1, {"ring_bits": 32, "fraction_bits": 30}, r"protocols\.fedmmf: clip = .* set"),
        (3, 1, {"aggregation": "paillier", "key_bits": 512}, "key_bits = 512: set 2048 or 3072"),
    ],
)
def test_who_cannot_work_together_is_told_why(k: int, hubs: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(k, hubs, **options)


def test_where_the_extra_is_missing_the_encrypted_baseline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "gmpy2" else ModuleSpec(name, None)

    monkeypatch.setattr(roster, "find_spec", find)
    with pytest.raises(ConfigError, match=r"gmpy2 cannot be found; install vfl-framework\[paillier\]"):
        check(aggregation="paillier")
    check()


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"neighbours": 3}, {"neighbours": 0}, {"plain_below": 1.5}, {"by": "row"}, {"beta": 1}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        fedmmf.Config.model_validate(options)


def learns(**options: Any) -> dict[str, str]:  # noqa: ANN401
    setup = Setup(goes_on=options.pop("goes_on", False), k=options.pop("k", 3), options=options)
    return fedmmf.learns(setup.sessions()["shop0"], protocols.load("fedmmf").learns)


def test_it_is_said_of_each_job_what_holds_there() -> None:
    assert set(learns()) == {HUB, "shop0", "shop1", "shop2", "whoever is in league with the coordinator"}
    assert "not even what it has ratings of" in learns()[HUB]
    assert "which items have ratings there" in learns(aggregation="plain")[HUB]
    assert "Neither sums nor factors" in learns(aggregation="paillier")[HUB]
    assert "lies to a participant" in learns(aggregation="adaptive")[HUB]
    assert "Each of 60 masks with" in learns(k=60)["whoever is in league with the coordinator"]
    assert "with probability 2^-" in learns(k=60, neighbours=8)["whoever is in league with the coordinator"]
    assert "whoever asks for recommendations" in learns(by="item")
    assert "exactly how many ratings" in learns(goes_on=True)[HUB].lower()


@pytest.mark.parametrize("options", [{}, {"solver": "sgd"}, {"solver": "sgd", "ring_bits": 64, "rank": 5}])
def test_a_step_stays_within_its_declared_bytes(options: dict[str, Any]) -> None:
    setup = Setup(epochs=1, m=200, options=options)
    played, _ = play(setup)
    session = setup.sessions()["shop1"]
    sent, received = fedmmf.step_bytes(session, setup.m)
    train = [said for said in played.transcript if said.phase == "train"]
    said = [one.n_bytes for one in train if one.sender == "shop1" and isinstance(one.message, Contribution)]
    heard = [
        one.n_bytes for one in played.view("shop1") if type(one.message).__name__ in ("SharedFactors", "Turn")
    ]
    assert 0.8 * sent < sum(said) <= sent
    assert 0.7 * received < sum(heard) <= received


def test_sums_that_are_clipped_are_told_of() -> None:
    played, company = play(Setup(epochs=1, options={"clip": 0.5}))
    notes = played.results[HUB].notes
    assert any("shop1 clipped" in note for note in notes)
    assert any("set a larger clip" in words for words in company.journals["shop1"].warnings)


def test_without_pinned_keys_a_participant_is_warned() -> None:
    _, company = play(Setup(epochs=1, identities=False))
    assert any("could pass on false ones" in words for words in company.journals["shop0"].warnings)


# --- recommending -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_item() -> Company:
    return play(Setup(m=10, own=9, ratings=4, options={"by": "item"}))[1]


@pytest.fixture(scope="module")
def by_user() -> Company:
    return play(Setup(m=30))[1]


def test_a_user_is_recommended_the_best_items_of_all_parties(by_item: Company) -> None:
    for top in (1, 4, 100):
        played = recommend(by_item, "shop1", "i0003", top)
        every = []
        for name, held in by_item.held.items():
            own, shared = np.arange(held.n_own), np.full(held.n_own, 3)
            factors: Any = by_item.learners[name].network
            rated = {at for part in held.parts.values() for at in part.own[part.shared == 3].tolist()}
            scores = predict(factors, by_item.masks[name], SCALE, own, shared)
            every += [(held.own_ids[at], float(scores[at])) for at in own.tolist() if at not in rated]
        best = sorted((rating for _, rating in every), reverse=True)[:top]
        found = played.results["shop1"].items
        assert [rating for _, rating in found] == pytest.approx(best)
        assert set(found) <= set(every)
        for name in ("shop0", "shop2"):
            shown = played.results[name]
            assert (shown.asker, shown.top) == ("shop1", top)
            assert set(shown.items) <= {one for one in every if one[0].startswith(name)}
        assert played.results[HUB].items == []
    said = {type(one.message) for one in played.transcript}
    assert said == {Wish, Askers, Ask, Best}


def test_with_users_of_its_own_a_party_recommends_without_a_word(by_user: Company) -> None:
    played = recommend(by_user, "shop2", "shop2/001", 5)
    assert len(played.results["shop2"].items) == 5
    assert not played.transcript
    held = by_user.held["shop2"]
    rated = {held.shared_ids[at] for p in held.parts.values() for at in p.shared[p.own == 1].tolist()}
    assert rated
    assert not rated & {item for item, _ in played.results["shop2"].items}
    ratings = [rating for _, rating in played.results["shop2"].items]
    assert ratings == sorted(ratings, reverse=True)


def test_items_rank_before_ratings_are_kept_within_the_scale(by_user: Company) -> None:
    held, mask = by_user.held["shop0"], by_user.masks["shop0"]
    network: Any = by_user.learners["shop0"].network
    weights = by_user.learners["shop0"].weights()
    try:
        with torch.no_grad():
            network.shared[:, -1] += 100 * torch.arange(30, dtype=torch.float64)  # all beyond the scale's end
        found = best_items(held, mask, network, 0, 30)
    finally:
        Learner(network).load_weights(weights)
    places = [held.shared_ids.index(item) for item, _ in found]
    assert places == sorted(places, reverse=True)
    assert found[0][1] > SCALE[1]


@pytest.mark.parametrize(("user", "top"), [("nobody", 5), ("i0003x", 5)])
def test_a_user_whom_the_party_has_not_is_an_error(by_item: Company, user: str, top: int) -> None:
    with pytest.raises(DataError, match="there is no user"):
        recommend(by_item, "shop1", user, top)


@pytest.mark.parametrize("top", [0, -1, MOST_SHOWN + 1])
def test_no_items_or_too_many_cannot_be_asked_for(by_item: Company, top: int) -> None:
    with pytest.raises(ConfigError, match="ask for 1 to 100 items"):
        recommend(by_item, "shop1", "i0003", top)


LIES: dict[str, tuple[str, type[Any], dict[str, Any]]] = {
    "a user that there is not": ("shop1", Ask, {"user": 10}),
    "a user below zero": ("shop1", Ask, {"user": -1}),
    "no items": ("shop1", Ask, {"top": 0}),
    "too many items": ("shop1", Ask, {"top": 10**6}),
    "ratings of other items": ("shop0", Best, {"items": ("a",)}),
    "no numbers": ("shop2", Best, {"ratings": torch.full((3,), torch.nan).double()}),
    "another type": ("shop2", Best, {"ratings": torch.zeros(3)}),
    "rows": ("shop0", Best, {"ratings": torch.zeros(3, 1).double()}),
    "a nameless item": ("shop0", Best, {"items": ("a", "", "b")}),
    "an answer of its own": (HUB, Best, {"ratings": torch.full((3,), torch.inf).double()}),
    "a question of its own": (HUB, Ask, {"user": 99}),
}


@pytest.mark.parametrize("lie", LIES)
def test_whoever_asks_or_answers_wrongly_is_named(by_item: Company, lie: str) -> None:
    liar, kind, fields = LIES[lie]

    def change(send: Send) -> Send:
        said = send.message
        return send._replace(message=replace(said, **fields)) if isinstance(said, kind) else send  # type: ignore[type-var]

    with pytest.raises(RemoteProtocolError) as caught:
        recommend(by_item, "shop1", "i0003", 3, **{liar: lying(change)})
    if lie != "a user that there is not":  # only who holds the shared axis can tell, and hears it of the hub
        assert caught.value.peer == liar
