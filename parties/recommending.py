"""Recommends items to one user, with the trained participants of a run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parties.assembly import Assembly, assemble
from parties.participant import OpenedRatings, hold_ratings, open_ratings
from parties.predicting import all_trained
from parties.trained import JOB_FILE, Trained, load_trained
from vfl.data.rows import canonical_id
from vfl.data.text import shown
from vfl.errors import ConfigError, DataError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.ratings.factors import Factors
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.personal import PersonalMask, mask_width
from vfl.session import Session
from vfl.wire.line import Line
from vfl.wire.rehearse import rehearse


@dataclass(frozen=True)
class Recommended:
    """Is one item that a user may like, and the rating predicted."""

    item: str
    title: str
    rating: float


@dataclass(frozen=True)
class Recommendation:
    """Is what was found for one user.

    Attributes:
        user: its id.
        party: the participant that holds it, or asked for it.
        items: the best first; none that the user has rated is among them.
        rated: how many items the user has rated at that participant.
        notes: sentences on what a reader should know.
    """

    user: str
    party: str
    items: list[Recommended]
    rated: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as one JSON object."""
        return {"status": "finished", **asdict(self)}


@dataclass(frozen=True, eq=False)
class _Member:
    """Is a trained participant with its tables read again."""

    opened: OpenedRatings
    holding: RatingsHolding
    factors: Factors
    mask: PersonalMask


def recommend(run: str | Path, user: str, n: int = 10, party: str | None = None) -> Recommendation:
    """Finds the items that a user has not rated and is predicted to rate highest.

    Args:
        run: a finished run's folder; where participants have users of their own, one party's in it will do.
        user: the user's id, as it stands in the ratings.
        n: how many items.
        party: whose user it is, or who asks; by default whoever has the user.

    Raises:
        ConfigError: if the run is none, or no recommender, or the party none of its participants.
        DataError: if the user is not known, or a table is not the one that was trained on.
    """
    folder, name = Path(run), canonical_id(user) or ""
    parts = _load(folder)
    job = next(iter(parts.values())).job
    assembly = assemble(job, {one: part.placed for one, part in parts.items()}, f"{folder}: {JOB_FILE}")
    holders = [one for one in parts if job.parties[one].role == "participant"]
    asker = _holder(assembly, {one: parts[one] for one in holders}, name, party)
    if assembly.shares == "items":
        parts = {asker: parts[asker]}
    elif missing := [one for one in job.parties if one not in parts]:
        raise ConfigError(
            f"{folder}: holds {', '.join(parts)} but not {', '.join(missing)}, and each has items of its "
            f"own; name a folder with all of them"
        )
    members = {one: _member(assembly, one, parts[one]) for one in parts if one in holders}
    found = _ask(assembly, members, [*parts], asker, name, n)
    titles = [member.opened.catalogue for member in members.values() if member.opened.catalogue]
    items = [Recommended(item, _title(item, titles), round(rating, 4)) for item, rating in found]
    trains, rated = _counts(members[asker].holding, name)
    notes = tuple(str(note) for note in parts[asker].saved.get("notes", ()))
    if not trains:
        words = f"{asker} has no rating of user {shown(name)} that trained: this is what users like there."
        notes += (words,)
    return Recommendation(name, asker, items, rated, notes)


def _load(folder: Path) -> dict[str, Trained]:
    """Reads the trained parties back: of one party's folder that one, else all."""
    if (folder / JOB_FILE).is_file():
        part = load_trained(folder)
        parts = {part.placed.site.party: part}
    else:
        parts = all_trained(folder)
    task = next(iter(parts.values())).job.task
    if task != "recommendation":
        raise ConfigError(f"{folder}: its task is {task}: predict with vfl predict {folder}")
    return parts


def _holder(assembly: Assembly, parts: Mapping[str, Trained], user: str, party: str | None) -> str:
    """Finds the participant that has a user."""
    if party is not None and party not in parts:
        known = ", ".join(parts) or "none, so name a participant's folder"
        raise ConfigError(f"--party {party}: is no participant here; known: {known}")
    axis = "own_ids" if assembly.shares == "items" else "shared_ids"
    asked = parts if party is None else {party: parts[party]}
    found = [name for name, part in asked.items() if user in part.saved[axis]]
    if not found:
        if not asked:
            raise ConfigError(
                "the folder is a coordinator's, which has no users: name a participant's, or the run's"
            )
        whom = " or ".join(asked)
        raise DataError(
            f"--user {shown(user)}: there is no such user at {whom}: give an id as it stands in the ratings; "
            f"who has come since is known once the run is repeated"
        )
    if len(found) > 1 and assembly.shares == "items":
        raise ConfigError(
            f"--user {shown(user)}: {' and '.join(found)} have a user of that id each: say whose with --party"
        )
    return found[0]


def _member(assembly: Assembly, name: str, part: Trained) -> _Member:
    options: Any = assembly.options
    opened = open_ratings(assembly, part.placed)
    shared = np.array(part.saved["shared_ids"], dtype=object)
    holding = hold_ratings(assembly, part.placed, opened, shared)
    if list(holding.own_ids) != part.saved["own_ids"]:
        raise DataError(
            f"{name}.toml: {opened.ratings.source}: holds others than were trained on: put the table back "
            f"as it was, or repeat the run"
        )
    factors = Factors(holding.n_own, holding.m, options.rank)
    Learner(factors).load_weights(part.weights["factors"])
    width = mask_width(options.mask, options.mask_rank)
    mask = PersonalMask(options.mask, holding.n_own, holding.m, width)
    Learner(mask).load_weights(part.weights["mask"])
    return _Member(opened, holding, factors, mask)


def _ask(
    assembly: Assembly, members: Mapping[str, _Member], names: list[str], asker: str, user: str, n: int
) -> list[tuple[str, float]]:
    """Plays the protocol's dialogue, of those who are needed, in this process."""
    predictors = assembly.protocol.predictors

    def role(name: str) -> Any:  # noqa: ANN401 - a role
        session: Session = replace(assembly.session(name), goes_on=False)
        common: dict[str, Any] = {"session": session, "journal": Silent()}
        if name not in members:
            return lambda line: predictors["coordinator"](line, asker=asker, **common)
        member = members[name]
        common |= {"holding": member.holding, "mask": member.mask, "factors": member.factors}
        common |= {"user": user if name == asker else None, "top": n}

        def play(line: Line) -> Any:  # noqa: ANN401 - what the protocol's role returns
            return predictors["participant"](line, **common)

        return play

    roles = {name: role(name) for name in names}
    streams = {name: nullcontext() for name in roles}  # nothing is drawn
    played = rehearse(roles, assembly.protocol.messages, streams=streams, record=False)
    found: list[tuple[str, float]] = played.results[asker]
    return found


def _title(item: str, catalogues: list[Any]) -> str:
    return next((one.title_of(item) for one in catalogues if item in one.places), item)


def _counts(holding: RatingsHolding, user: str) -> tuple[int, int]:
    """Counts a user's ratings here: those that train, and all."""
    by_user = holding.by == "user"
    place = holding.own_place(user) if by_user else holding.shared_place(user)
    counts = {
        split: int(np.count_nonzero((part.own if by_user else part.shared) == place))
        for split, part in holding.parts.items()
    }
    return counts["train"], sum(counts.values())
