from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vfl.data.batches import Rows
from vfl.errors import PeerLost
from vfl.journal import Silent
from vfl.learn.course import direct
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan
from vfl.wire.line import Line

ROWS = Rows(
    np.arange(12, dtype=np.uint64),
    {"train": np.arange(4), "valid": np.arange(4, 8), "test": np.arange(8, 12)},
    features=None,
    y=torch.tensor([0.0, 1.0] * 6),
    batch_size=4,
    seed=0,
)


class Played:
    """Is a top whose only weight is the epoch, whose scores fall, and from which parties vanish."""

    def __init__(self, *, vanishing: dict[tuple[str, int], str], cut_short: bool = False) -> None:
        self.network = nn.Linear(1, 1)
        self.vanished: list[str] = []
        self._vanishing, self._cut_short = vanishing, cut_short

    @property
    def learners(self) -> dict[str, Learner]:
        return {"joint": Learner(self.network)}

    async def train(self, epoch: int) -> float:
        self._vanish("train", epoch)
        nn.init.constant_(self.network.weight, epoch)
        return 1.0 / epoch

    async def outputs(self, split: str, epoch: int) -> np.ndarray | None:
        if self._vanish(split, epoch) and self._cut_short:
            return None
        worse = float(epoch)  # each epoch is less sure of the truth than the one before
        return np.array([[-1.0], [1.0], [-1.0], [1.0]], dtype=np.float32) / (1.0 + worse)

    async def end_epoch(self, best: bool, stop: bool) -> None:
        self.ended = (best, stop)
        self._vanish("end", self.epoch)

    def _vanish(self, when: str, epoch: int) -> bool:
        self.epoch = epoch or self.epoch
        name = self._vanishing.get((when, epoch))
        self.vanished += [name] if name else []
        return name is not None


def directed(top: Played, epochs: int = 4) -> Outcome:
    plan = Plan(epochs, metric="log_loss")
    role: Coroutine[Any, Any, Outcome] = direct(Line("label"), top, ROWS, "binary", plan, Silent())
    try:
        role.send(None)
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    raise AssertionError("it waits for somebody")


def test_without_anybody_vanishing_the_first_and_best_epoch_is_kept() -> None:
    top = Played(vanishing={})
    assert directed(top).best_epoch == 1
    assert top.network.weight.item() == 1.0


@pytest.mark.parametrize("cut_short", [True, False])
def test_weights_with_which_rows_were_seen_before_somebody_vanished_are_not_kept(cut_short: bool) -> None:
    """Also where the validation was summed whole: the one that vanished had said all of it before."""
    top = Played(vanishing={("valid", 2): "bank"}, cut_short=cut_short)
    outcome = directed(top)
    assert (outcome.best_epoch, top.network.weight.item()) == (3, 3.0)
    assert outcome.history[1]["valid"] == {}
    assert [record["best"] for record in outcome.history] == [True, False, True, False]


@pytest.mark.parametrize("cut_short", [True, False])
def test_who_vanishes_in_the_last_validation_ends_the_run(cut_short: bool) -> None:
    with pytest.raises(PeerLost, match="bank: vanished when training was over"):
        directed(Played(vanishing={("valid", 4): "bank"}, cut_short=cut_short))


def test_who_vanishes_at_the_end_of_the_last_epoch_ends_the_run() -> None:
    with pytest.raises(PeerLost, match="bank: vanished when training was over"):
        directed(Played(vanishing={("end", 4): "bank"}))


def test_who_vanishes_at_the_end_of_an_epoch_has_the_selection_begin_anew() -> None:
    top = Played(vanishing={("end", 2): "bank"})
    assert directed(top).best_epoch == 3


def test_who_vanishes_in_training_has_that_epoch_be_the_first_to_be_judged() -> None:
    top = Played(vanishing={("train", 3): "bank"})
    assert directed(top).best_epoch == 3
