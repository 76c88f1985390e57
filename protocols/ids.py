"""Plain comparison of salted hashes: as fast as hashing, and no secret from whoever can guess an id.

Every party hashes its ids under a salt that the hub draws for this session, and says the sorted hashes to
the hub, which compares them. **Ids that can be guessed (numbers, e-mail addresses, names with birthdays) are
not hidden from the hub**: it knows the salt, hashes a guess and looks. Use psi unless all may see all ids.

    hub --Salt--> party         32 bytes, fresh
    party --Size--> hub         how many ids
    party --Hashes--> hub       [m, 16] of them, keyed with the salt, sorted
    hub --Matches--> party      which of these all hold

Who learns what:
    hub: How many ids each party has, and a hash of each of them under a salt that it knows: for every
        id that it can guess, which parties hold it, whether it holds the id itself or not.
    party: Which of its own ids all parties hold. Of the other parties nothing else.

This holds of parties that follow the protocol. A party may add guesses to its table, as with psi.

Source: BLAKE2b with a key, RFC 7693, section 2.9.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from vfl.errors import ConfigError, DataError
from vfl.intersection.hidden import VALUE_BYTES, as_tensor, as_values, is_ascending, pick
from vfl.intersection.meeting import Meeting
from vfl.intersection.pieces import Outgoing, pack, refuse, unpack
from vfl.wire.line import Line
from vfl.wire.messages import Message

MOST_PARTIES: Final = 16
MOST_IDS: Final = 2**31  # so many bits fill the largest frame that the wire carries

PIECE_VALUES = 16384
_SALT_BYTES: Final = 32


# --- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Salt(Message):
    """Brings the salt under which all hash in this session."""

    salt: bytes


@dataclass(frozen=True, eq=False)
class Size(Message):
    """Tells how many ids its sender has."""

    rows: int


@dataclass(frozen=True, eq=False)
class Hashes(Message):
    """Carries a piece [m, 16] of the sender's hashes, sorted."""

    number: int
    hashes: Tensor


@dataclass(frozen=True, eq=False)
class Matches(Message):
    """Tells which of the sorted hashes all parties have, a bit a hash."""

    bits: Tensor


MESSAGES: Final = (Salt, Size, Hashes, Matches)


# --- arithmetic: comparing is in vfl/crypto/ ---------------------------------------------------------


def salted_hashes(
    ids: Sequence[str] | np.ndarray, salt: bytes, progress: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes ids and sorts the hashes: [n] S16, and the place in `ids` of each, [n] int64.

    Raises:
        DataError: if an id is there twice.
    """
    keyed = hashlib.blake2b(key=salt, digest_size=VALUE_BYTES, person=b"vfl ids")
    found = bytearray()
    for start in range(0, len(ids), PIECE_VALUES):
        end = min(start + PIECE_VALUES, len(ids))
        for name in pick(ids, np.arange(start, end)):
            one = keyed.copy()
            one.update(name.encode())
            found += one.digest()
        progress(end, len(ids))
    hashes = as_values(np.frombuffer(found, dtype=np.uint8).reshape(-1, VALUE_BYTES))  # [n]
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    hashes = hashes[order]
    if not is_ascending(hashes):
        twice = order[1:][hashes[1:] == hashes[:-1]][0]
        raise DataError(f"table: the id {str(ids[twice])!r} is there twice; give each row an id of its own")
    return hashes, order


# --- role --------------------------------------------------------------------------------------------


async def align(
    line: Line,
    *,
    hub: str,
    roster: Sequence[str],
    ids: Sequence[str] | np.ndarray,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Finds out which of this party's ids all parties hold.

    Args:
        line: this party's line.
        hub: the party that compares.
        roster: all parties, this one and the hub among them.
        ids: this party's ids, canonical, none twice.
        threads: not used: hashing waits for the interpreter.
        progress: called with how many of this party's ids are hashed, and of how many.

    Returns:
        The places in `ids` of those that all hold: [m] int64, ascending.

    Raises:
        ConfigError: unless there are 2 to 16 parties and no more ids than fit.
        RemoteProtocolError: if a peer says what the protocol does not allow.
    """
    if not 2 <= len(set(roster)) == len(roster) <= MOST_PARTIES or not {line.me, hub} <= set(roster):
        raise ConfigError(
            f"parties: {list(roster)}: ids is for 2 to {MOST_PARTIES}, {line.me} and the hub {hub} among them"
        )
    if len(ids) > MOST_IDS:
        raise ConfigError(f"table: holds {len(ids)} ids; ids is for at most {MOST_IDS}")
    with line.during("align"):
        if line.me != hub:
            return await _ask(line, hub, ids, progress)
        return await _compare(line, [name for name in roster if name != hub], ids, progress)


async def _ask(
    line: Line, hub: str, ids: Sequence[str] | np.ndarray, progress: Callable[[int, int], None]
) -> np.ndarray:
    salt = (await line.hear(hub, Salt)).salt
    if len(salt) != _SALT_BYTES:
        refuse(hub, f"says a salt of {len(salt)} bytes")
    await line.say(hub, Size(len(ids)))
    hashes, order = salted_hashes(ids, salt, progress)
    # All at once: the hub only listens until it has everything, so no two can wait for each other.
    for number, rows in Outgoing(len(ids), PIECE_VALUES, ahead=len(ids)).due():
        await line.say(hub, Hashes(number, as_tensor(hashes[rows])))
    matches = await line.hear(hub, Matches)
    return np.sort(order[unpack(hub, matches.bits, len(ids))])


async def _compare(
    line: Line, others: list[str], ids: Sequence[str] | np.ndarray, progress: Callable[[int, int], None]
) -> np.ndarray:
    salt = secrets.token_bytes(_SALT_BYTES)
    for name in others:
        await line.say(name, Salt(salt))
    hashes, order = salted_hashes(ids, salt, progress)
    meeting = Meeting({name: await _size(line, name) for name in others}, PIECE_VALUES)
    meeting.put(line.me, hashes)
    while awaited := sorted(meeting.coming):
        sender, heard = await line.hear_any(awaited, Hashes)
        meeting.take(sender, sender, heard.number, heard.hashes)
    answers = meeting.answers()
    for name in others:
        await line.say(name, Matches(pack(answers[name])))
    return np.sort(order[answers[line.me]])


async def _size(line: Line, name: str) -> int:
    rows = (await line.hear(name, Size)).rows
    if not 0 <= rows <= MOST_IDS:
        refuse(name, f"says that it has {rows} ids; there may be 0 to {MOST_IDS}")
    return rows


ROLES: Final = {"hub": align, "party": align}
