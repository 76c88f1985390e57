"""What the commands print on standard output for people."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any, Final

import click

from parties.assembly import Assembly
from parties.check import Duration, Findings, SiteCheck
from parties.display import readable_bytes, readable_seconds
from parties.predicting import Prediction
from parties.recommending import Answer, Recommendation
from vfl.data.text import shown
from vfl.report.words import said_once

#: Spaces of all widths, and what joins emoji and letters: `str.isprintable` takes them for unprintable.
_JOINS: Final = frozenset(map(chr, (0xA0, 0x1680, *range(0x2000, 0x200E), 0x202F, 0x205F, 0x3000)))


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a run's scores, together and alone, its bytes and where its report is."""
    test, alone = summary["metrics"].get("test", {}), summary["alone"].get("test", {})
    rows, ratings = summary["rows"], summary.get("ratings")
    kind = summary.get("kind", "rows") if ratings is None else "ratings"
    size = f"{len(summary['parties'])} parties, {sum(rows.values())} {kind}"
    click.echo(f"{summary['run']}: {size}, {summary['seconds']:.1f} s")
    if test:
        click.echo(f"  {'test score':<18}{'together':>9}{'alone':>9}")
        for name, value in test.items():
            other = f"{alone[name]:>9.4f}" if name in alone else f"{'-':>9}"
            click.echo(f"  {name:<18}{value:>9.4f}{other}")
        click.echo(f"  (alone: {_alone_words(summary['alone'])})")
    for name, counts in summary["bytes"].items():
        sent, received = readable_bytes(counts["sent"]), readable_bytes(counts["received"])
        click.echo(f"  {name}: {_share_words(summary, name)}sent {sent}, received {received}")
    for note in summary["notes"]:
        click.secho(wrapped(f"note: {note}", "  "), bold=True)
    if summary["report"]:
        click.echo(f"report: {summary['report']}")


def _share_words(summary: dict[str, Any], name: str) -> str:
    """Says how much of a party's table was of use."""
    of, rows = summary["table_rows"].get(name), sum(summary["rows"].values())
    if "ratings" in summary:
        used = sum(summary["ratings"].get(name, {}).values())
        own = summary["own"].get(name, {}).get("rmse")
        words = f"{used} ratings" if used == of else f"{used} of its {of} ratings"
        return f"{words}, test RMSE {own:.4f} on its own ratings; " if used and own is not None else ""
    return f"{rows} of its {of} rows shared; " if of and of != rows else ""  # a coordinator has no table


def _alone_words(alone: dict[str, Any]) -> str:
    if alone["kind"] == "each participant":
        return "each participant with its own ratings only, same settings, on the same test ratings"
    if alone["kind"] == "not measured":
        return "not measured, as the job says"
    if alone["kind"] == "failed":
        return f"not measured, since training alone failed: {alone['why']}"
    if alone["kind"] == "own features":
        return "the label party with its own columns only, same settings"
    shares = "mean" if alone["kind"] == "mean" else "commonest class"
    return f"the label party with no columns of its own: it predicts the {shares}"


def print_check(found: Findings) -> None:
    """Prints what `vfl check` found."""
    assembly, job = found.assembly, found.assembly.job
    kind = f"{assembly.protocol.name}, {job.task}, {len(job.parties)} parties, {job.epochs} epochs"
    click.echo(wrapped(f"{job.name}: valid; {kind}", ""))
    for site in found.sites:
        _print_site(assembly, site)
    if found.aligning is not None:
        sent = readable_bytes(found.aligning.sent_bytes)
        seconds = found.aligning.seconds
        words = f"aligning by psi: about {seconds:.0f} s and up to {sent} sent by each party"
        click.echo(wrapped(words, ""))
    shares = assembly.shares
    most = "" if assembly.alignment is None else f", with all {shares} shared"
    kind = "rows a step" if shares == "rows" else f"{shares} in common"
    if found.traffic:
        click.echo(f"bytes, at {found.a_step} {kind}{most}:")
    for row in found.traffic:
        click.echo(wrapped(_traffic_words(row), "  "))
    if found.duration is not None:
        click.echo(f"time, at {found.a_step} {kind}{most}:")
        click.echo(wrapped(_duration_words(found.duration, job.epochs), "  "))
    for note in assembly.notes:
        click.secho(wrapped(f"note: {note}", "  "), bold=True)
    click.echo("who will learn what:")
    for name, learns in said_once(assembly.learned):
        click.echo(wrapped(f"{name}: {learns}", "  "))


