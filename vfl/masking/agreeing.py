"""How contributors agree on a key a pair, past an aggregator that carries every word and is not trusted.

    aggregator --Roster--> contributor           who contributes from now on; a number that ascends
    contributor --KeyShare--> aggregator         a fresh public key
    aggregator --Keys--> contributor             everybody's, in the roster's order
    contributor --Confirmation--> aggregator     a tag for each other contributor
    aggregator --Confirmations--> contributor    the tags that are for it

A pair's key hangs on the session, the roster with its number, every name and key in it, and on both
pinned identities; a tag proves that the other end found the same. So an aggregator that passes on
another key, another roster or another session's words is found out before anything is masked.

Where the job lists no keys there is nothing to pin: whoever relays can stand between two contributors
and be taken for each by the other.

When a contributor vanishes on the way, the aggregator begins again with a roster of a higher number.

Where a graph tells who masks with whom (vfl/masking/graph.py), everybody hears the keys and the tags of its
own neighbours alone; then a pair's key hangs on the names of the others and not on their fresh keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar, cast

from vfl.crypto.pairs import KEY_BYTES, TAG_BYTES, Ends, framed, new_secret, same_tag, tag
from vfl.errors import RemoteProtocolError, RoleError
from vfl.masking.graph import Graph
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

#: The sum over one contributor is its contribution.
FEWEST_CONTRIBUTORS: Final = 2
_LABEL: Final = b"vfl mask key 1"
_SPARSE_LABEL: Final = b"vfl mask key in a graph 1"
_CONFIRMS: Final = b"confirms"


@dataclass(frozen=True, eq=False)
class Roster(Message):
    """Names the contributors from now on; each roster of a session has a higher number than the last."""

    number: int
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class KeyShare(Message):
    """Carries a contributor's fresh public key, made for this roster."""

    number: int
    key: bytes


@dataclass(frozen=True, eq=False)
class Keys(Message):
    """Carries all contributors' fresh keys, or the hearer's and its neighbours', in the roster's order."""

    number: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Confirmation(Message):
    """Carries a tag for each other contributor, or neighbour, in the roster's order without the sender."""

    number: int
    tags: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Confirmations(Message):
    """Carries the tags that are for the hearer, in the roster's order without it."""

    number: int
    tags: tuple[bytes, ...]


KINDS: Final = (Roster, KeyShare, Keys, Confirmation, Confirmations)

_Answer = TypeVar("_Answer", KeyShare, Confirmation)
_Passed = TypeVar("_Passed", Keys, Confirmations)


# --- the aggregator ---------------------------------------------------------------------------------


async def relay_keys(line: Line, roster: Roster, *, graph: Graph | None = None) -> None:
    """Carries an agreement between the contributors that `roster` names; learns no key.

    What contributors said of a roster with a lower number is passed over: it was broken off.

    Args:
        line: the aggregator's line.
        roster: who contributes from now on.
        graph: who masks with whom; None is all with all.

    Raises:
        RemoteProtocolError: naming a contributor that said something else than was due.
    """
    with line.during("keys"):
        names = roster.names
        for name in names:
            await line.say(name, roster)
        shares = await _gather(line, roster, KeyShare)
        for name, share in shares.items():
            if len(share.key) != KEY_BYTES:
                raise RemoteProtocolError(name, f"sent a key of {len(share.key)} bytes, not {KEY_BYTES}")
        partners = _partners(roster, graph)
        for name in names:
            known = _known(roster, partners[name], name)
            await line.say(name, Keys(roster.number, tuple(shares[one].key for one in known)))
        confirmed = await _gather(line, roster, Confirmation)
        tags = {}
        for name, confirmation in confirmed.items():
            _check_tags(name, confirmation.tags, len(partners[name]))
            pairs = zip(partners[name], confirmation.tags, strict=True)
            tags.update({(name, other): one for other, one in pairs})
        for name in names:
            theirs = tuple(tags[other, name] for other in partners[name])
            await line.say(name, Confirmations(roster.number, theirs))


