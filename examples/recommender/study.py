"""Studies a federated recommender: accuracy, cost and leakage by personalised mask and aggregation.

    python examples/recommender/study.py                            # MovieLens latest-small
    python examples/recommender/study.py --surprise PYTHON          # beside it, another library's factors
    python examples/recommender/study.py --quick                    # made-up ratings, to see that it runs

Three organisations hold the users of MovieLens latest-small. For each mask they train as each `aggregation`
has it, through the protocol's own roles in one process; then what the coordinator saw is attacked: which
movies did the first organisation's users rate, and how? The sum of all contributions, which it sees in any
case but `paillier`, is attacked as well. Then every user is a participant of its own, on a slice: the users
and movies with most ratings. `paillier` runs on a smaller slice yet, beside `masked` on the same.

Errors are on a fifth of the ratings drawn by hash, ranks on each user's latest rating (leave one out).

Prints Markdown tables; writes numbers.json and three figures into --out.
"""

from __future__ import annotations

import argparse
import json
import math
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
from cases import FRACTION, LEAVE_ONE_OUT, ORGANISATIONS, Dealt, is_at_hand, load, organisations, popular
from drawings import draw_all
from outcomes import Findings
from playing import Played, play
from sklearn.metrics import roc_auc_score
from yardsticks import has_surprise, yardsticks

from protocols.fedmmf.choosing import explained
from vfl.audit.ratings import expose, judge
from vfl.errors import ConfigError
from vfl.ratings.holding import merge
from vfl.ratings.personal import KINDS

AGGREGATIONS = ("plain", "masked", "adaptive")
RANK = 8
_SGD_MASKS = ("none", "user_mean")


def study_organisations(
    seed: int, mask: str, size: dict[str, int], made_up: bool
) -> Iterator[dict[str, Any]]:
    """Trains and attacks three organisations with one mask, for each aggregation."""
    dealt, catalogue = organisations(FRACTION, seed, made_up), load(made_up)[1]
    first = next(iter(dealt))
    plain: Played | None = None
    for aggregation in AGGREGATIONS:
        played = play(
            dealt,
            catalogue,
            size["rounds"],
            seed,
            attacked=[first],
            aggregation=aggregation,
            mask=mask,
            rank=RANK,
        )
        plain = plain or played
        record = _record("organisations", mask, played, aggregation) | {"equals": played.equals(plain)}
        yield record | {"own": _attacked(played, {first: dealt[first]}, seed)}
    late = play(
        organisations(LEAVE_ONE_OUT, seed, made_up),
        catalogue,
        size["rounds"],
        seed,
        aggregation="masked",
        mask=mask,
        rank=RANK,
    )
    yield {"case": "ranks", "mask": mask, **{name: late.test[name] for name in ("hr@10", "ndcg@10")}}
    yield {"case": "sum", "mask": mask, "parties": ORGANISATIONS, **_sum_attacked(played, dealt, seed)}
    yield {"case": "criterion", "mask": mask, "parties": ORGANISATIONS, **_criterion(played, dealt)}


def study_users(seed: int, mask: str, size: dict[str, int], made_up: bool) -> Iterator[dict[str, Any]]:
    """Trains and attacks single users with one mask, for each aggregation and both solvers."""
    users = size["users"]
    dealt, catalogue = popular(users, size["items"], seed, made_up, users)
    for solver in ("als", "sgd"):
        for aggregation in AGGREGATIONS:
            if solver == "sgd" and (aggregation == "adaptive" or mask not in _SGD_MASKS):
                continue
            given: dict[str, Any] = {"aggregation": aggregation, "mask": mask, "solver": solver, "rank": RANK}
            played = play(dealt, catalogue, size["few"], seed, attacked=list(dealt), **given)
            found = _attacked(played, dealt, seed)
            yield _record("users", mask, played, aggregation) | {"solver": solver, "own": found}
        if solver == "als" or mask in _SGD_MASKS:
            attack = _sum_attacked(played, dealt, seed)
            yield {"case": "sum", "mask": mask, "parties": users, "solver": solver, **attack}
    yield {"case": "criterion", "mask": mask, "parties": users, **_criterion(played, dealt)}


def study_paillier(seed: int, size: dict[str, int], made_up: bool) -> Iterator[dict[str, Any]]:
    """Trains a small slice under masks and encrypted, for each mask."""
    dealt, catalogue = popular(size["users"], size["cells"], seed, made_up, ORGANISATIONS)
    for mask in KINDS:
        given: dict[str, Any] = {"mask": mask, "rank": RANK}
        masked = play(dealt, catalogue, 2, seed, aggregation="masked", **given)
        bits = {"key_bits": size["key_bits"], "unsafe_small_key": size["key_bits"] < 2048}
        hidden = play(dealt, catalogue, 2, seed, aggregation="paillier", **bits, **given)
        for played in (masked, hidden):
            record = _record("paillier", mask, played, played.config.aggregation)
            yield record | {"equals": played.equals(masked), "items": size["cells"]}


def _record(case: str, mask: str, played: Played, aggregation: str) -> dict[str, Any]:
    return {
        "case": case,
        "mask": mask,
        "aggregation": aggregation,
        "rmse": played.test["rmse"],
        "seconds": played.seconds,
        "bytes": played.round_bytes,
        "plain": len(played.plain),
        "parties": len(played.factors),
    }


