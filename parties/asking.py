"""A trained participant that is asked for a user's items, or asks for them itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parties.aligning import order_in_common
from parties.assembly import Assembly
from parties.participant import RatingsPart, hold_ratings, open_ratings, ratings_digest
from parties.trained import Trained
from protocols.fedmmf.recommending import check_top
from vfl.data.text import shown
from vfl.errors import ConfigError, DataError
from vfl.journal import Journal
from vfl.learn.learner import Learner
from vfl.ratings.factors import Factors
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask, mask_width
from vfl.session import Session
from vfl.wire.line import Line


@dataclass(frozen=True)
class Question:
    """Is what a participant asks for: a user, by the id that the ratings have, and how many items."""

    user: str
    top: int


def participant_predictor(
    assembly: Assembly, name: str, trained: Trained, journal: Journal, question: Question | None = None
) -> RatingsPart:
    """Makes a trained participant's part of recommending; one without a question answers.

    Raises:
        ConfigError: if the user is unknown here, or too many items are asked for.
        DataError: if its ratings are not those that it was trained on.
    """
    options: Any = assembly.options
    saved = trained.saved
    shared = np.array(saved["shared_ids"], dtype=object)
    if question:
        check_top(question.top, shown=assembly.shares != "items")
        if question.user not in saved["own_ids" if assembly.shares == "items" else "shared_ids"]:
            raise unknown_user(assembly, question.user, [name])
    opened = open_ratings(assembly, trained.placed)
    holding = hold_ratings(assembly, trained.placed, opened, shared)
    if list(holding.own_ids) != saved["own_ids"] or _has_others(assembly, saved, holding):
        raise DataError(
            f"{name}.toml: {holding.source}: holds other ratings than were trained on: put the table back as "
            f"it was, or repeat the run"
        )
    factors = Factors(holding.n_own, holding.m, options.rank)
    width = mask_width(options.mask, options.mask_rank)
    mask = PersonalMask(options.mask, holding.n_own, holding.m, width)
    learners = {"factors": Learner(factors), "mask": Learner(mask)}
    for key, learner in learners.items():
        learner.load_weights(trained.weights[key])

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        asks = {} if question is None else {"user": question.user, "top": question.top}
        return await assembly.protocol.predictors["participant"](
            line,
            session=session,
            holding=holding,
            mask=mask,
            factors=factors,
            journal=journal,
            title_of=opened.catalogue.title_of if opened.catalogue else str,
            **asks,
        )

    return RatingsPart(
        name=name,
        role=role,
        learners=learners,
        holding=None,
        ratings=holding,
        common=order_in_common(assembly.job, shared)[1],
        common_source=opened.to_align.source,
        in_table=len(opened.ratings),
    )


def _has_others(assembly: Assembly, saved: Mapping[str, Any], holding: RatingsHolding) -> bool:
    """Tells whether ratings are not those of the training, where what follows is shown to others.

    Of its own users a participant may know more by now: what they have rated since is not recommended.
    """
    digest = saved.get("ratings")  # a run of before there were digests has none
    return assembly.shares != "items" and digest not in (None, ratings_digest(holding))


def unknown_user(assembly: Assembly, user: str, parties: Sequence[str]) -> ConfigError:
    """Says that a user is at none of these parties, or not shared by all."""
    if assembly.shares == "items":
        where = f"there is no such user at {' or '.join(parties)}"
    else:
        where = "is not among the users that all participants share"
    return ConfigError(
        f"--user {shown(user)}: {where}: give an id as it stands in the ratings; who has come since is known "
        f"once the run is repeated"
    )
