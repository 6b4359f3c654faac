"""`VecEnv` of a Meta-World task: N of the package's own environments, stepped one after the other in this thread.

A step gives Meta-World's bits; a test compares them. Its code is made for MuJoCo 3.3.0; on later ones, where the data
of a constraint have got longer, one method has to be replaced.
"""

from __future__ import annotations

import pickle
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from omnibody.envs.serial import SerialEnv
from omnibody.robots.errors import UserError
from omnibody.sim_tasks.metaworld import INSTALL, MetaWorld, MetaWorldState, package

STREAM = 0x3E7A  # keeps this generator apart from others that are seeded by (seed, episode)
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)  # Meta-World's, of hand and mocap body


class Table:
    """One of Meta-World's environments, in which every episode has a start of its own."""

    def __init__(self, scene: str) -> None:
        self._scene, self._cls = scene, _classes()[scene]
        # A class of its own leaves the package's as it is for others in this process.
        self.env = type(self._cls.__name__, (self._cls,), {"reset_mocap_welds": _reset_mocap_welds})()

    def begin(self, seed: int, episode: int) -> NDArray[np.float64]:
        """Start an episode; its state (39,).

        As Meta-World's benchmarks do it: a start is drawn first, rejected ones aside, then set as a task, and then the
        env is reset to it, as a start that is drawn by the reset itself would show objects where they were before.
        """
        env = self.env
        env.np_random = np.random.default_rng([STREAM, seed, episode])
        env.seeded_rand_vec, env._freeze_rand_vec, env._set_task_called = True, False, True
        env.reset_model()
        task = {"env_cls": self._cls, "rand_vec": env._last_rand_vec, "partially_observable": False}
        env.set_task(package("metaworld.types").Task(self._scene, pickle.dumps(task)))
        state: NDArray[np.float64] = env.reset()[0]
        return state

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """State (39,), reward and success after an action (4,)."""
        state, reward, _, _, info = self.env.step(action)
        return state, float(reward), bool(info["success"])


def _classes() -> Any:
    classes = getattr(package(), "ALL_V3_ENVIRONMENTS", None)
    if classes is None:
        raise UserError(f"metaworld: wanted version 3, which has the v3 tasks, came an older one; {INSTALL}")
    return classes


def _reset_mocap_welds(env: Any) -> None:
    """As Meta-World's, but leaves alone what MuJoCo has added to a constraint's data."""
    for index in np.flatnonzero(env.model.eq_type == mujoco.mjtEq.mjEQ_WELD):
        env.model.eq_data[index, : len(WELD)] = WELD


class MetaWorldEnv(SerialEnv):
    """Tables of the package's own."""

    task: MetaWorld

    def __init__(self, task: MetaWorld, num_envs: int) -> None:
        super().__init__(task, num_envs)
        self.tables = [Table(task.scene) for _ in range(num_envs)]
        self._state, self._reward = np.zeros((num_envs, 39)), np.zeros(num_envs)
        self._success = np.zeros(num_envs, bool)

    def _advance(self, actions: NDArray[np.float64]) -> None:
        for row, (table, command) in enumerate(zip(self.tables, actions.astype(np.float32), strict=True)):
            self._state[row], self._reward[row], self._success[row] = table.step(command)

    def _start(self, rows: NDArray[np.int64], episodes: NDArray[np.int64], seed: int) -> None:
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            self._state[row] = self.tables[row].begin(seed, episode)
        self._reward[rows], self._success[rows] = 0.0, False

    def _look(self) -> MetaWorldState:
        parts = (torch.from_numpy(values.copy()) for values in (self._state, self._reward, self._success))
        return MetaWorldState(self._time(), *parts)
