"""How a party prepares its own columns: the rules for all of them, and the exceptions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import Field, field_serializer, field_validator

from vfl.config.job import Document

MISSING: Final = ("error", "mean", "median", "most_frequent")
DatePart = Literal["year", "month", "day", "weekday", "hour", "days"]
_LARGEST: Final = sys.float_info.max
_PARTS: Final[tuple[DatePart, ...]] = ("year", "month", "day", "weekday")

Scale = Literal["standard", "minmax", "quantile", "none"]


class ColumnRules(Document):
    """Says what becomes of one column; each kind of column heeds the rules that concern it."""

    scale: Scale = "standard"
    """Numbers: to mean 0 and standard deviation 1, to 0 … 1 by the least and the greatest of the training
    rows, to a normal distribution by ranks, or as they are."""
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
    date_parts: Annotated[list[DatePart], Field(min_length=1)] = Field(default_factory=lambda: list(_PARTS))
    """Dates: what is read off them; "days" is the number of days since 1970-01-01."""

    @field_validator("missing", mode="before")
    @classmethod
    def _is_a_way_or_a_number(cls, missing: object) -> object:
        if isinstance(missing, int | float) and not isinstance(missing, bool):
            if -_LARGEST <= missing <= _LARGEST:
                return missing
        elif missing in MISSING:
            return missing
        raise ValueError(f"write one of {', '.join(MISSING)}, or a number")

    @field_validator("date_parts")
    @classmethod
    def _names_each_once(cls, parts: list[DatePart]) -> list[DatePart]:
        if len(set(parts)) < len(parts):
            raise ValueError("name each part once")
        return parts


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
            if _matches(name, pattern):
                rules |= changes.model_dump(exclude_unset=True)
        return ColumnRules.model_validate(rules)

    def unmatched(self, names: Sequence[str]) -> list[str]:
        """Lists the patterns under `columns` that are for none of these columns: misspelt, most likely."""
        return [pattern for pattern in self.columns if not any(_matches(name, pattern) for name in names)]


def _matches(name: str, pattern: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)
