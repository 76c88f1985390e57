"""How a party's training ends: what is kept where a part of it fails, and what the peers are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from click.testing import Result as Output
from small_jobs import small_job

from parties import finishing, party, predict
from parties.api import load_result
from parties.assembly import assemble_folder
from parties.check import traffic_of
from parties.events import RunJournal
from parties.party import Connection, train_party
from parties.trained import BEST
from vfl.errors import ConfigError, DataError
from vfl.learn.checkpoint import load_checkpoint

NEEDS_ALL = """
import torch

class Cut(torch.nn.Module):
    def forward(self, embeddings):
        bank, shop, club = embeddings
        return torch.cat([bank * shop, club], dim=1)
"""


class Told:
    """Stands for a party's link, and notes with which word it takes leave."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def decline(self, reason: str, about: str, farewell_s: float) -> None:
        self.reasons.append(reason)


def test_what_was_trained_together_outlives_a_failure_of_training_alone(
    vfl: Callable[..., Output], tmp_path: Path
) -> None:
    folder = small_job(tmp_path / "job", protocols={"splitnn": {"cut": "ours_all:Cut"}})
    (folder / "ours_all.py").write_text(NEEDS_ALL)
    result = vfl("run", folder, "--in-process")
    assert result.exit_code == 0, result.output
    assert (
        "(alone: not measured, since training alone failed: cut = Cut: fails on widths club 2"
        in result.stdout
    )
    run = load_result(tmp_path / "runs" / "small")
    assert run.metrics["test"]
    assert (run.alone["kind"], run.alone["test"]) == ("failed", {})
    page = run.report.read_text()
    assert "Nothing was measured alone (training alone failed: cut = Cut: fails on widths club 2" in page
    assert len(predict(run.folder).ids) == 80
    found = json.loads(vfl("run", folder, "--in-process", "--json").stdout)
    assert found["status"] == "finished"
    assert found["alone"]["test"] == {}


def test_a_training_alone_that_diverges_is_told_in_the_result(
    vfl: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: object) -> None:
        raise DataError("the loss is not finite")

    monkeypatch.setattr(finishing, "train_alone", diverges)
    found = json.loads(vfl("run", small_job(tmp_path / "job"), "--in-process", "--json").stdout)
    assert found["alone"] == {"kind": "failed", "test": {}, "why": "the loss is not finite"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (DataError("no rows"), "data"),
        (ConfigError("no such key"), "config"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_peers_hear_why_a_party_ended_while_it_read_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def ends(*_: object) -> None:
        raise error

    told = Told()
    monkeypatch.setattr(party, "take_seat", ends)
    monkeypatch.setattr(party, "_open_port", lambda *_: None)
    monkeypatch.setattr(party, "_link", lambda *_: told)
    assembly = assemble_folder(small_job(tmp_path / "job"))
    with pytest.raises(type(error)):
        train_party(assembly, "bank", tmp_path, lambda event: None, Connection(lambda: "", None))
    assert told.reasons == [reason]


def test_the_best_weights_know_their_epoch_however_seldom_they_are_written(tmp_path: Path) -> None:
    journal = RunJournal("bank", tmp_path, lambda event: None, epochs=3)
    journal.begin_session("s")
    journal.checkpoint(1, {}, best=True)
    journal.checkpoint(2, {}, best=True)  # less than a second after the first: not written
    journal.checkpoint(3, {}, best=False)
    assert load_checkpoint(tmp_path, BEST).state == {"epoch": 1, "session": "s", "absent": []}
    journal.keep_best({})
    assert load_checkpoint(tmp_path, BEST).state == {"epoch": 2, "session": "s", "absent": []}


def test_check_counts_the_batches_that_are_dealt(tmp_path: Path) -> None:
    assembly = assemble_folder(small_job(tmp_path / "job"))
    row: dict[str, Any] = traffic_of(assembly, {"train": 33, "valid": 0, "test": 0})[0]
    assert row["sent_an_epoch"] == np.sum([assembly.step_bytes("bank", rows)[0] for rows in (16, 17)])
