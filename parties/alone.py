"""The two lines that training together is measured against: the label party alone, and one owner of all.

Both are split learning without partners, on the same rows, with the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import protocols
from parties.aligning import Opened, in_common, open_rows
from parties.assembly import Assembly, PlacedSite
from parties.label import LabelPart, build_joint, coded_labels
from parties.seat import DEFAULT_BOTTOM, build_bottom, hold, learner_of, plan_of, rows_of, seed_of, stream_of
from vfl.data.batches import Rows
from vfl.data.preparation import Features
from vfl.journal import Silent
from vfl.learn.cut import CUTS, joined_width
from vfl.learn.networks import build_network
from vfl.learn.outcome import Outcome
from vfl.learn.scores import score
from vfl.rng import RngStream
from vfl.session import Member, Session
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse


def train_alone(assembly: Assembly, name: str, part: LabelPart) -> dict[str, Any]:
    """Scores what the label party reaches without partners, on the same rows.

    With columns of its own, it trains the same networks with the same settings on these alone. With
    none, it predicts the training rows' class shares, or their mean.

    Raises:
        ConfigError: if the cut, or a schedule, cannot do without the partners.
        DataError: if training diverges.
    """
    job, placed = assembly.job, assembly.sites[name]
    assert part.rows is not None  # noqa: S101 - only a part of a training comes here
    preparation = part.held.preparation
    if preparation is None:
        truth = part.rows.truth("train")
        output = constant_output(job.task, truth, part.rows.count("test"), job.classes or 2)
        kind = "mean" if job.task == "regression" else "majority class"
        return {"kind": kind, "test": score(job.task, part.rows.truth("test"), output)}
    bottom = build_bottom(job, placed, preparation, "alone bottom")
    width = job.parties[name].width
    assert width is not None  # noqa: S101 - checked with the assembly
    return {"kind": "own features", "test": _train(assembly, placed, bottom, width, part.rows).test}


def train_centralised(assembly: Assembly, bottom: Mapping[str, Any] | None = None) -> Outcome:
    """Trains as one owner of all parties' columns would, on the rows that all share.

    It needs every party's table on this machine, so it is for studies only. The one bottom is as wide as
    the cut; trunk, optimiser, rows, split and batches are the job's.

    Args:
        assembly: the job with every party's site.
        bottom: the one bottom's description; by default the label party's, or else a linear layer.

    Raises:
        VflError: if a table cannot be used, or training diverges.
    """
    job, label = assembly.job, assembly.job.with_role("label")[0]
    opened = {name: open_rows(assembly.sites[name]) for name in assembly.holders}
    common = set.intersection(*(set(one.ids.tolist()) for one in opened.values()))
    held = {
        name: hold(job, assembly.sites[name], in_common(job, one, _places(one, common)))
        for name, one in opened.items()
    }
    placed = assembly.sites[label]
    _, y = coded_labels(job, placed, held[label])
    pooled = [holding.features for holding in held.values() if holding.features is not None]
    sizes = [size for one in held.values() if one.preparation for size in one.preparation.category_sizes]
    codes = [features.codes for features in pooled if features.codes is not None]
    features = Features(
        x=torch.cat([features.x for features in pooled], dim=1),
        codes=torch.cat(codes, dim=1) if codes else None,
    )
    cut = str(getattr(assembly.options, "cut", "sum"))
    width = joined_width(cut if cut in CUTS else "concat", assembly.joint_widths)
    with RngStream(seed_of(job, placed.site, "centralised bottom")):
        network = build_network(
            bottom or placed.site.bottom or DEFAULT_BOTTOM,
            inputs=features.x.shape[1],
            output=width,
            category_sizes=sizes,
            where=f"{label}.toml: bottom",
            folder=placed.folder,
        )
    return _train(assembly, placed, network, width, rows_of(job, held[label], y, features))


def constant_output(task: str, truth: np.ndarray, n: int, classes: int) -> np.ndarray:
    """Returns [n, c] the raw output of a model that knows only how often each class occurs, or the mean."""
    if task == "regression":
        return np.full((n, 1), truth.mean(), dtype=np.float32)
    counts = np.bincount(truth.astype(np.int64), minlength=classes) + 1.0  # never a chance of nothing
    logs = np.log(counts / counts.sum())
    constant = [logs[1] - logs[0]] if task == "binary" else logs
    return np.tile(np.asarray(constant, dtype=np.float32), (n, 1))


def _train(
    assembly: Assembly, placed: PlacedSite, bottom: torch.nn.Module, width: int, rows: Rows
) -> Outcome:
    """Trains a bottom and the trunk with nobody else: split learning without a second party."""
    job, name = assembly.job, placed.site.party
    own = learner_of(job, placed.site, bottom)
    joint = learner_of(job, placed.site, build_joint(assembly, placed, {name: width}, "alone trunk"))
    protocol = protocols.load("splitnn")
    session = Session(name, name, {name: Member("label", width)})

    async def role(line: Line) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await protocol.roles["label"](
            line,
            session=session,
            own=own,
            joint=joint,
            rows=rows,
            task=job.task,
            plan=plan_of(job),
            journal=Silent(),
        )

    stream = stream_of(job, placed.site, "alone")
    played = rehearse({name: role}, protocol.messages, streams={name: stream}, record=False)
    outcome: Outcome = played.results[name]
    return outcome


def _places(opened: Opened, common: set[str]) -> np.ndarray:
    return np.array([place for place, one in enumerate(opened.ids) if one in common], dtype=np.int64)
