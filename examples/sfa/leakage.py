"""Attacks the aggregator's view: how well are the first party's columns reconstructed from what it saw?

Three things are attacked: the first party's `own` messages; the `total` that the aggregator sums; and the
`others'` part of that total, which nobody sees, to tell what is known of the first party's columns from their
likeness to the others' columns. All are of the test rows, under one set of weights; for some of these rows
the attacker knows the first party's columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from training import SFA, Played

from vfl.audit.reconstruction import Reading, decoder_attack, least_squares_attack

#: The shares of the test rows for which the attacker knows the columns.
AUXILIARY = (0.01, 0.05, 0.1)
OWN, TOTAL, OTHERS = "own", "total", "others"
DECODER, LEAST_SQUARES = "decoder", "least squares"
_ATTACKS = {DECODER: decoder_attack, LEAST_SQUARES: least_squares_attack}


def attack(
    played: Played,
    columns: NDArray[np.float32],
    *,
    variant: str,
    depth: int,
    shares: tuple[float, ...],
    seed: int,
) -> list[dict[str, Any]]:
    """Attacks all that there is to attack, and returns a record for each attack.

    Of masked messages, the values and the single bytes are tried, and the better score counts, which is in
    the attacker's favour. The total of `sum` is that of `sfa` but for rounding, and is attacked there.
    """
    seen: dict[str, NDArray[Any]] = {OWN: played.own}
    if variant == SFA and played.total is not None and played.others is not None:
        seen |= {TOTAL: played.total, OTHERS: played.others}
    records = []
    for what, messages in seen.items():
        readings: tuple[Reading, ...] = ("value", "bytes") if messages.dtype.kind == "i" else ("value",)
        for name in (DECODER, LEAST_SQUARES) if depth == 1 else (DECODER,):
            for share in shares:
                scores = [
                    _ATTACKS[name](messages, columns, share, reading=reading, seed=seed).score
                    for reading in readings
                ]
                records.append({"of": what, "attack": name, "auxiliary": share, "r2": max(scores)})
    return records
