"""Cost-to-go of a body that cannot turn in place, over (heading, y, x): one Dijkstra on a lattice of arcs per goal.

The 16 headings are those of the grid planner's moves, so that straight moves stay on the lattice; arcs of the least
turning radius join neighbouring headings, their ends rounded to cells. Driving backwards is allowed and dearer.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numba import njit

from omnibody.robots.spec import Limits
from omnibody.sim_tasks.planner import MOVE_LENGTHS, MOVES, Roadmap, bilinear

HEADINGS = np.mod(np.arctan2(MOVES[:, 1], MOVES[:, 0]), 2.0 * math.pi)  # ascending from 0 [rad]
QUADRANT = np.append(HEADINGS[:4], 0.5 * math.pi)  # the headings repeat every quarter turn
REVERSE_FACTOR = 2.0  # of the cost of driving backwards
BLOCKED_COST = 5.0  # added where the footprint does not fit, to the grid planner's cost [m]


def car_cost(ways: Roadmap, limits: Limits, goal: int, cost: np.ndarray) -> np.ndarray:
    """Cost-to-go to the flat cell ``goal`` at any heading, float32 (16, rows, columns) [m].

    ``cost`` (rows, columns) is the grid planner's; it stands in, raised, where a car can not be or not get away.
    """
    resolution = ways.scene.grid.resolution
    curves = _curves(limits, resolution)
    lattice = _dijkstra(ways.fits, ways.weight, goal, *curves) * np.float32(resolution)
    return np.where(np.isfinite(lattice), lattice, cost + np.float32(BLOCKED_COST))


def _curves(limits: Limits, resolution: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forward curves from each heading: ends (16, 3, 2) in cells (dx, dy), end headings (16, 3), lengths (16, 3)."""
    radius = limits.min_turning_radius / resolution
    behind = limits.turn_centre / resolution
    ends, headings, lengths = np.zeros((16, 3, 2), np.int64), np.zeros((16, 3), np.int64), np.zeros((16, 3))
    for m in range(16):
        ends[m, 0], headings[m, 0], lengths[m, 0] = MOVES[m], m, MOVE_LENGTHS[m]
        for k, side in ((1, 1), (2, -1)):
            a, b = HEADINGS[m], HEADINGS[(m + side) % 16]
            change = np.array([math.cos(b) - math.cos(a), math.sin(b) - math.sin(a)])
            arc = side * radius * np.array([change[1], -change[0]])
            ends[m, k] = np.rint(arc - behind * change)
            headings[m, k] = (m + side) % 16
            lengths[m, k] = radius * abs(math.remainder(b - a, 2.0 * math.pi))
    return ends, headings, lengths


@njit(cache=True)
def at_heading(cost: np.ndarray, x: float, y: float, yaw: float) -> float:
    """Interpolate a cost (16, rows, columns) at (x, y) in cells and yaw [rad]."""
    quarter = 0.5 * math.pi
    turn = yaw % (2.0 * math.pi)
    q = int(turn / quarter)
    rest, k = turn - q * quarter, 0
    while k < 3 and rest > QUADRANT[k + 1]:
        k += 1
    f = (rest - QUADRANT[k]) / (QUADRANT[k + 1] - QUADRANT[k])
    m = (4 * q + k) % 16
    return (1.0 - f) * bilinear(cost[m], x, y) + f * bilinear(cost[(m + 1) % 16], x, y)


@njit(cache=True)
def _dijkstra(
    fits: np.ndarray, weight: np.ndarray, goal: int, ends: np.ndarray, headings: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Cost [cells] of every (heading, row, column) to the cell ``goal``; infinite where there is no way."""
    rows, columns = weight.shape
    cells = rows * columns
    cost = np.full(16 * cells, np.inf, np.float32)
    heap = [(np.float32(0.0), m * cells + goal) for m in range(16)]
    for _, state in heap:
        cost[state] = 0.0
    while len(heap) > 0:
        here_cost, here = heapq.heappop(heap)
        if here_cost > cost[here]:
            continue
        m, j, i = here // cells, here % cells // columns, here % columns
        for start in range(m + 15, m + 18):  # headings a curve through here can begin at
            for k in range(3):
                s = start % 16
                # Forward along a curve that ends here, or backwards along one that begins here.
                for sign, factor in ((-1, 1.0), (1, REVERSE_FACTOR)):
                    base, there = (s, s) if sign < 0 else (m, headings[m, k])
                    if (sign < 0 and headings[s, k] != m) or (sign > 0 and start != m + 16):
                        continue
                    y, x = j + sign * ends[base, k, 1], i + sign * ends[base, k, 0]
                    if y < 0 or x < 0 or y >= rows or x >= columns or not fits[there % 8, y, x]:
                        continue
                    price = factor * lengths[base, k] * 0.5 * (weight[j, i] + weight[y, x])
                    there_cost = np.float32(here_cost + price)
                    state = there * cells + y * columns + x
                    if there_cost < cost[state]:
                        cost[state] = there_cost
                        heapq.heappush(heap, (there_cost, state))
    return cost.reshape(16, rows, columns)
