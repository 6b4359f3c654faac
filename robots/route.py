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


@njit(cache=True)
def route_ahead(way: np.ndarray, pose: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The encoded rest of ``way`` (K, 2) [m] from ``pose`` (x [m], y [m], yaw [rad]) to ``goal`` (2+,) [m].

    Way, pose and goal are float64 and in one frame; the result (10, 4) [m] is in the heading frame of the pose. The way
    is joined at its point nearest to the pose; an empty one means a straight line.
    """
    x, y, num_way = pose[0], pose[1], len(way)
    line = np.empty((num_way + 2, 2))
    line[0, 0], line[0, 1] = x, y
    num = 1
    if num_way > 1:
        join, join_x, join_y, nearest = 0, 0.0, 0.0, np.inf
        for k in range(num_way - 1):
            edge_x, edge_y = way[k + 1, 0] - way[k, 0], way[k + 1, 1] - way[k, 1]
            along = (x - way[k, 0]) * edge_x + (y - way[k, 1]) * edge_y
            along = min(max(along / max(edge_x**2 + edge_y**2, 1e-12), 0.0), 1.0)
            foot_x, foot_y = way[k, 0] + along * edge_x, way[k, 1] + along * edge_y
            distance = math.hypot(foot_x - x, foot_y - y)
            if distance < nearest:
                join, join_x, join_y, nearest = k, foot_x, foot_y, distance
        num = _extend(line, num, join_x, join_y)
        for k in range(join + 1, num_way - 1):
            num = _extend(line, num, way[k, 0], way[k, 1])
    if num > 1:  # an edge without length, which could not be cut, must not be the last
        num = min(num, _extend(line, num, goal[0], goal[1]) - 1)
    line[num, 0], line[num, 1] = goal[0], goal[1]
    out = np.empty((ROUTE_SEGMENTS, 4))
    if num == 1 and math.hypot(goal[0] - x, goal[1] - y) < 1e-9:
        out[:, 0], out[:, 1], out[:, 2], out[:, 3] = goal[0], goal[1], goal[0], goal[1]
    else:
        cut(line, num + 1, SEGMENT_LENGTH, out)
    c, s = math.cos(pose[2]), math.sin(pose[2])
    for segment in out:
        for end in (0, 2):
            dx, dy = segment[end] - x, segment[end + 1] - y
            segment[end], segment[end + 1] = c * dx + s * dy, c * dy - s * dx
    return out


@njit(cache=True)
def _extend(line: np.ndarray, num: int, x: float, y: float) -> int:
    """Put a point behind the first ``num`` of ``line``, unless it is the last of them; returns how many there are."""
    if math.hypot(x - line[num - 1, 0], y - line[num - 1, 1]) <= 1e-9:
        return num
    line[num, 0], line[num, 1] = x, y
    return num + 1
