"""A party that lies in secure forward aggregation is named by whoever hears it, and everyone ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from casting import LABEL
from liars import Change, lying
from sfa_cast import HUB, Setup, at, cast, caught_lying, play, spoiling
from torch import Tensor

from protocols import sfa
from protocols.sfa.messages import Clipped, Counts, Dropped, EpochEnd, Hidden, HiddenGrad, SumGrad
from vfl.errors import RemoteProtocolError
from vfl.masking.agreeing import Confirmation, Confirmations, Keys, KeyShare, Roster
from vfl.masking.contributing import Contribution
from vfl.wire.line import Line, Send
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse

SUMS = Setup(k=3)
HUBS = Setup(k=3, coordinator=True, own=True)
both = pytest.mark.parametrize("setup", [SUMS, HUBS], ids=["label sums", "coordinator"])

Spoil = Callable[[Contribution], Contribution]

WRONG: dict[str, tuple[Spoil, str]] = {
    "the other ring": (lambda said: replace(said, q=said.q.long()), "torch.int64"),
    "numbers that are not masked": (lambda said: replace(said, q=said.q.float()), "torch.float32"),
    "a column fewer": (lambda said: replace(said, q=said.q[:, 1:]), "(8, 3)"),
    "a row more": (lambda said: replace(said, q=torch.cat([said.q, said.q[:1]])), "(9, 4)"),
    "no rows": (lambda said: replace(said, q=said.q[:0]), "(0, 4)"),
    "one number": (lambda said: replace(said, q=said.q[0, 0]), "()"),
    "the batch after": (lambda said: replace(said, step=said.step + 1), "contributes step 2 of epoch 1"),
    "the epoch after": (lambda said: replace(said, epoch=said.epoch + 1), "step 1 of epoch 2"),
    "a step below zero": (lambda said: replace(said, step=-1), "step -1"),
    "other rows": (lambda said: replace(said, mark=said.mark ^ 1), "all tables must be aligned"),
    "a roster to come": (lambda said: replace(said, roster=2), "for roster 2 where"),
    "a roster below zero": (lambda said: replace(said, roster=-1), "for roster -1 where"),
}


@both
@pytest.mark.parametrize("lie", WRONG)
@pytest.mark.parametrize("liar", ["party0", "party2"])
def test_a_contribution_that_is_not_what_is_due_is_refused_by_name(liar: str, lie: str, setup: Setup) -> None:
    spoil, words = WRONG[lie]
    assert words in caught_lying(liar, spoiling(Contribution, 1, spoil), setup)


@both
@pytest.mark.parametrize("number", [0, 3, 4, 9, 10])  # training, validation and test
def test_a_second_message_for_one_counter_is_refused_by_name(number: int, setup: Setup) -> None:
    count = 0

    def twice(send: Send) -> Sequence[Send]:
        nonlocal count
        count += isinstance(send.message, Contribution)
        return [send, send] if isinstance(send.message, Contribution) and count == number + 1 else [send]

    assert caught_lying("party1", twice, setup)


@both
def test_the_contribution_of_the_batch_before_is_refused_by_name(setup: Setup) -> None:
    before: list[Contribution] = []

    def late(send: Send) -> Send:
        if isinstance(send.message, Contribution):
            before.append(send.message)
            return send._replace(message=before[-2]) if len(before) == 3 else send
        return send

    assert "each batch is summed once" in caught_lying("party1", late, setup)


@pytest.mark.parametrize("liar", ["party1", LABEL])
def test_a_label_party_that_contributes_is_checked_like_the_others(liar: str) -> None:
    assert "contributes" in caught_lying(liar, at(Contribution, 2, step=7), HUBS)


def test_tables_that_are_not_aligned_are_an_error_and_never_a_bad_model() -> None:
    for setup in (SUMS, HUBS):
        company = cast(setup)
        rows = company.rows["party1"]
        rows._digests = np.roll(rows._digests, 1)
        with pytest.raises(RemoteProtocolError, match=r"party1: .*all tables must be aligned"):
            play(setup, company=company)


# --- whoever sums -----------------------------------------------------------------------------------


def aggregator_lies(change: Change, setup: Setup) -> str:
    return caught_lying(setup.aggregator, change, setup)


ROSTERS: dict[str, tuple[tuple[str, ...], int]] = {
    "a party missing": (("party0", "party1"), 1),
    "one contributor": (("party0",), 1),
    "nobody": ((), 1),
    "a stranger": (("party0", "party1", "party2", "mallory"), 1),
    "a stranger in the place of one": (("party0", "party1", "mallory"), 1),
    "one twice": (("party0", "party1", "party2", "party2"), 1),
    "the aggregator itself": (("party0", "party1", "party2", "carol"), 1),
    "another order": (("party2", "party1", "party0"), 1),
    "a number too old": (("party0", "party1", "party2"), 0),
    "a number below zero": (("party0", "party1", "party2"), -5),
}


@pytest.mark.parametrize("lie", ROSTERS)
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("masks", [True, False])
def test_a_first_roster_that_is_not_the_jobs_is_refused(lie: str, goes_on: bool, masks: bool) -> None:
    names, number = ROSTERS[lie]
    setup = replace(HUBS, own=False, goes_on=goes_on, masks=masks)
    assert "says another roster" in aggregator_lies(at(Roster, 0, names=names, number=number), setup)


LATER: dict[str, tuple[Roster, bool, str]] = {
    "where the job says abort": (Roster(2, ("party0", "party1")), False, "the job does not allow"),
    "in an epoch of all": (Roster(2, ("party0", "party1", "party2")), False, "the job does not allow"),
    "of one": (Roster(2, ("party0",)), True, "would hide nothing"),
    "of nobody": (Roster(2, ()), True, "would hide nothing"),
    "without the hearer": (Roster(2, ("party1", "party2")), True, "would hide nothing"),
    "with a stranger": (Roster(2, ("party0", "party1", "mallory")), True, "does not follow"),
    "of the same number": (Roster(1, ("party0", "party1")), True, "does not follow"),
    "of an older number": (Roster(0, ("party0", "party1")), True, "does not follow"),
}


@both
@pytest.mark.parametrize("lie", LATER)
def test_a_roster_in_the_place_of_a_gradient_is_refused_where_it_does_not_follow(
    lie: str, setup: Setup
) -> None:
    roster, goes_on, words = LATER[lie]
    change = spoiling(SumGrad, 3, lambda said: roster)  # the first one of the second step
    assert words in aggregator_lies(change, replace(setup, own=False, goes_on=goes_on))


@both
def test_a_roster_where_none_can_come_is_refused(setup: Setup) -> None:
    change = spoiling(EpochEnd, 0, lambda said: Roster(2, ("party0", "party1")), to="party0")
    assert "said Roster where EpochEnd was due" in aggregator_lies(change, replace(setup, goes_on=True))


@both
def test_an_end_of_the_epoch_that_names_who_is_still_there_leads_to_no_roster_without_continue(
    setup: Setup,
) -> None:
    def change(send: Send) -> Sequence[Send]:
        if not isinstance(send.message, EpochEnd) or send.to != "party0":
            return [send]
        lie = replace(send.message, vanished=("party2",))
        return [send._replace(message=lie), send._replace(message=Roster(2, ("party0", "party1")))]

    assert "the job does not allow" in aggregator_lies(change, setup)


def swapped(send: Send) -> Send:
    if isinstance(send.message, Keys):
        return send._replace(message=replace(send.message, keys=send.message.keys[::-1]))
    return send


@both
def test_an_aggregator_that_swaps_keys_is_found_out_before_anything_is_masked(setup: Setup) -> None:
    assert "another key than" in aggregator_lies(swapped, setup)
    own_keys = spoiling(
        Keys, 0, lambda said: replace(said, keys=(said.keys[0], *(bytes([9] * 32),) * (len(said.keys) - 1)))
    )
    assert "one key as that of two" in aggregator_lies(own_keys, setup)
    low = spoiling(Keys, 0, lambda said: replace(said, keys=(said.keys[0], bytes(32), *said.keys[2:])))
    assert "a key that is none" in aggregator_lies(low, setup)
    other = spoiling(
        Keys, 0, lambda said: replace(said, keys=(said.keys[0], bytes([7] * 32), *said.keys[2:]))
    )
    assert "another key than" in aggregator_lies(other, setup)


@both
@pytest.mark.parametrize("kind", [Keys, Confirmations])
def test_words_of_another_session_that_are_said_again_are_found_out(
    kind: type[Message], setup: Setup
) -> None:
    other, _ = play(setup)
    again = {said.to: said.message for said in other.transcript if type(said.message) is kind}

    def change(send: Send) -> Send:
        return send._replace(message=again[send.to]) if type(send.message) is kind else send

    assert "another key than" in aggregator_lies(change, setup)


@both
def test_an_aggregator_that_answers_wrongly_is_named(setup: Setup) -> None:
    lies: list[tuple[dict[str, Any], str]] = [
        ({"step": 5}, "answered step 5"),
        ({"grad": torch.zeros(8, 5)}, "(8, 5)"),
        ({"grad": torch.zeros(8, 4, dtype=torch.float64)}, "torch.float64"),
        ({"grad": torch.full((8, 4), torch.nan)}, "not finite"),
        ({"grad": torch.full((8, 4), -torch.inf)}, "not finite"),
    ]
    for fields, words in lies:
        assert words in aggregator_lies(at(SumGrad, 0, **fields), setup)


def test_a_contributor_that_is_told_of_no_drop_is_not_left_waiting() -> None:
    assert aggregator_lies(spoiling(SumGrad, 4, lambda said: EpochEnd(True, False, ())), SUMS)


# --- the coordinator --------------------------------------------------------------------------------

HEADS = replace(HUBS, own=False)
hubs = pytest.mark.parametrize("setup", [HUBS, HEADS], ids=["label has columns", "label has none"])

DROPPED: dict[str, tuple[Dropped, bool, str]] = {
    "where the job says abort": (Dropped(0, ("party0",)), False, "'party0' vanished, who cannot"),
    "the label party": (Dropped(0, (LABEL,)), True, "'label' vanished, who cannot"),
    "itself": (Dropped(0, (HUB,)), True, "'carol' vanished, who cannot"),
    "a stranger": (Dropped(0, ("mallory" * 9,)), True, "'mallorymallorymallorymallorymall' vanished"),
    "nobody": (Dropped(0, ()), True, "drops step 0"),
    "another step": (Dropped(3, ("party0",)), True, "drops step 3 where step 0 was due"),
}


@hubs
@pytest.mark.parametrize("lie", DROPPED)
def test_a_coordinator_that_drops_a_batch_without_cause_is_named(lie: str, setup: Setup) -> None:
    dropped, goes_on, words = DROPPED[lie]
    change = spoiling(Hidden, 0, lambda said: dropped)
    assert words in caught_lying(HUB, change, replace(setup, goes_on=goes_on))


@hubs
def test_a_coordinator_cannot_drop_a_test_row(setup: Setup) -> None:
    change = spoiling(Hidden, 10, lambda said: Dropped(0, ("party0",)))
    assert "drops step 0" in caught_lying(HUB, change, replace(setup, goes_on=True))


@hubs
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mark": 3}, "says step 0 of other rows than step 0 here"),
        ({"step": 1}, "says step 1 of other rows"),
        ({"h": torch.zeros(8, 5)}, "(8, 5) where finite float32 (8, 6) was due"),
        ({"h": torch.zeros(7, 6)}, "(7, 6)"),
        ({"h": torch.zeros(8, 6, dtype=torch.float64)}, "torch.float64"),
        ({"h": torch.full((8, 6), torch.inf)}, "finite"),
    ],
)
def test_a_coordinator_that_says_another_output_is_named(
    fields: dict[str, Any], words: str, setup: Setup
) -> None:
    assert words in caught_lying(HUB, at(Hidden, 0, **fields), setup)


@hubs
@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("party0", "party1"), (0, 0)),
        (("party0", "party1", "party2", "mallory"), (0, 0, 0, 0)),
        (("party0", "party1", "party2", LABEL), (0, -1, 0, 0)),
        (("party0", "party1", "party2", LABEL), (0, 0)),
        ((), ()),
    ],
)
def test_a_coordinator_that_says_of_strangers_what_was_clipped_is_named(
    names: tuple[str, ...], values: tuple[int, ...], setup: Setup
) -> None:
    change = at(Clipped, 0, names=names, values=values)
    assert "of others than those who contribute" in caught_lying(HUB, change, setup)


@hubs
def test_a_coordinator_that_passes_on_another_end_is_named(setup: Setup) -> None:
    change = spoiling(EpochEnd, 0, lambda said: replace(said, stop=True), to=LABEL)
    assert "another end of the epoch" in caught_lying(HUB, change, setup)


def test_a_coordinator_that_tells_the_label_party_of_another_roster_is_named() -> None:
    for names, words in (
        (("party0", "party1"), "vanished, who cannot"),
        (("party0", "party1", "party2", "mallory"), "a roster of others"),
    ):
        change = spoiling(Roster, 0, lambda said, names=names: replace(said, names=names), to=LABEL)  # type: ignore[misc]
        assert words in caught_lying(HUB, change, HEADS)


# --- the label party and the contributors, to a coordinator --------------------------------------------


@hubs
@pytest.mark.parametrize("liar", [LABEL, "party0", "party2"])
@pytest.mark.parametrize(
    "lie",
    [
        Counts(("train", "valid", "test"), (-1, 12, 9)),
        Counts(("train", "valid", "test"), (27, 12)),
        Counts(("train", "valid"), (27, 12)),
        Counts((), ()),
        Counts(("all",), (48,)),
        Counts(("train", "valid", "test"), (2**62, 12, 9)),
        Counts(("train", "valid", "test"), (27, 2**62, 9)),
        Counts(("train", "valid", "test"), (27, 12, 2**62)),
        Counts(("train", "valid", "test"), (19, 12, 9)),
    ],
    ids=lambda lie: f"{lie.rows}" if isinstance(lie, Counts) else None,
)
def test_whoever_says_another_number_of_rows_than_the_rest_is_named(
    lie: Counts, liar: str, setup: Setup
) -> None:
    assert "rows" in caught_lying(liar, spoiling(Counts, 0, lambda said: lie), setup)


def grads(shape: tuple[int, ...], value: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, value, dtype=dtype)


@hubs
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"step": 2}, "answered step 2"),
        ({"grad": grads((8, 5))}, "(8, 5)"),
        ({"grad": grads((8, 6), dtype=torch.float64)}, "torch.float64"),
        ({"grad": grads((8, 6), torch.nan)}, "not finite"),
        ({"grad": grads((8, 6), torch.inf)}, "not finite"),
    ],
)
def test_a_label_party_that_says_another_gradient_is_named(
    fields: dict[str, Any], words: str, setup: Setup
) -> None:
    assert words in caught_lying(LABEL, at(HiddenGrad, 0, **fields), setup)


@both
@pytest.mark.parametrize(
    ("names", "values"),
    [(("party1",), (0,)), ((), ()), (("party0",), (-1,)), (("party0", "party0"), (0, 0)), (("party0",), ())],
)
def test_whoever_says_of_others_what_was_clipped_is_named(
    names: tuple[str, ...], values: tuple[int, ...], setup: Setup
) -> None:
    change = at(Clipped, 0, names=names, values=values)
    assert "of others than itself" in caught_lying("party0", change, setup)


@hubs
def test_a_label_party_that_says_stop_and_goes_on_is_not_followed(setup: Setup) -> None:
    with pytest.raises(RemoteProtocolError):
        play(setup, label=lying(at(EpochEnd, 0, stop=True)))


@both
@pytest.mark.parametrize("kind", [KeyShare, Confirmation])
@pytest.mark.parametrize("number", [-1, 0, 2, 2**40])
def test_a_contributor_that_agrees_on_another_roster_is_named(
    kind: type[Message], number: int, setup: Setup
) -> None:
    change = at(kind, 0, number=number)
    assert f"answered roster {number}" in caught_lying("party1", change, setup)


def test_predictions_are_checked_like_trainings() -> None:
    for setup in (SUMS, HUBS, HEADS):
        for lie in (at(Contribution, 0, mark=5), at(Contribution, 0, epoch=1), at(Contribution, 0, roster=2)):
            company = cast(setup)
            roles = company.predictors()
            roles["party1"] = lying(lie)(roles["party1"])
            with pytest.raises(RemoteProtocolError, match=r"^party1: contributes"):
                rehearse(roles, sfa.MESSAGES, streams=company.streams, hub=setup.aggregator)


def test_a_party_that_says_nothing_is_named_by_whoever_waits() -> None:
    async def silent(line: Line) -> None:
        await line.hear(HUBS.aggregator, EpochEnd)

    for setup in (SUMS, HUBS):
        company = cast(setup)
        roles = company.roles() | {"party1": silent}
        with pytest.raises(Exception, match=r"party1|said Roster where EpochEnd was due|to hear"):
            rehearse(roles, sfa.MESSAGES, streams=company.streams, hub=setup.aggregator)
