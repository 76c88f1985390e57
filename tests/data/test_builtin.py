from __future__ import annotations

import numpy as np
import pytest

from vfl.data.builtin import BUILTIN_TABLES, builtin_columns, load_builtin
from vfl.errors import DataError


@pytest.mark.parametrize("name", BUILTIN_TABLES)
def test_a_builtin_table_hands_over_only_the_columns_asked_for(name: str) -> None:
    last = builtin_columns(name)[-1]
    assert list(load_builtin(name, ["id", last])) == ["id", last]


def test_breast_cancer_has_the_real_measurements_and_diagnoses() -> None:
    columns = builtin_columns("breast_cancer")
    assert columns[0] == "id"
    assert columns[-1] == "diagnosis"
    for family in ("mean *", "* error", "worst *"):
        assert sum(family.strip(" *") in column for column in columns) == 10
    table = load_builtin("breast_cancer", ["id", "mean radius", "diagnosis"])
    assert table["id"][[0, 568]].tolist() == ["0", "568"]
    assert table["mean radius"][0] == 17.99
    assert dict(zip(*np.unique(table["diagnosis"].astype(str), return_counts=True), strict=True)) == {
        "benign": 357,
        "malignant": 212,
    }


def test_digits_have_eight_by_eight_pixels_and_ten_classes() -> None:
    columns = builtin_columns("digits")
    assert columns[1:-1] == [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    assert sorted(set(load_builtin("digits", ["digit"])["digit"].tolist())) == list(range(10))


def test_an_unknown_builtin_table_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(DataError, match=r"did you mean builtin:digits\? the known ones are builtin:breast"):
        builtin_columns("digit")


def test_an_unknown_column_of_a_builtin_table_is_an_error() -> None:
    with pytest.raises(DataError, match="builtin:digits: there is no column 'pixel_9_9'"):
        load_builtin("digits", ["pixel_9_9"])
