"""Times a federated factorisation: what masks add, how it grows with the ratings, and what encryption takes.

    python examples/benchmarks/fedmmf.py [--parts masks encrypted growth many] [--repeats 3] [--quick]

VFL_DATA names the folder that has movielens/ and movietweetings/; without it ratings are drawn, and the
tables say so. A round is training and validation; rank 8, mask "user_mean". The first round, which begins
with what is done once, is not counted. *All parties* is one thread that plays everybody through the true
codec, in the processor's seconds, so that other programs on the machine do not count; *one participant and
the coordinator* is of that time the coordinator's and that of the participant that worked most: what a round
takes where each has a host of its own, without the network. *Processes* are a process a party over CURVE on
loopback, in seconds of the clock. Bytes are true frame lengths, of all links together. Medians over all
rounds, the lowest and highest in brackets; of ratios, over repeats that measure plain and masked one after
the other.

*Encrypted* wants the extra `paillier`. *phe* is the same round as one would write it with that library: a
participant's whole part is gone through with gmpy2, and a fiftieth of it without; the rest are its
operations at what each took there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import zmq
from fedmmf_cast import Crew, Played, Setting, forget_peak, in_fresh_process, memory_mib, play
from fedmmf_tables import Table, deal, drawn, hold_parts, movielens, movietweetings

from vfl.masking.graph import collusion_bound, degree_of
from vfl.ratings.holding import RatingsHolding
from vfl.ratings.least_squares import statistics_width

PARTS = ("masks", "encrypted", "growth", "many")
WAYS = ("plain", "masked")
#: FedMF's own size: as many users, items, factors and ratings, of which 109 train in its log and 105 here.
FEDMF = Table("drawn, as many as in FedMF's log", 130, 7, 40)
FEDMF_FACTORS = 100
FEDMF_LOG_S = {"plain": 0.0014, "rated items, 1024 bits,": 4.59, "all items": 7.29}


# --- what masks add ------------------------------------------------------------------------------------


def compare_masks(options: argparse.Namespace) -> None:
    """Prints plain and masked rounds beside each other."""
    table = movielens()
    print(f"\n### Masked against plain\n\n{table.name}.\n")
    head = [
        "participants", "solver", "plain, s a round", "masked, s a round", "masked ÷ plain",
        "the same, one participant and the coordinator", "plain, bytes a round", "masked, bytes a round",
    ]  # fmt: skip
    print_table(head, _masks_rows(table, options))
    print("\nTarget: masked ÷ plain at most 1.10.")


def _masks_rows(table: Table, options: argparse.Namespace) -> Iterator[list[str]]:
    for k in options.participants:
        holdings = deal(table, k)
        for solver in ("als", "sgd"):
            yield _in_one_process(table, k, solver, holdings, options.repeats)
    crew = Crew.of(Setting.of(table, 3, 1))
    try:
        for solver in ("als", "sgd"):
            yield _as_processes(crew, table, solver, options.repeats)
    finally:
        crew.end()


def _settings(table: Table, k: int, solver: str, rounds: int) -> list[Setting]:
    return [Setting.of(table, k, rounds, solver=solver, aggregation=way) for way in WAYS]


def _in_one_process(
    table: Table, k: int, solver: str, holdings: list[RatingsHolding], repeats: int
) -> list[str]:
    settings = _settings(table, k, solver, 2 if k > 10 else 6)
    found: list[tuple[Played, Played]] = []
    for number in range(repeats):
        found.append(_both(lambda setting: play(setting, holdings), settings, number))
    cells = [spread([s for pair in found for s in pair[at].processor], "{:.3f}") for at in (0, 1)]
    ratios = [_ratio([pair[at].processor for at in (0, 1)]) for pair in found]
    paths = [_ratio([pair[at].path for at in (0, 1)]) for pair in found]
    return [
        f"{k}, all parties", solver, *cells, spread(ratios, "{:.2f}", bold=True), spread(paths, "{:.2f}"),
        *_bytes(found),
    ]  # fmt: skip


def _as_processes(crew: Crew, table: Table, solver: str, repeats: int) -> list[str]:
    settings = _settings(table, 3, solver, 11)
    found = [_both(crew.play, settings, number) for number in range(repeats + 1)][1:]  # the first warms up
    cells = [spread([s for pair in found for s in pair[at].wall], "{:.3f}") for at in (0, 1)]
    ratios = [_ratio([pair[at].wall for at in (0, 1)]) for pair in found]
    return ["3, processes", solver, *cells, spread(ratios, "{:.2f}", bold=True), "", *_bytes(found)]


def _both(played: Any, settings: list[Setting], number: int) -> tuple[Played, Played]:  # noqa: ANN401
    """Plays plain and masked, in the one order and in the other by turns."""
    order = (0, 1) if number % 2 else (1, 0)
    found = {at: played(settings[at]) for at in order}
    assert found[0].test == found[1].test, "masks change nothing"
    return found[0], found[1]


def _ratio(pair: Sequence[Sequence[float]]) -> float:
    plain, masked = (statistics.median(one) for one in pair)
    return masked / plain


def _bytes(found: list[tuple[Played, Played]]) -> list[str]:
    return [f"{found[0][at].round_bytes:,.0f}" for at in (0, 1)]


# --- how it grows --------------------------------------------------------------------------------------


def measure_growth(options: argparse.Namespace) -> None:
    """Prints time and memory against the number of ratings."""
    print("\n### Time and memory by ratings\n\n3 participants in one process, masked; a process a row.\n")
    real = [table for table in (movielens(), movietweetings()) if table is not None][: 2 - options.quick]
    rows: list[list[str]] = []
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for table in real:
            rows.append(_grown(table, in_fresh_process(grow, table)))
        for n in options.sizes:
            table = drawn(n).written(folder)
            found.append(in_fresh_process(grow, table))
            rows.append(_grown(table, found[-1]))
    sizes = [one["n"] for one in found]
    measured = ("read", "lay out", "als", "sgd", "added")
    powers = [f"**{_exponent(sizes, [one[what] for one in found]):.2f}**" for what in measured]
    rows.append(["exponent, the drawn ones", "", "", "", *powers, ""])
    head = [
        "table", "ratings", "users", "items", "read and check, s", "lay out and split, s", "als, s a round",
        "sgd, s a round", "peak memory added, MiB", "bytes a rating",
    ]  # fmt: skip
    print_table(head, rows)
    a, b = found[0], found[-1]
    more = 2**20 * (b["added"] - a["added"]) / (b["n"] - a["n"])
    print(
        f"\nAn exponent of 1 is linear, and a part that does not grow, such as that of the items, lowers it. "
        f"From {a['n']:,} to {b['n']:,} ratings each more takes {more:.0f} bytes."
    )


def grow(table: Table) -> dict[str, Any]:
    """Measures one table in a process of its own."""
    for solver in ("als", "sgd"):  # imports what is imported late
        play(Setting.of(FEDMF, 2, 1, solver=solver, aggregation="masked"))
    base, times = memory_mib("VmRSS"), [time.perf_counter()]
    ratings = table.read()
    times.append(time.perf_counter())
    holdings = hold_parts(table, ratings, 3, range(3))
    times.append(time.perf_counter())
    found: dict[str, Any] = {
        "n": len(ratings),
        "users": len(ratings.user_ids),
        "items": len(ratings.item_ids),
        "read": times[1] - times[0],
        "lay out": times[2] - times[1],
    }
    del ratings
    for solver in ("als", "sgd"):
        setting = Setting.of(table, 3, 5, solver=solver, aggregation="masked")
        found[solver] = statistics.median(play(setting, holdings).processor)
    return found | {"added": memory_mib("VmHWM") - base}


def _grown(table: Table, found: dict[str, Any]) -> list[str]:
    each = 2**20 * found["added"] / found["n"]
    return [
        table.name, *(f"{found[what]:,}" for what in ("n", "users", "items")), f"{found['read']:.2f}",
        f"{found['lay out']:.2f}", f"{found['als']:.3f}", f"{found['sgd']:.3f}", f"{found['added']:.0f}",
        f"{each:.0f}",
    ]  # fmt: skip


def _exponent(sizes: Sequence[int], figures: Sequence[float]) -> float:
    """Fits figure = a · n ** x; returns x."""
    return float(np.polyfit(np.log(sizes), np.log(figures), 1)[0])


# --- many participants ---------------------------------------------------------------------------------


def measure_many(options: argparse.Namespace) -> None:
    """Prints what a thousand participants take in one process."""
    k = options.many
    table, degree = drawn(100 * k, 2_000, k), degree_of(k)
    bits = collusion_bound(k, degree)
    odds = f"with probability 2^{bits:.1f} at most" if bits > -float("inf") else "never"
    print(
        f"\n### {k:,} participants in one process\n\nRatings are {table.name}: each participant is one user, "
        f"of 2,000 items. Each masks with {degree} others: if a third are in league with the coordinator, a "
        f"smaller sum than that of all others shows {odds}.\n"
    )
    plays = [
        Setting.of(table, k, rounds, solver=solver, aggregation=way)
        for solver, way, rounds in (("sgd", "plain", 3), ("sgd", "masked", 3), ("als", "masked", 2))
    ]
    rows = []
    for setting, (found, memory) in zip(plays, in_fresh_process(crowd, plays), strict=True):
        rows.append([
            setting.config.solver, setting.config.aggregation, f"{found.setup_s:.1f}",
            spread(found.processor, "{:.2f}"), spread(found.path, "{:.3f}"),
            f"{found.round_bytes / 1e6:,.0f}", f"{memory:,.0f}",
        ])  # fmt: skip
    head = [
        "solver", "aggregation", "keys and the mean, s", "all parties, s a round",
        "one participant and the coordinator, s a round", "MB a round", "peak memory added, MiB",
    ]  # fmt: skip
    print_table(head, rows)


def crowd(settings: list[Setting]) -> list[tuple[Played, float]]:
    """Plays settings in a process of its own; returns what each took, and the memory in MiB."""
    play(Setting.of(FEDMF, 2, 1, solver="sgd"))
    base, found = memory_mib("VmRSS"), []
    for setting in settings:
        forget_peak()
        found.append((play(setting), memory_mib("VmHWM") - base))
    return found


# --- encrypted -----------------------------------------------------------------------------------------


def compare_encrypted(options: argparse.Namespace) -> None:
    """Prints FedMF's own size in the clear, under masks and encrypted."""
    k, items, width = FEDMF.users, FEDMF.items, FEDMF_FACTORS + 1
    print(
        f"\n### FedMF's own size\n\n{k} users, each a participant, {items} items, {FEDMF_FACTORS} factors, "
        f"{FEDMF.n} ratings, drawn; gradient steps."
    )
    if any(find_spec(name) is None for name in ("gmpy2", "phe")):
        print("\ngmpy2 or phe is not installed, so this is left out.")
        return
    print()
    holdings = deal(FEDMF, k)
    found = {what: _played(holdings, options, **given) for what, given in _ENCRYPTED.items()}
    rated = statistics.mean(len(np.unique(one.train.shared)) for one in holdings)
    said, read = {"all": items * width, "rated": round(rated * width)}, items * width
    figures = {
        what: (statistics.median(one.processor), statistics.median(one.path)) for what, one in found.items()
    }
    rows = [[what, *_against(figures[what], figures["masked"]), _traffic(found[what])] for what in found]
    for what, with_gmpy2, bits, share in _PHE:
        from fedmmf_phe import time_operations

        values = max(20, round(read * share * (0.02 if options.quick else 1)))
        costs = time_operations(bits, values, with_gmpy2=with_gmpy2)
        for which in ("all", "rated"):
            theirs = (costs.whole(k, said[which], read), costs.path(k, said[which], read))
            n_bytes = f"{k * (said[which] + read) * bits // 4:,}"  # a ciphertext has 2 · bits
            rows.append(
                [f"{what}, {bits} bits, {which} items", *_against(theirs, figures["masked"]), n_bytes]
            )
    head = [
        "aggregation", "all parties, s a round", "÷ masked", "one participant and the coordinator, s a round",
        "÷ masked", "bytes a round",
    ]  # fmt: skip
    print_table(head, rows)
    seconds = figures["masked"][1]
    log = ", ".join(
        f"{what} {logged} s, {logged / seconds:,.2f} × our masked" for what, logged in FEDMF_LOG_S.items()
    )
    print(
        f"\nTarget: encrypted at least 1,000 × as long as masked. FedMF's own log counts the slowest user, "
        f"the server and an estimated transfer, on its authors' machine: {log}."
    )


