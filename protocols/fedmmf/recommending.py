"""Recommends items to a user: at the party that holds the user, or over all parties' items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from protocols.fedmmf.messages import Ask, Askers, Best, Wish
from protocols.fedmmf.roster import Config
from vfl.errors import ConfigError, Refused, RemoteProtocolError
from vfl.journal import Journal
from vfl.ratings.factors import Factors
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask
from vfl.session import Session
from vfl.wire.line import Line

#: So many items may be asked for where only the party that asks computes them.
MOST_ITEMS = 1000
#: So many where others show theirs: of all that a party has, those that are missing would be the rated ones.
MOST_SHOWN = 100
_MOST_TITLE = 100
_MOST_TEXT_BYTES = 60_000  # of the 64 KiB that a message's header may have
_LISTED = 5


@dataclass(frozen=True)
class Answered:
    """Is what came of one question.

    Attributes:
        asker: the participant that asked.
        top: how many items it asked for.
        items: with the ratings predicted, the best first: at who asked those of all participants, at the
            others their own that were shown to it; a coordinator has none.
        titles: what items are called, where they have a title.
    """

    asker: str
    top: int
    items: list[tuple[str, float]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)


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
    title_of: Callable[[str], str] = str,
) -> Answered | None:
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
        title_of: gives an item's title; the id of one that has none.

    Returns:
        What was found or shown; None where nobody is heard, as participants have users of their own.

    Raises:
        DataError: if this party has no such user.
        ConfigError: if more items are asked for than can be said.
        Refused: if nobody asks, or more than one.
        RemoteProtocolError: if the coordinator says what is no answer.
    """
    config: Config = session.options
    check_top(top, shown=config.by == "item")
    if config.by == "user":
        if user is None:
            return None
        found = best_items(holding, mask, factors, holding.own_place(user), top)
        return _answered(session.me, top, holding.scale, [(*one, title_of(one[0])) for one in found])
    place = None if user is None else holding.shared_place(user)
    await line.say(session.hub, Wish(place is not None))
    asker = _the_asker(session, await line.hear(session.hub, Askers), place is not None)
    if place is None:
        ask = await line.hear(session.hub, Ask)
        if not 0 <= ask.user < holding.m or not 1 <= ask.top <= MOST_SHOWN:
            raise RemoteProtocolError(session.hub, f"asks for {ask.top} items of user {ask.user}")
        shown = _that_fit(best_items(holding, mask, factors, ask.user, ask.top), title_of)
        await line.say(session.hub, _best(shown))
        return _answered(asker, ask.top, holding.scale, shown)
    await line.say(session.hub, Ask(place, top))
    every = [(*one, title_of(one[0])) for one in best_items(holding, mask, factors, place, top)]
    for _ in range(len(session.with_role("participant")) - 1):
        heard = _read(session.hub, await line.hear(session.hub, Best), top)
        known = {*holding.own_ids, *(item for item, *_ in every)}  # an item has one owner; here, the first
        every += [
            (item, rating, title_of(item) if title in ("", item) else title)
            for item, rating, title in heard
            if item not in known
        ]
    every.sort(key=lambda one: (-one[1], one[0]))
    return _answered(asker, top, holding.scale, every[:top])


async def coordinator_recommends(line: Line, *, session: Session, journal: Journal) -> Answered | None:
    """Passes a question on to all participants but the one that asks, and their answers back.

    Raises:
        Refused: if nobody asks, or more than one.
        RemoteProtocolError: if one of them says something else.
    """
    config: Config = session.options
    if config.by == "user":
        return None
    names = session.with_role("participant")
    asking = tuple([name for name in names if (await line.hear(name, Wish)).asks])
    for name in names:
        await line.say(name, Askers(asking))
    asker = _one_of(asking, session)
    ask = await line.hear(asker, Ask)
    if not 1 <= ask.top <= MOST_SHOWN or ask.user < 0:
        raise RemoteProtocolError(asker, f"asks for {ask.top} items of user {ask.user}")
    others = [name for name in names if name != asker]
    for name in others:
        await line.say(name, ask)
    for name in others:
        best = await line.hear(name, Best)
        _read(name, best, ask.top)
        await line.say(asker, best)
    return Answered(asker, ask.top)