def _traffic_words(row: dict[str, Any]) -> str:
    """Says what a party sends and receives at the most."""
    width = f"width {row['width']}, " if row["width"] is not None else ""
    line = f"{row['party']}: {width}sends {readable_bytes(row['sent_a_step'])} and "
    line += f"receives {readable_bytes(row['received_a_step'])} a step"
    for key, words in (("an_epoch", "an epoch"), ("in_all", "in all")):
        if f"sent_{key}" in row:
            line += f"; {readable_bytes(row[f'sent_{key}'])} and "
            line += f"{readable_bytes(row[f'received_{key}'])} {words}"
    return line


def _print_site(assembly: Assembly, site: SiteCheck) -> None:
    rows = ", ".join(f"{count} {name}" for name, count in site.rows.items())
    parameters = ", ".join(f"{name} {count:,}" for name, count in site.parameters.items())
    kind = "rows" if assembly.shares == "rows" else "ratings"
    most = kind if assembly.alignment is None else f"{kind}, at the most"
    columns = f"{site.columns} {'columns' if kind == 'rows' else 'features of items'}"
    shared = f"; {site.shared} {assembly.shares}" if site.shared is not None else ""
    table = f"{columns}{shared}; {most}: {rows}" if rows else f"no {'table' if kind == 'rows' else kind}"
    words = f"{site.party}: {table}" + (f"; parameters: {parameters}" if parameters else "")
    click.echo(wrapped(words, "  "))
    for warning in site.warnings:
        click.echo(wrapped(f"warning: {warning}", "    "))


def _duration_words(duration: Duration, epochs: int) -> str:
    """Says how long training together will take, and what that rests on."""
    words = f"about {readable_seconds(duration.seconds_a_step)} a step"
    if duration.seconds_an_epoch is not None and duration.seconds_in_all is not None:
        words += f", {readable_seconds(duration.seconds_an_epoch)} an epoch"
        words += f", {readable_seconds(duration.seconds_in_all)} for {epochs} epochs"
    cores = f"{duration.cores} core{'s' if duration.cores > 1 else ''} a party"
    return (
        f"{words}: measured on this machine, with {cores}. It takes the other side's machine to be as fast "
        f"as this one, both to do nothing else, and the line between them to be no hindrance."
    )


def prediction_words(prediction: Prediction) -> str:
    """Says which of the label party's rows have no prediction, and how good the others are where known."""
    left = prediction.of - len(prediction.ids)
    words = f"; {left} of the label party's {prediction.of} rows are not at every party" if left else ""
    if prediction.absent:
        words = f", without {' and '.join(prediction.absent)}, which vanished in training{words}"
    if not prediction.metrics:
        return words
    scores = ", ".join(f"{name} {value:.4f}" for name, value in prediction.metrics.items())
    where = "scores on all rows, those trained on among them: " if prediction.on_trained_rows else ""
    return f"{words}; {where}{scores}"


def print_recommendation(found: Recommendation) -> None:
    """Prints a user's recommended items as a table, the best first."""
    user = f"user {shown(found.user)} at {found.party}, who has rated {found.rated} items there"
    click.echo(user)
    for place, one in enumerate(found.items, start=1):
        name = one.title if one.title == one.item else f"{one.title}  ({one.item})"
        click.echo(f"  {place:>4}  {one.rating:>5.2f}  {printable(name)}")
    if not found.items:
        click.echo("  nothing: the user has rated every item")
    for note in found.notes:
        click.secho(wrapped(f"note: {note}", "  "), bold=True)


def answer_words(answer: Answer) -> str:
    """Says what a party that did not ask has shown, and to whom."""
    words = f"done; {answer.asked_by} asked for {answer.n} items for one of the common users"
    if answer.shown is None:
        return f"{words}: the question and the answers went through here"
    return f"{words}, and was shown {answer.shown} of {answer.party}'s items with the ratings predicted"


def printable(text: str) -> str:
    """Leaves out of another party's words what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter in _JOINS else "�" for letter in text)


def wrapped(text: str, indent: str) -> str:
    """Sets a paragraph for a terminal."""
    return textwrap.fill(
        text,
        min(96, shutil.get_terminal_size((96, 24)).columns),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,  # a path could not be copied then
        break_long_words=False,
    )
