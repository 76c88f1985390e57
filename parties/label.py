"""The label party: the labels, the network up to the prediction, perhaps columns of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parties.assembly import Assembly, PlacedSite
from parties.seat import (
    DEFAULT_HEAD,
    DEFAULT_TRUNK,
    Holding,
    Part,
    build_bottom,
    build_layers,
    given,
    hold,
    hold_for_prediction,
    in_site,
    learner_of,
    plan_of,
    rows_of,
    seed_of,
)
from parties.trained import Trained
from vfl.config.job import Job
from vfl.data.batches import Rows
from vfl.data.gather import Shared, read_labels
from vfl.data.labels import LabelCode, encode_labels, fit_labels
from vfl.data.preparation import Preparation
from vfl.errors import ConfigError
from vfl.journal import Journal
from vfl.learn.cut import Joint, joined_width
from vfl.learn.learner import Learner
from vfl.learn.networks import build_network, import_object
from vfl.learn.scores import output_width
from vfl.rng import RngStream
from vfl.session import Session
from vfl.wire.line import Line


@dataclass(frozen=True)
class LabelPart(Part):
    """Is the label party's part, with what its report needs beside."""

    rows: Rows | None = None
    code: LabelCode | None = None


def label_part(assembly: Assembly, name: str, shared: Shared, journal: Journal, scratch: Path) -> LabelPart:
    """Makes the label party's part of a training.

    Raises:
        ConfigError: if its networks or optimiser cannot be built.
        DataError: if its table or label cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    holding = hold(job, placed, shared, scratch)
    code, y = coded_labels(job, placed, holding)
    rows = rows_of(job, holding, y)
    own = _own_bottom(assembly, placed, holding.preparation)
    joint = joint_learner(assembly, placed)
    layers = build_layers(assembly, name)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.roles["label"](
            line,
            session=session,
            own=own,
            joint=joint,
            rows=rows,
            task=job.task,
            plan=plan_of(job),
            journal=journal,
            **given(assembly, layers),
        )

    return LabelPart(
        name=name,
        role=role,
        learners={"joint": joint, **layers} | ({"own": own} if own else {}),
        holding=holding,
        saved={
            "preparation": holding.preparation.to_json() if holding.preparation else None,
            "label": code.to_json(),
        },
        rows=rows,
        code=code,
    )


def label_predictor(
    assembly: Assembly, name: str, shared: Shared, trained: Trained, journal: Journal
) -> Part:
    """Makes the trained label party's part of a prediction.

    Raises:
        ConfigError: if its checkpoint does not fit its site.
        DataError: if its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    holding = hold_for_prediction(placed, job, shared, trained.preparation)
    own = _own_bottom(assembly, placed, trained.preparation, training=False)
    joint = learner_of(job, placed.site, _joint_network(assembly, placed), training=False)
    joint.load_weights(trained.weights["joint"])
    if own:
        own.load_weights(trained.weights["own"])
    layers = build_layers(assembly, name, trained.weights)
    rows = rows_of(job, holding)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        predict, more = assembly.protocol.predictors["label"], given(assembly, layers)
        return await predict(line, session=session, own=own, joint=joint, rows=rows, journal=journal, **more)

    return Part(name, role, {"joint": joint, **layers}, holding)


def coded_labels(job: Job, placed: PlacedSite, holding: Holding) -> tuple[LabelCode, torch.Tensor]:
    """Learns the classes from the training rows, and encodes all rows [n].

    Raises:
        DataError: if a label cannot be used.
    """
    shared = holding.shared
    task = job.task
    assert placed.site.label is not None  # noqa: S101 - checked with the assembly
    assert task != "recommendation"  # noqa: S101 - that has no label party
    with in_site(placed):
        column = read_labels(shared, task=task)
        code = fit_labels(
            column,
            holding.splits["train"],
            task=task,
            classes=job.classes,
            positive=placed.site.label.positive,
        )
        return code, encode_labels(column, code)


def joint_learner(assembly: Assembly, placed: PlacedSite) -> Learner:
    """Builds cut and trunk, or the head; what they are follows from the job and the site alone.

    Raises:
        ConfigError: if the cut, the trunk, the head or the optimiser cannot be used.
    """
    return learner_of(assembly.job, placed.site, _joint_network(assembly, placed))


def build_joint(
    assembly: Assembly, placed: PlacedSite, widths: Mapping[str, int], purpose: str = "trunk"
) -> torch.nn.Module:
    """Builds all that lies behind the cut, up to the prediction, at one party.

    Its initial weights follow from the job's seed. In a job with a coordinator it is what the label party
    would have without one: its head, or where it describes none a perceptron.

    Raises:
        ConfigError: if the cut or the trunk cannot be built.
    """
    site = placed.site
    with RngStream(seed_of(assembly.job, site, purpose)):
        cut = _cut_of(assembly, placed)
        key = "head" if site.head else "trunk"
        top = _top(assembly, placed, key, site.head or site.trunk or DEFAULT_TRUNK, joined_width(cut, widths))
        return Joint(cut, top)


def _joint_network(assembly: Assembly, placed: PlacedSite) -> torch.nn.Module:
    job = assembly.job
    coordinators = job.with_role("coordinator")
    if not coordinators:
        return build_joint(assembly, placed, assembly.joint_widths)
    width = job.parties[coordinators[0]].width
    assert width is not None  # noqa: S101 - checked with the assembly
    with RngStream(seed_of(job, placed.site, "head")):
        return _top(assembly, placed, "head", placed.site.head or DEFAULT_HEAD, width)


def _top(
    assembly: Assembly, placed: PlacedSite, key: str, description: Mapping[str, Any], inputs: int
) -> torch.nn.Module:
    job = assembly.job
    return build_network(
        description,
        inputs=inputs,
        output=output_width(job.task, job.classes or 2),
        where=f"{placed.site.party}.toml: {key}",
        folder=placed.folder,
    )


def _cut_of(assembly: Assembly, placed: PlacedSite) -> str | torch.nn.Module:
    cut = str(getattr(assembly.options, "cut", "sum"))
    if ":" not in cut:
        return cut
    where = f"job: protocols.{assembly.protocol.name}.cut"
    made = import_object(cut, where, placed.folder)
    module = made() if callable(made) else made
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f"{where} = {cut!r}: is no torch.nn.Module; name a class of one that takes no arguments"
        )
    return module


def _own_bottom(
    assembly: Assembly, placed: PlacedSite, preparation: Preparation | None, *, training: bool = True
) -> Learner | None:
    if preparation is None:
        return None
    network = build_bottom(assembly.job, placed, preparation)
    return learner_of(assembly.job, placed.site, network, training=training)
