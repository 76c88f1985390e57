"""Trains on two large Parquet tables and prints each party's peak memory and the time of each phase.

    python examples/benchmarks/large_table.py [--rows 5000000] [--columns 50] [--align ids] [--folder DIR]

Each of two parties holds `--columns` float columns of the same people, in files whose rows stand in
different orders, in row groups of a million rows; the label follows from columns of both. One epoch,
batches of 8,192. *Resident* is the most that a party's process ever had in memory (VmHWM); *private* is
the most of it that the system could not take back (RssAnon, seen every 50 ms): the difference is mapped
files, the prepared features and the libraries' code. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 100_000
GROUP = 1_000_000

JOB = """
name = "large"
protocol = "splitnn"
task = "binary"
align = "{align}"
epochs = 1
batch_size = 8192
[split]
valid = 0.05
test = 0.05
[parties.bank]
role = "label"
width = 16
[parties.telecom]
role = "feature"
width = 16
"""
SITE = """
party = "{name}"
[table]
source = "{name}.parquet"
columns = ["x*"]
[bottom]
preset = "mlp"
hidden = [64]
"""
LABEL = """
[label]
column = "left"
"""


def write_tables(folder: Path, rows: int, columns: int) -> None:
    """Writes both tables, a block at a time."""
    for place, name in enumerate(("bank", "telecom")):
        names = [f"x{number:02d}" for number in range(columns)]
        kinds = [("id", pa.string()), *((column, pa.float32()) for column in names)]
        schema = pa.schema([*kinds, ("left", pa.int8())] if name == "bank" else kinds)
        with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="snappy") as writer:
            for group in range(0, rows, GROUP):
                blocks = [
                    _block(start, min(start + BLOCK, rows), rows, columns, place)
                    for start in range(group, min(group + GROUP, rows), BLOCK)
                ]
                writer.write_table(pa.concat_tables([pa.table(block, schema=schema) for block in blocks]))


def _block(start: int, stop: int, rows: int, columns: int, place: int) -> dict[str, object]:
    # Another order at each party: multiplying by a number prime to `rows` visits every person once.
    people = (np.arange(start, stop) * (1, 999_983)[place]) % rows
    random = np.random.default_rng([place, start])
    x = random.normal(size=(stop - start, columns)).astype(np.float32)
    # Both parties can say what a person's signal is, so that there is something to learn.
    signal = np.sin(people * 12.9898) * 43758.5453 % 1.0 - 0.5
    x[:, 0] += (4 * signal).astype(np.float32)
    block: dict[str, object] = {"id": [f"c{person:09d}" for person in people.tolist()]}
    block |= {f"x{number:02d}": x[:, number] for number in range(columns)}
    if place == 0:
        block["left"] = (signal > 0).astype(np.int8)
    return block


class Watch(threading.Thread):
    """Watches the memory of a process's children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peaks: dict[int, dict[str, int]] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Reads each child's status until the run is over."""
        while not self.over.wait(0.05):
            for child in _children(self.pid):
                peak = self.peaks.setdefault(child, {"VmHWM": 0, "RssAnon": 0})
                for key, value in _status(child):
                    if key in peak:
                        peak[key] = max(peak[key], value)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _status(pid: int) -> Iterator[tuple[str, int]]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition(":")
        if value.endswith("kB"):
            yield key, int(value.split()[0]) * 1024


def main() -> None:
    """Prints the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--align", choices=["given", "ids", "psi"], default="ids")
    parser.add_argument("--folder", type=Path, help="where the tables are made (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        _measure(Path(made), arguments.rows, arguments.columns, arguments.align)


def _measure(folder: Path, rows: int, columns: int, align: str) -> None:
    began = time.perf_counter()
    write_tables(folder, rows, columns)
    sizes = [(folder / f"{name}.parquet").stat().st_size for name in ("bank", "telecom")]
    made = time.perf_counter() - began
    (folder / "job.toml").write_text(JOB.format(align=align))
    (folder / "bank.toml").write_text(SITE.format(name="bank") + LABEL)
    (folder / "telecom.toml").write_text(SITE.format(name="telecom"))
    command = [sys.executable, "-m", "parties", "run", str(folder), "--out", str(folder / "runs"), "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    phases: list[tuple[float, str]] = []
    assert process.stderr is not None
    for line in process.stderr:
        phases.append((time.perf_counter() - began, line.strip()))
        print(f"{phases[-1][0]:8.1f} s  {phases[-1][1]}", file=sys.stderr, flush=True)
    assert process.stdout is not None
    answer = process.stdout.read()
    process.wait()
    watch.over.set()
    watch.join()
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}")
    result = json.loads(answer)
    total = time.perf_counter() - began
    trained = sum(result["rows"].values())
    print(f"{rows:,} rows × {columns} columns a party, Parquet of {sizes[0] / 2**20:,.0f} MiB each ")
    print(f"(made in {made:.0f} s); align = {align}; {trained:,} rows shared; {total:.0f} s in all, ")
    print(f"test AUC {result['metrics']['test']['auc']:.4f}.\n")
    print("| party process | peak resident, MiB | peak private, MiB |\n|---|---|---|")
    for name, peak in zip(("bank", "telecom"), watch.peaks.values(), strict=False):
        print(f"| {name} | {peak['VmHWM'] / 2**20:,.0f} | {peak['RssAnon'] / 2**20:,.0f} |")


if __name__ == "__main__":
    main()
