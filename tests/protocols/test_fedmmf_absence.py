"""A participant that vanishes is gone on without, or ends the run; its round is never summed again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fedmmf_cast import HUB, Company, Setup, cast, play
from hypothesis import given, settings
from hypothesis import strategies as st
from liars import Wrap, lying
from sfa_cast import dying

from protocols.fedmmf.messages import Axis, Ciphertexts, Clipped, SharedFactors
from protocols.fedmmf.roster import joins_too_late, masked_group
from vfl.errors import PeerAborted, PeerLost, RemoteProtocolError
from vfl.masking.agreeing import Confirmation, KeyShare
from vfl.masking.contributing import Contribution
from vfl.wire.line import Send
from vfl.wire.rehearse import Rehearsal

SAID: Any = (Contribution, Ciphertexts)
BASE = Setup(k=3, epochs=4, goes_on=True)
SOLVERS: dict[str, dict[str, Any]] = {
    "als": {},
    "sgd": {"solver": "sgd", "batches": 2},
    "item": {"by": "item"},
    "adaptive": {"aggregation": "adaptive"},
    "plain": {"aggregation": "plain"},
    "a graph": {"neighbours": 2},
}
ways = pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)

PHASES: dict[str, Wrap] = {
    "before its key": dying(KeyShare),
    "before its first contribution": dying(SAID, phase="train"),
    "after its first contribution": dying(SAID, phase="train", after=True),
    "in the second round": dying(SAID, 1, phase="train"),
    "before a validation": dying(SAID, phase="valid"),
    "after a validation": dying(SAID, 1, phase="valid", after=True),
    "by a signal": dying(SAID, 1, phase="train", reason="interrupted"),
}
TOO_LATE: dict[str, Wrap] = {
    "after its confirmation": dying(Confirmation, after=True),
    "before the mean": dying(SAID, phase="setup"),
    "in the last validation": dying(SAID, 3, phase="valid"),
    "in the test": dying(SAID, phase="test"),
    "before its last word": dying(Clipped),
}


class Log:
    """Notes all that anybody contributes: whose, when, under which roster, with which factors."""

    def __init__(self, company: Company) -> None:
        self.said: list[tuple[str, str, int, int, int, bytes]] = []
        self._company = company

    def of(self, name: str, wrap: Wrap | None) -> Wrap:
        def change(send: Send) -> Send:
            said = send.message
            if isinstance(said, SAID):
                state = self._company.learners[name].network.state_dict()
                weights = state["own"].numpy().tobytes() + state["shared"].numpy().tobytes()
                self.said.append((name, send.phase, said.epoch, said.step, said.roster, weights))
            return send

        noting = lying(change)
        return lambda role: noting(wrap(role) if wrap else role)

    def check(self, solver: str) -> None:
        """Checks that nothing is said under two rosters, nor the same with the same factors."""
        rosters, weighed = defaultdict(set), defaultdict(set)
        for name, phase, epoch, step, roster, weights in self.said:
            rosters[name, phase, epoch, step].add(roster)
            if phase == "train" and solver == "als":
                weighed[name, weights].add(roster)
        assert all(len(found) == 1 for found in rosters.values())
        assert all(len(found) == 1 for found in weighed.values())


def play_with(setup: Setup, **mortals: Wrap) -> tuple[Rehearsal | Exception, Company]:
    company = cast(setup)
    log = Log(company)
    wraps = {name: log.of(name, mortals.get(name)) for name in setup.names}
    try:
        end: Rehearsal | Exception = play(setup, company=company, **wraps)[0]
    except (PeerLost, PeerAborted) as error:
        end = error
    log.check(setup.config.solver)
    return end, company


def test_exact_solving_that_does_not_begin_anew_without_somebody_is_refused() -> None:
    before: list[SharedFactors] = []

    def change(send: Send) -> Send:
        if not isinstance(send.message, SharedFactors):
            return send
        before.append(send.message)  # one a participant and round: the second round's are the first's
        same = send.message.epoch == 2
        return send._replace(message=replace(send.message, factors=before[0].factors)) if same else send

    setup = replace(BASE, k=4)
    wraps = {"shop1": dying(SAID, 1, phase="train"), HUB: lying(change)}
    with pytest.raises(RemoteProtocolError, match="does not begin anew under roster 2"):
        play(setup, **wraps)


def assert_went_on(end: Rehearsal | Exception, company: Company, *gone: str) -> None:
    assert isinstance(end, Rehearsal), end
    left = [name for name in company.setup.names if name not in gone]
    assert end.results.keys() == {HUB, *left}
    outcome = end.results[HUB]
    assert set(outcome.vanished) == set(gone)
    assert all(np.isfinite(value) for value in outcome.test.values())
    assert sum("vanished" in note for note in outcome.notes) == len(gone)
    for name in gone:
        assert all(sorted(company.journals[one].absences) == sorted(gone) for one in (HUB, *left))
        assert all(any(name in words for words in company.journals[one].warnings) for one in left)
    shared = [company.factors()[name]["shared"] for name in left]
    assert all((one == shared[0]).all() for one in shared)


@ways
@pytest.mark.parametrize("phase", PHASES)
def test_the_others_go_on_without_a_participant_that_vanishes(phase: str, options: dict[str, Any]) -> None:
    skip_without_keys(phase, options)
    k = 4 if "neighbours" in options else 3
    end, company = play_with(replace(BASE, k=k, options=options), shop1=PHASES[phase])
    assert_went_on(end, company, "shop1")


def skip_without_keys(phase: str, options: dict[str, Any]) -> None:
    if options.get("aggregation") == "plain" and phase in ("before its key", "after its confirmation"):
        pytest.skip("nobody agrees on keys in the clear")


@pytest.mark.parametrize("phase", [*list(PHASES)[1:]])
@pytest.mark.parametrize("who", ["shop0", "shop2"])
def test_so_they_do_where_contributions_are_encrypted(who: str, phase: str) -> None:
    options = {"aggregation": "paillier", "key_bits": 256, "unsafe_small_key": True}
    end, company = play_with(replace(BASE, options=options), **{who: PHASES[phase]})
    assert_went_on(end, company, who)


@ways
@pytest.mark.parametrize("phase", TOO_LATE)
def test_whoever_vanishes_where_no_sum_can_be_taken_again_ends_the_run(
    phase: str, options: dict[str, Any]
) -> None:
    skip_without_keys(phase, options)
    end, _ = play_with(replace(BASE, options=options), shop1=TOO_LATE[phase])
    assert isinstance(end, PeerLost | PeerAborted)
    assert end.about == "shop1"


@pytest.mark.parametrize("phase", PHASES)
def test_where_the_job_does_not_say_continue_the_run_ends_at_once(phase: str) -> None:
    end, company = play_with(replace(BASE, goes_on=False), shop1=PHASES[phase])
    assert isinstance(end, PeerLost | PeerAborted)
    assert end.about == "shop1"
    assert not any(journal.absences for journal in company.journals.values())


@pytest.mark.parametrize("phase", PHASES)
def test_one_that_would_be_left_alone_ends_the_run(phase: str) -> None:
    end, _ = play_with(replace(BASE, k=2), shop1=PHASES[phase])
    assert isinstance(end, PeerLost | PeerAborted)


@pytest.mark.parametrize("kind", [Axis, SharedFactors])
def test_without_the_coordinator_there_is_no_run(kind: Any) -> None:  # noqa: ANN401
    wraps = {HUB: dying(kind)} if kind is SharedFactors else {"shop0": dying(kind)}
    with pytest.raises(PeerLost):
        play(BASE, **wraps)


def test_exact_own_factors_never_follow_twice_from_the_same_shared_ones() -> None:
    """Least squares would else give, of the dropped round's factors, the same sums without one party."""
    end, company = play_with(BASE, shop1=PHASES["in the second round"])
    assert_went_on(end, company, "shop1")
    assert isinstance(end, Rehearsal)
    said = [one.message.factors for one in end.view("shop0") if isinstance(one.message, SharedFactors)]
    assert not any((a == b).all() for at, a in enumerate(said) for b in said[:at])


