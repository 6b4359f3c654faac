"""Quadrupeds at tier T2: every joint in MuJoCo, position servos at the joints, a trot on top."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import mujoco
import numpy as np

from omnibody.robots import assets
from omnibody.robots.leg import LegGeometry, inverse_kinematics
from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL, BaseState, free_base_state
from omnibody.robots.spec import Embodiment, Limits, Vector3
from omnibody.robots.trot import GRAVITY, JOINTS, LEGS, Trot
from omnibody.robots.trot_state import TrotConstants

STAND_CLEARANCE = 0.002  # feet start this far above the ground [m]


@dataclass(frozen=True)
class QuadrupedConstants:
    """What differs between quadrupeds.

    ``root`` names the trunk in the model file; ``height`` is that of the base origin when standing [m]; joint torque is
    ``kp`` (target - angle) - ``kd`` velocity [Nm/rad, Nms/rad], within ``torque`` of hip, thigh and calf [Nm].
    With kp about 1.4 m g h a trunk that leans by a radian is answered by 1.4 times its own moment; kd / kp is 35 ms to
    40 ms, two control steps.
    """

    root: str
    height: float
    kp: float
    kd: float
    torque: Vector3


class QuadrupedPlant:
    """Plant of a quadruped whose model names its legs FL, FR, RL, RR and their joints hip, thigh, calf."""

    tier = "T2"
    kinematic = False
    timestep = 0.004
    control_dt = 0.02

    def __init__(self, embodiment: Embodiment, constants: QuadrupedConstants) -> None:
        self.embodiment = embodiment
        self.constants = constants

    def spec(self) -> mujoco.MjSpec:
        """The body alone; scene geoms must have contype 1 to touch it. Its parts don't collide with each other."""
        spec = mujoco.MjSpec.from_file(str(assets.resolve(self.embodiment.mjcf)))
        _keep_body_only(spec)
        root = spec.body(self.constants.root)
        root.name = "base"
        root.pos = (0.0, 0.0, self.constants.height)
        _set_physics(spec, self.timestep)
        for geom in spec.geoms:
            _set_contact(geom)
        self._add_servos(spec)
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> Trot:
        """A trot for ``num`` bodies of the compiled model."""
        return Trot(self._trot_constants(model), num)

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """qpos (19,) at rest."""
        height = self.constants.height + STAND_CLEARANCE
        return np.array([x, y, height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2), *self._rest])

    def base_state(self, qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
        """Pose and velocity of the trunk."""
        return free_base_state(qpos, qvel)

    @cached_property
    def _rest(self) -> np.ndarray:
        spec = self.spec()
        spec.compiler.discardvisual = True
        facts = self._trot_constants(spec.compile())
        return standing_pose(facts.legs, facts.nominal, facts.height)

    def _trot_constants(self, model: mujoco.MjModel) -> TrotConstants:
        return trot_constants(model, self.constants.height, self.embodiment.limits, self.control_dt)

    def _add_servos(self, spec: mujoco.MjSpec) -> None:
        kp, kd = self.constants.kp, self.constants.kd
        for leg in LEGS:
            for joint, torque in zip(JOINTS, self.constants.torque, strict=True):
                servo = spec.add_actuator(name=f"{leg}_{joint}", target=f"{leg}_{joint}_joint")
                servo.trntype = mujoco.mjtTrn.mjTRN_JOINT
                servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
                servo.gainprm[0] = kp
                servo.biasprm[1:3] = -kp, -kd
                servo.forcelimited, servo.forcerange = True, (-torque, torque)
                servo.ctrllimited = False


def leg_geometry(model: mujoco.MjModel) -> LegGeometry:
    """Leg geometry of a compiled model; bent links (a calf joint before or behind the thigh) are allowed."""
    hip, thigh, calf = (np.array([model.body(f"{leg}_{joint}").pos for leg in LEGS]) for joint in JOINTS)
    upper, lower = -calf[0], -_foot_in_calf(model, "FL")
    return LegGeometry(
        hip + thigh * (1.0, 0.0, 1.0),
        thigh[:, 1].copy(),
        math.hypot(upper[0], upper[2]),
        math.atan2(upper[0], upper[2]),
        math.hypot(lower[0], lower[2]),
        math.atan2(lower[0], lower[2]),
        float(model.geom("FL").size[0]),
    )


def _foot_in_calf(model: mujoco.MjModel, leg: str) -> np.ndarray:
    """Centre of a foot in its calf's frame, whether the foot is a body of its own or a geom of the calf."""
    geom = model.geom(leg)
    body = model.body(geom.bodyid[0])
    return np.array(geom.pos if body.name == f"{leg}_calf" else geom.pos + body.pos)


def trot_constants(model: mujoco.MjModel, height: float, limits: Limits, dt: float) -> TrotConstants:
    """Read what the trot must know from a compiled model that stands ``height`` [m] tall."""
    _check_layout(model)
    legs = leg_geometry(model)
    feet = legs.hips[:, :2].copy()
    feet[:, 1] += legs.offsets
    data = mujoco.MjData(model)
    data.qpos[:3] = 0.0
    data.qpos[3:7] = 1.0, 0.0, 0.0, 0.0
    data.qpos[7:19] = standing_pose(legs, feet, height)
    mujoco.mj_forward(model, data)
    base = model.body("base")
    mass, com = float(base.subtreemass[0]), data.subtree_com[base.id].copy()
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    return TrotConstants(
        dt=dt,
        height=height,
        kp=float(model.actuator_gainprm[0, 0]),
        kd=float(-model.actuator_biasprm[0, 2]),
        mass=mass,
        capture=math.sqrt(height / GRAVITY) / 3.0,
        reach=0.28 * height / 0.3,
        friction=0.6,
        pull=2.0,
        low=np.array(limits.velocity_low),
        high=np.array(limits.velocity_high),
        acceleration=np.array(limits.acceleration),
        com=com,
        inertia=np.diag(full)[3:6] - mass * (com @ com - com**2),
        nominal=feet + com[:2],
        legs=legs,
    )


def standing_pose(legs: LegGeometry, feet: np.ndarray, height: float) -> np.ndarray:
    """Joint angles (12,) with the feet (4, 2) on the ground, ``height`` [m] below the base origin."""
    z = legs.foot_radius - height
    return np.array([inverse_kinematics(legs, leg, (x, y, z)) for leg, (x, y) in enumerate(feet)]).ravel()


def _check_layout(model: mujoco.MjModel) -> None:
    """Refuse a model whose first joints and actuators are not a free joint and the twelve in the trot's order."""
    wanted = [f"{leg}_{joint}" for leg in LEGS for joint in JOINTS]
    joints = [model.joint(i).name for i in range(1, min(model.njnt, 13))]
    servos = [model.actuator(i).name for i in range(model.nu)]
    if joints != [f"{name}_joint" for name in wanted] or servos != wanted:
        raise ValueError(f"wanted a free joint and then {wanted} as joints and actuators, came {joints} and {servos}")


def _keep_body_only(spec: mujoco.MjSpec) -> None:
    """Delete what belongs to the file's own scene: motors, key frames, sensors, lights, cameras, sites."""
    for parts in (spec.actuators, spec.keys, spec.sensors, spec.lights, spec.cameras, spec.sites, spec.excludes):
        for part in list(parts):
            spec.delete(part)


def _set_physics(spec: mujoco.MjSpec, timestep: float) -> None:
    spec.option.timestep = timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    spec.option.impratio = 1.0


def _set_contact(geom: mujoco.MjsGeom) -> None:
    """Group and contact of one geom: rubber feet with friction, a frictionless shell, or only something to see."""
    if geom.contype == 0 and geom.conaffinity == 0:
        geom.group = GROUP_ROBOT_VISUAL
        return
    geom.group = GROUP_ROBOT
    geom.contype, geom.conaffinity = 0, 1
    geom.margin = 0.0
    geom.condim = 1
    if geom.name in LEGS:
        geom.condim, geom.priority = 3, 1
        geom.friction = (0.8, 0.02, 0.01)
        geom.solref = (0.02, 1.0)
        geom.solimp = (0.9, 0.95, 0.001, 0.5, 2.0)
