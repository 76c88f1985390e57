"""Values as text: one way to write each, what a text says as a number or a date, and quotations in errors."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

#: What always means that a number or a date is missing, in small letters; NaT is of dates.
MISSING_WORDS: Final = ("", "na", "n/a", "nan", "null", "none", "nat")

_WHOLE: Final = re.compile(r"[+-]?\d+\.0*")


def canonical_text(value: object) -> str:
    """Writes a category or a class as text, so that 1, 1.0, "1" and "1.0" are all "1".

    Truth values are "true" and "false", however they are written. Other text loses the blanks around it
    and is composed (NFC); "007" and "0.50" stay as they are. Missing values (None, NaN) are "".
    """
    if value is None:
        return ""
    if isinstance(value, np.float16 | np.float32):
        value = float(str(value))  # 0.1, as a text table has it, and not the nearest float of 64 bits
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    text = unicodedata.normalize("NFC", str(value).strip())
    if text.lower() in ("true", "false"):
        return text.lower()
    if _WHOLE.fullmatch(text):
        text = text.partition(".")[0]
        return "0" if text in ("-0", "+0") else text
    return text


def parse_number(text: str) -> float | None:
    """Reads a number: NaN for a word that means missing, 1 and 0 for true and false, else None."""
    text = text.strip()
    word = text.lower()
    if word in MISSING_WORDS:
        return math.nan
    if word in ("true", "false"):
        return float(word == "true")
    try:
        # Python alone would also take 1_000 and the digits of other scripts.
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def parse_date(text: str, form: str | None) -> np.datetime64 | None:
    """Reads a date to the second: as ISO 8601 has it or as `form` says (strptime); None where it is none.

    A time with an offset becomes UTC. A word that means missing is NaT.
    """
    text = text.strip()
    if text.lower() in MISSING_WORDS:
        return np.datetime64("NaT", "s")
    try:
        when = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
        if when.tzinfo is not None:
            when = when.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, re.error):
        return None
    return np.datetime64(when, "s")


def shown(value: object) -> str:
    """Quotes a value for an error: on one line and not longer than one."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Names the closest of the known names, or else the first few of them."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    some = ", ".join(repr(other) for other in known[:6])
    return f"there is {some}" + (f" and {len(known) - 6} more" if len(known) > 6 else "")
