"""The last word on a command, whatever the policy says: limits of the body, and room to stop before an obstacle."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np

from omnibody.robots.spec import CameraMount, Embodiment

JERK_TIME = 0.1  # the full acceleration may be reached in this time [s]
MARGIN = 0.05  # kept between footprint and obstacle, as planned ways do [m]
FLOOR = 0.05  # what stands lower than this does not count as an obstacle [m]


class SafetyFilter:
    """Clamps (vx, vy, wz) commands [m/s, m/s, rad/s] of one body, sent every ``period`` [s]; ``counts`` what it did."""

    def __init__(self, embodiment: Embodiment, period: float) -> None:
        self.embodiment, self.period = embodiment, period
        self.counts: Counter[str] = Counter(velocity=0, acceleration=0, jerk=0, obstacle=0)
        self._most = np.array(embodiment.limits.acceleration) * period  # change of a command
        self._step = self._most * period / JERK_TIME  # change of that change
        self.stopped()

    def stopped(self) -> None:
        """A zero command was sent instead: the next one starts from rest."""
        self._twist, self._change = np.zeros(3), np.zeros(3)

    def filter(self, twist: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
        """The allowed command (3,) nearest to ``twist`` (3,); ``obstacles`` (P, 2) [m] in the heading frame."""
        limits = self.embodiment.limits
        wanted = self._count("velocity", twist, limits.clip(np.array(twist, np.float64)))
        change = wanted - self._twist
        change = self._count("acceleration", change, _between(-self._most, change, self._most))
        change = self._count("jerk", change, _between(self._change - self._step, change, self._change + self._step))
        # Where a jerk clamp alone would overshoot what was wanted, stop there.
        left = wanted - self._twist
        change = _between(np.minimum(left, 0.0), change, np.maximum(left, 0.0))
        out = limits.clip(self._twist + change)
        # Braking for an obstacle comes last: it may exceed the comfortable acceleration.
        out[:2] *= self._count("obstacle", np.ones(1), np.array([self._share(out, obstacles)]))
        out = limits.clip(out)
        self._change, self._twist = out - self._twist, out
        return out.copy()

    def _share(self, twist: np.ndarray, obstacles: np.ndarray) -> float:
        """How much of the speed still lets the body stop in front of the nearest obstacle on its way, 0 to 1."""
        speed = float(np.linalg.norm(twist[:2]))
        if speed < 1e-6 or len(obstacles) == 0:
            return 1.0
        along = twist[:2] / speed
        footprint, braking = self.embodiment.footprint, float(np.array(self.embodiment.limits.acceleration)[:2].max())
        half = 0.5 * np.array([footprint.length, footprint.width])
        ahead, aside = obstacles @ along, np.abs(obstacles @ np.array([-along[1], along[0]]))
        front, side = np.abs(along) @ half, np.abs(along[::-1]) @ half
        hit = (ahead > 0.0) & (aside < side)
        if not hit.any():
            return 1.0
        room = max(float(ahead[hit].min() - front) - MARGIN, 0.0)
        # Distance of one period's delay and then of braking: v dt + v^2 / (2 a) = room.
        delay = braking * (self.period + self.embodiment.latency)
        return min(1.0, (float(np.sqrt(delay**2 + 2.0 * braking * room)) - delay) / speed)

    def _count(self, name: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        self.counts[name] += int((np.abs(before - after) > 1e-6).any())
        return after


def _between(low: np.ndarray, values: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What `np.clip` does, without its ten microseconds."""
    return np.minimum(np.maximum(values, low), high)


@lru_cache
def _rays(camera: CameraMount) -> np.ndarray:
    """Vectors of the pixels in the base frame (3, H * W), of length 1 along the optical axis."""
    return np.ascontiguousarray(camera.into_base(camera.pixels()).T)


def depth_obstacles(depth: np.ndarray, camera: CameraMount, base_height: float, height: float) -> np.ndarray:
    """Points (P, 2) [m] in the heading frame of what a depth image (H, W) [m] shows between floor and ``height``.

    The body is taken to stand level, its base ``base_height`` [m] above the floor.
    """
    x, y, z = _rays(camera)
    depth = depth.ravel()
    above = base_height + camera.position[2] + z * depth
    # The floor's reading drifts with distance when the body pitches: 3 % is a tilt of about 2 degrees.
    seen = (depth < camera.max_range) & (above > FLOOR + 0.03 * depth) & (above < height)
    depth = depth[seen]
    return np.stack((camera.position[0] + x[seen] * depth, camera.position[1] + y[seen] * depth), axis=1)


def scan_obstacles(ranges: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Points (P, 2) [m] of a scan (R,) [m], (R,) [rad] whose frame is the base's."""
    hit = np.isfinite(ranges)
    ranges, angles = ranges[hit], angles[hit]
    return np.stack((ranges * np.cos(angles), ranges * np.sin(angles)), axis=1)
