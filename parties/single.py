"""One party on its own host: `vfl party`, `vfl align`, and `vfl predict` or `recommend RUN/PARTY`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parties.aligning import Aligned
from parties.asking import Question
from parties.assembly import Assembly, PlacedSite, assemble, check_network, is_loopback
from parties.cores import share_of_cores, threads_for
from parties.events import Sink
from parties.folder import Staging
from parties.keys import read_secret
from parties.party import Connection, align_party, predict_party, train_party
from parties.seat import Played
from parties.sources import with_data_at_hand
from parties.summary import REPORT_FILE
from parties.trained import Trained
from vfl.config.job import Job


@dataclass(frozen=True)
class PartyResult:
    """Is what one party's run came to: its summary as JSON, and its run's folder."""

    summary: dict[str, Any]
    folder: Path


def run_party(job: Job, placed: PlacedSite, out: Path, sink: Sink) -> PartyResult:
    """Runs one party of a job over the network.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """
    placed = _with_secret_seed(placed)
    site = placed.site
    assembly = assemble(job, {site.party: placed}, between_hosts=True)
    connection = connection_of(assembly, placed)
    assembly = with_data_at_hand(assembly, sink)
    staging = Staging(out, job.name)
    try:
        with threads_for(site.threads or _share(assembly, connection)):
            summary = train_party(assembly, site.party, staging.party(site.party), sink, connection)
        folder = staging.publish_party(site.party)
    except BaseException as error:
        kept = staging.give_up()
        if kept is not None:
            error.add_note(f"what was trained so far is kept in {kept}")
        raise
    report = str(folder / site.party / REPORT_FILE) if summary["report"] else None
    return PartyResult(summary | {"run": folder.name, "report": report}, folder)


def run_predictor(trained: Trained, sink: Sink, question: Question | None = None) -> Played:
    """Takes part in a joint prediction over the network; the result at the label party is raw outputs.

    Of a recommendation it is what came of the question, which one of its participants has.

    Raises:
        VflError: as its checkpoint, its table, its peers or the network give cause.
    """
    placed = trained.placed
    assembly = assemble(trained.job, {placed.site.party: placed})
    connection = connection_of(assembly, placed)
    with threads_for(placed.site.threads or _share(assembly, connection)):
        return predict_party(assembly, placed.site.party, trained, sink, connection, question)


def run_alignment(job: Job, placed: PlacedSite, sink: Sink) -> Aligned | None:
    """Finds this party's shared rows with the others over the network; None for a coordinator.

    Raises:
        VflError: as its documents, its table, its peers or the network give cause.
    """
    name = placed.site.party
    assembly = assemble(job, {name: placed}, between_hosts=True)
    connection = connection_of(assembly, placed)
    with threads_for(placed.site.threads or _share(assembly, connection)):
        return align_party(assembly, name, sink, connection)


def connection_of(assembly: Assembly, placed: PlacedSite) -> Connection:
    """Finds a party's address and keys.

    Raises:
        ConfigError: if they are missing, or are not those that the job lists.
    """
    address, source = check_network(assembly, placed.site)
    keys = read_secret(assembly, placed) if _is_encrypted(assembly) else None
    return Connection(lambda: address, keys, source)


def _with_secret_seed(placed: PlacedSite) -> PlacedSite:
    """Draws a seed that no other party knows, unless the site has one."""
    if placed.site.seed is not None:
        return placed
    return replace(placed, site=placed.site.model_copy(update={"seed": secrets.randbits(63)}))


def _share(assembly: Assembly, connection: Connection) -> int:
    """Shares this machine's cores with the other parties where all are on this machine."""
    return share_of_cores(len(assembly.job.parties) if is_loopback(connection.address()) else 1)


def _is_encrypted(assembly: Assembly) -> bool:
    return all(party.public_key for party in assembly.job.parties.values())
