"""What every protocol must keep, proved for each module in `protocols/` and each one installed.

A protocol whose roles are among `ROSTERS` needs nothing here. One with roles of its own adds a roster.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from casting import assert_same_weights
from liars import Change, Wrap, lying
from scenes import BATCH_SIZE, EPOCHS, OF_ITS_OWN, ROWS, known_scenes, scenes_of, write_job
from torch import Tensor

import protocols
from parties.aligning import in_common, open_rows
from parties.api import Result, run
from parties.assembly import Assembly, assemble_folder
from parties.party import make_part, take_seat
from parties.predicting import predict
from parties.seat import Part, Played, Seat
from parties.trained import BEST
from vfl.data.batches import Rows
from vfl.errors import RemoteProtocolError
from vfl.journal import Silent
from vfl.learn.checkpoint import load_checkpoint
from vfl.wire.codec import decode, encode, open_envelope, stamp
from vfl.wire.line import Send
from vfl.wire.messages import Message, kinds_by_name
from vfl.wire.rehearse import Gone, Rehearsal, Said, rehearse

PROTOCOLS = [name for name in protocols.names() if name not in OF_ITS_OWN]
SCENES = [
    pytest.param((name, scene), id="-".join(filter(None, (name, scene))))
    for name in PROTOCOLS
    for scene in known_scenes(protocols.load(name)) or ["none"]
]
ARROWS = [
    pytest.param(name, arrow, id=f"{name}-{'-'.join(arrow)}")
    for name in PROTOCOLS
    for arrow in sorted(protocols.load(name).arrows)
]


class Stage:
    """Holds one protocol's job on disk, and each way of running it once."""

    def __init__(self, name: str, scene: str, folder: Path) -> None:
        self.protocol = protocols.load(name)
        self.folder = folder
        found = scenes_of(self.protocol)[scene]
        self.roster, self.vanishes = found.players, found.vanishes
        write_job(folder, name, self.roster, goes_on=bool(found.vanishes))
        self._takes = itertools.count()

    @cached_property
    def assembly(self) -> Assembly:
        return assemble_folder(self.folder)

    @cached_property
    def honest(self) -> tuple[Rehearsal, dict[str, Part]]:
        return self.play()

    @cached_property
    def in_memory(self) -> Result:
        return run(self.folder, in_process=True, out=self.folder / "memory")

    @property
    def transcript(self) -> list[Said]:
        """All that was said of the protocol itself, after the handshake."""
        return [
            said for said in self.honest[0].transcript if isinstance(said.message, self.protocol.messages)
        ]

    def play(self, **liars: Wrap) -> tuple[Rehearsal, dict[str, Part]]:
        """Rehearses the whole job from new seats; `liars` wrap the roles of the parties named."""
        folder = self.folder / f"take{next(self._takes)}"
        seats: dict[str, Seat[Played]] = {}
        for name in self.roster:
            (folder / name).mkdir(parents=True)
            seats[name], _ = take_seat(self.assembly, name, folder / name, lambda event: None)
        if self.vanishes:
            liars = {self.vanishes: lying(vanishing()), **liars}
        roles = {name: liars[name](seat.role) if name in liars else seat.role for name, seat in seats.items()}
        kinds = next(iter(seats.values())).kinds
        streams = {name: seat.stream for name, seat in seats.items()}
        played = rehearse(roles, kinds, streams=streams, hub=self.assembly.hub)
        return played, {name: result.part for name, result in played.results.items()}


def vanishing() -> Change:
    """Makes a party's process die in the second training step."""
    said = itertools.count()

    def change(send: Send) -> Send:
        if send.phase == "train" and next(said) == 1:
            raise Gone
        return send

    return change


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Stage]:
    """Keeps one stage a protocol and scene, whose honest runs are played once for all tests."""

    @functools.cache
    def stage(name: str, scene: str) -> Stage:
        return Stage(name, scene, tmp_path_factory.mktemp(f"{name}{scene}"))

    return stage


@pytest.fixture
def stage(request: pytest.FixtureRequest, stages: Callable[[str, str], Stage]) -> Stage:
    return stages(*request.param)


@pytest.fixture
def all_stages(request: pytest.FixtureRequest, stages: Callable[[str, str], Stage]) -> list[Stage]:
    return [stages(request.param, scene) for scene in scenes_of(protocols.load(request.param))]


every_scene = pytest.mark.parametrize("stage", SCENES, indirect=True)
every_protocol = pytest.mark.parametrize("all_stages", PROTOCOLS, indirect=True)


def skip_if_one_vanishes(stage: Stage) -> None:
    if stage.vanishes:
        pytest.skip("a party that dies over ZeroMQ is tests/parties/test_absence.py's matter")


