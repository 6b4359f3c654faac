"""MuJoCo worlds in C threads: each shard of worlds is stepped, controlled and looked at by one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from omnibody.envs import native
from omnibody.envs.camera import SEEN_GROUPS, DepthCamera, semantic_class_of_geoms
from omnibody.envs.randomization import EpisodeDraw
from omnibody.robots.plant import BaseState, KinematicController, Plant

CONTACT_SENSOR = "omnibody_scene_contact"


class SceneBank:
    """Compiles the robot in each scene once, on first use."""

    def __init__(self, plant: Plant, build_scene: Callable[[mujoco.MjSpec, int], None]) -> None:
        self._plant = plant
        self._build_scene = build_scene
        self._robot = plant.spec()
        self._models: dict[int, mujoco.MjModel] = {}

    def spec(self, scene: int) -> mujoco.MjSpec:
        """The robot's spec with the scene and the contact sensor added."""
        spec = self._robot.copy()
        self._build_scene(spec, scene)
        # "found" counts the contacts between the robot's whole tree and the scene body; the floor is not part of it.
        spec.add_sensor(
            name=CONTACT_SENSOR,
            type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_XBODY,
            objname="base",
            reftype=mujoco.mjtObj.mjOBJ_BODY,
            refname="scene",
            intprm=[1, 0, 1],
        )
        return spec

    def model(self, scene: int) -> mujoco.MjModel:
        """The compiled model without visual meshes; shared, so copy it before changing it."""
        if scene not in self._models:
            spec = self.spec(scene)
            spec.compiler.discardvisual = True
            self._models[scene] = spec.compile()
        return self._models[scene]


@dataclass
class WorldRow:
    """One world of a shard."""

    model: mujoco.MjModel
    data: mujoco.MjData


class Shard:
    """Worlds that one thread steps. ``qpos`` (n, nq), ``qvel`` (n, nv), ``hit`` (n,) are copies in batch order; so
    are ``depth`` (n, H * W) float32 [m] and ``semantics`` (n, H * W) uint8, what the cameras saw last."""

    def __init__(self, plant: Plant, model: mujoco.MjModel, num: int, camera: DepthCamera) -> None:
        self.plant = plant
        self.camera = camera
        self.controller = plant.controller(model, num)
        self.substeps = round(plant.control_dt / plant.timestep)
        self.rows: list[WorldRow | None] = [None] * num  # keeps alive what the addresses point to
        self.qpos, self.qvel = np.zeros((num, model.nq)), np.zeros((num, model.nv))
        self.hit = np.zeros(num, bool)
        self.latency = np.zeros(num, np.int64)
        pixels = len(camera.cosine)
        self.depth, self.semantics = np.zeros((num, pixels), np.float32), np.zeros((num, pixels), np.uint8)
        self.base: BaseState
        self._contact_address = model.sensor(CONTACT_SENSOR).adr[0]
        self._addresses = np.zeros((num, native.NUM_ADDRESSES), np.int64)
        self._touched = np.zeros(num)  # the contact sensors
        self._classes = np.zeros((num, model.ngeom), np.uint8)  # of geoms; as wide as the largest scene so far
        self._rays = np.empty((num, *camera.rays().shape))
        self._offset = np.zeros((num, 3))

    def load(self, row: int, model: mujoco.MjModel, qpos: np.ndarray, draw: EpisodeDraw) -> None:
        """Put a robot at rest into ``model`` as the new world of ``row``; call ``look`` when all rows are loaded."""
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        sensor = data.sensordata[self._contact_address :]
        self.rows[row] = WorldRow(model, data)
        self._addresses[row] = native.addresses(model, data, sensor)
        classes = semantic_class_of_geoms(model)
        self._classes = np.pad(self._classes, ((0, 0), (0, max(0, len(classes) - self._classes.shape[1]))))
        self._classes[row, : len(classes)] = classes
        self._rays[row] = self.camera.rays(draw.camera_pitch)
        self._offset[row] = self.camera.mount.position + draw.camera_offset
        self.latency[row] = draw.latency_ticks
        self.controller.reset(np.array([row]))
        self.qpos[row], self.qvel[row], self.hit[row] = data.qpos, data.qvel, sensor[0] > 0

    def world(self, row: int) -> WorldRow:
        """The world that ``row`` runs in."""
        world = self.rows[row]
        assert world is not None, "load() comes first"
        return world

    def ready(self) -> None:
        """Work out the bases' state after worlds have been loaded or moved."""
        self.base = self.plant.base_state(self.qpos, self.qvel)
        self._position = np.ascontiguousarray(self.base.position)
        self._quaternion = np.ascontiguousarray(self.base.quaternion)

    def advance(self, action: np.ndarray, previous: np.ndarray, ticks: int) -> None:
        """Follow twist commands (n, 3) for ``ticks`` control periods.

        A row with latency goes on with its ``previous`` command for that many ticks.
        """
        self.hit[:] = False
        for tick in range(ticks):
            twist = np.where((tick >= self.latency)[:, None], action, previous)
            if self.plant.kinematic:
                self._move(twist)
            else:
                self._push(twist)
            self.hit |= self._touched > 0
        self.ready()

    def _push(self, twist: np.ndarray) -> None:
        control = np.ascontiguousarray(self.controller.command(twist, self.qpos, self.qvel), np.float64)
        native.push(self._addresses, control, self.substeps, self.qpos, self.qvel, self._touched)

    def _move(self, twist: np.ndarray) -> None:
        assert isinstance(self.controller, KinematicController)
        self.qpos[:], self.qvel[:] = self.controller.integrate(twist, self.qpos, self.qvel)
        native.move(self._addresses, self.qpos, self.qvel, self._touched)

    def look(self, rows: slice) -> None:
        """Cast the cameras of some rows from the bases' present poses."""
        native.look(
            self._addresses[rows],
            self._classes[rows],
            self._position[rows],
            self._quaternion[rows],
            self._offset[rows],
            self._rays[rows],
            SEEN_GROUPS,
            self.camera.cosine,
            self.camera.mount.max_range,
            self.depth[rows],
            self.semantics[rows],
        )