_SMALL = {"key_bits": 1024, "unsafe_small_key": True}
_ENCRYPTED: dict[str, dict[str, Any]] = {
    "plain": {"aggregation": "plain"},
    "masked": {"aggregation": "masked"},
    "paillier, packed, 1024 bits, all items": {"aggregation": "paillier", **_SMALL},
    "paillier, packed, 1024 bits, rated items": {
        "aggregation": "paillier",
        "paillier_items": "rated",
        **_SMALL,
    },
    "paillier, packed, 2048 bits, all items": {"aggregation": "paillier"},
}
#: Which phe, and how much of a participant's part it goes through.
_PHE = (("phe + gmpy2", True, 1024, 1.0), ("phe", False, 1024, 0.02))


def _played(holdings: list[RatingsHolding], options: argparse.Namespace, **given: Any) -> Played:  # noqa: ANN401
    rounds = (2 if options.quick else 4) if given["aggregation"] == "paillier" else 41
    setting = Setting.of(FEDMF, len(holdings), rounds, solver="sgd", rank=FEDMF_FACTORS, **given)
    return play(setting, holdings)


def _against(figures: tuple[float, float], masked: tuple[float, float]) -> list[str]:
    whole, path = (f"{one:,.4f}" if one < 1 else f"{one:,.1f}" for one in figures)
    ratios = [f"**{_shown(one / two)}**" for one, two in zip(figures, masked, strict=True)]
    return [whole, ratios[0], path, ratios[1]]


