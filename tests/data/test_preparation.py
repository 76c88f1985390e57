from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from vfl.config.prepare import PrepareEntry
from vfl.data.preparation import Features, Preparation, fit_preparation
from vfl.data.table import Chunk
from vfl.errors import DataError


def chunk_of(
    numeric: dict[str, list[float]] | None = None,
    categorical: dict[str, list[str]] | None = None,
    dates: dict[str, list[str]] | None = None,
    rows: int | None = None,
) -> Chunk:
    numeric, categorical, dates = numeric or {}, categorical or {}, dates or {}
    n = rows if rows is not None else len([*numeric.values(), *categorical.values(), *dates.values()][0])
    return Chunk(
        source="bank.csv",
        start=0,
        ids=np.array([f"id{row}" for row in range(n)], dtype=object),
        numeric=np.array(list(numeric.values()), dtype=np.float64).reshape(len(numeric), n).T,
        numeric_names=tuple(numeric),
        categorical=np.array(list(categorical.values()), dtype=object).reshape(len(categorical), n).T,
        categorical_names=tuple(categorical),
        dates=np.array(list(dates.values()), dtype="datetime64[s]").reshape(len(dates), n).T,
        date_names=tuple(dates),
    )


def fit(sample: Chunk, **rules: object) -> Preparation:
    return fit_preparation(sample, PrepareEntry.model_validate(rules).rules_for)


def codes_of(features: Features) -> list[list[int]]:
    assert features.codes is not None
    assert features.codes.dtype == torch.int64
    found: list[list[int]] = features.codes.tolist()
    return found


def equal(one: Features, other: Features) -> bool:
    same = one.x.numpy().tobytes() == other.x.numpy().tobytes() and one.x.shape == other.x.shape
    if one.codes is None or other.codes is None:
        return same and one.codes is other.codes
    return same and torch.equal(one.codes, other.codes)


GONE = math.nan


def test_standardised_training_rows_have_mean_0_and_deviation_1() -> None:
    chunk = chunk_of({"a": [1, 2, 3, 4, 100], "b": [5, 5, 7, 7, 0]})
    x = fit(chunk.take(np.arange(4))).transform(chunk).x
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[:4].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:4].std(0, correction=0), 1, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 6))
def test_a_standardised_table_is_what_scikit_learn_makes_of_it_to_the_last_bit(
    seed: int, n: int, p: int
) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) * 10 ** random.uniform(-6, 6, p) + 10 ** random.uniform(-3, 8, p)
    chunk = chunk_of({f"c{column}": x[:, column].tolist() for column in range(p)})
    wanted = StandardScaler().fit(x).transform(x).astype(np.float32)
    assert fit(chunk).transform(chunk).x.numpy().tobytes() == wanted.tobytes()


def test_the_quantile_scale_is_what_scikit_learn_makes_of_it_and_never_beyond() -> None:
    x = np.random.default_rng(0).lognormal(0, 3, (3000, 2))
    chunk = chunk_of({"a": x[:, 0].tolist(), "b": x[:, 1].tolist()})
    preparation = fit(chunk, scale="quantile")
    ranker = QuantileTransformer(output_distribution="normal", subsample=None)
    wanted = ranker.fit_transform(x)
    np.testing.assert_allclose(preparation.transform(chunk).x, wanted, rtol=1e-5, atol=1e-4)
    beyond = preparation.transform(chunk_of({"a": [-1e300, 1e300], "b": [1e300, -1e300]})).x
    top = -norm.ppf(1e-7)
    np.testing.assert_allclose(beyond, [[-top, top], [top, -top]], atol=1e-5)


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1e9, 1e300])
def test_the_quantile_scale_does_not_depend_on_the_unit(unit: float) -> None:
    numbers = np.random.default_rng(1).lognormal(0, 1, 500)
    one, other = (chunk_of({"a": (numbers * factor).tolist()}) for factor in (1.0, unit))
    x, y = (fit(chunk, scale="quantile").transform(chunk).x for chunk in (one, other))
    np.testing.assert_allclose(x, y, atol=1e-5)
    beyond = fit(other, scale="quantile").transform(chunk_of({"a": [1.7e308, -1.7e308]})).x
    assert torch.equal(beyond[:, 0], torch.stack([x.max(), x.min()]))


