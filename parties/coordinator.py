"""The coordinator: no columns, no labels, no ratings; it sums what the others contribute.

On a sum of embeddings it runs the trunk; from sums over ratings it learns the factors that all share.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from parties.assembly import Assembly, PlacedSite
from parties.seat import DEFAULT_TRUNK, Part, build_layers, given, learner_of, plan_of, seed_of
from parties.trained import Trained
from vfl.journal import Journal
from vfl.learn.cut import joined_width
from vfl.learn.learner import Learner
from vfl.learn.networks import build_network
from vfl.rng import RngStream
from vfl.session import Session
from vfl.wire.line import Line


def coordinator_part(assembly: Assembly, name: str, journal: Journal) -> Part:
    """Makes a coordinator's part of a training.

    Raises:
        ConfigError: if its trunk or optimiser cannot be built.
    """
    if assembly.job.task == "recommendation":
        return _factors_part(assembly, name, journal)
    job, trunk = assembly.job, trunk_learner(assembly, assembly.sites[name])
    layers = build_layers(assembly, name)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        train = assembly.protocol.roles["coordinator"]
        return await train(
            line,
            session=session,
            trunk=trunk,
            batch_size=job.batch_size,
            plan=plan_of(job),
            journal=journal,
            **given(assembly, layers),
        )

    return Part(name, role, {"trunk": trunk, **layers}, None)


def _factors_part(assembly: Assembly, name: str, journal: Journal) -> Part:
    """Makes the part of a coordinator that learns shared factors, and keeps those of the best round."""
    job, learners = assembly.job, dict[str, Learner]()

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.roles["coordinator"](
            line,
            session=session,
            seed=job.seed,
            plan=plan_of(job),
            journal=_KeepingBest(journal, learners),
            alone=job.alone,
        )

    return Part(name, role, learners, None)


class _KeepingBest:
    """Is a journal that also keeps what the learners of the best round were."""

    def __init__(self, journal: Journal, best: dict[str, Learner]) -> None:
        self._journal, self._best = journal, best

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a journal can
        return getattr(self._journal, name)

    def checkpoint(self, epoch: int, learners: Mapping[str, Learner], *, best: bool) -> None:
        """Is given the state to keep; of a best round a copy is what remains."""
        self._journal.checkpoint(epoch, learners, best=best)
        if best:
            self._best |= {name: Learner(copy.deepcopy(one.network)) for name, one in learners.items()}


def coordinator_predictor(assembly: Assembly, name: str, trained: Trained, journal: Journal) -> Part:
    """Makes a trained coordinator's part of a prediction.

    Raises:
        ConfigError: if its checkpoint does not fit its site.
    """
    if assembly.job.task == "recommendation":
        return _answers_predictor(assembly, name, journal)
    job, placed = assembly.job, assembly.sites[name]
    trunk = learner_of(job, placed.site, build_trunk(assembly, placed), training=False)
    trunk.load_weights(trained.weights["trunk"])
    layers = build_layers(assembly, name, trained.weights)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.predictors["coordinator"](
            line,
            session=session,
            trunk=trunk,
            batch_size=job.batch_size,
            journal=journal,
            **given(assembly, layers),
        )

    return Part(name, role, {"trunk": trunk, **layers}, None)


def _answers_predictor(assembly: Assembly, name: str, journal: Journal) -> Part:
    """Makes the part of a coordinator that passes a question on, and the answers back."""

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.predictors["coordinator"](line, session=session, journal=journal)

    return Part(name, role, {}, None)


def trunk_learner(assembly: Assembly, placed: PlacedSite) -> Learner:
    """Builds the trunk, ready to train; what it is follows from the job and the site alone.

    Raises:
        ConfigError: if the trunk or the optimiser cannot be used.
    """
    return learner_of(assembly.job, placed.site, build_trunk(assembly, placed))


def build_trunk(assembly: Assembly, placed: PlacedSite) -> torch.nn.Module:
    """Builds the trunk with the initial weights that follow from the job's seed.

    Raises:
        ConfigError: if the site's description of it cannot be used.
    """
    job, site = assembly.job, placed.site
    width = job.parties[site.party].width
    assert width is not None  # noqa: S101 - checked with the assembly
    with RngStream(seed_of(job, site, "trunk")):
        return build_network(
            site.trunk or DEFAULT_TRUNK,
            inputs=joined_width("sum", assembly.widths),
            output=width,
            where=f"{site.party}.toml: trunk",
            folder=placed.folder,
        )
