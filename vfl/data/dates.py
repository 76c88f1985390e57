"""What is read off a date as a number."""

from __future__ import annotations

import numpy as np

from vfl.config.prepare import DatePart

_DAY_S = 86_400


def date_part(dates: np.ndarray, part: DatePart) -> np.ndarray:
    """Reads one part off each date: [m] datetime64 -> [m] float64, NaN for a date that is missing.

    Args:
        dates: the dates, with or without a time of day.
        part: "year", "month" (1 to 12), "day" (1 to 31), "weekday" (0 is Monday), "hour" (0 to 23), or
            "days", since the first of January 1970, of which the time of day is the fraction.
    """
    seconds = dates.astype("datetime64[s]")
    days, months, years = (seconds.astype(f"datetime64[{unit}]") for unit in "DMY")
    since = seconds.astype(np.int64)
    found: np.ndarray
    match part:
        case "year":
            found = years.astype(np.int64) + 1970
        case "month":
            found = (months - years.astype("datetime64[M]")).astype(np.int64) + 1
        case "day":
            found = (days - months.astype("datetime64[D]")).astype(np.int64) + 1
        case "weekday":
            found = (days.astype(np.int64) + 3) % 7  # it began on a Thursday
        case "hour":
            found = since % _DAY_S // 3600
        case "days":
            found = since / _DAY_S
    return np.where(np.isnat(seconds), np.nan, found.astype(np.float64))
