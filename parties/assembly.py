"""Reads a job with its sites and checks that they fit together, before anything is started."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

import protocols
from parties.fitting import check_protocol, check_site, in_file, shares
from protocols import Alignment, Protocol
from vfl.config.job import Job
from vfl.config.load import load_job, override, read_toml, suggestion, validate
from vfl.config.site import Site
from vfl.data.batches import EVALUATION_ROWS
from vfl.errors import ConfigError
from vfl.session import Member, Session
from vfl.wire.codec import MAX_FRAME_BYTES

_LOOPBACK = re.compile(r"tcp://(127\.[0-9.]+|localhost|\[::1\]):")


@dataclass(frozen=True)
class PlacedSite:
    """Is a site and the folder that its relative paths begin at."""

    site: Site
    folder: Path


@dataclass(frozen=True)
class Assembly:
    """Is a job with its protocol and, where they are here, its parties' sites."""

    job: Job
    protocol: Protocol
    options: BaseModel
    sites: Mapping[str, PlacedSite]
    alignment: Alignment | None = None
    """How the rows that all share are found; None where all hold the same, as `align = "given"` says."""
    notes: tuple[str, ...] = ()
    """Sentences on what a reader of the scores should know of where they come from."""

    @property
    def hub(self) -> str:
        """The party that the others connect to."""
        return next(name for role in self.protocol.hub for name in self.job.with_role(role))

    @property
    def holders(self) -> list[str]:
        """The parties that have rows: all but a coordinator."""
        return [name for name, party in self.job.parties.items() if party.role != "coordinator"]

    @property
    def comparer(self) -> str:
        """The party that compares, where the rows that all share are looked for."""
        return next(name for name in (self.hub, self.reporter, *self.holders) if name in self.holders)

    @property
    def reporter(self) -> str:
        """The party that has the scores and reports: the label party, or where there is none the hub."""
        return next(iter(self.job.with_role("label")), self.hub)

    @property
    def shares(self) -> Literal["rows", "items", "users"]:
        """What all but a coordinator have in common: rows; of ratings, the items or the users."""
        return shares(self.job, self.options)

    @property
    def widths(self) -> dict[str, int]:
        """Each contributor's cut width: the feature parties', last the label party's if it has columns."""
        parties = self.job.parties
        names = [*self.job.with_role("feature"), *self.job.with_role("label")]
        return {name: width for name in names if (width := parties[name].width) is not None}

    @property
    def joint_widths(self) -> dict[str, int]:
        """What of each contributor arrives where the label party's network begins."""
        change = self.protocol.joint_widths
        return self.widths if change is None else dict(change(self.options, self.widths))

    def step_bytes(self, name: str, rows: int, *, learning: bool = True) -> tuple[int, int]:
        """Bounds what a party that is not the hub sends and receives in a step of `rows` rows, in bytes."""
        session = self.session(name)
        bounds: tuple[int, int] = self.protocol.module.step_bytes(session, rows, learning=learning)
        return bounds

    def session(self, name: str) -> Session:
        """Returns a run as one of its parties sees it, before it has keys and is named."""
        job = self.job
        members = {party: Member(entry.role, entry.width) for party, entry in job.parties.items()}
        goes_on = job.on_absence == "continue"
        return Session(
            name, self.hub, members, options=self.options, goes_on=goes_on, batch_size=job.batch_size
        )

    @property
    def learned(self) -> list[tuple[str, str]]:
        """What the protocol lets each party learn, what it says of others, and the same of aligning."""
        drawn, parties = self.protocol.learns, self.job.parties
        pick = getattr(self.protocol.module, "learns", None)
        if pick is not None:
            return [*pick(self.session(self.hub), drawn).items(), *self._learned_in_aligning]
        own = [(name, drawn[party.role]) for name, party in parties.items()]
        rest = [(who, what) for who, what in drawn.items() if who not in self.protocol.roles]
        return own + rest + self._learned_in_aligning

    @property
    def _learned_in_aligning(self) -> list[tuple[str, str]]:
        if self.alignment is None:
            return []
        way, learns = self.alignment.name, self.alignment.learns
        who = {"hub": self.comparer, "party": "every party with rows", "relay": self.hub}
        return [
            (f"{who.get(role, role)}, in aligning by {way}", what.removeprefix("If it is not the hub, "))
            for role, what in learns.items()
            if role != "relay" or self.hub != self.comparer
        ]


def assemble_folder(path: Path, overrides: Sequence[str] = ()) -> Assembly:
    """Reads a job folder, or a job file, with one `<party>.toml` a party beside it.

    An override whose first part is a party's name goes to that party's site, any other to the job.

    Raises:
        ConfigError: naming file, key, value and remedy.
    """
    job_path = path / "job.toml" if path.is_dir() else path
    if not job_path.is_file():
        raise ConfigError(f"{path}: is no job folder (with a job.toml) and no job file; check the path")
    for_site, for_job = split_overrides(overrides, _parties_of(job_path))
    job = load_job(job_path, for_job)
    folder = job_path.parent
    sites = {name: load_placed_site(folder / f"{name}.toml", for_site.get(name, ())) for name in job.parties}
    for name, placed in sites.items():
        if placed.site.party != name:
            raise ConfigError(
                f"{name}.toml: party = {placed.site.party!r}: the file is named for {name!r}; make them one"
            )
    return assemble(job, sites, job_path.name)


