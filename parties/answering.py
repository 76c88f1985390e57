"""How a command answers: its errors as one line and an exit code, its words, its JSON."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import Any

import click

from vfl.errors import EXIT_INTERNAL, Interrupted, VflError

EXIT_CODES = """\b
Exit codes:
  0    done
  1    a fault in the framework (--debug shows it)
  2    a job, a site, a table or an option cannot be used
  3    refused: a key, a job or rows that do not match
  4    a peer was lost: it died or the way to it was cut
  5    a peer said nothing until the deadline
  6    a peer broke the protocol
  7    a file cannot be written
  8    a peer ended the run for a reason of its own
  130  interrupted
"""


@contextmanager
def reporting(as_json: bool, debug: bool) -> Iterator[None]:
    """Turns an error into its one line and its exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains as it ends
        sys.exit(0)
    except (VflError, KeyboardInterrupt) as error:
        fault = Interrupted("interrupted") if isinstance(error, KeyboardInterrupt) else error
        _fail(fault, str(fault), fault.exit_code, as_json, debug)
    except Exception as error:
        _fail(error, f"unexpected {type(error).__name__}: {error}", EXIT_INTERNAL, as_json, debug)


def answer_alone() -> AbstractContextManager[object]:
    """Keeps standard output for a command's answer: what a user's module prints goes to standard error."""
    return redirect_stdout(sys.stderr)


def _fail(error: BaseException, text: str, exit_code: int, as_json: bool, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
        where = getattr(error, "where", "")
        if where:
            tell(where)
    for line in text.splitlines() or [type(error).__name__]:
        tell(f"vfl: {line}")
    for note in getattr(error, "__notes__", ()):
        tell(f"vfl: {note}")
    if exit_code == EXIT_INTERNAL and not debug:
        tell("vfl: this is a fault in the framework; --debug shows where")
    if as_json:
        print_json({"status": "failed", "error": text, "exit_code": exit_code})
    sys.exit(exit_code)


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """Prints one JSON object on standard output."""
    click.echo(json.dumps(value, allow_nan=False))


def tell(text: str) -> None:
    """Prints a line on standard error."""
    click.echo(text, err=True)
