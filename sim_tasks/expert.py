"""The navigation expert: a dynamic-window follower of the cost-to-go with full knowledge of the map.

It rolls constant twist commands out through the body's own response (latency, lag, acceleration, turning radius),
prices each by the cost-to-go it ends at, its clearance, its heading and its smoothness, and refines the best one.
Within ``ARRIVED`` of the goal it turns to the goal's heading in place and stops.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numba import njit

from omnibody.robots.spec import Embodiment
from omnibody.sim_tasks.planner import bilinear, footprint_discs
from omnibody.sim_tasks.scene import Grid

STEP, NUM_STEPS = 0.15, 8  # of a roll-out [s]
REFINEMENTS = 2  # halvings of the command grid around the best command
ARRIVED = 0.3  # distance to the goal at which to stop driving [m]
SETTLED = 0.04  # heading error at which to stop turning [rad]
COMFORT = 0.2  # clearance below which a roll-out is dearer [m]
BRAKING = 0.5  # part of the acceleration limit used to slow down before the goal
HEADING_COST, FINAL_HEADING_COST, REVERSE_COST = 1.0, 0.3, 1.0
COMFORT_COST, CHANGE_COST, CRASH_COST = 1.0, 0.03, 100.0
SLOPE_REACH = 0.25  # half the stencil of the cost-to-go's slope [m]


class Follower:
    """The expert of one body; see the module's words. Holds no state of an episode."""

    def __init__(self, embodiment: Embodiment) -> None:
        limits = embodiment.limits
        low, high = np.array(limits.velocity_low), np.array(limits.velocity_high)
        counts = (9, 5 if limits.holonomic else 1, 9 if limits.holonomic else 13)
        axes = [np.linspace(a, b, n) if b > a else np.zeros(1) for a, b, n in zip(low, high, counts, strict=True)]
        grid = np.array(list(itertools.product(*axes)))
        self._commands = np.unique(limits.clip(np.concatenate((np.zeros((1, 3)), grid))), axis=0)
        spacing = np.array([axis[1] - axis[0] if len(axis) > 1 else 0.0 for axis in axes])
        self._spacing = spacing
        turns_in_place = limits.min_turning_radius == 0.0
        self._body = np.array(
            [*low, *high, *limits.acceleration, *np.exp(-STEP / np.asarray(embodiment.lag)), embodiment.latency]
            + [limits.min_turning_radius, float(limits.holonomic), float(turns_in_place)]
        )
        self._discs, self._radius = footprint_discs(embodiment.footprint)

    def command(
        self, pose: np.ndarray, twist: np.ndarray, goal: np.ndarray, cost: np.ndarray, distance: np.ndarray, grid: Grid
    ) -> np.ndarray:
        """Twist commands (N, 3) for poses and goals (N, 3) [m, m, rad] in the world and heading-frame twists (N, 3).

        ``cost`` and ``distance`` (N, rows, columns) [m] are the cost-to-go and the distance to obstacles.
        """
        discs, frame = (self._discs, self._radius), (grid.origin[0], grid.origin[1], grid.resolution)
        return _commands(pose, twist, goal, cost, distance, frame, self._commands, self._spacing, self._body, discs)


@njit(cache=True)
def _respond(twist: np.ndarray, command: np.ndarray, body: np.ndarray) -> None:
    """Advance ``twist`` (3,) in place by ``STEP`` under ``command``: first-order lag within the limits."""
    for i in range(3):
        change = (command[i] - twist[i]) * (1.0 - body[9 + i])
        most = body[6 + i] * STEP
        twist[i] += min(max(change, -most), most)
    if body[13] > 0.0:
        turn = abs(twist[0]) / body[13]
        twist[2] = min(max(twist[2], -turn), turn)


@njit(cache=True)
def _advance(pose: np.ndarray, twist: np.ndarray, seconds: float) -> None:
    """Move ``pose`` (3,) in place along the arc of a heading-frame ``twist`` (3,)."""
    middle = pose[2] + 0.5 * seconds * twist[2]
    c, s = math.cos(middle), math.sin(middle)
    pose[0] += seconds * (c * twist[0] - s * twist[1])
    pose[1] += seconds * (s * twist[0] + c * twist[1])
    pose[2] += seconds * twist[2]


@njit(cache=True)
def _clearance(pose: np.ndarray, distance: np.ndarray, frame: tuple, discs: tuple) -> float:
    """Distance from the footprint's discs to the nearest obstacle [m]."""
    c, s, least = math.cos(pose[2]), math.sin(pose[2]), np.inf
    for k in range(len(discs[0])):
        x = pose[0] + c * discs[0][k, 0] - s * discs[0][k, 1]
        y = pose[1] + s * discs[0][k, 0] + c * discs[0][k, 1]
        least = min(least, bilinear(distance, (x - frame[0]) / frame[2], (y - frame[1]) / frame[2]))
    return least - discs[1]


