"""Every error that the framework raises on purpose, in one tree.

    VflError
    ├── LocalError              something on this side is wrong; the remedy is here
    │   ├── ConfigError         a job, a site or an option               exit 2
    │   ├── DataError           a table, a column, a value               exit 2
    │   │   └── TooFewRows      fewer rows than the job wants            exit 2
    │   ├── StorageError        a disk that is full, a folder not ours   exit 7
    │   ├── RoleError           a role asked its line for something illegal
    │   ├── Deadlock            a rehearsal in which nobody can go on
    │   └── Interrupted         Ctrl-C or a termination signal           exit 130
    └── RemoteError             a peer did it; carries the peer's name
        ├── Refused             a key, a job or rows that do not match   exit 3
        ├── PeerLost            the peer died or was cut off             exit 4
        ├── PeerTimeout         the peer is there but says nothing       exit 5
        ├── RemoteProtocolError the peer said something illegal          exit 6
        └── PeerAborted         the peer gave up, with its reason        as the reason, else 8

The sentence in an error says what to do about it. What crosses to a peer is only the `reason`, a
word from a fixed list, and the name of the party or job key that it is about: never the sentence.
"""

from __future__ import annotations

from typing import Final

EXIT_INTERNAL: Final = 1

#: The words that may cross to a peer when a run ends early, each with the exit code of who hears it.
REASONS: Final[dict[str, int]] = {
    "refused": 3,
    "lost": 4,
    "dismissed": 4,
    "timeout": 5,
    "protocol": 6,
    "config": 8,
    "data": 8,
    "few": 2,
    "storage": 8,
    "interrupted": 8,
    "failed": 8,
}


class VflError(Exception):
    """Is the root of every deliberate error; `str()` of it is one line for a person to read."""

    exit_code: int = EXIT_INTERNAL
    reason: str = "failed"

    @property
    def about(self) -> str:
        """The party or job key that the error is about; all that a peer is told beside `reason`."""
        return ""


class LocalError(VflError):
    """Is raised where something on this side is wrong."""


class ConfigError(LocalError):
    """Is raised for a job, a site or an option that cannot be used."""

    exit_code = 2
    reason = "config"


class DataError(LocalError):
    """Is raised for a table, a column or a value that cannot be used."""

    exit_code = 2
    reason = "data"


class TooFewRows(DataError):
    """Is raised where the rows that all parties share are too few for the job; all find that out."""

    reason = "few"


class StorageError(LocalError):
    """Is raised where a file or a folder cannot be written."""

    exit_code = 7
    reason = "storage"


class WorkerLost(LocalError):
    """Is raised where a further process of this party has ended before its time."""


class RoleError(LocalError):
    """Is raised where a role asks its line for something illegal: a fault in a protocol."""


class Deadlock(LocalError):
    """Is raised by a rehearsal in which every party waits for another."""


class Interrupted(LocalError):
    """Is raised when a person or the system ends the run: Ctrl-C or a termination signal."""

    exit_code = 130
    reason = "interrupted"


class RemoteError(VflError):
    """Is raised for what a peer did; `peer` is its name, as its key says."""

    def __init__(self, peer: str, why: str) -> None:
        super().__init__(f"{peer}: {why}")
        self.peer = peer
        self.why = why

    @property
    def about(self) -> str:
        """The peer."""
        return self.peer


class Refused(RemoteError):
    """Is raised where two parties do not agree to work together: key, job or rows differ."""

    exit_code = 3
    reason = "refused"


class PeerLost(RemoteError):
    """Is raised when a peer's process died or the way to it was cut."""

    exit_code = 4
    reason = "lost"


class PeerTimeout(RemoteError):
    """Is raised when a peer that is there has said nothing until the deadline."""

    exit_code = 5
    reason = "timeout"


class RemoteProtocolError(RemoteError):
    """Is raised when a peer said something that the protocol, the codec or the caps forbid."""

    exit_code = 6
    reason = "protocol"


class PeerAborted(RemoteError):
    """Is raised when a peer ended the run and said why, in a word from `REASONS`."""

    def __init__(self, peer: str, code: str, culprit: str) -> None:
        self.code = code
        self.culprit = culprit
        self.exit_code = REASONS[code]
        blame = f" ({culprit})" if culprit and code != "dismissed" else ""
        super().__init__(peer, f"{_WORDS[code]}{blame}")

    @property
    def about(self) -> str:
        """The party that the peer blames, else the peer."""
        return self.culprit or self.peer

    @property
    def reason(self) -> str:  # type: ignore[override]
        """The reason that the peer gave; it is passed on as it is."""
        return self.code


_WORDS: Final[dict[str, str]] = {
    "refused": "ended the run: a peer was refused",
    "lost": "ended the run: a peer was lost",
    "dismissed": "goes on without this party, which was away too long",
    "timeout": "ended the run: a peer said nothing until the deadline",
    "protocol": "ended the run: a peer broke the protocol",
    "config": "ended the run: its own configuration cannot be used; its own terminal says why",
    "data": "ended the run: its own table cannot be used; its own terminal says why",
    "few": "ended the run: all parties together share too few rows for min_rows or batch_size in the job",
    "storage": "ended the run: it cannot write its own files; its own terminal says why",
    "interrupted": "ended the run: it was interrupted",
    "failed": "ended the run: it failed; its own terminal says why",
}
