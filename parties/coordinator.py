"""The coordinator: no columns, no labels; it sums what the others contribute and runs the trunk on that."""

from __future__ import annotations

from typing import Any

import torch

from parties.assembly import Assembly, PlacedSite
from parties.label import widths_of
from parties.seat import DEFAULT_TRUNK, Part, learner_of, plan_of, seed_of
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
    job, trunk = assembly.job, trunk_learner(assembly, assembly.sites[name])

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        train = assembly.protocol.roles["coordinator"]
        return await train(
            line,
            session=session,
            trunk=trunk,
            batch_size=job.batch_size,
            plan=plan_of(job),
            journal=journal,
        )

    return Part(name, role, {"trunk": trunk}, None)


def coordinator_predictor(assembly: Assembly, name: str, trained: Trained, journal: Journal) -> Part:
    """Makes a trained coordinator's part of a prediction.

    Raises:
        ConfigError: if its checkpoint does not fit its site.
    """
    job, placed = assembly.job, assembly.sites[name]
    trunk = learner_of(job, placed.site, build_trunk(assembly, placed), training=False)
    trunk.load_weights(trained.weights["trunk"])

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        predict = assembly.protocol.predictors["coordinator"]
        return await predict(line, session=session, trunk=trunk, batch_size=job.batch_size, journal=journal)

    return Part(name, role, {"trunk": trunk}, None)


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
            inputs=joined_width("sum", widths_of(assembly)),
            output=width,
            where=f"{site.party}.toml: trunk",
            folder=placed.folder,
        )
