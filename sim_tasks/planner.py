"""Grid planning for a rectangular body: one Dijkstra per goal, then routes and costs by look-up from anywhere.

A move between two of a cell's 16 neighbours is allowed where the footprint, turned along the move, fits at both ends.
Its cost is its length times a weight that rises near obstacles, as in a Nav2 inflation layer. The fields of a goal
hold the cost-to-go (float32, [m]) and the next move (int8).
Arrays over a batch are (N, rows, columns); all scenes of a batch share one grid.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from omnibody.robots.route import ROUTE_SEGMENTS, SEGMENT_LENGTH, cut
from omnibody.robots.spec import Footprint
from omnibody.sim_tasks.scene import Grid, Scene

MARGIN = 0.05  # a route keeps the footprint this far from obstacles [m]
STATION_MARGIN = 0.1  # and starts and goals this far, at any heading [m]
NEARNESS_WEIGHT, NEARNESS_RANGE = 4.0, 0.25  # weight = 1 + 4 exp(-clearance / 0.25 m)
ESCAPE_COST = 5.0  # cost per metre outside the open cells, as dear as the dearest move

MOVES = np.array(
    [(1, 0), (2, 1), (1, 1), (1, 2), (0, 1), (-1, 2), (-1, 1), (-2, 1)]
    + [(-1, 0), (-2, -1), (-1, -1), (-1, -2), (0, -1), (1, -2), (1, -1), (2, -1)],
    np.int64,
)  # (dx, dy); move m + 8 undoes move m
MOVE_LENGTHS = np.hypot(MOVES[:, 0], MOVES[:, 1])


@dataclass(frozen=True, eq=False)
class Roadmap:
    """Where a footprint can go in a scene; (rows, columns) arrays on the scene's grid.

    ``fits`` bool (8, rows, columns): the footprint turned along ``MOVES[m]`` fits; ``moves`` uint16: bit m is set where
    ``MOVES[m]`` is allowed; ``open`` bool: the largest connected part, the only one used; ``nearest`` int32: flat index
    of the nearest open cell and ``gap`` float32 the distance to it [m]; ``weight`` float32 >= 1: cost per metre;
    ``stations`` (S,) int64: flat indices of the cells to start or end at.
    """

    scene: Scene
    footprint: Footprint
    fits: np.ndarray
    moves: np.ndarray
    open: np.ndarray
    nearest: np.ndarray
    gap: np.ndarray
    weight: np.ndarray
    stations: np.ndarray

    def fields(self, goal: int) -> tuple[np.ndarray, np.ndarray]:
        """Cost-to-go [m] and next move (-1: none) towards the open flat cell ``goal``, each (rows, columns).

        Cells that are not open get the cost of the nearest open one plus the escape to it.
        """
        cost, move = _dijkstra(self.moves, self.weight, goal)
        return cost.ravel()[self.nearest] * self.scene.grid.resolution + np.float32(ESCAPE_COST) * self.gap, move

    def lengths(self, goal: int) -> np.ndarray:
        """Length of the shortest way from each open cell to the open flat cell ``goal``, (rows, columns) [m]."""
        length, _ = _dijkstra(self.moves, np.ones_like(self.weight), goal)
        return length.ravel()[self.nearest] * self.scene.grid.resolution + self.gap


def roadmap(scene: Scene, footprint: Footprint) -> Roadmap:
    """Analyse a scene for a footprint; no open cell is left where nothing fits."""
    centres, radius = footprint_discs(footprint)
    angles = np.arctan2(MOVES[:8, 1], MOVES[:8, 0])
    fits = _fits(scene.distance, centres / scene.grid.resolution, radius + MARGIN, angles)
    moves = _allowed_moves(fits)
    is_open = _largest_part(moves)
    gap, (rows, columns) = ndimage.distance_transform_edt(~is_open, scene.grid.resolution, return_indices=True)
    clearance = np.maximum(scene.distance - footprint.inscribed_radius, 0.0)
    room = is_open & (scene.distance >= footprint.circumscribed_radius + STATION_MARGIN)
    return Roadmap(
        scene=scene,
        footprint=footprint,
        fits=fits,
        moves=np.where(is_open, moves, np.uint16(0)),
        open=is_open,
        nearest=(rows * is_open.shape[1] + columns).astype(np.int32),
        gap=gap.astype(np.float32),
        weight=(1.0 + NEARNESS_WEIGHT * np.exp(-clearance / NEARNESS_RANGE)).astype(np.float32),
        stations=np.flatnonzero(room),
    )


def footprint_discs(footprint: Footprint) -> tuple[np.ndarray, float]:
    """Discs that cover a footprint: centres (K, 2) in the heading frame [m] and their common radius [m]."""
    long, short = max(footprint.length, footprint.width), min(footprint.length, footprint.width)
    num = math.ceil(2.0 * long / short) if long > 1.05 * short else 1
    along = (np.arange(num) + 0.5) / num * long - 0.5 * long
    centres = np.zeros((num, 2))
    centres[:, 0 if footprint.length >= footprint.width else 1] = along
    return centres, math.hypot(0.5 * long / num, 0.5 * short)


def _allowed_moves(fits: np.ndarray) -> np.ndarray:
    """Bit mask of the moves allowed by ``fits`` (8, rows, columns) per cell, uint16 (rows, columns)."""
    rows, columns = fits.shape[1:]
    moves = np.zeros((rows, columns), np.uint16)
    for m, (dx, dy) in enumerate(MOVES):
        here = fits[m % 8]
        there = np.zeros_like(here)
        y, x = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx))
        there[y, x] = here[y.start + dy : y.stop + dy, x.start + dx : x.stop + dx]
        moves |= ((here & there).astype(np.uint16) << np.uint16(m)).astype(np.uint16)
    return moves


def _largest_part(moves: np.ndarray) -> np.ndarray:
    """The largest set of cells connected by moves, bool (rows, columns); empty if no move is allowed."""
    columns = moves.shape[1]
    sources, targets = [], []
    for m, (dx, dy) in enumerate(MOVES[:8]):
        source = np.flatnonzero(moves & np.uint16(1 << m))
        sources.append(source)
        targets.append(source + dy * columns + dx)
    edges = np.concatenate(sources), np.concatenate(targets)
    if len(edges[0]) == 0:
        return np.zeros(moves.shape, bool)
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(moves.size, moves.size))
    _, label = connected_components(graph, directed=False)
    return (label == np.bincount(label).argmax()).reshape(moves.shape)


@njit(cache=True)
def bilinear(field: np.ndarray, x: float, y: float) -> float:
    """Interpolate ``field`` (rows, columns) at (x, y) in cells; points outside take the border's value."""
    rows, columns = field.shape
    x, y = min(max(x, 0.0), columns - 1.0), min(max(y, 0.0), rows - 1.0)
    i, j = min(int(x), columns - 2), min(int(y), rows - 2)
    u, v = x - i, y - j
    low = (1.0 - u) * field[j, i] + u * field[j, i + 1]
    return (1.0 - v) * low + v * ((1.0 - u) * field[j + 1, i] + u * field[j + 1, i + 1])


