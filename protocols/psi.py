"""Private set intersection: which of its ids does each party share with all others?

Every id becomes a point of a group, H(id). The parties stand in a ring, in the order of the roster. Each
one's set goes round, in secretly shuffled order, and every party multiplies it by a secret scalar of its
own. The last one, the set's keeper, sorts it: H(id)^(a·b·…) is the same for equal ids whatever the way
round, and says nothing to whoever lacks one of the scalars. The hub, one of them, compares the sets.

    hub --Opening--> party      how many ids; a key for the seal; the hub's also salts the session
    party --Opening--> hub
    party --Opening--> party
    hub --Points--> party       [m, 32] of the owner's, multiplied by all from the owner to the sender
    party --Points--> hub
    party --Points--> party
    hub --Credit--> party       to the owner, from its keeper, or to a keeper: say one piece more
    party --Credit--> hub
    party --Credit--> party
    party --Values--> hub       [m, 16] of the set that the sender keeps, multiplied by all, sorted
    hub --Shared--> party       which of these all hold
    hub --Found--> party        which of the owner's all hold, in the owner's shuffled order
    party --Found--> hub
    party --Found--> party

The relay, who passes on what two others say to each other, is the hub, or a party that has no ids and no part
in this. Whatever it passes on but the openings is sealed (vfl/intersection/seals.py). So few pieces are under
way that nobody waits to say something (vfl/intersection/ring.py). What comes when does not change the result.

Who learns what:
    party: Which of its own ids all others hold too, and how many ids each party has. No id that it does
        not hold, and with three parties or more not which of its ids some of the others hold.
    hub: The same; and of each group of parties, itself among them or not, how many ids they have in
        common, as a number and not which. With two parties that is nothing more.
    relay: If it is not the hub, how many ids each party has, and when each speaks.
    party with guesses: A party may add guessed ids to its table. It learns which of them all others hold,
        as it would of its own; nothing here can tell a guess from a row.
    colluding parties: From three on, two that put together what they have seen learn which ids each of
        them shares with the next party of the ring. A set's owner, its keeper (the one before it in the
        ring) and the hub together learn which party holds which of the owner's ids; the hub may be one
        of the two. All but one together learn what each of them shares with the last one.

This holds of parties that follow the protocol and look hard at what they receive. A liar can make the run
fail or leave shared ids out; points that it swaps inside the ring, from three parties on, are noticed only
when the ordered rows are compared afterwards. A relay that lies can neither read nor alter what is sealed,
unless the job lists no keys: then it may put its own in place of others', and a hub that does so learns which
of its ids the next party holds.

Source: Meadows, A more efficient cryptographic matchmaking protocol, IEEE S&P 1986; Huberman, Franklin and
Hogg, Enhancing privacy and trust in electronic communities, EC 1999. The ring, the keepers and the seals
are this framework's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from vfl.crypto.group import POINT_BYTES, Blinder
from vfl.errors import ConfigError
from vfl.intersection.hidden import Sorted, as_tensor, as_values, fingerprints, pick, secret_order
from vfl.intersection.meeting import Meeting
from vfl.intersection.pieces import Incoming, Outgoing, pack, put_back, refuse, unpack
from vfl.intersection.ring import Ring
from vfl.intersection.seals import Seals
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

MOST_PARTIES: Final = 16
MOST_IDS: Final = 2**28  # beyond, honest points could look like repeated ones by their first 8 bytes

CHUNK_POINTS = 4096  # about a quarter of a second's work on one core
PIECE_VALUES = 16384
_SALT_BYTES: Final = 32


# --- messages --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Opening(Message):
    """Tells how many ids its sender has; `key` seals what will be relayed; the hub brings the salt."""

    rows: int
    key: bytes
    salt: bytes


@dataclass(frozen=True, eq=False)
class Points(Message):
    """Carries a chunk [m, 32] of the owner's ids, blinded by all from the owner to the sender."""

    owner: str
    number: int
    points: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Credit(Message):
    """Tells that piece `number` of the owner's set has arrived and one more may follow."""

    owner: str
    number: int
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Values(Message):
    """Carries a piece [m, 16] of the owner's set, blinded by all and sorted."""

    owner: str
    number: int
    values: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Shared(Message):
    """Tells a set's keeper which of its sorted values all hold, a bit a value."""

    bits: Tensor
    tag: bytes = b""


@dataclass(frozen=True, eq=False)
class Found(Message):
    """Tells a set's owner which of its ids all hold, a bit an id in the order it said them."""

    bits: Tensor
    tag: bytes = b""


MESSAGES: Final = (Opening, Points, Credit, Values, Shared, Found)
Sayings = Iterator[tuple[str, Message]]


# --- the dialogue ------------------------------------------------------------------------------------


