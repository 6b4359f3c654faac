"""Unitree G1 (29 joints): the body, its motors and its plant. Its walking controller is in ``g1_walk.py``.

Model: ``g1.xml`` of the mjlab wheel (Apache-2.0, after Unitree's g1_29dof_rev_1_0). Each motor's rotor inertia is
reflected through its two-stage gear, and the position gains follow from it as in mjlab's ``g1_constants.py``.
It walks well on foot friction 0.8; at 0.5 it falls too often under pushes (figures in the checkpoint's meta.json).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from omnibody.robots import assets
from omnibody.robots.g1_walk import ARM_POSE, STAND_LEGS, STAND_WAIST, G1Walk
from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL, BaseState, Controller, free_base_state
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

NATURAL_FREQUENCY = 10.0 * 2.0 * math.pi  # of every position servo [rad/s]
DAMPING_RATIO = 2.0
FOOT_FRICTION = 0.8
FOOT_RADIUS = 0.01  # of the contact spheres [m]
FOOT_SPHERES = ((0.12, 0.026, -0.025), (0.12, -0.026, -0.025), (-0.05, 0.022, -0.025), (-0.05, -0.022, -0.025))
FEET = ("left_ankle_roll_link", "right_ankle_roll_link")


@dataclass(frozen=True)
class Motor:
    """An electric motor behind a two-stage planetary gear; ``count`` of them share one joint.

    ``rotor_inertias`` [kg m^2] are those of rotor, first and second stage; ``gears`` the stage ratios.
    """

    rotor_inertias: tuple[float, float, float]
    gears: tuple[float, float]
    torque: float
    count: int = 1

    @property
    def armature(self) -> float:
        """Inertia reflected to the joint [kg m^2]."""
        rotor, first, second = self.rotor_inertias
        one, two = self.gears
        return self.count * (rotor * (one * two) ** 2 + first * two**2 + second)

    @property
    def stiffness(self) -> float:
        """Position gain [Nm/rad]."""
        return self.armature * NATURAL_FREQUENCY**2

    @property
    def damping(self) -> float:
        """Velocity gain [Nm s/rad]."""
        return 2.0 * DAMPING_RATIO * self.armature * NATURAL_FREQUENCY

    @property
    def torque_limit(self) -> float:
        """Most torque on the joint [Nm]."""
        return self.count * self.torque


_5020 = ((0.139e-4, 0.017e-4, 0.169e-4), (1 + 46 / 18, 1 + 56 / 16))
SMALL = Motor(*_5020, torque=25.0)
PAIR = Motor(*_5020, torque=25.0, count=2)
LARGE_14 = Motor((0.489e-4, 0.098e-4, 0.533e-4), (4.5, 1 + 48 / 22), torque=88.0)
LARGE_22 = Motor((0.489e-4, 0.109e-4, 0.738e-4), (4.5, 5.0), torque=139.0)
WRIST = Motor((0.068e-4, 0.0, 0.0), (5.0, 5.0), torque=5.0)

LEG = {
    "hip_pitch": LARGE_14, "hip_roll": LARGE_22, "hip_yaw": LARGE_14,
    "knee": LARGE_22, "ankle_pitch": PAIR, "ankle_roll": PAIR,
}  # fmt: skip
WAIST = {"waist_yaw": LARGE_14, "waist_roll": PAIR, "waist_pitch": PAIR}
ARM = {
    "shoulder_pitch": SMALL, "shoulder_roll": SMALL, "shoulder_yaw": SMALL,
    "elbow": SMALL, "wrist_roll": SMALL, "wrist_pitch": WRIST, "wrist_yaw": WRIST,
}  # fmt: skip
MOTORS: dict[str, Motor] = (
    {f"{side}_{joint}": motor for side in ("left", "right") for joint, motor in LEG.items()}
    | WAIST
    | {f"{side}_{joint}": motor for side in ("left", "right") for joint, motor in ARM.items()}
)
STAND = np.concatenate([STAND_LEGS, STAND_WAIST, ARM_POSE])
STAND_HEIGHT = 0.7354  # of the pelvis origin over the ground in the pose STAND [m]
CHECKPOINT = Path(__file__).resolve().parents[1] / "assets" / "checkpoints" / "g1-walk"

EMBODIMENT = Embodiment(
    name="g1",
    footprint=Footprint(length=0.50, width=0.60, height=1.26),
    limits=Limits((-0.3, -0.25, -0.6), (0.8, 0.25, 0.6), (1.2, 1.0, 3.0)),
    # On the head, in front of it, looking down at the ground 1 to 4 m ahead.
    camera=CameraMount(position=(0.10, 0.0, 0.45), pitch=0.35),
    base_height=STAND_HEIGHT,
    mass=33.34,
    lag=(0.5, 0.02, 0.02),  # of the velocity averaged over a gait period; vy and wz follow the limit of acceleration
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.g1:G1Plant",
    },
    license="Apache-2.0",
    source="mjlab 1.6.0 (Unitree g1_29dof_rev_1_0)",
    mjcf="mjlab:asset_zoo/robots/unitree_g1/xmls/g1.xml",
)


class G1Plant:
    """G1 with every joint, on position servos, walked by a residual policy over a gait table (tier T2)."""

    tier = "T2"
    kinematic = False
    timestep = 0.005
    control_dt = 0.02

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment

    def spec(self) -> mujoco.MjSpec:
        """See ``Plant.spec``: the wheel's model with our servos and four contact spheres under each foot."""
        path = assets.resolve(self.embodiment.mjcf)
        spec = mujoco.MjSpec.from_file(str(path))
        for parts in (spec.actuators, spec.keys, spec.sensors, spec.sites, spec.excludes, spec.cameras, spec.lights):
            for part in list(parts):
                spec.delete(part)
        for mesh in spec.meshes:  # absolute, so that the spec can be attached to a scene from another folder
            mesh.file = str(path.parent / spec.meshdir / mesh.file)
        spec.option.timestep = self.timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        base = spec.body("pelvis")
        base.name, base.pos = "base", (0.0, 0.0, STAND_HEIGHT)
        _prepare_contacts(spec)
        for name, motor in MOTORS.items():
            _add_servo(spec, name, motor)
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> Controller:
        """See ``Plant.controller``; reads the trained weights from ``CHECKPOINT``."""
        return G1Walk.load(CHECKPOINT, num, self.embodiment.limits.acceleration)

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """See ``Plant.stand``."""
        base = [x, y, STAND_HEIGHT, math.cos(0.5 * yaw), 0.0, 0.0, math.sin(0.5 * yaw)]
        return np.concatenate([base, STAND])

    def base_state(self, qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
        """See ``Plant.base_state``."""
        return free_base_state(qpos, qvel)


def _prepare_contacts(spec: mujoco.MjSpec) -> None:
    """Collide with the scene only; spheres replace the foot capsules, the rest of the body slides without friction."""
    for geom in list(spec.geoms):
        if geom.contype == 0 and geom.conaffinity == 0:
            geom.group = GROUP_ROBOT_VISUAL
        elif "foot" in geom.name:
            spec.delete(geom)
        else:
            geom.contype, geom.conaffinity, geom.condim, geom.group = 0, 1, 1, GROUP_ROBOT
    for foot in FEET:
        for index, position in enumerate(FOOT_SPHERES):
            spec.body(foot).add_geom(
                name=f"{foot}_contact_{index}",
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                size=[FOOT_RADIUS, 0.0, 0.0],
                pos=position,
                mass=0.0,
                group=GROUP_ROBOT,
                contype=0,
                conaffinity=1,
                condim=3,
                friction=[FOOT_FRICTION, 0.02, 0.01],
                priority=1,
            )


def _add_servo(spec: mujoco.MjSpec, name: str, motor: Motor) -> None:
    """Position servo on a joint: torque = stiffness (target - q) - damping q', limited."""
    joint = spec.joint(f"{name}_joint")
    joint.armature = motor.armature
    spec.add_actuator(
        name=name,
        target=joint.name,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[motor.stiffness] + [0.0] * 9,
        biasprm=[0.0, -motor.stiffness, -motor.damping] + [0.0] * 7,
        forcelimited=True,
        forcerange=[-motor.torque_limit, motor.torque_limit],
        ctrllimited=False,
    )
