"""The command line `vfl`. Heavy imports wait until a command needs them, so that `--help` is quick."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from parties.answering import EXIT_CODES, answer_alone, print_json, reporting, tell
from parties.cli_data import data
from parties.cli_runs import predict, recommend, report
from vfl import __version__
from vfl.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from parties.assembly import Assembly, PlacedSite
    from vfl.config.job import Job

_PATH = click.Path(path_type=Path)
_debug = click.option("--debug", is_flag=True, help="Show where an error came from.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
_out = click.option("--out", type=_PATH, help="Where run folders go (default: runs, or as the site says).")
_insecure = click.option(
    "--insecure", is_flag=True, help="Allow clear text beyond this machine. For closed test networks only."
)
_set = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the job, e.g. split.test=0.1, or of a party's site: PARTY.threads=2.",
)


@click.group(
    epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="vfl")
def cli() -> None:
    """Train one model on columns that several organisations hold, without showing them to each other.

    \b
    Examples:
      vfl run examples/breast_cancer           every party here, one process each
      vfl check examples/breast_cancer         what it will cost and who will learn what
      vfl party job.toml bank.toml             this party alone, on its own host
      vfl predict runs/breast-cancer --out predictions.csv
      vfl recommend runs/recommender --user 42
    """


@cli.command(epilog=EXIT_CODES)
@click.argument("job", type=_PATH, metavar="FOLDER|JOB.toml")
@click.option("--in-process", is_flag=True, help="All parties in one process, through the same codec.")
@_set
@_out
@_json
@_debug
def run(
    job: Path, in_process: bool, overrides: tuple[str, ...], out: Path | None, as_json: bool, debug: bool
) -> None:
    """Run every party of a job on this machine.

    A job folder holds job.toml and one PARTY.toml a party. Each party is a process of its own, with a
    key made for this run, and talks to the others over encrypted ZeroMQ.

    \b
    Examples:
      vfl run examples/breast_cancer
      vfl run examples/digits --set epochs=5 --set left.bottom.hidden=[128]
      vfl run examples/digits --in-process --json
    """
    with reporting(as_json, debug):
        from parties.api import run_assembly
        from parties.assembly import assemble_folder
        from parties.display import Display
        from parties.printing import print_summary

        assembly = assemble_folder(job, overrides)
        with answer_alone(), Display(list(assembly.job.parties)) as display:
            result = run_assembly(assembly, in_process=in_process, out=out or Path("runs"), sink=display)
        if as_json:
            print_json(result.summary)
        else:
            print_summary(result.summary)


@cli.command(epilog=EXIT_CODES)
@click.argument("job", type=_PATH, metavar="JOB.toml")
@click.argument("site", type=_PATH, metavar="SITE.toml")
@_insecure
@_set
@_out
@_json
@_debug
def party(
    job: Path,
    site: Path,
    insecure: bool,
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Run one party of a job on this host; start the parties in any order.

    \b
    Examples:
      vfl party job.toml bank.toml
      vfl party job.toml bank.toml --set timing.join_s=60 --out /data/runs
    """
    with reporting(as_json, debug):
        from parties.display import Display
        from parties.printing import print_summary
        from parties.single import run_party

        agreed, placed = _job_and_site(job, site, overrides, insecure)
        name = placed.site.party
        with answer_alone(), Display([name]) as display:
            result = run_party(agreed, placed, out or Path(placed.site.out), display)
        if as_json:
            print_json(result.summary)
        elif result.summary["metrics"]:
            print_summary(result.summary)
        else:
            where = result.folder / name
            tell(f"done in {result.summary['seconds']:.1f} s; this party's part is in {where}")


@cli.command(epilog=EXIT_CODES)
@click.argument("job", type=_PATH, metavar="JOB.toml")
@click.argument("site", type=_PATH, metavar="SITE.toml")
@click.option("--out", type=_PATH, help="Where the list goes, as CSV (default: standard output).")
@_insecure
@_set
@_debug
def align(
    job: Path, site: Path, out: Path | None, insecure: bool, overrides: tuple[str, ...], debug: bool
) -> None:
    """Find the rows that all parties share, and train nothing.

    Every party runs this on its own host, as it would run `vfl party`. Each gets its own list of the
    shared ids, in the one order that all have in common. `align` in the job says how they are found: by
    private set intersection unless it says otherwise.

    \b
    Examples:
      vfl align job.toml bank.toml --out shared.csv
      vfl align job.toml bank.toml --set align=ids
    """
    with reporting(False, debug):
        from parties.display import Display
        from parties.single import run_alignment
        from parties.summary import csv_text, write_text

        agreed, placed = _job_and_site(job, site, overrides, insecure)
        with Display([placed.site.party]) as display:
            shared = run_alignment(agreed, placed, display)
        if shared is None:
            tell("all parties have found the rows that they share; a coordinator has none")
            return
        text = csv_text([[shared.column], *([name] for name in shared.ids.tolist())])
        if out:
            write_text(out, text)
            where = f"; they are in {out}"
        else:
            click.echo(text, nl=False)
            where = ""
        tell(f"all parties share {len(shared.ids)} of the {shared.of} rows of {shared.source}{where}")


