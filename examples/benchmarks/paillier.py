"""Times Paillier's operations and whole training steps against phe, and against HEU where that is installed.

    python examples/benchmarks/paillier.py [--parts operations obfuscators products steps] [--key-bits 2048]
        [--rounds 5] [--batches 64 256] [--heu PYTHON]

*Operations*, *obfuscators* and *products* are of one core: seconds of processor time, so that other programs
on the machine do not count; medians over the rounds. phe without gmpy2 is the same library with its switch
for gmpy2 turned off, under the same key. A packed plaintext holds as many slots of 32 bits as fit. "encrypt"
is packing, encryption, one obfuscator and the way to bytes; "multiply" is a product with an integer of 16
bits and its addition to a sum of 16, in slots that hold such sums. PYTHON is one that has sf-heu, by default
this one.

*Steps* are of 16 activations and a cut of width 16: both parties' true roles, a process with one thread each,
over CURVE on loopback, in the layouts of a training of a thousand updates. Beside them the same step with
phe, a value a ciphertext: its operations are counted, and timed on a smaller step that is gone through from
end to end, to the same weights as ours bit for bit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gmpy2
import numpy as np
import phe_step
import torch
from paillier_products import multiplications, per_second, print_table, seconds, time_products
from paillier_step import Crew, Found, Setting, stepped, trained
from phe_step import without_gmpy2

from protocols.paillier.cost import count
from protocols.paillier.scales import Scales
from vfl.paillier.exponentiation import plan, products_of_powers
from vfl.paillier.keys import PrivateKey, make_keys
from vfl.paillier.obfuscation import Covering, Exact, Obfuscators, ShortExponent
from vfl.paillier.packing import Layout, Packing
from vfl.paillier.pool import Pool
from vfl.paillier.shipping import receive, ship
from vfl.paillier.vector import EncryptedMatrix

WIDTH, BITS = 16, 16
LIMIT = (1 << (BITS - 1)) - 1
PARTS = ("operations", "obfuscators", "products", "steps")
SMALL = {"batch": 8, "steps": 1, "d": 4, "k": 4, "updates": 1, "noise": b"benchmark"}


# --- operations ---------------------------------------------------------------------------------------


def of_phe(key: PrivateKey, rounds: int, count: int) -> dict[str, float]:
    """Times phe, a value a ciphertext."""
    public, private = key.public.phe_key, key.phe_key
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, count).tolist()
    enciphered = [public.encrypt(value) for value in values]

    def decrypt() -> None:
        assert [private.decrypt(one) for one in enciphered] == values

    return {
        "encrypt": per_second(count, rounds, lambda: [public.encrypt(value) for value in values]),
        "add": per_second(count, rounds, lambda: [one + enciphered[0] for one in enciphered]),
        "multiply": per_second(
            count,
            rounds,
            lambda: sum(one * value for one, value in zip(enciphered, values, strict=True)),
        ),
        "decrypt": per_second(count, rounds, decrypt),
    }


def of_ours(key: PrivateKey, rounds: int, count: int) -> dict[str, float]:
    """Times packed matrices; encryption by the key holder, exactly."""
    public = key.public
    packing = Packing(32, (public.bits - 1) // 32)
    layout = Layout(packing, count, packing.slots)
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, (count, packing.slots))
    exact = Exact(key)
    matrix = receive(encrypted(key, layout, values, exact), public, layout, LIMIT)
    fitted = Packing.fitting(public.bits, value_bits=BITS, multiplier_bits=BITS, additions=WIDTH)
    factor = EncryptedMatrix.encrypt(
        public, Layout(fitted, WIDTH, fitted.slots), np.resize(values, (WIDTH, fitted.slots))
    )
    factor = receive(ship(factor, exact), public, factor.layout, LIMIT)
    x = np.random.default_rng(1).integers(-LIMIT, LIMIT, (WIDTH, WIDTH))

    def decrypt() -> None:
        assert (matrix.decrypt(key) == values).all()

    return {
        "encrypt": per_second(values.size, rounds, lambda: encrypted(key, layout, values, exact)),
        "add": per_second(values.size, rounds, lambda: matrix.add(matrix)),
        "multiply": per_second(x.size * fitted.slots, rounds, lambda: factor.left_multiply(x)),
        "decrypt": per_second(values.size, rounds, decrypt),
    }


def of_heu(python: str, key_bits: int, rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Times HEU's schemes in another Python, on one core; none where that has no HEU."""
    program = str(Path(__file__).with_name("heu_operations.py"))
    share_bits = Setting(256, 1).scales.share_bits
    given = [str(number) for number in (key_bits, rounds, count, share_bits)]
    core = str(max(os.sched_getaffinity(0)))
    told = subprocess.run(
        ["taskset", "-c", core, python, program, *given],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    found: dict[str, dict[str, float]] = json.loads(told.stdout.splitlines()[-1]) if told.stdout else {}
    return found


def compare_operations(
    key: PrivateKey, options: argparse.Namespace, heu: dict[str, dict[str, float]]
) -> None:
    """Prints values a second of the four operations."""
    rounds, n = options.rounds, options.count
    with without_gmpy2():
        plain = of_phe(key, rounds, max(2, n // 8))
    rows = {"phe": plain, "phe + gmpy2": of_phe(key, rounds, n)}
    for name, found in heu.items():
        slots = int(found["plaintext_bits"] - 2) // 32
        full = {"encrypt": "encrypt_full", "decrypt": "decrypt_full"}
        rows[f"HEU, {name}"] = found
        rows[f"HEU, {name}, packed as here, {slots} slots"] = {
            kind: slots * found[full.get(kind, kind)] for kind in plain
        }
    rows["packed, here"] = of_ours(key, rounds, n)
    print_table(
        ["values a second", *plain],
        [[name, *(f"{found[kind]:,.0f}" for kind in plain)] for name, found in rows.items()],
    )


# --- obfuscators ---------------------------------------------------------------------------------------


def encrypted(key: PrivateKey, layout: Layout, values: np.ndarray, source: Obfuscators) -> bytes:
    """Encrypts and ships."""
    return ship(EncryptedMatrix.encrypt(key.public, layout, values), source)


def compare_obfuscators(key: PrivateKey, rounds: int, count: int) -> None:
    """Prints obfuscators a second by source, and packed values encrypted a second with each."""
    public = key.public
    packing = Packing(32, (public.bits - 1) // 32)
    layout = Layout(packing, count, packing.slots)
    values = np.random.default_rng(0).integers(-LIMIT, LIMIT, (count, packing.slots))
    sources: dict[str, Callable[[], Any]] = {
        "exact, by the key holder": lambda: Exact(key),
        "short exponent, published": lambda: ShortExponent(public),
        "short exponent, further assumption": lambda: ShortExponent(public, "further assumption"),
        "covering": lambda: Covering(public),
    }
    rows = []
    for name, make in sources.items():
        table, source = seconds(1, make)
        rate = per_second(count, rounds, lambda source=source: [source.draw() for _ in range(count)])  # type: ignore[misc]
        values_rate = per_second(
            values.size,
            rounds,
            lambda source=source: encrypted(key, layout, values, source),  # type: ignore[misc]
        )
        rows.append([name, f"{table:.2f} s", f"{rate:,.0f}", f"{values_rate:,.0f}"])
    drawn, ahead = [], 8 * count
    for _ in range(rounds):
        with Pool(ShortExponent(public, "further assumption"), ahead) as pool:
            pool.wait_until_full()
            started = time.process_time()
            for _ in range(ahead // 2):
                pool.draw()
            drawn.append(ahead / 2 / (time.process_time() - started))
    rows.append(["drawn from a full pool", "", f"{statistics.median(drawn):,.0f}", ""])
    print_table(["obfuscators", "table", "a second", "packed values encrypted a second"], rows)


# --- steps ---------------------------------------------------------------------------------------------


def with_phe(key: PrivateKey, rounds: int) -> tuple[phe_step.Meter, float]:
    """Goes through small steps; returns what each operation took, and a step's estimate over its time."""
    setting = Setting(key_bits=key.public.bits, **SMALL)  # type: ignore[arg-type]
    ours, ratios, total = trained(setting), [], phe_step.Meter()
    counts = phe_step.operations(setting.batch, setting.d, setting.k)
    for number in range(rounds + 1):
        meter = phe_step.Meter()
        assert stepped(setting, key, meter) == ours, "the same weights, bit for bit"
        assert meter.counts == counts
        if number:  # the first only counts for the others' estimate
            ratios.append(total.of(counts) / meter.step_s)
        total.seconds.update(meter.seconds)
        total.counts.update(meter.counts)
    return total, statistics.median(ratios)


def floor_s(key: PrivateKey, rounds: int, scales: Scales, batch: int) -> float:
    """Returns the processor seconds of the powers and multiplications that were counted, both parties'."""
    public, n = key.public, 16
    exact, covering = Exact(key), Covering(public)
    cells = [covering.draw() for _ in range(n)]
    exponents = np.random.default_rng(2).integers(-LIMIT, LIMIT, (n, n))
    dec_s, _ = seconds(rounds, lambda: [key.decrypt(cell) for cell in cells])
    exact_s, _ = seconds(rounds, lambda: [exact.draw() for _ in cells])
    covering_s, _ = seconds(rounds, lambda: [covering.draw() for _ in cells])
    powers_s, _ = seconds(rounds, lambda: products_of_powers(cells, exponents, public.n_squared))
    multiplication_s = powers_s / plan(n, n, BITS - 1).multiplications
    feature, label = count(scales, batch, learning=True)
    work_s = feature.decryptions * dec_s + feature.obfuscators * exact_s + label.obfuscators * covering_s
    return work_s / n + sum(multiplications(scales, batch)) * multiplication_s


def heu_s(scales: Scales, b: int, found: dict[str, float]) -> float:
    """Estimates a step with HEU's operations, in slots as wide as ours, its products one power at a time."""
    d, k, bits = scales.d, scales.k, int(found["plaintext_bits"]) - 2
    z, wide, share = (
        bits // one.packing.slot_bits for one in (scales.columns(b), scales.rows(b), scales.share(b))
    )
    z_blocks, wide_blocks, share_blocks = math.ceil(b / z), math.ceil(d / wide), math.ceil(d / share)
    copies = max(1, share // d)
    shipped = k * z_blocks + k * wide_blocks + math.ceil(b / copies) * share_blocks
    enciphered = d * z_blocks + b * wide_blocks + k * copies * share_blocks
    powers = d * k * z_blocks / found["multiply_by_share"]
    powers += (b * k * wide_blocks + b * k * share_blocks) / found["multiply"]
    return (
        powers
        + enciphered / found["encrypt_full"]
        + shipped / found["encrypt"]
        + shipped / found["decrypt_full"]
    )


def time_steps(key: PrivateKey, options: argparse.Namespace, heu: dict[str, dict[str, float]]) -> None:
    """Prints a row a batch size: the roles, what was expected, and the same step with others."""
    with without_gmpy2():
        bare, _ = with_phe(key, 1)
    naive, estimate = with_phe(key, options.rounds)
    print(
        f"\nphe + gmpy2 went through {options.rounds + 1} steps of 8 rows, 4 activations and width 4 to the "
        f"same weights, bit for bit; the sum of its operations is {estimate:.3f} of the time of a step."
    )
    crew, rows = Crew.start(), []
    try:
        for batch in options.batches:
            setting = Setting(batch, options.steps, key.public.bits)
            runs = [crew.play(setting) for _ in range(options.rounds)]
            counts = phe_step.operations(batch, WIDTH, WIDTH)
            others = [
                bare.of(counts),
                naive.of(counts),
                *(heu_s(setting.scales, batch, one) for one in heu.values()),
            ]
            floor = floor_s(key, options.rounds, setting.scales, batch)
            rows.append([f"{batch}", *figures(runs, others[1], floor), *(f"{one:,.1f}" for one in others)])
    finally:
        crew.end()
    head = [
        "batch", "seconds a step", "phe + gmpy2 ÷ ours", "expected by `vfl check` ÷ took", 
        "processor seconds, both parties",
        "phe + gmpy2 ÷ ours, processor", "counted operations alone, s", "bytes a step, both ways", "phe, s",
        "phe + gmpy2, s", *(f"HEU, {name}, s" for name in heu),
    ]  # fmt: skip
    print_table(head, rows)
    print("\nTargets: phe + gmpy2 ÷ ours at least 100; expected within 30 % of what a step took.")


def figures(runs: list[Found], naive: float, floor: float) -> list[str]:
    """Returns the cells of one batch size."""
    return [
        spread([one.wall_s for one in runs], "{:.2f}"),
        spread([naive / one.wall_s for one in runs], "{:.0f}", bold=True),
        spread([one.expected_s / one.wall_s for one in runs], "{:.2f}", bold=True),
        spread([one.processor_s for one in runs], "{:.2f}"),
        spread([naive / one.processor_s for one in runs], "{:.0f}"),
        f"{floor:.2f}",
        f"{runs[0].n_bytes:,.0f}",
    ]


def spread(values: list[float], form: str, *, bold: bool = False) -> str:
    """Returns the median, and the lowest and highest in brackets."""
    median = form.format(statistics.median(values))
    return f"{f'**{median}**' if bold else median} [{form.format(min(values))} – {form.format(max(values))}]"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--key-bits", type=int, default=2048, choices=(2048, 3072))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=48, help="ciphertexts a round")
    parser.add_argument("--steps", type=int, default=10, help="training steps a round")
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--heu", default=sys.executable, metavar="PYTHON", help="who has sf-heu")
    options = parser.parse_args()
    started = time.perf_counter()
    torch.set_num_threads(1)
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, gmpy2 {gmpy2.version()} ({gmpy2.mp_version()}), phe "
        f"{importlib.metadata.version('phe')}; keys of {options.key_bits} bits, {options.rounds} rounds."
    )
    key = make_keys(options.key_bits)
    wants_heu = {"operations", "steps"} & set(options.parts)
    heu = of_heu(options.heu, options.key_bits, options.rounds, options.count) if wants_heu else {}
    if "operations" in options.parts:
        compare_operations(key, options, heu)
    if "obfuscators" in options.parts:
        compare_obfuscators(key, options.rounds, options.count)
    for batch in options.batches if "products" in options.parts else ():
        time_products(key, options.rounds, batch)
    if "steps" in options.parts:
        time_steps(key, options, heu)
    print(f"\n{time.perf_counter() - started:.0f} s in all; load {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    main()
