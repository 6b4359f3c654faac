"""Tiers T0 and T1, for every body: a rigid box of the body's footprint on planar joints (world x, world y, yaw).

Both follow a twist command through the body's identified first-order lag, acceleration limits and turning radius, and
both collide with the scene by the same box. T0 integrates that response kinematically, T1 has a force-limited velocity
servo in MuJoCo follow it, so that an obstacle or a push can hold it back.
"""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.robots.plant import GROUP_ROBOT, BaseState, into_heading
from omnibody.robots.spec import Embodiment

GROUND_CLEARANCE = 0.05  # of the box [m]
SERVO_TIME = 0.02  # time constant of T1's velocity servo [s]; short against any body's lag
FORCE_RESERVE = 2.0  # T1's force limit over mass * acceleration; the first step of a control period asks for 1.8


def respond(embodiment: Embodiment, twist: np.ndarray, command: np.ndarray, dt: float) -> np.ndarray:
    """Heading-frame twist (N, 3) after ``dt`` [s] of following ``command`` (N, 3) from ``twist`` (N, 3).

    Closed form of first-order lag, limited by the acceleration limits; wz stays within |vx| / turning radius, and a
    body that cannot move sideways turns about its turn centre.
    """
    limits = embodiment.limits
    most = np.asarray(limits.acceleration) * dt
    reached = 1.0 - np.exp(-dt / np.asarray(embodiment.lag))
    after = twist + np.clip((limits.clip(command) - twist) * reached, -most, most)
    if limits.min_turning_radius > 0.0:
        turn = np.abs(after[:, 0]) / limits.min_turning_radius
        after[:, 2] = np.clip(after[:, 2], -turn, turn)
    if not limits.holonomic:
        after[:, 1] = -limits.turn_centre * after[:, 2]
    return after


class _Surrogate:
    """What T0 and T1 share: the box on planar joints; qpos = (x, y, yaw), qvel = (vx, vy, wz) in the world."""

    control_dt = 0.02

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """qpos (3,) of the body at rest at a ground pose [m, m, rad]."""
        return np.array([x, y, yaw])

    def base_state(self, qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
        """Pose and velocity of the base from (N, 3) and (N, 3)."""
        zero, yaw = np.zeros(len(qpos)), qpos[:, 2]
        height = np.full(len(qpos), self.embodiment.base_height)
        linear = into_heading(yaw, np.stack((qvel[:, 0], qvel[:, 1], zero), axis=1))
        return BaseState(
            position=np.stack((qpos[:, 0], qpos[:, 1], height), axis=1),
            quaternion=np.stack((np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)), axis=1),
            yaw=np.arctan2(np.sin(yaw), np.cos(yaw)),
            linear=linear,
            angular=np.stack((zero, zero, qvel[:, 2]), axis=1),
        )

    def _box(self, timestep: float) -> mujoco.MjSpec:
        """The footprint's box on its planar joints, without actuators."""
        body = self.embodiment
        spec = mujoco.MjSpec()
        spec.modelname = body.name
        spec.option.timestep = timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        base = spec.worldbody.add_body(name="base", pos=[0.0, 0.0, body.base_height])
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        base.add_joint(name="x", type=slide, axis=[1, 0, 0])
        base.add_joint(name="y", type=slide, axis=[0, 1, 0])
        base.add_joint(name="yaw", type=hinge, axis=[0, 0, 1])
        half_height = 0.5 * (body.footprint.height - GROUND_CLEARANCE)
        base.add_geom(
            name="footprint",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[body.footprint.length / 2, body.footprint.width / 2, half_height],
            pos=[0.0, 0.0, GROUND_CLEARANCE + half_height - body.base_height],
            mass=body.mass,
            contype=0,
            conaffinity=1,
            group=GROUP_ROBOT,
            rgba=[0.2, 0.4, 0.8, 1.0],
        )
        return spec


