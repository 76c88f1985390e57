"""How long a link is patient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How long to be patient, in seconds.

    A dead process is noticed at once, a cut cable after at most 2.5 `heartbeat_s`; either is given
    `reconnect_s` to come back before the run ends. All that, by default, stays under 5 seconds.
    """

    join_s: float = 600.0
    hear_s: float = 300.0
    reconnect_s: float = 2.0
    heartbeat_s: float = 1.0
