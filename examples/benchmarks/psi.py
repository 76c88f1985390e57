"""Times private set intersection between two processes against its own floor and the nearest library.

    python examples/benchmarks/psi.py [--sizes 10000 100000] [--rounds 1] [--openmined PYTHON] [--spu PYTHON]

Two parties hold n ids each and share half of them. Each is a process with one core, over a link encrypted
with CURVE on loopback. The floor is what the group operations alone take one party: n hashes to the group
and 2 n multiplications, at the rates measured here. openmined-psi, where PYTHON (default: this one) has
it, does both parties' work on the same sets in one process, one after the other, without any network.
spu, where PYTHON has it (a Python of its own: it wants another NumPy), runs a process a party with one core
each over its own links, in clear text, both parties getting the result: by ECDH, and by RR22.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from protocols import load_alignment
from vfl.crypto.group import hash_to_point, multiply, random_scalar
from vfl.session import Member, Session
from vfl.wire.line import Line
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.zeromq import KeyPair, Port, make_keys

SPAWN = multiprocessing.get_context("spawn")
PARTIES = ("hub", "shop")

OPENMINED = """
import json, sys, time
try:
    import private_set_intersection.python as psi
except ImportError:
    sys.exit("not installed")
mine, theirs = json.load(sys.stdin)
client, server = psi.client.CreateWithNewKey(True), psi.server.CreateWithNewKey(True)
started = time.perf_counter()
setup = server.CreateSetupMessage(0.0, len(mine), theirs, psi.DataStructure.RAW)
request = client.CreateRequest(mine)
response = server.ProcessRequest(request)
found = client.GetIntersection(setup, response)
seconds = time.perf_counter() - started
said = sum(len(one.SerializeToString()) for one in (setup, request, response))
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "bytes": said, "peak_kib": peak, "shared": len(found)}))
"""

SPU = """
import json, os, sys, time
try:
    import spu.libspu.link as link, spu.psi as psi
except ImportError:
    sys.exit("not installed")
rank, ports, folder, way = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], sys.argv[4]
os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[rank % len(os.sched_getaffinity(0))]])
parties = link.Desc()
for place, port in enumerate(ports):
    parties.add_party("p%d" % place, "127.0.0.1:" + port)
context = link.create_brpc(parties, rank)
made = psi.PsiProtocolConfig(
    protocol=getattr(psi.PsiProtocol, "PROTOCOL_" + way), receiver_rank=0, broadcast_result=True)
if way == "ECDH":
    made.ecdh_params = psi.EcdhParams(curve=psi.EllipticCurveType.CURVE_25519)
table = psi.InputParams(path="%s/%d.csv" % (folder, rank), selected_keys=["id"], keys_unique=True)
result = psi.OutputParams(path="%s/%s%d.out.csv" % (folder, way, rank), disable_alignment=True)
config = psi.PsiExecuteConfig(protocol_conf=made, input_params=table, output_params=result)
started = time.perf_counter()
psi.psi_execute(config, context)
seconds = time.perf_counter() - started
with open(result.path) as found:
    shared = len(found.readlines()) - 1
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
context.stop_link()
print("\\n" + json.dumps({"seconds": seconds, "bytes": 0, "peak_kib": peak, "shared": shared}))
"""

LIBRARIES = """
import hashlib, os, time
from concurrent.futures import ThreadPoolExecutor

def rate(name, work, items):
    started = time.perf_counter()
    for item in items:
        work(item)
    print("| %s | %s |" % (name, format(round(len(items) / (time.perf_counter() - started)), ",")))

raw = [hashlib.sha512(str(at).encode()).digest() for at in range(4000)]
try:
    import rbcl
    scalar, times = rbcl.crypto_core_ristretto255_scalar_random(), rbcl.crypto_scalarmult_ristretto255
    rate("rbcl, ristretto255: hash to the group", rbcl.crypto_core_ristretto255_from_hash, raw)
    points = [rbcl.crypto_core_ristretto255_from_hash(one) for one in raw]
    rate("rbcl, ristretto255: multiplication", lambda point: times(scalar, point), points)
    with ThreadPoolExecutor(2) as pool:
        started = time.perf_counter()
        list(pool.map(lambda part: [times(scalar, point) for point in part], (points[::2], points[1::2])))
        seconds = time.perf_counter() - started
    print("| the same, two threads | %s |" % format(round(len(points) / seconds), ","))