def split_overrides(
    overrides: Sequence[str], parties: Collection[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Parts `key=value` overrides into those of each party's site (`PARTY.key=value`) and the job's."""
    first = [override.partition("=")[0].partition(".") for override in overrides]
    owners = [name.strip() if dot else "" for name, dot, _ in first]
    for_site = {
        party: [o.partition(".")[2] for o, owner in zip(overrides, owners, strict=True) if owner == party]
        for party in parties
    }
    return for_site, [o for o, owner in zip(overrides, owners, strict=True) if owner not in parties]


def load_placed_site(path: Path, overrides: Sequence[str] = ()) -> PlacedSite:
    """Reads a site with the folder that it stands in.

    Raises:
        ConfigError: naming file, key, value and remedy.
    """
    return PlacedSite(validate(Site, override(read_toml(path), overrides), path.name), path.resolve().parent)


def assemble(
    job: Job, sites: Mapping[str, PlacedSite], where: str = "job", *, between_hosts: bool = False
) -> Assembly:
    """Checks a job and its sites against the protocol and each other.

    Args:
        job: the job.
        sites: those that are here.
        where: how errors call the job.
        between_hosts: whether each party runs on its own: where the job does not say how rows are
            aligned, it is then by private set intersection, else the tables are taken to hold the same.

    Raises:
        ConfigError: naming the document, key, value and remedy.
    """
    protocol = in_file(where, lambda: protocols.load(job.protocol))
    for name in job.protocols:
        if name not in protocols.names():
            known = suggestion(name, protocols.names())
            raise ConfigError(f"{where}: protocols.{name}: there is no such protocol; {known}")
    options = validate(
        protocol.config, job.protocols.get(job.protocol, {}), f"{where}: protocols.{job.protocol}"
    )
    check_protocol(job, protocol, options, where)
    align = "psi" if between_hosts and shares(job, options) != "items" else "given"
    job = job.model_copy(update={"align": job.align or align})
    assembly = Assembly(job, protocol, options, sites, _alignment_of(job, where))
    if assembly.shares == "rows":  # how long the axis is that participants share only their tables tell
        _check_messages(assembly, where)
    for name, party in job.parties.items():
        if party.address and name != assembly.hub:
            raise ConfigError(
                f"{where}: parties.{name}.address: only {assembly.hub} is connected to; leave it out"
            )
    for placed in sites.values():
        check_site(job, options, placed.site)
    return assembly


def check_network(assembly: Assembly, site: Site) -> tuple[str, str]:
    """Checks that a party may go on the network as its documents say.

    Returns:
        The address to use, and where it is written, for errors.

    Raises:
        ConfigError: if the address is missing, or the link would be in clear text beyond this machine.
    """
    job, hub = assembly.job, assembly.hub
    where = f"{site.party}.toml"
    key = "bind" if site.party == hub else "connect"
    own = site.bind if site.party == hub else site.connect
    address, source = (own, f"{where}: {key}") if own else (job.parties[hub].address, f"job: parties.{hub}")
    if address is None:
        raise ConfigError(
            f"job: parties.{hub}.address: is missing; write tcp://HOST:PORT where the others reach {hub}"
        )
    listed = [name for name, party in job.parties.items() if party.public_key]
    if listed and len(listed) < len(job.parties):
        missing = next(name for name in job.parties if name not in listed)
        raise ConfigError(
            f"job: parties.{missing}.public_key: is missing; make a key pair with: vfl keys {missing}"
        )
    if not listed and not is_loopback(address) and not site.insecure:
        raise ConfigError(
            f"job: parties.*.public_key: none is listed, and {address} leaves this machine in clear text; "
            f"make keys with vfl keys NAME, or allow it with --insecure"
        )
    if listed and site.secret_key is None:
        raise ConfigError(f"{where}: secret_key: is missing; name the file that vfl keys {site.party} wrote")
    return address, source


def is_loopback(address: str) -> bool:
    """Tells whether an address can be reached from this machine alone."""
    return bool(_LOOPBACK.match(address))


def _alignment_of(job: Job, where: str) -> Alignment | None:
    if job.align == "given":
        return None
    alignment = protocols.load_alignment(str(job.align))
    holders = [party for party in job.parties.values() if party.role != "coordinator"]
    if len(holders) > alignment.most_parties:
        raise ConfigError(
            f"{where}: align = {job.align!r}: is for {alignment.most_parties} parties at the most, and the "
            f'job has {len(holders)}; align them beforehand and set align = "given"'
        )
    return alignment


def _check_messages(assembly: Assembly, where: str) -> None:
    """Refuses what would be too large for a message, before any is made."""
    job = assembly.job
    rows = max(job.batch_size, EVALUATION_ROWS) + 1  # a last row that would stand alone joins a batch
    for name, party in job.parties.items():
        if name != assembly.hub and max(assembly.step_bytes(name, rows)) > MAX_FRAME_BYTES:
            what = "width or batch_size" if job.batch_size > EVALUATION_ROWS else "width"
            hub = job.parties[assembly.hub]
            if (hub.width or 0) > (party.width or 0):  # what a coordinator hands on is wider still
                name, party = assembly.hub, hub
            raise ConfigError(
                f"{where}: parties.{name}.width = {party.width}, batch_size = {job.batch_size}: a batch of "
                f"up to {rows} rows is too large for one message of {MAX_FRAME_BYTES // 2**20} MiB; "
                f"choose a smaller {what}"
            )


def _parties_of(job_path: Path) -> Mapping[str, Any]:
    parties = read_toml(job_path).get("parties", {})
    return parties if isinstance(parties, dict) else {}