def test_minmax_takes_the_training_rows_to_0_and_1_and_others_beyond() -> None:
    preparation = fit(chunk_of({"a": [2.0, 4.0, 10.0], "b": [5.0, 5.0, 5.0]}), scale="minmax")
    x = preparation.transform(chunk_of({"a": [2.0, 10.0, 18.0], "b": [5.0, 5.0, 6.0]})).x
    assert x.tolist() == [[0.0, 0.0], [1.0, 0.0], [2.0, 1.0]]


@pytest.mark.parametrize("scale", ["standard", "minmax", "quantile"])
@pytest.mark.parametrize("value", [3.0, 0.0, -1e-9, 2.0**70])
def test_a_constant_column_is_centred_and_not_scaled(scale: str, value: float) -> None:
    chunk = chunk_of({"a": [value] * 3})
    preparation = fit(chunk, scale=scale)
    assert preparation.numbers[0].scale == 1
    assert preparation.transform(chunk).x.tolist() == [[0], [0], [0]]
    assert fit(chunk.take(np.arange(1)), scale=scale) == preparation


def test_without_scaling_numbers_stay_as_they_are() -> None:
    chunk = chunk_of({"a": [0.1, 2, 300]})
    x = fit(chunk, scale="none").transform(chunk).x
    assert torch.equal(x, torch.tensor([[0.1], [2], [300]]))


def test_a_preparation_knows_nothing_of_the_rows_held_out() -> None:
    train = np.array([0, 1])
    one = chunk_of({"a": [1, 2, 3]}, {"k": ["x", "y", "z"]})
    other = chunk_of({"a": [1, 2, -9]}, {"k": ["x", "y", "w"]})
    assert fit(one.take(train)) == fit(other.take(train))


@pytest.mark.parametrize(
    ("missing", "value"), [("mean", 3.25), ("median", 2.5), ("most_frequent", 1.0), (-7.5, -7.5), (0, 0)]
)
def test_a_missing_number_is_filled_before_scaling(missing: str | float, value: float) -> None:
    chunk = chunk_of({"a": [1, GONE, 1, 4, 7, GONE]})
    assert fit(chunk, missing=missing, scale="none").transform(chunk).x[:, 0].tolist() == [
        *(1, value, 1, 4, 7, value)
    ]
    filled = np.array([[1, value, 1, 4, 7, value]]).T
    wanted = StandardScaler().fit_transform(filled).astype(np.float32)
    assert np.array_equal(fit(chunk, missing=missing).transform(chunk).x, wanted)


def test_an_indicator_is_there_whether_or_not_the_training_rows_had_a_missing_value() -> None:
    columns = {
        "[ac]": {"missing_indicator": True},
        "when": {"missing_indicator": True, "date_parts": ["day"]},
    }
    chunk = chunk_of({"a": [1, 2], "b": [1, 3], "c": [5, GONE]}, dates={"when": ["2024-01-02", "2024-01-04"]})
    preparation = fit(chunk, missing="mean", columns=columns)
    assert preparation.x_names == ("a", "b", "c", "when.day", "a.missing", "c.missing", "when.missing")
    assert preparation.width == 7
    new = chunk_of({"a": [GONE], "b": [GONE], "c": [5]}, dates={"when": ["NaT"]})
    assert preparation.transform(new).x.tolist() == [[0, 0, 0, 0, 1, 0, 1]]
    assert preparation.transform(chunk).x[:, 4:].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_dates_become_numbers_with_their_columns_rules() -> None:
    chunk = chunk_of({"a": [1, 2]}, dates={"when": ["2024-02-29T18:00", "NaT"], "b": ["1970-01-01"] * 2})
    parts = ["year", "month", "day", "weekday", "hour", "days"]
    rules = {"when": {"date_parts": parts, "missing": -1}, "b": {"date_parts": ["days"]}}
    preparation = fit(chunk, scale="none", columns=rules)
    assert preparation.x_names == ("a", *(f"when.{part}" for part in parts), "b.days")
    x = preparation.transform(chunk).x
    assert x[0].tolist() == [1, 2024, 2, 29, 3, 18, 19782.75, 0]
    assert x[1].tolist() == [2, -1, -1, -1, -1, -1, -1, 0]


