"""The feature party: its own columns, its own bottom, no label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parties.assembly import Assembly
from parties.seat import (
    Part,
    build_bottom,
    build_layers,
    given,
    hold,
    hold_for_prediction,
    learner_of,
    plan_of,
    rows_of,
)
from parties.trained import Trained
from vfl.data.gather import Shared
from vfl.journal import Journal
from vfl.session import Session
from vfl.wire.line import Line


def feature_part(assembly: Assembly, name: str, shared: Shared, journal: Journal, scratch: Path) -> Part:
    """Makes a feature party's part of a training.

    Raises:
        ConfigError: if its networks or optimiser cannot be built.
        DataError: if its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    holding = hold(job, placed, shared, scratch)
    assert holding.preparation is not None  # noqa: S101 - the assembly has columns for it
    bottom = learner_of(job, placed.site, build_bottom(job, placed, holding.preparation))
    layers = build_layers(assembly, name)
    rows, plan = rows_of(job, holding), plan_of(job)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        train, more = assembly.protocol.roles["feature"], given(assembly, layers)
        return await train(
            line, session=session, bottom=bottom, rows=rows, plan=plan, journal=journal, **more
        )

    saved = {"preparation": holding.preparation.to_json()}
    return Part(name, role, {"bottom": bottom, **layers}, holding, saved)


def feature_predictor(
    assembly: Assembly, name: str, shared: Shared, trained: Trained, journal: Journal
) -> Part:
    """Makes a trained feature party's part of a prediction.

    Raises:
        ConfigError: if its checkpoint does not fit its site.
        DataError: if its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    assert trained.preparation is not None  # noqa: S101 - a feature party saves one
    holding = hold_for_prediction(placed, job, shared, trained.preparation)
    bottom = learner_of(job, placed.site, build_bottom(job, placed, trained.preparation), training=False)
    bottom.load_weights(trained.weights["bottom"])
    layers = build_layers(assembly, name, trained.weights)
    rows = rows_of(job, holding)

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        predict, more = assembly.protocol.predictors["feature"], given(assembly, layers)
        return await predict(line, session=session, bottom=bottom, rows=rows, journal=journal, **more)

    return Part(name, role, {"bottom": bottom, **layers}, holding)
