from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfl.data.features import LabelCode, Preparation, encode_labels, fit_labels, fit_preparation, prepare
from vfl.data.table import Table
from vfl.errors import DataError


def make_table(
    numeric: dict[str, list[float]] | None = None,
    categorical: dict[str, list[str]] | None = None,
    label: list[Any] | None = None,
) -> Table:
    numeric, categorical = numeric or {}, categorical or {}
    columns: list[list[Any]] = [
        *numeric.values(),
        *categorical.values(),
        *([label] if label is not None else []),
    ]
    n = len(columns[0])
    return Table(
        source="bank.csv",
        ids=[f"id{row}" for row in range(n)],
        numeric=np.array(list(numeric.values()), dtype=np.float64).reshape(len(numeric), n).T,
        numeric_names=tuple(numeric),
        categorical=np.array(list(categorical.values()), dtype=object).reshape(len(categorical), n).T,
        categorical_names=tuple(categorical),
        label=None if label is None else np.array(label, dtype=object),
        label_name=None if label is None else "risk",
    )


def every(table: Table) -> np.ndarray:
    return np.arange(len(table))


def test_standardised_training_rows_have_mean_0_and_deviation_1() -> None:
    table = make_table({"a": [1, 2, 3, 4, 100], "b": [5, 5, 7, 7, 0]})
    train = np.arange(4)
    x = prepare(table, fit_preparation(table, train, standardize=True)).x
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[:4].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:4].std(0, correction=0), 1, atol=1e-6)


def test_a_preparation_knows_nothing_of_the_rows_held_out() -> None:
    train = np.array([0, 1])
    one = make_table({"a": [1, 2, 3]}, {"k": ["x", "y", "z"]})
    other = make_table({"a": [1, 2, -9]}, {"k": ["x", "y", "w"]})
    assert fit_preparation(one, train, standardize=True) == fit_preparation(other, train, standardize=True)


def test_a_constant_column_is_centred_and_not_scaled() -> None:
    table = make_table({"a": [3.0, 3.0, 3.0]})
    preparation = fit_preparation(table, every(table), standardize=True)
    assert preparation.scale == (1.0,)
    assert prepare(table, preparation).x.tolist() == [[0], [0], [0]]


def test_without_standardising_numbers_stay_as_they_are() -> None:
    table = make_table({"a": [0.1, 2, 300]})
    x = prepare(table, fit_preparation(table, every(table), standardize=False)).x
    assert torch.equal(x, torch.tensor([[0.1], [2], [300]]))


def test_a_category_that_no_training_row_had_gets_code_0() -> None:
    table = make_table(categorical={"k": ["b", "a", "b", "new"], "l": ["x", "x", "x", "x"]})
    preparation = fit_preparation(table, np.arange(3), standardize=True)
    assert preparation.vocabularies == (("a", "b"), ("x",))
    assert preparation.category_sizes == (2, 1)
    features = prepare(table, preparation)
    assert features.codes is not None
    assert features.codes.dtype == torch.int64
    assert features.codes.tolist() == [[2, 1], [1, 1], [2, 1], [0, 1]]
    assert features.x.shape == (4, 0)


def test_a_table_without_categories_has_no_codes_and_one_without_features_no_width() -> None:
    table = make_table(label=["a", "b"])
    features = prepare(table, fit_preparation(table, every(table), standardize=True))
    assert features.x.shape == (2, 0)
    assert features.codes is None


def test_columns_are_matched_by_name_and_others_left_out() -> None:
    fitted = make_table({"a": [1, 2], "b": [30, 40]}, {"k": ["x", "y"]})
    preparation = fit_preparation(fitted, every(fitted), standardize=True)
    moved = make_table({"new": [0, 0], "b": [30, 40], "a": [1, 2]}, {"l": ["x", "x"], "k": ["x", "y"]})
    one, other = prepare(fitted, preparation), prepare(moved, preparation)
    assert torch.equal(one.x, other.x)
    assert one.codes is not None
    assert other.codes is not None
    assert torch.equal(one.codes, other.codes)


