"""A made-up data set that is known by name, and a machine that has downloaded nothing yet."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_originals import CONTENT, tiny_dataset, tiny_original

from vfl.datasets.catalogue import DATASETS, Dataset
from vfl.datasets.originals import Original


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no VFL_DATA unless the test sets it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VFL_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # loopback is asked itself
    return tmp_path / "cache" / "vfl-framework"


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Original], Dataset]:
    def add(original: Original) -> Dataset:
        dataset = tiny_dataset(original)
        monkeypatch.setitem(DATASETS, "tiny", dataset)
        return dataset

    return add


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A VFL_DATA with the made-up original deep inside, gzipped."""
    folder = tmp_path / "originals"
    (folder / "some" / "where").mkdir(parents=True)
    (folder / "some" / "where" / "tiny.csv.gz").write_bytes(gzip.compress(CONTENT))
    monkeypatch.setenv("VFL_DATA", str(folder))
    return folder


@pytest.fixture
def tiny() -> Original:
    """The made-up original, published where nobody listens."""
    return tiny_original("http://127.0.0.1:9/tiny.csv")
