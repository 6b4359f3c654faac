"""RGB pictures of a MuJoCo world, drawn off screen by EGL or OSMesa; for reports from behind the body or from above.

MuJoCo binds its OpenGL platform when it is imported; here the context is made at the first picture instead, so that
nobody has to set an environment variable first. ``MUJOCO_GL=egl|osmesa`` chooses, otherwise the first that works.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from omnibody.robots.errors import UserError
from omnibody.robots.plant import GROUP_OBJECT, GROUP_ROBOT, GROUP_ROBOT_VISUAL, GROUP_SCENE

if TYPE_CHECKING:
    from omnibody.envs.mujoco_env import MujocoEnv  # which draws the body's own camera with what stands here

BACKENDS = ("egl", "osmesa")
_PROBE = """
import importlib, sys
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(64, 64)
context.make_current()
context.free()
"""
PROBE_SECONDS = 60
FIELD_OF_VIEW = math.radians(45.0)  # vertical, of both cameras
GOAL_COLOUR = np.array([0.0, 0.45, 0.7, 0.7], np.float32)
Pose = tuple[float, float, float]


class GraphicsError(UserError, RuntimeError):
    """No usable OpenGL platform on this computer."""


@functools.cache
def probe(backend: str) -> str:
    """Try one of BACKENDS in a process of its own; empty when it works, else the reason it does not."""
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {"MUJOCO_GL": backend}
    command = [sys.executable, "-c", _PROBE, backend]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {PROBE_SECONDS} s"
    return "" if result.returncode == 0 else (result.stderr.strip().splitlines() or ["killed"])[-1]


@functools.cache
def graphics_backend() -> str:
    """The platform pictures are drawn with: MUJOCO_GL if it is set, else the first of BACKENDS that works."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen and chosen not in BACKENDS:
        raise GraphicsError(f"MUJOCO_GL: wanted one of {', '.join(BACKENDS)} (or unset), came {chosen!r}; unset it")
    reasons = {backend: probe(backend) for backend in ([chosen] if chosen else BACKENDS)}
    for backend, reason in reasons.items():
        if not reason:
            return backend
    tried = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    raise GraphicsError(f"rendering: wanted EGL or OSMesa, none works ({tried}); install libegl1 or libosmesa6")