def test_a_column_missing_at_prediction_is_an_error_that_names_it() -> None:
    table = make_table({"income": [1, 2], "age": [3, 4]}, {"city": ["x", "y"]})
    preparation = fit_preparation(table, every(table), standardize=True)
    with pytest.raises(DataError, match=r"bank\.csv: .* 'income': did you mean 'incom'\?$"):
        prepare(make_table({"incom": [1], "age": [2]}, {"city": ["x"]}), preparation)
    with pytest.raises(DataError, match="categorical columns that are missing here: 'city': there is no"):
        prepare(make_table({"income": [1], "age": [2]}), preparation)


@pytest.mark.parametrize("standardize", [True, False])
def test_a_number_beyond_float32_is_an_error_that_names_it(standardize: bool) -> None:
    table = make_table({"a": [0, 1, 1e300], "b": [1, 2, 3]})
    preparation = fit_preparation(table, np.arange(2), standardize=standardize)
    with pytest.raises(DataError, match=r"1e\+300 in column 'a' at id 'id2' does not fit into float32"):
        prepare(table, preparation)


def test_a_column_too_large_to_standardise_is_an_error() -> None:
    table = make_table({"a": [-1e308, 1e308, 1e308]})
    with pytest.raises(DataError, match="column 'a' is too large to standardise"):
        fit_preparation(table, every(table), standardize=True)


def test_no_training_rows_is_an_error() -> None:
    table = make_table({"a": [1.0]}, label=["x"])
    for fit in (
        lambda: fit_preparation(table, np.arange(0), standardize=True),
        lambda: fit_labels(table, np.arange(0), task="binary"),
    ):
        with pytest.raises(DataError, match="no row is left to train on"):
            fit()


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.lists(st.text(min_size=1), min_size=2, max_size=20),
)
def test_a_preparation_survives_json_exactly(numbers: list[float], words: list[str]) -> None:
    n = min(len(numbers), len(words))
    table = make_table({"a": numbers[:n]}, {"k": words[:n]})
    preparation = fit_preparation(table, every(table), standardize=True)
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation


@pytest.mark.parametrize(
    "change",
    [
        {"mean": []},
        {"mean": None},
        {"scale": [0.0]},
        {"scale": ["1"]},
        {"mean": [float("nan")]},
        {"vocabularies": [1]},
    ],
)
def test_a_garbled_preparation_is_an_error(change: dict[str, Any]) -> None:
    table = make_table({"a": [1, 2]})
    saved = fit_preparation(table, every(table), standardize=True).to_json()
    with pytest.raises(DataError, match=r"^preparation: this is not what a run saves"):
        Preparation.from_json({**saved, **change})
    with pytest.raises(DataError, match=r"^preparation: this is not what a run saves"):
        Preparation.from_json({})


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (["benign", "malignant", "benign"], ("benign", "malignant")),
        ([0, 1, 1], ("0", "1")),
        ([1.0, -1.0, 1.0], ("-1", "1")),
        (["10", "9", "9"], ("9", "10")),
        ([True, False, True], ("False", "True")),
        (["yes", "No", "yes"], ("No", "yes")),
    ],
)
def test_the_positive_class_is_the_last_in_natural_order(label: list[Any], classes: tuple[str, ...]) -> None:
    table = make_table(label=label)
    code = fit_labels(table, every(table), task="binary")
    assert code.classes == classes
    assert code.positive == classes[1]


def test_a_job_may_name_the_positive_class() -> None:
    table = make_table(label=["benign", "malignant", "malignant"])
    code = fit_labels(table, every(table), task="binary", positive=" benign ")
    y = encode_labels(table, code).y
    assert code.classes == ("malignant", "benign")
    assert y.dtype == torch.float32
    assert y.tolist() == [1, 0, 0]


def test_a_positive_class_that_is_not_there_is_an_error() -> None:
    table = make_table(label=["benign", "malignant"])
    with pytest.raises(
        DataError, match=r"'risk' has no class 'ill' .*: its classes are 'benign' and 'malignant'"
    ):
        fit_labels(table, every(table), task="binary", positive="ill")


