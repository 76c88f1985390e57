"""Many participants in one process, through the roles and the codec that as many processes would go through.

from parties.simulation import deal, simulate
found = simulate(deal(ratings, 50), catalogue.ids, scale=(0.5, 5.0), plan=Plan(10, metric="rmse"))
print(found.test["rmse"])
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import protocols
from parties.rated import RatedOutcome
from vfl.config.load import validate
from vfl.crypto.pairs import new_secret, public_of
from vfl.data.rows import common_order, derive_key
from vfl.errors import ConfigError
from vfl.journal import Silent
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.ratings.catalogue import Catalogue
from vfl.ratings.factors import Factors, begin_factors
from vfl.ratings.holding import RatingsHolding, hold
from vfl.ratings.personal import PersonalMask, fit_mask
from vfl.ratings.splits import Split
from vfl.ratings.table import Ratings
from vfl.session import Member, Session
from vfl.wire.handshake import NONCE_BYTES
from vfl.wire.ledger import Ledger
from vfl.wire.line import Role
from vfl.wire.rehearse import rehearse

COORDINATOR = "coordinator"


@dataclass(frozen=True, eq=False)
class Simulation:
    """Is what many participants came to.

    Attributes:
        outcome: what the coordinator has of it.
        holdings: each participant's ratings.
        masks: each participant's mask.
        factors: each participant's factors, and the shared ones, of the best round.
        ledgers: what each said and heard, in bytes.
    """

    outcome: RatedOutcome
    holdings: dict[str, RatingsHolding]
    masks: dict[str, PersonalMask]
    factors: dict[str, Factors]
    ledgers: dict[str, Ledger]

    @property
    def valid(self) -> dict[str, float]:
        """The scores on all validation ratings."""
        return self.outcome.valid

    @property
    def test(self) -> dict[str, float]:
        """The scores on all test ratings."""
        return self.outcome.test


def deal(ratings: Ratings, n: int, *, by: str = "user", seed: int = 0) -> dict[str, Ratings]:
    """Deals a table's users, or its items, out to `n` participants, in the order of their keyed hashes.

    Raises:
        ConfigError: if there are not so many.
    """
    names, codes = (ratings.user_ids, ratings.user) if by == "user" else (ratings.item_ids, ratings.item)
    if not 1 <= n <= len(names):
        raise ConfigError(f"n = {n}: the table has {len(names)} {by}s to deal out; choose at most that many")
    whose = np.empty(len(names), dtype=np.int64)
    whose[common_order(names, derive_key(seed, "simulated participants"))] = np.arange(len(names)) % n
    width, holder = len(str(n)), whose[codes]  # [ratings]
    order = np.argsort(holder, kind="stable")
    edges = np.searchsorted(holder[order], np.arange(n + 1))
    return {
        f"p{place + 1:0{width}}": _part(ratings, order[edges[place] : edges[place + 1]]) for place in range(n)
    }


def _part(ratings: Ratings, rows: np.ndarray) -> Ratings:
    """Takes some rows of a table, with the users and the items that are in them."""
    users, user = np.unique(ratings.user[rows], return_inverse=True)
    items, item = np.unique(ratings.item[rows], return_inverse=True)
    return replace(
        ratings,
        user_ids=tuple(ratings.user_ids[one] for one in users.tolist()),
        item_ids=tuple(ratings.item_ids[one] for one in items.tolist()),
        user=user.astype(np.int64),
        item=item.astype(np.int64),
        value=ratings.value[rows],
        times=None if ratings.times is None else ratings.times[rows],
    )


def simulate(
    tables: Mapping[str, Ratings],
    shared_ids: Sequence[str],
    *,
    scale: tuple[float, float],
    plan: Plan,
    options: Mapping[str, Any] | None = None,
    split: Split | None = None,
    catalogue: Catalogue | None = None,
    seed: int = 0,
    protocol: str = "fedmmf",
) -> Simulation:
    """Trains all participants in this process.

    Args:
        tables: each participant's ratings, by its name.
        shared_ids: the items that all share; or the users, where participants have items of their own.
        scale: the lowest and the highest rating there can be.
        plan: how long to train, and which round to keep.
        options: the protocol's own, as under `[protocols.fedmmf]`.
        split: which ratings are held out; a tenth to validate and a tenth to test by default.
        catalogue: the items' features, where the mask needs them.
        seed: the job's.
        protocol: its name.

    Raises:
        VflError: as the options, a table or the training give cause.
    """
    loaded = protocols.load(protocol)
    config: Any = validate(loaded.config, options or {}, f"protocols.{protocol}")
    roles = {COORDINATOR: COORDINATOR} | dict.fromkeys(tables, "participant")
    loaded.module.check_roster(config, roles, dict.fromkeys(roles))
    sessions = _sessions(roles, config)
    holdings, masks, learners = {}, {}, {}
    for name, table in tables.items():
        held = hold(
            table, by=config.by, shared_ids=shared_ids, split=split or Split(), seed=seed, scale=scale
        )
        holdings[name] = held
        masks[name] = fit_mask(config.mask, held, catalogue, seed=seed, rank=config.mask_rank)
        learners[name] = Learner(begin_factors(held, config.rank, seed))

    def coordinator(line: Any) -> Any:  # noqa: ANN401 - what the protocol's role returns
        common = {"session": sessions[COORDINATOR], "plan": plan, "journal": Silent()}
        return loaded.roles["coordinator"](line, seed=seed, **common)

    def participant(name: str) -> Role[Any]:
        own = {"holding": holdings[name], "mask": masks[name], "factors": learners[name]}
        common = {"session": sessions[name], "plan": plan, "journal": Silent()}
        return lambda line: loaded.roles["participant"](line, **own, **common)

    cast: dict[str, Role[Any]] = {COORDINATOR: coordinator} | {name: participant(name) for name in tables}
    streams = {name: nullcontext() for name in cast}  # nothing here draws from a generator that all share
    played = rehearse(cast, loaded.messages, streams=streams, record=False, hub=COORDINATOR)
    factors = {name: _factors(learner) for name, learner in learners.items()}
    return Simulation(played.results[COORDINATOR], holdings, masks, factors, played.ledgers)


def _sessions(roles: Mapping[str, str], config: Any) -> dict[str, Session]:  # noqa: ANN401 - a protocol's own
    """Makes everybody's session: keys and nonce are new, as in every run."""
    own = {name: new_secret() for name in roles}
    members = {name: Member(role, None, public_of(own[name])) for name, role in roles.items()}
    nonce = secrets.token_bytes(NONCE_BYTES)
    return {name: Session(name, COORDINATOR, members, nonce, config, own[name]) for name in roles}


def _factors(learner: Learner) -> Factors:
    assert isinstance(learner.network, Factors)  # noqa: S101 - as it was made
    return learner.network