def _partners(roster: Roster, graph: Graph | None) -> Mapping[str, Sequence[str]]:
    """Lists for each contributor whom it masks with, in the roster's order."""
    if graph is not None:
        return graph(roster.names, roster.number)
    return {name: tuple(other for other in roster.names if other != name) for name in roster.names}


def _known(roster: Roster, partners: Sequence[str], me: str) -> Sequence[str]:
    """Lists whose fresh keys a contributor is told, in the roster's order."""
    told = {me, *partners}
    return [name for name in roster.names if name in told]


async def _gather(line: Line, roster: Roster, kind: type[_Answer]) -> dict[str, _Answer]:
    """Hears one answer of each contributor, in whichever order they speak."""
    gathered: dict[str, _Answer] = {}
    while len(gathered) < len(roster.names):
        still = [name for name in roster.names if name not in gathered]
        name, heard = await line.hear_any(still, KeyShare, Confirmation)
        message = cast(KeyShare | Confirmation, heard)
        if 0 < message.number < roster.number:
            continue
        if message.number != roster.number:
            raise RemoteProtocolError(
                name, f"answered roster {message.number} where the latest is {roster.number}"
            )
        if not isinstance(message, kind):
            raise RemoteProtocolError(name, f"said {type(message).__name__} where {kind.__name__} was due")
        gathered[name] = message
    return gathered


# --- a contributor ----------------------------------------------------------------------------------


async def agree_on_keys(
    line: Line,
    session: Session,
    aggregator: str,
    roster: Roster,
    check: Callable[[Roster], None] = lambda roster: None,
    *,
    graph: Graph | None = None,
) -> tuple[dict[str, bytes], Roster]:
    """Agrees on a key with each other contributor, or neighbour; again with each further roster heard.

    Args:
        line: a contributor's line.
        session: as this contributor sees it.
        aggregator: who relays.
        roster: the roster that was heard; the caller has checked who is in it.
        check: checks who is in a further roster, and raises where they will not do.
        graph: who masks with whom, as the aggregator knows it too; None is all with all.

    Returns:
        A key of 32 bytes for each other contributor, or each neighbour, and the roster that they are of.

    Raises:
        RemoteProtocolError: naming the aggregator, where what it passed on is not what others said.
        RoleError: if some contributors have identities and some have none.
    """
    with line.during("keys"):
        while True:
            _check_roster(session, aggregator, roster)
            agreed = await _agree_once(line, session, aggregator, roster, graph)
            if not isinstance(agreed, Roster):
                return agreed, roster
            if agreed.number <= roster.number:
                raise RemoteProtocolError(
                    aggregator, f"said roster {agreed.number} after roster {roster.number}"
                )
            roster = agreed
            check(roster)


async def _agree_once(
    line: Line, session: Session, aggregator: str, roster: Roster, graph: Graph | None
) -> dict[str, bytes] | Roster:
    """Goes through one agreement; returns the keys, or the roster that broke it off."""
    ends = Ends(new_secret(), session.secret_key)
    _check_identities(session, ends, roster)
    await line.say(aggregator, KeyShare(roster.number, ends.public))
    passed = await _hear(line, aggregator, roster, Keys)
    if isinstance(passed, Roster):
        return passed
    found = _pair_keys(session, ends, aggregator, roster, passed.keys, graph)
    tags = (tag(key[KEY_BYTES:], _CONFIRMS, line.me.encode(), name.encode()) for name, key in found.items())
    await line.say(aggregator, Confirmation(roster.number, tuple(tags)))
    confirmed = await _hear(line, aggregator, roster, Confirmations)
    if isinstance(confirmed, Roster):
        return confirmed
    _check_tags(aggregator, confirmed.tags, len(found))
    for (name, key), theirs in zip(found.items(), confirmed.tags, strict=True):
        if not same_tag(tag(key[KEY_BYTES:], _CONFIRMS, name.encode(), line.me.encode()), theirs):
            raise RemoteProtocolError(
                aggregator,
                f"passed on another key than {name}'s own, or {name} was told of another roster: do not "
                f"work with {aggregator} before you know why",
            )
    return {name: key[:KEY_BYTES] for name, key in found.items()}


