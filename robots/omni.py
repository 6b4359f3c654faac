"""``omni``: a holonomic base on four swerve modules, each a driven wheel under its own steering motor.

Swerve rather than omnidirectional wheels: it is holonomic by steering alone, which contact friction models honestly.
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

RADIUS, WIDTH = 0.06, 0.03  # of the wheels [m]
REACH = 0.18  # of a module from the middle, along x and along y [m]
MODULES = {
    "front_left": (REACH, REACH),
    "front_right": (REACH, -REACH),
    "rear_left": (-REACH, REACH),
    "rear_right": (-REACH, -REACH),
}
STEERS = tuple(f"steer_{name}" for name in MODULES)
WHEELS = tuple(f"wheel_{name}" for name in MODULES)
STANDSTILL = 1e-3  # wheel speed below which a module keeps its angle [m/s]

EMBODIMENT = Embodiment(
    name="omni",
    footprint=Footprint(length=0.50, width=0.50, height=0.70),
    limits=Limits(velocity_low=(-0.8, -0.8, -1.0), velocity_high=(0.8, 0.8, 1.0), acceleration=(1.5, 1.5, 3.0)),
    camera=CameraMount(position=(0.22, 0.0, 0.54), pitch=0.2),
    base_height=RADIUS,
    mass=50.0,
    lag=(0.092, 0.093, 0.070),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.omni:OmniPlant",
    },
    license="Apache-2.0",
    source="omnibody, from primitives",
)


class OmniPlant(WheeledPlant):
    """T2 of the omni base: ctrl = four steering angles [rad], then four wheel speeds [rad/s], as in MODULES."""

    num_joints = 8

    def spec(self) -> mujoco.MjSpec:
        """A tall box, heavy at the bottom, on its four modules."""
        spec, base = self.chassis()
        add_box(base, "chassis", (0.50, 0.50, 0.18), (0.0, 0.0, 0.11), 32.0)
        add_box(base, "tower", (0.36, 0.36, 0.44), (0.0, 0.0, 0.42), 10.0)
        for (x, y), steer, wheel in zip(MODULES.values(), STEERS, WHEELS, strict=True):
            fork = base.add_body(name=steer, pos=[x, y, 0.0])
            fork.add_joint(name=steer, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], armature=0.01)
            add_box(fork, steer, (0.05, 0.05, 0.06), (0.0, 0.0, 0.05), 0.8)
            add_wheel(fork, wheel, (0.0, 0.0, 0.0), RADIUS, WIDTH, 1.2)
        for steer in STEERS:
            add_angle_servo(spec, steer, stiffness=40.0, damping=1.5, torque=8.0)
        for wheel in WHEELS:
            add_speed_servo(spec, wheel, gain=1.4, torque=2.8)
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> SwerveDrive:
        """The controller of ``num`` bodies."""
        ramp = TwistRamp(self.embodiment.limits, num, self.control_dt)
        return SwerveDrive(ramp, joint_columns(model, STEERS)[0])


class SwerveDrive:
    """Steering angles and wheel speeds of the four modules."""

    def __init__(self, ramp: TwistRamp, steer_columns: np.ndarray) -> None:
        self.ramp = ramp
        self.steer_columns = steer_columns
        self.x, self.y = np.array(list(MODULES.values())).T

    def reset(self, rows: np.ndarray) -> None:
        """Stop the bodies in ``rows``."""
        self.ramp.reset(rows)

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Targets (N, 8) for twist commands (N, 3) in the heading frame.

        A module turns the shorter way to the wanted line and drives backwards on it if need be; its speed is the
        part of the wanted velocity that lies along the wheel now.
        """
        twist = self.ramp.step(twist)
        angle = qpos[:, self.steer_columns]
        along_x = twist[:, :1] - twist[:, 2:] * self.y
        along_y = twist[:, 1:2] + twist[:, 2:] * self.x
        ahead = along_x * np.cos(angle) + along_y * np.sin(angle)
        aside = along_y * np.cos(angle) - along_x * np.sin(angle)
        moving = np.abs(ahead) + np.abs(aside) > STANDSTILL
        turn = np.where(moving, np.arctan(aside / np.where(ahead == 0.0, 1e-9, ahead)), 0.0)
        return np.concatenate((angle + turn, ahead / RADIUS), axis=1)
