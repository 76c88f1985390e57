"""Runs a job with several seeds and prints its test scores: alone, together, and centralised.

    python examples/seeds.py examples/breast_cancer [--metric auc] [--seeds 5]
    python examples/seeds.py examples/credit
    python examples/seeds.py examples/mnist_halves --metric accuracy

*Alone* is the label party with its own columns, or with none; *centralised* is one owner of all columns,
with one bottom as wide as all parties' together. All three train on the same rows with the same settings.
A seed fixes the split of the rows, their order and all initial weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from parties import run
from parties.alone import train_centralised
from parties.assembly import assemble_folder

COLUMNS = ("alone", "together", "centralised")


def scores(job: Path, seed: int, metric: str, hidden: list[int] | None) -> dict[str, float]:
    """Returns the three test scores of one seed.

    `align = "ids"` finds the rows that `"psi"` finds, in the same order, and sooner.
    """
    assembly = assemble_folder(job)
    changes = [f"seed={seed}", *(["align=ids"] if assembly.job.align == "psi" else [])]
    with tempfile.TemporaryDirectory() as folder:
        result = run(job, overrides=changes, in_process=True, out=folder)
    bottom = {"preset": "mlp", "hidden": hidden} if hidden else None
    one_owner = train_centralised(assemble_folder(job, changes), bottom)
    found = (result.alone["test"][metric], result.metrics["test"][metric], one_owner.test[metric])
    return dict(zip(COLUMNS, found, strict=True))


def main() -> None:
    """Prints the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("job", type=Path, help="a job folder")
    parser.add_argument("--metric", default="auc", help="a score of the job's task")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--hidden", type=json.loads, help="the centralised bottom's hidden layers: [128]")
    arguments = parser.parse_args()
    print(f"| seed | {' | '.join(COLUMNS)} |\n|---|---|---|---|", flush=True)
    found = []
    for seed in range(arguments.seeds):
        found.append(scores(arguments.job, seed, arguments.metric, arguments.hidden))
        print(f"| {seed} | {' | '.join(f'{found[-1][name]:.4f}' for name in COLUMNS)} |", flush=True)
    print(f"| mean ± sd | {' | '.join(_spread([one[name] for one in found]) for name in COLUMNS)} |")
    gaps = [one["together"] - one["centralised"] for one in found]
    print(f"\ntogether - centralised, test {arguments.metric}: {_spread(gaps)}")


def _spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"


if __name__ == "__main__":
    main()
