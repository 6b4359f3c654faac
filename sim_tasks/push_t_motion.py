"""Planar motions of recorded Push-T: the same episode at another goal, or in the mirror.

On an endless table both are exact: the T is its own mirror image, and pushing does not know where on the table it is.
Walls do not move along, so what comes too near to them is cut off, unless the motion maps the table to itself, as the
mirror about the axis of the canonical goal does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from omnibody.sim_tasks.push_t import Pose, recorded_state

Columns = dict[str, np.ndarray]
CLEAR_TOOL, CLEAR_TEE = 20.0, 60.0  # least distance of the tool and of the T's origin to the table's edge [px]
SHORTEST = 20  # steps that are worth keeping


@dataclass(frozen=True)
class Motion:
    """Points p -> ``matrix`` (2, 2) p + ``offset`` (2,); angles of the T a -> ``turn`` + ``sense`` a."""

    matrix: np.ndarray
    offset: np.ndarray
    turn: float
    sense: float

    def points(self, values: np.ndarray) -> np.ndarray:
        """Positions (L, 2) [px] after the motion."""
        return values @ self.matrix.T + self.offset

    def keeps(self, size: float) -> bool:
        """Whether a table of ``size`` x ``size`` [px] is mapped to itself."""
        corners = np.array([(0.0, 0.0), (size, 0.0), (size, size), (0.0, size)])
        apart = np.linalg.norm(self.points(corners)[:, None] - corners[None], axis=-1)
        return bool((apart.min(1) < 1e-6 * size).all())


def to_goal(source: Pose, target: Pose) -> Motion:
    """The motion that carries the goal ``source`` to ``target``."""
    turn = target[2] - source[2]
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return Motion(matrix, np.array(target[:2]) - matrix @ np.array(source[:2]), turn, 1.0)


def mirror(goal: Pose) -> Motion:
    """The reflection about the axis of the T at ``goal``, which stays where it is."""
    double = 2.0 * goal[2] + math.pi  # twice the direction of the stem
    matrix = np.array([[math.cos(double), math.sin(double)], [math.sin(double), -math.cos(double)]])
    return Motion(matrix, np.array(goal[:2]) - matrix @ np.array(goal[:2]), 2.0 * goal[2], -1.0)


def moved(columns: Columns, motion: Motion, size: float) -> Columns:
    """``state`` (L, 5) and ``action`` (L, 2) of a recording after ``motion``, from where it stays clear of the walls.

    Of a rest of fewer than ``SHORTEST`` steps nothing is left.
    """
    state, action = recorded_state(columns), motion.points(columns["action"].astype(np.float64))
    tool, tee = motion.points(state[:, :2]), motion.points(state[:, 2:4])
    state = np.concatenate([tool, tee, motion.turn + motion.sense * state[:, 4:]], 1)
    begin = 0
    if not motion.keeps(size):
        bounds = ((tool, CLEAR_TOOL), (tee, CLEAR_TEE))
        near = [(np.minimum(part, size - part) < least).any(1) for part, least in bounds]
        begin = int(np.flatnonzero(np.any(near, 0)).max(initial=-1)) + 1
    if begin and len(state) - begin < SHORTEST:
        begin = len(state)
    return {"state": state[begin:], "action": np.clip(action[begin:], 0.0, size)}
