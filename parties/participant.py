"""A participant: ratings of its own, and a catalogue of items; the shared factors it has with the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from parties.aligning import Aligned, check_enough, order_in_common
from parties.assembly import Assembly, PlacedSite
from parties.seat import Opening, Part, plan_of, seed_of
from vfl.config.job import Job
from vfl.errors import ConfigError, DataError, VflError
from vfl.journal import Journal
from vfl.learn.learner import Learner
from vfl.ratings.catalogue import Catalogue, read_catalogue
from vfl.ratings.factors import begin_factors
from vfl.ratings.holding import RatingsHolding, check_enough_ratings, check_items, hold
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings, read_ratings
from vfl.session import Session
from vfl.wire.codec import MAX_FRAME_BYTES
from vfl.wire.line import Line


@dataclass(frozen=True, eq=False)
class OpenedRatings:
    """Is a participant's tables, read.

    Attributes:
        ratings: its ratings, and whose they are.
        catalogue: the items that can be rated; None where it has none, which is where users are shared.
        by_user: whether participants have users of their own, and share the items.
        user_column: the column of users' ids.
        item_column: the catalogue's column of items' ids.
    """

    ratings: Ratings
    catalogue: Catalogue | None
    by_user: bool
    user_column: str
    item_column: str

    @cached_property
    def to_align(self) -> Aligned:
        """What all participants have in common: the items of the catalogue, or the users."""
        if self.by_user:
            assert self.catalogue is not None  # noqa: S101 - checked with the assembly
            source, column, names = self.catalogue.source, self.item_column, self.catalogue.ids
        else:
            source, column, names = self.ratings.source, self.user_column, self.ratings.user_ids
        ids = np.array(names, dtype=object)  # [n]
        return Aligned(source, column, ids, len(ids))


@dataclass(frozen=True)
class RatingsPart(Part):
    """Is a participant's part of a training.

    Attributes:
        ratings: its ratings as they train; only a part without any has none.
        common: [m] the keyed hashes of the ids that all participants share, in order.
        common_source: the table that they are from.
        in_table: how many ratings its table has.
    """

    ratings: RatingsHolding | None = None
    common: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    common_source: str = ""
    in_table: int = 0

    @property
    def marks(self) -> np.ndarray:
        """[m] The keyed hashes of the shared ids, in order."""
        return self.common

    @property
    def source(self) -> str:
        """How errors call what `marks` are of."""
        return self.common_source

    @property
    def kind(self) -> str:
        """What is counted."""
        return "ratings"

    @property
    def counts(self) -> dict[str, int]:
        """How many ratings each split has."""
        return {name: len(part) for name, part in self.ratings.parts.items()} if self.ratings else {}

    @property
    def table_rows(self) -> int:
        """How many ratings the table has."""
        return self.in_table


def open_ratings(assembly: Assembly, placed: PlacedSite) -> OpenedRatings:
    """Reads a participant's ratings and its catalogue.

    Raises:
        DataError: if a table or a value in it cannot be used.
    """
    site, entry = placed.site, placed.site.ratings
    assert entry is not None  # noqa: S101 - checked with the assembly
    low, high = assembly.job.scale or (0.0, 0.0)
    try:
        ratings = read_ratings(
            entry.source,
            placed.folder,
            user=entry.user,
            item=entry.item,
            rating=entry.rating,
            time=entry.time,
            scale=(low, high),
        )
        check_enough_ratings(ratings.source, len(ratings))  # before fewer users are told of
        catalogue = read_items(placed)
    except DataError as error:
        raise DataError(f"{site.party}.toml: {error}") from error
    item = site.catalogue.item if site.catalogue else entry.item
    return OpenedRatings(ratings, catalogue, assembly.shares == "items", entry.user, item)


def read_items(placed: PlacedSite) -> Catalogue | None:
    """Reads a participant's catalogue; None where its site names none.

    Raises:
        DataError: if it cannot be used.
    """
    entry = placed.site.catalogue
    if entry is None:
        return None
    return read_catalogue(
        entry.source,
        placed.folder,
        item=entry.item,
        title=entry.title,
        features=entry.features,
        separator=entry.separator,
    )


def participant_opening(assembly: Assembly, name: str, journal: Journal) -> Opening:
    """Opens a participant's tables for training.

    Raises:
        DataError: if a table cannot be used.
    """
    opened = open_ratings(assembly, assembly.sites[name])

    def make(places: np.ndarray | None) -> Part:
        return participant_part(assembly, name, opened, places, journal)

    return Opening(make, opened.to_align.ids)


def participant_part(
    assembly: Assembly, name: str, opened: OpenedRatings, places: np.ndarray | None, journal: Journal
) -> RatingsPart:
    """Makes a participant's part of a training.

    Raises:
        ConfigError: if its mask cannot be made, or the shared axis is too long for a message.
        DataError: if its ratings cannot be used.
    """
    job, placed, options = assembly.job, assembly.sites[name], assembly.options
    ids, marks, _ = order_in_common(job, opened.to_align.ids, places)
    if not opened.by_user:
        check_shared_users(job, opened, ids)
    holding = hold_ratings(assembly, placed, opened, ids)
    check_message(assembly, name, holding.m)
    mask = make_mask(assembly, placed, holding, opened.catalogue)
    factors = Learner(begin_factors(holding, options.rank, job.seed))  # type: ignore[attr-defined]

    async def role(line: Line, session: Session) -> Any:  # noqa: ANN401 - what the protocol's role returns
        return await assembly.protocol.roles["participant"](
            line,
            session=session,
            holding=holding,
            mask=mask,
            factors=factors,
            plan=plan_of(job),
            journal=journal,
            alone=alone_sums(assembly, holding, mask, journal) if job.alone else None,
        )

    return RatingsPart(
        name=name,
        role=role,
        learners={"factors": factors, "mask": Learner(mask)},
        holding=None,
        saved={
            "own_ids": list(holding.own_ids),
            "shared_ids": list(holding.shared_ids),
            "ratings": ratings_digest(holding),
            "notes": list(assembly.notes),
        },
        ratings=holding,
        common=marks,
        common_source=opened.to_align.source,
        in_table=len(opened.ratings),
    )


def ratings_digest(holding: RatingsHolding) -> str:
    """Hashes ratings, each with its user's and its item's id, whatever order a table has them in."""
    own, shared, value = (
        np.concatenate([getattr(part, key) for part in holding.parts.values()])
        for key in ("own", "shared", "value")
    )
    order = np.lexsort((shared, own))
    said = hashlib.sha256()
    for names in (holding.own_ids, holding.shared_ids):
        ids = [name.encode() for name in names]
        said.update(np.array([len(ids), *map(len, ids)], "<i8").tobytes() + b"".join(ids))
    for column, kind in ((own, "<i8"), (shared, "<i8"), (value + 0.0, "<f8")):  # -0.0 rates as 0.0 does
        said.update(column[order].astype(kind).tobytes())
    return said.hexdigest()


def check_shared_users(job: Job, opened: OpenedRatings, ids: np.ndarray) -> None:
    """Refuses to go on with too few users.

    Raises:
        TooFewRows: if there are fewer than the job wants.
    """
    whole = opened.to_align
    check_enough(
        job,
        whole.source,
        len(ids),
        whole.of,
        job.min_rows,
        whole.ids[0],
        kind="users",
        column="ratings.user",
    )


def hold_ratings(
    assembly: Assembly, placed: PlacedSite, opened: OpenedRatings, shared_ids: np.ndarray
) -> RatingsHolding:
    """Lays a participant's ratings out along the two axes, and parts them.

    Raises:
        ConfigError: if the job's split cannot be made of them.
        DataError: if there are too few, or one is of an item that is not in the catalogue.
    """
    job, split = assembly.job, assembly.job.split
    low, high = job.scale or (0.0, 0.0)
    try:
        if opened.catalogue is not None:
            check_items(opened.ratings, opened.catalogue)
        holding = hold(
            opened.ratings,
            by="user" if opened.by_user else "item",
            shared_ids=shared_ids.tolist(),
            split=Split(split.kind, split.valid, split.test),
            seed=job.seed,
            scale=(low, high),
        )
        holding.check_trainable()
    except DataError as error:
        raise DataError(f"{placed.site.party}.toml: {error}") from error
    return holding


def make_mask(
    assembly: Assembly, placed: PlacedSite, holding: RatingsHolding, catalogue: Catalogue | None
) -> PersonalMask:
    """Fits a participant's mask on its own ratings that train.

    Raises:
        ConfigError: if the job's kind of mask needs what the catalogue has not.
    """
    options: Any = assembly.options
    seed = seed_of(assembly.job, placed.site, "mask")
    try:
        return fit_mask(options.mask, holding, catalogue, seed=seed, rank=options.mask_rank)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{placed.site.party}.toml: {error}") from error


def check_message(assembly: Assembly, name: str, m: int) -> None:
    """Refuses an axis that is too long for one message.

    Raises:
        ConfigError: naming what to make smaller.
    """
    if max(assembly.step_bytes(name, m)) > MAX_FRAME_BYTES:
        raise ConfigError(
            f"{name}.toml: {m} {assembly.shares} in common make a contribution too large for one message of "
            f"{MAX_FRAME_BYTES // 2**20} MiB; choose a smaller rank in protocols.{assembly.protocol.name}"
        )


def alone_sums(
    assembly: Assembly, holding: RatingsHolding, mask: PersonalMask, journal: Journal
) -> Tensor | None:
    """Trains on a participant's own ratings alone; returns the sums that score it, to be added up.

    Where that fails, nothing of its own is in the sum: what is trained together is finished all the same.
    """
    import torch

    from vfl.ratings.alone import Settings, train_alone
    from vfl.ratings.ranking import ranking_sums
    from vfl.ratings.scores import error_sums

    options: Any = assembly.options
    settings = Settings(
        plan=plan_of(assembly.job),
        rank=options.rank,
        regularisation=options.regularisation,
        solver=options.solver,
        batches=options.batches,
        optimizer=options.optimizer,
        seed=assembly.job.seed,
    )
    by_user = holding.by == "user"
    try:
        (factors,) = train_alone(holding, mask, settings).factors
        sums = [error_sums(factors, mask, holding, "test")]
        return torch.cat(sums + ([ranking_sums(factors, mask, holding, "test")] if by_user else []))
    except VflError as error:
        journal.warn(f"training alone, to compare, failed: {error}")
        return torch.zeros(7 if by_user else 3, dtype=torch.int64)
