"""Masks that hide every contribution and cancel in their sum.

Each pair of contributors has a key, and with it a stream of elements that nobody else knows: the one
whose name sorts first subtracts them, the other adds them. What a contributor says is uniform to all
who do not know every one of its keys; the sum over all contributors holds no mask.

A stream is a one-time pad: said twice from one counter, the difference of two contents lies open.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from torch import Tensor

from vfl.crypto.pairs import Stream
from vfl.errors import RoleError
from vfl.masking.ring import Ring

#: So many bytes of every stream are summed at a time, and stay in the processor's own memory meanwhile.
_PIECE_BYTES: Final = 1 << 17

_BLOCK: Final = struct.Struct(">BIIB6x")


class Counter(NamedTuple):
    """Names one masked tensor of a session, once and for all.

    It is the start of a stream's first block, big-endian, without padding: split 8 bits, epoch 32,
    step 32, tensor 8; the last 48 bits number the blocks of 16 bytes from zero.
    """

    split: int
    epoch: int
    step: int
    tensor: int = 0

    def block(self) -> bytes:
        """Returns the first counter block, 16 bytes.

        Raises:
            RoleError: if a number is negative or beyond its bits.
        """
        try:
            return _BLOCK.pack(*self)
        except struct.error as error:
            raise RoleError(f"{self} is beyond what a counter block holds") from error


class Masks:
    """Makes one contributor's masks, each of them once.

    Counters of one split only ascend. New keys, new Masks; the same keys are never given to two.

    Args:
        me: this contributor.
        keys: the key of its pair with each partner, 32 bytes; partners may be any subset of the
            contributors, as long as each is the other's. Without partners a mask is zero.
        ring: where contributions are summed.
    """

    def __init__(self, me: str, keys: Mapping[str, bytes], ring: Ring) -> None:
        if me in keys:
            raise RoleError(f"{me} would mask with itself")
        self._ring = ring
        self._added = [Stream(keys[name]) for name in sorted(keys) if name < me]
        self._subtracted = [Stream(keys[name]) for name in sorted(keys) if name > me]
        self._last: dict[int, Counter] = {}
        self._ready: dict[int, tuple[Counter, tuple[int, ...], np.ndarray]] = {}

    def prepare(self, counter: Counter, shape: Sequence[int]) -> None:
        """Makes a mask ahead of time; an earlier one of the split that was not taken is lost.

        Raises:
            RoleError: if the counter does not ascend.
        """
        self._ready.pop(counter.split, None)
        self._ascend(counter)
        self._ready[counter.split] = counter, tuple(shape), self._make(counter, shape, self._ring)

    def take(self, counter: Counter, shape: Sequence[int], ring: Ring | None = None) -> Tensor:
        """Returns a mask that the caller may keep: the prepared one, or one made now.

        Args:
            counter: names it.
            shape: of what it is to hide.
            ring: where that is summed, if not where all else is; nothing is prepared for such a ring.

        Raises:
            RoleError: if the counter does not ascend, or was prepared for another shape.
        """
        ready = self._ready.pop(counter.split, None)
        if ready is None or ready[0] != counter:
            self._ascend(counter)
            return (ring or self._ring).tensor(self._make(counter, shape, ring or self._ring))
        if ready[1] != tuple(shape):
            raise RoleError(
                f"{counter} was prepared for {list(ready[1])}, not {list(shape)}; its stream is used up"
            )
        return self._ring.tensor(ready[2])

    def _ascend(self, counter: Counter) -> None:
        last = self._last.get(counter.split)
        if last is not None and counter <= last:
            raise RoleError(f"{counter} does not come after {last}: a mask would be used twice")
        self._last[counter.split] = counter

    def _make(self, counter: Counter, shape: Sequence[int], ring: Ring) -> np.ndarray:
        block, mask = counter.block(), np.zeros(math.prod(shape), ring.np_dtype)
        for stream in (*self._added, *self._subtracted):
            stream.seek(block)
        each = _PIECE_BYTES // mask.itemsize
        scratch = np.empty(min(each, len(mask)), ring.np_dtype)
        for start in range(0, len(mask), each):
            piece = mask[start : start + each]
            drawn = scratch[: len(piece)]
            for stream in self._added:
                stream.read(drawn)
                np.add(piece, drawn, out=piece)
            for stream in self._subtracted:
                stream.read(drawn)
                np.subtract(piece, drawn, out=piece)
        return mask.reshape(tuple(shape))
