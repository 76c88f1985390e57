"""A peer that lies, whatever it says, is named; it never leads to a bad model or a hang."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from casting import LABEL, Setup, cast, play
from liars import Change, lying

from protocols.splitnn import MESSAGES, Embedding, EmbeddingGrad, EpochEnd
from vfl.data.batches import Rows
from vfl.errors import DataError, Deadlock, RemoteProtocolError
from vfl.wire.line import Line, Send
from vfl.wire.messages import Message
from vfl.wire.rehearse import rehearse

ONE = Setup(k=1)


def caught_lying(liar: str, change: Change, setup: Setup = ONE) -> str:
    """Lets one party lie; returns what the party that noticed said of it."""
    with pytest.raises(RemoteProtocolError) as caught:
        play(setup, **{liar: lying(change)})
    assert caught.value.peer == liar
    return caught.value.why


def at(kind: type[Message], number: int, **fields: object) -> Change:
    """Changes fields of the message of this kind that is said as number `number`, from 0."""
    count = 0

    def change(send: Send) -> Send:
        nonlocal count
        if not isinstance(send.message, kind):
            return send
        count += 1
        lie: Message = replace(send.message, **fields)  # type: ignore[type-var]
        return send._replace(message=lie) if count == number + 1 else send

    return change


def test_rows_that_are_not_aligned_are_an_error_and_never_a_bad_model() -> None:
    company = cast(Setup(k=2))
    rows = company.rows["party1"]
    rows._digests = np.roll(rows._digests, 1)  # the same ids, each one row further down
    with pytest.raises(RemoteProtocolError, match=r"party1: .*the tables are not aligned"):
        rehearse(company.roles(), MESSAGES, streams=company.streams)


def test_another_seed_at_one_party_is_an_error() -> None:
    company = cast(Setup(k=1))
    company.rows["party0"]._seed += 1
    with pytest.raises(RemoteProtocolError, match="not aligned"):
        rehearse(company.roles(), MESSAGES, streams=company.streams)


def test_other_rows_in_the_validation_or_the_test_part_are_an_error() -> None:
    for split in ("valid", "test"):
        company = cast(Setup(k=1))
        rows: Rows = company.rows["party0"]
        rows._splits[split] = rows._splits[split][::-1].copy()
        with pytest.raises(RemoteProtocolError, match=r"party0: .*not aligned"):
            rehearse(company.roles(), MESSAGES, streams=company.streams)


@pytest.mark.parametrize("number", [0, 5, 8])
def test_a_lie_late_in_the_run_is_noticed_too(number: int) -> None:
    assert "of other rows" in caught_lying("party0", at(Embedding, number, mark=7))


@pytest.mark.parametrize(
    ("grad", "words"),
    [
        (torch.zeros(8, 5), "torch.float32 (8, 5) where step 0 is torch.float32 (8, 4)"),
        (torch.zeros(8, 4, dtype=torch.float64), "torch.float64"),
        (torch.full((8, 4), -torch.inf), "not finite"),
    ],
)
def test_a_wrong_gradient_says_what_was_due(grad: torch.Tensor, words: str) -> None:
    why = caught_lying(LABEL, at(EmbeddingGrad, 0, grad=grad))
    assert words in why


def test_a_message_said_twice_is_noticed() -> None:
    def twice(send: Send) -> Sequence[Send]:
        return [send, send] if send.message.__class__ in (Embedding, EmbeddingGrad) else [send]

    assert caught_lying("party0", twice)
    assert caught_lying(LABEL, twice)


def test_a_message_left_out_is_noticed_or_waited_for_by_name() -> None:
    def without_first(kind: type[Message]) -> Change:
        left: list[Send] = []

        def change(send: Send) -> Sequence[Send]:
            if isinstance(send.message, kind) and not left:
                left.append(send)
                return []
            return [send]

        return change

    with pytest.raises(Deadlock, match=r"label waits for Embedding from party0; party0 waits|party0 waits"):
        play(ONE, party0=lying(without_first(Embedding)))
    with pytest.raises(Deadlock, match="party0 waits for EmbeddingGrad from label"):
        play(ONE, label=lying(without_first(EmbeddingGrad)))


def test_a_label_party_that_says_stop_and_goes_on_is_not_followed() -> None:
    with pytest.raises(RemoteProtocolError):  # the feature party goes to its test rows; the liar hears them
        play(ONE, label=lying(at(EpochEnd, 0, stop=True)))


def test_a_label_party_that_never_says_stop_does_not_keep_anybody_longer_than_agreed() -> None:
    rehearsal, _ = play(ONE, label=lying(at(EpochEnd, ONE.epochs - 1, stop=False)))
    assert rehearsal.results["party0"] is None


def test_gradients_however_large_end_in_the_feature_partys_own_error() -> None:
    def huge(send: Send) -> Send:
        message = send.message
        if isinstance(message, EmbeddingGrad):
            message = replace(message, grad=torch.full_like(message.grad, 3e38))
        return send._replace(message=message)

    sgd = replace(ONE, optimizer={"name": "SGD", "lr": 1.0})
    with pytest.raises(DataError, match="the embedding is not finite"):
        play(sgd, label=lying(huge))


def test_a_party_that_says_nothing_is_named_by_whoever_waits() -> None:
    async def silent(line: Line) -> None:
        await line.hear(LABEL, EpochEnd)

    company = cast(Setup(k=2))
    with pytest.raises(Deadlock, match="label waits for Embedding from party1"):
        rehearse(company.roles() | {"party1": silent}, MESSAGES, streams=company.streams)


def test_a_party_that_ends_early_is_named_by_whoever_waits() -> None:
    async def leaves(line: Line) -> None:
        return None

    company = cast(Setup(k=2))
    with pytest.raises(Deadlock, match=r"label waits for Embedding from party0 \(which has ended\)"):
        rehearse(company.roles() | {"party0": leaves}, MESSAGES, streams=company.streams)


def test_a_feature_party_hears_nothing_of_another() -> None:
    rehearsal, _ = play(Setup(k=3))
    assert {said.sender for said in rehearsal.view("party0")} == {LABEL}


def test_a_curious_feature_party_can_read_labels_off_its_gradients_as_the_docstring_says() -> None:
    # Chance is a half; the sign of the gradient along its main direction parts the classes.
    setup = Setup(k=1, own=False, epochs=1, n={"train": 200, "valid": 0, "test": 0}, batch_size=40)
    rehearsal, company = play(setup)
    grads = [
        said.message.grad for said in rehearsal.view("party0") if isinstance(said.message, EmbeddingGrad)
    ]
    truth = torch.cat([b.y for b in company.rows[LABEL].batches("train", 1) if b.y is not None])
    seen = torch.cat(grads)
    guess = (seen @ torch.linalg.svd(seen, full_matrices=False).Vh[0] > 0).float()
    hits = (guess == truth).float().mean().item()
    assert max(hits, 1 - hits) > 0.9