def test_a_label_with_one_class_is_an_error_that_names_column_and_class() -> None:
    table = make_table(label=["sick", "sick", "well"])
    with pytest.raises(
        DataError, match=r"bank\.csv: label column 'risk' has one class .*, 'sick': .* needs two"
    ):
        fit_labels(table, np.arange(2), task="binary")


def test_a_label_with_three_classes_is_not_binary() -> None:
    table = make_table(label=[1, 2, 3])
    with pytest.raises(DataError, match=r"has 3 classes .*'1', '2', '3'.* multiclass or regression"):
        fit_labels(table, every(table), task="binary")


def test_one_class_written_in_several_ways_is_one_class() -> None:
    fitted = make_table(label=[0, 1, 2, 10])
    code = fit_labels(fitted, every(fitted), task="multiclass", classes=4)
    assert code.classes == ("0", "1", "2", "10")
    y = encode_labels(make_table(label=["10", 10.0, "1.0", np.int64(2), " 0 "]), code).y
    assert y.dtype == torch.int64
    assert y.tolist() == [3, 3, 1, 2, 0]


def test_another_number_of_classes_than_the_jobs_is_an_error() -> None:
    table = make_table(label=list("aabbcc"))
    with pytest.raises(DataError, match=r"'risk' has 3 classes .*: the job says classes = 4"):
        fit_labels(table, every(table), task="multiclass", classes=4)
    with pytest.raises(DataError, match=r"has 1 classes .* a multiclass task needs two or more"):
        fit_labels(table, np.arange(2), task="multiclass")
    assert fit_labels(table, every(table), task="multiclass").classes == ("a", "b", "c")


def test_a_class_that_no_training_row_had_is_an_error_that_names_the_row() -> None:
    table = make_table(label=["a", "b", "c"])
    code = fit_labels(table, np.arange(2), task="binary")
    with pytest.raises(DataError, match=r"'risk' has 'c' at id 'id2', a class that no training row had"):
        encode_labels(table, code)


def test_a_regression_reads_numbers_of_every_kind() -> None:
    table = make_table(label=[1, 2.5, "3.25", " -4e1 "])
    labels = encode_labels(table, fit_labels(table, every(table), task="regression"))
    assert labels.code == LabelCode("regression")
    assert labels.y.dtype == torch.float32
    assert labels.y.tolist() == [1, 2.5, 3.25, -40]


@pytest.mark.parametrize("value", ["many", True, "nan", "inf", "1_000", "", 1e39])
def test_a_regression_label_that_is_no_number_is_an_error(value: object) -> None:
    table = make_table(label=[1.0, value])
    with pytest.raises(DataError, match=r"'risk' has .* at id 'id1', which is not a number"):
        fit_labels(table, every(table), task="regression")
    with pytest.raises(DataError, match="which is not a number"):
        encode_labels(table, LabelCode("regression"))


def test_a_table_without_labels_cannot_be_encoded() -> None:
    table = make_table({"a": [1.0]})
    with pytest.raises(DataError, match="there are no labels"):
        fit_labels(table, every(table), task="binary")
    with pytest.raises(DataError, match="there are no labels"):
        encode_labels(table, LabelCode("regression"))


@pytest.mark.parametrize(
    "code",
    [LabelCode("binary", ("n", "y"), "y"), LabelCode("multiclass", ("a", "b", "c")), LabelCode("regression")],
)
def test_a_label_code_survives_json(code: LabelCode) -> None:
    assert LabelCode.from_json(json.loads(json.dumps(code.to_json()))) == code


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"task": "ranking", "classes": []},
        {"task": "binary", "classes": ["a", "b"], "positive": "a"},
        {"task": "multiclass", "classes": [1, 2]},
    ],
)
def test_a_garbled_label_code_is_an_error(saved: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^labels: this is not what a run saves"):
        LabelCode.from_json(saved)


def test_an_unknown_task_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no task 'ranking'"):
        fit_labels(make_table(label=["a"]), np.arange(1), task="ranking")  # type: ignore[arg-type]
