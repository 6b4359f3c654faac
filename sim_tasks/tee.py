"""The T of Push-T: two rectangles, their corners and how much of a goal pose they cover.

Sizes are gym-pusht 0.1.8's (`add_tee`). A pose is (x [px], y [px], angle [rad]) of
the T's origin, the middle of the outer side of its bar; y points down on the screen, so angles turn clockwise there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# (x low, y low, x high, y high) [px] in the T's frame; they share a side and nothing else.
BAR = (-60.0, 0.0, 60.0, 30.0)
STEM = (-15.0, 30.0, 15.0, 120.0)
AREA = 120.0 * 30.0 + 30.0 * 90.0  # [px^2]
CENTRE_OF_MASS = (0.0, 45.0)  # gym-pusht's: the middle of the two rectangles' centres
CORNERS = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], np.float64
)  # around the outline


def corners(pose: np.ndarray) -> np.ndarray:
    """The eight corners (..., 8, 2) [px] of a T at ``pose`` (..., 3)."""
    c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = CORNERS.T
    across = c[..., None] * x - s[..., None] * y
    down = s[..., None] * x + c[..., None] * y
    return np.stack([across, down], -1) + pose[..., None, :2]


def overlap(pose: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Area (N,) [px^2] that Ts at ``pose`` (N, 3) and ``goal`` (N, 3) share."""
    return _overlaps(np.ascontiguousarray(pose, np.float64), np.ascontiguousarray(goal, np.float64))


@njit(cache=True)
def _overlaps(pose: np.ndarray, goal: np.ndarray) -> np.ndarray:
    shared = np.zeros(len(pose))
    for row in range(len(pose)):
        # The block in the goal's frame, where the goal's rectangles are aligned with the axes.
        c, s = np.cos(goal[row, 2]), np.sin(goal[row, 2])
        dx, dy = pose[row, 0] - goal[row, 0], pose[row, 1] - goal[row, 1]
        x, y, angle = c * dx + s * dy, -s * dx + c * dy, pose[row, 2] - goal[row, 2]
        for own in (BAR, STEM):
            for wanted in (BAR, STEM):
                shared[row] += _clipped_area(own, x, y, angle, wanted)
    return shared


@njit(cache=True)
def _clipped_area(
    box: tuple[float, float, float, float],
    x: float,
    y: float,
    angle: float,
    window: tuple[float, float, float, float],
) -> float:
    """Area of ``box``, turned by ``angle`` and moved to (x, y), inside ``window`` (Sutherland-Hodgman clipping)."""
    c, s = np.cos(angle), np.sin(angle)
    polygon, clipped = np.zeros((8, 2)), np.zeros((8, 2))
    count = 4
    for k in range(4):
        u, v = box[0 if k in (0, 3) else 2], box[1 if k < 2 else 3]
        polygon[k, 0], polygon[k, 1] = x + c * u - s * v, y + s * u + c * v
    for side in range(4):
        axis, sign = side % 2, 1.0 if side < 2 else -1.0
        kept = 0
        for k in range(count):
            before, here = polygon[(k - 1) % count], polygon[k]
            from_inside, inside = sign * (before[axis] - window[side]), sign * (here[axis] - window[side])
            if (from_inside < 0.0) != (inside < 0.0):
                share = from_inside / (from_inside - inside)
                clipped[kept] = before + share * (here - before)
                kept += 1
            if inside >= 0.0:
                clipped[kept] = here
                kept += 1
        count = kept
        polygon, clipped = clipped, polygon
    area = 0.0
    for k in range(count):
        after = (k + 1) % count
        area += polygon[k, 0] * polygon[after, 1] - polygon[k, 1] * polygon[after, 0]
    return 0.5 * abs(area)
