"""Named public data sets, each cut between the parties who could hold it.

`dataset_columns` and `load_dataset` stand behind the sources `dataset:NAME/PARTY` of a site;
`split_dataset` gives every party's part at once. Where an original is not on this machine it is
downloaded and kept (`vfl.datasets.originals`).
"""

from __future__ import annotations

import functools
import os

from vfl.datasets.catalogue import Dataset, find_dataset
from vfl.datasets.originals import DATA_VARIABLE, Progress, read_originals, where
from vfl.datasets.parsing import Columns
from vfl.datasets.vertical import checked_overlap
from vfl.errors import DataError


def dataset_columns(name: str, overlap: float | None) -> list[str]:
    """Names the columns of a party's part, `id` first where it has rows, without reading it.

    Args:
        name: "NAME/PARTY", such as "credit-default/bank".
        overlap: the share of people whom every party holds; None for all of them.

    Raises:
        DataError: there is no such data set or party.
        ConfigError: the overlap is no such share.
    """
    checked_overlap(overlap)
    dataset, party = _find(name)
    return dataset.columns(party)


def load_dataset(name: str, overlap: float | None) -> Columns:
    """Loads a party's part, [n] a column: object for text ("" is missing), else integers or float64.

    Pixels are uint8. The arrays are shared between calls, and cannot be written to.

    Args:
        name: "NAME/PARTY", such as "credit-default/bank".
        overlap: the share of people whom every party holds; None for all of them.

    Raises:
        DataError: there is no such data set or party, or its originals cannot be had.
        ConfigError: the overlap is no such share, or VFL_DATA names no folder.
        StorageError: a download cannot be kept.
    """
    share = checked_overlap(overlap)
    dataset, party = _find(name)
    dataset.columns(party)
    return dict(_held(dataset, share, os.environ.get(DATA_VARIABLE, ""))[party])


def split_dataset(
    dataset: Dataset,
    overlap: float | None = None,
    seed: int = 0,
    progress: Progress = lambda url, done, total: None,
) -> dict[str, Columns]:
    """Reads a data set and cuts it into its files' columns, by the name of each file.

    Raises:
        DataError, ConfigError, StorageError: as `load_dataset` does.
    """
    share = checked_overlap(overlap)
    contents = read_originals(dataset.name, dataset.originals, progress)
    table = dataset.parse(contents)
    parties = {party.name: party.columns for party in dataset.parties}
    return dataset.split(table, parties, share, seed)


def fetch_dataset(name: str, progress: Progress = lambda url, done, total: None) -> None:
    """Downloads the originals of a party's part, unless they are on this machine already.

    For whoever starts several parties at once: each would else download them for itself.

    Raises:
        DataError, ConfigError, StorageError: as `load_dataset` does.
    """
    dataset, _ = _find(name)
    if where(dataset.name, dataset.originals) is None:
        read_originals(dataset.name, dataset.originals, progress)


@functools.lru_cache(maxsize=4)
def _held(dataset: Dataset, share: float, folder: str) -> dict[str, Columns]:
    """Keeps what was last read: a table is opened several times in a run. `folder` is part of the key."""
    tables = split_dataset(dataset, share)
    for columns in tables.values():
        for values in columns.values():
            values.flags.writeable = False
    return tables


def _find(name: str) -> tuple[Dataset, str]:
    stem, slash, party = name.partition("/")
    dataset = find_dataset(stem)
    if not slash:
        names = ", ".join(f"dataset:{stem}/{file}" for file in dataset.files())
        raise DataError(f"dataset:{name}: say whose part: {names}")
    return dataset, party
