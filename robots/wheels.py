"""Parts shared by the wheeled bodies at tier T2: a chassis on a free joint, wheels on servos, and their plant.

Tyres are round and touch the floor in one patch with Coulomb friction: they slip when a motor asks for more than they
can hold, and resist being turned on the spot.
"""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL, BaseState, free_base_state
from omnibody.robots.spec import Embodiment, Limits, Vector3

WHEEL_FRICTION = (0.8, 0.005, 0.0001)  # sliding, torsional (2/3 of the patch's radius) [m], rolling (unused) [m]
ROTOR_INERTIA = 0.01  # of our bodies' geared motors, seen at the wheel [kg m^2]
BODY_COLOUR, WHEEL_COLOUR = (0.2, 0.4, 0.8, 1.0), (0.1, 0.1, 0.1, 1.0)


class WheeledPlant:
    """What the wheeled bodies' T2 plants share; each adds ``spec`` and ``controller``. qpos = (free joint, joints)."""

    tier = "T2"
    kinematic = False
    timestep = 0.005
    control_dt = 0.02
    num_joints = 0

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """qpos (7 + num_joints,) of the body at rest, wheels straight, at a ground pose [m, m, rad]."""
        pose = [x, y, self.embodiment.base_height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        return np.concatenate((pose, np.zeros(self.num_joints)))

    def base_state(self, qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
        """Pose and velocity of the base from (N, nq) and (N, nv)."""
        return free_base_state(qpos, qvel)

    def chassis(self) -> tuple[mujoco.MjSpec, mujoco.MjsBody]:
        """An empty spec with the body ``base`` on a free joint at its standing height."""
        spec = mujoco.MjSpec()
        spec.modelname = self.embodiment.name
        spec.option.timestep = self.timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        base = spec.worldbody.add_body(name="base", pos=[0.0, 0.0, self.embodiment.base_height])
        base.add_freejoint(name="root")
        return spec, base


def add_box(body: mujoco.MjsBody, name: str, size: Vector3, centre: Vector3, mass: float) -> None:
    """A box of full ``size`` [m] at ``centre`` [m] in the body's frame; it weighs ``mass`` [kg] and can collide."""
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[s / 2 for s in size], pos=centre, mass=mass,
        contype=0, conaffinity=1, group=GROUP_ROBOT, rgba=BODY_COLOUR,
    )  # fmt: skip


def add_wheel(body: mujoco.MjsBody, name: str, centre: Vector3, radius: float, width: float, mass: float) -> None:
    """A wheel rolling along x: body, hinge and geom called ``name``, axle along +y, so that +speed drives forward."""
    wheel = body.add_body(name=name, pos=centre)
    wheel.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 1, 0], damping=0.01)
    # Priority makes the tyre's friction count, whatever the floor's.
    wheel.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[radius, width / 2, radius], mass=mass, contype=0,
        conaffinity=1, condim=4, priority=1, friction=WHEEL_FRICTION, group=GROUP_ROBOT, rgba=WHEEL_COLOUR,
    )  # fmt: skip
    # A spoke, to see it turn.
    wheel.add_geom(
        name=f"{name}_spoke", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.7 * radius, 0.4 * width, 0.1 * radius], mass=0,
        contype=0, conaffinity=0, group=GROUP_ROBOT_VISUAL, rgba=[0.9, 0.9, 0.9, 1.0],
    )  # fmt: skip


def add_speed_servo(
    spec: mujoco.MjSpec, joint: str, gain: float, torque: float, rotor_inertia: float = ROTOR_INERTIA
) -> None:
    """A motor that turns ``joint`` at ctrl [rad/s] with ``gain`` [Nm s/rad] and at most ``torque`` [Nm]."""
    spec.joint(joint).armature = rotor_inertia
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_velocity(kv=gain)
    servo.forcelimited, servo.forcerange = True, [-torque, torque]


def add_angle_servo(spec: mujoco.MjSpec, joint: str, stiffness: float, damping: float, torque: float) -> None:
    """A motor that turns ``joint`` to ctrl [rad] with PD gains [Nm/rad, Nm s/rad] and at most ``torque`` [Nm]."""
    servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=stiffness, kv=damping)
    servo.forcelimited, servo.forcerange = True, [-torque, torque]


def joint_columns(model: mujoco.MjModel, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of qpos and of qvel that hold the named one-degree joints."""
    joints = [model.joint(name).id for name in names]
    return model.jnt_qposadr[joints], model.jnt_dofadr[joints]


class TwistRamp:
    """Commands of N bodies on their way to the motors: within the limits, and changing no faster than they allow."""

    def __init__(self, limits: Limits, num: int, dt: float) -> None:
        self.limits = limits
        self.most = np.asarray(limits.acceleration) * dt
        self.twist = np.zeros((num, 3))

    def reset(self, rows: np.ndarray) -> None:
        """The bodies in ``rows`` (integer indices) stand still."""
        self.twist[rows] = 0.0

    def step(self, twist: np.ndarray) -> np.ndarray:
        """The next twist (N, 3) to ask of the motors on the way to the command ``twist`` (N, 3)."""
        change = np.minimum(np.maximum(self.limits.clip(twist) - self.twist, -self.most), self.most)
        self.twist = self.limits.clip(self.twist + change)
        return self.twist