@pytest.mark.parametrize(
    ("plain", "gone", "goes_on"),
    [
        ([True, False, True, False], "shop3", False),
        ([False, False, True, False], "shop3", True),
        ([True, False, True, False], "shop2", True),
    ],
    ids=["a masked one would be left alone", "two masked ones are left", "a plain one is gone"],
)
def test_nobody_whose_sums_were_in_the_clear_masks_in_the_place_of_who_vanished(
    plain: list[bool], gone: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protocols.fedmmf import saying

    choices = iter(plain)
    monkeypatch.setattr(saying, "may_be_plain", lambda *args, **kwargs: next(choices))
    setup = replace(BASE, k=4, options={"aggregation": "adaptive"})
    end, company = play_with(setup, **{gone: PHASES["in the second round"]})
    if goes_on:
        assert_went_on(end, company, gone)
        return
    assert isinstance(end, PeerLost)
    assert "cannot mask in its place" in str(end)


def test_a_drawn_partner_stays_and_none_is_drawn_anew() -> None:
    names, nonce = tuple(f"shop{place}" for place in range(9)), bytes(16)
    group = masked_group(names, ["shop4"], nonce)
    (partner,) = set(group) - {"shop4"}
    for gone in names:
        left = tuple(name for name in names if name != gone)
        late = joins_too_late(names, left, ["shop4"], nonce)
        assert bool(late) == (gone == partner)
        assert late not in group
    assert joins_too_late(names, names[1:], None, nonce) == ""


@settings(max_examples=25, deadline=None)
@given(
    solver=st.sampled_from(["als", "sgd"]),
    deaths=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=2),
)
def test_whenever_some_vanish_nobody_waits_and_nothing_is_summed_again(
    solver: str, deaths: list[tuple[int, bool]]
) -> None:
    setup = replace(BASE, k=4, epochs=3, options={"solver": solver})
    gone = {f"shop{place + 1}": dying(object, n, after=after) for place, (n, after) in enumerate(deaths)}  # type: ignore[arg-type]
    end, company = play_with(setup, **gone)
    if isinstance(end, Rehearsal):
        assert_went_on(end, company, *[name for name in gone if name not in end.results])
    else:
        assert end.about in gone
