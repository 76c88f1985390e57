"""What a running party tells whoever started it: small JSON-able records, and where they go.

{"event": "listening", "party", "address"}             the hub is open to the others
{"event": "waiting", "party", "for": [...], "seconds"} nothing to do but wait
{"event": "stranger", "party", "key"}                  someone was turned away
{"event": "align", "party", "done", "total"}           the rows that all share are being looked for
{"event": "started", "party", "rows", "kind"}          all hold the same rows; the protocol begins
{"event": "step", "party", "epoch", "epochs", "step", "steps", "loss", "rows_per_s", "sent", "received"}
{"event": "epoch", "party", "epoch", "epochs", "loss", "valid", "best"}
{"event": "phase", "party", "phase"}                   something else takes time
{"event": "vanished", "party"}                         the others go on without it
{"event": "warning", "party", "text"}                  something that its person should know
{"event": "notice", "party", "text"}                   something about the job's folder, said once for all
{"event": "done", "party", "result"}
{"event": "failed", "party", "error", "kind", "exit_code"}
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from parties.trained import BEST, LAST
from vfl.errors import ConfigError, StorageError
from vfl.journal import Silent
from vfl.learn.checkpoint import pack_state, save_checkpoint
from vfl.learn.learner import Learner
from vfl.rng import RngStream
from vfl.wire.ledger import Ledger

Event = dict[str, Any]
Sink = Callable[[Event], None]

_STEP_EVERY_S: Final = 0.2
_CHECKPOINT_EVERY_S: Final = 1.0
METRICS_FILE: Final = "metrics.jsonl"


class RunJournal:
    """Keeps a party's folder while it trains and passes progress on; a `vfl.journal.Journal`."""

    def __init__(
        self, party: str, folder: Path, sink: Sink, *, epochs: int, tensorboard: bool = False
    ) -> None:
        """Makes the journal.

        Args:
            party: whose it is.
            folder: where metrics and checkpoints go.
            sink: whom to tell.
            epochs: how many there are at the most, for progress.
            tensorboard: whether to write event files too.

        Raises:
            ConfigError: if TensorBoard is wanted and not installed.
        """
        self.ledger: Ledger | None = None
        self.stream: RngStream | None = None
        self.saved: Mapping[str, Any] = {}
        self.folder = folder
        self.warnings: list[str] = []
        self.absentees: list[str] = []
        self._party, self._sink, self._epochs = party, sink, epochs
        self._session = ""
        self._best_epoch: int | None = None
        self._next_step_at = 0.0
        self._next_checkpoint_at = 0.0
        self._rows = 0
        self._rows_since: float | None = None
        self._writer = _tensorboard(folder) if tensorboard else None

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Passes progress on, a few times a second."""
        self._rows += rows
        now = time.monotonic()
        if now < self._next_step_at:
            return
        # The first step has no rate: what came before it was waiting, not training.
        known = self._rows and self._rows_since is not None  # a coordinator is told of no ratings
        rate = self._rows / max(now - (self._rows_since or 0.0), 1e-9) if known else None
        self._rows, self._rows_since, self._next_step_at = 0, now, now + _STEP_EVERY_S
        event = {"epoch": epoch, "step": step, "steps": steps, "loss": loss, "rows_per_s": rate}
        self._tell("step", epochs=self._epochs, **event, **self._bytes())

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Adds a line to the metrics file and passes it on."""
        line = msgspec.json.encode(dict(record)) + b"\n"
        try:
            with (self.folder / METRICS_FILE).open("ab") as file:
                file.write(line)
        except OSError as error:
            raise StorageError(
                f"{self.folder / METRICS_FILE}: cannot be written ({error.strerror}); free some space, or "
                f"choose another folder with --out"
            ) from error
        self._tell("epoch", epochs=self._epochs, **record, **self._bytes())
        if self._writer is not None:
            for name, value in _scalars(record).items():
                self._writer.add_scalar(name, value, record["epoch"])

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        """Keeps the state, at most once a second: weights, optimiser, random state, place in the data.

        Raises:
            StorageError: if it cannot be written; the checkpoint before stays whole.
        """
        if best:
            self._best_epoch = epoch
        now = time.monotonic()
        if now < self._next_checkpoint_at:
            return
        self._next_checkpoint_at = now + _CHECKPOINT_EVERY_S
        nested: dict[str, Any] = {name: learner.state_dict() for name, learner in learners.items()}
        if self.stream is not None:
            nested["random"] = self.stream.state_dict()
        tensors, state = pack_state(nested)
        save_checkpoint(self.folder, {"state": tensors}, {"epoch": epoch, "packed": state}, LAST)
        if best:
            self.keep_best(learners)

    def keep_best(self, learners: Mapping[str, Learner]) -> None:
        """Writes the weights that prediction uses, as those of the epoch last called the best.

        Raises:
            StorageError: if they cannot be written.
        """
        weights = {name: learner.weights() for name, learner in learners.items()}
        made = {"epoch": self._best_epoch, "session": self._session, "absent": self.absentees}
        save_checkpoint(self.folder, weights, {**made, **self.saved}, BEST)

    def warn(self, text: str) -> None:
        """Passes on what the party's person should know, and keeps it for the record."""
        self.warnings.append(text)
        self._tell("warning", text=text)

    def absent(self, party: str) -> None:
        """Notes that the run goes on without a party; the best weights are of those that remain."""
        self.absentees.append(party)
        self._sink({"event": "vanished", "party": party})

    def begin_session(self, session: str) -> None:
        """Notes by what name all parties know this training; the best weights keep it."""
        self._session = session

    def phase(self, phase: str) -> None:
        """Passes on that something else takes time now."""
        self._tell("phase", phase=phase)

    def close(self) -> None:
        """Closes what is open."""
        if self._writer is not None:
            self._writer.close()

    def _tell(self, event: str, **details: Any) -> None:  # noqa: ANN401 - JSON-able
        self._sink({"event": event, "party": self._party, **details})

    def _bytes(self) -> dict[str, int]:
        if self.ledger is None:
            return {}
        return {"sent": self.ledger.sent_bytes, "received": self.ledger.received_bytes}


class Telling(Silent):
    """Is the journal of a prediction: it keeps nothing, and passes warnings on."""

    def __init__(self, party: str, sink: Sink) -> None:
        self._party, self._sink = party, sink

    def warn(self, text: str) -> None:
        """Passes on what the party's person should know."""
        self._sink({"event": "warning", "party": self._party, "text": text})


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    scalars = {f"valid/{name}": value for name, value in record.get("valid", {}).items()}
    return scalars | ({"loss": record["loss"]} if record.get("loss") is not None else {})


def _tensorboard(folder: Path) -> Any:  # noqa: ANN401 - an optional library's own
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "log.tensorboard = true: TensorBoard is not installed; pip install 'vfl-framework[tensorboard]'"
        ) from error
    return SummaryWriter(log_dir=str(folder / "tensorboard"))
