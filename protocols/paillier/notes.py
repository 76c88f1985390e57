"""What the Paillier cut tells its party's person; and what its noise follows from."""

from __future__ import annotations

from protocols.paillier.scales import Scales
from vfl.crypto.pairs import framed
from vfl.journal import Journal
from vfl.paillier.keys import KEY_BITS
from vfl.paillier.noise import Draws
from vfl.session import Session


def draws_of(session: Session) -> Draws:
    """Returns where a party's initial share and its noise come from: no other party's stream is the same."""
    if session.noise is None:
        return Draws(None)
    return Draws(framed(b"vfl paillier noise 1", session.me.encode(), session.noise))


def warn_of(session: Session, journal: Journal) -> None:
    """Warns where options leave numbers open."""
    for words in _open(session) + _narrow(session):
        journal.warn(words)


def activations_clipped(scales: Scales) -> str:
    """Says that activations were clipped, and what to do about it."""
    most = scales.activation.limit * 2.0**-scales.activation.fraction_bits
    return (
        f"activations beyond ±{most:g} are clipped at the cut: set a larger clip in [protocols.paillier], or "
        f"scale the columns"
    )


def gradients_clipped(scales: Scales) -> str:
    """Says that gradients were clipped, and what to do about it."""
    return (
        f"gradients at the cut are clipped, since that of a row is beyond ±{scales.config.gradient_clip:g}: "
        f"set a larger gradient_clip in [protocols.paillier]"
    )


def notes_on(session: Session, activations: int, gradients: int) -> tuple[str, ...]:
    """Says what a reader of the scores should know: what was open, how many values were clipped."""
    feature = session.with_role("feature")[0]
    notes = [f"{words[0].upper()}{words[1:]}." for words in _open(session)]
    notes += [f"{feature} clipped {_values(activations, 'activation')} at the cut."] if activations else []
    notes += [f"{session.label} clipped {_values(gradients, 'gradient')} at the cut."] if gradients else []
    return tuple(notes)


def _open(session: Session) -> list[str]:
    feature, config = session.with_role("feature")[0], session.options
    if config.encryption == "none":
        return [
            f'encryption = "none": {session.label} sees every activation of {feature}; for debugging only'
        ]
    if config.key_bits not in KEY_BITS:
        return [f"key_bits = {config.key_bits} protects nothing; for tests only"]
    return []


def _narrow(session: Session) -> list[str]:
    feature, k = session.with_role("feature")[0], session.options.width
    d, found = session.widths[feature], []
    if k == 1:
        found.append(
            f"width = 1: {feature} can work out z and its gradient for training rows, but for a factor; more "
            f"than its {d} in [protocols.paillier] hides them"
        )
    if d == 1:
        found.append(
            f"parties.{feature}.width = 1: {session.label} can work out every activation, but for a factor; "
            f"more than the cut layer's {k} hides them"
        )
    return found


def _values(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
