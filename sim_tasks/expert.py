"""The navigation expert: a dynamic-window follower of the cost-to-go with full knowledge of the map.

It rolls constant twist commands out through the body's own response (latency, lag, acceleration, turning radius),
prices each by the cost-to-go it ends at, its clearance, its heading and its smoothness, and refines the best one.
Within ``ARRIVED`` of the goal it stops, and a body that can do so turns to the goal's heading in place. Where the
heading matters (``pose_planner``), the cost-to-go is over position and heading: it knows a car's three-point turns.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numba import njit

from omnibody.robots.spec import Embodiment
from omnibody.sim_tasks.planner import bilinear, footprint_discs
from omnibody.sim_tasks.pose_planner import at_heading, heading_matters
from omnibody.sim_tasks.scene import RESOLUTION, Grid

STEP, NUM_STEPS = 0.15, 8  # of a roll-out [s]
REFINEMENTS = 2  # halvings of the command grid around the best command
ARRIVED = 0.3  # distance to the goal at which to stop driving [m]
SETTLED = 0.04  # heading error at which to stop turning [rad]
PROGRESS = 0.05  # a command that gains less than this over standing still gets nowhere [m]
COMFORT = 0.3  # clearance below which a roll-out is dearer [m]
BRAKING = 0.5  # part of the acceleration limit used to slow down before the goal
HEADING_COST, FINAL_HEADING_COST, REVERSE_COST = 1.0, 0.3, 0.8
COMFORT_COST, CHANGE_COST, CRASH_COST = 3.0, 0.03, 100.0
DELAY_COST, REVERSAL_COST = 0.01, 0.1  # of a posed body: per step of a roll-out, and for a change of direction
SLOPE_REACH = 0.25  # half the stencil of the cost-to-go's slope [m]


class _Body(NamedTuple):
    """What a roll-out knows of the body; ``kept`` is the part of an error that its lag leaves after ``STEP``."""

    low: np.ndarray
    high: np.ndarray
    acceleration: np.ndarray
    kept: np.ndarray
    latency: float
    turning_radius: float
    turn_centre: float
    holonomic: bool
    posed: bool  # its cost-to-go is over position and heading
    discs: np.ndarray
    disc_radius: float


class _Field(NamedTuple):
    """Cost-to-go (1 or 16 headings, rows, columns), distance to obstacles (rows, columns) [m] and their cells' place.

    The discs of the body are in cells, their radius in metres.
    """

    cost: np.ndarray
    distance: np.ndarray
    resolution: float


class Follower:
    """The expert of one body; see the module's words. Holds no state of an episode."""

    def __init__(self, embodiment: Embodiment) -> None:
        limits = embodiment.limits
        discs, radius = footprint_discs(embodiment.footprint)
        self._body = _Body(
            low=np.array(limits.velocity_low),
            high=np.array(limits.velocity_high),
            acceleration=np.array(limits.acceleration),
            kept=np.exp(-STEP / np.asarray(embodiment.lag)),
            latency=embodiment.latency,
            turning_radius=limits.min_turning_radius,
            turn_centre=limits.turn_centre,
            holonomic=limits.holonomic,
            posed=heading_matters(embodiment.footprint, limits),
            discs=discs / RESOLUTION,
            disc_radius=radius,
        )
        counts = (9, 5 if limits.holonomic else 1, 9 if limits.holonomic else 13)
        bounds = zip(limits.velocity_low, limits.velocity_high, counts, strict=True)
        axes = [np.linspace(a, b, n) if b > a else np.zeros(1) for a, b, n in bounds]
        grid = np.array([(0.0, 0.0, 0.0), *itertools.product(*axes)])
        self._trials = np.unique(limits.clip(grid), axis=0)
        self._spacing = np.array([axis[1] - axis[0] if len(axis) > 1 else 0.0 for axis in axes])

    def command(
        self, pose: np.ndarray, twist: np.ndarray, goal: np.ndarray, cost: np.ndarray, distance: np.ndarray, grid: Grid
    ) -> np.ndarray:
        """Twist commands (N, 3) for poses and goals (N, 3) [m, m, rad] in the world and heading-frame twists (N, 3).

        ``cost`` (N, 1, rows, columns), where the heading matters (N, 16, rows, columns), is the cost-to-go [m] and
        ``distance`` (N, rows, columns) the distance to obstacles [m].
        """
        place = (*grid.origin, grid.resolution)
        return _commands(pose, twist, goal, cost, distance, place, self._trials, self._spacing, self._body)