def test_a_category_that_no_training_row_had_gets_code_0() -> None:
    chunk = chunk_of(categorical={"k": ["b", "a", "b", "new"], "l": ["x", "x", "x", "x"]})
    preparation = fit(chunk.take(np.arange(3)))
    assert [one.vocabulary for one in preparation.categories] == [("a", "b"), ("x",)]
    assert preparation.category_sizes == (2, 1)
    features = preparation.transform(chunk)
    assert codes_of(features) == [[2, 1], [1, 1], [2, 1], [0, 1]]
    assert features.x.shape == (4, 0)


def test_one_hot_columns_come_last_and_an_unknown_category_is_a_row_of_zeros() -> None:
    chunk = chunk_of({"a": [7, 8, 9]}, {"k": ["b", "a", "b"], "l": ["x", "y", "x"]})
    preparation = fit(chunk, scale="none", columns={"k": {"encode": "one-hot"}})
    assert preparation.x_names == ("a", "k=a", "k=b")
    assert preparation.category_sizes == (2,)
    features = preparation.transform(chunk_of({"a": [1, 2]}, {"l": ["y", "z"], "k": ["b", "new"]}))
    assert features.x.tolist() == [[1, 0, 1], [2, 0, 0]]
    assert codes_of(features) == [[2], [0]]


@pytest.mark.parametrize("training", [["b", "a", "b", ""], ["b", "a", "b", "b"]])
def test_a_missing_category_can_be_one_of_its_own_or_the_most_frequent(training: list[str]) -> None:
    chunk, new = chunk_of(categorical={"k": training}), chunk_of(categorical={"k": ["", "a"]})
    own = fit(chunk, missing_category="own", min_frequency=2)
    assert own.categories[0].vocabulary == ("", "b")
    assert codes_of(own.transform(new)) == [[1], [0]]
    assert codes_of(fit(chunk, missing_category="most_frequent").transform(new)) == [[2], [1]]
    hot = fit(chunk, missing_category="own", encode="one-hot")
    assert hot.transform(new).x.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_an_unknown_category_can_count_as_the_most_frequent_and_of_equals_the_first() -> None:
    chunk = chunk_of(categorical={"k": ["c", "b", "f", "b", "c", "d", "a", "d", "e", "e", "f"]})
    for encode, wanted in (("embedding", [2]), ("one-hot", [0, 1, 0, 0, 0, 0])):
        features = fit(chunk, unknown="most_frequent", encode=encode).transform(
            chunk_of(categorical={"k": ["?"]})
        )
        assert (features.x if features.codes is None else features.codes).tolist() == [wanted]


def test_rare_categories_count_as_unknown_and_so_may_all_of_them() -> None:
    chunk = chunk_of(categorical={"k": ["a", "b", "b", "c"], "id": ["1", "2", "3", ""]})
    entry = {"min_frequency": 2, "missing_category": "most_frequent", "unknown": "most_frequent"}
    preparation = fit(chunk, **entry)
    assert preparation.category_sizes == (1, 0)
    assert codes_of(preparation.transform(chunk)) == [[1, 0]] * 4
    assert fit(chunk, encode="one-hot", **entry).transform(chunk).x.tolist() == [[1]] * 4
    assert fit(chunk.take(np.array([0, 3])), encode="one-hot", **entry).transform(chunk).x.shape == (4, 0)


def test_a_table_without_categories_has_no_codes_and_one_without_features_no_width() -> None:
    chunk = chunk_of(rows=2)
    features = fit(chunk).transform(chunk)
    assert features.x.shape == (2, 0)
    assert features.codes is None


