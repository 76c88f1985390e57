"""Key files: a party's secret, readable by its owner alone, and the public half for the job."""

from __future__ import annotations

import os
from pathlib import Path

from parties.assembly import Assembly, PlacedSite
from parties.summary import write_text
from vfl.config.job import is_party_name
from vfl.errors import ConfigError, StorageError
from vfl.wire.zeromq import KeyPair, keys_from_secret, make_keys

SECRET_ENDING, PUBLIC_ENDING = ".secret", ".public"


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
