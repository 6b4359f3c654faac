"""``carrier``: a differential-drive load carrier, two driven wheels in the middle and a ball caster at either end.

The imitation base is trained on this body: camera level, 0.35 m above the floor.
"""

from __future__ import annotations

import mujoco
import numpy as np

from omnibody.robots.plant import GROUP_ROBOT
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits
from omnibody.robots.wheels import TwistRamp, WheeledPlant, add_box, add_speed_servo, add_wheel

RADIUS, WIDTH, TRACK = 0.1, 0.045, 0.4  # of the driven wheels, and between their middles [m]
CASTER_RADIUS = 0.04
CASTER_GAP = 0.003  # of the front caster, which only catches the nod when braking [m]
WHEELS = ("wheel_left", "wheel_right")

EMBODIMENT = Embodiment(
    name="carrier",
    footprint=Footprint(length=0.60, width=0.45, height=0.40),
    limits=Limits(velocity_low=(-0.3, 0.0, -1.0), velocity_high=(1.0, 0.0, 1.0), acceleration=(1.5, 0.0, 3.0)),
    camera=CameraMount(position=(0.28, 0.0, 0.25), pitch=0.0),
    base_height=RADIUS,
    mass=39.0,
    lag=(0.061, 0.061, 0.052),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.carrier:CarrierPlant",
    },
    license="Apache-2.0",
    source="omnibody, from primitives",
)


class CarrierPlant(WheeledPlant):
    """T2 of the carrier."""

    num_joints = 2

    def spec(self) -> mujoco.MjSpec:
        """Chassis with the battery behind the axle, so that it rests on the wheels and the rear caster."""
        spec, base = self.chassis()
        add_box(base, "chassis", (0.60, 0.34, 0.33), (0.0, 0.0, 0.135), 20.0)
        add_box(base, "battery", (0.25, 0.30, 0.12), (-0.09, 0.0, 0.04), 14.0)
        for name, x, gap in (("caster_front", 0.24, CASTER_GAP), ("caster_rear", -0.24, 0.0)):
            base.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[CASTER_RADIUS, 0, 0], mass=0.5,
                pos=[x, 0.0, CASTER_RADIUS - RADIUS + gap], contype=0, conaffinity=1, condim=1, priority=1,
                group=GROUP_ROBOT,
            )  # fmt: skip
        for name, side in zip(WHEELS, (1.0, -1.0), strict=True):
            add_wheel(base, name, (0.0, side * TRACK / 2, 0.0), RADIUS, WIDTH, 2.0)
            add_speed_servo(spec, name, gain=5.4, torque=6.4)
        return spec

    def controller(self, model: mujoco.MjModel, num: int) -> DifferentialDrive:
        """The controller of ``num`` bodies."""
        ramp = TwistRamp(self.embodiment.limits, num, self.control_dt)
        return DifferentialDrive(ramp, np.full(2, RADIUS), TRACK)


class DifferentialDrive:
    """Wheel speeds (left, right) of a body with two driven wheels.

    ``radius`` (2,) [m] is negative for a wheel whose joint turns about -y; ``track`` [m] lies between the wheels.
    """

    def __init__(self, ramp: TwistRamp, radius: np.ndarray, track: float) -> None:
        self.ramp = ramp
        self.radius = radius
        self.track = track

    def reset(self, rows: np.ndarray) -> None:
        """Stop the bodies in ``rows``."""
        self.ramp.reset(rows)

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Wheel speeds (N, 2) [rad/s] for twist commands (N, 3) in the heading frame."""
        twist = self.ramp.step(twist)
        forward, turn = twist[:, 0], twist[:, 2] * (self.track / 2)
        return np.stack((forward - turn, forward + turn), axis=1) / self.radius
