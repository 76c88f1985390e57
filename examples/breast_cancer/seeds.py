"""Runs the breast-cancer job with five seeds and prints the mean test scores, together and alone.

    python examples/breast_cancer/seeds.py [--seeds 5]

A seed fixes the split of the rows, their order and all initial weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from parties import run

JOB = Path(__file__).parent


def scores(seeds: int, metric: str = "auc") -> tuple[list[float], list[float]]:
    """Returns the joint and the label party's own test score for each seed."""
    together, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            result = run(JOB, overrides=[f"seed={seed}"], in_process=True, out=folder)
            together.append(result.metrics["test"][metric])
            alone.append(result.alone["test"][metric])
    return together, alone


def main() -> None:
    """Prints the table, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    together, alone = scores(parser.parse_args().seeds)
    print("| seed | test AUC together | label party alone |\n|---|---|---|")
    for seed, (joint, own) in enumerate(zip(together, alone, strict=True)):
        print(f"| {seed} | {joint:.4f} | {own:.4f} |")
    print(f"| mean | **{statistics.fmean(together):.4f}** | {statistics.fmean(alone):.4f} |")


if __name__ == "__main__":
    main()
