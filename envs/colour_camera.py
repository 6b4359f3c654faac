"""RGB pictures from the body's own camera: the option ``rgb`` of an environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mujoco
import numpy as np

from omnibody.envs.camera import SEEN_GROUPS
from omnibody.envs.render import Canvas, graphics_backend, set_light
from omnibody.robots.spec import CameraMount

NEAR = 0.01  # what is closer than this is cut away [m]


@dataclass(frozen=True)
class Viewpoint:
    """A camera in a world: where it is (3,) [m], and its unit vectors (3,) along the optical axis and up."""

    model: mujoco.MjModel
    data: mujoco.MjData
    position: np.ndarray
    forward: np.ndarray
    up: np.ndarray


class ColourCamera:
    """Draws what a mounted camera sees: the field of view of its depth image, and like that without the body itself.

    ``field`` is the observation of one world. All drawing is done in one thread of its own, because an OpenGL context
    belongs to the thread that made it; that is at the first picture.
    Raises ``GraphicsError`` on a computer without OpenGL.
    """

    def __init__(self, mount: CameraMount, rows: int) -> None:
        self.mount, self.field = mount, mount.picture(rows)
        self.height, self.width, _ = self.field.shape
        graphics_backend()
        self._thread = ThreadPoolExecutor(1)
        self._canvas: Canvas | None = None
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = SEEN_GROUPS
        self._option.sitegroup[:] = self._option.tendongroup[:] = 0
        # MuJoCo leaves a camera of this kind as it was set.
        self._kind = mujoco.MjvCamera()
        self._kind.type = mujoco.mjtCamera.mjCAMERA_USER.value

    def take(self, viewpoints: Sequence[Viewpoint]) -> np.ndarray:
        """RGB pictures (n, height, width, 3) uint8."""
        return self._thread.submit(self._take, viewpoints).result()

    def close(self) -> None:
        """Free the graphics context, and stop the thread."""
        if self._canvas is not None:
            self._thread.submit(self._canvas.close).result()
            self._canvas = None
        self._thread.shutdown()

    def _take(self, viewpoints: Sequence[Viewpoint]) -> np.ndarray:
        pictures = np.empty((len(viewpoints), self.height, self.width, 3), np.uint8)
        for picture, viewpoint in zip(pictures, viewpoints, strict=True):
            picture[:] = self._draw(viewpoint)
        return pictures

    def _draw(self, view: Viewpoint) -> np.ndarray:
        if self._canvas is None:
            self._canvas = Canvas(view.model, self.width, self.height)
        scene, half = self._canvas.scene, NEAR * math.tan(self.mount.vertical_fov / 2)
        for eye in scene.camera:
            eye.pos[:], eye.forward[:], eye.up[:] = view.position, view.forward, view.up
            eye.frustum_near, eye.frustum_far = NEAR, 10.0 * view.model.stat.extent
            eye.frustum_bottom, eye.frustum_top = -half, half
            eye.frustum_center = eye.frustum_width = 0.0
        set_light(view.model)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(view.model, view.data, self._option, None, self._kind, everything, scene)
        return self._canvas.draw()