async def _hear(line: Line, aggregator: str, roster: Roster, kind: type[_Passed]) -> _Passed | Roster:
    _, message = await line.hear_any((aggregator,), kind, Roster)
    if not isinstance(message, kind):
        return cast(Roster, message)
    if message.number != roster.number:
        raise RemoteProtocolError(
            aggregator, f"said {kind.__name__} of roster {message.number}, not {roster.number}"
        )
    return message


def _check_roster(session: Session, aggregator: str, roster: Roster) -> None:
    """Checks that a roster can be agreed on at all; whether it protects enough is the caller's matter."""
    names = roster.names
    if roster.number < 0 or len(set(names)) != len(names):
        raise RemoteProtocolError(aggregator, "said a roster that is none: a number or a name is wrong")
    if session.me not in names:
        raise RemoteProtocolError(aggregator, f"said a roster in which {session.me} itself is missing")
    if len(names) < FEWEST_CONTRIBUTORS:
        raise RemoteProtocolError(aggregator, f"said a roster of {len(names)}: a mask takes two at least")
    stranger = next((name for name in names if name not in session.members or name == aggregator), None)
    if stranger is not None:
        known = "aggregates itself" if stranger == aggregator else "is in no job of this session"
        raise RemoteProtocolError(aggregator, f"said a roster with {stranger[:32]!r}, who {known}")


def _check_identities(session: Session, ends: Ends, roster: Roster) -> None:
    if ends.public_identity != session.members[session.me].identity:
        raise RoleError(f"{session.me}: the secret key is not that of its own identity")
    for name in roster.names:
        if (session.members[name].identity is None) != (ends.public_identity is None):
            raise RoleError(f"{session.me} and {name}: one has an identity and the other has none")


def _pair_keys(
    session: Session,
    ends: Ends,
    aggregator: str,
    roster: Roster,
    keys: tuple[bytes, ...],
    graph: Graph | None = None,
) -> dict[str, bytes]:
    """Derives 64 bytes with each partner, in the roster's order: a mask key, a tag key."""
    me = session.me
    partners = (
        [name for name in roster.names if name != me] if graph is None else _neighbours(roster, graph, me)
    )
    known = _known(roster, partners, me)
    if len(keys) != len(known):
        raise RemoteProtocolError(aggregator, f"passed on {len(keys)} keys of {len(known)} contributors")
    shared = dict(zip(known, keys, strict=True))
    if shared[me] != ends.public:
        raise RemoteProtocolError(aggregator, f"passed on another key than {me}'s own to {me} itself")
    if len(set(keys)) != len(keys):
        raise RemoteProtocolError(aggregator, "passed on one key as that of two contributors")
    # Of a graph's keys no two contributors know the same, and each pair's own are bound in any case.
    bound = shared if graph is None else {}
    members = session.members
    said = tuple((name, members[name].identity or b"", bound.get(name, b"")) for name in roster.names)
    number = roster.number.to_bytes(8, "big")
    digest = _digest(_LABEL if graph is None else _SPARSE_LABEL, number, said)
    found = {}
    for name in partners:
        info = framed(_LABEL, number, digest, *(one.encode() for one in sorted((me, name))))
        identity = session.members[name].identity
        try:
            found[name] = ends.pair_key(shared[name], identity, salt=session.nonce, info=info)
        except ValueError as error:
            raise RemoteProtocolError(aggregator, f"passed on as {name}'s a key that is none") from error
    return found


@lru_cache(maxsize=4)  # in one process many contributors ask for the same
def _digest(label: bytes, number: bytes, said: tuple[tuple[str, bytes, bytes], ...]) -> bytes:
    words = (framed(name.encode(), identity, key) for name, identity, key in said)
    return hashlib.sha256(framed(label, number, *words)).digest()


def _neighbours(roster: Roster, graph: Graph, me: str) -> Sequence[str]:
    return graph(roster.names, roster.number)[me]


def _check_tags(sender: str, tags: tuple[bytes, ...], count: int) -> None:
    if len(tags) != count or any(len(one) != TAG_BYTES for one in tags):
        raise RemoteProtocolError(sender, f"sent tags that are none: {count} of {TAG_BYTES} bytes were due")
