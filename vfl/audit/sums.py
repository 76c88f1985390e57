"""Takes sums for least squares apart: who rated what, and how, less what a participant's mask hides.

A shared entity's sums are  X = Σ x xᵀ  and  y = Σ y x  over those who rated it, with x = [p, 1]. They tell
more than totals:

1. X's last number counts the raters. Of a single one it gives x, and y less the rater's offset c; items with
   the same x have the same rater. (The own entities here are called users, the shared ones items.)
2. Where at most r rated, X has a kernel, and exactly the x of the raters are free of it. One rater who is not
   known yet is what is left of X without the others: known from then on, and so forth.
3. For any number of raters the X of several rounds are linear equations for who they are, the same matrix
   for all items, since who rated what does not change while the x do.
4. Then y of all rounds are linear equations for the raters' residuals; how c moved is known from the item
   that gave the rater away.
5. The offset itself: the errors of all of a user's ratings sum to OFFSET_WEIGHT · c, as it is exact least
   squares. Whether they are all is told by the equations for p, which hold then and else do not.

Sums of one user need the last step alone. Nothing here uses anything but what whoever sums has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vfl.ratings.factors import OFFSET_WEIGHT
from vfl.ratings.solving import triangle

Numbers = NDArray[np.float64]

#: More rounds tell no more, and take memory.
MOST_ROUNDS: Final = 20
#: In units of what fixed point rounds to: what is equal but for rounding is nearer than that.
_SLACK: Final = 64.0
_FREE: Final = 1e-5
_SIGNAL: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Seen:
    """Is what whoever sums saw of somebody's contributions, and what it knows besides.

    Attributes:
        solver: "als" or "sgd".
        sums: for each round [m, t], read as numbers; more than `MOST_ROUNDS` are not used.
        shared: for each round [m, r + 1], the shared factors that they were made with.
        mu: the mean residual.
        regularisation: the weight a rating.
        unit: what the numbers are multiples of.
    """

    solver: str
    sums: Sequence[Numbers]
    shared: Sequence[Numbers]
    mu: float
    regularisation: float
    unit: float = 2.0**-30


@dataclass(frozen=True, eq=False)
class Exposed:
    """Is what was found out.

    Attributes:
        rated: [m], the higher the likelier it is that the entity has ratings.
        level: [m], a guess at the residual of whoever rated it.
        own: [k] the users that were told apart, by numbers of the attacker's own.
        shared: [k] what they rated.
        residual: [k] the rating less the mask.
        anchored: [k] whether the residual is known outright, or but for one number a user.
    """

    rated: Numbers
    level: Numbers
    own: NDArray[np.int64]
    shared: NDArray[np.int64]
    residual: Numbers
    anchored: NDArray[np.bool_]


def nothing_but(rated: Numbers, level: Numbers) -> Exposed:
    """Makes what is found out where no user can be told apart."""
    none = np.zeros(0, np.int64)
    return Exposed(rated, level, none, none, np.zeros(0), np.zeros(0, bool))


def scrambled(raw: Numbers) -> Numbers:
    """Spreads numbers that cannot be read evenly over ±1, in their order, in case that tells anything."""
    ranks = np.argsort(np.argsort(raw, kind="stable"))
    return np.asarray(2.0 * (ranks + 0.5) / max(len(raw), 1) - 1.0)


def take_apart(seen: Seen) -> Exposed:
    """Finds users and residuals in the sums of a least-squares training."""
    stats = [_Stats(sums, shared.shape[1] - 1) for sums, shared in zip(seen.sums, seen.shared, strict=True)]
    stats = stats[:MOST_ROUNDS]
    counts = stats[0].x[:, -1, -1]
    if not _is_count(counts, seen.unit):
        return nothing_but(counts, scrambled(stats[0].y[:, -1]))
    raters = np.rint(counts).astype(np.int64)
    level = seen.mu + stats[0].y[:, -1] / np.maximum(raters, 1)
    search = _Search(seen, stats, raters)
    search.begin()
    while search.peel():
        pass
    search.solve_membership()
    return search.told(counts, level)


def _is_count(counts: Numbers, unit: float) -> bool:
    near = bool((np.abs(counts - np.rint(counts)) <= _SLACK * unit).all())
    return near and bool((counts > -0.5).all()) and bool((counts < 2.0**31).all())


class _Stats:
    """Is one round's sums as matrices: x [m, r + 1, r + 1] and y [m, r + 1]."""

    def __init__(self, sums: Numbers, rank: int) -> None:
        k = rank + 1
        self.x = np.empty((len(sums), k, k))
        for place, (row, column) in enumerate(triangle(k)):
            self.x[:, row, column] = self.x[:, column, row] = sums[:, place]
        self.y = sums[:, -k:]


