"""How a party prepares its own columns: the rules for all of them, and the exceptions."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import Field, field_serializer, field_validator

from vfl.config.job import Document

MISSING: Final = ("error", "mean", "median", "most_frequent")
DatePart = Literal["year", "month", "day", "weekday", "hour", "days"]


class ColumnRules(Document):
    """Says what becomes of one column; each kind of column heeds the rules that concern it."""

    scale: Literal["standard", "quantile", "none"] = "standard"
    """Numbers: to mean 0 and standard deviation 1, to a normal distribution by ranks, or as they are."""
    missing: str | float = "error"
    """Numbers and dates: what stands in for a missing value: mean, median, most_frequent or a number."""
    missing_indicator: bool = False
    """Numbers and dates: whether a further column says where a value was missing."""
    encode: Literal["embedding", "one-hot"] = "embedding"
    """Categories: a learned vector each, or a column of 0 and 1 each."""
    missing_category: Literal["error", "own", "most_frequent"] = "error"
    """Categories: what a missing value counts as; "own" makes it a category."""
    unknown: Literal["own", "most_frequent", "error"] = "own"
    """Categories: what one that no training row had counts as; "own" keeps it apart from all known."""
    min_frequency: Annotated[int, Field(ge=1)] = 1
    """Categories: one that fewer training rows have counts as unknown."""
    date_parts: Annotated[list[DatePart], Field(min_length=1)] = ["year", "month", "day", "weekday"]
    """Dates: what is read off them; "days" is the number of days since 1970-01-01."""

    @field_validator("missing")
    @classmethod
    def _is_a_way_or_a_number(cls, missing: str | float) -> str | float:
        if isinstance(missing, str) and missing not in MISSING:
            raise ValueError(f"write one of {', '.join(MISSING)}, or a number")
        return missing


class PrepareEntry(ColumnRules):
    """Is the rules for all columns, and under `columns` those that differ for a name or a pattern."""

    columns: dict[str, ColumnRules] = Field(default_factory=dict)

    @field_serializer("columns")
    def _write_changes_only(self, columns: dict[str, ColumnRules]) -> dict[str, dict[str, object]]:
        return {pattern: rules.model_dump(exclude_unset=True) for pattern, rules in columns.items()}

    def rules_for(self, name: str) -> ColumnRules:
        """Returns one column's rules; where several patterns match, the later ones have the last word."""
        rules = self.model_dump(exclude={"columns"})
        for pattern, changes in self.columns.items():
            if pattern == name or fnmatchcase(name, pattern):
                rules |= changes.model_dump(exclude_unset=True)
        return ColumnRules.model_validate(rules)
