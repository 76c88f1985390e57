"""Recommends items to one user, with all trained participants of a run here, or with others elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parties.asking import Question, participant_predictor, unknown_user
from parties.assembly import Assembly, assemble
from parties.display import Display
from parties.participant import RatingsPart
from parties.party import predictor_seat
from parties.predicting import all_trained
from parties.seat import Played, kinds_of
from parties.single import run_predictor
from parties.trained import JOB_FILE, Trained, load_trained
from vfl.data.rows import canonical_id
from vfl.data.text import shown
from vfl.errors import ConfigError
from vfl.journal import Silent
from vfl.ratings.holding import RatingsHolding
from vfl.wire.line import Role
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


@dataclass(frozen=True)
class Answer:
    """Is what a party did for another one that asked.

    Attributes:
        party: the one that answered, or passed answers on.
        asked_by: the participant that asked.
        n: how many items it asked for.
        shown: how many of this party's items it was shown; None at a coordinator, which has none.
    """

    party: str
    asked_by: str
    n: int
    shown: int | None

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as one JSON object."""
        return {"status": "finished", **asdict(self)}


def recommend(run: str | Path, user: str, n: int = 10, party: str | None = None) -> Recommendation:
    """Finds the items that a user has not rated and is predicted to rate highest.

    Args:
        run: a finished run's folder; where participants have users of their own, one party's in it will do.
        user: the user's id, as it stands in the ratings.
        n: how many items.
        party: whose user it is, or who asks; by default whoever has the user.

    Raises:
        ConfigError: if the run is none, or no recommender, the party none of its participants, or the user
            not known.
        DataError: if a table is not the one that was trained on.
        Refused: if the parties' folders are of different trainings.
    """
    folder = Path(run)
    parts = _load(folder)
    assembly = _assembled(folder, parts)
    return _recommend(folder, parts, assembly, _question(user, n), party)


def recommend_here(
    run: Path, user: str | None, n: int | None = None, party: str | None = None
) -> Recommendation | Answer:
    """Recommends as `recommend` does, or, for one party's folder of many, together with the others' hosts.

    Args:
        run: a finished run's folder, or one party's in it.
        user: the user's id; None where another party asks.
        n: how many items, 10 by default.
        party: as for `recommend`.

    Returns:
        The recommendation, or at a party that did not ask what it did for the one that did.

    Raises:
        VflError: as for `recommend`, and as the peers or the network give cause.
    """
    parts = _load(run)
    assembly, names = _assembled(run, parts), [*parts]
    asked = None if user is None else _question(user, 10 if n is None else n)
    if (run / JOB_FILE).is_file():
        if party is not None:
            raise ConfigError(f"--party {party}: {run} is the folder of {names[0]} alone: leave --party out")
        if assembly.shares != "items":
            return _with_others(run, parts[names[0]], assembly, asked, n)
    if asked is None:
        raise ConfigError(
            f"--user: is missing: name the user to recommend to, by the id that stands in the ratings: "
            f"vfl recommend {run} --user ID"
        )
    return _recommend(run, parts, assembly, asked, party)


def _question(user: str, n: int) -> Question:
    return Question(canonical_id(user) or "", n)


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


def _assembled(folder: Path, parts: Mapping[str, Trained]) -> Assembly:
    job = next(iter(parts.values())).job
    return assemble(job, {name: part.placed for name, part in parts.items()}, f"{folder}: {JOB_FILE}")


# --- all in one folder -----------------------------------------------------------------------------------


def _recommend(
    folder: Path, parts: Mapping[str, Trained], assembly: Assembly, asked: Question, party: str | None
) -> Recommendation:
    """Plays the dialogue of all who are needed in this process."""
    holders = {name: part for name, part in parts.items() if name in assembly.holders}
    asker = _holder(assembly, holders, asked.user, party)
    if assembly.shares == "items":  # whoever has the user needs nobody else
        part = participant_predictor(assembly, asker, parts[asker], Silent(), asked)
        session = assembly.session(asker)
        played = _played(assembly, {asker: lambda line: part.role(line, session)})
        return _found(parts[asker], asked, Played(part, played[asker]))
    if len(parts) < len(assembly.job.parties):
        raise _not_all(folder, assembly, parts)
    seats = {
        name: predictor_seat(assembly, name, part, _unseen, question=asked if name == asker else None)
        for name, part in parts.items()
    }
    played = _played(assembly, {name: seat.role for name, seat in seats.items()})
    return _found(parts[asker], asked, played[asker])