except ImportError:
    print("| rbcl | not installed |")
try:
    from cryptography.hazmat.primitives.asymmetric import ec, x25519
    key = x25519.X25519PrivateKey.generate()
    load = x25519.X25519PublicKey.from_public_bytes
    rate("cryptography, X25519", lambda one: key.exchange(load(one)), [one[:31] + bytes(1) for one in raw])
    key = ec.generate_private_key(ec.SECP256R1())
    points = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(50)] * 40
    rate("cryptography, P-256", lambda point: key.exchange(ec.ECDH(), point), points)
except ImportError:
    print("| cryptography | not installed |")
try:
    import coincurve
    points = [coincurve.PublicKey.from_secret(one[:32]).format() for one in raw]
    scalar = os.urandom(32)
    rate("coincurve, secp256k1, with decoding",
         lambda point: coincurve.PublicKey(point).multiply(scalar).format(), points)
except ImportError:
    print("| coincurve | not installed |")
"""


@dataclass(frozen=True)
class Figures:
    """Is what one measurement found; bytes are what both parties sent together."""

    seconds: float
    bytes: int
    peak_kib: int
    shared: int
    grown_kib: int = 0
    """What the alignment itself added to the peak: without the program, its libraries and the ids."""


def table(n: int, name: str) -> list[str]:
    """Makes one party's ids; both parties share half of theirs."""
    start = 0 if name == "hub" else n // 2
    ids = [f"customer-{at:010d}" for at in range(start, start + n)]
    random.Random(name).shuffle(ids)  # noqa: S311 - any order will do
    return ids


# --- what is measured ------------------------------------------------------------------------------


