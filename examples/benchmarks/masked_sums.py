"""What a masked sum is made of: fixed point and masks, keys, and the same sum under Paillier.

`sfa.py` prints these as its second table.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vfl.crypto.pairs import new_secret, public_of
from vfl.masking import agreeing
from vfl.masking.masks import Counter, Masks
from vfl.masking.ring import Ring
from vfl.session import Member, Session
from vfl.wire.line import Line, Role
from vfl.wire.rehearse import rehearse

WIDTH, LABEL = 64, "label"


def key_set_up(k: int) -> float:
    """Times an agreement on keys among k, all of it in one thread, in CPU seconds."""
    names = [f"party{place:02}" for place in range(k)]
    secrets = {name: new_secret() for name in [*names, LABEL]}
    members = {
        name: Member("label" if name == LABEL else "feature", WIDTH, public_of(one))
        for name, one in secrets.items()
    }
    session = Session(LABEL, LABEL, members, nonce=os.urandom(16))

    def role(name: str) -> Role[Any]:
        mine = replace(session, me=name, secret_key=secrets[name])

        async def play(line: Line) -> None:
            roster = await line.hear(LABEL, agreeing.Roster)
            await agreeing.agree_on_keys(line, mine, LABEL, roster)

        return play

    roles = {name: role(name) for name in names}
    roles[LABEL] = lambda line: agreeing.relay_keys(line, agreeing.Roster(1, tuple(names)))
    started = time.process_time()
    rehearse(roles, agreeing.KINDS, record=False, hub=LABEL)
    return time.process_time() - started


def masking_ns(k: int, batch: int) -> float:
    """Times one contributor's fixed point, mask and addition, in nanoseconds a value."""
    ring, repeats = Ring.fitting(32, 64.0, k), 40
    masks = Masks("me", {f"party{place:02}": os.urandom(32) for place in range(k - 1)}, ring)
    h = torch.randn(batch, WIDTH)
    started = time.perf_counter()
    for step in range(repeats):
        ring.total([ring.encode(h)[0], masks.take(Counter(0, 1, step), h.shape)])
    return 1e9 * (time.perf_counter() - started) / (repeats * h.numel())


def forward_sum(k: int, batch: int) -> float:
    """Times all that the sum of k contributions takes, at contributors and aggregator, in seconds."""
    ring, repeats = Ring.fitting(32, 64.0, k), 20
    keys = {(one, two): os.urandom(32) for one in range(k) for two in range(one)}
    masks = [
        Masks(
            str(me),
            {str(other): keys[max(me, other), min(me, other)] for other in range(k) if other != me},
            ring,
        )
        for me in range(k)
    ]
    hs = [torch.randn(batch, WIDTH) for _ in range(k)]
    started = time.perf_counter()
    for step in range(repeats):
        said = [
            ring.total([ring.encode(h)[0], one.take(Counter(0, 1, step), h.shape)])
            for h, one in zip(hs, masks, strict=True)
        ]
        z = ring.decode(ring.total(said))
    seconds = (time.perf_counter() - started) / repeats
    assert (z - sum(hs)).abs().max() < ring.error_bound(k) + 1e-5
    return seconds


def paillier_sum(k: int, batch: int, values: int) -> tuple[float, str] | None:
    """Times the same by phe, on so many values, scaled to a batch; None where phe is not installed."""
    try:
        from phe import paillier, util
    except ImportError:
        return None
    public, private = paillier.generate_paillier_keypair(n_length=2048)
    numbers = [
        [int(q) for q in column] for column in np.random.default_rng(0).integers(-(2**30), 2**30, (values, k))
    ]
    started = time.perf_counter()
    for column in numbers:
        total = public.encrypt(column[0])
        for number in column[1:]:
            total += public.encrypt(number)
        assert private.decrypt(total) == sum(column)
    seconds = (time.perf_counter() - started) * batch * WIDTH / values
    gmpy2 = "with gmpy2" if util.HAVE_GMP else "without gmpy2"
    return seconds, f"phe {importlib.metadata.version('phe')} {gmpy2}"


def report_parts(batch: int, contributors: Sequence[int], rounds: int, values: int) -> None:
    """Prints what masks, keys and a sum under Paillier cost, as Markdown."""
    print("\n| part | contributors | figure |\n|---|---|---|")
    for k in contributors:
        _part("fixed point, mask, addition; ns a value", k, rounds, lambda k=k: masking_ns(k, batch), ".1f")
    for k in (2, 8, 64):
        _part("agreement on keys, all parties together, CPU s", k, rounds, lambda k=k: key_set_up(k), ".3f")
    k = contributors[0]
    whole = f"the sum of one batch, {batch} × {WIDTH}, all parties' work"
    ours = _part(f"{whole}, ms", k, rounds, lambda: 1000 * forward_sum(k, batch), ".2f")
    theirs = paillier_sum(k, batch, values)
    if theirs is None:
        print(f"| the same by Paillier: phe is not installed, so it is left out | {k} | |")
        return
    ratio = f"{theirs[0]:,.0f} s, {1000 * theirs[0] / ours:,.0f} × as long"
    print(f"| the same, {theirs[1]}, 2048 bits, scaled from {values} values | {k} | {ratio} |", flush=True)


def _part(what: str, k: int, rounds: int, timed: Callable[[], float], form: str) -> float:
    figures = [timed() for _ in range(rounds)]
    middle = statistics.median(figures)
    print(f"| {what} | {k} | {middle:{form}} [{min(figures):{form}} – {max(figures):{form}}] |", flush=True)
    return middle