def check_top(top: int, *, shown: bool) -> None:
    """Checks how many items are asked for.

    Args:
        top: how many.
        shown: whether other parties show theirs.

    Raises:
        ConfigError: if that is none, or too many.
    """
    most = MOST_SHOWN if shown else MOST_ITEMS
    if not 1 <= top <= most:
        raise ConfigError(f"-n {top}: ask for 1 to {most} items")


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


def _the_asker(session: Session, askers: Askers, asks: bool) -> str:
    """Reads who asks.

    Raises:
        Refused: if that is nobody, or more than one.
        RemoteProtocolError: if it cannot be true.
    """
    known = session.with_role("participant")
    if list(askers.names) != [name for name in known if name in askers.names]:
        raise RemoteProtocolError(session.hub, f"says that {_listed(askers.names)} ask, who are no roster")
    if asks != (session.me in askers.names):
        raise RemoteProtocolError(session.hub, f"says that {session.me} asks, or does not, against its word")
    return _one_of(askers.names, session)


def _one_of(asking: Sequence[str], session: Session) -> str:
    """Takes the one that asks; all parties find the same fault, and each names another one than itself."""
    if len(asking) == 1:
        return asking[0]
    others = [name for name in asking or session.with_role("participant") if name != session.me]
    if not asking:
        raise Refused(
            others[0], "asks for no user, and nobody else does: start one participant with --user ID"
        )
    rest = [name for name in asking if name != others[0]]
    raise Refused(
        others[0], f"asks for a user, and so does {_listed(rest)}: start all but one without --user"
    )


def _listed(names: Sequence[str]) -> str:
    """Names a few of many, with a peer's words kept short and printable."""
    few = [name if name.isprintable() and len(name) <= 40 else ascii(name[:40]) for name in names[:_LISTED]]
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return " and ".join(few + more) or "nobody"


def _answered(
    asker: str, top: int, scale: tuple[float, float], found: Sequence[tuple[str, float, str]]
) -> Answered:
    items = [(item, float(np.clip(rating, *scale))) for item, rating, _ in found]
    return Answered(asker, top, items, {item: title for item, _, title in found if title != item})


def _that_fit(
    found: Sequence[tuple[str, float]], title_of: Callable[[str], str]
) -> list[tuple[str, float, str]]:
    """Takes as many of the best items as fit into a message with their titles."""
    kept, n_bytes = [], 0
    for item, rating in found:
        title = title_of(item)[:_MOST_TITLE]
        n_bytes += len(item.encode()) + len(title.encode()) + 10
        if n_bytes > _MOST_TEXT_BYTES:
            break
        kept.append((item, rating, title))
    return kept


def _best(found: Sequence[tuple[str, float, str]]) -> Best:
    ratings = torch.tensor([rating for _, rating, _ in found], dtype=torch.float64)
    return Best(tuple(item for item, *_ in found), tuple(title for *_, title in found), ratings)


def _read(peer: str, best: Best, top: int) -> list[tuple[str, float, str]]:
    """Reads an answer.

    Raises:
        RemoteProtocolError: if it is none.
    """
    ratings: Tensor = best.ratings
    if ratings.dtype != torch.float64 or ratings.dim() != 1 or not bool(torch.isfinite(ratings).all()):
        raise RemoteProtocolError(peer, "answers with ratings that are none")
    if len(ratings) != len(best.items) or len(ratings) > top:
        raise RemoteProtocolError(peer, f"answers with {len(best.items)} items where {top} were asked for")
    if not all(best.items) or len(set(best.items)) != len(best.items):
        raise RemoteProtocolError(peer, "answers with an item that has no name, or one twice")
    if len(best.titles) != len(best.items) or not all(len(title) <= _MOST_TITLE for title in best.titles):
        raise RemoteProtocolError(peer, "answers with titles that are none")
    return list(zip(best.items, ratings.tolist(), best.titles, strict=True))