def test_a_protocol_with_new_roles_is_told_what_to_add() -> None:
    stranger = dataclasses.replace(protocols.load("splitnn"), roles=dict.fromkeys(("buyer", "seller"), print))
    with pytest.raises(pytest.fail.Exception, match=r"add frozenset\(\['buyer', 'seller'\]\) .* to ROSTERS"):
        scenes_of(stranger)


@pytest.mark.parametrize("name", OF_ITS_OWN)
def test_a_protocol_with_a_battery_of_its_own_proves_the_same_there(name: str) -> None:
    elsewhere = {
        "test_a_protocol_with_new_roles_is_told_what_to_add",
        "test_a_protocol_with_a_battery_of_its_own_proves_the_same_there",
        "test_it_runs_over_zeromq_as_in_memory",
        "test_the_trained_parties_predict_and_end",
        "test_it_stays_within_its_declared_bytes",
    }
    own = vars(importlib.import_module(OF_ITS_OWN[name]))
    assert {test for test in globals() if test.startswith("test_")} - elsewhere <= own.keys()


@every_scene
def test_it_ends(stage: Stage) -> None:
    rehearsal, _ = stage.honest
    assert rehearsal.results.keys() == stage.roster.keys() - {stage.vanishes}


@every_scene
def test_twice_with_one_seed_is_equal(stage: Stage) -> None:
    (one, parts), (other, again) = stage.honest, stage.play()
    for name in one.results:
        assert_equal(one.results[name].result, other.results[name].result)
    assert_same_weights(weights(parts), weights(again))


@every_scene
def test_it_learns(stage: Stage) -> None:
    _, parts = stage.honest
    job, fresh = stage.assembly.job, {}
    for name, placed in stage.assembly.sites.items():
        shared = in_common(job, open_rows(placed)) if placed.site.table else None
        fresh[name] = make_part(stage.assembly, name, shared, Silent(), stage.folder)
    begun = weights(fresh)
    for part, trained in weights(parts).items():
        assert any(not torch.equal(begun[part][name], weight) for name, weight in trained.items()), part


@every_scene
def test_it_runs_over_zeromq_as_in_memory(stage: Stage) -> None:
    skip_if_one_vanishes(stage)
    one = stage.in_memory
    other = run(stage.folder, in_process=False, out=stage.folder / "network")
    assert one.metrics == other.metrics
    assert one.predictions == other.predictions
    for name in stage.roster:
        mine, theirs = (load_checkpoint(result.folder / name, BEST) for result in (one, other))
        assert_same_weights(mine.tensors, theirs.tensors)
        assert booked(one.ledger[name]) == booked(other.ledger[name])


@every_scene
def test_the_trained_parties_predict_and_end(stage: Stage) -> None:
    skip_if_one_vanishes(stage)
    prediction = predict(stage.in_memory.folder)
    assert len(prediction.ids) == len(prediction.output) == ROWS
    assert np.isfinite(prediction.output).all()
    test = {row["id"]: row["prediction"] for row in stage.in_memory.predictions}
    joint = {
        name: prediction.code.classes[int(output > 0)]
        for name, output in zip(prediction.ids, prediction.output.reshape(-1), strict=True)
    }
    assert test.items() <= joint.items()


@every_scene
def test_every_message_survives_the_codec(stage: Stage) -> None:
    kinds = kinds_by_name(stage.protocol.messages)
    for said in stage.transcript:
        frames = encode(said.message, to=said.to, sender=said.sender)
        whole = stamp(frames, session=bytes(16), sequence=1, acknowledged=0)
        assert_equal(decode(open_envelope(whole, said.sender), kinds, said.sender), said.message)


@every_protocol
def test_every_kind_of_message_is_said(all_stages: list[Stage]) -> None:
    said = {type(said.message) for stage in all_stages for said in stage.transcript}
    assert said == set(all_stages[0].protocol.messages)


@every_protocol
def test_the_transcripts_are_what_the_docstring_draws(all_stages: list[Stage]) -> None:
    assert set().union(*map(arrows_of, all_stages)) == set(all_stages[0].protocol.arrows)


@every_scene
def test_it_says_of_each_role_what_it_learns(stage: Stage) -> None:
    said = {who for who, _ in stage.assembly.learned}
    assert stage.roster.keys() <= said
    assert all(words.strip().endswith(".") for words in stage.protocol.learns.values())


@every_scene
def test_it_stays_within_its_declared_bytes(stage: Stage) -> None:
    parts = stage.honest[1]
    for name, player in stage.roster.items():
        if name in (stage.assembly.hub, stage.vanishes) or player.width is None:
            continue
        bounds = [stage.assembly.step_bytes(name, n) for n in rows_of_batches(parts[name])]
        train = [said for said in stage.transcript if said.phase == "train"]
        sent = sum(said.n_bytes for said in train if said.sender == name)
        received = sum(said.n_bytes for said in train if said.to == name)
        assert 0 < sent <= sum(bound[0] for bound in bounds)
        assert 0 < received <= sum(bound[1] for bound in bounds)