def together(alignment: str, n: int) -> Figures:
    """Aligns two processes over a real link."""
    keys = {name: make_keys() for name in PARTIES}
    pipes, others = zip(*(SPAWN.Pipe() for _ in PARTIES), strict=True)
    processes = [
        SPAWN.Process(target=party_process, args=(pipe, name, alignment, n, keys))
        for name, pipe in zip(PARTIES, others, strict=True)
    ]
    for process in processes:
        process.start()
    pipes[1].send(pipes[0].recv())  # the hub's address
    found: list[tuple[float, int, int, int, int]] = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    seconds, sent, before, peaks, shared = zip(*found, strict=True)
    assert set(shared) == {n - n // 2}
    grown = max(peak - start for start, peak in zip(before, peaks, strict=True))
    return Figures(max(seconds), sum(sent), max(peaks), shared[0], grown)


def party_process(pipe: Connection, name: str, alignment: str, n: int, keys: dict[str, KeyPair]) -> None:
    """Is one party's process."""
    loaded, ids, took = load_alignment(alignment), table(n, name), [0.0]
    session = Session(name, "hub", {one: Member("feature") for one in PARTIES})
    if name == "hub":
        port = Port("tcp://127.0.0.1:*", hub=True, keys=keys["hub"], allowed={keys["shop"].public: "shop"})
        pipe.send(port.address)
    else:
        port = Port(pipe.recv(), hub=False, keys=keys[name], allowed={}, hub_key=keys["hub"].public)

    async def role(line: Line) -> Any:  # noqa: ANN401
        started = time.perf_counter()
        rows = await loaded.align(line, session=session, hub="hub", roster=PARTIES, ids=ids, threads=1)
        took[0] = time.perf_counter() - started
        return rows

    before = peak_kib()
    link = Link(port, name, "hub", [peer for peer in PARTIES if peer != name], loaded.messages)
    rows = perform(role, link)
    pipe.send((took[0], link.ledger.sent_bytes, before, peak_kib(), len(rows)))


def peak_kib() -> int:
    """Returns the most memory that this process has held; getrusage would count its parent's too."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def floor(n: int) -> Figures:
    """Returns what the group operations alone take one party on one core."""
    few, scalar = 3000, random_scalar()
    started = time.perf_counter()
    points = [hash_to_point(str(at), b"") for at in range(few)]
    hashed = time.perf_counter()
    for point in points:
        multiply(point, scalar)
    ended = time.perf_counter()
    return Figures(n * (hashed - started + 2 * (ended - hashed)) / few, 0, 0, 0)


def openmined(python: str, n: int) -> Figures | None:
    """Times openmined-psi, both parties' work one after the other; None where it is not installed."""
    sets = json.dumps([table(n, name) for name in PARTIES])
    done = subprocess.run([python, "-c", OPENMINED], input=sets, capture_output=True, text=True)
    if done.returncode:
        assert "not installed" in done.stderr, done.stderr
        return None
    figures = Figures(**json.loads(done.stdout))
    assert figures.shared == n - n // 2
    return figures


def spu(python: str, n: int, way: str) -> Figures | None:
    """Times spu's own intersection, a process a party; None where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        for rank, name in enumerate(PARTIES):
            Path(folder, f"{rank}.csv").write_text("\n".join(["id", *table(n, name)]) + "\n")
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            ports = f"{one.getsockname()[1]},{two.getsockname()[1]}"
        processes = [
            subprocess.Popen(
                [python, "-c", SPU, str(rank), ports, folder, way],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(len(PARTIES))
        ]
        said = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        assert any("not installed" in error for _, error in said), said
        return None
    answers = [next(line for line in out.splitlines() if line.startswith('{"seconds"')) for out, _ in said]
    found = [Figures(**json.loads(answer)) for answer in answers]
    assert {one.shared for one in found} == {n - n // 2}
    return Figures(max(one.seconds for one in found), 0, max(one.peak_kib for one in found), n - n // 2)


# --- the table -------------------------------------------------------------------------------------


def report(what: str, n: int, found: list[Figures | None]) -> None:
    """Prints one row, as Markdown."""
    figures = [one for one in found if one is not None]
    if not figures:
        print(f"| {what} | {n:,} | not installed | | | |", flush=True)
        return
    times = sorted(one.seconds for one in figures)
    middle = statistics.median(times)
    spread = f" [{times[0]:.2f} – {times[-1]:.2f}]" if len(times) > 1 else ""
    said = f"{figures[0].bytes / n:.1f}" if figures[0].bytes else ""
    peak = f"{max(one.peak_kib for one in figures) / 1024:,.0f} MiB" if figures[0].peak_kib else ""
    grown = max(one.grown_kib for one in figures)
    peak += f" ({1024 * grown / n:,.0f} bytes a row added)" if grown else ""
    print(f"| {what} | {n:,} | {middle:.2f}{spread} | {n / middle:,.0f} | {said} | {peak} |", flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="ids a party")
    parser.add_argument("--rounds", type=int, default=1, help="how often to measure everything")
    parser.add_argument("--openmined", default=sys.executable, metavar="PYTHON", help="who has openmined-psi")
    parser.add_argument("--spu", default=sys.executable, metavar="PYTHON", help="who has spu")
    parser.add_argument(
        "--libraries", metavar="PYTHON", help="only print what its libraries compute a second"
    )
    arguments = parser.parse_args()
    if arguments.libraries:
        print("| one core | a second |\n|---|---|", flush=True)
        subprocess.run([arguments.libraries, "-c", LIBRARIES], check=True)
        return
    what: dict[str, Callable[[int], Figures | None]] = {
        "psi": lambda n: together("psi", n),
        "floor: group operations": floor,
        "ids": lambda n: together("ids", n),
        "openmined-psi, both parties' work": lambda n: openmined(arguments.openmined, n),
        "spu, ECDH on Curve25519": lambda n: spu(arguments.spu, n, "ECDH"),
        "spu, RR22": lambda n: spu(arguments.spu, n, "RR22"),
    }
    print(f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}\n")
    print("| | ids a party | seconds | ids/s | bytes a row, both ways | peak memory of a party |")
    print("|---|---|---|---|---|---|")
    for n in arguments.sizes:
        found: dict[str, list[Figures | None]] = {name: [] for name in what}
        for _ in range(arguments.rounds):
            for name, measure in what.items():
                found[name].append(measure(n))
        for name, figures in found.items():
            report(name, n, figures)


if __name__ == "__main__":
    main()
