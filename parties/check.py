"""What can be known before a run: rows, widths, parameters, bytes, and who will learn what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parties.aligning import in_common, open_rows
from parties.assembly import Assembly, PlacedSite
from parties.label import build_joint, coded_labels, contributors_of
from parties.seat import Holding, build_bottom, hold, learner_of
from vfl.data.batches import EVALUATION_ROWS, cuts
from vfl.data.preparation import Preparation
from vfl.learn.networks import parameter_count


@dataclass(frozen=True)
class SiteCheck:
    """Is what one party can know of itself."""

    party: str
    rows: dict[str, int]
    columns: int
    parameters: dict[str, int]


def check_site(assembly: Assembly, placed: PlacedSite) -> SiteCheck:
    """Reads a party's table and builds its networks, without talking to anyone.

    Raises:
        ConfigError: if its documents cannot be used.
        DataError: if its table cannot be used.
    """
    job, site = assembly.job, placed.site
    holding = hold(job, placed, in_common(job, open_rows(placed)))
    parameters: dict[str, int] = {}
    if holding.preparation is not None:
        bottom = build_bottom(job, placed, holding.preparation)
        learner_of(job, site, bottom)
        parameters["bottom"] = parameter_count(bottom)
    if job.parties[site.party].role == "label":
        parameters |= _check_label(assembly, placed, holding)
    preparation = holding.preparation
    columns = _columns(preparation) if preparation else 0
    return SiteCheck(site.party, holding.counts, columns, parameters)


def traffic_of(assembly: Assembly, rows: dict[str, int] | None) -> list[dict[str, Any]]:
    """Bounds each feature party's bytes a full step, and an epoch where the number of rows is known."""
    job, table = assembly.job, []
    step_bytes = assembly.protocol.module.step_bytes
    for name, width in contributors_of(assembly).items():
        sent, received = step_bytes(width, job.batch_size)
        row: dict[str, Any] = {
            "party": name,
            "width": width,
            "sent_a_step": sent,
            "received_a_step": received,
        }
        if rows is not None:
            trained = [step_bytes(width, n) for n in _dealt(rows["train"], job.batch_size)]
            evaluated = [
                step_bytes(width, n) for n in _dealt(rows["valid"], max(job.batch_size, EVALUATION_ROWS))
            ]
            row["sent_an_epoch"] = sum(sent for sent, _ in trained + evaluated)
            row["received_an_epoch"] = sum(received for _, received in trained)
        table.append(row)
    return table


def _columns(preparation: Preparation) -> int:
    named = (preparation.numeric_names, preparation.categorical_names, preparation.date_names)
    return sum(map(len, named))


def _dealt(rows: int, size: int) -> list[int]:
    """Lists the sizes of the batches that so many rows make."""
    return [stop - start for start, stop in cuts(rows, size)]


def _check_label(assembly: Assembly, placed: PlacedSite, holding: Holding) -> dict[str, int]:
    job, site = assembly.job, placed.site
    coded_labels(job, placed, holding)
    widths = contributors_of(assembly)
    width = job.parties[site.party].width
    joint = build_joint(assembly, placed, widths | ({site.party: width} if width else {}))
    learner_of(job, site, joint)
    return {"trunk": parameter_count(joint)}
