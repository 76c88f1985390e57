"""Says numbers as people read them: bytes, seconds, counts and scores in words and in units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

# Between a number and its unit no line may break.
_GLUE: Final = "\N{NO-BREAK SPACE}"
_MINUS: Final = "\N{MINUS SIGN}"

_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def short(name: str, most: int = 14) -> str:
    """Returns a name fit for a figure: one line, printable, at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def counted(n: int, noun: str, plural: str = "") -> str:
    """Returns a count with its noun, up to ten in words: "three rows", "1,024 rows"."""
    number = _NUMBERS[n] if 0 <= n < len(_NUMBERS) else f"{n:,}"
    return f"{number} {noun if n == 1 else plural or noun + 's'}"


def listed(words: list[str]) -> str:
    """Returns words as a list in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def named(names: list[str], most: int = 6) -> str:
    """Returns names as a list; of more than `most` the first, and how many there are beside."""
    few = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1:,} more"]
    return listed(few)


def said_once(said: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Joins those of whom the same is said: "a and b" in the place of a, and nothing in that of b."""
    names: dict[str, list[str]] = {}
    for name, words in said:
        names.setdefault(words, []).append(name)
    return [(named(some), words) for words, some in names.items()]


def humane_bytes(n: float) -> str:
    """Returns a number of bytes to three figures in B, KiB, MiB, GiB or TiB."""
    power = 0 if n < 1024 else min(len(_UNITS) - 1, int(math.log2(n) // 10))
    n /= 1024**power
    places = 0 if n >= 99.95 or n == int(n) else 1 if n >= 9.995 else 2
    return f"{n:,.{places}f}{_GLUE}{_UNITS[power]}"


def humane_seconds(seconds: float) -> str:
    """Returns a duration in the unit that fits it: µs, ms, s, minutes or hours."""
    if seconds <= 0:
        return f"0{_GLUE}s"
    if seconds < 0.9995:
        n, unit = (seconds * 1e3, "ms") if seconds >= 0.9995e-3 else (seconds * 1e6, "µs")
        return f"{n:.0f}{_GLUE}{unit}" if n >= 9.95 else f"{n:.1f}{_GLUE}{unit}"
    if seconds < 59.95:
        return f"{seconds:.1f}{_GLUE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_GLUE}min{_GLUE}{rest:02d}{_GLUE}s"
    return f"{minutes // 60:,}{_GLUE}h{_GLUE}{minutes % 60:02d}{_GLUE}min"


def humane_score(value: float | None, *, signed: bool = False) -> str:
    """Returns a score to three places, more where these would hide it, a dash where there is none.

    Args:
        value: The score; None and what is not finite count as none.
        signed: Whether a plus stands before what is above zero.

    Returns:
        The score with a true minus sign.
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0 or 0.0005 <= size < 10:
        text = f"{size:.3f}"
        # 0.9997 is not 1: a perfect score is a claim of its own.
        if text == "1.000" and (size < 1 or round(size, 6) > 1):
            text = f"{math.floor(size * 1e6) / 1e6:.6f}".rstrip("0")
    elif size < 0.0005:
        text = f"{size:.2g}"
    else:
        text = f"{size:.2f}" if size < 1000 else f"{size:,.0f}" if size < 1e9 else f"{size:.4g}"
    sign = _MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + text


def humane_time(moment: str) -> str:
    """Returns an ISO 8601 moment as people write it, and what is not one unchanged."""
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()
