"""How many cores a party may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def share_of_cores(n_parties: int) -> int:
    """Divides this process's cores among local parties: each gets one at least.

    Two processes that each take every core are many times slower than one thread each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // n_parties)


@contextmanager
def threads_for(count: int) -> Iterator[None]:
    """Computes with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
