"""What the coordinator sees of a participant: nothing under masks, and in the clear what is said there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from fedmmf_cast import HUB, Setup, cast, contributions, play
from scipy.stats import chi2, kstest

from protocols.fedmmf import saying
from protocols.fedmmf.choosing import explained, may_be_plain
from protocols.fedmmf.messages import Choice, Ciphertexts, Group
from protocols.fedmmf.roster import masked_group, ring_of
from vfl.masking.contributing import Contribution
from vfl.ratings.fixed import decode
from vfl.ratings.holding import Part, RatingsHolding
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.wire.rehearse import Rehearsal

# A chance of one in a million to fail although all is well.
SURE = 1e-6


def elements(rehearsal: Rehearsal, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    found = [message.q.numpy() for message in contributions(rehearsal, name)]
    whole = np.concatenate([one if rows is None else one[rows] for one in found])
    return np.ascontiguousarray(whole).view(np.uint32 if whole.dtype == np.int32 else np.uint64).reshape(-1)


def assert_uniform(numbers: np.ndarray) -> None:
    bits = numbers.dtype.itemsize * 8
    assert kstest(numbers / 2.0**bits, "uniform").pvalue > SURE
    for byte in numbers.view(np.uint8).reshape(-1, bits // 8).T:
        counts = np.bincount(byte, minlength=256)
        expected = len(byte) / 256
        assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 255) > SURE


@pytest.mark.parametrize("solver", ["als", "sgd"])
@pytest.mark.parametrize("by", ["user", "item"])
def test_what_is_seen_under_masks_is_uniform_whether_something_was_rated_or_not(by: str, solver: str) -> None:
    setup = Setup(m=400, epochs=6, options={"solver": solver, "by": by, "rank": 4})
    played, company = play(setup)
    train = company.held["shop1"].train
    rated = np.isin(np.arange(setup.m), train.shared)
    assert 0.02 < rated.mean() < 0.5
    for rows in (rated, ~rated):
        assert_uniform(elements(played, "shop1", rows))


@pytest.mark.parametrize("aggregation", ["masked", "adaptive", "paillier"])
def test_what_is_said_is_as_long_whatever_was_rated(aggregation: str) -> None:
    options = {"aggregation": aggregation, "key_bits": 256, "unsafe_small_key": True}
    lengths = []
    for ratings in (2, 8):
        played, _ = play(Setup(epochs=1, m=14, ratings=ratings, options=options))
        kinds = Contribution | Ciphertexts
        said = [one for one in played.view(HUB) if isinstance(one.message, kinds)]
        lengths.append([(one.phase, one.n_bytes) for one in said])
    assert lengths[0] == lengths[1]


def test_what_is_seen_in_the_clear_shows_what_was_rated_and_how_often() -> None:
    setup = Setup(options={"aggregation": "plain"})
    played, company = play(setup)
    for name in setup.names:
        first = decode(contributions(played, name)[0].q, ring_of(setup.config, 3))
        counts = np.bincount(company.held[name].train.shared, minlength=setup.m)
        assert (first[:, 5] == counts).all()  # the last of the triangle of [p, 1]
    assert HUB in company.journals[setup.names[0]].warnings[0]


def test_ciphertexts_of_rated_entities_alone_show_which_they_are() -> None:
    options = {
        "aggregation": "paillier",
        "paillier_items": "rated",
        "key_bits": 256,
        "unsafe_small_key": True,
    }
    played, company = play(Setup(epochs=1, m=30, options=options))
    for name, held in company.held.items():
        said = next(
            one.message
            for one in played.view(HUB)
            if one.sender == name and one.phase == "train" and isinstance(one.message, Ciphertexts)
        )
        assert said.rows.tolist() == sorted(set(held.train.shared.tolist()))
    assert any("rated" in note for note in played.results[HUB].notes)


# --- who may contribute in the clear -------------------------------------------------------------------


class Independent(PersonalMask):
    """Is a mask that leaves what has nothing to do with the ratings."""

    def __init__(self, held: RatingsHolding) -> None:
        super().__init__("none", held.n_own, held.m)
        self._left = held.train.value - np.random.default_rng(1).normal(size=len(held.train))

    def of(self, own: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return self._left


def test_a_mask_of_nothing_protects_nothing_and_one_of_users_means_shows_all_but_one_number() -> None:
    company = cast(Setup(m=40, own=12, ratings=12))
    held = company.held["shop0"]
    none = explained(held, fit_mask("none", held))
    assert none["monotone"] == pytest.approx(1.0)
    mean = explained(held, fit_mask("user_mean", held))
    assert mean["own means"] > 0.9  # what is left is the shrinking of a mean of few
    assert mean["midpoint"] < mean["monotone"]
    assert max(explained(held, Independent(held)).values()) < 0.5


def test_the_criterion_is_the_best_attacker_and_the_number_of_own_entities() -> None:
    company = cast(Setup(m=40, own=12, ratings=12))
    held = company.held["shop0"]
    mask = Independent(held)
    best = max(explained(held, mask).values())
    assert may_be_plain(held, mask, below=best, owners=12)
    assert not may_be_plain(held, mask, below=best - 1e-9, owners=12)
    assert not may_be_plain(held, mask, below=best, owners=13)


def test_ratings_that_are_all_equal_are_never_said_in_the_clear() -> None:
    held = cast(Setup()).held["shop0"]
    train = held.train
    held.parts["train"] = Part(train.own, train.shared, np.full(len(train), 4.0))
    assert not may_be_plain(held, fit_mask("user_mean", held), below=0.99, owners=1)


def play_choosing(monkeypatch: pytest.MonkeyPatch, plain: set[int], k: int = 4) -> tuple[Rehearsal, Any]:
    choices = iter([place in plain for place in range(k)])
    monkeypatch.setattr(saying, "may_be_plain", lambda *args, **kwargs: next(choices))
    return play(Setup(k=k, m=60, epochs=2, options={"aggregation": "adaptive"}))


@pytest.mark.parametrize(
    ("plain", "masked"), [({0, 1}, 2), ({0, 1, 2, 3}, 0), (set(), 4), ({0, 2, 3}, 2), ({1, 2, 3}, 2)]
)
def test_who_chose_masks_is_masked_and_never_one_alone(
    monkeypatch: pytest.MonkeyPatch, plain: set[int], masked: int
) -> None:
    played, company = play_choosing(monkeypatch, plain)
    outcome = played.results[HUB]
    assert 4 - len(outcome.plain) == masked
    assert set(outcome.plain) <= {f"shop{place}" for place in plain}
    groups = [said.message.names for said in played.transcript if isinstance(said.message, Group)]
    assert set(groups) == {tuple(name for at, name in enumerate(company.setup.names) if at not in plain)}
    assert Counter(type(said.message) for said in played.transcript)[Choice] == 4
    for name in company.setup.names:
        first = contributions(played, name)[0].q.numpy()
        is_clear = int(np.abs(first).max()) < 2**50 and bool((first == 0).any())
        assert is_clear == (name in outcome.plain)


def test_whoever_is_drawn_to_mask_follows_from_the_nonce() -> None:
    names = ["a", "b", "c", "d"]
    drawn = {masked_group(names, ["b"], bytes([n])) for n in range(60)}
    assert drawn == {("a", "b"), ("b", "c"), ("b", "d")}
    assert masked_group(names, ["b", "x"], b"") == masked_group(names, ["b"], b"")
    assert masked_group(names, ["d", "a"], b"") == ("a", "d")
    assert masked_group(names, [], b"") == ()
