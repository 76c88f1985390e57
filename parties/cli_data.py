"""The commands `vfl data`: public data sets by name, written as one file a party."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from parties.answering import answer_alone, print_json, reporting, tell
from vfl.errors import StorageError

if TYPE_CHECKING:
    from vfl.datasets.catalogue import Dataset, Party
    from vfl.datasets.originals import Progress
    from vfl.datasets.parsing import Columns

_NAMED: Final = 16  # of a party with more columns, a few are named

_debug = click.option("--debug", is_flag=True, help="Show where an error came from.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def data() -> None:
    """Public data sets by name, each cut between the parties who could hold it.

    The originals are taken from the folder that VFL_DATA names, else from this user's cache, else they
    are downloaded. What they hold must have the known SHA-256.
    """


@data.command("list")
@_json
@_debug
def list_datasets(as_json: bool, debug: bool) -> None:
    """Show the data sets, who holds what in each, and whether the originals are on this machine.

    \b
    Example:
      vfl data list
    """
    with reporting(as_json, debug):
        from vfl.datasets.catalogue import DATASETS
        from vfl.datasets.originals import where

        where("", [])  # a VFL_DATA that names no folder is a mistake, whatever is asked for
        if as_json:
            described = [_described(dataset) for dataset in DATASETS.values()]
            print_json({"status": "finished", "datasets": described})
            return
        for dataset in DATASETS.values():
            _print_dataset(dataset)


@data.command()
@click.argument("name")
@click.option(
    "--overlap", type=float, help="The share of people whom every party holds; others miss at some."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the files go (default: ./NAME).")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws other people and other orders.")
@click.option("--format", "suffix", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--force", is_flag=True, help="Write over files of the same names.")
@_json
@_debug
def get(
    name: str,
    overlap: float | None,
    out: Path | None,
    seed: int,
    suffix: str,
    force: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Write one file a party of a public data set, and print how each party's site names its file.

    \b
    Examples:
      vfl data get credit-default --overlap 0.8 --out data
      VFL_DATA=~/originals vfl data get adult --format parquet
    """
    with reporting(as_json, debug):
        from vfl.datasets import split_dataset
        from vfl.datasets.catalogue import find_dataset
        from vfl.datasets.vertical import checked_overlap

        dataset, share = find_dataset(name), checked_overlap(overlap)
        folder = out or Path(dataset.name)
        paths = {stem: folder / f"{stem}.{suffix}" for stem in dataset.files()}
        _refuse_existing(paths, force)
        with answer_alone(), _showing_progress() as progress:
            tables = split_dataset(dataset, share, seed, progress)
        _write(folder, {paths[stem]: columns for stem, columns in tables.items()})
        if as_json:
            answer = {"status": "finished", **_described(dataset), "overlap": share, "seed": seed}
            print_json({**answer, "files": [_file(stem, paths[stem], tables[stem]) for stem in paths]})
            return
        for stem, path in paths.items():
            tell(f"{path}: {_rows_of(tables[stem])} rows")
        tell(f"licence: {dataset.licence}")
        tell(f"cite: {dataset.citation}")
        for party in dataset.parties if dataset.shares_rows else ():
            click.echo(_site(party, paths[party.name]))


def _described(dataset: Dataset) -> dict[str, Any]:
    at = _where(dataset)
    return {
        "name": dataset.name,
        "rows": dataset.rows,
        "what": dataset.what,
        "ids": dataset.ids,
        "parties": {party.name: list(party.columns) for party in dataset.parties},
        "labels": {party.name: party.label for party in dataset.parties if party.label},
        "left_out": dict(dataset.left_out),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "origin": dataset.origin,
        "downloads": sorted({original.url for original in dataset.originals}),
        "at_hand": at is not None,
        "where": at,
    }


def _where(dataset: Dataset) -> str | None:
    from vfl.datasets.originals import where

    return where(dataset.name, dataset.originals) if dataset.originals else dataset.comes_with


def _print_dataset(dataset: Dataset) -> None:
    from parties.printing import wrapped

    at = _where(dataset)
    if at is None:
        at = f"not on this machine; `vfl data get {dataset.name}` downloads them"
    elif dataset.originals:
        at += " (by name; not yet checked)"
    click.echo(f"{click.style(dataset.name, bold=True)}  {dataset.rows:,} rows")
    for line in [dataset.what, *map(_holding, dataset.parties), f"licence: {dataset.licence}"]:
        click.echo(wrapped(line, "    "))
    click.echo(f"    originals: {at}")  # as one line: it may be a path


def _holding(party: Party) -> str:
    names = [name for name in party.columns if name != party.label and name not in party.aside]
    if len(names) > _NAMED:
        names = [*names[:3], "…", f"{names[-1]} ({len(names)} columns)"]
    parts = [", ".join([*names, *party.aside]), f"label {party.label}" if party.label else ""]
    return f"{party.name}: {'; '.join(filter(None, parts))}"


def _refuse_existing(paths: Mapping[str, Path], force: bool) -> None:
    for path in paths.values():
        if path.is_dir() or (path.exists() and not force):
            remedy = "choose another --out" if path.is_dir() else "choose another --out, or add --force"
            raise StorageError(f"{path}: it is there already: {remedy}")


def _write(folder: Path, tables: Mapping[Path, Columns]) -> None:
    """Writes all files beside, and gives them their names when the last one is whole."""
    from vfl.data.files import write_file

    staging = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        for path, columns in tables.items():
            write_file(staging / path.name, columns)
        for path in tables:
            os.replace(staging / path.name, path)
    except OSError as error:
        raise StorageError(
            f"{folder}: it cannot be written to ({error.strerror}): choose another --out"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _showing_progress() -> Iterator[Progress]:
    """Shows downloads on standard error: a bar on a terminal, else a line each."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(url: str, done: int, total: int | None) -> None:
            if url not in tasks:
                tell(f"downloading {url}")
                tasks[url] = bars.add_task(url.rpartition("/")[2], total=total)
            bars.update(tasks[url], completed=done)

        yield show


def _file(stem: str, path: Path, columns: Columns) -> dict[str, Any]:
    return {"name": stem, "file": str(path), "rows": _rows_of(columns), "columns": list(columns)}


def _rows_of(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _site(party: Party, path: Path) -> str:
    """Words the part of a site that names the file, the site lying beside it."""
    import tomli_w

    table: dict[str, Any] = {"source": path.name}
    if party.numeric:
        table["columns"] = [party.pattern] if party.pattern else list(party.numeric)
    if party.categorical:
        table["categorical"] = list(party.categorical)
    site: dict[str, Any] = {"party": party.name, "table": table}
    if party.missing:
        site["prepare"] = {"missing_category": "own"}
    if party.label:
        site["label"] = {"column": party.label}
    return f"# for {path.parent / party.name}.toml, which is not written:\n{tomli_w.dumps(site)}"
