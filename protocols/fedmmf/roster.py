"""Who can take part in a federated factorisation, with which options, and how they sum."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from protocols.fedmmf.messages import SharedFactors, Turn
from vfl.errors import ConfigError
from vfl.masking.contributing import Contribution
from vfl.masking.graph import Graph, Neighbours, collusion_bound, degree_of, drawn_with
from vfl.masking.ring import Ring
from vfl.ratings.alone import DEFAULT_OPTIMIZER
from vfl.ratings.fixed import default_ring
from vfl.ratings.least_squares import statistics_width
from vfl.ratings.personal import MaskKind
from vfl.session import Session
from vfl.wire.codec import encode, frames_bytes, tensor_bytes
from vfl.wire.messages import Message

MOST_PARTICIPANTS: Final = 1000


class Config(BaseModel):
    """Holds this protocol's options, from `[protocols.fedmmf]` in the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["user", "item"] = "user"
    """What parts the participants: each has its own users, or its own items of users that all share."""
    rank: Annotated[int, Field(ge=1, le=512)] = 8
    regularisation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    """The weight of factors beside that of errors, a rating."""
    solver: Literal["als", "sgd"] = "als"
    fewest_raters: Annotated[int, Field(ge=1)] = 2
    """With "als": how many ratings a shared entity needs for factors of its own. From those of one with a
    single rating everybody could work out the rater's own factors, and its rating less the mask."""
    mask: MaskKind = "user_mean"
    """What a participant takes off its ratings before training, fitted on them alone."""
    mask_rank: Annotated[int, Field(ge=1, le=64)] = 4
    aggregation: Literal["plain", "masked", "adaptive", "paillier"] = "masked"
    plain_below: Annotated[float, Field(ge=0, le=1)] = 0.5
    """With "adaptive": as much of its ratings may be explained by what is left, for a plain contribution."""
    plain_owners: Annotated[int, Field(ge=1)] = 1
    """With "adaptive": as many own entities a participant needs for that, too."""
    ring_bits: Literal[32, 64] | None = None
    """By default 64 with "als" and 32 with "sgd"."""
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The largest sum, of either sign, that one participant brings."""
    fraction_bits: Annotated[int, Field(ge=0, le=126)] | None = None
    neighbours: Annotated[int, Field(ge=2, multiple_of=2)] | None = None
    """How many others each participant masks with; by default all, or beyond 32 as many as are safe."""
    batches: Annotated[int, Field(ge=1, le=1000)] = 1
    """With "sgd": into how many groups, and so steps, the ratings of a round are parted."""
    optimizer: dict[str, Any] = Field(default_factory=lambda: dict(DEFAULT_OPTIMIZER))
    """With "sgd": what own and shared factors move by."""
    key_bits: int = 2048
    """With "paillier": of the modulus."""
    unsafe_small_key: bool = False
    paillier_items: Literal["rated", "all"] = "all"
    """With "paillier": whether only the entities that a participant has ratings of are encrypted: that
    shows which they are."""


def check_roster(config: Config, roles: Mapping[str, str], widths: Mapping[str, int | None]) -> None:
    """Checks who takes part; widths are of no use here.

    Raises:
        ConfigError: where the roles do not fit, a sum may not fit the ring, or an extra is missing.
    """
    hubs, names = ([n for n, role in roles.items() if role == r] for r in ("coordinator", "participant"))
    if len(hubs) != 1:
        raise ConfigError(f"parties: {len(hubs)} have role = 'coordinator'; exactly one sums")
    if not 2 <= len(names) <= MOST_PARTICIPANTS:
        raise ConfigError(
            f"parties: {len(names)} have role = 'participant'; there may be 2 to {MOST_PARTICIPANTS}, and "
            f"with one its sum would be its own"
        )
    if config.solver == "als" and config.batches > 1:
        raise ConfigError('protocols.fedmmf.batches: is for solver = "sgd"; leave it out')
    ring_of(config, len(names))
    if config.aggregation == "paillier":
        _check_paillier(config)


def _check_paillier(config: Config) -> None:
    missing = [name for name in ("gmpy2", "phe") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'protocols.fedmmf.aggregation = "paillier": {" and ".join(missing)} cannot be found; install '
            f"vfl-framework[paillier]"
        )
    sizes = (2048, 3072)
    if config.key_bits not in sizes and not config.unsafe_small_key:
        raise ConfigError(
            f"protocols.fedmmf.key_bits = {config.key_bits}: set 2048 or 3072; a smaller one protects "
            f"nothing and needs unsafe_small_key = true"
        )


def ring_of(config: Config, contributors: int) -> Ring:
    """Returns the ring in which the statistics of so many participants fit.

    Raises:
        ConfigError: if none of the options' does.
    """
    try:
        return default_ring(
            config.solver,
            contributors,
            bits=config.ring_bits,
            fraction_bits=config.fraction_bits,
            clip=config.clip,
        )
    except ConfigError as error:
        # What the ring calls bits is ring_bits in the job.
        raise ConfigError(f"protocols.fedmmf: {str(error).replace(' bits = ', ' ring_bits = ')}") from error


def width_of(config: Config) -> int:
    """Returns how many numbers a shared entity has in a contribution."""
    return statistics_width(config.rank) if config.solver == "als" else config.rank + 1


def score_widths(config: Config, metric: str) -> tuple[int, int]:
    """Returns how many sums score a round, and the kept factors on validation and test ratings."""
    rank = 4 if config.by == "user" else 0
    return 3 + (0 if metric in ("rmse", "mae") else rank), 2 * (3 + rank)


def check_metric(config: Config, metric: str) -> None:
    """Checks that a round can be judged by this score.

    Raises:
        ConfigError: if participants do not have all items that would be ranked.
    """
    if config.by == "item" and metric not in ("rmse", "mae"):
        raise ConfigError(
            f'metric = {metric!r}: with by = "item" no participant has all items to rank; set "rmse" or "mae"'
        )


# --- who masks with whom --------------------------------------------------------------------------------


def masked_group(names: Sequence[str], wanting: Sequence[str], nonce: bytes) -> tuple[str, ...]:
    """Lists who contributes under masks: all that want to and, where that is one alone, another.

    Args:
        names: who contributes.
        wanting: who chose masks; they may have vanished since.
        nonce: the session's, from which follows who is drawn: the same as long as it is there.
    """
    chosen = {name for name in names if name in set(wanting)}
    if len(chosen) == 1:
        others = (name for name in names if name not in chosen)
        chosen.add(min(others, key=lambda name: _draw(nonce, name)))
    return tuple(name for name in names if name in chosen)


def _draw(nonce: bytes, name: str) -> bytes:
    return hashlib.sha256(b"fedmmf drawn" + nonce + name.encode()).digest()


def joins_too_late(
    before: Sequence[str], after: Sequence[str], wanting: Sequence[str] | None, nonce: bytes
) -> str:
    """Returns who would have to begin to mask after its sums were seen in the clear; nobody: "".

    From the sum of a group that it is drawn into, whoever knows its sums could take them off.

    Args:
        before: who contributed.
        after: who does now.
        wanting: who chose masks, where that is a choice.
        nonce: the session's.
    """
    if wanting is None:
        return ""
    masked = masked_group(before, wanting, nonce)
    return next((name for name in masked_group(after, wanting, nonce) if name not in masked), "")


def graph_of(session: Session, wanting: Sequence[str] | None = None) -> Graph | None:
    """Tells who masks with whom: all with all where they are few.

    Args:
        session: as any party sees it.
        wanting: who chose masks, where that is a choice.
    """
    config: Config = session.options
    if config.aggregation == "paillier":
        return _star
    drawn = drawn_with(session.nonce, config.neighbours)
    if wanting is not None:
        return lambda names, number: _grouped(
            drawn, names, masked_group(names, wanting, session.nonce), number
        )
    k = len(session.with_role("participant"))
    return None if degree_of(k, config.neighbours) >= k - 1 else drawn


def _grouped(drawn: Graph, names: Sequence[str], masked: Sequence[str], number: int) -> Neighbours:
    return {name: () for name in names} | dict(drawn(masked, number))


def _star(names: Sequence[str], number: int) -> Neighbours:
    """Gives the first a key with each other, for the one that it seals for them."""
    return {names[0]: tuple(names[1:])} | {name: (names[0],) for name in names[1:]}


# --- what is told of it ---------------------------------------------------------------------------------


def bound_words(config: Config, k: int, *, all_mask: bool = True) -> str:
    """Says what the graph of masks withstands.

    Args:
        config: the protocol's options.
        k: how many mask.
        all_mask: whether these are all who contribute.
    """
    degree, who = degree_of(k, config.neighbours), "" if all_mask else " of those who mask"
    if k == 0:
        return "Nobody masks."
    if degree >= k - 1:
        whom = "All mask with all" if all_mask else f"The {k} who mask do so with each other"
        return f"{whom}, so of all who are not in league with the coordinator only the sum shows."
    bits = collusion_bound(k, degree)
    odds = "never" if bits == -float("inf") else f"with probability 2^{bits:.0f} at most"
    return (
        f"Each of {k} masks with {degree}: if a third{who} are in league with the coordinator, a smaller sum "
        f"than that of all others{who} shows {odds}."
    )


def learns(session: Session, drawn: Mapping[str, str]) -> dict[str, str]:
    """Picks what holds in this job of what the docstring says: for each party, then of others.

    There each statement is of a role, and of what has to hold: `coordinator, masked|adaptive, als`.
    """
    config: Config = session.options
    holds = set(_holding(session))
    said = {name: _said_of(member.role, holds, drawn) for name, member in session.members.items()}
    if config.aggregation == "masked":
        k = len(session.with_role("participant"))
        said["whoever is in league with the coordinator"] = bound_words(config, k)
    if config.aggregation == "adaptive":
        said["whoever is in league with the coordinator"] = (
            "The sum of the others who mask; where two mask and one is in league, the other's."
        )
    if config.by == "item":
        said["whoever asks for recommendations"] = drawn["whoever asks for recommendations"]
    return {who: _named(what, config) for who, what in said.items()}


def _holding(session: Session) -> Iterator[str]:
    """Yields the conditions of statements that hold in a job."""
    config: Config = session.options
    yield config.aggregation
    yield config.solver
    if session.goes_on or len(session.with_role("participant")) == 2:
        yield "of two"
    if session.goes_on:
        yield "absence"
    if config.paillier_items == "rated":
        yield "rated only"


def _said_of(role: str, holds: Collection[str], drawn: Mapping[str, str]) -> str:
    """Joins what is said of a role and holds."""
    keys = {key: key.split(", ") for key in drawn}
    fitting = [
        drawn[key]
        for key, (who, *conditions) in keys.items()
        if who == role and all(any(one in holds for one in each.split("|")) for each in conditions)
    ]
    return " ".join(fitting)


def _named(what: str, config: Config) -> str:
    """Calls shared entities and own ones what they are in a job."""
    kinds = ("item", "user") if config.by == "user" else ("user", "item")
    for which, kind in zip(("shared", "own"), kinds, strict=True):
        what = what.replace(f"a {which} entity", f"{'an' if kind == 'item' else 'a'} {kind}")
        what = what.replace(f"{which} entities", f"{kind}s").replace(f"{which} entity", kind)
    return what


def step_bytes(session: Session, rows: int, *, learning: bool = True) -> tuple[int, int]:
    """Bounds what a participant sends and receives in a step, in bytes; rows are the shared entities."""
    config, most, none = session.options, 2**62, torch.zeros(0, 0)
    ring = ring_of(config, len(session.with_role("participant")))
    sent = _bytes(Contribution(most, most, most, most, none)) + tensor_bytes(
        rows, width_of(config), ring.dtype
    )
    received = _bytes(SharedFactors(most, most, none)) + tensor_bytes(rows, config.rank + 1, torch.float64)
    return sent * learning, (received + _bytes(Turn(most))) * learning


def _bytes(message: Message) -> int:
    return frames_bytes(encode(message, to="x" * 32, sender="x" * 32))
