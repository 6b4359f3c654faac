"""The two contracts a simulated body fulfils: a plant (its model) and a controller (its low-level control)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np

# Geom groups: a camera sees SCENE and OBJECT, never the robot itself.
GROUP_SCENE, GROUP_OBJECT, GROUP_ROBOT, GROUP_ROBOT_VISUAL = 0, 1, 3, 2


@dataclass(frozen=True)
class BaseState:
    """Where the base is and how it moves.

    ``position`` (N, 3) [m] and ``quaternion`` (N, 4) wxyz in the world; ``yaw`` (N,) [rad];
    ``linear`` (N, 3) [m/s] and ``angular`` (N, 3) [rad/s] in the heading frame.
    """

    position: np.ndarray
    quaternion: np.ndarray
    yaw: np.ndarray
    linear: np.ndarray
    angular: np.ndarray


class Controller(Protocol):
    """Turns twist commands into actuator targets for a batch of N equal bodies, at its plant's ``control_dt``.

    Everything that lives across calls (gait clock, anchors, filters) is per row and cleared by ``reset``.
    """

    def reset(self, rows: np.ndarray) -> None:
        """Forget the past of the bodies in ``rows`` (integer indices)."""

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Actuator targets (N, nu) for twist commands (N, 3) in the heading frame [m/s, m/s, rad/s]."""


@runtime_checkable
class KinematicController(Controller, Protocol):
    """The controller of a kinematic plant: it moves the base itself, as there are no actuators to command."""

    def integrate(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """qpos and qvel, (N, nq) and (N, nv), one ``control_dt`` after twist commands (N, 3) in the heading frame."""


class Plant(Protocol):
    """One body at one fidelity tier.

    T0 integrates the base kinematically with its identified lag, T1 servoes a rigid base with its footprint in MuJoCo,
    T2 has every joint and a walking or driving controller.
    A ``kinematic`` plant has no actuators: its controller is a ``KinematicController``, whose ``integrate`` gives the
    next qpos and qvel to write; MuJoCo is then asked for kinematics and contacts only (``mj_forward``).
    """

    tier: str
    kinematic: bool
    timestep: float  # physics step [s]
    control_dt: float  # controller period [s], a multiple of timestep

    def spec(self) -> mujoco.MjSpec:
        """The body alone, no floor: root body ``base``, geoms in GROUP_ROBOT that collide with the scene only."""

    def controller(self, model: mujoco.MjModel, num: int) -> Controller:
        """A controller for ``num`` bodies of the compiled model."""

    def stand(self, x: float, y: float, yaw: float) -> np.ndarray:
        """qpos (nq,) of the body at rest at a ground pose [m, m, rad]."""

    def base_state(self, qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
        """Pose and velocity of the base from (N, nq) and (N, nv)."""


def yaw_of(quaternion: np.ndarray) -> np.ndarray:
    """Yaw angle [rad] of wxyz quaternions, (..., 4) -> (...)."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices of wxyz quaternions, (..., 4) -> (..., 3, 3); columns are the rotated axes."""
    w, x, y, z = quaternion[..., 0], quaternion[..., 1], quaternion[..., 2], quaternion[..., 3]
    matrix = np.empty((*quaternion.shape[:-1], 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
    )
    matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2] = (
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
    )
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = (
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    return matrix


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors turned by wxyz quaternions, (..., 4), (..., 3) -> (..., 3)."""
    return (rotation_matrix(quaternion) @ vector[..., None])[..., 0]


def into_heading(yaw: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """World vectors (N, 2+) expressed in the heading frame of yaw (N,)."""
    c, s = np.cos(yaw), np.sin(yaw)
    out = np.array(vector, copy=True)
    out[..., 0] = c * vector[..., 0] + s * vector[..., 1]
    out[..., 1] = -s * vector[..., 0] + c * vector[..., 1]
    return out


def free_base_state(qpos: np.ndarray, qvel: np.ndarray) -> BaseState:
    """``Plant.base_state`` of a body whose first joint is free (MuJoCo: world linear, body angular velocity)."""
    quaternion = qpos[:, 3:7]
    yaw = yaw_of(quaternion)
    angular_world = rotate(quaternion, qvel[:, 3:6])
    return BaseState(qpos[:, :3], quaternion, yaw, into_heading(yaw, qvel[:, :3]), into_heading(yaw, angular_world))
