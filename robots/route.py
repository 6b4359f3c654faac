"""The route encoding: the next ten segments of at most 1 m of a way, as a task and a robot both make it.

A way of length L is cut into ceil(L / 1 m) equal segments (x0, y0, x1, y1); the first ten are kept and missing ones
are (end, end).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ROUTE_SEGMENTS, SEGMENT_LENGTH = 10, 1.0  # route encoding of specs/compass.md section 2


@njit(cache=True)
def cut(line: np.ndarray, num: int, segment: float, out: np.ndarray) -> None:
    """Write ``line`` (num, 2) as equal segments of at most ``segment`` to ``out`` (S, 4); rest: (end, end)."""
    total = 0.0
    for k in range(1, num):
        total += math.hypot(line[k, 0] - line[k - 1, 0], line[k, 1] - line[k - 1, 1])
    pieces = max(1, int(math.ceil(total / segment - 1e-6)))
    out[:, 0], out[:, 1], out[:, 2], out[:, 3] = line[num - 1, 0], line[num - 1, 1], line[num - 1, 0], line[num - 1, 1]
    out[0, 0], out[0, 1] = line[0, 0], line[0, 1]
    k, passed = 1, 0.0
    for piece in range(1, min(pieces, len(out) + 1)):
        wanted = total * piece / pieces
        edge = math.hypot(line[k, 0] - line[k - 1, 0], line[k, 1] - line[k - 1, 1])
        while passed + edge < wanted and k < num - 1:
            passed += edge
            k += 1
            edge = math.hypot(line[k, 0] - line[k - 1, 0], line[k, 1] - line[k - 1, 1])
        f = (wanted - passed) / edge
        x, y = line[k - 1, 0] + f * (line[k, 0] - line[k - 1, 0]), line[k - 1, 1] + f * (line[k, 1] - line[k - 1, 1])
        out[piece - 1, 2], out[piece - 1, 3] = x, y
        if piece < len(out):
            out[piece, 0], out[piece, 1] = x, y


def route_along(way: np.ndarray, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The encoded rest of ``way`` (K, 2) [m] from ``position`` (2,) to ``goal`` (2,), (10, 4) [m], same frame.

    The way is joined at its point nearest to ``position``; an empty one means a straight line.
    """
    rest = way[:0]
    if len(way) > 1:
        edges = np.diff(way, axis=0)
        square = np.maximum((edges**2).sum(axis=1), 1e-12)
        along = np.clip(((position - way[:-1]) * edges).sum(axis=1) / square, 0.0, 1.0)
        feet = way[:-1] + along[:, None] * edges
        k = int(np.linalg.norm(feet - position, axis=1).argmin())
        rest = np.concatenate((feet[k : k + 1], way[k + 1 : -1]))
    line = np.concatenate((position[None], rest, goal[None]))
    moved = np.linalg.norm(np.diff(line, axis=0), axis=1) > 1e-9
    moved[-1] = True
    line = np.ascontiguousarray(line[np.concatenate(([True], moved))], np.float64)
    out = np.empty((ROUTE_SEGMENTS, 4))
    if np.linalg.norm(np.diff(line, axis=0), axis=1).sum() < 1e-9:
        return np.tile(goal, (ROUTE_SEGMENTS, 2))
    cut(line, len(line), SEGMENT_LENGTH, out)
    return out