@njit(cache=True)
def _approach(value: float, command: float, kept: float, most: float) -> float:
    """One velocity a ``STEP`` later: first-order lag within the acceleration limit."""
    return value + min(max((command - value) * (1.0 - kept), -most), most)


@njit(cache=True)
def _clearance(x: float, y: float, yaw: float, distance: np.ndarray, discs: np.ndarray) -> float:
    """Distance from the nearest of the discs' centres (K, 2) of a body at (x, y, yaw) to an obstacle; all in cells."""
    c, s, least = math.cos(yaw), math.sin(yaw), np.inf
    for k in range(len(discs)):
        u, v = x + c * discs[k, 0] - s * discs[k, 1], y + s * discs[k, 0] + c * discs[k, 1]
        least = min(least, bilinear(distance, u, v))
    return least


@njit(cache=True)
def _price(
    state: np.ndarray, goal_yaw: float, command: np.ndarray, field: _Field, body: _Body, comfort_cost: float
) -> float:
    """How bad a constant command is [m], from ``state`` (6,) = pose in cells and rad, twist in SI."""
    x, y, yaw, vx, vy, wz = state
    most, kept = body.acceleration * STEP, body.kept
    distance, discs, cell = field.distance, body.discs, STEP / field.resolution
    least, nearest = np.inf, np.inf
    for step in range(NUM_STEPS):
        vx = _approach(vx, command[0], kept[0], most[0])
        wz = _approach(wz, command[2], kept[2], most[2])
        if body.turning_radius > 0.0:
            turn = abs(vx) / body.turning_radius
            wz = min(max(wz, -turn), turn)
        if body.holonomic:
            vy = _approach(vy, command[1], kept[1], most[1])
        else:
            vy = -body.turn_centre * wz
        c, s = math.cos(yaw + 0.5 * STEP * wz), math.sin(yaw + 0.5 * STEP * wz)
        x, y, yaw = x + cell * (c * vx - s * vy), y + cell * (s * vx + c * vy), yaw + STEP * wz
        least = min(least, _clearance(x, y, yaw, distance, discs) - body.disc_radius)
        if least < 0.0:  # the sooner it touches and the deeper, the worse
            return CRASH_COST * (1.0 - least) - step
        if body.posed:
            nearest = min(nearest, at_heading(field.cost, x, y, yaw) + DELAY_COST * step)
    price = comfort_cost * max(0.0, 1.0 - least / COMFORT) ** 2
    for i in range(3):
        price += CHANGE_COST * (command[i] - state[3 + i]) ** 2
    if body.posed:  # the best point on its way counts: there it can change direction
        return price + nearest + (REVERSAL_COST if command[0] * state[3] < 0.0 else 0.0)
    left, reach = bilinear(field.cost[0], x, y), SLOPE_REACH / field.resolution
    dx = bilinear(field.cost[0], x - reach, y) - bilinear(field.cost[0], x + reach, y)
    dy = bilinear(field.cost[0], x, y - reach) - bilinear(field.cost[0], x, y + reach)
    far = min(1.0, left)
    price += left + REVERSE_COST * max(0.0, -command[0])
    price += HEADING_COST * far * (1.0 - math.cos(math.atan2(dy, dx) - yaw))
    if body.holonomic:  # a body that can move sideways turns on the last metre; cheap enough to still come closer
        price += FINAL_HEADING_COST * (1.0 - far) * (1.0 - math.cos(goal_yaw - yaw))
    return price


@njit(cache=True)
def _advance(pose: np.ndarray, twist: np.ndarray, seconds: float) -> None:
    """Move ``pose`` (3,) in place along the arc of a heading-frame ``twist`` (3,)."""
    middle = pose[2] + 0.5 * seconds * twist[2]
    c, s = math.cos(middle), math.sin(middle)
    pose[0] += seconds * (c * twist[0] - s * twist[1])
    pose[1] += seconds * (s * twist[0] + c * twist[1])
    pose[2] += seconds * twist[2]


