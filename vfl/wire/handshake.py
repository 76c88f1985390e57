"""Before any data moves: do all parties mean the same job and hold the same rows?

    spoke --Hello--> hub          facts: versions, every key of the job, the number of rows
    hub --Hello--> spoke          the hub's facts, and a nonce
    spoke --RowsDigest--> hub     keyed hash of the ordered ids
    hub --Verdict--> spoke        whether the hub's own hash is the same

Each side compares the facts for itself, so each can name the key and both values; only facts that
the job file holds, the release and the number of rows cross.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from vfl.errors import Refused, RemoteProtocolError
from vfl.wire.line import Line
from vfl.wire.messages import Message

Fact = str | int | float | bool | None
NONCE_BYTES: Final = 16
_MOST_DIFFERENCES: Final = 4
_ABSENT: Final = "nothing"


@dataclass(frozen=True, eq=False)
class Hello(Message):
    """States what its sender takes for agreed, as a JSON object; the hub adds its nonce."""

    facts: str
    nonce: bytes


@dataclass(frozen=True, eq=False)
class RowsDigest(Message):
    """Is the hash, keyed with the hub's nonce, of the sender's ids in the common order."""

    digest: str


@dataclass(frozen=True, eq=False)
class Verdict(Message):
    """Says whether the hearer's rows are the hub's; once all are, the protocol may begin."""

    same_rows: bool


KINDS: Final = (Hello, RowsDigest, Verdict)


def differences(mine: Mapping[str, Fact], theirs: Mapping[str, Fact]) -> list[str]:
    """Names every fact on which two parties differ, with both values; empty if they agree."""
    keys = [*mine, *(key for key in theirs if key not in mine)]
    return [
        f"{_short(key)}: yours {_value(mine, key)}, theirs {_value(theirs, key)}"
        for key in keys
        if key not in mine or key not in theirs or not _alike(mine[key], theirs[key])
    ]


async def greet(
    line: Line,
    hub: str,
    peers: Sequence[str],
    facts: Mapping[str, Fact],
    digest: Callable[[bytes], str],
    nonce: bytes,
) -> None:
    """Runs the handshake for one party; returns when all agree.

    Args:
        line: this party's line.
        hub: the party that all others compare with.
        peers: at the hub, all others.
        facts: what this party takes for agreed.
        digest: the keyed hash of this party's ordered ids, as a function of the hub's nonce.
        nonce: at the hub, 16 fresh random bytes.

    Raises:
        Refused: naming the peer, and each differing key with both values, or that the rows differ.
        RemoteProtocolError: if a peer's facts cannot be read.
    """
    with line.during("handshake"):
        if line.me == hub:
            await _greet_spokes(line, peers, facts, digest(nonce), nonce)
        else:
            await _greet_hub(line, hub, facts, digest)


async def _greet_spokes(
    line: Line, peers: Sequence[str], facts: Mapping[str, Fact], digest: str, nonce: bytes
) -> None:
    for peer in peers:
        await line.say(peer, Hello(_to_json(facts), nonce))
    # In the order in which they speak: a peer that has found a difference ends the run right after
    # its Hello, and this side should have compared by then.
    still = list(peers)
    while still:
        peer, hello = await line.hear_any(still, Hello)
        still.remove(peer)
        _compare(peer, facts, hello.facts)
    still = list(peers)
    while still:
        peer, theirs = await line.hear_any(still, RowsDigest)
        still.remove(peer)
        if not hmac.compare_digest(theirs.digest.encode(), digest.encode()):
            await line.say(peer, Verdict(False))
            raise Refused(peer, _OTHER_ROWS)
    for peer in peers:
        await line.say(peer, Verdict(True))


async def _greet_hub(line: Line, hub: str, facts: Mapping[str, Fact], digest: Callable[[bytes], str]) -> None:
    await line.say(hub, Hello(_to_json(facts), b""))
    hello = await line.hear(hub, Hello)
    if len(hello.nonce) != NONCE_BYTES:
        raise RemoteProtocolError(hub, f"sent a nonce of {len(hello.nonce)} bytes, not {NONCE_BYTES}")
    _compare(hub, facts, hello.facts)
    await line.say(hub, RowsDigest(digest(hello.nonce)))
    if not (await line.hear(hub, Verdict)).same_rows:
        raise Refused(hub, _OTHER_ROWS)


_OTHER_ROWS: Final = (
    "rows: as many as yours, but not the same ids; "
    "every party's table must hold the same people, in any order"
)


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
