"""Products of factors, and many small least-squares systems at once, each solved as if it were alone.

The arithmetic is by element, or adds one number after the other: no result hangs on which entities are
worked on together, how many threads there are, or which linear-algebra library is installed.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from vfl.errors import ConfigError
from vfl.ratings.fixed import CHUNK, chunks

#: How many systems are worked on at a time, by their size: what is worked on stays within the caches.
_BLOCK_NUMBERS: Final = 262_144


def products(own: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Gives p · q + c + b for factors [..., r + 1] of both, whose last are the offsets c and b."""
    total = own[..., -1] + shared[..., -1]
    for column in range(own.shape[-1] - 1):
        total += own[..., column] * shared[..., column]
    return np.asarray(total)


def pair_products(
    own: np.ndarray, shared: np.ndarray, own_at: np.ndarray, shared_at: np.ndarray
) -> np.ndarray:
    """Gives `products` for pairs of places [n]."""
    found = np.empty(len(own_at))
    for some in chunks(len(own_at)):
        found[some] = products(own[own_at[some]], shared[shared_at[some]])
    return found


def group_runs(groups: np.ndarray) -> list[slice]:
    """Cuts ratings that are in the order of their groups into runs that part no group.

    A group's sum of floats then has one order only, that of its own ratings.
    """
    n = len(groups)
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    wanted = np.arange(CHUNK, n, CHUNK)
    cuts = firsts[np.searchsorted(firsts, wanted, side="right") - 1] if n else wanted
    edges = np.unique(np.concatenate([[0], cuts, [n]])).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def solve_groups(
    groups: np.ndarray,
    others: np.ndarray,
    y: np.ndarray,
    theirs: np.ndarray,
    penalty: np.ndarray,
) -> np.ndarray:
    """Solves for each group's factors x: the least squares of y - b on x · [q, 1], and penalty · x².

    Args:
        groups: [n], ascending; whose rating it is.
        others: [n], of what.
        y: [n].
        theirs: [.., r + 1], the factors q and offsets b that `others` are places among.
        penalty: [r + 1, groups], what is added to each system's diagonal.

    Returns:
        [groups, r + 1]; zeros for a group without ratings.

    Raises:
        ConfigError: a system has no single solution.
    """
    k = theirs.shape[1]
    upper, right = np.zeros((k * (k + 1) // 2, penalty.shape[1])), np.zeros((k, penalty.shape[1]))
    for run in group_runs(groups):
        rows = theirs[others[run]]  # [n, r + 1]
        _add_sums(groups[run], features(rows), y[run] - rows[:, -1], upper, right)
    return solve_all(upper, right, penalty)


def features(rows: np.ndarray) -> np.ndarray:
    """Puts ones in the place of the offsets, and turns [n, r + 1] to [r + 1, n]."""
    columns = np.array(rows.T, order="C")
    columns[-1] = 1.0
    return columns


def _add_sums(
    groups: np.ndarray, columns: np.ndarray, y: np.ndarray, upper: np.ndarray, right: np.ndarray
) -> None:
    """Sums s sᵀ and y s over each group's ratings; bincount adds one after the other."""
    if not len(groups):
        return
    first, last = int(groups[0]), int(groups[-1]) + 1
    here = groups - first
    for place, (a, b) in enumerate(triangle(len(columns))):
        upper[place, first:last] = np.bincount(here, columns[a] * columns[b])
    for a, column in enumerate(columns):
        right[a, first:last] = np.bincount(here, column * y)


def triangle(k: int) -> list[tuple[int, int]]:
    """Lists the places of an upper triangle of k rows, row by row: k (k + 1) / 2 pairs."""
    return [(row, column) for row in range(k) for column in range(row, k)]


def solve_all(upper: np.ndarray, right: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Solves (A + diagonal) x = right for every system, by Cholesky's decomposition.

    Args:
        upper: [k (k + 1) / 2, n] float64: the upper triangles of A, in the order of `triangle`.
        right: [k, n].
        diagonal: [k, n], what is added to the diagonals.

    Returns:
        x: [n, k].

    Raises:
        ConfigError: a system has no single solution.
    """
    k, n = right.shape
    found = np.empty((n, k))
    size = max(_BLOCK_NUMBERS // (k * k), 64)
    for start in range(0, n, size):
        some = slice(start, min(start + size, n))
        found[some] = _solve_block(_full(upper[:, some], k, diagonal[:, some]), right[:, some].copy()).T
    return found


def _full(upper: np.ndarray, k: int, diagonal: np.ndarray) -> np.ndarray:
    """Lays the triangles out as lower ones: [k, k, b]; what is above them is not used."""
    a = np.zeros((k, k, upper.shape[1]))
    for place, (row, column) in enumerate(triangle(k)):
        a[column, row] = upper[place]
    for row in range(k):
        a[row, row] += diagonal[row]
    return a


def _solve_block(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Decomposes a [k, k, b] in place and solves for x [k, b] in place."""
    k = len(x)
    for step in range(k):
        pivot = a[step, step]
        if not (pivot > 0).all():  # so for what is no number
            raise ConfigError(
                "the least-squares systems have no single solution: raise regularisation above 0, or, where "
                "it is, training has diverged: raise it further"
            )
        np.sqrt(pivot, out=pivot)
        a[step + 1 :, step] /= pivot
        for row in range(step + 1, k):
            a[row, step + 1 : row + 1] -= a[row, step] * a[step + 1 : row + 1, step]
    for row in range(k):
        for column in range(row):
            x[row] -= a[row, column] * x[column]
        x[row] /= a[row, row]
    for row in reversed(range(k)):
        for column in range(row + 1, k):
            x[row] -= a[column, row] * x[column]
        x[row] /= a[row, row]
    return x
