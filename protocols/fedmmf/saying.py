"""How a participant contributes: in the clear, under masks, or encrypted; from outside all look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from protocols.fedmmf.choosing import may_be_plain
from protocols.fedmmf.messages import (
    Choice,
    Ciphertexts,
    EncryptedScores,
    EncryptedSum,
    Group,
    Opened,
    PaillierKey,
    SealedKey,
    SharedFactors,
)
from protocols.fedmmf.roster import Config, graph_of, joins_too_late, ring_of, width_of
from protocols.fedmmf.shared import SharedSide, begun_anew
from vfl.crypto.pairs import open_sealed, seal
from vfl.errors import RemoteProtocolError
from vfl.journal import Journal
from vfl.masking.agreeing import Roster
from vfl.masking.contributing import Contributing
from vfl.masking.ring import Ring
from vfl.ratings.fixed import SUMS
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask
from vfl.session import Session
from vfl.wire.line import Line

if TYPE_CHECKING:
    from protocols.fedmmf.ciphers import Encrypting
    from vfl.paillier.keys import PrivateKey

_ABOUT = b"vfl fedmmf paillier key 1"


class Saying:
    """Makes one participant's contributions, and hears what follows from their sums.

    Args:
        line: this participant's line.
        session: the run as it sees it.
        mark: the hash of the shared axis.
        side: takes the shared step, where sums are encrypted.
        m: how many shared entities there are.
        seed: the job's.
        masking: says under masks, or in the clear; renewed where somebody vanishes.
    """

    def __init__(
        self,
        line: Line,
        session: Session,
        mark: int,
        side: SharedSide | None,
        m: int,
        seed: int,
        masking: Contributing,
    ) -> None:
        self.clipped = 0
        self.wanting: tuple[str, ...] | None = None
        """Who chose masks, where that is a choice."""
        self._line, self._session, self._mark, self._side = line, session, mark, side
        self._m, self._seed = m, seed
        self._config: Config = session.options
        self._k = len(session.with_role("participant"))
        self._ring = ring_of(self._config, self._k)
        self._masking = masking
        self._kit: Encrypting | None = None

    async def begin(self) -> None:
        """Agrees on masks with the others, or on the key."""
        await self._masking.begin()
        await self._share_key()

    async def renew(self, roster: Roster) -> None:
        """Goes on without somebody, with fresh masks or a fresh key.

        Raises:
            RemoteProtocolError: if the roster is none, or another would begin to mask only now.
        """
        before = self._masking.names
        await self._masking.renew(roster)
        late = joins_too_late(before, self._masking.names, self.wanting, self._session.nonce)
        if late:
            raise RemoteProtocolError(
                self._session.hub, f"goes on with masks of {late}, whose sums were in the clear before"
            )
        await self._share_key()

    async def say_table(self, epoch: int, step: int, said: tuple[Tensor, int], journal: Journal) -> None:
        """Contributes statistics [m, t] of a step."""
        elements, n_clipped = said
        if n_clipped and not self.clipped:
            journal.warn(
                f"sums beyond ±{self._ring.clip:g} are clipped: set a larger clip in protocols.fedmmf"
            )
        self.clipped += n_clipped
        await self._say("train", epoch, step, elements, self._ring, rows=True)

    async def say_scores(self, split: str, epoch: int, sums: Tensor) -> None:
        """Contributes few numbers [w] of SUMS; the first of the roster opens what they come to."""
        await self._say(split, epoch, 0, sums.reshape(1, -1), SUMS, rows=False)
        if self._kit is None or self._masking.names[0] != self._line.me:
            return
        hub = self._session.hub
        summed = await self._line.hear(hub, EncryptedScores)
        if (summed.epoch, summed.step) != (epoch, 0):
            raise RemoteProtocolError(hub, f"says scores of epoch {summed.epoch} where {epoch} is due")
        dropped = split == "valid" and self._session.goes_on and not summed.cells.numel()
        if not dropped:
            opened = self._kit.read(summed.cells, (1, sums.numel()), SUMS, rows=False)
            await self._line.say(hub, Opened(epoch, 0, opened.reshape(-1)))

    async def hear_shared(self, epoch: int, step: int) -> Tensor:
        """Hears the shared factors after a step, or makes them of an encrypted sum.

        Raises:
            RemoteProtocolError: if they are of another step, or none, or follow from a sum that was dropped.
        """
        hub, roster = self._session.hub, self._masking.number
        said = await self._hear_step(EncryptedSum if self._kit else SharedFactors)
        if (said.epoch, said.step) != (epoch, step):
            raise RemoteProtocolError(
                hub, f"says step {said.step} of round {said.epoch} where step {step} of round {epoch} is due"
            )
        if roster != self._masking.number and self._config.solver == "als":
            self._check_begun_anew(said)
        return self._learn(said) if isinstance(said, EncryptedSum) else said.factors

    def _check_begun_anew(self, said: SharedFactors | EncryptedSum) -> None:
        """Checks what follows where somebody has vanished: with the same factors, two sums tell its part."""
        if isinstance(said, EncryptedSum):
            is_anew = not said.cells.numel()  # then they begin anew here
        else:
            due = begun_anew(self._config, self._m, self._seed, self._masking.number)
            is_anew = torch.equal(said.factors, due)
        if not is_anew:
            raise RemoteProtocolError(
                self._session.hub,
                f"does not begin anew under roster {self._masking.number}: else the sums before and after "
                f"could tell what the party that vanished had contributed",
            )

    async def _hear_step(
        self, kind: type[SharedFactors] | type[EncryptedSum]
    ) -> SharedFactors | EncryptedSum:
        """Hears what a step came to, and goes on under a new roster where one comes in between."""
        while True:
            _, said = await self._line.hear_any((self._session.hub,), kind, Roster)
            if isinstance(said, SharedFactors | EncryptedSum):
                return said
            await self.renew(said)

    def _learn(self, said: EncryptedSum) -> Tensor:
        assert self._kit is not None  # noqa: S101 - it is heard by nobody else
        assert self._side is not None  # noqa: S101
        if not said.cells.numel() and said.cells.dtype == torch.uint8 and self._session.goes_on:
            self._side.drop(self._masking.number)
        else:
            shape = (self._m, width_of(self._config))
            self._side.learn(self._kit.read(said.cells, shape, self._ring, rows=True))
        return self._side.say()

    async def _say(
        self, split: str, epoch: int, step: int, elements: Tensor, ring: Ring, *, rows: bool
    ) -> None:
        if self._kit is None:
            await self._masking.say_elements(split, epoch, step, self._mark, elements, ring)
            return
        places, cells = self._kit.encrypt(elements, ring, rows=rows)
        number = self._masking.number
        await self._line.say(self._session.hub, Ciphertexts(number, epoch, step, self._mark, places, cells))

    async def _share_key(self) -> None:
        """Makes the key that all participants have, or hears it; the first of the roster makes it."""
        if self._config.aggregation != "paillier":
            return
        from protocols.fedmmf.ciphers import Encrypting
        from vfl.paillier.keys import make_keys

        line, hub, names = self._line, self._session.hub, self._masking.names
        while names[0] != line.me:
            _, said = await line.hear_any((hub,), SealedKey, Roster)
            if isinstance(said, Roster):
                await self._masking.renew(said)
                names = self._masking.names
                continue
            key = self._opened(cast(SealedKey, said), names[0])
            break
        else:
            key = make_keys(self._config.key_bits, unsafe_small_key=self._config.unsafe_small_key)
            await line.say(hub, self._sealed(key.to_bytes(), key.public.to_bytes(), names[1:]))
        rated_only = self._config.paillier_items == "rated"
        self._kit = Encrypting(hub, key, self._k, rated_only=rated_only)

    def _sealed(self, private: bytes, public: bytes, names: tuple[str, ...]) -> PaillierKey:
        number = self._masking.number
        words = [seal(self._masking.keys[name], number, private, _ABOUT) for name in names]
        whole = torch.frombuffer(bytearray(b"".join(words)), dtype=torch.uint8)
        return PaillierKey(number, public, whole.reshape(len(names), -1))

    def _opened(self, said: SealedKey, first: str) -> PrivateKey:
        from vfl.paillier.keys import PrivateKey

        hub, number = self._session.hub, self._masking.number
        try:
            if said.number != number:
                raise ValueError(f"of roster {said.number} where {number} is due")
            return PrivateKey.from_bytes(open_sealed(self._masking.keys[first], number, said.sealed, _ABOUT))
        except ValueError as error:
            raise RemoteProtocolError(hub, f"passed on another key than {first} sealed ({error})") from error


async def begin_saying(
    line: Line,
    session: Session,
    mark: int,
    side: SharedSide | None,
    holding: RatingsHolding,
    mask: PersonalMask,
    journal: Journal,
) -> Saying:
    """Chooses how to contribute, where that is a choice, and agrees on it with the others."""
    config: Config = session.options
    names = session.with_role("participant")
    wanting = await _choose(line, session, holding, mask, journal) if _is_choice(config) else None
    masked = config.aggregation != "plain"
    if not masked:
        journal.warn(
            f'aggregation = "plain": {session.hub} sees every contribution, and so which entities have '
            f"ratings here, and nearly those"
        )
    elif session.members[line.me].identity is None:
        journal.warn(f"the job lists no public keys: {session.hub} could pass on false ones")
    masking = Contributing(
        line,
        session,
        session.hub,
        names,
        ring_of(config, len(names)),
        masked=masked,
        journal=journal,
        graph=graph_of(session, wanting),
    )
    saying = Saying(line, session, mark, side, holding.m, holding.seed, masking)
    saying.wanting = wanting
    await saying.begin()
    return saying


def _is_choice(config: Config) -> bool:
    return config.aggregation == "adaptive"


async def _choose(
    line: Line, session: Session, holding: RatingsHolding, mask: PersonalMask, journal: Journal
) -> tuple[str, ...]:
    """Says whether this participant may contribute in the clear; returns who chose masks."""
    config: Config = session.options
    plain = may_be_plain(holding, mask, below=config.plain_below, owners=config.plain_owners)
    if plain:
        journal.warn(
            f'aggregation = "adaptive": what is left of the ratings under mask = "{config.mask}" may be '
            f"shown, so {session.hub} may see every contribution of this party, and which entities have "
            "ratings here"
        )
    await line.say(session.hub, Choice(plain))
    group = await line.hear(session.hub, Group)
    names = session.with_role("participant")
    in_order = tuple(name for name in names if name in set(group.names))
    if in_order != group.names or (line.me in group.names) == plain:
        raise RemoteProtocolError(session.hub, "passes on another choice than this party's, or of strangers")
    return group.names
