"""A ray-cast depth and semantics camera: one `mj_multiRay` call gives both."""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.robots.plant import GROUP_OBJECT, GROUP_SCENE
from omnibody.robots.spec import CameraMount
from omnibody.sim_tasks.task import SEMANTIC_CLASSES

_SEEN_GROUPS = np.array([group in (GROUP_SCENE, GROUP_OBJECT) for group in range(mujoco.mjNGROUP)], np.uint8)


def ray_directions(mount: CameraMount, pitch_offset: float = 0.0) -> np.ndarray:
    """Unit vectors through the pixel centres in the base frame, (H * W, 3), row by row from the top left."""
    u = np.tan(mount.horizontal_fov / 2) * (1.0 - (2.0 * np.arange(mount.width) + 1.0) / mount.width)
    v = np.tan(mount.vertical_fov / 2) * (1.0 - (2.0 * np.arange(mount.height) + 1.0) / mount.height)
    left, up = np.meshgrid(u, v)
    optical = np.stack([np.ones_like(left), left, up], -1).reshape(-1, 3)
    optical /= np.linalg.norm(optical, axis=1, keepdims=True)
    pitch = mount.pitch + pitch_offset
    c, s = np.cos(pitch), np.sin(pitch)
    x, y, z = optical.T
    return np.stack([c * x + s * z, y, -s * x + c * z], -1)


def semantic_class_of_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Semantic class id per geom, uint8 (ngeom + 1,); the last entry, index -1, is a ray without a hit."""
    classes = np.zeros(model.ngeom + 1, np.uint8)
    for geom in range(model.ngeom):
        label = model.geom(geom).name.split("/")[0]
        if label in SEMANTIC_CLASSES:
            classes[geom] = SEMANTIC_CLASSES.index(label)
    return classes


class DepthCamera:
    """Casts the rays of a mounted camera into one world at a time; safe to share between threads."""

    def __init__(self, mount: CameraMount) -> None:
        self.mount = mount
        # Depth is measured along the optical axis, as depth cameras and ROS do, not along the ray.
        self._axis = np.array([np.cos(mount.pitch), 0.0, -np.sin(mount.pitch)])
        self._rays = ray_directions(mount)
        self._cosine = self._rays @ self._axis
        # A ray at the image corner may be longer than max_range and still hit within that depth.
        self._cutoff = mount.max_range / self._cosine.min()

    def cast(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        classes: np.ndarray,
        position: np.ndarray,
        rotation: np.ndarray,
        pitch_offset: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, W) float32 [m] and semantic class ids (H, W) uint8, seen from a base pose in the world.

        The pose is ``position`` (3,) [m] and ``rotation`` (3, 3), base to world. Rays without a hit within
        ``max_range`` give ``max_range`` and class 0. ``pitch_offset`` [rad] turns the camera further down than its
        mount says (a calibration error, for domain randomisation).
        """
        mount = self.mount
        rays = ray_directions(mount, pitch_offset) if pitch_offset else self._rays
        num = len(rays)
        hit, distance = np.empty(num, np.int32), np.empty(num)
        mujoco.mj_multiRay(
            model,
            data,
            position + rotation @ mount.position,
            (rays @ rotation.T).ravel(),
            _SEEN_GROUPS,
            True,
            -1,
            hit,
            distance,
            None,
            num,
            self._cutoff,
        )
        distance *= self._cosine
        missed = (hit < 0) | (distance > mount.max_range)
        distance[missed] = mount.max_range
        hit[missed] = -1
        shape = (mount.height, mount.width)
        return distance.astype(np.float32).reshape(shape), classes[hit].reshape(shape)
