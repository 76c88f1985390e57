from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vfl.data.labels import LabelCode, LabelColumn, Task, encode_labels, fit_labels, gather_labels
from vfl.errors import DataError


def label_column(values: list[Any], task: str = "binary", pieces: int = 1) -> LabelColumn:
    cuts = np.array_split(np.arange(len(values)), pieces)
    whole = np.array(values, dtype=object)
    parts = ((rows, whole[rows]) for rows in cuts)
    return gather_labels("bank.csv", "risk", parts, len(values), task=task, id_of=lambda row: f"id{row}")


def every(column: LabelColumn) -> np.ndarray:
    return np.arange(len(column))


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (["benign", "malignant", "benign"], ("benign", "malignant")),
        ([0, 1, 1], ("0", "1")),
        ([1.0, -1.0, 1.0], ("-1", "1")),
        (["10", "9", "9"], ("9", "10")),
        ([True, False, True], ("false", "true")),
        (["yes", "No", "yes"], ("No", "yes")),
    ],
)
def test_the_positive_class_is_the_last_in_natural_order(label: list[Any], classes: tuple[str, ...]) -> None:
    column = label_column(label)
    code = fit_labels(column, every(column), task="binary")
    assert code.classes == classes
    assert code.positive == classes[1]


def test_a_job_may_name_the_positive_class() -> None:
    column = label_column(["benign", "malignant", "malignant"])
    code = fit_labels(column, every(column), task="binary", positive=" benign ")
    y = encode_labels(column, code)
    assert code.classes == ("malignant", "benign")
    assert y.dtype == torch.float32
    assert y.tolist() == [1, 0, 0]


def test_a_positive_class_that_is_not_there_is_an_error() -> None:
    column = label_column(["benign", "malignant"])
    with pytest.raises(
        DataError, match=r"'risk' has no class 'ill' .*: its classes are 'benign' and 'malignant'"
    ):
        fit_labels(column, every(column), task="binary", positive="ill")


def test_a_label_with_one_class_is_an_error_that_names_column_and_class() -> None:
    column = label_column(["sick", "sick", "well"])
    with pytest.raises(
        DataError, match=r"bank\.csv: label column 'risk' has one class .*, 'sick': .* needs two"
    ):
        fit_labels(column, np.arange(2), task="binary")


def test_a_label_with_three_classes_is_not_binary() -> None:
    column = label_column([1, 2, 3])
    with pytest.raises(DataError, match=r"has 3 classes .*'1', '2', '3'.* multiclass or regression"):
        fit_labels(column, every(column), task="binary")


def test_one_class_written_in_several_ways_is_one_class() -> None:
    fitted = label_column([0, 1, 2, 10], "multiclass")
    code = fit_labels(fitted, every(fitted), task="multiclass", classes=4)
    assert code.classes == ("0", "1", "2", "10")
    column = label_column(["10", 10.0, "1.0", np.int64(2), " 0 ", "0"], "multiclass", pieces=2)
    assert column.texts == ("10", "1", "2", "0")
    y = encode_labels(column, code)
    assert y.dtype == torch.int64
    assert y.tolist() == [3, 3, 1, 2, 0, 0]


def test_true_and_one_are_two_classes() -> None:
    assert label_column([1, True, "1", 1.0, "True"], "multiclass").codes.tolist() == [0, 1, 0, 0, 1]


def test_another_number_of_classes_than_the_jobs_is_an_error() -> None:
    column = label_column(list("aabbcc"), "multiclass")
    with pytest.raises(DataError, match=r"'risk' has 3 classes .*: the job says classes = 4"):
        fit_labels(column, every(column), task="multiclass", classes=4)
    with pytest.raises(DataError, match=r"has 1 classes .* a multiclass task needs two or more"):
        fit_labels(column, np.arange(2), task="multiclass")
    assert fit_labels(column, every(column), task="multiclass").classes == ("a", "b", "c")


def test_a_class_that_no_training_row_had_is_an_error_that_names_the_row() -> None:
    column = label_column(["a", "b", "c"])
    code = fit_labels(column, np.arange(2), task="binary")
    with pytest.raises(DataError, match=r"'risk' has 'c' at id 'id2', a class that no training row had"):
        encode_labels(column, code)


def test_a_class_of_other_tables_that_no_row_here_has_is_no_error() -> None:
    code = LabelCode("multiclass", ("a", "b", "c"))
    assert encode_labels(label_column(["c", "a"], "multiclass"), code).tolist() == [2, 0]
    assert encode_labels(label_column([], "multiclass"), code).tolist() == []


def test_a_regression_reads_numbers_of_every_kind() -> None:
    column = label_column([1, 2.5, "3.25", " -4e1 "], "regression")
    code = fit_labels(column, every(column), task="regression")
    y = encode_labels(column, code)
    assert code == LabelCode("regression")
    assert y.dtype == torch.float32
    assert y.tolist() == [1, 2.5, 3.25, -40]


@pytest.mark.parametrize("value", ["many", True, "nan", "inf", "1_000"])
def test_a_regression_label_that_is_no_number_is_an_error(value: object) -> None:
    with pytest.raises(DataError, match=r"'risk' has .* at id 'id1', which is not a number"):
        label_column([1.0, value], "regression")