def test_columns_are_matched_by_name_and_others_left_out() -> None:
    fitted = chunk_of({"a": [1, 2], "b": [30, 40]}, {"k": ["x", "y"]}, {"d": ["2024-01-01", "2025-02-02"]})
    moved = chunk_of(
        {"new": [0, GONE], "b": [30, 40], "a": [1, 2]},
        {"l": ["x", "x"], "k": ["x", "y"]},
        {"e": ["NaT", "NaT"], "d": ["2024-01-01", "2025-02-02"]},
    )
    preparation = fit(fitted)
    assert equal(preparation.transform(fitted), preparation.transform(moved))


def test_a_column_missing_at_prediction_is_an_error_that_names_it() -> None:
    preparation = fit(
        chunk_of({"income": [1, 2], "age": [3, 4]}, {"city": ["x", "y"]}, {"d": ["2024-01-01"] * 2})
    )
    with pytest.raises(DataError, match=r"bank\.csv: .* 'income': did you mean 'incom'\?$"):
        preparation.transform(chunk_of({"incom": [1], "age": [2]}, {"city": ["x"]}))
    with pytest.raises(DataError, match="date columns that are missing here: 'd': there is no date column"):
        preparation.transform(chunk_of({"income": [1], "age": [2]}, {"city": ["x"]}))
    with pytest.raises(DataError, match="categorical columns that are missing here: 'city': there is no"):
        preparation.transform(chunk_of({"income": [1], "age": [2]}, dates={"d": ["NaT"]}))


@pytest.mark.parametrize("when", ["fitting", "applying"])
@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (({'a"b': [1, GONE]}, {}, {}), r"""'a"b' at .*set prepare\.missing to "median".*"a\\"b"\.missing"""),
        (
            ({}, {"k": ["x", ""]}, {}),
            r"'k' at .*set prepare\.missing_category to .own.*.k.\.missing_category",
        ),
        (({}, {}, {"d": ["2024-01-01", "NaT"]}), r"'d' at .*prepare\.missing to .*.d.\.missing"),
    ],
)
def test_a_missing_value_is_an_error_unless_the_rules_say_otherwise(
    when: str, gone: tuple[dict[str, Any], ...], message: str
) -> None:
    chunk = chunk_of(*gone)
    with pytest.raises(DataError, match=rf"^bank\.csv: missing value in column {message}") as caught:
        fit(chunk) if when == "fitting" else fit(chunk.take(np.arange(1))).transform(chunk)
    assert "at id 'id1': " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["error", "mean", "median", "most_frequent"])
def test_a_column_without_any_value_is_an_error_that_says_what_can_be_done(missing: str) -> None:
    for chunk in (chunk_of({"a": [1, 2], "b": [GONE, GONE]}), chunk_of(dates={"b": ["NaT"]})):
        with pytest.raises(
            DataError, match=r"column 'b(\.year)?' is missing in every.*leave it out, .* number"
        ):
            fit(chunk, missing=missing)
        assert torch.isfinite(fit(chunk, missing=5).transform(chunk).x).all()
    empty = chunk_of(categorical={"k": ["", ""]})
    with pytest.raises(
        DataError, match=r"column 'k' is missing in every.*\"k\"\.missing_category to \"own\""
    ):
        fit(empty)
    assert codes_of(fit(empty, missing_category="own").transform(empty)) == [[1], [1]]


def test_an_unknown_category_is_an_error_where_the_rules_say_so() -> None:
    preparation = fit(chunk_of(categorical={"k": ["x", "y"]}), unknown="error")
    message = (
        r"bank\.csv: category 'z' in column 'k' at id 'id1' .*prepare\.unknown to .own., or .*.k.\.unknown"
    )
    with pytest.raises(DataError, match=message):
        preparation.transform(chunk_of(categorical={"k": ["y", "z"]}))


def test_too_many_categories_for_one_hot_columns_are_refused() -> None:
    chunk = chunk_of(categorical={"k": [str(row) for row in range(1001)]})
    with pytest.raises(DataError, match=r"'k' has 1,001 categories, too many for one-hot.* to \"embedding\""):
        fit(chunk, encode="one-hot")
    assert fit(chunk).category_sizes == (1001,)