@njit(cache=True)
def _downhill(cost: np.ndarray, x: float, y: float, reach: float) -> float:
    """Direction of the cost's descent at (x, y) in cells [rad]."""
    dx = bilinear(cost, x - reach, y) - bilinear(cost, x + reach, y)
    dy = bilinear(cost, x, y - reach) - bilinear(cost, x, y + reach)
    return math.atan2(dy, dx)


@njit(cache=True)
def _price(
    pose: np.ndarray,
    twist: np.ndarray,
    goal: np.ndarray,
    cost: np.ndarray,
    distance: np.ndarray,
    frame: tuple,
    command: np.ndarray,
    body: np.ndarray,
    discs: tuple,
) -> float:
    """How bad a constant command is [m]."""
    end, speed = pose.copy(), twist.copy()
    least = np.inf
    for step in range(NUM_STEPS):
        _respond(speed, command, body)
        _advance(end, speed, STEP)
        least = min(least, _clearance(end, distance, frame, discs))
        if least < 0.0:  # the sooner it touches and the deeper, the worse
            return CRASH_COST * (1.0 - least) - step
    x, y = (end[0] - frame[0]) / frame[2], (end[1] - frame[1]) / frame[2]
    left = bilinear(cost, x, y)
    towards = _downhill(cost, x, y, SLOPE_REACH / frame[2])
    far = min(1.0, left)
    price = left + HEADING_COST * far * (1.0 - math.cos(towards - end[2]))
    if body[14] > 0.0:  # a body that can move sideways turns on the last metre; cheap enough to still come closer
        price += FINAL_HEADING_COST * (1.0 - far) * (1.0 - math.cos(goal[2] - end[2]))
    price += REVERSE_COST * max(0.0, -command[0])
    price += COMFORT_COST * max(0.0, 1.0 - least / COMFORT) ** 2
    for i in range(3):
        price += CHANGE_COST * (command[i] - twist[i]) ** 2
    return price


@njit(cache=True)
def _arrive(pose: np.ndarray, goal: np.ndarray, body: np.ndarray, out: np.ndarray) -> None:
    """Stop; a body that can turns in place to the goal's heading."""
    out[:] = 0.0
    turn = goal[2] - pose[2]
    error = math.atan2(math.sin(turn), math.cos(turn))
    if body[15] > 0.0 and abs(error) > SETTLED:
        rate = min(1.5 * abs(error) + 0.05, math.sqrt(body[8] * abs(error)), body[5])
        out[2] = math.copysign(rate, error)


@njit(cache=True)
def _limit(command: np.ndarray, fastest: float, body: np.ndarray) -> None:
    """Bring a command (3,) within the body's limits and its speed below ``fastest`` [m/s], in place."""
    for i in range(3):
        command[i] = min(max(command[i], body[i]), body[3 + i])
    scale = min(1.0, fastest / max(math.hypot(command[0], command[1]), 1e-6))
    command[0], command[1] = scale * command[0], scale * command[1]
    if body[13] > 0.0:
        turn = abs(command[0]) / body[13]
        command[2] = min(max(command[2], -turn), turn)


@njit(cache=True)
def _commands(
    pose: np.ndarray,
    twist: np.ndarray,
    goal: np.ndarray,
    cost: np.ndarray,
    distance: np.ndarray,
    frame: tuple,
    commands: np.ndarray,
    spacing: np.ndarray,
    body: np.ndarray,
    discs: tuple,
) -> np.ndarray:
    out = np.zeros((len(pose), 3))
    trial, centre = np.zeros(3), np.zeros(3)
    for n in range(len(pose)):
        if math.hypot(goal[n, 0] - pose[n, 0], goal[n, 1] - pose[n, 1]) < ARRIVED:
            _arrive(pose[n], goal[n], body, out[n])
            continue
        start = pose[n].copy()
        _advance(start, twist[n], body[12])  # the command acts only after the latency
        left = bilinear(cost[n], (start[0] - frame[0]) / frame[2], (start[1] - frame[1]) / frame[2])
        fastest = math.sqrt(2.0 * BRAKING * body[6] * max(left - 0.2, 0.0)) + 0.1
        best = np.inf
        for k in range(len(commands)):
            trial[:] = commands[k]
            _limit(trial, fastest, body)
            price = _price(start, twist[n], goal[n], cost[n], distance[n], frame, trial, body, discs)
            if price < best:
                best, out[n] = price, trial
        for r in range(REFINEMENTS):
            centre[:] = out[n]
            for k in range(27):
                trial[0] = centre[0] + (k % 3 - 1) * spacing[0] * 0.5 ** (r + 1)
                trial[1] = centre[1] + (k // 3 % 3 - 1) * spacing[1] * 0.5 ** (r + 1)
                trial[2] = centre[2] + (k // 9 - 1) * spacing[2] * 0.5 ** (r + 1)
                _limit(trial, fastest, body)
                price = _price(start, twist[n], goal[n], cost[n], distance[n], frame, trial, body, discs)
                if price < best:
                    best, out[n] = price, trial
    return out
