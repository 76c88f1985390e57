"""Studies what secure forward aggregation is for: accuracy and leakage by the depth of the cut.

    python examples/sfa/study.py                    # credit default and MNIST, five seeds
    python examples/sfa/study.py --data digits --seeds 2
    python examples/sfa/study.py --quick            # small built-in tables, to see that it runs

Networks of four linear layers are cut after the first, second or third; 2, 3 and 5 parties hold the columns,
and another the labels. Their parts are joined side by side (`concat`), added up (`sum`), or added up under
masks (`sfa`; two parties need a coordinator). Beside them stand one owner of all columns (`centralised`) and
the first party with the labels and its own columns only (`alone`). Then the aggregator's view is attacked:
how well are the first party's columns reconstructed, from its own messages and from their sum? At last the
layers are made narrower, with three parties and the cut at the first, to see what the sum then tells.

Prints Markdown tables; writes numbers.json, accuracy.png and reconstruction.png into --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from findings import NARROW_PARTIES, Findings
from layers import DEPTHS
from leakage import AUXILIARY, attack
from pictures import draw_accuracy, draw_reconstruction
from tables import SETTINGS, Table, at_hand, load_table
from training import SFA, VARIANTS, train, train_one_owner

_QUICK: dict[str, Any] = {"parties": (2, 3), "depths": (1, 3), "shares": (0.1,)}
_FULL: dict[str, Any] = {"parties": (2, 3, 5), "depths": DEPTHS, "shares": AUXILIARY}


def study_seed(table: Table, seed: int, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains and attacks every variant with one seed, and returns a record for each."""
    everything = np.arange(table.x.shape[1])
    records: list[dict[str, Any]] = [_record("centralised", train_one_owner(table, everything, seed))]
    for k in sweep["parties"]:
        first = table.dealt(k)[0]
        records.append(_record("alone", train_one_owner(table, first, seed), k=k))
        columns = table.x[table.splits["test"]][:, torch.from_numpy(first)].numpy()
        for depth in sweep["depths"]:
            for variant in VARIANTS:
                played = train(table, variant, depth, k, seed)
                found = attack(
                    played, columns, variant=variant, depth=depth, shares=sweep["shares"], seed=seed
                )
                records.append(
                    _record(variant, played.score, k=k, depth=depth, attacks=found, notes=played.notes)
                )
    return [*records, *_narrower(table, seed, sweep)]


def _narrower(table: Table, seed: int, sweep: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cuts at the first layer of narrower networks: fewer numbers for the sum to tell."""
    first = torch.from_numpy(table.dealt(NARROW_PARTIES)[0])
    columns = table.x[table.splits["test"]][:, first].numpy()
    for width in table.settings.narrow:
        settings = dataclasses.replace(table.settings, width=width)
        played = train(dataclasses.replace(table, settings=settings), SFA, 1, NARROW_PARTIES, seed)
        found = attack(played, columns, variant=SFA, depth=1, shares=sweep["shares"][-1:], seed=seed)
        yield _record(
            SFA, played.score, k=NARROW_PARTIES, depth=1, width=width, attacks=found, notes=played.notes
        )


def _record(variant: str, score: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"variant": variant, "score": score, **more}


def main() -> None:
    """Runs the study: a process a table and seed, as many at once as there are cores."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.seed is not None:
        _study_here(arguments.data[0], arguments)
        return
    if not arguments.draw:
        names = list(dict.fromkeys(at_hand(name) for name in arguments.data))
        cells = [(name, seed) for name in names for seed in range(arguments.seeds)]
        started = time.perf_counter()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            found = list(pool.map(lambda cell: _study_apart(*cell, arguments), cells))
        settings = {name: _settings(name, arguments) for name in names}
        numbers = {
            "settings": {name: dataclasses.asdict(one) for name, one in settings.items()},
            "metric": {name: load_table(name, 0, one).metric for name, one in settings.items()},
            "seconds": round(time.perf_counter() - started),
            "records": [record for records in found for record in records],
        }
        _write(arguments.out / "numbers.json", numbers)
    _tell(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=sorted(SETTINGS), default=["credit", "mnist"])
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--epochs", type=int, help="instead of the table's own number")
    parser.add_argument("--quick", action="store_true", help="breast cancer and digits, one seed, few epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/sfa-study"), help="where results go")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--draw", action="store_true", help="only tables and figures, from --out as it is")
    parser.add_argument("--seed", type=int, help="only this seed of one table, in this process")
    arguments = parser.parse_args()
    if arguments.quick and arguments.seed is None:
        arguments.data, arguments.seeds = ["breast_cancer", "digits"], 1
    if arguments.quick:
        arguments.epochs = arguments.epochs or 4
    return arguments


def _settings(name: str, arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    settings = SETTINGS[name]
    return dataclasses.replace(settings, epochs=arguments.epochs) if arguments.epochs else settings


def _study_apart(name: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Studies one seed in a process of its own, with one thread: the cores are for the other seeds."""
    command = [sys.executable, __file__, "--data", name, "--seed", str(seed), "--out", str(arguments.out)]
    command += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    command += ["--quick"] if arguments.quick else []
    started = time.perf_counter()
    done = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}: failed as told above")
    print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    records: list[dict[str, Any]] = json.loads(_seed_file(arguments.out, name, seed).read_text())
    return records


def _study_here(name: str, arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    table = load_table(name, arguments.seed, _settings(name, arguments))
    records = study_seed(table, arguments.seed, _QUICK if arguments.quick else _FULL)
    _write(
        _seed_file(arguments.out, name, arguments.seed),
        [{"data": name, "seed": arguments.seed, **record} for record in records],
    )


def _seed_file(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-{seed}.json"


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _tell(out: Path) -> None:
    findings = Findings(json.loads((out / "numbers.json").read_text(encoding="utf-8")))
    print(findings.markdown())
    draw_accuracy(findings, out / "accuracy.png")
    draw_reconstruction(findings, out / "reconstruction.png")
    print(f"\n{out / 'numbers.json'}, {out / 'accuracy.png'}, {out / 'reconstruction.png'}", file=sys.stderr)


if __name__ == "__main__":
    main()
