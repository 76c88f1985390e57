"""Fits scikit-surprise's SVD; run by a Python that has it.

    PYTHON surprise_mf.py RATINGS.npz FACTORS.npz SEED RANK

RATINGS.npz holds user, item and value [n]; FACTORS.npz gets mean, and p, c of users and q, b of items.
"""

import sys

import numpy as np
from surprise import SVD, Dataset, Reader


def main() -> None:
    """Fits, and writes the factors; a user or item without ratings has zeros."""
    source, target, seed, rank = sys.argv[1:]
    given = np.load(source)
    rows = zip(given["user"].tolist(), given["item"].tolist(), given["value"].tolist(), strict=True)
    reader = Reader(rating_scale=tuple(given["scale"].tolist()))
    ratings = Dataset(reader).construct_trainset([(*row, None) for row in rows])
    fitted = SVD(n_factors=int(rank), random_state=int(seed)).fit(ratings)
    n_users, n_items = given["shape"].tolist()
    p, c = _laid_out(fitted.pu, fitted.bu, ratings.to_raw_uid, n_users)
    q, b = _laid_out(fitted.qi, fitted.bi, ratings.to_raw_iid, n_items)
    np.savez(target, p=p, c=c, q=q, b=b, mean=ratings.global_mean)


def _laid_out(factors, offsets, raw, count):  # noqa: ANN001, ANN202 - arrays
    places = [raw(inner) for inner in range(len(offsets))]
    laid, level = np.zeros((count, factors.shape[1])), np.zeros(count)
    laid[places], level[places] = factors, offsets
    return laid, level


if __name__ == "__main__":
    main()