class KinematicPlant(_Surrogate):
    """T0: no dynamics; the env writes what ``KinematicResponse.integrate`` returns and has MuJoCo look for contacts."""

    tier = "T0"
    timestep = 0.02
    kinematic = True

    def spec(self) -> mujoco.MjSpec:
        """The box, without actuators (nu = 0)."""
        return self._box(self.timestep)

    def controller(self, model: mujoco.MjModel, num: int) -> KinematicResponse:
        """The response of ``num`` bodies; it keeps no state."""
        return KinematicResponse(self.embodiment, self.control_dt)


class KinematicResponse:
    """The motion of T0, for any number of bodies."""

    def __init__(self, embodiment: Embodiment, dt: float) -> None:
        self.embodiment = embodiment
        self.dt = dt

    def reset(self, rows: np.ndarray) -> None:
        """Nothing to forget: qpos and qvel say it all."""

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """No actuators: (N, 0)."""
        return np.zeros((len(twist), 0))

    def integrate(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """qpos and qvel, (N, 3) each, one ``control_dt`` later under twist commands (N, 3); the inputs are kept."""
        before = _heading_twist(qpos, qvel)
        after = respond(self.embodiment, before, twist, self.dt)
        mean = 0.5 * (before + after)
        turned = qpos[:, 2] + mean[:, 2] * self.dt
        # A rigid body moves along an arc: the chord points along the mean heading.
        moved = into_heading(-0.5 * (qpos[:, 2] + turned), mean) * self.dt
        return np.stack((qpos[:, 0] + moved[:, 0], qpos[:, 1] + moved[:, 1], turned), axis=1), into_heading(
            -turned, after
        )


class ServoPlant(_Surrogate):
    """T1: the box driven by force-limited velocity servos on world x, world y and yaw (nu = 3)."""

    tier = "T1"
    timestep = 0.01
    kinematic = False

    def spec(self) -> mujoco.MjSpec:
        """The box with its three servos; ctrl is the world velocity (vx, vy) [m/s] and wz [rad/s]."""
        spec = self._box(self.timestep)
        body, limits = self.embodiment, self.embodiment.limits
        inertia = body.mass * (body.footprint.length**2 + body.footprint.width**2) / 12.0
        # Going round a bend at full speed asks for v * w on top of the acceleration along the path.
        fastest = np.maximum(np.abs(limits.velocity_low), limits.velocity_high)
        linear = float(np.hypot(*limits.acceleration[:2]) + np.hypot(*fastest[:2]) * fastest[2])
        for joint, mass, acceleration in (
            ("x", body.mass, linear),
            ("y", body.mass, linear),
            ("yaw", inertia, limits.acceleration[2]),
        ):
            servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.set_to_velocity(kv=mass / SERVO_TIME)
            most = FORCE_RESERVE * mass * acceleration
            servo.forcelimited = True
            servo.forcerange = [-most, most]
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> ServoController:
        """The controller of ``num`` bodies; it keeps no state."""
        return ServoController(self.embodiment, self.control_dt, self.timestep)


class ServoController:
    """Sets T1's servos so that the measured twist takes the body's response over one control period."""

    def __init__(self, embodiment: Embodiment, dt: float, timestep: float) -> None:
        self.embodiment = embodiment
        self.dt = dt
        # An implicit step leaves 1 / (1 + h / T) of the servo's error; over a period this part is made good.
        self.made_good = 1.0 - (1.0 + timestep / SERVO_TIME) ** -round(dt / timestep)

    def reset(self, rows: np.ndarray) -> None:
        """Nothing to forget: qpos and qvel say it all."""

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """World velocity targets (N, 3) [m/s, m/s, rad/s] for twist commands (N, 3) in the heading frame."""
        after = respond(self.embodiment, _heading_twist(qpos, qvel), twist, self.dt)
        # The wanted heading-frame velocity holds at the end of the period, when the body has turned.
        wanted = into_heading(-(qpos[:, 2] + after[:, 2] * self.dt), after)
        return qvel + (wanted - qvel) / self.made_good


def _heading_twist(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    return into_heading(qpos[:, 2], qvel)