@njit(cache=True)
def _fits(distance: np.ndarray, centres: np.ndarray, radius: float, angles: np.ndarray) -> np.ndarray:
    """Whether discs turned by each angle keep ``radius``, bool (angles, rows, columns); ``centres`` in cells."""
    rows, columns = distance.shape
    out = np.ones((len(angles), rows, columns), np.bool_)
    for a in range(len(angles)):
        c, s = math.cos(angles[a]), math.sin(angles[a])
        for j in range(rows):
            for i in range(columns):
                for k in range(len(centres)):
                    x = i + c * centres[k, 0] - s * centres[k, 1]
                    y = j + s * centres[k, 0] + c * centres[k, 1]
                    if bilinear(distance, x, y) < radius:
                        out[a, j, i] = False
                        break
    return out


@njit(cache=True)
def _dijkstra(moves: np.ndarray, weight: np.ndarray, goal: int) -> tuple[np.ndarray, np.ndarray]:
    """Cost [cells] from every cell to ``goal`` and the first move (-1: none), each (rows, columns)."""
    rows, columns = moves.shape
    cost = np.full(rows * columns, np.inf, np.float32)
    first = np.full(rows * columns, -1, np.int8)
    allowed, price = moves.ravel(), weight.ravel()
    cost[goal] = 0.0
    heap = [(np.float32(0.0), goal)]
    while len(heap) > 0:
        here_cost, here = heapq.heappop(heap)
        if here_cost > cost[here]:
            continue
        for m in range(16):
            if (allowed[here] >> m) & 1 == 0:
                continue
            there = here + MOVES[m, 1] * columns + MOVES[m, 0]
            there_cost = np.float32(here_cost + MOVE_LENGTHS[m] * 0.5 * (price[here] + price[there]))
            if there_cost < cost[there]:
                cost[there] = there_cost
                first[there] = (m + 8) % 16  # the way back to where this cell was reached from
                heapq.heappush(heap, (there_cost, there))
    return cost.reshape(rows, columns), first.reshape(rows, columns)