@pytest.mark.parametrize(("all_stages", "arrow"), ARROWS, indirect=["all_stages"])
def test_a_wrong_message_is_an_error_that_names_the_peer(
    all_stages: list[Stage], arrow: tuple[str, str, str]
) -> None:
    sender, kind, receiver = arrow
    stage = next(stage for stage in all_stages if arrow in arrows_of(stage))
    liar = next(name for name, player in stage.roster.items() if player.role == sender)
    hearers = {name for name, player in stage.roster.items() if player.role == receiver}
    specimen = next(
        s.message for s in stage.transcript if s.sender == liar and type(s.message).__name__ == kind
    )
    for what in [name for name, _ in wrong_ones(specimen, stage)]:
        with pytest.raises(RemoteProtocolError) as caught:
            play_to_the_end(stage, liar, once(kind, hearers, what, stage), f"{kind} with {what}")
        assert caught.value.peer == liar, what


def arrows_of(stage: Stage) -> set[tuple[str, str, str]]:
    role = {name: player.role for name, player in stage.roster.items()}
    return {(role[s.sender], type(s.message).__name__, role[s.to]) for s in stage.transcript}


def play_to_the_end(stage: Stage, liar: str, change: Change, lie: str) -> None:
    stage.play(**{liar: lying(change)})
    pytest.fail(f"{lie} from {liar} was taken for right: the role that hears it must refuse it")


def once(kind: str, hearers: set[str], what: str, stage: Stage) -> Change:
    """Puts a wrong message in the place of the first one of this kind."""
    told: list[bool] = []

    def change(send: Send) -> Send:
        if told or type(send.message).__name__ != kind or send.to not in hearers:
            return send
        told.append(True)
        return send._replace(message=dict(wrong_ones(send.message, stage))[what])

    return change


def wrong_ones(right: Message, stage: Stage) -> Iterator[tuple[str, Message]]:
    """Lists what may stand wrongly in a message's place, each with its name."""
    others = {type(said.message).__name__: said.message for said in stage.transcript}
    yield from ((f"{name} instead", other) for name, other in others.items() if name != type(right).__name__)
    for field in dataclasses.fields(right):  # type: ignore[arg-type]
        value = getattr(right, field.name)
        spoilt = spoilt_tensors(value) if isinstance(value, Tensor) else {}
        if field.name in ("step", "mark"):
            spoilt = {"one more": value + 1, "the negative": -1 - value}
        for how, wrong in spoilt.items():
            yield f"{field.name}: {how}", dataclasses.replace(right, **{field.name: wrong})  # type: ignore[type-var]


def spoilt_tensors(right: Tensor) -> dict[str, Tensor]:
    spoilt = {
        "one row more": torch.cat([right, right[:1]]),
        "no rows": right[:0],
        "one rank more": right.unsqueeze(0),
        "a number": right.reshape(-1)[:1].reshape(()),
        "another type": right.to(torch.float64 if right.dtype != torch.float64 else torch.float32),
        "whole numbers": right.to(torch.int32 if right.dtype != torch.int32 else torch.int8),
    }
    if right.dim() > 1:
        spoilt |= {"one column fewer": right[:, 1:], "columns for rows": right.transpose(0, 1)}
    if right.is_floating_point():
        spoilt |= {f"{bad}": right.clone().index_fill_(0, torch.tensor([0]), bad) for bad in (np.nan, np.inf)}
    return spoilt


def weights(parts: Mapping[str, Part]) -> dict[str, dict[str, Tensor]]:
    return {
        f"{name}/{network}": learner.weights()
        for name, part in parts.items()
        for network, learner in part.learners.items()
    }


def rows_of_batches(part: Part) -> list[int]:
    """Counts the rows of every training batch of every epoch."""
    holding = part.held
    rows = Rows(holding.shared.digests, holding.splits, features=None, y=None, batch_size=BATCH_SIZE, seed=1)
    return [batch.rows for epoch in range(1, EPOCHS + 1) for batch in rows.batches("train", epoch)]


def booked(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{key: value for key, value in row.items() if key != "waited_s"} for row in ledger]
    return sorted((row for row in rows if row["phase"] != "handshake"), key=lambda row: str(row))


def assert_equal(one: object, other: object) -> None:
    """Compares results or messages bit for bit, all but how long they took."""
    assert plain(one) == plain(other)


def plain(value: object) -> object:
    """Turns results or messages into what `==` can compare, and leaves seconds out."""
    if isinstance(value, Tensor):
        return str(value.dtype), plain(value.detach().numpy())
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return type(value), {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items() if key != "seconds"}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