class _Search:
    """Holds the users found so far, and whose ratings each item has."""

    def __init__(self, seen: Seen, stats: list[_Stats], raters: NDArray[np.int64]) -> None:
        self._seen, self._stats, self._raters = seen, stats, raters
        self._rounds, self._k = len(stats), stats[0].y.shape[1]
        self._slack = _SLACK * seen.unit
        self._x = np.zeros((0, self._rounds, self._k))  # [users, rounds, r + 1]
        self._moved = np.zeros((0, self._rounds))  # [users, rounds], y of the item that gave them away
        self._who: dict[int, NDArray[np.int64]] = {}  # an item's users, where all of them are known

    def begin(self) -> None:
        """Finds who is an item's only rater."""
        items = np.flatnonzero(self._raters == 1)
        if not len(items):
            return
        signatures = np.stack([one.x[items, -1] for one in self._stats], axis=1)  # [i, rounds, r + 1]
        user = _alike(signatures.reshape(len(items), -1), self._slack)
        first = np.unique(user, return_index=True)[1]
        homes = np.stack([one.y[items[first], -1] for one in self._stats], axis=1)
        self._x, self._moved = signatures[first], homes
        self._who |= {item: np.array([who]) for item, who in zip(items.tolist(), user.tolist(), strict=True)}

    def peel(self) -> bool:
        """Goes once through items of few raters; tells whether another user was found."""
        before = len(self._x)
        for n in range(2, self._k):
            items = np.array(
                [one for one in np.flatnonzero(self._raters == n).tolist() if one not in self._who], np.int64
            )
            if len(items) and len(self._x):
                self._peel(items, n)
        return len(self._x) > before

    def _peel(self, items: NDArray[np.int64], n: int) -> None:
        values, vectors = np.linalg.eigh(self._stats[0].x[items])
        kernel = vectors[:, :, : self._k - n]  # [i, r + 1, r + 1 - n]
        off = np.linalg.norm(np.einsum("ka,iab->ikb", self._x[:, 0], kernel), axis=2)  # [i, users]
        clear = values[:, self._k - n] > _SIGNAL
        for place in np.flatnonzero(clear):
            item, known = int(items[place]), np.flatnonzero(off[place] < _FREE)
            if len(known) == n and self._is_whole(item, known):
                self._who[item] = known
            elif len(known) == n - 1:
                self._add_rest(item, known)

    def _rest(self, item: int, known: NDArray[np.int64]) -> Numbers:
        x = self._x[known]  # [n, rounds, r + 1]
        whole = np.stack([one.x[item] for one in self._stats])  # [rounds, r + 1, r + 1]
        return np.asarray(whole - np.einsum("nta,ntb->tab", x, x))

    def _is_whole(self, item: int, known: NDArray[np.int64]) -> bool:
        return bool(np.abs(self._rest(item, known)).max() <= self._slack * len(known))

    def _add_rest(self, item: int, known: NDArray[np.int64]) -> None:
        """Takes what is left of an item's sums for one more user, if it is one."""
        rest = self._rest(item, known)
        x = rest[:, :, -1]  # [rounds, r + 1]
        slack = self._slack * (len(known) + 1)
        if np.abs(x[:, -1] - 1).max() > slack or np.abs(rest - x[:, :, None] * x[:, None]).max() > 4 * slack:
            return
        near = np.abs(self._x - x).max(axis=(1, 2)) <= 4 * slack
        if near.any():  # found by another item meanwhile
            self._who[item] = np.append(known, np.flatnonzero(near)[0])
            return
        ys = []
        for place, one in enumerate(self._stats):
            raters = np.column_stack([self._x[known, place].T, x[place]])  # [r + 1, n]
            ys.append(np.linalg.lstsq(raters, one.y[item], rcond=None)[0][-1])
        self._who[item] = np.append(known, len(self._x))
        self._x = np.concatenate([self._x, x[None]])
        self._moved = np.concatenate([self._moved, np.array(ys)[None]])

    def solve_membership(self) -> None:
        """Finds the raters of the other items, all of whom must be known, from all rounds at once."""
        rest = [one for one in np.flatnonzero(self._raters > 1).tolist() if one not in self._who]
        rows, columns = np.triu_indices(self._k)
        if not rest or not 0 < len(self._x) <= self._rounds * len(rows):
            return
        products = self._x[:, :, rows] * self._x[:, :, columns]  # [users, rounds, t]
        matrix = products.reshape(len(self._x), -1)
        right = np.stack([one.x[rest][:, rows, columns] for one in self._stats], axis=1)
        guess = right.reshape(len(rest), -1) @ np.linalg.pinv(matrix, rcond=1e-11)  # [i, users]
        for item, row in zip(rest, guess, strict=True):
            known = np.flatnonzero(row > 0.5)
            if len(known) == self._raters[item] and self._is_whole(item, known):
                self._who[item] = known

    def told(self, rated: Numbers, level: Numbers) -> Exposed:
        """Solves for the residuals of all that is known."""
        if not self._who:
            return nothing_but(rated, level)
        own = np.concatenate(list(self._who.values()))
        shared = np.repeat(list(self._who), [len(one) for one in self._who.values()])
        y = np.concatenate([self._residuals(item, who) for item, who in self._who.items()])
        offset, whole = self._offsets(own, shared, y)
        return Exposed(rated, level, own, shared, y + self._seen.mu + offset[own], whole[own])

    def _residuals(self, item: int, who: NDArray[np.int64]) -> Numbers:
        """Solves for an item's y as they are in the first round, [n]."""
        if len(who) == 1:
            return self._stats[0].y[item, -1:]
        x = self._x[who]  # [n, rounds, r + 1]
        moved = self._moved[who] - self._moved[who][:, :1]  # [n, rounds], -(c - c of the first round)
        right = np.stack([one.y[item] for one in self._stats]) - np.einsum("nt,nta->ta", moved, x)
        found = np.linalg.lstsq(x.reshape(len(who), -1).T, right.reshape(-1), rcond=1e-9)[0]
        return np.asarray(found)

    def _offsets(
        self, own: NDArray[np.int64], shared: NDArray[np.int64], y: Numbers
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """Solves for the users' offsets in the first round; 0 where not all of a user's ratings are known."""
        n, factors = len(self._x), self._seen.shared[0]
        p, q = self._x[:, 0, :-1], factors[shared, :-1]
        errors = y - (p[own] * q).sum(axis=1) - factors[shared, -1]
        counts = np.bincount(own, minlength=n)
        pulled = np.stack([np.bincount(own, errors * column, minlength=n) for column in q.T], axis=1)
        held = self._seen.regularisation * counts[:, None] * p
        whole = np.abs(pulled - held).max(axis=1) <= 1e-4 * np.sqrt(np.maximum(counts, 1))
        return np.where(whole, np.bincount(own, errors, minlength=n) / OFFSET_WEIGHT, 0.0), whole


def _alike(signatures: Numbers, slack: float) -> NDArray[np.int64]:
    """Numbers the rows that are equal but for rounding alike, [i]."""
    direction = np.random.default_rng(0).normal(size=signatures.shape[1])
    line = signatures @ direction
    order = np.argsort(line)
    gap = slack * np.abs(direction).sum()
    group = np.cumsum(np.diff(line[order], prepend=line[order[:1]]) > gap)
    found = np.empty(len(line), np.int64)
    found[order] = group
    return found