def _attacked(played: Played, dealt: Dealt, seed: int) -> dict[str, float]:
    """Attacks what these participants said; means over them."""
    found = []
    for name, holding in dealt.items():
        try:
            found.append(judge(expose(played.view.seen(played.config, name)), holding, seed=seed))
        except ConfigError:  # the few ratings that are left to attack are equal
            continue
    words = ("auc", "precision", "chance", "best", "unaided", "rmse", "baseline", "read", "outright")
    return {word: float(np.nanmean([getattr(one, word) for one in found])) for word in words}


def _sum_attacked(played: Played, dealt: Dealt, seed: int) -> dict[str, float]:
    """Attacks the sum of all; and what it tells of which items a participant has rated."""
    exposed = expose(played.view.seen(played.config, None))
    found = judge(exposed, merge(list(dealt.values())), seed=seed)
    rated = [np.isin(np.arange(one.m), one.train.shared) for one in dealt.values()]
    auc = float(np.mean([roc_auc_score(one, exposed.rated) for one in rated]))
    return {"auc": auc, "best": found.best, "unaided": found.unaided, "read": found.read}


def _criterion(played: Played, dealt: Dealt) -> dict[str, float]:
    """Finds what the criterion says of these participants: the least R², the middle one, how many pass."""
    best = [max(explained(one, played.masks[name]).values()) for name, one in dealt.items()]
    shares = {f"below {edge}": float(np.mean(np.array(best) <= edge)) for edge in (0.5, 0.7, 0.8, 0.9)}
    return {"least": min(best), "middle": float(np.median(best)), **shares}


# --- the command ----------------------------------------------------------------------------------------

_FULL = {"rounds": 12, "few": 6, "users": 100, "items": 300, "cells": 60, "key_bits": 2048}
_QUICK = {"rounds": 4, "few": 2, "users": 12, "items": 60, "cells": 12, "key_bits": 256}


def main() -> None:
    """Runs the study: a process a seed and mask, as many at once as there are cores."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.cell:
        _study_here(arguments)
        return
    if not arguments.draw:
        _study(arguments)
    findings = Findings(json.loads((arguments.out / "numbers.json").read_text(encoding="utf-8")))
    print(findings.markdown())
    for path in draw_all(findings, arguments.out):
        print(path, file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0; of single users two")
    parser.add_argument("--quick", action="store_true", help="made-up ratings, one seed, few rounds")
    parser.add_argument("--surprise", metavar="PYTHON", help="who has scikit-surprise")
    parser.add_argument("--out", type=Path, default=Path("runs/recommender-study"), help="where results go")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--draw", action="store_true", help="only tables and figures, from --out as it is")
    parser.add_argument(
        "--cell", nargs=3, metavar=("PART", "SEED", "MASK"), help="only this, in this process"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = 1
    return arguments


def _study(arguments: argparse.Namespace) -> None:
    python = arguments.surprise
    if not python or not has_surprise(python):
        why = f"{python} has none" if python else "name a Python that has it with --surprise"
        print(f"scikit-surprise is left out: {why}", file=sys.stderr)
        arguments.surprise = None
    cells = [("organisations", seed, mask) for seed in range(arguments.seeds) for mask in KINDS]
    cells += [("users", seed, mask) for seed in range(min(arguments.seeds, 2)) for mask in KINDS]
    cells += [("yardsticks", seed, "none") for seed in range(arguments.seeds)]
    started = time.perf_counter()
    records = _study_apart(("paillier", 0, "none"), arguments)  # with all cores, for its own workers
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(lambda cell: _study_apart(cell, arguments), cells):
            records += found
    numbers = {
        "made_up": arguments.quick or not is_at_hand(),
        "size": _QUICK if arguments.quick else _FULL,
        "seconds": round(time.perf_counter() - started),
        "records": records,
    }
    _write(arguments.out / "numbers.json", numbers)


def _study_apart(cell: tuple[str, int, str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Studies one cell in a process of its own, with one thread: the cores are for the other cells."""
    words = [str(word) for word in cell]
    command = [sys.executable, __file__, "--cell", *words, "--out", str(arguments.out)]
    command += ["--surprise", arguments.surprise] if arguments.surprise else []
    command += ["--quick"] if arguments.quick else []
    started = time.perf_counter()
    done = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: failed as told above")
    print(f"{' '.join(words)}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    path = _cell_file(arguments.out, words)
    records: list[dict[str, Any]] = json.loads(path.read_text())
    path.unlink()
    return records


def _study_here(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    part, seed, mask = arguments.cell[0], int(arguments.cell[1]), arguments.cell[2]
    size, made_up = (_QUICK if arguments.quick else _FULL), arguments.quick
    if part == "organisations":
        records = study_organisations(seed, mask, size, made_up)
    elif part == "users":
        records = study_users(seed, mask, size, made_up)
    elif part == "paillier":
        records = study_paillier(seed, size, made_up)
    else:
        records = yardsticks(seed, size["rounds"], RANK, made_up, arguments.surprise)
    _write(_cell_file(arguments.out, arguments.cell), [{"seed": seed, **_clean(one)} for one in records])


def _clean(record: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is no number: whether something is rated where everything is."""
    kept = {key: _clean(value) if isinstance(value, dict) else value for key, value in record.items()}
    return {key: value for key, value in kept.items() if not (isinstance(value, float) and math.isnan(value))}


def _cell_file(out: Path, words: list[str]) -> Path:
    return out / f"{'-'.join(words)}.json"


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
