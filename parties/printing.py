"""What the commands print on standard output for people."""

from __future__ import annotations

import shutil
from typing import Any

import click

from parties.assembly import Assembly
from parties.check import AlignmentCost, SiteCheck
from parties.display import readable_bytes
from parties.predicting import Prediction


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a run's scores, together and alone, its bytes and where its report is."""
    test, alone = summary["metrics"].get("test", {}), summary["alone"].get("test", {})
    rows = summary["rows"]
    size = f"{len(summary['parties'])} parties, {sum(rows.values())} rows"
    click.echo(f"{summary['run']}: {size}, {summary['seconds']:.1f} s")
    if test:
        click.echo(f"  {'test score':<18}{'together':>9}{'alone':>9}")
        for name, value in test.items():
            other = f"{alone[name]:>9.4f}" if name in alone else f"{'-':>9}"
            click.echo(f"  {name:<18}{value:>9.4f}{other}")
        click.echo(f"  (alone: {_alone_words(summary['alone'])})")
    for name, counts in summary["bytes"].items():
        sent, received = readable_bytes(counts["sent"]), readable_bytes(counts["received"])
        of = summary["table_rows"][name] or sum(rows.values())  # a coordinator has no table
        share = f"{sum(rows.values())} of its {of} rows shared; " if of != sum(rows.values()) else ""
        click.echo(f"  {name}: {share}sent {sent}, received {received}")
    for note in summary["notes"]:
        click.secho(wrapped(f"note: {note}", "  "), bold=True)
    if summary["report"]:
        click.echo(f"report: {summary['report']}")


def _alone_words(alone: dict[str, Any]) -> str:
    if alone["kind"] == "failed":
        return f"not measured, since training alone failed: {alone['why']}"
    if alone["kind"] == "own features":
        return "the label party with its own columns only, same settings"
    shares = "mean" if alone["kind"] == "mean" else "commonest class"
    return f"the label party with no columns of its own: it predicts the {shares}"


def print_check(
    assembly: Assembly,
    checks: list[SiteCheck],
    traffic: list[dict[str, Any]],
    aligning: AlignmentCost | None = None,
) -> None:
    """Prints what `vfl check` found."""
    job = assembly.job
    kind = f"{assembly.protocol.name}, {job.task}, {len(job.parties)} parties, {job.epochs} epochs"
    click.echo(f"{job.name}: valid; {kind}")
    for found in checks:
        rows = ", ".join(f"{count} {name}" for name, count in found.rows.items())
        parameters = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items())
        most = "rows" if assembly.alignment is None else "rows, at the most"
        table = f"{found.columns} columns; {most}: {rows}" if rows else "no table"
        click.echo(f"  {found.party}: {table}; parameters: {parameters}")
        for warning in found.warnings:
            click.echo(f"    warning: {warning}")
    if aligning is not None:
        sent = readable_bytes(aligning.sent_bytes)
        click.echo(f"aligning by psi: about {aligning.seconds:.0f} s and up to {sent} sent by each party")
    most = "" if assembly.alignment is None else ", with all rows shared"
    click.echo(f"bytes, at {job.batch_size} rows a step{most}:")
    for row in traffic:
        width = f"width {row['width']}, " if row["width"] is not None else ""
        line = f"  {row['party']}: {width}sends {readable_bytes(row['sent_a_step'])} and "
        line += f"receives {readable_bytes(row['received_a_step'])} a step"
        if "sent_an_epoch" in row:
            line += f"; {readable_bytes(row['sent_an_epoch'])} and "
            line += f"{readable_bytes(row['received_an_epoch'])} an epoch"
        click.echo(line)
    click.echo("who will learn what:")
    for name, learns in assembly.learned:
        click.echo(wrapped(f"{name}: {learns}", "  "))


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


def wrapped(text: str, indent: str) -> str:
    """Sets a paragraph for a terminal."""
    width = min(96, shutil.get_terminal_size((96, 24)).columns)
    return click.wrap_text(text, width=width, initial_indent=indent, subsequent_indent=indent + "  ")
