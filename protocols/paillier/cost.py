"""What a step of the Paillier cut costs: bytes, and seconds on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch

from protocols.paillier.messages import (
    Activations,
    MaskedGradient,
    MaskedProduct,
    NoisedGradient,
    NoisedProduct,
)
from protocols.paillier.roster import Config
from protocols.paillier.scales import Scales, widest_scales
from vfl.data.batches import Rows
from vfl.paillier.cost import Costs, measure
from vfl.paillier.keys import KEY_BITS, make_keys
from vfl.session import Session
from vfl.wire.codec import encode, frames_bytes
from vfl.wire.messages import Message

#: Layouts grow with the number of updates; no training that anybody waits for makes more.
_MOST_UPDATES: Final = 1 << 20


def step_bytes(session: Session, rows: int, *, learning: bool = True) -> tuple[int, int]:
    """Bounds what the feature party `session.me` sends and receives in a step of `rows` rows, in bytes."""
    scales = widest_scales(session, rows, _MOST_UPDATES, learning=learning)
    cipher, plain = _widths(session.options)
    columns, product = scales.columns(rows).n_cells, scales.product(rows).n_cells
    none, most = torch.zeros(0, dtype=torch.uint8), 2**62
    sent = _bytes(Activations(most, most, most, none, none, none), columns * cipher)
    sent += _bytes(NoisedProduct(most, none), product * plain)
    received = _bytes(MaskedProduct(most, none), product * cipher)
    if learning:
        gradient, embedding = scales.gradient.n_cells, scales.embedding(rows).n_cells
        # Where slots are narrower, there are more copies of a share.
        share = max(each.share(rows).n_cells for each in (scales, replace(scales, updates=0)))
        sent += (scales.rows(rows).n_cells + share) * cipher
        sent += _bytes(NoisedGradient(most, none), gradient * plain)
        received += _bytes(MaskedGradient(most, none, none), (gradient + embedding) * cipher)
    return sent, received


@dataclass(frozen=True)
class Work:
    """Counts what one party does in a step.

    Attributes:
        decryptions: of ciphertexts; cores share them.
        products: of powers: bases, products, bits of the exponents; cores share the products, and each
            makes what it needs of the bases anew.
        squarings: modulo n², that move rows into one ciphertext.
        ciphertexts: said or heard, each a multiplication and its bytes.
        obfuscators: made while the other party works, where that is long enough.
        integers: multiplications and additions of Python's integers.
        packed: values that are packed or read.
    """

    decryptions: int
    products: tuple[tuple[int, int, int], ...]
    squarings: int
    ciphertexts: int
    obfuscators: int
    integers: int
    packed: int

    def seconds(self, costs: Costs, cores: int) -> float:
        """Returns the seconds that it takes, obfuscators not counted."""
        shared = self.decryptions * costs.decryption_s / cores
        shared += sum(costs.products_s(n, -(-many // cores), bits) for n, many, bits in self.products)
        alone = (self.squarings + 3 * self.ciphertexts) * costs.multiplication_s
        alone += self.integers * costs.integer_s + self.packed * (costs.packing_s + costs.unpacking_s)
        return shared + alone


def count(scales: Scales, rows: int, *, learning: bool) -> tuple[Work, Work]:
    """Counts the operations of a step of the feature party and of the label party.

    Args:
        scales: the integers.
        rows: of the batch.
        learning: whether anything is learned, or rows are only brought to the cut.
    """
    b, d, k = rows, scales.d, scales.k
    columns, product = scales.columns(b), scales.product(b)
    products = [(d, k, scales.share_bits)] * product.blocks
    brought, answered, squarings = columns.n_cells, product.n_cells, 0
    if learning:
        wide, gradient, share, embedding = (
            scales.rows(b),
            scales.gradient,
            scales.share(b),
            scales.embedding(b),
        )
        brought += wide.n_cells + share.n_cells
        answered += gradient.n_cells + embedding.n_cells
        bits = scales.gradient_limit(b).bit_length()
        products += [(b, k, bits)] * wide.blocks
        products += [(k * share.copies, embedding.n_cells // share.blocks, bits)] * share.blocks
        squarings = (k - -(-k // gradient.rows_each)) * d * gradient.packing.slot_bits
    both, work = brought + answered, b * d * k
    feature = Work(answered, (), 0, both, brought, work, b * d * (1 + 2 * learning) + b * k)
    return feature, Work(0, tuple(products), squarings, both, answered, work * learning, b * k)


def counts(scales: Scales, rows: Rows) -> list[tuple[Work, Work]]:
    """Counts the operations of a step of each size that batches have, of whatever split."""
    splits = ("train", "valid", "test", "all")
    sizes = {(size, split == "train") for split in splits for size in rows.sizes(split)}
    return [count(scales, size, learning=learning) for size, learning in sorted(sizes)]


def step_seconds(
    session: Session, *, cores: int, steps: int, seconds: float = 1.0
) -> Callable[[int, bool], float]:
    """Measures this machine, and returns what a step takes both parties together.

    The parties take turns, so that their seconds add up. Obfuscators are made during the other's turn; what
    does not fit there comes on top. The parties' networks, and the way between them, are not counted.

    Args:
        session: the protocol's options and the parties' widths.
        cores: that each party may use.
        steps: of the whole training, by which numbers grow.
        seconds: to measure for, about; tables and a key are made besides.

    Returns:
        What gives the seconds of a step of so many rows, and of whether it learns.
    """
    config: Config = session.options
    small = config.key_bits not in KEY_BITS
    costs = measure(make_keys(config.key_bits, unsafe_small_key=config.unsafe_small_key), seconds)
    is_open = config.encryption == "none"

    def of(rows: int, learning: bool) -> float:
        scales = widest_scales(session, rows, steps, learning=learning)
        works = count(scales, rows, learning=learning)
        if is_open:
            return sum(work.packed for work in works) * 2 * costs.packing_s + sum(
                costs.integer_s * (work.integers + sum(m * j for m, j, _ in work.products)) for work in works
            )
        feature_s, label_s = (work.seconds(costs, 1 if small else cores) for work in works)
        late = max(0.0, works[0].obfuscators * costs.exact_s - label_s)
        late += max(0.0, works[1].obfuscators * costs.covering_s - feature_s)
        return feature_s + label_s + late

    return of


def _widths(config: Config) -> tuple[int, int]:
    """Returns the bytes of a ciphertext and of a plaintext."""
    plain = config.key_bits // 8
    return (2 * plain if config.encryption == "paillier" else plain), plain


def _bytes(message: Message, content: int) -> int:
    """Bounds a message whose empty tensors are filled with so many bytes."""
    # In the header each of at most three sizes takes up to eight bytes more than that of an empty one.
    return frames_bytes(encode(message, to="x" * 32, sender="x" * 32)) + content + 3 * 8
