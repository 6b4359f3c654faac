"""A scene as data: boxes standing on a flat floor, the signed distance to them, and their extrusion into MuJoCo.

Grids are (rows, columns) = (y, x); cell (0, 0) is centred on ``Grid.origin``. Distances are exact at cell centres
(box geometry, not a raster transform) and interpolated bilinearly in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np
from numba import njit

from omnibody.robots.plant import GROUP_SCENE
from omnibody.sim_tasks.task import SEMANTIC_CLASSES

RESOLUTION = 0.1  # cell size of the planning and distance grids [m]
COLOURS = {
    "floor": (0.55, 0.55, 0.52, 1.0),
    "wall": (0.85, 0.83, 0.78, 1.0),
    "rack": (0.20, 0.35, 0.65, 1.0),
    "furniture": (0.55, 0.38, 0.22, 1.0),
    "clutter": (0.85, 0.45, 0.15, 1.0),
}


@dataclass(frozen=True)
class Box:
    """A box on the floor: centre (x, y) [m], full sizes [m], yaw [rad] and semantic class."""

    kind: str
    x: float
    y: float
    length: float
    width: float
    height: float
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in SEMANTIC_CLASSES[2:]:
            raise ValueError(f"box class {self.kind!r} is not one of {SEMANTIC_CLASSES[2:]}")
        if min(self.length, self.width, self.height) <= 0.0:
            raise ValueError(f"box sizes must be positive, got {self.length} x {self.width} x {self.height} m")

    @property
    def planar(self) -> tuple[float, float, float, float, float, float]:
        """What ``signed_distance`` reads: x, y, half length, half width, cos(yaw), sin(yaw)."""
        return self.x, self.y, 0.5 * self.length, 0.5 * self.width, math.cos(self.yaw), math.sin(self.yaw)


@dataclass(frozen=True)
class Grid:
    """Square cells over a rectangle of the world; ``origin`` is the centre of cell (0, 0) [m]."""

    origin: tuple[float, float]
    shape: tuple[int, int]
    resolution: float = RESOLUTION

    @staticmethod
    def over(low: tuple[float, float], high: tuple[float, float], resolution: float = RESOLUTION) -> Grid:
        """The grid whose cells tile the rectangle from ``low`` to ``high`` [m]."""
        columns, rows = (max(1, math.ceil((b - a) / resolution - 1e-9)) for a, b in zip(low, high, strict=True))
        return Grid((low[0] + 0.5 * resolution, low[1] + 0.5 * resolution), (rows, columns), resolution)

    def centres(self) -> np.ndarray:
        """World positions of all cell centres, (rows * columns, 2) in row-major order [m]."""
        rows, columns = np.indices(self.shape).reshape(2, -1)
        return np.stack((columns, rows), axis=1) * self.resolution + np.asarray(self.origin)

    def cells(self, points: np.ndarray) -> np.ndarray:
        """Flat index of the cell around world points, (..., 2) [m] -> (...); points outside go to the border."""
        index = np.rint((points - np.asarray(self.origin)) / self.resolution).astype(np.int64)
        rows, columns = self.shape
        return np.clip(index[..., 1], 0, rows - 1) * columns + np.clip(index[..., 0], 0, columns - 1)


@dataclass(frozen=True, eq=False)
class Scene:
    """Boxes inside the rectangle from ``low`` to ``high`` [m]; robots are meant to stay inside it."""

    name: str
    boxes: tuple[Box, ...]
    low: tuple[float, float]
    high: tuple[float, float]

    @cached_property
    def grid(self) -> Grid:
        """The grid of ``distance``."""
        return Grid.over(self.low, self.high)

    @cached_property
    def distance(self) -> np.ndarray:
        """Signed distance from each cell centre to the nearest box, float32 (rows, columns) [m], negative inside."""
        return self.distance_at(self.grid.centres()).reshape(self.grid.shape).astype(np.float32)

    @property
    def occupied(self) -> np.ndarray:
        """Cells whose centre lies in a box, bool (rows, columns)."""
        return self.distance <= 0.0

    def distance_at(self, points: np.ndarray) -> np.ndarray:
        """Exact signed distance from world points (P, 2) to the nearest box, (P,) [m]."""
        return signed_distance(np.ascontiguousarray(points, np.float64), planar_array(self.boxes))

    def inflate(self, radius: float) -> np.ndarray:
        """Cells closer than ``radius`` [m] to a box, bool (rows, columns)."""
        return self.distance < radius

    def is_free(self, points: np.ndarray, radius: float) -> np.ndarray:
        """Whether a disc of ``radius`` [m] at world points (P, 2) touches nothing and stays in bounds, bool (P,)."""
        inside = np.all((points >= np.asarray(self.low)) & (points <= np.asarray(self.high)), axis=1)
        return inside & (self.distance_at(points) >= radius)

    def extrude(self, spec: mujoco.MjSpec) -> None:
        """Add floor, light and boxes to a robot's spec: geoms ``<class>/<i>`` on the world child body ``scene``."""
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=[0.0, 0.0, 6.0], dir=[0.3, 0.2, -1.0], castshadow=False
        )
        shared = {"contype": 1, "conaffinity": 1, "group": GROUP_SCENE}
        plane, box = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
        spec.worldbody.add_geom(name="floor/0", type=plane, size=[0.0, 0.0, 0.05], rgba=COLOURS["floor"], **shared)
        body = spec.worldbody.add_body(name="scene")
        for i, b in enumerate(self.boxes):
            body.add_geom(
                name=f"{b.kind}/{i}",
                type=box,
                pos=[b.x, b.y, 0.5 * b.height],
                size=[0.5 * b.length, 0.5 * b.width, 0.5 * b.height],
                quat=[math.cos(0.5 * b.yaw), 0.0, 0.0, math.sin(0.5 * b.yaw)],
                rgba=COLOURS[b.kind],
                **shared,
            )


def planar_array(boxes: tuple[Box, ...] | list[Box]) -> np.ndarray:
    """``Box.planar`` of all boxes, (B, 6)."""
    return np.array([box.planar for box in boxes], np.float64).reshape(-1, 6)


@njit(cache=True)
def signed_distance(points: np.ndarray, planar: np.ndarray) -> np.ndarray:
    """Signed distance from points (P, 2) to the nearest of the boxes (B, 6), (P,) [m]; infinite without boxes."""
    out = np.full(len(points), np.inf)
    for p in range(len(points)):
        for b in range(len(planar)):
            dx, dy = points[p, 0] - planar[b, 0], points[p, 1] - planar[b, 1]
            c, s = planar[b, 4], planar[b, 5]
            u = abs(c * dx + s * dy) - planar[b, 2]
            v = abs(c * dy - s * dx) - planar[b, 3]
            if u > 0.0 and v > 0.0:
                distance = math.sqrt(u * u + v * v)
            else:
                distance = max(u, v)
            out[p] = min(out[p], distance)
    return out
