"""What is told of a training beside its scores: who clipped values, who vanished, whether masks were on."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.sfa.messages import Clipped
from vfl.errors import RemoteProtocolError
from vfl.masking.gathering import Gathering
from vfl.session import Session


async def hear_clipped(gathering: Gathering) -> dict[str, int]:
    """Hears of each contributor that is left how many values it clipped."""
    clipped = {}
    for name in gathering.names:
        said = await gathering.hear(name, Clipped)
        if said is None or said.names != (name,) or len(said.values) != 1 or said.values[0] < 0:
            raise RemoteProtocolError(name, "says of others than itself what was clipped")
        clipped[name] = said.values[0]
    return clipped


def notes_on(session: Session, vanished: Sequence[str], clipped: dict[str, int]) -> tuple[str, ...]:
    """Says what a reader of the scores should know: masks off, parties that vanished, values clipped."""
    notes = []
    if not session.options.masks:
        notes.append(f"Masks were off: {session.hub} saw every contribution. For debugging only.")
    notes += [
        f"{name} vanished, and the run went on without it: the weights kept and all scores are those of the "
        f"network without it. From the sums before and after, {session.hub} can estimate what it had "
        f"contributed."
        for name in vanished
    ]
    notes += [
        f"{name} clipped {n} value{'s' if n > 1 else ''} at the sum, to ±{session.options.clip:g}."
        for name, n in clipped.items()
        if n
    ]
    return tuple(notes)
