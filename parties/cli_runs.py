"""The commands that take a finished run: `vfl predict`, `vfl recommend` and `vfl report`."""

from __future__ import annotations

from pathlib import Path

import click

from parties.answering import EXIT_CODES, answer_alone, print_json, reporting, tell
from vfl.errors import ConfigError

_PATH = click.Path(path_type=Path)
_debug = click.option("--debug", is_flag=True, help="Show where an error came from.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")


@click.command(epilog=EXIT_CODES)
@click.argument("run_folder", type=_PATH, metavar="RUN")
@click.option("--table", "tables", multiple=True, metavar="PARTY=FILE", help="A party's new rows.")
@click.option("--out", type=_PATH, help="Where the predictions go, as CSV (default: standard output).")
@_json
@_debug
def predict(run_folder: Path, tables: tuple[str, ...], out: Path | None, as_json: bool, debug: bool) -> None:
    """Predict jointly with the trained parties of a run.

    RUN is a run's folder with every party in it, or one party's folder within it: then the other
    parties take part from their own hosts, as in training. Rows are matched by id.

    \b
    Examples:
      vfl predict runs/breast-cancer --out predictions.csv
      vfl predict runs/credit --table bank=new/bank.csv --table bureau=new/bureau.csv --out scores.csv
      vfl predict runs/credit/bank --table bank=new/bank.csv       (the bureau does the same on its host)
    """
    with reporting(as_json, debug):
        from parties.predicting import predict_here
        from parties.printing import prediction_words

        with answer_alone():
            prediction = predict_here(run_folder, _tables(tables))
        if prediction is None:
            tell("done; the predictions are at the label party")
        elif as_json:
            if out:
                prediction.write(out)
            print_json({"status": "finished", "rows": len(prediction.ids), "table_rows": prediction.of,
                         "metrics": prediction.metrics,
                         "predictions": str(out) if out else prediction.rows()})  # fmt: skip
        elif out:
            prediction.write(out)
            tell(f"{len(prediction.ids)} predictions are in {out}{prediction_words(prediction)}")
        else:
            click.echo(prediction.to_csv(), nl=False)


@click.command(epilog=EXIT_CODES)
@click.argument("run_folder", type=_PATH, metavar="RUN")
@click.option("--user", metavar="ID", help="The user's id, as it stands in the ratings.")
@click.option(
    "-n",
    "count",
    type=int,
    metavar="N",
    help="How many items, 1000 at most, or 100 if others show theirs.  [default: 10]",
)
@click.option(
    "--party",
    metavar="NAME",
    help="In a folder of several: whose user it is, or who asks (default: who has the user).",
)
@_json
@_debug
def recommend(
    run_folder: Path, user: str | None, count: int | None, party: str | None, as_json: bool, debug: bool
) -> None:
    """Recommend items to a user of a trained recommender, those left out that the user has rated.

    RUN is a run's folder with every party in it, or one party's folder within it. Where each
    participant has users of its own (by = "user"), the one that has this user needs nobody else.
    Where each has items of its own (by = "item"), all parties take part from their own hosts, as in
    training: one participant asks with --user, everyone else runs the command without, answers
    once and ends. Who asks shows the others which user it asks for, and gets their best items.

    \b
    Examples:
      vfl recommend runs/recommender --user 42
      vfl recommend runs/recommender/club_a --user 42 -n 5 --json
      vfl recommend runs/recommender/club_b                       (on its own host, to answer club_a)
    """
    with reporting(as_json, debug):
        from parties.printing import answer_words, print_recommendation
        from parties.recommending import Answer, recommend_here

        with answer_alone():
            found = recommend_here(run_folder, user, count, party)
        if as_json:
            print_json(found.to_json())
        if isinstance(found, Answer):
            tell(answer_words(found))
        elif not as_json:
            print_recommendation(found)


@click.command()
@click.argument("run_folder", type=_PATH, metavar="RUN")
@_debug
def report(run_folder: Path, debug: bool) -> None:
    """Draw a finished run's report anew and print its path.

    \b
    Example:
      vfl report runs/breast-cancer
    """
    with reporting(False, debug):
        from parties.summary import RECORD_FILE, read_json, write_report

        found = sorted([*run_folder.glob(RECORD_FILE), *run_folder.glob(f"*/{RECORD_FILE}")])
        if not found:
            raise ConfigError(
                f"{run_folder}: no {RECORD_FILE} in it; name a finished run that holds the label party, or "
                f"in a recommendation the coordinator"
            )
        click.echo(write_report(found[0].parent, read_json(found[0])))


def _tables(pairs: tuple[str, ...]) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"--table {pair}: write it as PARTY=FILE, for example --table bank=new.csv")
        tables[name] = Path(path)
    return tables
