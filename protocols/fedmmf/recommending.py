"""Recommends items to a user: at the party that holds the user, or over all parties' items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from protocols.fedmmf.messages import Ask, Best
from protocols.fedmmf.roster import Config
from vfl.errors import ConfigError, RemoteProtocolError
from vfl.journal import Journal
from vfl.ratings.factors import Factors
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask
from vfl.session import Session
from vfl.wire.line import Line

#: So many names of items fit into a message.
MOST_ITEMS = 1000
_MOST_ID_BYTES = 40_000


async def participant_recommends(
    line: Line,
    *,
    session: Session,
    holding: RatingsHolding,
    mask: PersonalMask,
    factors: Factors,
    journal: Journal,
    user: str | None = None,
    top: int = 10,
) -> list[tuple[str, float]]:
    """Recommends to one user, or answers whoever does.

    Args:
        line: this party's line.
        session: who takes part.
        holding: its ratings, those of all splits.
        mask: as trained.
        factors: likewise.
        journal: what to tell.
        user: whom this party asks for; None where another one asks.
        top: how many items to recommend.

    Returns:
        Items with the ratings predicted, the best first; nothing where another party asks.

    Raises:
        DataError: if this party has no such user.
        ConfigError: if more items are asked for than can be said.
        RemoteProtocolError: if the coordinator says what is no answer.
    """
    if not 1 <= top <= MOST_ITEMS:
        raise ConfigError(f"-n {top}: ask for 1 to {MOST_ITEMS} items")
    config: Config = session.options
    if config.by == "user":
        if user is None:
            return []
        found = best_items(holding, mask, factors, holding.own_place(user), top)
        return _within(holding.scale, found)
    if user is None:
        return await _answer(line, session, holding, mask, factors)
    place = holding.shared_place(user)
    found = best_items(holding, mask, factors, place, top)
    await line.say(session.hub, Ask(place, top))
    for _ in range(len(session.with_role("participant")) - 1):
        found += _read(session.hub, await line.hear(session.hub, Best), top)
    return _within(holding.scale, sorted(found, key=lambda pair: (-pair[1], pair[0]))[:top])


async def coordinator_recommends(
    line: Line, *, session: Session, journal: Journal, asker: str | None = None
) -> None:
    """Passes a question on to all participants but the one that asks, and their answers back.

    Raises:
        RemoteProtocolError: if one of them says something else.
    """
    config: Config = session.options
    if config.by == "user" or asker is None:
        return
    ask = await line.hear(asker, Ask)
    if not 1 <= ask.top <= MOST_ITEMS or ask.user < 0:
        raise RemoteProtocolError(asker, f"asks for {ask.top} items of user {ask.user}")
    others = [name for name in session.with_role("participant") if name != asker]
    for name in others:
        await line.say(name, ask)
    for name in others:
        best = await line.hear(name, Best)
        _read(name, best, ask.top)
        await line.say(asker, best)


def best_items(
    holding: RatingsHolding, mask: PersonalMask, factors: Factors, user: int, top: int
) -> list[tuple[str, float]]:
    """Finds the items, of those here, that a user has not rated and is predicted to rate highest.

    Predictions are not kept within the scale yet: at its end, all would rank alike.
    """
    by_user = holding.by == "user"
    scores = factors.row(user) + mask.row(user) if by_user else factors.column(user) + mask.column(user)
    names = holding.shared_ids if by_user else holding.own_ids
    scores = np.array(scores)
    for part in holding.parts.values():
        known = part.shared[part.own == user] if by_user else part.own[part.shared == user]
        scores[known] = -np.inf
    order = np.lexsort((np.arange(len(scores)), -scores))[:top]
    kept = [place for place in order.tolist() if np.isfinite(scores[place])]
    return [(names[place], float(scores[place])) for place in kept]


def _within(scale: tuple[float, float], found: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(item, float(np.clip(rating, *scale))) for item, rating in found]


async def _answer(
    line: Line, session: Session, holding: RatingsHolding, mask: PersonalMask, factors: Factors
) -> list[tuple[str, float]]:
    ask = await line.hear(session.hub, Ask)
    if not 0 <= ask.user < holding.m or not 1 <= ask.top <= MOST_ITEMS:
        raise RemoteProtocolError(session.hub, f"asks for {ask.top} items of user {ask.user}")
    found, n_bytes = [], 0
    for item, rating in best_items(holding, mask, factors, ask.user, ask.top):
        n_bytes += len(item.encode()) + 5
        if n_bytes > _MOST_ID_BYTES:
            break
        found.append((item, rating))
    ratings = torch.tensor([rating for _, rating in found], dtype=torch.float64)
    await line.say(session.hub, Best(tuple(item for item, _ in found), ratings))
    return []


def _read(peer: str, best: Best, top: int) -> list[tuple[str, float]]:
    """Reads an answer.

    Raises:
        RemoteProtocolError: if it is none.
    """
    ratings: Tensor = best.ratings
    if ratings.dtype != torch.float64 or ratings.dim() != 1 or not bool(torch.isfinite(ratings).all()):
        raise RemoteProtocolError(peer, "answers with ratings that are none")
    if len(ratings) != len(best.items) or len(ratings) > top:
        raise RemoteProtocolError(peer, f"answers with {len(best.items)} items where {top} were asked for")
    if not all(best.items):
        raise RemoteProtocolError(peer, "answers with an item that has no name")
    return list(zip(best.items, ratings.tolist(), strict=True))
