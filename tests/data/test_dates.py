from __future__ import annotations

from datetime import datetime, timedelta
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.config.prepare import DatePart
from vfl.data.dates import date_part


@given(st.lists(st.datetimes(), max_size=20))
def test_the_parts_of_a_date_are_those_of_the_calendar(moments: list[datetime]) -> None:
    moments = [moment.replace(microsecond=0) for moment in moments]
    dates = np.array(moments, dtype="datetime64[s]")
    wanted: dict[DatePart, list[float]] = {
        "year": [moment.year for moment in moments],
        "month": [moment.month for moment in moments],
        "day": [moment.day for moment in moments],
        "weekday": [moment.weekday() for moment in moments],
        "hour": [moment.hour for moment in moments],
        "days": [(moment - datetime(1970, 1, 1)) / timedelta(days=1) for moment in moments],
    }
    for part, values in wanted.items():
        found = date_part(dates, part)
        assert found.dtype == np.float64
        assert found.tolist() == pytest.approx(values, rel=1e-15)


@pytest.mark.parametrize("part", get_args(DatePart))
def test_a_date_that_is_missing_has_no_parts(part: DatePart) -> None:
    dates = np.array(["2024-02-29", "NaT"], dtype="datetime64[s]")
    assert np.isnan(date_part(dates, part)).tolist() == [False, True]


def test_days_carry_the_time_of_day_and_count_backwards_before_1970() -> None:
    dates = np.array(["1970-01-02T06:00", "1969-12-31T12:00"], dtype="datetime64[s]")
    assert date_part(dates, "days").tolist() == [1.25, -0.5]
    assert date_part(dates, "hour").tolist() == [6, 12]
    assert date_part(dates, "weekday").tolist() == [4, 2]
