"""Who takes part in a run, and by what name all of them know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Member:
    """Is one party as the others know it.

    Attributes:
        role: what it does in the protocol.
        width: how many numbers a row it brings to the cut; None if it brings none.
        identity: its pinned public key, 32 bytes (Curve25519); None where the job lists no keys.
    """

    role: str
    width: int | None = None
    identity: bytes | None = None


@dataclass(frozen=True)
class Session:
    """Is one run of a protocol, as one of its parties sees it.

    Attributes:
        me: this party.
        hub: the party that all others are connected to, and that relays what they say to each other.
        members: all parties by name, in the job's order.
        nonce: 16 random bytes that the hub drew for this run; keys rest on fresh secrets beside them.
        options: the protocol's own `Config`.
        secret_key: this party's own secret key, 32 bytes, that belongs to its identity; None without one.
        goes_on: whether the run goes on without a party that vanishes, as the job says.
        noise: what the noise that this party leaves in its results follows from; None draws it afresh.
            Keys, masks and all else that is only to hide never follow from it.
        batch_size: rows a training batch, as the job says; 0 where that is not known.
    """

    me: str
    hub: str
    members: Mapping[str, Member]
    nonce: bytes = bytes(16)
    options: Any = None
    secret_key: bytes | None = field(default=None, repr=False)
    goes_on: bool = False
    noise: bytes | None = field(default=None, repr=False)
    batch_size: int = 0

    def with_role(self, role: str) -> list[str]:
        """Lists the parties of one role, in the job's order."""
        return [name for name, member in self.members.items() if member.role == role]

    @property
    def label(self) -> str:
        """The party that holds the labels."""
        return self.with_role("label")[0]

    @property
    def widths(self) -> dict[str, int]:
        """The cut widths of the feature parties, in the job's order."""
        return {
            name: member.width
            for name, member in self.members.items()
            if member.role == "feature" and member.width is not None
        }
