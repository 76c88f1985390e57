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

    def patience_s(self, phase: str) -> float:
        """Tells how long a party that is there may say nothing in a phase.

        In the handshake it may have a large table to read.
        """
        return max(self.join_s, self.hear_s) if phase == "handshake" else self.hear_s
