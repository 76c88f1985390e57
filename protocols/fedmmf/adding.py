"""How the coordinator sums: contributions in the clear or under masks, or ciphertexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from protocols.fedmmf.messages import Ciphertexts, EncryptedScores, Opened, PaillierKey, SealedKey
from protocols.fedmmf.roster import Config, width_of
from vfl.errors import RemoteProtocolError
from vfl.masking.contributing import Contribution
from vfl.masking.gathering import Gathering
from vfl.masking.ring import Ring
from vfl.ratings.fixed import SUMS
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.messages import Message

if TYPE_CHECKING:
    from protocols.fedmmf.ciphers import Adding


class Summing:
    """Sums what participants say, one after the other; none of it is kept.

    Args:
        line: the coordinator's line.
        session: the run as it sees it.
        gathering: hears the participants.
        ring: where their statistics are summed.
        m: how many shared entities there are.
        mark: the hash of their ids.
    """

    def __init__(
        self, line: Line, session: Session, gathering: Gathering, ring: Ring, m: int, mark: int
    ) -> None:
        self._line, self._gathering, self._ring, self._mark = line, gathering, ring, mark
        self._config: Config = session.options
        self._shape = (m, width_of(self._config))
        self._k = len(session.with_role("participant"))
        self._adding: Adding | None = None

    async def renew(self) -> None:
        """Has those who are left agree on fresh masks, or on a fresh key."""
        while True:
            roster = await self._gathering.renew()
            if self._config.aggregation != "paillier" or await self._pass_key(roster.names):
                return

    async def table(self, epoch: int, step: int, ask: Message) -> Tensor | None:
        """Sums the statistics [m, t] of a step; None where somebody has vanished."""
        return await self._total(self._shape, self._ring, epoch, step, ask)

    async def encrypted_table(self, epoch: int, step: int, ask: Message) -> Tensor | None:
        """Sums the statistics of a step in ciphertexts; None where somebody has vanished."""
        return await self._encrypted(self._shape, self._ring, epoch, step, ask, rows=True)

    async def scores(self, split: str, epoch: int, width: int, ask: Message | None = None) -> Tensor | None:
        """Sums few numbers [w] of SUMS a participant; None where somebody has vanished.

        Args:
            split: which ratings they are of; the line's phase tells it already.
            epoch: the round.
            width: w.
            ask: what to say to each before.
        """
        shape = (1, width)
        if self._config.aggregation != "paillier":
            total = await self._total(shape, SUMS, epoch, 0, ask)
            return None if total is None else total.reshape(-1)
        cells = await self._encrypted(shape, SUMS, epoch, 0, ask, rows=False)
        return await self._opened(epoch, width, cells)

    @staticmethod
    def nothing() -> Tensor:
        """Returns no ciphertexts, which stands for a sum that was dropped."""
        return torch.empty(0, dtype=torch.uint8)

    async def _total(
        self, shape: tuple[int, int], ring: Ring, epoch: int, step: int, ask: Message | None
    ) -> Tensor | None:
        total: list[Tensor] = []

        def add(name: str, said: Contribution) -> None:
            self._gathering.check(name, said, epoch, step, shape, self._mark, ring)
            if total:
                ring.add(total[0], said.q)
            else:
                total.append(ring.total([said.q]))

        whole = await self._gathering.gather(Contribution, add, ask)
        return total[0] if whole else None

    async def _encrypted(
        self, shape: tuple[int, int], ring: Ring, epoch: int, step: int, ask: Message | None, *, rows: bool
    ) -> Tensor | None:
        assert self._adding is not None  # noqa: S101 - the key was heard when keys were renewed
        total = self._adding.begin(shape, ring, rows=rows)

        def add(name: str, said: Ciphertexts) -> None:
            due = (self._gathering.number, epoch, step, self._mark)
            if (said.roster, said.epoch, said.step, said.mark) != due:
                raise RemoteProtocolError(
                    name,
                    f"contributes step {said.step} of round {said.epoch} for roster {said.roster} where step "
                    f"{step} of round {epoch} for roster {due[0]} is due, or of other shared entities",
                )
            total.add(name, said)

        whole = await self._gathering.gather(Ciphertexts, add, ask)
        return total.ship() if whole else None

    async def _opened(self, epoch: int, width: int, cells: Tensor | None) -> Tensor | None:
        """Has the first of the roster open a sum of few numbers; nothing, where there is none."""
        gathering, first = self._gathering, self._first
        if first not in gathering.names:
            return None
        await gathering.say(first, EncryptedScores(epoch, 0, self.nothing() if cells is None else cells))
        if cells is None:
            return None
        opened = await gathering.hear(first, Opened)
        if opened is None:
            return None
        due = (epoch, 0, (width,), SUMS.dtype)
        if (opened.epoch, opened.step, tuple(opened.sums.shape), opened.sums.dtype) != due:
            raise RemoteProtocolError(first, f"opens other sums than {width} of round {epoch}")
        return opened.sums

    async def _pass_key(self, names: tuple[str, ...]) -> bool:
        """Hears the public key, and passes on the sealed ones; tells whether nobody has vanished."""
        from protocols.fedmmf.ciphers import Adding
        from vfl.paillier.keys import PublicKey

        gathering, first = self._gathering, names[0]
        said = await gathering.hear(first, PaillierKey)
        if said is None:
            return False
        if said.number != gathering.number or said.sealed.dtype != torch.uint8 or said.sealed.dim() != 2:
            raise RemoteProtocolError(first, "says a key of another roster, or none")
        if len(said.sealed) != len(names) - 1 or not said.sealed.shape[1]:
            raise RemoteProtocolError(first, f"seals a key for {len(said.sealed)}, not {len(names) - 1}")
        try:
            key = PublicKey.from_bytes(said.public, unsafe_small_key=self._config.unsafe_small_key)
            if key.bits != self._config.key_bits:
                raise ValueError(f"of {key.bits} bits")
        except ValueError as error:
            raise RemoteProtocolError(
                first, f"says a public key that is none of the job's: {error}"
            ) from error
        rated_only = self._config.paillier_items == "rated"
        self._adding, self._first = Adding(key, self._k, rated_only=rated_only), first
        for name, sealed in zip(names[1:], said.sealed, strict=True):
            if name in gathering.names:
                await gathering.say(name, SealedKey(said.number, sealed.numpy().tobytes()))
        return True
