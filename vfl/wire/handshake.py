"""Before any data moves: do all parties mean the same job? And before training: the same rows?

    spoke --Hello--> hub          facts: versions and every key of the job
    hub --Hello--> spoke          the hub's facts, and a nonce that names the session

Now the rows that all share may be looked for. Then, whichever way they were found:

    spoke --RowsDigest--> hub     how many rows, and the keyed hash of their ordered ids
    hub --Verdict--> spoke        whether they are the right ones, and how many those are

The right rows are the hub's own; a hub that has none takes those that most others have.

Each side compares the facts for itself, so each can name the key and both values; only facts that
the job file holds, the release and the number of rows cross.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from vfl.errors import Refused, RemoteProtocolError, RoleError
from vfl.wire.line import Line
from vfl.wire.messages import Message

Fact = str | int | float | bool | None
NONCE_BYTES: Final = 16
_MOST_DIFFERENCES: Final = 4
_ABSENT: Final = "nothing"
SAME_PEOPLE: Final = (
    'all must hold the same people, in any order: set align = "psi" in the job to train on those that all '
    "share"
)


@dataclass(frozen=True, eq=False)
class Hello(Message):
    """States what its sender takes for agreed, as a JSON object; the hub adds its nonce."""

    facts: str
    nonce: bytes


@dataclass(frozen=True, eq=False)
class RowsDigest(Message):
    """Is the hash, keyed with the hub's nonce, of the sender's ids in the common order; and their number."""

    rows: int
    digest: str


@dataclass(frozen=True, eq=False)
class Verdict(Message):
    """Says whether the hearer's rows are the right ones; once all have them, the protocol may begin."""

    same_rows: bool
    rows: int


KINDS: Final = (Hello, RowsDigest, Verdict)


def differences(mine: Mapping[str, Fact], theirs: Mapping[str, Fact]) -> list[str]:
    """Names every fact on which two parties differ, with both values; empty if they agree."""
    keys = [*mine, *(key for key in theirs if key not in mine)]
    return [
        f"{_short(key)}: yours {_value(mine, key)}, theirs {_value(theirs, key)}"
        for key in keys
        if key not in mine or key not in theirs or not _alike(mine[key], theirs[key])
    ]


async def agree(line: Line, hub: str, peers: Sequence[str], facts: Mapping[str, Fact], nonce: bytes) -> bytes:
    """Compares what one party takes for agreed; returns the session's nonce when all agree.

    Args:
        line: this party's line.
        hub: the party that all others compare with.
        peers: at the hub, all others.
        facts: what this party takes for agreed.
        nonce: at the hub, 16 fresh random bytes.

    Raises:
        Refused: naming the peer, and each differing key with both values.
        RemoteProtocolError: if a peer's facts cannot be read.
    """
    with line.during("handshake"):
        if line.me != hub:
            await line.say(hub, Hello(_to_json(facts), b""))
            hello = await line.hear(hub, Hello)
            if len(hello.nonce) != NONCE_BYTES:
                raise RemoteProtocolError(hub, f"sent a nonce of {len(hello.nonce)} bytes, not {NONCE_BYTES}")
            _compare(hub, facts, hello.facts)
            return hello.nonce
        for peer in peers:
            await line.say(peer, Hello(_to_json(facts), nonce))
        # In the order in which they speak: a peer that has found a difference ends the run right after
        # its Hello, and this side should have compared by then.
        still = list(peers)
        while still:
            peer, theirs = await line.hear_any(still, Hello)
            still.remove(peer)
            _compare(peer, facts, theirs.facts)
        return nonce


