"""Initial factors, drawn from a hash: the same on every machine and in every version of every library."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

#: The standard deviation of initial factors.
SPREAD: Final = 0.1


def drawn(text: str, count: int) -> np.ndarray:
    """Draws uniform numbers of mean 0 and standard deviation SPREAD, [count] float64.

    Args:
        text: what for; each text has a stream of its own.
        count: how many.
    """
    stream = hashlib.shake_256(f"vfl factors\0{text}".encode()).digest(8 * count)
    whole = np.frombuffer(stream, "<u8") >> np.uint64(11)  # 53 bits, which a float holds
    # A uniform number within ±1 has the variance 1/3.
    return np.asarray((whole.astype(np.float64) * 2.0**-52 - 1.0) * (SPREAD * 3.0**0.5))
