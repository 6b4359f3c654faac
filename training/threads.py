"""How many cores torch's threads take, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

THREADS = "OMP_NUM_THREADS"


def usable_cores() -> int:
    """Cores that this process may run on: taskset and containers may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def training_threads() -> int:
    """Threads for training: ``OMP_NUM_THREADS`` if it is set, else this process's share of the usable cores."""
    if named := os.environ.get(THREADS):
        return int(named)
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def all_cores() -> Iterator[None]:
    """Inside the block torch has `training_threads`; verbs that step worlds beside a network leave it only one."""
    before = torch.get_num_threads()
    torch.set_num_threads(training_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)