@njit(cache=True)
def sample(fields: np.ndarray, points: np.ndarray, origin: tuple[float, float], resolution: float) -> np.ndarray:
    """Fields (N, rows, columns) at world points (N, P, 2) [m], bilinear, (N, P) float32."""
    out = np.empty(points.shape[:2], np.float32)
    for n in range(points.shape[0]):
        for p in range(points.shape[1]):
            x, y = (points[n, p, 0] - origin[0]) / resolution, (points[n, p, 1] - origin[1]) / resolution
            out[n, p] = bilinear(fields[n], x, y)
    return out


@njit(cache=True)
def _walk(move: np.ndarray, nearest: np.ndarray, start: np.ndarray, goal: np.ndarray, out: np.ndarray) -> int:
    """Write the way from ``start`` to ``goal`` (2,) in cells to ``out`` (M, 2); returns its number of points."""
    rows, columns = move.shape
    j = min(max(int(start[1] + 0.5), 0), rows - 1)
    i = min(max(int(start[0] + 0.5), 0), columns - 1)
    out[0, 0], out[0, 1] = start[0], start[1]
    num, snapped = 1, nearest[j, i]
    if snapped != j * columns + i:  # first out of the inflated zone
        j, i = snapped // columns, snapped % columns
        out[1, 0], out[1, 1] = i, j
        num = 2
    while move[j, i] >= 0 and num < len(out) - 1:
        step = move[j, i]
        i, j = i + MOVES[step, 0], j + MOVES[step, 1]
        out[num, 0], out[num, 1] = i, j
        num += 1
    if num > 1 and move[j, i] < 0:  # the goal itself stands for its cell
        num -= 1
    out[num, 0], out[num, 1] = goal[0], goal[1]
    return num + 1


@njit(cache=True)
def _routes(move: np.ndarray, nearest: np.ndarray, starts: np.ndarray, goals: np.ndarray, segment: float) -> np.ndarray:
    out = np.empty((len(starts), ROUTE_SEGMENTS, 4))
    line = np.empty((move.shape[1] * move.shape[2] + 3, 2))
    for n in range(len(starts)):
        cut(line, _walk(move[n], nearest[n], starts[n], goals[n], line), segment, out[n])
    return out


def routes(move: np.ndarray, nearest: np.ndarray, start: np.ndarray, goal: np.ndarray, grid: Grid) -> np.ndarray:
    """Encoded ways from ``start`` (N, 2) to ``goal`` (N, 2) [m, world] along the next moves, (N, 10, 4) [m, world].

    A way of length L is cut into ceil(L / 1 m) equal segments (x0, y0, x1, y1); the first ten are kept and missing
    ones are (goal, goal).
    """
    origin = np.asarray(grid.origin)
    starts, goals = (start - origin) / grid.resolution, (goal - origin) / grid.resolution
    cells = _routes(move, nearest, starts, goals, SEGMENT_LENGTH / grid.resolution)
    return cells * grid.resolution + np.tile(origin, 2)


def whole_way(move: np.ndarray, nearest: np.ndarray, start: np.ndarray, goal: np.ndarray, grid: Grid) -> np.ndarray:
    """The corners (K, 2) [m, world] of the whole way that ``routes`` cuts, of one env: (rows, columns), (2,), (2,)."""
    origin = np.asarray(grid.origin)
    line = np.empty((move.size + 3, 2))
    num = _walk(move, nearest, (start - origin) / grid.resolution, (goal - origin) / grid.resolution, line)
    points = line[:num] * grid.resolution + origin
    before, after = np.diff(points, axis=0)[:-1], np.diff(points, axis=0)[1:]
    straight = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) < 1e-9
    corner = ~straight | ((before * after).sum(axis=1) <= 0.0)
    return points[np.concatenate(([True], corner, [True]))]


def straight_routes(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """``routes`` along the straight line, as in the original: (N, 2), (N, 2) [m, world] -> (N, 10, 4)."""
    offset = goal - start
    pieces = np.maximum(1, np.ceil(np.linalg.norm(offset, axis=1) / SEGMENT_LENGTH - 1e-6))
    knots = np.minimum(np.arange(ROUTE_SEGMENTS + 1) / pieces[:, None], 1.0)
    points = start[:, None] + knots[..., None] * offset[:, None]
    return np.concatenate((points[:, :-1], points[:, 1:]), axis=2)
