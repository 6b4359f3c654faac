"""A ray-cast depth and semantics camera: its rays, and the class of what they hit."""

from __future__ import annotations

import mujoco
import numpy as np

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
    """The rays of a mounted camera; safe to share between threads.

    ``cosine`` (H * W,): of the angle between a ray and the optical axis, along which depth is measured, as depth
    cameras and ROS do.
    """

    def __init__(self, mount: CameraMount) -> None:
        self.mount = mount
        self._rays = ray_directions(mount)
        self.cosine = self._rays @ np.array([np.cos(mount.pitch), 0.0, -np.sin(mount.pitch)])

    def rays(self, pitch_offset: float = 0.0) -> np.ndarray:
        """Unit vectors (H * W, 3) in the base frame; ``pitch_offset`` [rad] turns the camera further down than its
        mount says (a calibration error, for domain randomisation)."""
        return ray_directions(self.mount, pitch_offset) if pitch_offset else self._rays
