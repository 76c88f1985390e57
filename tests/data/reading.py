"""Reads small tables for tests: all ids and all chunks, as a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vfl.data.table import Chunk, join_chunks, open_table
from vfl.errors import DataError


def whole(source: str, *, folder: Path, as_label: str = "text", **asked: Any) -> Chunk:  # noqa: ANN401
    """Reads a table as a run does: all ids, then all chunks."""
    table = open_table(source, folder=folder, **asked)
    ids = table.read_ids()
    chunk = join_chunks(list(table.chunks(label=as_label)))  # type: ignore[arg-type]
    assert ids.dtype == np.dtypes.StringDType()
    assert ids.tolist() == chunk.ids.tolist()
    assert chunk.start == 0
    assert (chunk.source, chunk.label_name) == (table.source, table.label_name)
    assert chunk.numeric_names == table.numeric_names
    assert chunk.categorical_names == table.categorical_names
    assert chunk.date_names == table.date_names
    return chunk


def read(folder: Path, text: str | bytes, name: str = "bank.csv", **asked: Any) -> Chunk:  # noqa: ANN401
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return whole(name, folder=folder, **asked)


def read_parquet(folder: Path, data: dict[str, Any], **asked: Any) -> Chunk:  # noqa: ANN401
    pq.write_table(pa.table(data), folder / "bank.parquet")
    return whole("bank.parquet", folder=folder, **asked)


def refusal(folder: Path, text: str | bytes, name: str = "bank.csv", **asked: Any) -> str:  # noqa: ANN401
    with pytest.raises(DataError) as caught:
        read(folder, text, name, **asked)
    sentence = str(caught.value)
    assert sentence.startswith(f"{name}: ")
    assert "\n" not in sentence
    return sentence
