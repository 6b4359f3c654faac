"""A ray-cast depth and semantics camera: one `mj_multiRay` call a world gives both."""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.envs import native
from omnibody.robots.plant import GROUP_OBJECT, GROUP_SCENE
from omnibody.robots.spec import CameraMount
from omnibody.sim_tasks.task import SEMANTIC_CLASSES

SEEN_GROUPS = np.array([group in (GROUP_SCENE, GROUP_OBJECT) for group in range(mujoco.mjNGROUP)], np.uint8)


def ray_directions(mount: CameraMount, pitch_offset: float = 0.0) -> np.ndarray:
    """Unit vectors through the pixel centres in the base frame, (H * W, 3), row by row from the top left."""
    optical = mount.pixels()
    return mount.into_base(optical / np.linalg.norm(optical, axis=1, keepdims=True), pitch_offset)


def semantic_class_of_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Semantic class id per geom, uint8 (ngeom,)."""
    classes = np.zeros(model.ngeom, np.uint8)
    for geom in range(model.ngeom):
        label = model.geom(geom).name.split("/")[0]
        if label in SEMANTIC_CLASSES:
            classes[geom] = SEMANTIC_CLASSES.index(label)
    return classes


class DepthCamera:
    """Casts the rays of a mounted camera into a batch of worlds; safe to share between threads."""

    def __init__(self, mount: CameraMount) -> None:
        self.mount = mount
        # Depth is measured along the optical axis, as depth cameras and ROS do, not along the ray.
        axis = np.array([np.cos(mount.pitch), 0.0, -np.sin(mount.pitch)])
        self._rays = ray_directions(mount)
        self._cosine = self._rays @ axis
        # A ray at the image corner may be longer than max_range and still hit within that depth.
        self._cutoff = mount.max_range / self._cosine.min()

    def rays(self, pitch_offset: float = 0.0) -> np.ndarray:
        """Unit vectors (H * W, 3) in the base frame; ``pitch_offset`` [rad] turns the camera further down than its
        mount says (a calibration error, for domain randomisation)."""
        return ray_directions(self.mount, pitch_offset) if pitch_offset else self._rays

    def cast(
        self, worlds: np.ndarray, classes: np.ndarray, origins: np.ndarray, rays: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth (n, H, W) float32 [m] and semantic class ids (n, H, W) uint8.

        ``worlds`` (n, 6) as in `omnibody.envs.native`, ``classes`` (n, G) of their geoms, ``origins`` (n, 3) [m] and
        ``rays`` (n, H * W, 3) in the world. Rays without a hit within ``max_range`` give ``max_range`` and class 0.
        """
        mount = self.mount
        geoms, distances = np.empty(rays.shape[:2], np.int32), np.empty(rays.shape[:2])
        native.cast(worlds, origins, np.ascontiguousarray(rays), SEEN_GROUPS, self._cutoff, geoms, distances)
        distances *= self._cosine
        missed = (geoms < 0) | (distances > mount.max_range)
        distances[missed] = mount.max_range
        seen = np.where(missed, 0, np.take_along_axis(classes, np.where(missed, 0, geoms), 1)).astype(np.uint8)
        shape = (len(worlds), mount.height, mount.width)
        return distances.astype(np.float32).reshape(shape), seen.reshape(shape)
