"""Finds sites beside a job that it does not name: a party that was forgotten, or a file's name misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parties.assembly import Assembly
from vfl.config.load import read_toml
from vfl.errors import ConfigError


def stray_sites(assembly: Assembly) -> list[str]:
    """Says of each site in the job's folder that no party of a job there is called like its file.

    Looked for only where all parties' sites are from one folder, as for `vfl run FOLDER`. A site is what has
    `party` in it; other TOML files may lie there for whatever reason.
    """
    parties, sites = assembly.job.parties, assembly.sites
    if parties.keys() != sites.keys() or len({placed.folder for placed in sites.values()}) != 1:
        return []
    folder = next(iter(sites.values())).folder
    if not all((folder / f"{name}.toml").is_file() for name in parties):
        return []  # these sites are from a program, and what lies where it runs is none of its business
    others = {path.stem: document for path, document in _documents(folder) if path.stem not in parties}
    of_other_jobs = {name for document in others.values() for name in _parties_of(document)}
    strays = [name for name, document in others.items() if isinstance(document.get("party"), str)]
    return [_words(name, list(parties)) for name in strays if name not in of_other_jobs]


def _documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields what can be read of a folder's TOML files; what is hidden or garbled is nobody's site."""
    for path in sorted(folder.glob("[!.]*.toml")):
        try:
            yield path, read_toml(path)
        except (ConfigError, RecursionError):  # tables nested too deep to be read
            continue


def _parties_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    named = document.get("parties")
    return named if isinstance(named, dict) else {}


def _words(name: str, parties: list[str]) -> str:
    near = difflib.get_close_matches(name, parties, 1)
    remedy = (
        f"did you mean {near[0]!r}?" if near else f"add [parties.{name}] to the job, or take the file away"
    )
    return f"{name}.toml takes no part: the job names no party {name!r}; {remedy}"