class _Part:
    """Is one party's part, one handler a kind; what a handler yields is said before it goes on."""

    def __init__(
        self,
        ring: Ring,
        ids: Sequence[str] | np.ndarray,
        blinder: Blinder,
        progress: Callable[[int, int], None],
    ) -> None:
        self.shared: np.ndarray | None = None  # [n] bool, in the order of `ids`
        self._ring, self._ids, self._blinder, self._progress = ring, ids, blinder, progress
        self._done = 0
        self._order = secret_order(len(ids))  # [n]
        self._own = Outgoing(len(ids), CHUNK_POINTS, ring.ahead)
        self._passing = {
            owner: Incoming(owner, n, CHUNK_POINTS, POINT_BYTES)
            for owner, n in ring.rows.items()
            if owner != ring.me
        }
        self._kept = ring.after(ring.me)  # whose set this party keeps
        self._kept_set = Sorted(np.empty(0))  # until it is there
        self._to_hub: Outgoing | None = None
        self._n_shared: int | None = None  # as the hub tells it
        self._meeting = Meeting(ring.rows if ring.me == ring.hub else {}, PIECE_VALUES)

    def say_own(self) -> Sayings:
        """Says as much of this party's own ids as may be under way."""
        for number, rows in self._own.due():
            names = pick(self._ids, self._order[rows])
            points = self._blinder.blind_ids(names, self._ring.salt)  # [m, 32]
            self._count(2 * len(names))
            yield self._onward(self._ring.me, number, points)

    def awaited(self) -> list[str]:
        """Lists those who have something to say still; nobody, once this party's part is over.

        Whoever has nothing more to say may be a phase ahead, and what it says then is not heard here.
        """
        ring = self._ring
        names = {ring.keeper(owner) for owner in self._meeting.coming} - {ring.me}
        if self.shared is None or not all(passing.complete for passing in self._passing.values()):
            names.add(ring.keeper(ring.me))
        if self._n_shared is None and ring.me != ring.hub:
            names.add(ring.hub)
        return sorted(names)

    def answer(self, sender: str, message: Message) -> Sayings:
        """Acts on one message."""
        handlers: dict[type[Message], Callable[[str, Any], Sayings]] = {
            Points: self._on_points,
            Credit: self._on_credit,
            Values: self._on_values,
            Shared: self._on_shared,
            Found: self._on_found,
        }
        return handlers[type(message)](sender, message)

    def _on_points(self, sender: str, message: Points) -> Sayings:
        owner, number, ring = message.owner, message.number, self._ring
        passing = self._passing.get(owner)
        if passing is None or sender != ring.keeper(ring.me):
            refuse(sender, f"says points of {owner[:40]!r}, which are not its to say")
        points = passing.take(sender, number, message.points)
        try:
            points = self._blinder.blind(points)  # [m, 32]
        except ValueError as error:
            refuse(sender, f"says a point of {owner}'s set that {error}")
        self._count(len(points))
        passing.kept.append(as_values(points) if owner == self._kept else fingerprints(points))
        if owner != self._kept:
            yield self._onward(owner, number, points)
        elif passing.lets_follow(number, ring.ahead):
            yield owner, Credit(owner, number)
        if passing.complete:
            yield from self._on_whole(sender, passing)

    def _on_whole(self, sender: str, passing: Incoming) -> Sayings:
        """Looks for points said twice; of the kept set, says the sorted values."""
        whole = Sorted(passing.all_kept())
        if whole.repeats:
            refuse(sender, f"says a point of {passing.owner}'s set twice")
        if passing.owner != self._kept:
            return
        self._kept_set = whole
        if self._ring.me == self._ring.hub:
            self._meeting.put(passing.owner, whole.values)
            yield from self._compare()
        else:
            self._to_hub = Outgoing(len(whole.values), PIECE_VALUES, self._ring.ahead)
            yield from self._say_values(self._to_hub)

    def _on_credit(self, sender: str, message: Credit) -> Sayings:
        ring = self._ring
        if message.owner == ring.me and sender == ring.keeper(ring.me):
            self._own.credit(sender, message.number)
            yield from self.say_own()
        elif message.owner == self._kept and sender == ring.hub and self._to_hub:
            self._to_hub.credit(sender, message.number)
            yield from self._say_values(self._to_hub)
        else:
            refuse(sender, f"credits a piece of the set of {message.owner[:40]!r} that it was not said")

    def _say_values(self, to_hub: Outgoing) -> Sayings:
        for number, rows in to_hub.due():
            yield self._ring.hub, Values(self._kept, number, as_tensor(self._kept_set.values[rows]))

    def _on_values(self, sender: str, message: Values) -> Sayings:
        owner, number = message.owner, message.number
        coming = self._meeting.coming.get(owner)
        if coming is None or sender != self._ring.keeper(owner):
            refuse(sender, f"says values of {owner[:40]!r}, which are not its to say")
        self._meeting.take(sender, owner, number, message.values)
        if coming.lets_follow(number, self._ring.ahead):
            yield sender, Credit(owner, number)
        yield from self._compare()

    def _compare(self) -> Sayings:
        """At the hub: once all sets are there, tells each keeper what of its own all hold."""
        if not self._meeting.complete:
            return
        for owner, bits in self._meeting.answers().items():
            self._n_shared = int(bits.sum())  # the same in every set
            keeper = self._ring.keeper(owner)
            yield self._tell_owner(bits) if keeper == self._ring.me else (keeper, Shared(pack(bits)))

    def _on_shared(self, sender: str, message: Shared) -> Sayings:
        all_said = self._to_hub is not None and self._to_hub.all_said
        if sender != self._ring.hub or not all_said or self._n_shared is not None:
            refuse(sender, "says which values all hold where nobody asked")
        bits = unpack(sender, message.bits, self._ring.rows[self._kept])
        self._n_shared = int(bits.sum())
        self._check_number(sender)
        yield self._tell_owner(bits)

    def _on_found(self, sender: str, message: Found) -> Sayings:
        asked = sender == self._ring.keeper(self._ring.me) and self._own.all_said
        if not asked or self.shared is not None:
            refuse(sender, "says which ids all hold where nobody asked")
        bits = unpack(sender, message.bits, len(self._order))
        self.shared = put_back(bits, self._order)
        self._check_number(sender)
        yield from ()

    def _check_number(self, sender: str) -> None:
        """Checks that as many ids are shared in the own set as in the kept one."""
        found = None if self.shared is None else int(self.shared.sum())
        if found is not None and self._n_shared is not None and found != self._n_shared:
            refuse(
                sender,
                f"says another number of shared ids than was said before: {found} of the own set are "
                f"shared and {self._n_shared} of {self._kept}'s",
            )

    def _tell_owner(self, bits: np.ndarray) -> tuple[str, Message]:
        return self._kept, Found(pack(put_back(bits, self._kept_set.order)))

    def _onward(self, owner: str, number: int, points: np.ndarray) -> tuple[str, Message]:
        return self._ring.after(self._ring.me), Points(owner, number, torch.from_numpy(points))

    def _count(self, operations: int) -> None:
        self._done += operations
        self._progress(self._done, sum(self._ring.rows.values()) + len(self._ids))


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
        roster: all parties with ids, this one and the hub among them, in an order that all agree on.
        ids: this party's ids, canonical, none twice.
        threads: how many cores to use.
        progress: called with how many of this party's group operations are done, and of how many.

    Returns:
        The places in `ids` of those that all hold: [m] int64, ascending.

    Raises:
        ConfigError: unless there are 2 to 16 parties and no more ids than fit.
        RemoteProtocolError: if a peer says what the protocol does not allow.
    """
    _check(line.me, hub, roster, len(ids))
    with line.during("align"):
        seals = Seals(session, "psi")
        ring = await _open(line, seals, hub, tuple(roster), len(ids))
        if not all(ring.rows.values()):
            return np.empty(0, dtype=np.int64)  # which all know from the openings
        with Blinder(threads) as blinder:
            part = _Part(ring, ids, blinder, progress)
            for to, message in part.say_own():
                await line.say(to, seals.close(to, message))
            while awaited := part.awaited():
                sender, heard = await line.hear_any(awaited, *MESSAGES[1:])
                for to, message in part.answer(sender, seals.open(sender, heard)):
                    await line.say(to, seals.close(to, message))
    assert part.shared is not None  # noqa: S101 - or its keeper were awaited still
    return np.flatnonzero(part.shared).astype(np.int64)


async def _open(line: Line, seals: Seals, hub: str, roster: tuple[str, ...], rows: int) -> Ring:
    others = [name for name in roster if name != line.me]
    salt = secrets.token_bytes(_SALT_BYTES) if line.me == hub else b""
    told = {name: Opening(rows, seals.key_for(name), salt) for name in others}
    heard: dict[str, Opening] = {}
    if line.me == hub:  # last: where it relays, what others said to each other has passed here by then
        heard = {name: await line.hear(name, Opening) for name in others}
    for name in sorted(others, key=lambda name: name == hub):
        await line.say(name, told[name])
    if line.me != hub:
        heard = {name: await line.hear(name, Opening) for name in others}
    for name, opening in heard.items():
        _check_opening(name, opening, name == hub)
        seals.meet(name, told[name], opening, opening.key)
    sizes = {name: rows if name == line.me else heard[name].rows for name in roster}
    return Ring(line.me, hub, roster, sizes, salt or heard[hub].salt)


def _check_opening(name: str, opening: Opening, from_hub: bool) -> None:
    if not 0 <= opening.rows <= MOST_IDS:
        refuse(name, f"says that it has {opening.rows} ids; there may be 0 to {MOST_IDS}")
    if len(opening.salt) != (_SALT_BYTES if from_hub else 0):
        refuse(name, f"says a salt of {len(opening.salt)} bytes")


def _check(me: str, hub: str, roster: Sequence[str], rows: int) -> None:
    if not 2 <= len(roster) <= MOST_PARTIES or len(set(roster)) != len(roster):
        raise ConfigError(
            f"parties: there are {len(roster)}; psi is for 2 to {MOST_PARTIES}, each named once"
        )
    if me not in roster or hub not in roster:
        raise ConfigError(f"parties: {me} and the hub {hub} must both hold ids; the roster is {list(roster)}")
    if rows > MOST_IDS:
        raise ConfigError(f"table: holds {rows} ids; psi is for at most {MOST_IDS}")


ROLES: Final = {"hub": align, "party": align}
