"""Runs a job with several seeds and prints its test scores, together and alone, and their means.

    python examples/seeds.py examples/breast_cancer [--metric auc] [--seeds 5]
    python examples/seeds.py examples/digits --metric accuracy

A seed fixes the split of the rows, their order and all initial weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from parties import run


def scores(job: Path, seeds: int, metric: str) -> tuple[list[float], list[float]]:
    """Returns the joint and the label party's own test score for each seed."""
    together, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            result = run(job, overrides=[f"seed={seed}"], in_process=True, out=folder)
            together.append(result.metrics["test"][metric])
            alone.append(result.alone["test"][metric])
    return together, alone


def main() -> None:
    """Prints the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("job", type=Path, help="a job folder")
    parser.add_argument("--metric", default="auc", help="a score of the job's task")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    arguments = parser.parse_args()
    together, alone = scores(arguments.job, arguments.seeds, arguments.metric)
    print(f"| seed | test {arguments.metric} together | label party alone |\n|---|---|---|")
    for seed, (joint, own) in enumerate(zip(together, alone, strict=True)):
        print(f"| {seed} | {joint:.4f} | {own:.4f} |")
    print(f"| mean | **{statistics.fmean(together):.4f}** | {statistics.fmean(alone):.4f} |")


if __name__ == "__main__":
    main()
