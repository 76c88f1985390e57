"""The feature party: its own columns, its own bottom, no label."""

from __future__ import annotations

from typing import Any

from parties.assembly import Assembly
from parties.seat import (
    Seat,
    build_bottom,
    hold,
    hold_for_prediction,
    kinds_of,
    learner_of,
    plan_of,
    rows_of,
    stream_of,
)
from parties.trained import Trained
from vfl.journal import Journal
from vfl.wire.line import Line


def feature_seat(assembly: Assembly, name: str, journal: Journal) -> Seat:
    """Makes a feature party ready to train.

    Raises:
        ConfigError: if its networks or optimiser cannot be built.
        DataError: if its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    holding = hold(job, placed)
    assert holding.preparation is not None  # noqa: S101 - the assembly has columns for it
    bottom = learner_of(job, placed.site, build_bottom(job, placed, holding.preparation))
    rows, plan, label = rows_of(job, holding), plan_of(job), job.with_role("label")[0]

    async def role(line: Line) -> Any:  # noqa: ANN401 - what the protocol's role returns
        train = assembly.protocol.roles["feature"]
        return await train(line, label=label, bottom=bottom, rows=rows, plan=plan, journal=journal)

    return Seat(
        name=name,
        role=role,
        kinds=kinds_of(assembly),
        stream=stream_of(job, placed.site),
        learners={"bottom": bottom},
        holding=holding,
        saved={"preparation": holding.preparation.to_json()},
    )


def feature_predictor(assembly: Assembly, name: str, trained: Trained) -> Seat:
    """Makes a trained feature party ready to predict.

    Raises:
        ConfigError: if its checkpoint does not fit its site.
        DataError: if its table cannot be used.
    """
    job, placed = assembly.job, assembly.sites[name]
    assert trained.preparation is not None  # noqa: S101 - a feature party saves one
    holding = hold_for_prediction(job, placed, trained.preparation)
    bottom = learner_of(job, placed.site, build_bottom(job, placed, trained.preparation), training=False)
    bottom.load_weights(trained.weights["bottom"])
    rows, label = rows_of(job, holding), job.with_role("label")[0]

    async def role(line: Line) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.predictors["feature"](line, label=label, bottom=bottom, rows=rows)

    return Seat(
        name=name,
        role=role,
        kinds=kinds_of(assembly),
        stream=stream_of(job, placed.site, "prediction"),
        learners={"bottom": bottom},
        holding=holding,
    )
