"""What is learned about one column from the training rows, and what a checkpoint may hold of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from vfl.config.prepare import ColumnRules
from vfl.data.matching import key_of, refuse_missing
from vfl.data.table import Chunk
from vfl.errors import DataError

UNKNOWN: Final = 0  # the code of a category that no training row had

_MOST_ONE_HOT: Final = 1000  # an id taken for a category would make a column a row

#: Ends an error about JSON that a checkpoint holds in the place of what was learned.
NOT_SAVED: Final = "this is not what a run saves: take the checkpoint as it was written"


@dataclass(frozen=True)
class Number:
    """What was learned about one column of numbers.

    Attributes:
        fill: what stands in for a missing value, before scaling; None where that is an error.
        mean: what is taken away.
        scale: what is divided by then.
        quantiles: where it goes on to a normal distribution, the values at equal distances of rank.
    """

    fill: float | None
    mean: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fill or 0.0, self.mean, self.scale, *self.quantiles)
        if not all(map(math.isfinite, numbers)) or self.scale <= 0:
            raise ValueError("a fill, mean, scale or quantile cannot be used")
        if self.quantiles and not self.quantiles[0] < self.quantiles[-1]:
            raise ValueError("quantiles do not rise")
        if any(low > high for low, high in pairwise(self.quantiles)):
            raise ValueError("quantiles are not sorted")


@dataclass(frozen=True)
class Category:
    """What was learned about one column of categories.

    Attributes:
        encode: whether it becomes a code, or a column of 0 and 1 for each category.
        missing: what a missing value counts as; "own" has the category "".
        unknown: what a category outside the vocabulary counts as.
        vocabulary: its categories in sorted order; the first has code 1.
        most_frequent: the one that most training rows have; None where the vocabulary has none.
    """

    encode: Literal["embedding", "one-hot"]
    missing: Literal["error", "own", "most_frequent"]
    unknown: Literal["own", "most_frequent", "error"]
    vocabulary: tuple[str, ...]
    most_frequent: str | None

    def __post_init__(self) -> None:
        if any(low >= high for low, high in pairwise(self.vocabulary)):
            raise ValueError("a vocabulary is not sorted, or names a category twice")
        if ("" in self.vocabulary) != (self.missing == "own"):
            raise ValueError("a vocabulary does not fit what a missing value counts as")
        named: set[str | None] = {text for text in self.vocabulary if text}
        if self.most_frequent not in (named or {None}):
            raise ValueError("a most frequent category is not in its vocabulary")

    @property
    def is_one_hot(self) -> bool:
        """Whether it becomes columns of x."""
        return self.encode == "one-hot"

    @property
    def fallback(self) -> int:
        """The code of the most frequent category."""
        if self.most_frequent is None:
            return UNKNOWN
        return self.vocabulary.index(self.most_frequent) + 1


def fit_category(
    sample: Chunk, place: int, way: ColumnRules, counted: Mapping[str, int] | None = None
) -> Category:
    """Finds the vocabulary of the categorical column at `place`.

    Args:
        sample: training rows.
        place: the column's.
        way: its rules.
        counted: how many of all training rows each category has, where the sample is but some of them.

    Raises:
        DataError: a value is missing where none may be, or in every row; or there are too many categories.
    """
    source, name = sample.source, sample.categorical_names[place]
    texts = sample.categorical[:, place].tolist()
    counts = Counter(texts if counted is None else counted)
    gone = counts.pop("", 0)
    if not counts and way.missing_category != "own":
        raise DataError(
            f"{source}: column {name!r} is missing in every training row: leave it out, or set "
            f'{key_of(name, "missing_category")} to "own"'
        )
    if gone and way.missing_category == "error" and "" in texts:  # else whoever prepares that row says so
        refuse_missing(sample, texts.index(""), name, "missing_category", "own")
    known = {text for text, count in counts.items() if count >= way.min_frequency}
    if way.encode == "one-hot" and len(known) > _MOST_ONE_HOT:
        raise DataError(
            f"{source}: column {name!r} has {len(known):,} categories, too many for one-hot columns: set "
            f'{key_of(name, "encode")} to "embedding", or a higher min_frequency'
        )
    return Category(
        encode=way.encode,
        missing=way.missing_category,
        unknown=way.unknown,
        vocabulary=tuple(sorted(known | ({""} if way.missing_category == "own" else set()))),
        most_frequent=min(known, key=lambda text: (-counts[text], text), default=None),
    )