def _played(assembly: Assembly, roles: Mapping[str, Role[Any]]) -> dict[str, Any]:
    streams = {name: nullcontext() for name in roles}  # nothing is drawn
    return rehearse(roles, kinds_of(assembly), streams=streams, record=False).results


def _unseen(event: Any) -> None:  # noqa: ANN401 - any event
    """Shows nothing of what takes a moment."""


def _holder(assembly: Assembly, parts: Mapping[str, Trained], user: str, party: str | None) -> str:
    """Finds the participant that has a user."""
    if party is not None and party not in parts:
        known = ", ".join(parts) or "none, so name a participant's folder"
        raise ConfigError(f"--party {party}: is no participant here; known: {known}")
    axis = "own_ids" if assembly.shares == "items" else "shared_ids"
    asked = parts if party is None else {party: parts[party]}
    found = [name for name, part in asked.items() if user in part.saved[axis]]
    if not asked:
        raise ConfigError(
            "the folder is a coordinator's, which has no users: name a participant's, or the run's"
        )
    if not found:
        raise unknown_user(assembly, user, [*asked])
    if len(found) > 1 and assembly.shares == "items":
        raise ConfigError(
            f"--user {shown(user)}: {' and '.join(found)} have a user of that id each: say whose with --party"
        )
    return found[0]


# --- each on its own host --------------------------------------------------------------------------------


def _with_others(
    run: Path, part: Trained, assembly: Assembly, asked: Question | None, n: int | None
) -> Recommendation | Answer:
    """Takes part from here: asks, or answers whoever does."""
    name, site = part.placed.site.party, part.placed.site
    if asked is None and n is not None:
        raise ConfigError(
            f"-n {n}: who asks says how many items: leave it out, or name a user with --user ID"
        )
    if asked is not None and name not in assembly.holders:
        raise ConfigError(
            f"--user {shown(asked.user)}: {name} is the coordinator and has no users: leave --user out here, "
            f"and ask at a participant"
        )
    if not (site.bind or site.connect or assembly.job.parties[assembly.hub].address):
        raise _not_all(run, assembly, [name])
    with Display([name]) as display:
        played = run_predictor(part, display, asked)
    if asked is not None:
        return _found(part, asked, played)
    shown_items = len(played.result.items) if name in assembly.holders else None
    return Answer(name, played.result.asker, played.result.top, shown_items)


def _not_all(folder: Path, assembly: Assembly, held: Collection[str]) -> ConfigError:
    others = [name for name in assembly.job.parties if name not in held]
    return ConfigError(
        f"{folder}: holds {', '.join(held)} but not {', '.join(others)}, and each has items of its own; name "
        f"a folder with all of them (between hosts the job has to say parties.{assembly.hub}.address)"
    )


# --- what was found --------------------------------------------------------------------------------------


def _found(part: Trained, asked: Question, played: Played) -> Recommendation:
    """Says what came of a question at the party that asked it."""
    assert isinstance(played.part, RatingsPart)  # noqa: S101 - only a participant asks
    assert played.part.ratings is not None  # noqa: S101 - it has ratings
    result, name = played.result, played.part.name
    items = [
        Recommended(item, result.titles.get(item, item), round(rating, 4)) for item, rating in result.items
    ]
    trains, rated = _counts(played.part.ratings, asked.user)
    notes = tuple(str(note) for note in part.saved.get("notes", ()))
    if not trains:
        notes += (
            f"{name} has no rating of user {shown(asked.user)} that trained: this is what users like there.",
        )
    return Recommendation(asked.user, name, items, rated, notes)


def _counts(holding: RatingsHolding, user: str) -> tuple[int, int]:
    """Counts a user's ratings here: those that train, and all."""
    by_user = holding.by == "user"
    place = holding.own_place(user) if by_user else holding.shared_place(user)
    counts = {
        split: int(np.count_nonzero((part.own if by_user else part.shared) == place))
        for split, part in holding.parts.items()
    }
    return counts["train"], sum(counts.values())
