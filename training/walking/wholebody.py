"""Whole-body torque control of the G1 on one foot: weighted least-squares inverse dynamics.

Unknowns are the accelerations of all degrees of freedom and the wrench under the stance foot. It is the slow, exact
teacher from which ``gait.py`` records its table; nothing at run time needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np

from omnibody.robots.g1 import EMBODIMENT, FEET, FOOT_RADIUS, MOTORS, STAND, G1Plant
from omnibody.robots.g1_walk import NUM_LEG
from omnibody.training.walking.env import stripped_model

SOLE = np.array([0.035, 0.0, -0.025 - FOOT_RADIUS])  # centre of the sole in the ankle roll link [m]
POSTURE_LEG = (-0.312, 0.0, 0.0, 0.669, -0.363, 0.0)  # the angles the redundant joints lean to [rad]
KNEES = np.array([3, 9])
KNEE_LEAST = 0.35  # keeps off the straight leg, where the Jacobian is singular [rad]
FRICTION = 0.6
SOLE_HALF_LENGTH, SOLE_HALF_WIDTH = 0.072, 0.019  # for the centre of pressure [m]
TWIST_FRICTION = 0.06  # torsional [m]


@dataclass
class Tasks:
    """Rows of a least-squares problem over (accelerations (nv,), stance wrench (6,))."""

    num_unknowns: int
    rows: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)

    def add(self, matrix: np.ndarray, target: np.ndarray, weight: np.ndarray | float, column: int = 0) -> None:
        """Ask for ``matrix @ unknowns[column:column+k] = target``; ``weight`` multiplies the squared error."""
        row = np.zeros((len(matrix), self.num_unknowns))
        row[:, column : column + matrix.shape[1]] = matrix
        root = np.sqrt(np.broadcast_to(weight, len(matrix)))
        self.rows.append(row * root[:, None])
        self.targets.append(target * root)

    def solve(self) -> np.ndarray:
        """The least-squares solution."""
        matrix, target = np.concatenate(self.rows), np.concatenate(self.targets)
        normal = matrix.T @ matrix + 1e-8 * np.eye(self.num_unknowns)
        return np.linalg.solve(normal, matrix.T @ target)


def rotation_between(current: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """World rotation vector (3,) [rad] that turns ``current`` (3, 3) into the quaternion ``wanted`` (4,)."""
    quaternion, difference, vector = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, current.ravel())
    mujoco.mju_mulQuat(difference, wanted, quaternion * np.array([1.0, -1.0, -1.0, -1.0]))
    mujoco.mju_quat2Vel(vector, difference, 1.0)
    return vector


def yaw_quaternion(yaw: float) -> np.ndarray:
    """Quaternion (4,) of a turn about z."""
    return np.array([np.cos(0.5 * yaw), 0.0, 0.0, np.sin(0.5 * yaw)])


class WholeBody:
    """The G1 in MuJoCo under direct joint torques, with the kinematics that walking asks for."""

    def __init__(self, timestep: float) -> None:
        self.model = stripped_model()
        self.model.opt.timestep = timestep
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION  # torques replace the servos
        self.data = mujoco.MjData(self.model)
        self.base = self.model.body("base").id
        self.feet = [self.model.body(foot).id for foot in FEET]
        self.mass = float(self.model.body_mass.sum())
        self.torque_limit = np.array([motor.torque_limit for motor in MOTORS.values()])
        self.posture = STAND.copy()
        self.posture[:NUM_LEG] = POSTURE_LEG * 2

    def reset(self) -> None:
        """Stand at the origin."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = G1Plant(EMBODIMENT).stand(0.0, 0.0, 0.0)
        mujoco.mj_forward(self.model, self.data)

    def sole(self, foot: int) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the sole's centre in the world."""
        rotation = self.data.xmat[self.feet[foot]].reshape(3, 3)
        return self.data.xpos[self.feet[foot]] + rotation @ SOLE, rotation

    def jacobian(self, foot: int) -> tuple[np.ndarray, np.ndarray]:
        """Sole Jacobian (6, nv), linear over angular, and its drift acceleration (6,)."""
        point, body, nv = self.sole(foot)[0], self.feet[foot], self.model.nv
        matrix, rate = np.zeros((6, nv)), np.zeros((6, nv))
        mujoco.mj_jac(self.model, self.data, matrix[:3], matrix[3:], point, body)
        mujoco.mj_jacDot(self.model, self.data, rate[:3], rate[3:], point, body)
        return matrix, rate @ self.data.qvel

    def com(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centre of mass: position (3,), velocity (3,), Jacobian (3, nv)."""
        matrix = np.zeros((3, self.model.nv))
        mujoco.mj_jacSubtreeCom(self.model, self.data, matrix, self.base)
        return self.data.subtree_com[self.base].copy(), matrix @ self.data.qvel, matrix

    def touching(self, foot: int) -> bool:
        """Whether the foot touches anything."""
        geoms = self.data.contact.geom[: self.data.ncon]
        return bool((self.model.geom_bodyid[geoms] == self.feet[foot]).any())

    def torques(self, tasks: Tasks, stance: int) -> np.ndarray:
        """Joint torques (29,) for motion tasks; adds dynamics, stance, posture and the limits of the sole."""
        data, nv = self.data, self.model.nv
        inertia = np.zeros((nv, nv))
        mujoco.mj_fullM(self.model, data, inertia)
        bias = data.qfrc_bias - data.qfrc_passive
        matrix, drift = self.jacobian(stance)
        tasks.add(np.hstack([inertia[:6], -matrix[:, :6].T]), -bias[:6], 400.0)
        tasks.add(matrix, -drift - 20.0 * (matrix @ data.qvel), 9000.0)
        self._add_posture(tasks)
        weight = np.array([0.0, 0.0, self.mass * 9.81, 0.0, 0.0, 0.0])
        tasks.add(np.eye(6), weight, 4e-6, column=nv)
        solution = self._within_sole(tasks, tasks.solve(), self.sole(stance)[1])
        torque = inertia[6:] @ solution[:nv] + bias[6:] - matrix[:, 6:].T @ solution[nv:]
        return np.clip(torque, -self.torque_limit, self.torque_limit)

    def _add_posture(self, tasks: Tasks) -> None:
        angle, rate = self.data.qpos[7:], self.data.qvel[6:]
        upper = 100.0 * (self.posture - angle)[NUM_LEG:] - 16.0 * rate[NUM_LEG:]
        tasks.add(np.eye(len(upper)), upper, 0.1, column=6 + NUM_LEG)
        legs = 50.0 * (self.posture - angle)[:NUM_LEG] - 10.0 * rate[:NUM_LEG]
        weight = np.full(NUM_LEG, 0.02)
        weight[[2, 8]] = 0.6  # hip yaw would wander
        straight = np.clip((KNEE_LEAST - angle[KNEES]) / 0.2, 0.0, 1.0)
        legs[KNEES] += straight * (300.0 * (KNEE_LEAST - angle[KNEES]) - 15.0 * rate[KNEES])
        weight[KNEES] += 5.0 * straight
        tasks.add(np.eye(NUM_LEG), legs, weight, column=6)

    def _within_sole(self, tasks: Tasks, solution: np.ndarray, foot: np.ndarray) -> np.ndarray:
        """Solve again with the parts of the wrench that leave friction or the sole pinned to their bounds."""
        nv = self.model.nv
        turn = np.kron(np.eye(2), foot.T)  # wrench from world to foot frame
        wrench = turn @ solution[nv:]
        normal = np.clip(wrench[2], 20.0, 1200.0)
        bound = normal * np.array([FRICTION, FRICTION, np.inf, SOLE_HALF_WIDTH, SOLE_HALF_LENGTH, TWIST_FRICTION])
        wanted = np.clip(wrench, -bound, bound)
        wanted[2] = normal
        broken = np.abs(wanted - wrench) > 1e-6
        if not broken.any():
            return solution
        tasks.add(turn[broken], wanted[broken], 1e4, column=nv)
        return tasks.solve()
