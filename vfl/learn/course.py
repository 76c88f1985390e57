"""The course of a training as the label party directs it: epochs, scores, what to keep, when to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vfl.data.batches import Rows
from vfl.errors import PeerLost
from vfl.journal import Journal
from vfl.learn.learner import Learner
from vfl.learn.outcome import Outcome
from vfl.learn.plan import Plan, Selection
from vfl.learn.scores import score
from vfl.wire.line import Line


class Top(Protocol):
    """Is what lies behind the cut, as the label party plays it; a protocol says how.

    Attributes:
        learners: the label party's networks by name.
        vanished: the parties that the run has gone on without, in the order in which they vanished.
    """

    @property
    def learners(self) -> Mapping[str, Learner]:
        """See `Top`."""

    @property
    def vanished(self) -> Sequence[str]:
        """See `Top`."""

    async def train(self, epoch: int) -> float:
        """Trains one epoch; returns the mean loss."""

    async def outputs(self, split: str, epoch: int) -> np.ndarray | None:
        """Returns the raw outputs [n, c] for a split's rows; None where somebody vanished on the way."""

    async def end_epoch(self, best: bool, stop: bool) -> None:
        """Tells the others how the epoch ended."""


async def direct(line: Line, top: Top, rows: Rows, task: str, plan: Plan, journal: Journal) -> Outcome:
    """Trains until the plan is over, keeps the best epoch's weights and scores them on the test rows.

    Once somebody has vanished, no weights are kept with which rows were seen before: what two networks with
    equal weights make of one row, with and without a party, tells that party's part.

    Raises:
        PeerLost: if somebody vanishes in the last epoch's validation, or later.
        VflError: as the protocol gives cause.
    """
    kept = {name: learner.weights() for name, learner in top.learners.items()}
    selection, n_vanished = Selection(plan), 0
    history: list[dict[str, Any]] = []
    for epoch in range(1, plan.epochs + 1):
        started = time.perf_counter()
        with line.during("train"):
            loss = await top.train(epoch)
        for learner in top.learners.values():
            learner.end_epoch()
        before = len(top.vanished)
        outputs = await _outputs(line, top, "valid", epoch)
        if len(top.vanished) > before:
            outputs = None  # though all of it was summed: with these weights rows were seen with that party
        scores = _scores(task, rows, "valid", outputs, plan.metric)
        if len(top.vanished) > n_vanished:
            selection, n_vanished = Selection(plan, epoch - (outputs is not None)), len(top.vanished)
        best = outputs is not None and selection.judge(epoch, scores)
        stop = selection.is_over(epoch)
        if best:
            kept = {name: learner.weights() for name, learner in top.learners.items()}
        _check_in_time(stop, top, 0 if selection.best_epoch else len(top.vanished))
        with line.during("valid"):
            await top.end_epoch(best, stop)
        _check_in_time(stop, top, len(top.vanished) - n_vanished)
        seconds = time.perf_counter() - started
        history.append({"epoch": epoch, "loss": loss, "valid": scores, "seconds": seconds, "best": best})
        journal.checkpoint(epoch, top.learners, best=best)
        journal.epoch(history[-1])
        if stop:
            break
    for name, learner in top.learners.items():
        learner.load_weights(kept[name])
    test = await _outputs(line, top, "test", 0)
    assert test is not None  # noqa: S101 - a party that vanishes in the test ends the run
    return Outcome(
        history=history,
        best_epoch=selection.best_epoch,
        valid=history[selection.best_epoch - 1]["valid"],
        test=_scores(task, rows, "test", test),
        test_truth=rows.truth("test"),
        test_output=test,
        vanished=tuple(top.vanished),
    )


def _scores(
    task: str, rows: Rows, split: str, outputs: np.ndarray | None, decides: str = ""
) -> dict[str, float]:
    """Scores a split, with the score that decides first; nothing where there are no rows or no outputs."""
    found = score(task, rows.truth(split), outputs) if outputs is not None and len(outputs) else {}
    return {name: found[name] for name in sorted(found, key=lambda name: name != decides)}


def _check_in_time(stop: bool, top: Top, too_late: int) -> None:
    if stop and too_late:
        raise PeerLost(top.vanished[-1], "vanished when training was over: start anew, with or without it")


async def _outputs(line: Line, top: Top, split: str, epoch: int) -> np.ndarray | None:
    for learner in top.learners.values():
        learner.eval()
    with line.during(split):
        return await top.outputs(split, epoch)
