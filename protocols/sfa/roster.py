"""Who can take part in secure forward aggregation, with which options, and in which ring they sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from protocols.sfa.messages import Hidden, HiddenGrad, SumGrad
from vfl.errors import ConfigError
from vfl.masking.contributing import Contribution
from vfl.masking.ring import Ring
from vfl.session import Session
from vfl.wire.codec import encode, frames_bytes, tensor_bytes
from vfl.wire.messages import Message

MOST_CONTRIBUTORS: Final = 64


class Config(BaseModel):
    """Holds this protocol's options, from `[protocols.sfa]` in the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    masks: bool = True
    """Whether masks are on; without them the dialogue and all numbers are the same, and nothing is hidden."""
    ring_bits: Literal[32, 64] = 32
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 64.0
    """The largest value, of either sign, that one party brings to the sum."""
    fraction_bits: Annotated[int, Field(ge=0, le=126)] | None = None
    """Values are kept to the nearest multiple of 2^-fraction_bits; by default as finely as fits."""


def contributors_of(roles: Mapping[str, str], widths: Mapping[str, int | None]) -> list[str]:
    """Lists who contributes under masks, in the job's order.

    A label party that sums knows its own contribution, so no mask hides anything of it.
    """
    masked = {"feature", "label"} if "coordinator" in roles.values() else {"feature"}
    return [name for name, role in roles.items() if role in masked and widths[name] is not None]


def check_roster(config: Config, roles: Mapping[str, str], widths: Mapping[str, int | None]) -> None:
    """Checks who takes part.

    Raises:
        ConfigError: where the masks would hide nothing, widths differ or the sum may not fit the ring.
    """
    labels, coordinators = ([n for n, role in roles.items() if role == r] for r in ("label", "coordinator"))
    if len(labels) != 1:
        raise ConfigError(f"parties: {len(labels)} have role = 'label'; exactly one holds the label")
    if len(coordinators) > 1:
        raise ConfigError(f"parties: {len(coordinators)} have role = 'coordinator'; there may be one")
    for name, role in roles.items():
        if role != "label" and widths[name] is None:
            brings = "brings to the sum" if role == "feature" else "hands on to the label party"
            raise ConfigError(f"parties.{name}.width: is missing; say how many numbers a row it {brings}")
    names = contributors_of(roles, widths)
    if len(names) < 2:
        raise ConfigError(_hides_nothing(names, labels[0], widths, bool(coordinators)))
    if len(names) > MOST_CONTRIBUTORS:
        raise ConfigError(f"parties: {len(names)} contribute; there may be 2 to {MOST_CONTRIBUTORS}")
    summed = {n: widths[n] for n in roles if n not in coordinators and widths[n] is not None}
    if len(set(summed.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in summed.items())
        raise ConfigError(f"parties: a sum needs one width for all, and they are {listed}; make them equal")
    ring_of(config, len(summed))


def _hides_nothing(
    names: Sequence[str], label: str, widths: Mapping[str, int | None], has_coordinator: bool
) -> str:
    if not names:
        return (
            f"parties: nobody contributes; add feature parties with a width, two where {label} has no columns"
        )
    one = names[0]
    if has_coordinator:
        return (
            f"parties: masks would hide nothing, since {one} alone contributes and the coordinator would see "
            f"that; give the label party a width and columns, or add a feature party"
        )
    remedy = "add a party with role = 'coordinator' and a width, which sums and has no columns, or "
    return (
        f"parties: masks would hide nothing, since {label} sums and would see what {one} alone contributes; "
        f"{remedy if widths[label] is not None else ''}add a second feature party"
    )


def ring_of(config: Config, contributors: int) -> Ring:
    """Returns the ring in which the sum of so many contributions fits.

    Raises:
        ConfigError: if none of the options' does.
    """
    try:
        return Ring.fitting(config.ring_bits, config.clip, contributors, config.fraction_bits)
    except ConfigError as error:
        # What the ring calls bits is ring_bits in the job.
        raise ConfigError(f"protocols.sfa: {str(error).replace(' bits = ', ' ring_bits = ')}") from error


def learns(session: Session, drawn: Mapping[str, str]) -> dict[str, str]:
    """Picks what holds in this job of what the docstring says: for each party, then of others."""
    roles = {name: member.role for name, member in session.members.items()}
    label = "label, behind a coordinator" if session.with_role("coordinator") else "label, who sums"
    said = {name: drawn[label if role == "label" else role] for name, role in roles.items()}
    if session.options.masks:
        return said | {
            who: drawn[who] for who in ("whoever sums", "all but one contributor, with whoever sums")
        }
    clear = "Every single contribution, in the clear, since masks = false; for debugging only."
    said[session.hub] = said[session.hub].replace("No single contribution.", clear)
    return said | {"whoever sums": clear}


def step_bytes(session: Session, rows: int, *, learning: bool = True) -> tuple[int, int]:
    """Bounds what `session.me`, who does not sum, sends and receives in a step of `rows` rows, in bytes."""
    me, most, none = session.members[session.me], 2**62, torch.zeros(0, 0)
    sent = received = 0
    if me.width is not None:
        content = rows, me.width
        dtype = torch.int32 if session.options.ring_bits == 32 else torch.int64
        sent += _bytes(Contribution(most, most, most, most, none)) + tensor_bytes(*content, dtype)
        received += (_bytes(SumGrad(most, none)) + tensor_bytes(*content, torch.float32)) * learning
    if me.role == "label":
        content = rows, session.members[session.hub].width or 0
        sent += (_bytes(HiddenGrad(most, none)) + tensor_bytes(*content, torch.float32)) * learning
        received += _bytes(Hidden(most, most, none)) + tensor_bytes(*content, torch.float32)
    return sent, received


def _bytes(message: Message) -> int:
    return frames_bytes(encode(message, to="x" * 32, sender="x" * 32))


def sum_of(session: Session) -> tuple[list[str], Ring]:
    """Returns who contributes under masks, and the ring in which all that is summed fits."""
    roles = {name: member.role for name, member in session.members.items()}
    widths = {name: member.width for name, member in session.members.items()}
    summed = [name for name, role in roles.items() if role != "coordinator" and widths[name] is not None]
    return contributors_of(roles, widths), ring_of(session.options, len(summed))
