"""Checks that what a job says fits its protocol, and what a site says its party's part in the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel

from protocols import Protocol
from vfl.config.job import Job, PartyEntry
from vfl.config.load import suggestion
from vfl.config.prepare import PrepareEntry
from vfl.config.site import Site
from vfl.errors import ConfigError

#: Without a party of one of these roles the others may go on; without any other nobody has the result.
DISPENSABLE: Final = ("feature", "participant")

#: What a site says of networks and of columns, which a recommendation has none of.
_NOT_OF_RATINGS: Final = ("table", "label", "bottom", "trunk", "head", "optimizer", "schedule")


def check_protocol(job: Job, protocol: Protocol, options: BaseModel, where: str) -> None:
    """Checks that a protocol can do a job's task with its parties.

    Raises:
        ConfigError: naming the document, key, value and remedy.
    """
    _check_task(job, protocol, where)
    _check_parties(job, protocol, options, where)
    if job.task == "recommendation":
        _check_shared(job, options, where)


def _check_task(job: Job, protocol: Protocol, where: str) -> None:
    """Refuses ratings where columns are wanted, and the other way round."""
    from vfl.learn.scores import METRICS

    recommends = "participant" in protocol.roles
    if recommends != (job.task == "recommendation"):
        known = [task for task in METRICS if (task == "recommendation") == recommends]
        raise ConfigError(
            f"{where}: task = {job.task!r}: {protocol.name} is for {' or '.join(map(repr, known))}; "
            f"set that, or choose another protocol"
        )
    if job.metric is not None and job.metric not in METRICS[job.task]:
        raise ConfigError(f"{where}: metric = {job.metric!r}: {suggestion(job.metric, METRICS[job.task])}")


def _check_shared(job: Job, options: BaseModel, where: str) -> None:
    """Refuses what cannot be with the axis that participants share."""
    if shares(job, options) == "items" and job.align not in (None, "given"):
        raise ConfigError(
            f"{where}: align = {job.align!r}: participants have users of their own, so there are none to "
            f"align; leave it out"
        )
    if shares(job, options) == "users" and job.metric not in (None, "rmse", "mae"):
        raise ConfigError(
            f"{where}: metric = {job.metric!r}: where each participant has items of its own, none has all to "
            f'rank; set "rmse" or "mae"'
        )


def shares(job: Job, options: BaseModel) -> Literal["rows", "items", "users"]:
    """Tells what all parties but a coordinator have in common."""
    if job.task != "recommendation":
        return "rows"
    return "items" if getattr(options, "by", "user") == "user" else "users"


def _check_parties(job: Job, protocol: Protocol, options: BaseModel, where: str) -> None:
    roles = {name: party.role for name, party in job.parties.items()}
    for name, role in roles.items():
        if role not in protocol.roles:
            raise ConfigError(f"{where}: parties.{name}.role = {role!r}: {suggestion(role, protocol.roles)}")
    widths = {name: party.width for name, party in job.parties.items()}
    in_file(where, lambda: protocol.module.check_roster(options, roles, widths))
    if job.on_absence == "continue":
        _check_goes_on(protocol, options, roles, widths, where)


def _check_goes_on(
    protocol: Protocol,
    options: BaseModel,
    roles: Mapping[str, str],
    widths: Mapping[str, int | None],
    where: str,
) -> None:
    """Refuses to go on without a party where the others could not without any."""
    why = "it needs all parties"
    for gone in [name for name, role in roles.items() if role in DISPENSABLE and protocol.goes_on]:
        try:
            left = {name: role for name, role in roles.items() if name != gone}
            protocol.module.check_roster(options, left, widths)
            return
        except ConfigError as error:
            why = f"without {gone} {error}"
    raise ConfigError(
        f'{where}: on_absence = "continue": {protocol.name} cannot do without a party ({why}); '
        f'choose "wait" or "abort", or let one more party contribute'
    )


def check_site(job: Job, options: BaseModel, site: Site) -> None:
    """Checks that a site fits its party's part in the job.

    Raises:
        ConfigError: naming the document, key, value and remedy.
    """
    where = f"{site.party}.toml"
    party = job.parties.get(site.party)
    if party is None:
        known = suggestion(site.party, job.parties)
        raise ConfigError(f"{where}: party = {site.party!r}: is not in the job; {known}")
    faults = _site_faults(job, site, party)
    if job.task == "recommendation":
        faults = _ratings_faults(site, party, shares(job, options))
    fault = next(faults, None)
    if fault:
        raise ConfigError(f"{where}: {fault}")


def _site_faults(job: Job, site: Site, party: PartyEntry) -> Iterator[str]:
    """Says what of a site does not fit its party's part in the job, the first fault first."""
    owners = {"label": "label", "head": "label", "trunk": "label"}
    if job.with_role("coordinator"):
        owners["trunk"] = "coordinator"
    elif site.head is not None:
        yield "head: is for a job with a coordinator, which runs the trunk before it; describe all in trunk"
    for key, owner in owners.items():
        if getattr(site, key) is not None and party.role != owner:
            yield f"{key}: belongs to the {owner} party, and {site.party} is a {party.role} party"
    yield from _table_faults(site, party)
    for key in ("ratings", "catalogue"):
        if getattr(site, key) is not None:
            yield f"{key}: is for a recommendation, and this task is {job.task}; leave it out"


def _table_faults(site: Site, party: PartyEntry) -> Iterator[str]:
    if party.role == "coordinator":
        if site.table is not None:
            yield "table: a coordinator has no rows of its own; leave it out"
    elif site.table is None:
        yield "table: is missing; add [table] with the source of this party's rows"
    elif site.has_features and party.width is None:
        yield f"table.columns: the job gives {site.party} no width; add one there, or leave them out"
    elif not site.has_features and party.width is not None:
        yield f"table.columns: is missing; the job expects width {party.width} from {site.party}"
    elif party.role == "label" and site.label is None:
        yield "label: is missing; add [label] with the column that holds it"
    if not site.has_features and site.bottom is not None:
        yield "bottom: there are no columns to give it; name some in table.columns, or leave it out"


def _ratings_faults(site: Site, party: PartyEntry, shared: str) -> Iterator[str]:
    """Says the same of a site in a recommendation."""
    for key in _NOT_OF_RATINGS:
        if getattr(site, key) is not None:
            yield f"{key}: is of no use in a recommendation; leave it out"
    if site.prepare != PrepareEntry():
        yield "prepare: is of no use in a recommendation; leave it out"
    if party.role == "coordinator":
        if site.ratings is not None or site.catalogue is not None:
            key = "ratings" if site.ratings is not None else "catalogue"
            yield f"{key}: a coordinator has no ratings of its own; leave it out"
    elif site.ratings is None:
        yield "ratings: is missing; add [ratings] with the source of this participant's ratings"
    elif site.catalogue is None and shared == "items":
        yield "catalogue: is missing; add [catalogue] with the source of the items, the same for all"


def in_file(where: str, check: Any) -> Any:  # noqa: ANN401 - passes on what the check returns
    """Runs a check, and says in which document a fault is."""
    try:
        return check()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
