"""Compiled geometry of a three-joint leg and of a free trunk, for controllers that loop over robots in numba.

Scalars and tuples, no allocation. Numba's disk cache watches only the file of the outermost function: after a change
here, delete ``__pycache__/*.nb?`` beside it (``test_compiled_code_is_this_code`` tells).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

JIT = {"cache": True, "nogil": True, "error_model": "numpy"}
Vector = tuple[float, float, float]


class LegGeometry(NamedTuple):
    """Four legs with equal links: ``hips`` (4, 3) points of the hip-roll axes abreast of the thigh joints, body [m].

    ``offsets`` (4,) sideways from there to the thigh joint; ``upper``, ``lower`` link lengths [m]; ``upper_bend``,
    ``lower_bend`` angles between a link and the vertical at joint angle zero [rad]; ``foot_radius`` [m].
    """

    hips: np.ndarray
    offsets: np.ndarray
    upper: float
    upper_bend: float
    lower: float
    lower_bend: float
    foot_radius: float


class Pose(NamedTuple):
    """One trunk, read from qpos and qvel: rotation rows, velocities in the world."""

    position: Vector
    velocity: Vector
    spin: Vector
    row0: Vector
    row1: Vector
    row2: Vector
    yaw: float
    cos: float
    sin: float


@njit(**JIT)
def cross(a: Vector, b: Vector) -> Vector:
    """Cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(**JIT)
def dot(a: Vector, b: Vector) -> float:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**JIT)
def to_world(pose: Pose, v: Vector) -> Vector:
    """Turn a body vector into the world."""
    return dot(pose.row0, v), dot(pose.row1, v), dot(pose.row2, v)


@njit(**JIT)
def to_body(pose: Pose, v: Vector) -> Vector:
    """Turn a world vector into the body."""
    a, b, c = pose.row0, pose.row1, pose.row2
    return (
        a[0] * v[0] + b[0] * v[1] + c[0] * v[2],
        a[1] * v[0] + b[1] * v[1] + c[1] * v[2],
        a[2] * v[0] + b[2] * v[1] + c[2] * v[2],
    )


@njit(**JIT)
def clip(value: float, limit: float) -> float:
    """Bound to [-limit, limit]."""
    return min(max(value, -limit), limit)


@njit(**JIT)
def read_pose(qpos: np.ndarray, qvel: np.ndarray) -> Pose:
    """Trunk pose and velocity; MuJoCo gives the angular velocity in the body frame."""
    w, x, y, z = qpos[3], qpos[4], qpos[5], qpos[6]
    row0 = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    row1 = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    row2 = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    spin = (qvel[3], qvel[4], qvel[5])
    yaw = math.atan2(row1[0], row0[0])
    return Pose(
        (qpos[0], qpos[1], qpos[2]),
        (qvel[0], qvel[1], qvel[2]),
        (dot(row0, spin), dot(row1, spin), dot(row2, spin)),
        row0,
        row1,
        row2,
        yaw,
        math.cos(yaw),
        math.sin(yaw),
    )


@njit(**JIT)
def forward_kinematics(legs: LegGeometry, leg: int, q: Vector, jacobian: np.ndarray) -> Vector:
    """Foot centre in the body frame [m]; writes its Jacobian (3, 3) with respect to the joint angles."""
    upper, lower = q[1] + legs.upper_bend, q[1] + q[2] + legs.lower_bend
    knee_x, knee_z = legs.lower * math.sin(lower), legs.lower * math.cos(lower)
    x = -legs.upper * math.sin(upper) - knee_x
    down = -legs.upper * math.cos(upper) - knee_z  # in the plane of the leg
    c, s = math.cos(q[0]), math.sin(q[0])
    y, z = c * legs.offsets[leg] - s * down, s * legs.offsets[leg] + c * down
    jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = 0.0, down, -knee_z
    jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = -z, s * x, -s * knee_x
    jacobian[2, 0], jacobian[2, 1], jacobian[2, 2] = y, -c * x, c * knee_x
    return x + legs.hips[leg, 0], y + legs.hips[leg, 1], z + legs.hips[leg, 2]


@njit(**JIT)
def inverse_kinematics(legs: LegGeometry, leg: int, foot: Vector) -> Vector:
    """Joint angles that bring the foot centre to a point of the body frame [m], or as near as the leg goes.

    The knee bends backwards (calf angle negative); its cosine is kept off both ends, where the leg loses a direction.
    """
    x, y, z = foot[0] - legs.hips[leg, 0], foot[1] - legs.hips[leg, 1], foot[2] - legs.hips[leg, 2]
    offset = legs.offsets[leg]
    down = -math.sqrt(max(y * y + z * z - offset * offset, 1e-4))
    hip = math.atan2(z, y) - math.atan2(down, offset)
    hip -= 2 * math.pi * math.floor((hip + math.pi) / (2 * math.pi))
    upper, lower = legs.upper, legs.lower
    cosine = (x * x + down * down - upper * upper - lower * lower) / (2 * upper * lower)
    knee = -math.acos(min(max(cosine, -0.95), 0.985))
    bend = math.atan2(lower * math.sin(knee), upper + lower * math.cos(knee))
    return hip, math.atan2(-x, -down) - legs.upper_bend - bend, knee + legs.upper_bend - legs.lower_bend


@njit(**JIT)
def joint_speeds(jacobian: np.ndarray, velocity: Vector, limit: float) -> Vector:
    """Joint velocities that move the foot with ``velocity``, by Cramer's rule, within ``limit`` [rad/s]."""
    a = (jacobian[0, 0], jacobian[1, 0], jacobian[2, 0])
    b = (jacobian[0, 1], jacobian[1, 1], jacobian[2, 1])
    c = (jacobian[0, 2], jacobian[1, 2], jacobian[2, 2])
    volume = dot(a, cross(b, c))
    volume = math.copysign(max(abs(volume), 1e-5), volume)
    return (
        clip(dot(velocity, cross(b, c)) / volume, limit),
        clip(dot(velocity, cross(c, a)) / volume, limit),
        clip(dot(velocity, cross(a, b)) / volume, limit),
    )


@njit(**JIT)
def solve(matrix: np.ndarray, vector: np.ndarray) -> None:
    """Solve a symmetric positive definite system in place by Cholesky; reads the lower triangle."""
    size = len(vector)
    for j in range(size):
        for k in range(j):
            matrix[j, j] -= matrix[j, k] * matrix[j, k]
        matrix[j, j] = math.sqrt(matrix[j, j])
        for i in range(j + 1, size):
            for k in range(j):
                matrix[i, j] -= matrix[i, k] * matrix[j, k]
            matrix[i, j] /= matrix[j, j]
        for k in range(j):
            vector[j] -= matrix[j, k] * vector[k]
        vector[j] /= matrix[j, j]
    for j in range(size - 1, -1, -1):
        for k in range(j + 1, size):
            vector[j] -= matrix[k, j] * vector[k]
        vector[j] /= matrix[j, j]
