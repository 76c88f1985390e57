"""Built-in tables: scikit-learn's own copies of two small, real data sets.

    builtin:breast_cancer   569 tumours, 30 measurements, `diagnosis` is "malignant" or "benign"
    builtin:digits          1797 images of 8 × 8 pixels, `digit` is 0 to 9

Their ids are row numbers written as text, "0" onwards, in a column `id`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import numpy as np

from vfl.errors import DataError

BUILTIN_TABLES: Final = ("breast_cancer", "digits")


def builtin_columns(name: str) -> list[str]:
    """Names the columns of a built-in table: the id, the features, the label.

    Raises:
        DataError: there is no such table.
    """
    return list(_load(name))


def load_builtin(name: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Loads the asked-for columns of a built-in table, each [n], and no others.

    Raises:
        DataError: there is no such table, or it has no such column.
    """
    table = _load(name)
    for column in columns:
        if column not in table:
            raise DataError(
                f"builtin:{name}: there is no column {column!r}: "
                f"the table has {', '.join(list(table)[:4])}, … ({len(table)} columns)"
            )
    return {column: table[column] for column in columns}


def _load(name: str) -> dict[str, np.ndarray]:
    if name not in BUILTIN_TABLES:
        close = difflib.get_close_matches(name, BUILTIN_TABLES, n=1)
        hint = f"did you mean builtin:{close[0]}? " if close else ""
        known = ", ".join(f"builtin:{known}" for known in BUILTIN_TABLES)
        raise DataError(f"builtin:{name}: there is no such built-in table: {hint}the known ones are {known}")
    # Imported here: scikit-learn takes longer to import than most tables take to read.
    from sklearn import datasets

    if name == "breast_cancer":
        bunch = datasets.load_breast_cancer()
        label = {"diagnosis": np.array([str(bunch.target_names[t]) for t in bunch.target], dtype=object)}
    else:
        bunch = datasets.load_digits()
        label = {"digit": np.asarray(bunch.target, dtype=np.int64)}
    ids = np.array([str(row) for row in range(len(bunch.target))], dtype=object)
    features = {str(feature): bunch.data[:, j] for j, feature in enumerate(bunch.feature_names)}
    return {"id": ids, **features, **label}