def _shown(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2f}"


def _traffic(found: Played) -> str:
    return f"{found.round_bytes:,.0f}"


# --- the whole -----------------------------------------------------------------------------------------


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints Markdown."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def spread(values: Sequence[float], form: str, *, bold: bool = False) -> str:
    """Returns the median, and the lowest and highest in brackets."""
    median = form.format(statistics.median(values))
    return f"{f'**{median}**' if bold else median} [{form.format(min(values))} – {form.format(max(values))}]"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3, help="how often to compare plain and masked")
    parser.add_argument("--participants", type=int, nargs="+", default=[3, 10, 100])
    parser.add_argument("--sizes", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--many", type=int, default=1_000, help="how many participants in one process")
    parser.add_argument("--quick", action="store_true", help="small sizes, in a minute: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.participants, options.sizes, options.many = 1, [3], [20_000, 40_000], 40
    started = time.perf_counter()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {_version(name)}" for name in ("numpy", "cryptography", "phe", "gmpy2"))
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, pyzmq {zmq.__version__} (libzmq "
        f"{zmq.zmq_version()}), {versions}; rank 8, {statistics_width(8)} numbers of 64 bits an item with "
        f"als, 9 of 32 bits with sgd."
    )
    for solver in ("als", "sgd"):  # imports what is imported late
        play(Setting.of(FEDMF, 2, 1, solver=solver, aggregation="masked"))
    parts = {
        "masks": compare_masks,
        "growth": measure_growth,
        "many": measure_many,
        "encrypted": compare_encrypted,
    }
    seconds = {}
    for name in options.parts:
        began = time.perf_counter()
        parts[name](options)
        seconds[name] = time.perf_counter() - began
    each = ", ".join(f"{name} {s:.0f}" for name, s in seconds.items())
    whole = time.perf_counter() - started
    print(f"\n{whole:.0f} s in all ({each}); load {os.getloadavg()[0]:.1f} at the end.")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
