"""Split learning beyond equality: who may take part, running ahead, stopping early, and diverging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import casting
import numpy as np
import pytest
import torch
from casting import LABEL, Setup, cast, play, train_split
from pydantic import ValidationError
from torch import Tensor, nn

from protocols.splitnn import (
    MESSAGES,
    Config,
    Embedding,
    EmbeddingGrad,
    EpochEnd,
    check_roster,
    feature_predicts,
    label_predicts,
    step_bytes,
)
from vfl.errors import ConfigError, DataError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.session import Member, Session
from vfl.wire.codec import MAX_FRAME_BYTES, encode, frames_bytes
from vfl.wire.rehearse import Rehearsal, rehearse

FEATURE, LABEL_ROLE = "feature", "label"


class Notes:
    """Is a journal that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int, int, float | None]] = []
        self.epochs: list[dict[str, Any]] = []
        self.kept: list[tuple[int, list[str], bool]] = []

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        self.steps.append((epoch, step, steps, rows, loss))

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append(dict(record))

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        self.kept.append((epoch, sorted(learners), best))


class Halves(nn.Module):
    """Is a user's bottom that computes in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(casting.P, 4).to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.to(torch.bfloat16))
        return result


class Root(nn.Module):
    """Is a user's cut whose value is finite where its gradient is not."""

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        return (embeddings[0] * 0).sqrt()


def said(rehearsal: Rehearsal, kind: type[Any]) -> list[Any]:
    return [one.message for one in rehearsal.transcript if isinstance(one.message, kind)]


# --- who takes part --------------------------------------------------------------------------------


def roster(k: int, labels: int = 1) -> dict[str, str]:
    return {f"f{i}": FEATURE for i in range(k)} | {f"l{i}": LABEL_ROLE for i in range(labels)}


