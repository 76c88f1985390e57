"""Public data sets that sites name: had here before several parties ask, or replaced where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parties.assembly import Assembly, PlacedSite
from parties.events import Sink
from vfl.config.site import Site
from vfl.errors import DataError

_DATASET = "dataset:"


def with_data_at_hand(assembly: Assembly, sink: Sink) -> Assembly:
    """Downloads the data sets that sites name; one that cannot be had gives way to its stand-in.

    Returns:
        The job with sources that can be read, and a note where a stand-in is among them.

    Raises:
        DataError: if a data set cannot be had, and nothing may stand in for it.
    """
    lacking: dict[str, str] = {}
    sites = {name: _placed(placed, sink, lacking) for name, placed in assembly.sites.items()}
    notes = tuple(
        f"MADE-UP DATA: {why}. Until then drawn numbers stand in for {name}: no score here is of it."
        for name, why in lacking.items()
    )
    here = next(iter(sites), assembly.reporter)
    for note in notes:
        sink({"event": "warning", "party": here, "text": note})
    return replace(assembly, sites=sites, notes=(*assembly.notes, *notes))


def _placed(placed: PlacedSite, sink: Sink, lacking: dict[str, str]) -> PlacedSite:
    site, changes = placed.site, dict[str, Any]()
    for key in ("table", "ratings", "catalogue"):
        entry = getattr(site, key)
        if entry is not None and entry.source.startswith(_DATASET):
            source = _source(entry, _downloading(sink, site.party), lacking)
            changes[key] = entry.model_copy(update={"source": source})
    return replace(placed, site=Site.model_copy(site, update=changes))


def _source(entry: Any, progress: Callable[[str, int, int | None], None], lacking: dict[str, str]) -> str:  # noqa: ANN401 - a table's, ratings' or catalogue's
    """Returns the source to read: the entry's own if it can be had."""
    from vfl.datasets import fetch_dataset

    source: str = entry.source
    part, stand_in = source.removeprefix(_DATASET), getattr(entry, "stand_in", None)
    name = part.partition("/")[0]
    if stand_in is None:
        fetch_dataset(part, progress)
        return source
    if name not in lacking:  # or else it was asked for already
        try:
            fetch_dataset(part, progress)
            return source
        except DataError as error:
            lacking[name] = str(error)
    return str(stand_in)


def _downloading(sink: Sink, party: str) -> Callable[[str, int, int | None], None]:
    told: set[str] = set()

    def tell(url: str, done: int, total: int | None) -> None:
        share = f" {100 * done // total // 10 * 10} %" if total else ""
        words = f"downloading {url}{share}"
        if words not in told:
            told.add(words)
            sink({"event": "phase", "party": party, "phase": words})

    return tell
