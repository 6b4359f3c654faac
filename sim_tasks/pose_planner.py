"""Cost-to-go over (heading, y, x), one Dijkstra per goal: for bodies whose way depends on how they are turned.

Those are cars, which cannot turn in place, and long bodies, which must turn before they fit through a gap. The 16
headings are those of the grid planner's moves, so that straight moves stay on the lattice. Arcs of the least turning
radius (their ends rounded to cells) or turns in place join neighbouring headings; a holonomic body also moves sideways.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numba import njit
from scipy import ndimage

from omnibody.robots.spec import Footprint, Limits
from omnibody.sim_tasks.planner import MOVE_LENGTHS, MOVES, Roadmap, bilinear

HEADINGS = np.mod(np.arctan2(MOVES[:, 1], MOVES[:, 0]), 2.0 * math.pi)  # ascending from 0 [rad]
QUADRANT = np.append(HEADINGS[:4], 0.5 * math.pi)  # the headings repeat every quarter turn
REVERSE_FACTOR, SIDEWAYS_FACTOR = 2.0, 2.0  # how much dearer than forwards
TURN_LENGTH = 0.4  # a turn in place costs as much as driving this far [m/rad]
BLOCKED_COST = 5.0  # added where the footprint does not fit, to the grid planner's cost [m]
RIM, RIM_COST = 2, 0.15  # blocked states this near to free ones continue their cost, as interpolation reads them [m]
LONG = 0.3  # circumscribed minus inscribed radius of a long body [m]

Curves = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def heading_matters(footprint: Footprint, limits: Limits) -> bool:
    """Whether a way for this body has to be planned with its heading."""
    return limits.min_turning_radius > 0.0 or footprint.circumscribed_radius - footprint.inscribed_radius > LONG


def pose_cost(ways: Roadmap, limits: Limits, goal: int, cost: np.ndarray) -> np.ndarray:
    """Cost-to-go to the flat cell ``goal`` at any heading, float32 (16, rows, columns) [m].

    ``cost`` (rows, columns) is the grid planner's; it stands in, raised, where the body cannot be or not get away.
    """
    resolution = ways.scene.grid.resolution
    lattice = _dijkstra(ways.fits, ways.weight, goal, *_curves(limits, resolution)) * np.float32(resolution)
    for _ in range(RIM):
        around = ndimage.minimum_filter(lattice, size=3, mode=("wrap", "nearest", "nearest"))
        lattice = np.where(np.isfinite(lattice), lattice, around + np.float32(RIM_COST))
    return np.where(np.isfinite(lattice), lattice, cost + np.float32(BLOCKED_COST))


def _curves(limits: Limits, resolution: float) -> Curves:
    """The K ways to leave each heading: ends (16, K, 2) in cells (dx, dy), end headings (16, K), lengths (16, K) in
    cells, and how much dearer (K,) each is when driven backwards from its end."""
    kinds = [[_straight(m) for m in range(16)]]
    kinds += [[_turn(m, side, limits, resolution) for m in range(16)] for side in (1, -1)]
    dearer = [REVERSE_FACTOR, *(2 * [REVERSE_FACTOR if limits.min_turning_radius > 0.0 else 1.0])]
    if limits.holonomic:
        kinds.append([(MOVES[(m + 4) % 16], m, SIDEWAYS_FACTOR * MOVE_LENGTHS[m]) for m in range(16)])
        dearer.append(1.0)
    ends, headings, lengths = (np.array([[curve[i] for curve in kind] for kind in kinds]) for i in range(3))
    return ends.swapaxes(0, 1).copy(), headings.T.copy(), lengths.T.copy(), np.array(dearer)


def _straight(m: int) -> tuple[np.ndarray, int, float]:
    return MOVES[m], m, float(MOVE_LENGTHS[m])


def _turn(m: int, side: int, limits: Limits, resolution: float) -> tuple[np.ndarray, int, float]:
    """End, heading and length of the arc or turn in place to the next heading on a side (1: left, -1: right)."""
    a, b = HEADINGS[m], HEADINGS[(m + side) % 16]
    angle = abs(math.remainder(b - a, 2.0 * math.pi))
    radius = limits.min_turning_radius / resolution
    if radius == 0.0:
        return np.zeros(2, np.int64), (m + side) % 16, TURN_LENGTH / resolution * angle
    change = np.array([math.cos(b) - math.cos(a), math.sin(b) - math.sin(a)])
    end = side * radius * np.array([change[1], -change[0]]) - limits.turn_centre / resolution * change
    return np.rint(end).astype(np.int64), (m + side) % 16, radius * angle


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
    fits: np.ndarray,
    weight: np.ndarray,
    goal: int,
    ends: np.ndarray,
    headings: np.ndarray,
    lengths: np.ndarray,
    dearer: np.ndarray,
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
        for k in range(len(dearer)):
            for shift in range(4):  # forwards along a curve that ends here, or backwards along the one that begins here
                base = (m + shift - 1) % 16 if shift < 3 else m
                if shift < 3 and headings[base, k] != m:
                    continue
                sign, there = (-1, base) if shift < 3 else (1, headings[m, k])
                y, x = j + sign * ends[base, k, 1], i + sign * ends[base, k, 0]
                if y < 0 or x < 0 or y >= rows or x >= columns or not fits[there % 8, y, x]:
                    continue
                price = lengths[base, k] * 0.5 * (weight[j, i] + weight[y, x]) * (dearer[k] if shift == 3 else 1.0)
                there_cost = np.float32(here_cost + price)
                state = there * cells + y * columns + x
                if there_cost < cost[state]:
                    cost[state] = there_cost
                    heapq.heappush(heap, (there_cost, state))
    return cost.reshape(16, rows, columns)
