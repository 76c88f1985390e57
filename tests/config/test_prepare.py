from __future__ import annotations

import tomllib

import pytest
import tomli_w
from pydantic import ValidationError

from vfl.config.load import validate
from vfl.config.prepare import ColumnRules, PrepareEntry
from vfl.config.site import Site
from vfl.errors import ConfigError


def test_a_column_without_rules_of_its_own_gets_those_for_all() -> None:
    entry = PrepareEntry(scale="quantile", missing=3, columns={"age": ColumnRules(scale="none")})
    assert entry.rules_for("income") == ColumnRules(scale="quantile", missing=3.0)


def test_a_columns_own_rules_change_only_what_they_name() -> None:
    entry = PrepareEntry.model_validate({"missing": "median", "columns": {"age": {"scale": "none"}}})
    assert entry.rules_for("age") == ColumnRules(missing="median", scale="none")


def test_a_rule_that_is_set_to_its_default_is_a_change_too() -> None:
    entry = PrepareEntry.model_validate({"missing": "median", "columns": {"age": {"missing": "error"}}})
    assert entry.rules_for("age").missing == "error"


def test_where_several_patterns_match_the_later_ones_have_the_last_word() -> None:
    columns = {"pay_*": {"scale": "none", "missing": 0}, "pay_1?": {"scale": "quantile"}}
    entry = PrepareEntry.model_validate({"columns": columns})
    assert entry.rules_for("pay_12") == ColumnRules(scale="quantile", missing=0.0)
    assert entry.rules_for("pay_2") == ColumnRules(scale="none", missing=0.0)
    assert entry.rules_for("PAY_12") == ColumnRules()


def test_a_name_that_looks_like_a_pattern_is_a_name_first() -> None:
    entry = PrepareEntry.model_validate({"columns": {"x[0]": {"scale": "none"}}})
    assert entry.rules_for("x[0]").scale == "none"
    assert entry.rules_for("x0").scale == "none"
    assert entry.rules_for("x1").scale == "standard"


def test_patterns_that_are_for_no_column_are_found() -> None:
    entry = PrepareEntry.model_validate({"columns": {"amout": {}, "pay_*": {}, "bill_*": {}, "age": {}}})
    assert entry.unmatched(["amount", "pay_0", "age"]) == ["amout", "bill_*"]
    assert PrepareEntry().unmatched([]) == []


def test_what_is_written_as_toml_and_read_again_says_the_same() -> None:
    data = {
        "missing": 0.1,
        "date_parts": ["days", "hour"],
        "columns": {'a "b"': {"missing": "error"}, "c.*": {"min_frequency": 20, "encode": "one-hot"}},
    }
    entry = PrepareEntry.model_validate(data)
    text = tomli_w.dumps(entry.model_dump(mode="json", exclude_none=True))
    again = PrepareEntry.model_validate(tomllib.loads(text))
    for name in ('a "b"', "c.d", "e"):
        assert again.rules_for(name) == entry.rules_for(name)


@pytest.mark.parametrize(
    "missing", ["drop", "", True, float("inf"), float("nan"), 10**400, None, [1], {"a": 1}]
)
def test_a_way_to_fill_that_there_is_not_is_refused_with_the_ways_there_are(missing: object) -> None:
    with pytest.raises(ValidationError) as caught:
        ColumnRules.model_validate({"missing": missing})
    (fault,) = caught.value.errors()
    assert "write one of error, mean, median, most_frequent, or a number" in fault["msg"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"scale": "min-max"}, r"prepare\.scale = 'min-max'"),
        ({"missing": "zero"}, r"prepare\.missing = 'zero': write one of error"),
        ({"min_frequency": 0}, r"prepare\.min_frequency = 0"),
        ({"date_parts": []}, r"prepare\.date_parts = \[\]"),
        ({"date_parts": ["year", "year"]}, r"prepare\.date_parts .*: name each part once"),
        ({"date_parts": ["century"]}, r"prepare\.date_parts\.0 = 'century'"),
        ({"scael": "none"}, r"prepare\.scael: unknown key; did you mean 'scale'\?"),
        ({"columns": {"age": {"scale": 1}}}, r"prepare\.columns\.age\.scale = 1"),
        ({"columns": {"age": {"columns": {}}}}, r"prepare\.columns\.age\.columns: unknown key"),
    ],
)
def test_a_rule_that_cannot_be_used_is_one_line_that_names_the_key(
    rules: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^bank\.toml: {message}") as caught:
        validate(Site, {"party": "bank", "table": {"source": "t.csv"}, "prepare": rules}, "bank.toml")
    assert "\n" not in str(caught.value)
