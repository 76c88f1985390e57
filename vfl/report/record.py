"""What a run has to say for itself: the record that a report is set from.

n stands for rows, c for classes.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from numpy.typing import NDArray


class Party(TypedDict):
    """Somebody who took part; `width` is the cut width, None for who gives nothing to the cut."""

    name: str
    role: str
    width: int | None


class Epoch(TypedDict):
    """What one pass over the training rows came to; `valid` is empty without validation rows."""

    epoch: int
    loss: NotRequired[float]
    valid: dict[str, float]
    seconds: float


class Alone(TypedDict):
    """What is reached without partners; `kind` says by whom or with what, `why` what failed."""

    kind: str
    test: dict[str, float]
    why: NotRequired[str]


class HeldOut(TypedDict):
    """The test rows: the truth [n], and probabilities [n] or [n, c], or values [n]."""

    truth: NDArray[Any]
    output: NDArray[Any]


class Learned(TypedDict):
    """A sentence on what a party comes to know beyond its own data."""

    party: str
    learns: str


class Traffic(TypedDict):
    """What crossed between the reporting party and one peer in one phase, and how long it waited.

    Bytes are true frame lengths; `waited_s` is the time with nothing to do but wait for that peer.
    """

    peer: str
    phase: str
    sent_bytes: int
    received_bytes: int
    sent_messages: int
    received_messages: int
    waited_s: float


class Aligned(TypedDict):
    """How the rows that all share were found, and how many the label party's own table has."""

    by: str
    of: int


class Record(TypedDict):
    """All that a report says of a run. Any list and any dictionary may be empty."""

    run: str
    protocol: str
    task: str
    status: str
    seconds: float
    started: str
    parties: list[Party]
    rows: dict[str, int]
    classes: list[str]
    positive: str | None
    history: list[Epoch]
    best_epoch: int | None
    score: str
    metrics: dict[str, dict[str, float]]
    alone: Alone | None
    test: HeldOut | None
    learned: list[Learned]
    ledger: list[Traffic]
    versions: dict[str, str]
    seed: NotRequired[int | None]
    aligned: NotRequired[Aligned | None]
    notes: NotRequired[list[str]]
