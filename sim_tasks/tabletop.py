"""The contract of tasks on a table that MuJoCo simulates: one model, N worlds of it, and a scripted player.

A task writes to ``MjData`` in two places only, where an episode begins (``place``) and where an action takes effect
(``drive``); all it judges by is the `TabletopWorld`. SI units, x to the right and y away from the viewer, z up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from torch import Tensor

from omnibody.robots.spec import Body
from omnibody.sim_tasks.task import ToolTask


@dataclass(frozen=True)
class TabletopWorld:
    """What a task knows of N tables after a step: ``time`` (N,) float32 since the episode began [s], and as MuJoCo has
    them, float64, ``qpos`` (N, nq), ``qvel`` (N, nv), ``ctrl`` (N, nu) as last commanded, ``mocap_pos`` (N, nmocap, 3)
    [m]; ``eq_active`` (N, neq) bool: which constraints hold."""

    time: Tensor
    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor
    mocap_pos: Tensor
    eq_active: Tensor


class TabletopTask(ToolTask, Protocol):
    """One task for ``num_envs`` equal tables.

    It holds the goals of the running episodes, and what its player remembers of each; both begin anew in ``start``.
    Everything about episode k under ``seed`` is a pure function of (seed, k), what the player does at random included.
    """

    num_envs: int
    goal: np.ndarray  # (N, ...), of the running episodes

    def model(self) -> mujoco.MjModel:
        """The model of all tables; its time step divides the time of an action."""

    def start(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> np.ndarray:
        """Begin episode ``episodes[i]`` on table ``rows[i]``; their qpos (len(rows), nq) in the same order."""

    def place(self, data: mujoco.MjData, qpos: np.ndarray) -> None:
        """Put a table that was just reset to ``qpos`` (nq,), with controls that hold it there."""

    def drive(self, data: mujoco.MjData, row: int, action: np.ndarray) -> None:
        """Let an action (Da,), within its bounds, take effect on table ``row``: set ctrl, mocap or constraints.

        The environment then simulates for the time of one action.
        """


class TabletopCfg(ABC):
    """Configuration of such a task: a dataclass that inherits this and takes ``scene``, "" where there is one only."""

    @abstractmethod
    def build(self, body: Body, num_envs: int) -> TabletopTask:
        """The task on ``num_envs`` tables; ``UserError`` for a body that cannot do it."""
