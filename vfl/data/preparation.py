"""From a party's table to its tensors: what is fitted on the training rows, and applied to all.

What is fitted is a `Preparation`: plain numbers and texts that travel as JSON in a checkpoint. The
transformers are scikit-learn's; they are built anew from these numbers wherever they are applied, so a
preparation that was saved does what the one that was fitted does, bit for bit. Prediction on new rows
applies it as it is; nothing is ever fitted on rows that were held out.

A row's `x` holds the numeric columns, the parts of the dates, a 0 or 1 for each column that is to say
where it was missing, and the one-hot columns, in this order; its `codes` the embedded categories. Both
depend on the row alone, so a table may be prepared in pieces.

Letters: n rows, p numeric columns, t date columns, s numbers (the p and all parts of the t), q
categorical columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, get_args

import msgspec
import numpy as np
import torch

from vfl.config.prepare import ColumnRules, DatePart, Scale
from vfl.data.fitted import NOT_SAVED, UNKNOWN, Category, Number, fit_category
from vfl.data.matching import (
    key_of,
    number_columns,
    places_of,
    refuse_missing,
    refuse_number,
    refuse_unknown,
)
from vfl.data.table import Chunk
from vfl.errors import DataError

# scikit-learn is imported where it is used: that takes longer than most tables take to read.

_MOST_QUANTILES: Final = 1000
_LARGEST: Final = 2.0**1000  # leaves room to add and subtract


@dataclass(frozen=True, eq=False)
class Features:
    """A party's rows as its bottom model reads them.

    Attributes:
        x: [n, width] float32.
        codes: [n, embedded columns] int64, 0 for an unknown category; None without such columns.
    """

    x: torch.Tensor
    codes: torch.Tensor | None


def fit_preparation(
    sample: Chunk,
    rules: Callable[[str], ColumnRules],
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> Preparation:
    """Fits fills, scales and vocabularies on rows of the training split only.

    A column that is constant there is centred and not scaled, whichever way it is to be scaled.

    Args:
        sample: this party's training rows, or some of them.
        rules: gives each column's rules by its name.
        counts: how many of all training rows each category has, by column; by default of the sample.

    Raises:
        DataError: there is no row, or a column in it cannot be prepared as its rules say.
    """
    if len(sample.ids) == 0:
        raise DataError(f"{sample.source}: no row is left to train on: give more rows or a smaller split")
    parts = tuple(tuple(rules(name).date_parts) for name in sample.date_names)
    dated = [name for name, some in zip(sample.date_names, parts, strict=True) for _ in some]
    ways = [rules(name) for name in (*sample.numeric_names, *dated)]  # s
    sources = (*sample.numeric_names, *sample.date_names)
    numbers = number_columns(sample, sample.numeric_names, sample.date_names, parts)
    unscaled = Preparation(
        numeric_names=tuple(sample.numeric_names),
        categorical_names=tuple(sample.categorical_names),
        date_names=tuple(sample.date_names),
        date_parts=parts,
        numbers=_fit_fills(sample.source, (*sample.numeric_names, *dated), numbers, ways),
        indicators=tuple(name for name in sources if rules(name).missing_indicator),
        categories=tuple(
            fit_category(sample, place, rules(name), (counts or {}).get(name))
            for place, name in enumerate(sample.categorical_names)
        ),
    )
    filled = unscaled.filled(sample, numbers)
    return replace(unscaled, numbers=_fit_scales(sample.source, unscaled, filled, ways))


def _fit_fills(
    source: str, names: Sequence[str], numbers: np.ndarray, ways: Sequence[ColumnRules]
) -> tuple[Number, ...]:
    """Finds what stands in for a missing value in each of s columns."""
    from sklearn.impute import SimpleImputer

    empty = np.isnan(numbers).all(axis=0)  # [s]
    fills: list[float | None] = [None] * len(ways)
    for place, (name, way) in enumerate(zip(names, ways, strict=True)):
        if not isinstance(way.missing, str):
            fills[place] = float(way.missing)
        elif empty[place]:
            raise DataError(
                f"{source}: column {name!r} is missing in every training row: leave it out, or set "
                f"{key_of(name, 'missing')} to a number"
            )
    for strategy in ("mean", "median", "most_frequent"):
        places = [place for place, way in enumerate(ways) if way.missing == strategy]
        if places:
            with np.errstate(over="ignore", invalid="ignore"):
                found = SimpleImputer(strategy=strategy).fit(numbers[:, places]).statistics_
            for place, fill in zip(places, map(float, found), strict=True):
                _check_usable(source, names[place], fill)
                fills[place] = fill
    return tuple(map(Number, fills))


def _fit_scales(
    source: str, unscaled: Preparation, filled: np.ndarray, ways: Sequence[ColumnRules]
) -> tuple[Number, ...]:
    """Finds how each of s columns without missing values is scaled."""
    from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

    names, numbers = unscaled.number_names, list(unscaled.numbers)
    of_way = {way: [at for at, one in enumerate(ways) if one.scale == way] for way in get_args(Scale)}
    standard, ranged, ranked = of_way["standard"], of_way["minmax"], of_way["quantile"]
    with np.errstate(over="ignore", invalid="ignore"):
        if standard:
            # `take` gives rows one after another: the order in which a mean is summed depends on the
            # layout, and with it the last bit.
            scaler = StandardScaler().fit(np.take(filled, standard, axis=1))
            found = zip(standard, scaler.mean_, scaler.scale_, scaler.var_, strict=True)
            for place, mean, scale, variance in found:
                _check_usable(source, names[place], mean, scale, variance)
                numbers[place] = replace(numbers[place], mean=float(mean), scale=float(scale))
        if ranged:
            span = MinMaxScaler().fit(filled[:, ranged])
            for place, low, width in zip(ranged, span.data_min_, span.data_range_, strict=True):
                _check_usable(source, names[place], low, width)
                numbers[place] = replace(numbers[place], mean=float(low), scale=float(width) or 1.0)
        if ranked:
            n = len(filled)
            # All rows are looked at: a subsample would be drawn at random.
            fitter = QuantileTransformer(n_quantiles=min(_MOST_QUANTILES, n), subsample=n)
            for place, quantiles in zip(ranked, fitter.fit(filled[:, ranked]).quantiles_.T, strict=True):
                _check_usable(source, names[place], *quantiles)
                numbers[place] = _ranked(numbers[place], quantiles)
    return tuple(numbers)


def _ranked(number: Number, quantiles: np.ndarray) -> Number:
    """Gives a column its quantiles, in a unit in which they are well apart.

    QuantileTransformer takes what is within 1e-7 of the least or the greatest value for that value, which
    would flatten a column of small numbers. The unit is a power of two, so dividing by it loses nothing.
    """
    quantiles = np.maximum.accumulate(quantiles)  # rounding can put one a last bit below the one before
    low, high = float(quantiles[0]), float(quantiles[-1])
    if low == high:
        return replace(number, mean=low)
    steps = np.diff(quantiles)
    step = max(float(steps[steps > 0].min()), max(abs(low), abs(high)) / _LARGEST)
    unit = 2.0 ** min(0, math.floor(math.log2(step)))
    return replace(number, scale=unit, quantiles=tuple((quantiles / unit).tolist()))


def _check_usable(source: str, name: str, *numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{source}: column {name!r} is too large to standardise: change its unit")


@dataclass(frozen=True)
class Preparation:
    """What a party learned about its own columns from the training rows; its owner's alone.

    Attributes:
        numeric_names: p names, in the order of the features.
        categorical_names: q names.
        date_names: t names.
        date_parts: for each of the t dates, what is read off it.
        numbers: for each of the s numbers, what was learned.
        indicators: the numeric and date columns that get a further one, which says where they are missing.
        categories: for each of the q columns, what was learned.
    """

    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    date_names: tuple[str, ...]
    date_parts: tuple[tuple[DatePart, ...], ...]
    numbers: tuple[Number, ...]
    indicators: tuple[str, ...]
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        names = (*self.numeric_names, *self.categorical_names, *self.date_names)
        if len(set(names)) < len(names):
            raise ValueError("it names a column twice")
        lengths = (len(self.date_parts), len(self.categories))
        if lengths != (len(self.date_names), len(self.categorical_names)) or not all(self.date_parts):
            raise ValueError("its lists differ in length")
        if len(self.numbers) != len(self.number_names):
            raise ValueError("its lists differ in length")
        told = set(self.indicators)
        if len(told) < len(self.indicators) or not told <= set(self._owners):
            raise ValueError("an indicator is of no column, or there twice")
        if len({len(number.quantiles) for number in self.numbers} - {0}) > 1:
            raise ValueError("quantiles differ in length")

    @property
    def number_names(self) -> tuple[str, ...]:
        """The s numbers by name: of a date's parts "opened.year" and so on."""
        dated = zip(self.date_names, self.date_parts, strict=True)
        return (*self.numeric_names, *(f"{name}.{part}" for name, parts in dated for part in parts))

    @property
    def x_names(self) -> tuple[str, ...]:
        """What each column of x holds."""
        columns = zip(self.categorical_names, self.categories, strict=True)
        return (
            *self.number_names,
            *(f"{name}.missing" for name in self.indicators),
            *(f"{name}={text}" for name, one in columns if one.is_one_hot for text in one.vocabulary),
        )

    @property
    def width(self) -> int:
        """How many columns x has."""
        return len(self.x_names)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many categories each embedded column has; the code of the unknown comes on top."""
        return tuple(len(one.vocabulary) for one in self.categories if not one.is_one_hot)

    def transform(self, chunk: Chunk) -> Features:
        """Turns rows into tensors: columns are matched by name, and others are left out.

        Raises:
            DataError: a column is missing, or a value cannot be prepared as the rules say.
        """
        numbers = number_columns(chunk, self.numeric_names, self.date_names, self.date_parts)  # [n, s]
        owners = self._owners
        said = numbers[:, [owners.index(name) for name in self.indicators]]
        codes = self._codes(chunk)  # [n, q]
        one_hot = [place for place, one in enumerate(self.categories) if one.is_one_hot]
        embedded = [place for place, one in enumerate(self.categories) if not one.is_one_hot]
        x = np.concatenate(
            [self._scaled(chunk, self.filled(chunk, numbers)), np.isnan(said), self._spread(codes, one_hot)],
            axis=1,
            dtype=np.float32,
        )
        return Features(
            x=torch.from_numpy(x), codes=torch.from_numpy(codes[:, embedded]) if embedded else None
        )

    def filled(self, chunk: Chunk, numbers: np.ndarray) -> np.ndarray:
        """Fills what is missing in the [n, s] numbers of a chunk.

        Raises:
            DataError: a value is missing where none may be.
        """
        missing = np.isnan(numbers)  # [n, s]
        if not missing.any():
            return numbers
        refused = missing & np.array([number.fill is None for number in self.numbers])
        if refused.any():
            row, place = (int(at[0]) for at in np.nonzero(refused))
            refuse_missing(chunk, row, self._owners[place], "missing", "median")
        filled: np.ndarray = self._imputer.transform(numbers)
        return filled

    def to_json(self) -> dict[str, Any]:
        """Returns lists, text and numbers only; the numbers survive JSON exactly."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Preparation:
        """Returns what `to_json` wrote.

        Raises:
            DataError: it is not what `to_json` writes.
        """
        try:
            return msgspec.convert(found, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"preparation: {NOT_SAVED} ({error})") from error

    @property
    def _owners(self) -> tuple[str, ...]:
        """The column that each of the s numbers comes from."""
        dated = zip(self.date_names, self.date_parts, strict=True)
        return (*self.numeric_names, *(name for name, parts in dated for _ in parts))

    def _scaled(self, chunk: Chunk, filled: np.ndarray) -> np.ndarray:
        """Scales [n, s] numbers to float32."""
        if not filled.size:
            return filled
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self._scaler.transform(filled)
            if self._ranked:
                lows, highs = self._ranker.quantiles_[[0, -1]]
                # What lies beyond counts as the end anyway, and may be infinite in this unit.
                scaled[:, self._ranked] = self._ranker.transform(scaled[:, self._ranked].clip(lows, highs))
            x: np.ndarray = scaled.astype(np.float32)
        if not np.isfinite(x).all():
            row, place = (int(at[0]) for at in np.nonzero(~np.isfinite(x)))
            refuse_number(chunk, row, self.number_names[place], filled[row, place])
        return x

    def _codes(self, chunk: Chunk) -> np.ndarray:
        """Encodes the categories: [n, q] int64."""
        places = places_of(chunk, chunk.categorical_names, self.categorical_names, "categorical")
        texts = chunk.categorical[:, places]  # [n, q]
        codes = np.full(texts.shape, UNKNOWN, dtype=np.int64)  # [n, q]
        known = [place for place, one in enumerate(self.categories) if one.vocabulary]
        if known and len(texts):
            codes[:, known] = self._encoder.transform(texts[:, known]) + 1
        for place, (name, one) in enumerate(zip(self.categorical_names, self.categories, strict=True)):
            rows = np.flatnonzero(codes[:, place] == UNKNOWN)
            gone = texts[rows, place] == ""
            missing, unknown = rows[gone], rows[~gone]
            if len(missing) and one.missing == "error":
                refuse_missing(chunk, int(missing[0]), name, "missing_category", "own")
            if len(unknown) and one.unknown == "error":
                refuse_unknown(chunk, int(unknown[0]), name, texts[unknown[0], place])
            codes[missing, place] = one.fallback
            if one.unknown == "most_frequent":
                codes[unknown, place] = one.fallback
        return codes

    def _spread(self, codes: np.ndarray, places: list[int]) -> np.ndarray:
        """Spreads the codes at `places` over a column of 0 or 1 for each category."""
        from sklearn.preprocessing import OneHotEncoder

        places = [place for place in places if self.categories[place].vocabulary]
        if not places or not len(codes):
            width = sum(len(self.categories[place].vocabulary) for place in places)
            return np.empty((len(codes), width), dtype=np.float32)
        known = [np.arange(1, len(self.categories[place].vocabulary) + 1) for place in places]
        encoder = OneHotEncoder(
            categories=known, handle_unknown="ignore", sparse_output=False, dtype=np.float32
        )
        spread: np.ndarray = encoder.fit(codes[:1, places]).transform(codes[:, places])
        return spread

    @cached_property
    def _imputer(self) -> Any:  # noqa: ANN401 - scikit-learn has no types
        from sklearn.impute import SimpleImputer

        # The most frequent number in one row is the one in it.
        fills = [[number.fill or 0.0 for number in self.numbers]]
        return SimpleImputer(strategy="most_frequent").fit(np.array(fills))

    @cached_property
    def _scaler(self) -> Any:  # noqa: ANN401
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        scaler.mean_ = np.array([number.mean for number in self.numbers])
        scaler.scale_ = np.array([number.scale for number in self.numbers])
        scaler.n_features_in_ = len(self.numbers)
        return scaler

    @cached_property
    def _ranked(self) -> list[int]:
        return [place for place, number in enumerate(self.numbers) if number.quantiles]

    @cached_property
    def _ranker(self) -> Any:  # noqa: ANN401
        from sklearn.preprocessing import QuantileTransformer

        quantiles = np.array([self.numbers[place].quantiles for place in self._ranked]).T
        ranker = QuantileTransformer(n_quantiles=len(quantiles), output_distribution="normal")
        ranker.quantiles_, ranker.n_quantiles_ = quantiles, len(quantiles)
        ranker.references_ = np.linspace(0, 1, len(quantiles))
        ranker.n_features_in_ = len(self._ranked)
        return ranker

    @cached_property
    def _encoder(self) -> Any:  # noqa: ANN401
        from sklearn.preprocessing import OrdinalEncoder

        known = [np.array(one.vocabulary, dtype=object) for one in self.categories if one.vocabulary]
        encoder = OrdinalEncoder(
            categories=known, handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.int64
        )
        return encoder.fit(np.array([[one[0] for one in known]], dtype=object))