@pytest.mark.parametrize("scale", ["standard", "none"])
def test_a_number_beyond_float32_is_an_error_that_names_it(scale: str) -> None:
    chunk = chunk_of({"a": [0, 1, 1e300], "b": [1, 2, 3]})
    preparation = fit(chunk.take(np.arange(2)), scale=scale)
    with pytest.raises(DataError, match=r"1e\+300 in column 'a' at id 'id2' does not fit into float32"):
        preparation.transform(chunk)
    with pytest.raises(DataError, match=r"-inf in column 'b' at id 'id1' does not fit into float32"):
        preparation.transform(chunk_of({"a": [0, 1], "b": [GONE, -math.inf]}))


@pytest.mark.parametrize(
    "rules",
    [{}, {"scale": "quantile"}, {"missing": "mean", "scale": "none"}, {"missing": "median", "scale": "none"}],
)
def test_a_column_too_large_to_standardise_is_an_error(rules: dict[str, str]) -> None:
    values = [1.7e308, 1.7e308] if rules.get("missing") else [-1.7e308, 1.7e308]
    with pytest.raises(
        DataError, match=r"bank\.csv: column 'a' is too large to standardise: change its unit"
    ):
        fit(chunk_of({"a": values}), **rules)


def test_no_training_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        fit(chunk_of({"a": []}))


WORDS = st.sampled_from(["", "a", "b", "c", "ß", "nan", "\U0001f600"]) | st.text(max_size=3)
NUMBERS = st.just(GONE) | st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float) | st.floats(-1e-9, 1e-9)
RULES = st.fixed_dictionaries(
    {
        "scale": st.sampled_from(["standard", "minmax", "quantile", "none"]),
        "missing": st.sampled_from(["mean", "median", "most_frequent", 0, -0.0, 3.7]),
        "missing_indicator": st.booleans(),
        "encode": st.sampled_from(["embedding", "one-hot"]),
        "missing_category": st.sampled_from(["own", "most_frequent"]),
        "unknown": st.sampled_from(["own", "most_frequent"]),
        "min_frequency": st.integers(1, 3),
    }
)


@settings(max_examples=100, deadline=None)  # the first example imports scikit-learn
@given(
    rows=st.lists(st.tuples(NUMBERS, NUMBERS, WORDS, st.none() | st.datetimes()), min_size=1, max_size=8),
    rules=st.fixed_dictionaries({"a": RULES, "b": RULES, "k": RULES, "d": RULES}),
    cuts=st.lists(st.integers(0, 8), max_size=3),
)
def test_a_prepared_chunk_survives_json_and_any_cut_bit_for_bit(
    rows: list[tuple[float, float, str, Any]], rules: dict[str, Any], cuts: list[int]
) -> None:
    a, b, words, moments = (list(column) for column in zip(*rows, strict=True))
    dates = [str(np.datetime64(one or "NaT", "s")) for one in moments]
    chunk = chunk_of({"a": a, "b": b}, {"k": words}, {"d": dates})
    try:
        preparation = fit(chunk, columns=rules)
    except DataError as error:
        assert "is missing in every training row" in str(error)  # noqa: PT017 - the only fault it can have
        return
    saved = json.dumps(preparation.to_json())
    features = preparation.transform(chunk)
    assert torch.isfinite(features.x).all()
    assert features.x.shape == (len(rows), preparation.width)
    again = Preparation.from_json(json.loads(saved))
    assert again == preparation
    assert json.dumps(preparation.to_json()) == saved  # what is made in applying it is not part of it
    assert equal(again.transform(chunk), features)
    for pieces in (np.split(np.arange(len(rows)), sorted(cuts)), np.arange(len(rows)).reshape(-1, 1)):
        parts = [preparation.transform(chunk.take(piece)) for piece in pieces]
        codes = [part.codes for part in parts if part.codes is not None]
        joined = Features(torch.cat([part.x for part in parts]), torch.cat(codes) if codes else None)
        assert equal(joined, features)