async def compare_rows(
    line: Line,
    hub: str,
    peers: Sequence[str],
    rows: int | None,
    digest: str | None,
    remedy: str = SAME_PEOPLE,
) -> int:
    """Makes sure that all parties hold the same rows in the same order; returns how many, when they do.

    Args:
        line: this party's line.
        hub: the party that compares.
        peers: at the hub, all others.
        rows: how many this party has; None at a hub without any, which compares the others' with each other.
        digest: the hash of its ordered ids, keyed with the nonce that `agree` returned; None as for `rows`.
        remedy: what a person is told to do where they differ.

    Raises:
        Refused: naming the peer whose rows are others; at a hub without rows, others than most peers'.
    """
    with line.during("handshake"):
        own = None if rows is None or digest is None else RowsDigest(rows, digest)
        if line.me == hub:
            if own is None:
                return await _compare_peers(line, peers, remedy)
            return await _compare_with_own(line, peers, own, remedy)
        if own is None:
            raise RoleError(f"{line.me} has no rows to compare; only a hub may have none")
        await line.say(hub, own)
        verdict = await line.hear(hub, Verdict)
        if not verdict.same_rows:
            raise Refused(hub, _other_rows(own.rows, verdict.rows, remedy))
        return own.rows


async def _compare_with_own(line: Line, peers: Sequence[str], own: RowsDigest, remedy: str) -> int:
    still = list(peers)
    while still:
        peer, theirs = await line.hear_any(still, RowsDigest)
        still.remove(peer)
        if not _same(own, theirs):
            await line.say(peer, Verdict(False, own.rows))
            raise Refused(peer, _other_rows(own.rows, theirs.rows, remedy))
    for peer in peers:
        await line.say(peer, Verdict(True, own.rows))
    return own.rows


async def _compare_peers(line: Line, peers: Sequence[str], remedy: str) -> int:
    """Takes for right what most peers say, or of equally many, the first of them."""
    heard: dict[str, RowsDigest] = {}
    while still := [peer for peer in peers if peer not in heard]:
        peer, theirs = await line.hear_any(still, RowsDigest)
        heard[peer] = theirs
    support = {peer: sum(_same(one, heard[peer]) for one in heard.values()) for peer in peers}
    most = heard[max(peers, key=support.__getitem__)]  # the first of the greatest
    others = [peer for peer in peers if not _same(heard[peer], most)]
    for peer in others or peers:
        await line.say(peer, Verdict(not others, most.rows))
    if others:
        found = _other_rows(most.rows, heard[others[0]].rows, remedy, "the other parties'")
        raise Refused(others[0], found)
    return most.rows


def _same(one: RowsDigest, other: RowsDigest) -> bool:
    return one.rows == other.rows and hmac.compare_digest(one.digest.encode(), other.digest.encode())


def _other_rows(mine: int, theirs: int, remedy: str, whose: str = "yours") -> str:
    count = (
        f"as many as {whose}, but not the same ids" if mine == theirs else f"{whose} {mine}, theirs {theirs}"
    )
    return f"rows: {count}; {remedy}"


def _compare(peer: str, mine: Mapping[str, Fact], text: str) -> None:
    try:
        theirs = msgspec.json.decode(text, type=dict[str, Fact])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(peer, "sent facts that cannot be read") from error
    found = differences(mine, theirs)
    if found:
        more = f" (and {len(found) - _MOST_DIFFERENCES} more)" if len(found) > _MOST_DIFFERENCES else ""
        raise Refused(peer, f"{'; '.join(found[:_MOST_DIFFERENCES])}{more}; agree on one job and try again")


def _alike(mine: Fact, theirs: Fact) -> bool:
    return mine == theirs and isinstance(mine, bool) == isinstance(theirs, bool)  # else 1 would be true


def _to_json(facts: Mapping[str, Fact]) -> str:
    return msgspec.json.encode(dict(facts)).decode()


def _value(facts: Mapping[str, Fact], key: str) -> str:
    return _short(repr(facts[key])) if key in facts else _ABSENT


def _short(text: str) -> str:
    """Keeps a peer's words printable and short before a person reads them."""
    clean = "".join(letter for letter in text if letter.isprintable())
    return clean if len(clean) <= 80 else clean[:79] + "…"