@njit(cache=True)
def _arrive(pose: np.ndarray, goal: np.ndarray, body: _Body, out: np.ndarray) -> None:
    """Stop; a body that can turns in place to the goal's heading."""
    out[:] = 0.0
    turn = goal[2] - pose[2]
    error = math.atan2(math.sin(turn), math.cos(turn))
    if body.turning_radius == 0.0 and abs(error) > SETTLED:
        rate = min(1.5 * abs(error) + 0.05, math.sqrt(body.acceleration[2] * abs(error)), body.high[2])
        out[2] = math.copysign(rate, error)


@njit(cache=True)
def _limit(command: np.ndarray, fastest: float, body: _Body) -> None:
    """Bring a command (3,) within the body's limits and its speed below ``fastest`` [m/s], in place."""
    for i in range(3):
        command[i] = min(max(command[i], body.low[i]), body.high[i])
    scale = min(1.0, fastest / max(math.hypot(command[0], command[1]), 1e-6))
    command[0], command[1] = scale * command[0], scale * command[1]
    if body.turning_radius > 0.0:
        turn = abs(command[0]) / body.turning_radius
        command[2] = min(max(command[2], -turn), turn)


@njit(cache=True)
def _best(
    state: np.ndarray,
    goal_yaw: float,
    field: _Field,
    trials: np.ndarray,
    spacing: np.ndarray,
    body: _Body,
    comfort_cost: float,
) -> np.ndarray:
    """The cheapest of the ``trials`` (C, 3) from ``state`` (6,), refined, (3,)."""
    left = bilinear(field.cost[0], state[0], state[1])
    if body.posed:
        left = at_heading(field.cost, state[0], state[1], state[2])
    fastest = math.sqrt(2.0 * BRAKING * body.acceleration[0] * max(left - 0.2, 0.0)) + 0.1
    best, winner, trial = np.inf, np.zeros(3), np.zeros(3)
    for k in range(len(trials)):
        trial[:] = trials[k]
        _limit(trial, fastest, body)
        price = _price(state, goal_yaw, trial, field, body, comfort_cost)
        if price < best:
            best, winner[:] = price, trial
    for r in range(REFINEMENTS):
        centre = winner.copy()
        for k in range(27):
            for i in range(3):
                trial[i] = centre[i] + (k // 3**i % 3 - 1) * spacing[i] * 0.5 ** (r + 1)
            if k == 13 or (spacing[1] == 0.0 and k // 3 % 3 != 1):
                continue  # the centre itself, or the same again
            _limit(trial, fastest, body)
            price = _price(state, goal_yaw, trial, field, body, comfort_cost)
            if price < best:
                best, winner[:] = price, trial
    return winner


@njit(cache=True)
def _commands(
    pose: np.ndarray,
    twist: np.ndarray,
    goal: np.ndarray,
    cost: np.ndarray,
    distance: np.ndarray,
    place: tuple[float, float, float],
    trials: np.ndarray,
    spacing: np.ndarray,
    body: _Body,
) -> np.ndarray:
    out = np.zeros((len(pose), 3))
    state, still = np.zeros(6), np.zeros(3)
    for n in range(len(pose)):
        if math.hypot(goal[n, 0] - pose[n, 0], goal[n, 1] - pose[n, 1]) < ARRIVED:
            _arrive(pose[n], goal[n], body, out[n])
            continue
        start = pose[n].copy()
        _advance(start, twist[n], body.latency)  # the command acts only after the latency
        state[0], state[1] = (start[0] - place[0]) / place[2], (start[1] - place[1]) / place[2]
        state[2], state[3:] = start[2], twist[n]
        field = _Field(cost[n], distance[n], place[2])
        out[n] = _best(state, goal[n, 2], field, trials, spacing, body, COMFORT_COST)
        gain = _price(state, goal[n, 2], still, field, body, 0.0) - _price(state, goal[n, 2], out[n], field, body, 0.0)
        if gain < PROGRESS:  # comfort alone holds it back
            out[n] = _best(state, goal[n, 2], field, trials, spacing, body, 0.0)
    return out
