"""Plain comparison of salted hashes: as fast as hashing, and no secret from whoever can guess an id.

Every party hashes its ids under a salt that the hub, one of them, draws for this session, and says the
sorted hashes to the hub, which compares them. **Ids that can be guessed (numbers, e-mail addresses, names
with birthdays) are not hidden from the hub**: it knows the salt, hashes a guess and looks. Use psi unless
all may see all ids.

    party --Size--> hub         how many ids, and a key for the seal
    hub --Salt--> party         32 bytes, fresh, and a key for the seal
    party --Hashes--> hub       [m, 16] of them, keyed with the salt, sorted
    hub --Matches--> party      which of these all hold

Where a party that has no ids relays what these say, all but the sizes and the keys is sealed
(vfl/intersection/seals.py).

Who learns what:
    hub: How many ids each party has, and a hash of each of them under a salt that it knows: for every
        id that it can guess, which parties hold it, whether it holds the id itself or not.
    party: Which of its own ids all parties hold. Of the other parties nothing else.
    relay: If it is not the hub, how many ids each party but the hub has, and when each speaks.

This holds of parties that follow the protocol. A party may add guesses to its table, as with psi. A relay
that lies can neither read nor alter what is sealed, unless the job lists no keys: then it can do both.

Source: BLAKE2b with a key, RFC 7693, section 2.9.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from vfl.errors import ConfigError, DataError
from vfl.intersection.hidden import VALUE_BYTES, as_tensor, as_values, is_ascending, pick
from vfl.intersection.meeting import Meeting
from vfl.intersection.pieces import Outgoing, pack, refuse, unpack
from vfl.intersection.seals import Seals
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

MOST_PARTIES: Final = 16
MOST_IDS: Final = 2**31  # so many bits fill the largest frame that the wire carries

PIECE_VALUES = 16384
_SALT_BYTES: Final = 32


# --- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Size(Message):
    """Tells how many ids its sender has; `key` seals what will be relayed."""

    rows: int
    key: bytes


@dataclass(frozen=True, eq=False)
class Salt(Message):
    """Brings the salt [32] under which all hash in this session; `key` as in `Size`."""

    key: bytes
    salt: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Hashes(Message):
    """Carries a piece [m, 16] of the sender's hashes, sorted."""

    number: int
    hashes: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Matches(Message):
    """Tells which of the sorted hashes all parties have, a bit a hash."""

    bits: Tensor
    tag: bytes = b""


MESSAGES: Final = (Salt, Size, Hashes, Matches)


# --- arithmetic: comparing is in vfl/intersection/ ---------------------------------------------------


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
    session: Session,
    hub: str,
    roster: Sequence[str],
    ids: Sequence[str] | np.ndarray,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Finds out which of this party's ids all parties hold.

    Args:
        line: this party's line.
        session: who takes part in the job; its hub relays: that of the alignment, or one outside the roster.
        hub: the party that compares.
        roster: all parties with ids, this one and the hub among them.
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
        seals = Seals(session, "ids")
        if line.me != hub:
            return await _ask(line, seals, hub, ids, progress)
        return await _compare(line, seals, [name for name in roster if name != hub], ids, progress)


async def _ask(
    line: Line,
    seals: Seals,
    hub: str,
    ids: Sequence[str] | np.ndarray,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    size = Size(len(ids), seals.key_for(hub))
    await line.say(hub, size)
    brought = await line.hear(hub, Salt)
    seals.meet(hub, size, brought, brought.key)
    hashes, order = salted_hashes(ids, _salt_in(hub, seals.open(hub, brought)), progress)
    # All at once: the hub only listens until it has everything, so no two can wait for each other.
    for number, rows in Outgoing(len(ids), PIECE_VALUES, ahead=len(ids)).due():
        await line.say(hub, seals.close(hub, Hashes(number, as_tensor(hashes[rows]))))
    matches = seals.open(hub, await line.hear(hub, Matches))
    return np.sort(order[unpack(hub, matches.bits, len(ids))])


def _salt_in(hub: str, brought: Salt) -> bytes:
    salt = brought.salt
    if salt.dtype is not torch.uint8 or tuple(salt.shape) != (_SALT_BYTES,):
        refuse(hub, f"says a salt of {salt.dtype} {tuple(salt.shape)}, not torch.uint8 ({_SALT_BYTES},)")
    return bytes(salt.numpy())


async def _compare(
    line: Line,
    seals: Seals,
    others: list[str],
    ids: Sequence[str] | np.ndarray,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    sizes = {name: await _size(line, name) for name in others}
    salt = secrets.token_bytes(_SALT_BYTES)
    for name in others:
        brought = Salt(seals.key_for(name), torch.frombuffer(bytearray(salt), dtype=torch.uint8))
        seals.meet(name, brought, sizes[name], sizes[name].key)
        await line.say(name, seals.close(name, brought))
    hashes, order = salted_hashes(ids, salt, progress)
    meeting = Meeting({name: size.rows for name, size in sizes.items()}, PIECE_VALUES)
    meeting.put(line.me, hashes)
    while awaited := sorted(meeting.coming):
        sender, heard = await line.hear_any(awaited, Hashes)
        piece = seals.open(sender, heard)
        meeting.take(sender, sender, piece.number, piece.hashes)
    answers = meeting.answers()
    for name in others:
        await line.say(name, seals.close(name, Matches(pack(answers[name]))))
    return np.sort(order[answers[line.me]])


async def _size(line: Line, name: str) -> Size:
    size = await line.hear(name, Size)
    if not 0 <= size.rows <= MOST_IDS:
        refuse(name, f"says that it has {size.rows} ids; there may be 0 to {MOST_IDS}")
    return size


ROLES: Final = {"hub": align, "party": align}
