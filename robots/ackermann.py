"""``ackermann``: a small car, rear wheels driven, front wheels steered so that all four roll about one point.

The base origin is the middle of the footprint; the point that cannot move sideways is the rear axle.
"""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits
from omnibody.robots.wheels import (
    TwistRamp,
    WheeledPlant,
    add_angle_servo,
    add_box,
    add_speed_servo,
    add_wheel,
    joint_columns,
)

RADIUS, WIDTH = 0.08, 0.03  # of the wheels [m]
WHEELBASE, TRACK = 0.42, 0.30  # [m]
STEERS = ("steer_left", "steer_right")
DRIVEN = ("rear_left", "rear_right")
SIDES = np.array([TRACK / 2, -TRACK / 2])  # y of the left and the right wheels [m]
STANDSTILL = 1e-3  # commanded speed below which the steering stays where it is [m/s]

EMBODIMENT = Embodiment(
    name="ackermann",
    footprint=Footprint(length=0.66, width=0.44, height=0.26),
    limits=Limits(
        velocity_low=(-0.5, 0.0, -1.0),
        velocity_high=(1.0, 0.0, 1.0),
        acceleration=(1.5, 0.0, 3.0),
        min_turning_radius=0.6,
        turn_centre=-WHEELBASE / 2,
    ),
    camera=CameraMount(position=(0.30, 0.0, 0.14), pitch=0.0),
    base_height=RADIUS,
    mass=25.0,
    lag=(0.078, 0.078, 0.172),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.ackermann:AckermannPlant",
    },
    license="Apache-2.0",
    source="omnibody, from primitives",
)


class AckermannPlant(WheeledPlant):
    """T2 of the car: ctrl = two steering angles [rad], then two rear wheel speeds [rad/s], left before right."""

    num_joints = 6

    def spec(self) -> mujoco.MjSpec:
        """Chassis, two rear wheels with a motor each, two front wheels that roll freely on steered knuckles."""
        spec, base = self.chassis()
        add_box(base, "chassis", (0.66, 0.20, 0.10), (0.0, 0.0, 0.03), 16.0)
        add_box(base, "cabin", (0.40, 0.30, 0.08), (-0.05, 0.0, 0.13), 3.0)
        for steer, wheel, y in zip(STEERS, ("front_left", "front_right"), SIDES, strict=True):
            knuckle = base.add_body(name=steer, pos=[WHEELBASE / 2, y, 0.0])
            knuckle.add_joint(name=steer, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], armature=0.01)
            add_box(knuckle, steer, (0.04, 0.02, 0.04), (0.0, 0.0, 0.0), 0.3)
            add_wheel(knuckle, wheel, (0.0, 0.0, 0.0), RADIUS, WIDTH, 1.35)
            add_angle_servo(spec, steer, stiffness=40.0, damping=2.5, torque=8.0)
        for wheel, y in zip(DRIVEN, SIDES, strict=True):
            add_wheel(base, wheel, (-WHEELBASE / 2, y, 0.0), RADIUS, WIDTH, 1.35)
            add_speed_servo(spec, wheel, gain=2.7, torque=4.0)
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> AckermannDrive:
        """The controller of ``num`` bodies."""
        ramp = TwistRamp(self.embodiment.limits, num, self.control_dt)
        return AckermannDrive(ramp, joint_columns(model, STEERS)[0])


class AckermannDrive:
    """Steering angles and rear wheel speeds of a car."""

    def __init__(self, ramp: TwistRamp, steer_columns: np.ndarray) -> None:
        self.ramp = ramp
        self.steer_columns = steer_columns

    def reset(self, rows: np.ndarray) -> None:
        """Stop the bodies in ``rows``."""
        self.ramp.reset(rows)

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Targets (N, 4) for twist commands (N, 3) in the heading frame; no forward speed, no turning."""
        twist = self.ramp.step(twist)
        forward = twist[:, :1]
        steered = qpos[:, self.steer_columns]
        moving = np.abs(forward) > STANDSTILL
        curvature = np.where(moving, twist[:, 2:] / np.where(moving, forward, 1.0), 0.0)
        wanted = np.arctan(WHEELBASE * curvature / (1.0 - curvature * SIDES))
        # The rear wheels differ by the bend the front wheels make now, not by the one they are turning to.
        bend = np.tan(steered.mean(axis=1, keepdims=True)) / WHEELBASE
        return np.concatenate((np.where(moving, wanted, steered), forward * (1.0 - bend * SIDES) / RADIUS), axis=1)
