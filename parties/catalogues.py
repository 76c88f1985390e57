"""Compares the participants' catalogues where all of them are on this machine.

Between hosts no catalogue is shown: there parties compare hashes (`parties.aligning.compare_rows`), and can
only tell that two differ. Here the item can be named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from parties.assembly import Assembly
from vfl.data.text import shown
from vfl.errors import DataError
from vfl.ratings.catalogue import ListedItems, list_items


def check_catalogues(assembly: Assembly) -> None:
    """Checks that the participants whose sites are here have catalogues of the same items.

    One that cannot be read is passed over: whoever opens it for its participant says why.

    Raises:
        DataError: naming both files, an item that one has and the other lacks, and its row.
    """
    if assembly.shares != "items":
        return
    listed = _each_listed(assembly)
    first = next(listed, None)
    for other in listed if first else ():
        assert first is not None  # noqa: S101 - or else there is no other
        for (owner, has), (lacker, lacks) in ((other, first), (first, other)):
            extra = has.places.keys() - lacks.places.keys()
            if extra:
                _refuse(owner, has, extra, f"{lacks.source} ({lacker}.toml)")


def _each_listed(assembly: Assembly) -> Iterator[tuple[str, ListedItems]]:
    """Yields each participant's items; of those that name the same column of the same file, the first's."""
    seen = set()
    for name, placed in assembly.sites.items():
        entry = placed.site.catalogue
        if entry is None or (key := (placed.folder, entry.source, entry.item)) in seen:
            continue
        seen.add(key)
        with suppress(DataError):
            yield name, list_items(entry.source, placed.folder, item=entry.item)


def _refuse(owner: str, has: ListedItems, extra: set[str], where: str) -> None:
    item = min(extra, key=has.places.__getitem__)
    row, rest = has.find_row(has.places[item]), len(extra) - 1
    lacking, them = (f", and {rest} more, are", "them") if rest else (" is", "it")
    raise DataError(
        f"{owner}.toml: {has.source}: item {shown(item)} in row {row}{lacking} not in {where}; all "
        f"participants need a catalogue of the same items, in any order: add {them} there, or drop {them} "
        f"here"
    )
