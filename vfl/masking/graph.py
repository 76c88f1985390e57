"""Who masks with whom where contributors are too many for every pair to share a mask.

A sum hides every summand as long as the graph of masks, without those who collude with whoever sums,
hangs together: what can be told apart are the sums over its connected parts. So few masks each do: a ring
in an order that nobody chose, in which everybody masks with the nearest on either side (a Harary graph,
as in Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020, section 3).

The order follows from a seed. The bound holds for whoever is in league before the seed is drawn: who may
draw seeds until one suits, and has somebody in league, can do better.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from vfl.errors import ConfigError

#: So many contributors mask with each other, all with all, where nothing else is said.
COMPLETE_UP_TO: Final = 32
#: A third of all may be in league with whoever sums, and still but one draw in 2^40 shows anything.
COLLUDING: Final = 1 / 3
SECURITY_BITS: Final = 40

Neighbours = Mapping[str, tuple[str, ...]]
#: Tells whom each of these contributors masks with; the number is that of their roster.
Graph = Callable[[Sequence[str], int], Neighbours]

_LABEL: Final = b"vfl mask graph 1"


def neighbours(names: Sequence[str], degree: int, seed: bytes) -> dict[str, tuple[str, ...]]:
    """Draws whom each contributor masks with; each is the other's, in the order of `names`.

    Args:
        names: all contributors.
        degree: how many each has, even; all the others where they are no more than that.
        seed: what the draw follows from; in the same order of names all find the same.

    Raises:
        ConfigError: if the degree is odd or below 2, and would matter.
    """
    return dict(_drawn(tuple(names), degree, seed))


@lru_cache(maxsize=4)  # in one process many contributors ask for the same graph
def _drawn(names: tuple[str, ...], degree: int, seed: bytes) -> Neighbours:
    if degree >= len(names) - 1:
        return {name: tuple(other for other in names if other != name) for name in names}
    if degree < 2 or degree % 2:
        raise ConfigError(f"neighbours = {degree}: set an even number, 2 or more")
    order = sorted(range(len(names)), key=lambda place: _draw(seed, place))
    steps = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    found = {}
    for at, place in enumerate(order):
        near = sorted(order[(at + step) % len(order)] for step in steps)
        found[names[place]] = tuple(names[one] for one in near)
    return {name: found[name] for name in names}


def degree_for(k: int, colluding: float = COLLUDING, security_bits: int = SECURITY_BITS) -> int:
    """Returns how many neighbours keep the bound below 2^-security_bits; k - 1 where fewer do not.

    Args:
        k: how many contribute.
        colluding: the share of them that may be in league with whoever sums.
        security_bits: as above.
    """
    fitting = (d for d in range(2, k - 1, 2) if collusion_bound(k, d, colluding) <= -security_bits)
    return next(fitting, max(k - 1, 0))


def collusion_bound(k: int, degree: int, colluding: float = COLLUDING) -> float:
    """Bounds the probability that a graph shows the sum of some of the honest contributors, as log2.

    Without those in league the ring falls apart only where two runs of degree / 2 neighbours in a row, or
    more, are all in league. The sum over the pairs of such runs bounds the probability of one; with
    c = floor(colluding · k) in league each pair has c (c - 1) … (c - degree + 1) / (k (k - 1) … ).

    Returns:
        -inf where no choice of so few shows anything, as where all mask with all.
    """
    c = math.floor(colluding * k)
    if degree >= k - 1 or degree > c:
        return -math.inf
    pairs = math.log2(k * (k - 1) / 2)
    return min(0.0, pairs + sum(math.log2((c - i) / (k - i)) for i in range(degree)))


def degree_of(k: int, wanted: int | None = None) -> int:
    """Returns how many neighbours each of k contributors has: as many as are wanted, or as is safe."""
    if wanted is not None or k <= COMPLETE_UP_TO:
        return min(wanted if wanted is not None else k - 1, max(k - 1, 0))
    return degree_for(k)


def drawn_with(nonce: bytes, wanted: int | None = None) -> Graph:
    """Makes the graphs of a session: for each roster another, from the session's nonce and its number."""

    def graph(names: Sequence[str], number: int) -> Neighbours:
        seed = hashlib.sha256(_LABEL + nonce + number.to_bytes(8, "big")).digest()
        return _drawn(tuple(names), degree_of(len(names), wanted), seed)

    return graph


def _draw(seed: bytes, place: int) -> bytes:
    return hashlib.sha256(seed + place.to_bytes(8, "big")).digest()