@pytest.mark.parametrize("k", [1, 16])
def test_one_to_sixteen_feature_parties_may_take_part(k: int) -> None:
    check_roster(Config(), roster(k), {name: 4 if name[0] == "f" else None for name in roster(k)})


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (roster(1, labels=0), "0 have role = 'label'"),
        (roster(2, labels=2), "2 have role = 'label'"),
        (roster(0), "0 have role = 'feature'; there may be 1 to 16"),
        (roster(17), "17 have role = 'feature'; there may be 1 to 16"),
    ],
)
def test_a_roster_of_other_sizes_is_refused(roles: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_roster(Config(), roles, dict.fromkeys(roles, 4))


def test_a_feature_party_without_a_width_is_named() -> None:
    with pytest.raises(ConfigError, match=r"parties\.f1\.width: is missing"):
        check_roster(Config(), roster(2), {"f0": 4, "f1": None, "l0": None})


@pytest.mark.parametrize("cut", ["sum", "mean", "max", "product"])
def test_unequal_widths_are_refused_where_the_cut_needs_one(cut: str) -> None:
    widths: dict[str, int | None] = {"f0": 4, "f1": 5, "l0": None}
    with pytest.raises(ConfigError, match="one width for all parties, and they are f0 4, f1 5; use concat"):
        check_roster(Config(cut=cut), roster(2), widths)
    check_roster(Config(cut="concat"), roster(2), widths)


def test_a_users_cut_is_not_imported_to_check_the_roster() -> None:
    check_roster(Config(cut="no.such:Module"), roster(2), {"f0": 4, "f1": 5, "l0": None})


@pytest.mark.parametrize("cut", ["summ", "Concat", ""])
def test_a_misspelt_cut_is_refused_with_the_known_ones(cut: str) -> None:
    with pytest.raises(ValidationError, match="concat, max, mean, product, sum"):
        Config(cut=cut)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Config.model_validate({"cutt": "sum"})


@pytest.mark.parametrize(("width", "rows"), [(1, 1), (8, 32), (65536, 1), (300, 1024)])
def test_the_declared_bytes_are_enough_and_not_many_more(width: int, rows: int) -> None:
    tensor, names = torch.zeros(rows, width), {"to": "x" * 32, "sender": "y" * 32}
    sent = frames_bytes(encode(Embedding(2**31, 2**63 - 1, tensor), **names))
    received = frames_bytes(encode(EmbeddingGrad(2**31, tensor), **names))
    session = Session("bank", "label", {"bank": Member("feature", width)})
    bounds = step_bytes(session, rows)
    assert sent <= bounds[0] <= sent + 32
    assert received <= bounds[1] <= received + 32


def test_the_declared_bytes_of_a_huge_step_are_told_without_making_it() -> None:
    session = Session("bank", "label", {"bank": Member("feature", 1_000_000)})
    assert step_bytes(session, 1_000_000)[0] > MAX_FRAME_BYTES


# --- running ahead ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 3, 32])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_running_ahead_ends_says_as_much_and_learns_about_as_well(ahead: int, batch_norm: bool) -> None:
    exact = Setup(batch_norm=batch_norm, hidden=(6, 5), epochs=4, n={"train": 80, "valid": 20, "test": 20})
    (first, _), (second, _) = play(exact), play(replace(exact, ahead=ahead))
    assert [len(said(first, kind)) for kind in MESSAGES] == [len(said(second, kind)) for kind in MESSAGES]
    losses = [[r["loss"] for r in run.results[LABEL].history] for run in (first, second)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
    assert losses[1][-1] < losses[1][0]


def test_a_party_that_runs_ahead_learns_by_the_weights_that_made_the_embedding() -> None:
    setup = Setup(k=1, own=False, ahead=1, epochs=1, optimizer={"name": "SGD", "lr": 0.1})
    rehearsal, company = play(setup)
    network, heard = cast(setup).learners["party0"].network, said(rehearsal, EmbeddingGrad)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = [weight.detach().clone() for weight in network.parameters()]
    for batch, answer in zip(company.rows["party0"].batches("train", 1), heard, strict=True):
        now = [weight.detach().clone() for weight in network.parameters()]
        set_weights(network, before)  # those of one batch earlier: all that was learned when it was said
        network(*batch.inputs).backward(answer.grad)
        set_weights(network, now)
        optimizer.step()
        optimizer.zero_grad()
        before = now
    for mine, theirs in zip(
        network.parameters(), company.learners["party0"].network.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


def set_weights(network: nn.Module, weights: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.copy_(weight)


# --- the course of a training ----------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights_at_every_party() -> None:
    setup = Setup(epochs=30, patience=2, optimizer={"name": "SGD", "lr": 2.0})
    stopped = train_split(setup)
    assert len(stopped.losses) == stopped.best_epoch + 2 < 30
    assert stopped.valid[stopped.best_epoch - 1]["auc"] == max(scores["auc"] for scores in stopped.valid)
    until_best = train_split(replace(setup, epochs=stopped.best_epoch, patience=None))
    casting.assert_same_weights(stopped.weights, until_best.weights)
    assert stopped.output.tobytes() == until_best.output.tobytes()


def test_feature_parties_are_told_which_epoch_was_best_and_which_the_last() -> None:
    rehearsal, _ = play(Setup(k=2, epochs=30, patience=2, optimizer={"name": "SGD", "lr": 2.0}))
    ends = [one for one in rehearsal.view("party0") if isinstance(one.message, EpochEnd)]
    history = rehearsal.results[LABEL].history
    assert [end.message.best for end in ends] == [record["best"] for record in history]  # type: ignore[attr-defined]
    assert [end.message.stop for end in ends] == [False] * (len(history) - 1) + [True]  # type: ignore[attr-defined]


def test_without_validation_rows_every_epoch_is_the_best_so_far() -> None:
    trained = train_split(Setup(n={"train": 27, "valid": 0, "test": 9}, epochs=3, patience=1))
    assert trained.best_epoch == len(trained.losses) == 3
    assert trained.valid == [{}, {}, {}]
    assert trained.test


def test_without_test_rows_there_are_no_test_scores() -> None:
    trained = train_split(Setup(n={"train": 27, "valid": 9, "test": 0}))
    assert (trained.test, len(trained.output)) == ({}, 0)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_task_is_learned(task: str) -> None:
    big = Setup(task=task, epochs=12, n={"train": 300, "valid": 60, "test": 200}, batch_size=30)
    test = train_split(big).test
    assert test["r2"] > 0.5 if task == "regression" else test["accuracy"] > 0.7


def test_what_was_heard_is_not_changed_by_learning_from_it() -> None:
    rehearsal, _ = play(Setup())
    heard = [message.h for message in said(rehearsal, Embedding)]
    assert not any(h.requires_grad or h.grad is not None for h in heard)


def test_a_bottom_that_computes_in_half_precision_brings_float32_to_the_cut() -> None:
    setup = Setup()
    company = cast(setup)
    for name in ("party0", "own"):
        network = Halves()
        company.learners[name] = casting.learner(setup, network)
    before = company.weights()
    rehearsal = rehearse(company.roles(), MESSAGES, streams=company.streams)
    assert all(message.h.dtype == torch.float32 for message in said(rehearsal, Embedding))
    for name in ("party0", "own"):
        after = company.learners[name].weights()
        assert not torch.equal(after["layer.weight"], before[name]["layer.weight"])


def test_the_journals_hear_of_every_step_and_epoch() -> None:
    company = cast(Setup(k=1, epochs=2, batch_size=13))
    notes = {name: Notes() for name in ("party0", LABEL)}
    rehearse({name: company.role(name, notes[name]) for name in notes}, MESSAGES, streams=company.streams)
    places = [(1, 1, 2, 13), (1, 2, 2, 14), (2, 1, 2, 13), (2, 2, 2, 14)]
    for own in notes.values():
        assert [step[:4] for step in own.steps] == places
        assert [record["epoch"] for record in own.epochs] == [1, 2]
    assert all(step[4] is None for step in notes["party0"].steps)
    assert all(np.isfinite(step[4] or np.nan) for step in notes[LABEL].steps)
    assert notes["party0"].epochs == [
        {"epoch": 1, "best": True},
        {"epoch": 2, "best": notes[LABEL].kept[1][2]},
    ]
    assert [kept[:2] for kept in notes[LABEL].kept] == [(1, ["joint", "own"]), (2, ["joint", "own"])]


def test_prediction_gives_what_training_scored() -> None:
    setup = Setup(k=2, batch_norm=True)
    rehearsal, company = play(setup)
    for rows in company.rows.values():
        rows._splits["all"] = rows._splits["test"]
    roles: dict[str, Any] = {
        name: lambda line, name=name: feature_predicts(
            line,
            session=setup.session(name),
            bottom=company.learners[name],
            rows=company.rows[name],
            journal=Silent(),
        )
        for name in setup.features
    }
    roles[LABEL] = lambda line: label_predicts(
        line,
        session=setup.session(LABEL),
        own=company.learners["own"],
        joint=company.learners["joint"],
        rows=company.rows[LABEL],
        journal=Silent(),
    )
    output = rehearse(roles, MESSAGES, streams=company.streams).results[LABEL]
    assert output.tobytes() == rehearsal.results[LABEL].test_output.tobytes()


# --- diverging -------------------------------------------------------------------------------------


def spoil(company: casting.Cast, part: str, value: float) -> None:
    with torch.no_grad():
        for weight in company.learners[part].network.parameters():
            weight.fill_(value)


@pytest.mark.parametrize(("task", "value"), [("binary", float("nan")), ("regression", 1e30)])
def test_a_loss_that_is_not_finite_is_the_label_partys_own_error(task: str, value: float) -> None:
    company = cast(Setup(task=task))
    spoil(company, "joint", value)
    with pytest.raises(DataError, match=r"the loss .* at epoch 1, step 0: .*lower optimizer\.lr") as caught:
        rehearse(company.roles(), MESSAGES, streams=company.streams)
    assert caught.value.__notes__ == ["in the role of label"]


def test_a_gradient_that_is_not_finite_is_the_label_partys_own_error_and_is_not_sent() -> None:
    with pytest.raises(DataError, match=r"the loss \(.*\) or its gradient is not finite") as caught:
        play(Setup(cut=Root))
    assert caught.value.__notes__ == ["in the role of label"]


@pytest.mark.parametrize(("part", "where"), [("party1", "party1"), ("own", "label")])
def test_an_embedding_that_is_not_finite_is_its_own_partys_error(part: str, where: str) -> None:
    company = cast(Setup())
    spoil(company, part, float("inf"))
    with pytest.raises(DataError, match="the embedding is not finite at step 0: training diverges") as caught:
        rehearse(company.roles(), MESSAGES, streams=company.streams)
    assert caught.value.__notes__ == [f"in the role of {where}"]


def test_a_learning_rate_far_too_high_ends_in_an_error_and_not_in_a_bad_model() -> None:
    with pytest.raises((DataError, ConfigError), match="diverge"):
        play(Setup(task="regression", optimizer={"name": "SGD", "lr": 1e9}, epochs=20))
