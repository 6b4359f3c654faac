"""Rethink's Sawyer arm with a two-finger gripper, as Meta-World moves it: by its hand, not by its joints.

A weld draws the hand after a point that actions displace; the gripper always points down. The model itself is part of
the package metaworld and is read from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from omnibody.robots.spec import Field


@dataclass(frozen=True)
class DrawnArm:
    """A `Body` without a base whose hand is drawn by at most ``stride`` [m] an action along each axis.

    The action is that displacement as a share of ``stride`` (x to the right, y away from the robot's base, z up) and
    the force of the fingers as a share of their greatest, from -1, opening, to 1, closing.
    """

    name: str
    stride: float
    rate_hz: float
    license: str
    source: str
    best_tier: str = "3D"

    @property
    def action(self) -> Field:
        """The displacement and the grip."""
        return Field((4,), "float32", "1", (-1.0,), (1.0,), ("x", "y", "z", "grip"))


SAWYER = DrawnArm(
    name="sawyer",
    stride=0.01,
    rate_hz=80.0,
    license="MIT",
    source="metaworld 3.1.1",
)
