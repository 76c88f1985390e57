"""One table cut into the files of several parties, who share some of its people.

Who holds whom follows from the keyed hash of the id, so it is the same on every machine. Of `n` people,
in the order of their hashes:

- the first `overlap * n`, rounded, are held by every party;
- the others are dealt out in turn over all the ways to be held by some party and missing at another: two
  parties have two such ways, three have six. So each is used equally often, give or take one person.

Every party's rows stand in an order of their own, by another hash, also where all people are shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vfl.data.rows import common_order, derive_key
from vfl.errors import ConfigError


def checked_overlap(overlap: float | None) -> float:
    """Returns the share of people whom every party holds; None means all of them.

    Raises:
        ConfigError: it is no share above 0.
    """
    if overlap is None:
        return 1.0
    if not 0 < overlap <= 1:
        raise ConfigError(f"overlap is {overlap:g}: give the share of all people, above 0 and up to 1")
    return overlap


def holders(ids: Sequence[str], parties: Sequence[str], overlap: float, seed: int) -> dict[str, np.ndarray]:
    """Says for each party which of these people it holds: [n] bool.

    Args:
        ids: [n] distinct ids.
        parties: their names; the order counts.
        overlap: the share of people whom every party holds, in (0, 1].
        seed: draws other people.

    """
    n, k = len(ids), len(parties)
    order = common_order(ids, derive_key(seed, "dataset overlap"))  # [n]
    shared = int(overlap * n + 0.5) if k > 1 else n
    # The ways, as the bits of a number: neither none of the parties (0) nor all of them.
    ways = np.full(n, 2**k - 1, dtype=np.int64)  # [n]
    if shared < n:
        ways[shared:] = 1 + np.arange(n - shared) % (2**k - 2)
    held = np.empty(n, dtype=np.int64)
    held[order] = ways
    return {party: (held >> bit & 1).astype(bool) for bit, party in enumerate(parties)}


def own_order(ids: Sequence[str], party: str, seed: int) -> np.ndarray:
    """Shuffles a party's rows as no other party's are: [n] int64, places in `ids`."""
    return common_order(ids, derive_key(seed, f"dataset order {party}"))


def split_people(
    table: Mapping[str, np.ndarray], parties: Mapping[str, Sequence[str]], overlap: float, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Cuts a table into one for each party: `id`, then the party's own columns.

    Args:
        table: [n] a column, `id` among them.
        parties: for each party, its columns.
        overlap: the share of people whom every party holds.
        seed: draws other people and other orders.
    """
    ids = table["id"]
    tables = {}
    for party, held in holders(ids.tolist(), list(parties), overlap, seed).items():
        rows = np.flatnonzero(held)
        rows = rows[own_order(ids[rows].tolist(), party, seed)]  # [m]
        tables[party] = {name: table[name][rows] for name in ("id", *parties[party])}
    return tables