@cli.command()
@click.argument("name")
@click.option(
    "--dir", "folder", type=_PATH, default=Path("keys"), show_default=True, help="Where the files go."
)
@_debug
def keys(name: str, folder: Path, debug: bool) -> None:
    """Make a key pair for a party.

    The secret stays in a file that only you can read; the public key goes into the job, under the
    party's name.

    \b
    Example:
      vfl keys bank --dir keys
    """
    with reporting(False, debug):
        from parties.keys import write_keys

        pair, secret = write_keys(name, folder)
        tell(f"the secret key is in {secret}: name it in {name}.toml as secret_key, and show it to nobody")
        tell("paste this into the job, at every party:")
        click.echo(f'[parties.{name}]\npublic_key = "{pair.public}"')


@cli.command(epilog=EXIT_CODES)
@click.argument("job", type=_PATH, metavar="FOLDER|JOB.toml")
@click.argument("site", type=_PATH, required=False, metavar="[SITE.toml]")
@_set
@_json
@_debug
def check(job: Path, site: Path | None, overrides: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Check all that can be known before a run: validity, rows, widths, parameters, bytes, who learns what.

    With a site, this party's table is read and its networks are built; with a folder, every party's.
    Where the protocol encrypts, this machine is measured for a second, and the time of a run follows.
    Nothing is sent.

    \b
    Examples:
      vfl check examples/breast_cancer
      vfl check job.toml bank.toml
    """
    with reporting(as_json, debug):
        from parties.check import check as check_all
        from parties.printing import print_check

        assembly = _assembly_to_check(job, site, overrides)
        with answer_alone():
            found = check_all(assembly)
        if as_json:
            print_json(found.to_json())
        else:
            print_check(found)


@cli.command()
@_debug
def protocols(debug: bool) -> None:
    """Show every protocol and every way of aligning rows, and who learns what.

    \b
    Example:
      vfl protocols
    """
    with reporting(False, debug):
        from parties.printing import wrapped
        from protocols import alignments, load, load_alignment, names

        for name in names() + alignments():
            try:
                kind = load(name) if name in names() else load_alignment(name)
            except ConfigError as error:
                click.echo(click.style(name, bold=True) + f"  {error}")
                continue
            click.echo(click.style(kind.name, bold=True) + f"  {kind.summary}")
            for role, learns in kind.learns.items():
                click.echo(wrapped(f"{role}: {learns}", "    "))


for command in (data, predict, recommend, report):
    cli.add_command(command)


def main() -> None:
    """Runs the command line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order, as on Ctrl-C
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as error:  # an unknown option, a missing argument
        error.show()
        if "--json" in sys.argv:
            print_json(
                {"status": "failed", "error": error.format_message(), "exit_code": ConfigError.exit_code}
            )
        sys.exit(ConfigError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Interrupted.exit_code)


def _job_and_site(
    job: Path, site: Path, overrides: tuple[str, ...], insecure: bool = False
) -> tuple[Job, PlacedSite]:
    from parties.assembly import load_placed_site, split_overrides
    from vfl.config.load import load_job

    name = load_placed_site(site).site.party
    for_site, for_job = split_overrides(overrides, [name])
    placed = load_placed_site(site, [*for_site[name], *(["insecure=true"] if insecure else [])])
    return load_job(job, for_job), placed


def _assembly_to_check(job: Path, site: Path | None, overrides: tuple[str, ...]) -> Assembly:
    from parties.assembly import assemble, assemble_folder
    from vfl.config.load import load_job

    if job.is_dir():
        if site is not None:
            raise ConfigError(
                f"{site}: with a folder every site in it is checked; name the job file for one site"
            )
        return assemble_folder(job, overrides)
    if site is None:
        return assemble(load_job(job, overrides), {}, job.name, between_hosts=True)
    agreed, placed = _job_and_site(job, site, overrides)
    return assemble(agreed, {placed.site.party: placed}, job.name, between_hosts=True)
