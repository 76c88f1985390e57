"""One party's share of a matrix of weights that nobody knows: large integers that sum to the weights'."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from vfl.paillier.noise import blur

#: Noise of less than 128 bits (`packing.MOST_SLOT_BITS`), 2^62 times over, is far from the largest number.
LIMBS: Final = 4
_LIMB_BITS: Final = 64
_BITS: Final = LIMBS * _LIMB_BITS


class Share(nn.Module):
    """Holds a d × k matrix of integers of 256 bits, as limbs of 64: the last has the sign.

    They are buffers, so a `Learner` keeps them with the other weights, and no optimiser touches them.

    Args:
        d: rows.
        k: columns.

    Attributes:
        updates: how many gradients have been added.
        batch_rows: the most rows of a training batch, by which gradients are scaled; 0 before training.
        key: 32 bytes that the noise of this party's releases follows from; see `blurred`.
    """

    limbs: Tensor
    updates: Tensor
    batch_rows: Tensor
    key: Tensor

    def __init__(self, d: int, k: int) -> None:
        super().__init__()
        self.register_buffer("limbs", torch.zeros(d, k, LIMBS, dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batch_rows", torch.zeros((), dtype=torch.int64))
        self.register_buffer("key", torch.zeros(32, dtype=torch.uint8))

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes d and k."""
        return self.limbs.shape[0], self.limbs.shape[1]

    @property
    def integers(self) -> np.ndarray:
        """The matrix [d, k], an object array of Python's integers."""
        raw = self.limbs.cpu().numpy().astype("<i8").tobytes()
        width = _BITS // 8
        read = [
            int.from_bytes(raw[at : at + width], "little", signed=True) for at in range(0, len(raw), width)
        ]
        return np.array(read, object).reshape(self.shape)

    @integers.setter
    def integers(self, values: np.ndarray) -> None:
        """Replaces the matrix.

        Raises:
            OverflowError: if a value does not fit 256 bits.
        """
        raw = b"".join(int(value).to_bytes(_BITS // 8, "little", signed=True) for value in values.flat)
        limbs = np.frombuffer(raw, "<i8").astype(np.int64).reshape(self.limbs.shape)
        self.limbs.copy_(torch.from_numpy(limbs))

    def begin(self, integers: np.ndarray, batch_rows: int, key: bytes) -> None:
        """Begins a training.

        Args:
            integers: [d, k], this party's share of the weights that it begins with.
            batch_rows: the most rows of a training batch.
            key: 32 bytes that nobody else knows.
        """
        self.integers = integers
        self.updates.fill_(0)
        self.batch_rows.fill_(batch_rows)
        self.key.copy_(torch.frombuffer(bytearray(key), dtype=torch.uint8))

    def blurred(self, rows: np.ndarray, width: int, bound: int) -> np.ndarray:
        """Returns noise [b, width] for products of rows [b, n] with the weights as they are now."""
        about = self.limbs.cpu().numpy().astype("<i8").tobytes()
        return blur(self.key.cpu().numpy().tobytes(), about, rows, width, bound)

    def add(self, update: np.ndarray) -> None:
        """Adds [d, k] integers, and counts that."""
        self.integers = self.integers + update
        self.updates += 1

    def rounded_down(self, bits: int) -> np.ndarray:
        """Returns the matrix over 2^bits, to the next integers below: what one party uses of its share."""
        return self.integers >> bits

    def rounded_up(self, bits: int) -> np.ndarray:
        """Returns the matrix over 2^bits, to the next integers above: what the other party uses.

        The sum of one rounded up and one rounded down is the sum's quotient to less than 1; and where the
        dropped bits of one are uniform, it is that quotient on average (after Mohassel and Zhang, SecureML,
        2017, section 4.1, who round both in one direction).
        """
        return -(-self.integers >> bits)
