"""A point gripper on three slides: the body of the desk, moved by servos and told when to hold what is near it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from omnibody.robots.spec import Field, Vector3

SITE = "gripper"  # the point that holds
AXES = ("x", "y", "z")


@dataclass(frozen=True)
class PointGripper:
    """A `Body` without a base that moves within ``low`` and ``high`` [m] and holds what is within ``reach`` [m] of it.

    ``mass`` [kg] and ``stiffness`` [N/m] of each slide's servo, which is critically damped. The action is how far from
    where it is (x, y, z) [m] the servos aim, at most ``stride`` each way, and the grasp flag: above 0.5 it holds.
    """

    name: str
    low: Vector3
    high: Vector3
    reach: float
    stride: float
    mass: float
    stiffness: float
    license: str
    source: str
    rate_hz: float = 10.0
    best_tier: str = "3D"

    @property
    def action(self) -> Field:
        """The displacement and the grasp flag."""
        return Field(
            (4,), "float32", "m,m,m,1", (*3 * (-self.stride,), 0.0), (*3 * (self.stride,), 1.0), (*AXES, "grasp")
        )

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the gripper with its joints and servos, three each; joints at 0 put it at the origin."""
        body = spec.worldbody.add_body(name=self.name)
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.015, 0, 0], mass=self.mass)
        body.add_site(name=SITE)
        for index, axis in enumerate(AXES):
            along = [float(index == other) for other in range(3)]
            joint = body.add_joint(name=axis, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=along)
            servo = spec.add_actuator(name=axis, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.set_to_position(kp=self.stiffness, dampratio=1.0)


GRIPPER = PointGripper(
    name="gripper",
    low=(-0.5, -0.1, 0.0),
    high=(0.5, 0.55, 0.55),
    reach=0.04,
    stride=0.12,
    mass=0.5,
    stiffness=200.0,
    license="Apache-2.0",
    source="Omnibody",
)
