"""MuJoCo worlds in C threads: each shard of worlds is stepped, controlled and looked at by one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from omnibody.envs.camera import DepthCamera, semantic_class_of_geoms
from omnibody.envs.randomization import EpisodeDraw
from omnibody.robots.plant import BaseState, KinematicController, Plant, rotation_matrix

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
    """One world of a shard, with cached views into its data (they live as long as the data)."""

    model: mujoco.MjModel
    data: mujoco.MjData
    classes: np.ndarray
    draw: EpisodeDraw
    contact: np.ndarray


class Shard:
    """Worlds that one thread steps. ``qpos`` (n, nq), ``qvel`` (n, nv), ``hit`` (n,) are copies in batch order."""

    def __init__(self, plant: Plant, model: mujoco.MjModel, num: int, camera: DepthCamera) -> None:
        self.plant = plant
        self.camera = camera
        self.controller = plant.controller(model, num)
        self.substeps = round(plant.control_dt / plant.timestep)
        self.rows: dict[int, WorldRow] = {}
        self.qpos, self.qvel = np.zeros((num, model.nq)), np.zeros((num, model.nv))
        self.hit = np.zeros(num, bool)
        self.latency = np.zeros(num, np.int64)
        mount = camera.mount
        self.depth = np.zeros((num, mount.height, mount.width), np.float32)
        self.semantics = np.zeros((num, mount.height, mount.width), np.uint8)
        self.base: BaseState
        self._contact_address = model.sensor(CONTACT_SENSOR).adr[0]

    def load(self, row: int, model: mujoco.MjModel, qpos: np.ndarray, draw: EpisodeDraw) -> None:
        """Put a robot at rest into ``model`` as the new world of ``row``; call ``look`` when all rows are loaded."""
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        adr = self._contact_address
        classes = semantic_class_of_geoms(model)
        self.rows[row] = WorldRow(model, data, classes, draw, data.sensordata[adr : adr + 1])
        self.latency[row] = draw.latency_ticks
        self.controller.reset(np.array([row]))
        self.hit[row] = data.sensordata[adr] > 0

    def world(self, row: int) -> WorldRow:
        """The world that ``row`` runs in."""
        return self.rows[row]

    def ready(self) -> None:
        """Gather the state after worlds have been loaded."""
        self._worlds = [self.rows[k] for k in range(len(self.rows))]
        self._qpos_views = [row.data.qpos for row in self._worlds]
        self._qvel_views = [row.data.qvel for row in self._worlds]
        self._gather()
        self.base = self.plant.base_state(self.qpos, self.qvel)

    def _gather(self) -> None:
        np.stack(self._qpos_views, out=self.qpos)
        np.stack(self._qvel_views, out=self.qvel)

    def advance(self, action: np.ndarray, previous: np.ndarray, ticks: int) -> None:
        """Follow twist commands (n, 3) for ``ticks`` control periods, then look around.

        A row with latency goes on with its ``previous`` command for that many ticks.
        """
        self.hit[:] = False
        for tick in range(ticks):
            twist = np.where((tick >= self.latency)[:, None], action, previous)
            if self.plant.kinematic:
                self._move(twist)
            else:
                self._push(twist)
            self._gather()
            self.hit |= np.array([row.contact[0] > 0 for row in self._worlds])
        self.base = self.plant.base_state(self.qpos, self.qvel)
        self.look(range(len(self.rows)))

    def _push(self, twist: np.ndarray) -> None:
        control = self.controller.command(twist, self.qpos, self.qvel)
        for row, target in zip(self._worlds, control, strict=True):
            row.data.ctrl[:] = target
            mujoco.mj_step(row.model, row.data, self.substeps)

    def _move(self, twist: np.ndarray) -> None:
        assert isinstance(self.controller, KinematicController)
        qpos, qvel = self.controller.integrate(twist, self.qpos, self.qvel)
        for k, row in enumerate(self._worlds):
            row.data.qpos[:], row.data.qvel[:] = qpos[k], qvel[k]
            mujoco.mj_forward(row.model, row.data)

    def look(self, rows: range | np.ndarray) -> None:
        """Cast the camera of some rows from the base's present pose."""
        rotations = rotation_matrix(self.base.quaternion)
        for k in rows:
            row, rotation = self._worlds[k], rotations[k]
            position = self.base.position[k] + rotation @ row.draw.camera_offset
            self.depth[k], self.semantics[k] = self.camera.cast(
                row.model, row.data, row.classes, position, rotation, row.draw.camera_pitch
            )
