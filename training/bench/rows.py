"""What a benchmark prints: rows of a value beside its limit and its peer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One measured rate; the ratios are value over limit and value over peer (above 1: better than the peer)."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    peer: float | None = None

    @property
    def ratio_to_limit(self) -> float | None:
        """Share of the limit that is reached."""
        return None if self.limit is None else self.value / self.limit

    @property
    def ratio_to_peer(self) -> float | None:
        """How many times the peer's rate."""
        return None if self.peer is None else self.value / self.peer


def rate(work: Callable[[], int], seconds: float) -> float:
    """Units of work per second: ``work`` does some and returns how many; it is repeated for ``seconds``."""
    work()
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += work()
    return done / spent


def interleaved(contestants: Sequence[Callable[[], int]], seconds: float, rounds: int) -> list[list[float]]:
    """Rates of several contestants measured in turn, ``rounds`` times each, so that a drifting machine hits all."""
    return [list(r) for r in zip(*[[rate(c, seconds) for c in contestants] for _ in range(rounds)], strict=True)]


def print_rows(rows: Sequence[Row], as_json: bool) -> None:
    """A table, or one JSON list and nothing else."""
    if as_json:
        ratios = [{"ratio_to_limit": r.ratio_to_limit, "ratio_to_peer": r.ratio_to_peer} for r in rows]
        print(json.dumps([asdict(row) | ratio for row, ratio in zip(rows, ratios, strict=True)]))
        return
    print(f"{'':42} {'value':>10} {'unit':14} {'limit':>10} {'of limit':>9} {'peer':>10} {'x peer':>7}")
    for row in rows:
        limit, peer = _number(row.limit), _number(row.peer)
        of_limit, times_peer = _number(row.ratio_to_limit), _number(row.ratio_to_peer)
        print(f"{row.name:42} {row.value:10.4g} {row.unit:14} {limit:>10} {of_limit:>9} {peer:>10} {times_peer:>7}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
