"""One party on its own host: `vfl party` and `vfl predict RUN/PARTY`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parties.assembly import Assembly, PlacedSite, assemble, check_network, is_loopback
from parties.cores import share_of_cores, threads_for
from parties.events import Sink
from parties.folder import Staging
from parties.party import Connection, predict_party, train_party
from parties.summary import REPORT_FILE, write_text
from parties.trained import Trained
from vfl.config.job import Job, is_party_name
from vfl.errors import ConfigError, StorageError
from vfl.wire.zeromq import KeyPair, keys_from_secret, make_keys

SECRET_ENDING, PUBLIC_ENDING = ".secret", ".public"


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
    site = placed.site
    assembly = assemble(job, {site.party: placed})
    connection = connection_of(assembly, placed)
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


def run_predictor(trained: Trained, sink: Sink) -> tuple[list[str], np.ndarray | None]:
    """Takes part in a joint prediction over the network; outputs come to the label party alone.

    Raises:
        VflError: as its checkpoint, its table, its peers or the network give cause.
    """
    placed = trained.placed
    assembly = assemble(trained.job, {placed.site.party: placed})
    connection = connection_of(assembly, placed)
    with threads_for(placed.site.threads or _share(assembly, connection)):
        seat, outputs = predict_party(assembly, placed.site.party, trained, sink, connection)
    return seat.holding.table.ids, outputs


def connection_of(assembly: Assembly, placed: PlacedSite) -> Connection:
    """Finds a party's address and keys.

    Raises:
        ConfigError: if they are missing, or are not those that the job lists.
    """
    address, source = check_network(assembly, placed.site)
    keys = read_secret(assembly, placed) if _is_encrypted(assembly) else None
    return Connection(lambda: address, keys, source)


def read_secret(assembly: Assembly, placed: PlacedSite) -> KeyPair:
    """Reads a party's secret key and checks it against the job.

    Raises:
        ConfigError: if the file cannot be read, is open to others, or is not the listed key's.
    """
    site = placed.site
    where = f"{site.party}.toml: secret_key = {site.secret_key!r}"
    path = placed.folder / (site.secret_key or "")
    try:
        text = path.read_text(encoding="ascii").strip()
        open_to_others = os.name == "posix" and path.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read; make one with: vfl keys {site.party}") from error
    if open_to_others:
        raise ConfigError(f"{where}: others on this machine can read it; run: chmod 600 {path}")
    keys = keys_from_secret(text, where)
    listed = assembly.job.parties[site.party].public_key
    if keys.public != listed:
        raise ConfigError(
            f"{where}: belongs to public key {keys.public}, and the job lists {listed} for {site.party}"
        )
    return keys


def write_keys(name: str, folder: Path) -> tuple[KeyPair, Path]:
    """Makes a key pair: the secret in a file that only its owner can read, the public one beside it.

    Raises:
        ConfigError: if the name is no party's, or has a key pair already.
        StorageError: if the folder cannot be written to.
    """
    if not is_party_name(name):
        raise ConfigError(f"{name!r} is no party name: use a-z, 0-9, - and _, starting with a letter")
    keys = make_keys()
    secret, public = folder / f"{name}{SECRET_ENDING}", folder / f"{name}{PUBLIC_ENDING}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(
            f"{secret}: exists already, and a run may depend on it; move it away first"
        ) from error
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; choose another folder with --dir") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(keys.secret + "\n")
    write_text(public, keys.public + "\n")
    return keys, secret


def _share(assembly: Assembly, connection: Connection) -> int:
    """Shares this machine's cores with the other parties where all are on this machine."""
    return share_of_cores(len(assembly.job.parties) if is_loopback(connection.address()) else 1)


def _is_encrypted(assembly: Assembly) -> bool:
    return all(party.public_key for party in assembly.job.parties.values())
