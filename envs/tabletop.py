"""`VecEnv` of a task on a table in MuJoCo: N worlds of one model, stepped one after the other in this thread."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from omnibody.envs.serial import SerialEnv
from omnibody.sim_tasks.tabletop import TabletopTask, TabletopWorld

PARTS = ("qpos", "qvel", "ctrl", "mocap_pos", "eq_active")  # of `TabletopWorld`, by their names in ``MjData``


class TabletopEnv(SerialEnv):
    """Tables of one model."""

    task: TabletopTask

    def __init__(self, task: TabletopTask, num_envs: int) -> None:
        super().__init__(task, num_envs)
        self.model = task.model()
        self.datas = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self._substeps = round(self.dt / self.model.opt.timestep)
        self._views = {part: [getattr(data, part) for data in self.datas] for part in PARTS}

    def _advance(self, actions: NDArray[np.float64]) -> None:
        for row, (data, command) in enumerate(zip(self.datas, actions, strict=True)):
            self.task.drive(data, row, command)
            mujoco.mj_step(self.model, data, self._substeps)

    def _start(self, rows: NDArray[np.int64], episodes: NDArray[np.int64], seed: int) -> None:
        for row, qpos in zip(rows, self.task.start(rows, episodes, seed), strict=True):
            data = self.datas[row]
            mujoco.mj_resetData(self.model, data)
            self.task.place(data, qpos)
            mujoco.mj_forward(self.model, data)

    def _look(self) -> TabletopWorld:
        parts = {part: torch.from_numpy(np.stack(views)) for part, views in self._views.items()}
        return TabletopWorld(self._time(), **{**parts, "eq_active": parts["eq_active"].bool()})
