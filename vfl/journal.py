"""What a role tells its own party while it works: progress, scores, when to keep its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vfl.learn.learner import Learner


class Journal(Protocol):
    """Is told what happens; what it does with it (a progress bar, a file, nothing) is its own affair."""

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Hears of one training step of `steps` an epoch; `loss` is None where it is not known."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Hears of an epoch's end: a JSON-able record of its number, loss, scores and seconds."""

    def warn(self, text: str) -> None:
        """Hears of something that the party's person should know."""

    def absent(self, party: str) -> None:
        """Hears of a party that the run goes on without."""

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        """Is given the state to keep, between two steps; `best` tells whether it is the best so far."""


class Silent:
    """Is a journal that does nothing."""

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Does nothing."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Does nothing."""

    def warn(self, text: str) -> None:
        """Does nothing."""

    def absent(self, party: str) -> None:
        """Does nothing."""

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        """Does nothing."""
