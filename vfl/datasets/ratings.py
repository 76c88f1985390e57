"""Ratings cut between the parties who could hold them, and ratings that are made up.

Two cuts: by movie, between shops that share users; and by user, between clubs that share the movies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from vfl.data.rows import common_order, derive_key
from vfl.datasets.parsing import Columns, Contents
from vfl.datasets.vertical import holders, own_order

#: The catalogue that the clubs share, and how a shop's own is called.
MOVIES: Final = "movies"
MOVIE_COLUMNS: Final = ("movie", "title", "genres")
#: What the name of a party begins with that has users of its own; any other has movies of its own.
_CLUB: Final = "club_"

#: Of the made-up ratings. As few movies have most of MovieLens' ratings, so have they here.
_USERS, _MOVIES, _FACTORS, _MOST, _FEWEST = 400, 900, 4, 120, 20
_GENRES: Final = ("Comedy", "Drama", "Western", "Mystery", "Documentary", "Musical")


def catalogues(parties: Sequence[str]) -> list[str]:
    """Names the files of movies beside the parties' own: the clubs' common one, and each shop's."""
    clubs = [name for name in parties if name.startswith(_CLUB)]
    return [f"{name}_movies" for name in parties if name not in clubs] + [MOVIES] * bool(clubs)


def split_ratings(
    table: Mapping[str, np.ndarray], parties: Mapping[str, Sequence[str]], overlap: float, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Cuts ratings by movie into a table for each shop, and by user into one for each club.

    The movies, in the order of their hashes, are dealt out to the shops in turn, so that no two shops
    have one in common; of a user whom a shop does not hold, it has no rating. The users are dealt out to
    the clubs likewise, and `overlap` is nothing to them. Beside each shop's table is one of its movies, and
    one of all movies beside the clubs'.
    """
    clubs = [name for name in parties if name.startswith(_CLUB)]
    shops = [name for name in parties if name not in clubs]
    movies, movie_at, first = _distinct(table["movie"])
    users, user_at, _ = _distinct(table["user"])
    shop_of = _dealt(movies, len(shops), derive_key(seed, "dataset movies"))
    club_of = _dealt(users, len(clubs), derive_key(seed, "dataset users"))
    held = holders(users, shops, overlap, seed)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for place, shop in enumerate(shops):
        rows = (shop_of[movie_at] == place) & held[shop][user_at]
        tables[shop] = _own(table, np.flatnonzero(rows), shop, parties[shop], seed)
        tables[f"{shop}_movies"] = _movies(table, first[shop_of == place])
    for place, club in enumerate(clubs):
        tables[club] = _own(table, np.flatnonzero(club_of[user_at] == place), club, parties[club], seed)
    if clubs:
        tables[MOVIES] = _movies(table, first)
    return tables


def make_ratings(contents: Contents) -> Columns:
    """Makes ratings up, [n] a column: of users, movies and tastes that nobody has.

    They follow from hashes, so they are the same on every machine. A rating is the sum of an offset of its
    user, one of its movie, what their tastes have in common and chance, on the scale of MovieLens.
    """
    taste, kind = (_normal(name, n * _FACTORS).reshape(n, -1) for name, n in _axes("taste"))
    user_offset, movie_offset = (_normal(name, n) for name, n in _axes("offset"))
    counts = (_FEWEST + (_MOST - _FEWEST) * _uniform("counts", _USERS) ** 2).astype(np.int64)  # [users]
    popular = 1.0 / np.arange(1, _MOVIES + 1) ** 0.8
    # The largest of log(u) / w, for u uniform, are a sample without replacement by weight w.
    drawn = np.log(_uniform("draws", _USERS * _MOVIES)).reshape(_USERS, _MOVIES) / popular
    order = np.argsort(-drawn, axis=1)
    user = np.repeat(np.arange(_USERS), counts)  # [n]
    movie = np.concatenate([np.sort(order[one, :count]) for one, count in enumerate(counts.tolist())])
    both = (taste[user] * kind[movie]).sum(axis=1) / _FACTORS
    value = 3.5 + 0.45 * user_offset[user] + 0.45 * movie_offset[movie] + 0.9 * both
    value = value + 0.75 * _normal("chance", len(user))
    genres = np.array([_genres(one) for one in range(_MOVIES)], dtype=object)
    titles = np.array([f"Made-up movie {one + 1}" for one in range(_MOVIES)], dtype=object)
    return {
        "id": np.array([f"{u + 1}-{m + 1}" for u, m in zip(user, movie, strict=True)], dtype=object),
        "user": user + 1,
        "movie": movie + 1,
        "rating": np.clip(np.rint(value * 2) / 2, 0.5, 5.0),
        "timestamp": (1e9 + 1e8 * _uniform("times", len(user))).astype(np.int64),
        "title": titles[movie],
        "genres": genres[movie],
    }


def _genres(number: int) -> str:
    first = number % len(_GENRES)
    second = (first + 1 + number // len(_GENRES) % (len(_GENRES) - 1)) % len(_GENRES)
    return f"{_GENRES[first]}|{_GENRES[second]}"


def _dealt(names: Sequence[str], hands: int, key: bytes) -> np.ndarray:
    """Deals names out in turn, in the order of their hashes: [n] whose each is."""
    dealt = np.zeros(len(names), dtype=np.int64)
    if hands:
        dealt[common_order(names, key)] = np.arange(len(names)) % hands
    return dealt


def _own(
    table: Mapping[str, np.ndarray], rows: np.ndarray, party: str, columns: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    rows = rows[own_order(table["id"][rows].tolist(), party, seed)]
    return {name: table[name][rows] for name in columns}


def _movies(table: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: table[name][rows] for name in MOVIE_COLUMNS}


def _distinct(numbers: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the distinct numbers as text, for each row its place among them, and a row of each."""
    values, first, places = np.unique(numbers, return_index=True, return_inverse=True)
    return [str(value) for value in values], places, first


def _axes(what: str) -> list[tuple[str, int]]:
    return [(f"{what} of users", _USERS), (f"{what} of movies", _MOVIES)]


def _uniform(what: str, count: int) -> np.ndarray:
    """Draws numbers within 0 and 1 from a hash, [count] float64."""
    stream = hashlib.shake_256(f"vfl made ratings\0{what}".encode()).digest(8 * count)
    return np.asarray(((np.frombuffer(stream, "<u8") >> np.uint64(11)) + 0.5) * 2.0**-53)


def _normal(what: str, count: int) -> np.ndarray:
    """Draws normal numbers likewise (Box and Muller, 1958)."""
    radius = np.sqrt(-2.0 * np.log(_uniform(f"{what} radius", count)))
    return np.asarray(radius * np.cos(2.0 * np.pi * _uniform(f"{what} angle", count)))
