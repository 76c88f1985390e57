"""Says a large set in pieces, checks the pieces of one that arrives, and answers for it in bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from vfl.errors import RemoteProtocolError


def refuse(peer: str, why: str) -> NoReturn:
    """Raises the error that names a peer for what it said."""
    raise RemoteProtocolError(peer, why)


@dataclass
class Outgoing:
    """Counts the pieces of one set that are said: at most `ahead` of the credits that came back."""

    rows: int
    piece: int
    ahead: int
    said: int = 0
    credited: int = 0

    @property
    def all_said(self) -> bool:
        """Whether nothing of the set is left to say."""
        return self.said * self.piece >= self.rows

    def due(self) -> Iterator[tuple[int, slice]]:
        """Counts off the pieces that may be said now: their numbers and their rows."""
        while not self.all_said and self.said < self.credited + self.ahead:
            number, self.said = self.said, self.said + 1
            yield number, slice(number * self.piece, self.said * self.piece)

    def credit(self, sender: str, number: int) -> None:
        """Books that a piece has arrived.

        Raises:
            RemoteProtocolError: unless it is the next one's turn and lets another follow.
        """
        if number != self.credited or (number + self.ahead) * self.piece >= self.rows:
            refuse(sender, f"credits piece {number}, for which nothing more was due")
        self.credited += 1


@dataclass
class Incoming:
    """Checks the pieces of one set as they arrive; `kept` is what their receiver keeps of each."""

    owner: str
    rows: int
    piece: int
    width: int
    arrived: int = 0
    kept: list[np.ndarray] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the whole set has arrived."""
        return self.arrived * self.piece >= self.rows

    def lets_follow(self, number: int, ahead: int) -> bool:
        """Tells whether the sender waits for this piece's credit before it says another."""
        return (number + ahead) * self.piece < self.rows

    def take(self, sender: str, number: int, content: Tensor) -> np.ndarray:
        """Returns the bytes of the next piece, [m, width] uint8.

        Raises:
            RemoteProtocolError: if it is not the next, or not of the size and type that is due.
        """
        if self.complete:
            refuse(sender, f"says more of {self.owner}'s set than its {self.rows} ids")
        if number != self.arrived:
            refuse(sender, f"says piece {number} of {self.owner}'s set where {self.arrived} was due")
        due = (min(self.piece, self.rows - number * self.piece), self.width)
        if content.dtype is not torch.uint8 or tuple(content.shape) != due:
            is_what = f"{content.dtype} {tuple(content.shape)}"
            refuse(sender, f"says {is_what} where piece {number} of {self.owner}'s set is torch.uint8 {due}")
        self.arrived += 1
        raw: np.ndarray = content.numpy()
        return raw

    def all_kept(self) -> np.ndarray:
        """Returns what was kept, in the order of arrival, and lets go of it."""
        whole = np.concatenate(self.kept) if self.kept else np.empty(0)
        self.kept = []
        return whole


def pack(bits: np.ndarray) -> Tensor:
    """Packs yes and no, [n] bool, into bytes: [n / 8, rounded up] uint8."""
    return torch.from_numpy(np.packbits(bits))


def unpack(sender: str, packed: Tensor, n: int) -> np.ndarray:
    """Unpacks what `pack` has packed: [n] bool.

    Raises:
        RemoteProtocolError: unless it is exactly n bits, with zeros up to the last byte's end.
    """
    due = (n + 7) // 8
    if packed.dtype is not torch.uint8 or tuple(packed.shape) != (due,):
        refuse(sender, f"answers {packed.dtype} {tuple(packed.shape)} where torch.uint8 ({due},) is due")
    bits = np.unpackbits(packed.numpy()).astype(bool)
    if bits[n:].any():
        refuse(sender, f"answers for more than the {n} that were asked for")
    return bits[:n]


def put_back(bits: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Puts bits, [n] bool, about things taken in an order, [n], into the order that these had before."""
    found = np.zeros(len(bits), dtype=bool)  # [n]
    found[order[bits]] = True
    return found
