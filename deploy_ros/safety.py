"""The last word on a command, whatever the policy says: limits of the body, and room to stop before an obstacle.

Compiled functions take float64 arrays, depth images float32.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import numpy as np
from numba import njit

from omnibody.robots.spec import CameraMount, Embodiment

JERK_TIME = 0.1  # the full acceleration may be reached in this time [s]
MARGIN = 0.05  # kept between footprint and obstacle, as planned ways do [m]
FLOOR = 0.05  # what stands lower than this does not count as an obstacle [m]
# The floor's reading drifts with distance when the body pitches: this is a tilt of about 2 degrees [m/m].
FLOOR_DRIFT = 0.03


class SafetyFilter:
    """Clamps (vx, vy, wz) commands [m/s, m/s, rad/s] of one body, sent every ``period`` [s]; ``counts`` what it did."""

    def __init__(self, embodiment: Embodiment, period: float) -> None:
        self.embodiment, self.period = embodiment, period
        self.counts: Counter[str] = Counter(velocity=0, acceleration=0, jerk=0, obstacle=0)
        limits = embodiment.limits
        self._box = np.array([limits.velocity_low, limits.velocity_high])
        self._most = np.array(limits.acceleration) * period  # change of a command
        self._step = self._most * period / JERK_TIME  # change of that change
        self._braking = float(max(limits.acceleration[:2]))
        self.stopped()

    def stopped(self) -> None:
        """A zero command was sent instead: the next one starts from rest."""
        self._twist, self._change = np.zeros(3), np.zeros(3)

    def filter(self, twist: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
        """The allowed command (3,) nearest to ``twist`` (3,); ``obstacles`` (P, 2) [m] in the heading frame."""
        limits = self.embodiment.limits
        out, *clamped = _limited(
            np.array(twist, np.float64),
            self._twist,
            self._change,
            self._box,
            limits.min_turning_radius,
            self._most,
            self._step,
        )
        # Braking for an obstacle comes last: it may exceed the comfortable acceleration.
        share = self._share(out, obstacles)
        if share < 1.0:
            out[:2] *= share
            out = limits.clip(out)
        for name, count in zip(self.counts, (*clamped, share < 1.0 - 1e-6), strict=True):
            self.counts[name] += count
        self._change, self._twist = out - self._twist, out
        return out.copy()

    def _share(self, twist: np.ndarray, obstacles: np.ndarray) -> float:
        """How much of the speed still lets the body stop in front of the nearest obstacle on its way, 0 to 1."""
        vx, vy, _ = twist.tolist()
        speed = math.hypot(vx, vy)
        if speed < 1e-6 or len(obstacles) == 0:
            return 1.0
        x, y = vx / speed, vy / speed
        length, width = 0.5 * self.embodiment.footprint.length, 0.5 * self.embodiment.footprint.width
        nearest = _nearest(obstacles, x, y, abs(y) * length + abs(x) * width)
        room = max(nearest - (abs(x) * length + abs(y) * width) - MARGIN, 0.0)
        # Distance of one period's delay and then of braking: v dt + v^2 / (2 a) = room.
        delay = self._braking * (self.period + self.embodiment.latency)
        return min(1.0, (math.sqrt(delay**2 + 2.0 * self._braking * room) - delay) / speed)


@njit(cache=True)
def _limited(
    wish: np.ndarray,
    last: np.ndarray,
    last_change: np.ndarray,
    box: np.ndarray,
    radius: float,
    most: np.ndarray,
    step: np.ndarray,
) -> tuple[np.ndarray, bool, bool, bool]:
    """A command (3,) within the velocities ``box`` (2, 3), the change ``most`` and its change ``step`` after ``last``.

    And whether velocity, acceleration and jerk had to be clamped.
    """
    out, fast, hard, jerky = _clipped(wish, box, radius), False, False, False
    for k in range(3):
        wanted = out[k]
        fast |= abs(wanted - wish[k]) > 1e-6
        left = wanted - last[k]
        eased = min(max(left, -most[k]), most[k])
        hard |= abs(eased - left) > 1e-6
        change = min(max(eased, last_change[k] - step[k]), last_change[k] + step[k])
        jerky |= abs(change - eased) > 1e-6
        # Where a jerk clamp alone would overshoot what was wanted, stop there.
        out[k] = last[k] + min(max(change, min(left, 0.0)), max(left, 0.0))
    return _clipped(out, box, radius), fast, hard, jerky


@njit(cache=True)
def _clipped(twist: np.ndarray, box: np.ndarray, radius: float) -> np.ndarray:
    """What `Limits.clip` gives for one twist (3,)."""
    out = np.minimum(np.maximum(twist, box[0]), box[1])
    if radius > 0.0:
        most = abs(out[0]) / radius
        out[2] = min(max(out[2], -most), most)
    return out


@njit(cache=True)
def _nearest(points: np.ndarray, x: float, y: float, side: float) -> float:
    """How far in direction (x, y) the nearest of ``points`` (P, 2) within ``side`` of the line ahead is; or inf [m]."""
    nearest = np.inf
    for k in range(len(points)):
        ahead = points[k, 0] * x + points[k, 1] * y
        if 0.0 < ahead < nearest and abs(points[k, 1] * x - points[k, 0] * y) < side:
            nearest = ahead
    return nearest


def depth_obstacles(depth: np.ndarray, camera: CameraMount, base_height: float, height: float) -> np.ndarray:
    """Points (P, 2) [m] in the heading frame of what a depth image (H, W) [m] shows between floor and ``height``.

    The body is taken to stand level, its base ``base_height`` [m] above the floor.
    """
    x, _, z = camera.position
    return _seen(depth, *_rays(camera), x, base_height + z, height, camera.max_range)


@lru_cache
def _rays(camera: CameraMount) -> tuple[np.ndarray, np.ndarray]:
    """Of vectors through the pixels, of length 1 along the optical axis, in the base frame: x and z of each row (H, 2),
    y of each column (W,)."""
    rays = camera.into_base(camera.pixels()).reshape(camera.height, camera.width, 3)
    return np.ascontiguousarray(rays[:, 0, ::2]), np.ascontiguousarray(rays[0, :, 1])


@njit(cache=True)
def _seen(
    depth: np.ndarray, rows: np.ndarray, columns: np.ndarray, x: float, z: float, height: float, reach: float
) -> np.ndarray:
    out, num = np.empty((depth.size, 2)), 0
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            distance = np.float64(depth[row, column])
            above = z + rows[row, 1] * distance
            if distance < reach and FLOOR + FLOOR_DRIFT * distance < above < height:
                out[num, 0], out[num, 1] = x + rows[row, 0] * distance, columns[column] * distance
                num += 1
    return out[:num].copy()


@njit(cache=True)
def scan_obstacles(scan: np.ndarray) -> np.ndarray:
    """Points (P, 2) [m] of a scan (R, 2) of range [m], or inf, and angle [rad] whose frame is the base's."""
    out, num = np.empty((len(scan), 2)), 0
    for k in range(len(scan)):
        if np.isfinite(scan[k, 0]):
            out[num, 0], out[num, 1] = scan[k, 0] * math.cos(scan[k, 1]), scan[k, 0] * math.sin(scan[k, 1])
            num += 1
    return out[:num].copy()


@njit(cache=True)
def cloud_obstacles(points: np.ndarray, base_height: float, height: float) -> np.ndarray:
    """Of a cloud (P, 3) [m] in the base frame the points (Q, 2) [m] between floor and ``height``, heading frame.

    The body is taken to stand level, its base ``base_height`` [m] above the floor.
    """
    out, num = np.empty((len(points), 2)), 0
    for k in range(len(points)):
        x, y, above = points[k, 0], points[k, 1], base_height + points[k, 2]
        if FLOOR + FLOOR_DRIFT * math.hypot(x, y) < above < height:
            out[num, 0], out[num, 1] = x, y
            num += 1
    return out[:num].copy()