@pytest.mark.parametrize("value", [1e39, np.inf, -np.inf])
def test_a_regression_label_beyond_float32_is_an_error(value: float) -> None:
    numbers = np.array([1.0, value])
    column = gather_labels("bank.csv", "risk", [(np.arange(2), numbers)], 2, task="regression", id_of=str)
    for use in (
        lambda: fit_labels(column, np.arange(2), task="regression"),
        lambda: encode_labels(column, LabelCode("regression")),
    ):
        with pytest.raises(DataError, match=r"'risk' has .* at id '1', which is not a number that float32"):
            use()


@pytest.mark.parametrize(("task", "there"), [("binary", ["a", "b"]), ("regression", [1.5, 2.5])])
@pytest.mark.parametrize("gone", ["", None, float("nan"), "  "])
def test_a_missing_label_is_an_error_that_says_where_and_how_many(
    task: Task, there: list[Any], gone: object
) -> None:
    column = label_column([there[0], gone, there[1], gone], task)
    assert not column.is_complete
    message = r"bank\.csv: label column 'risk' has a missing value at id 'id1', and 2 of 4 rows in all: fill"
    with pytest.raises(DataError, match=message):
        fit_labels(column, np.array([0, 2]), task=task)
    with pytest.raises(DataError, match=message):
        encode_labels(column, LabelCode(task, ("a", "b"), "b") if task == "binary" else LabelCode(task))
    assert label_column(there, task).is_complete


def test_a_table_without_labels_cannot_be_encoded() -> None:
    with pytest.raises(DataError, match="'risk': there are no labels: name their column"):
        gather_labels("bank.csv", "risk", [(np.arange(2), None)], 2, task="binary")
    for empty in (label_column(["", None]), label_column(["", None], "regression")):
        task: Any = "binary" if empty.numbers is None else "regression"
        with pytest.raises(DataError, match="there are no labels"):
            fit_labels(empty, np.arange(2), task=task)


def test_a_row_that_no_piece_has_is_missing_and_an_error_without_ids_names_none() -> None:
    column = gather_labels("bank.csv", "risk", [(np.array([2]), np.array(["a"]))], 3, task="binary")
    assert column.missing.tolist() == [True, True, False]
    with pytest.raises(DataError, match="has a missing value, and 2 of 3 rows"):
        encode_labels(column, LabelCode("binary", ("a", "b"), "b"))


def test_no_training_rows_is_an_error() -> None:
    with pytest.raises(DataError, match=r"bank\.csv: no row is left to train on"):
        fit_labels(label_column(["x"]), np.arange(0), task="binary")


@given(st.lists(st.sampled_from(["a", "b", " a", "1", "1.0", "é", "e\u0301"]), min_size=1), st.data())
def test_labels_are_the_same_however_the_table_is_cut_and_ordered(
    labels: list[str], data: st.DataObject
) -> None:
    n = len(labels)
    order = np.array(data.draw(st.permutations(range(n))))  # where each row of the table goes
    cuts = sorted(data.draw(st.lists(st.integers(0, n))))
    values = np.array(labels, dtype=object)
    pieces = zip(np.split(order, cuts), np.split(values, cuts), strict=True)
    column = gather_labels("t", "y", pieces, n, task="multiclass")
    whole = gather_labels("t", "y", [(order, values)], n, task="multiclass")
    assert column.texts == whole.texts
    assert column.codes.dtype == np.int32
    assert np.array_equal(column.codes, whole.codes)
    wanted = {" a": "a", "1.0": "1", "e\u0301": "é"}
    found = [column.texts[column.codes[place]] for place in order]
    assert found == [wanted.get(label, label) for label in labels]


def test_a_million_labels_in_pieces_are_gathered_in_the_common_order() -> None:
    n = 1_000_000
    order = np.random.default_rng(0).permutation(n)
    texts = np.array(["no", "yes", "maybe"], dtype=object)[np.arange(n) % 3]
    pieces = zip(np.array_split(order, 16), np.array_split(texts, 16), strict=True)
    column = gather_labels("big.parquet", "y", pieces, n, task="multiclass")
    assert column.texts == ("no", "yes", "maybe")
    assert np.array_equal(column.codes[order], np.arange(n) % 3)


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
        [],
        {"task": "ranking", "classes": []},
        {"task": "binary", "classes": ["a", "b"], "positive": "a"},
        {"task": "multiclass", "classes": [1, 2]},
        {"task": "multiclass", "classes": ["a", "a"]},
    ],
)
def test_a_garbled_label_code_is_an_error(saved: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^labels: this is not what a run saves"):
        LabelCode.from_json(saved)


def test_an_unknown_task_or_another_than_the_columns_is_a_fault_of_the_caller() -> None:
    ranking: Any = "ranking"
    with pytest.raises(ValueError, match="no task 'ranking'"):
        fit_labels(label_column(["a"]), np.arange(1), task=ranking)
    with pytest.raises(ValueError, match="no task 'ranking'"):
        label_column(["a"], ranking)
    with pytest.raises(ValueError, match="not gathered for the task 'regression'"):
        encode_labels(label_column(["1"]), LabelCode("regression"))
