"""A round tip that an arm moves over a table: the body of block push, on two rails with a position servo each.

Size and workspace are those of the xArm with a cylindrical end effector of Florence et al.'s block pushing
(arXiv 2109.00137); in place of the arm there is the servo of its tip.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from omnibody.robots.plant import GROUP_ROBOT
from omnibody.robots.spec import Field


@dataclass(frozen=True)
class PlanarTip:
    """A `Body` without a base: a cylinder of ``radius``, ``length`` [m] and ``mass`` [kg], its middle ``height`` [m]
    above the table, whose servo pulls with ``stiffness`` [N/m], damped critically, by at most ``force`` [N].

    The action moves the commanded position, by at most ``reach`` [m] each way, within ``low`` ... ``high`` (x, y) [m].
    """

    name: str
    radius: float
    length: float
    height: float
    mass: float
    stiffness: float
    force: float
    reach: float
    low: tuple[float, float]
    high: tuple[float, float]
    license: str
    source: str
    rate_hz: float = 10.0
    best_tier: str = "3D"

    @property
    def action(self) -> Field:
        """How far the commanded position moves."""
        return Field((2,), "float32", "m", (-self.reach,), (self.reach,), ("x", "y"))

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add body, joints (``<name>/x``, ``<name>/y``) and, of the same names, actuators; qpos is the position."""
        body = spec.worldbody.add_body(name=self.name, pos=[0.0, 0.0, self.height])
        for axis, direction, low, high in zip("xy", ((1, 0, 0), (0, 1, 0)), self.low, self.high, strict=True):
            name = f"{self.name}/{axis}"
            body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction)
            actuator = spec.add_actuator(
                name=name,
                target=name,
                trntype=mujoco.mjtTrn.mjTRN_JOINT,
                ctrlrange=[low, high],
                forcerange=[-self.force, self.force],
            )
            actuator.set_to_position(kp=self.stiffness, dampratio=1.0)
        body.add_geom(
            name=self.name,
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[self.radius, self.length / 2, 0.0],
            mass=self.mass,
            group=GROUP_ROBOT,
            rgba=[0.0, 0.45, 0.7, 1.0],
        )


TIP = PlanarTip(
    name="tip",
    radius=0.01,
    length=0.05,
    height=0.035,
    mass=0.5,
    stiffness=800.0,
    force=40.0,
    reach=0.1,
    low=(0.15, -0.5),
    high=(0.7, 0.5),
    license="Apache-2.0",
    source="of Omnibody's own, built of primitives",
)