@dataclass(frozen=True)
class Chase:
    """A camera ``distance`` [m] behind the base, looking along its yaw and down by ``pitch`` [rad].

    It comes closer where the scene would stand between the two.
    """

    distance: float = 2.6
    pitch: float = math.radians(38.0)

    def place(self, camera: mujoco.MjvCamera, pose: Pose, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Point ``camera`` at a base with ground pose (x [m], y [m], yaw [rad])."""
        x, y, yaw = pose
        target = np.array([x, y, 0.4])
        level = math.cos(self.pitch)
        backwards = np.array([-level * math.cos(yaw), -level * math.sin(yaw), math.sin(self.pitch)])
        scene_only = np.array([group in (GROUP_SCENE, GROUP_OBJECT) for group in range(mujoco.mjNGROUP)], np.uint8)
        free = mujoco.mj_ray(model, data, target, backwards, scene_only, 1, -1, np.zeros(1, np.int32))
        camera.lookat[:] = target
        camera.distance = self.distance if free < 0 else min(self.distance, max(free - 0.15, 0.6))
        camera.azimuth, camera.elevation = math.degrees(yaw), -math.degrees(self.pitch)


@dataclass(frozen=True)
class TopDown:
    """A camera that looks straight down on a square of ``extent`` [m] around ``centre``, or around the base."""

    extent: float = 8.0
    centre: tuple[float, float] | None = None

    def place(self, camera: mujoco.MjvCamera, pose: Pose, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Point ``camera`` down, with the world's x axis to the right and y up."""
        x, y = self.centre or pose[:2]
        camera.lookat[:] = x, y, 0.0
        camera.distance = 0.5 * self.extent / math.tan(0.5 * FIELD_OF_VIEW)
        camera.azimuth, camera.elevation = 90.0, -90.0


View = Chase | TopDown


class Canvas:
    """What OpenGL draws on, off screen; used by the thread that made it only. ``close`` frees it.

    ``scene`` is filled by the owner before ``draw``. Models other than ``model`` may be drawn too if they have no
    meshes or textures of their own to be seen.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        self.width, self.height = width, height
        size = model.vis.global_
        size.offwidth, size.offheight = max(size.offwidth, width), max(size.offheight, height)
        platform = importlib.import_module(f"mujoco.{graphics_backend()}")
        self._context = platform.GLContext(size.offwidth, size.offheight)
        self._context.make_current()
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._drawing)
        self.scene = mujoco.MjvScene(model, maxgeom=10_000)

    def draw(self) -> np.ndarray:
        """RGB picture (height, width, 3) uint8 of the scene."""
        self._context.make_current()
        picture = np.empty((self.height, self.width, 3), np.uint8)
        rectangle = mujoco.MjrRect(0, 0, self.width, self.height)
        mujoco.mjr_render(rectangle, self.scene, self._drawing)
        mujoco.mjr_readPixels(picture, None, rectangle, self._drawing)
        return np.flipud(picture)  # OpenGL counts rows from below

    def close(self) -> None:
        """Free what the graphics platform holds."""
        self._context.make_current()
        self._drawing.free()
        self._context.free()


def set_light(model: mujoco.MjModel) -> None:
    """Enough light to tell a wall's shaded side, not so much that a floor seen from above is white."""
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.35, 0.2


class Renderer:
    """Draws states of one compiled model; ``close`` frees the OpenGL context."""

    def __init__(self, model: mujoco.MjModel, width: int = 320, height: int = 240) -> None:
        self.model = model
        model.vis.global_.fovy = math.degrees(FIELD_OF_VIEW)
        set_light(model)
        self._canvas = Canvas(model, width, height)
        self._option = mujoco.MjvOption()
        # A body without visual meshes is shown by its collision geoms.
        has_meshes = (model.geom_group == GROUP_ROBOT_VISUAL) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
        self._option.geomgroup[GROUP_ROBOT] = not has_meshes.any()
        self._camera = mujoco.MjvCamera()

    def render(self, data: mujoco.MjData, view: View, pose: Pose, goal: Pose | None = None) -> np.ndarray:
        """RGB picture (height, width, 3) uint8 of ``data`` with its base at ground ``pose``; marks a ``goal`` pose."""
        view.place(self._camera, pose, self.model, data)
        scene = self._canvas.scene
        mujoco.mjv_updateScene(
            self.model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, scene
        )
        if goal is not None:
            _mark(scene, goal)
        return self._canvas.draw()

    def close(self) -> None:
        """Free what the graphics platform holds."""
        self._canvas.close()


def _mark(scene: mujoco.MjvScene, goal: Pose) -> None:
    """Add a disc and an arrow for the goal's position and heading."""
    x, y, yaw = goal
    # The columns of the arrow's rotation are its axes in the world; its own z axis points along the heading.
    side, up = (math.sin(yaw), -math.cos(yaw), 0.0), (0.0, 0.0, 1.0)
    arrow = np.column_stack([side, up, (math.cos(yaw), math.sin(yaw), 0.0)])
    # MuJoCo draws an arrow half as long as its size says: 0.6 m.
    for kind, size, rotation, height in (
        (mujoco.mjtGeom.mjGEOM_CYLINDER, (0.35, 0.005, 0.0), np.eye(3), 0.006),
        (mujoco.mjtGeom.mjGEOM_ARROW, (0.05, 0.05, 1.2), arrow, 0.06),
    ):
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, kind, np.array(size), np.array([x, y, height]), rotation.flatten(), GOAL_COLOUR)
        scene.ngeom += 1


class EnvRenderer:
    """Draws the present state of single environments of a `MujocoEnv`, with the bodies' visual meshes."""

    def __init__(self, env: MujocoEnv, width: int = 320, height: int = 240) -> None:
        self.env, self.width, self.height = env, width, height
        self._scene = -1
        self._renderer: Renderer | None = None
        self._data: mujoco.MjData

    def render(self, row: int, view: View, goal: Pose | None = None) -> np.ndarray:
        """RGB picture (height, width, 3) uint8 of env ``row``; ``goal`` (x [m], y [m], yaw [rad]) is marked."""
        renderer = self._for_scene(self.env.scene(row))
        self._data.qpos[:] = self.env.data(row).qpos
        mujoco.mj_kinematics(renderer.model, self._data)
        mujoco.mj_camlight(renderer.model, self._data)
        world = self.env.world
        pose = (float(world.position[row, 0]), float(world.position[row, 1]), float(world.yaw[row]))
        return renderer.render(self._data, view, pose, goal)

    def close(self) -> None:
        """Free the graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _for_scene(self, scene: int) -> Renderer:
        """The renderer of a scene's full model; only the latest is kept, since graphics memory is scarce."""
        if self._renderer is None or scene != self._scene:
            self.close()
            model = self.env.bank.spec(scene).compile()
            self._scene, self._data = scene, mujoco.MjData(model)
            self._renderer = Renderer(model, self.width, self.height)
        return self._renderer
