"""`omnibody bench env`: environment throughput against a raw C loop on the same models, and against SubprocVecEnv."""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import mujoco
import numpy as np
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv

from omnibody.envs.camera import ray_directions
from omnibody.envs.gym_adapter import OmnibodyEnv
from omnibody.envs.make import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.robots.plant import GROUP_SCENE
from omnibody.training.bench.rows import Row, interleaved, print_rows
from omnibody.training.config import BODY, parse

# The command all contestants follow [m/s, m/s, rad/s]: on the spot, so that no figure hangs on how often an episode has
# to begin (the raw loop never begins one).
COMMAND = (0.0, 0.0, 0.6)


@dataclass
class EnvBenchCfg:
    """Measure environment steps per second at a policy rate of 10 Hz, depth camera included."""

    robots: list[str] = field(default_factory=lambda: ["carrier", "go2"], metadata=BODY)  # bodies to measure
    task: str = "goal_nav/single_rack"  # the task they are in
    tier: str = "best"  # fidelity tier
    num_envs: int = 16  # worlds in the batch
    threads: int = 0  # worker threads; 0 is one per core
    seconds: float = 4.0  # how long each measurement lasts
    rounds: int = 3  # measurements of each contestant, in turn; medians are printed
    json: bool = False  # print one JSON list of rows and nothing else


def env_rows(cfg: EnvBenchCfg) -> list[Row]:
    """One row per robot: env steps per second, the raw C loop as limit, SubprocVecEnv over gymnasium as peer."""
    rows = []
    for robot in cfg.robots:
        threads = cfg.threads or os.cpu_count() or 1
        env = make_env(robot, cfg.task, cfg.num_envs, cfg.tier, threads)
        peer = SubprocVecEnv([_single(robot, cfg.task, cfg.tier)] * cfg.num_envs, start_method="spawn")
        try:
            ours, limit, theirs = interleaved(
                [_stepper(env), _raw_loop(env, threads), _peer_stepper(peer)], cfg.seconds, cfg.rounds
            )
        finally:
            peer.close()
            env.close()
        name = f"{env.embodiment.name} {env.plant.tier}, N = {cfg.num_envs}, {threads} threads"
        middle = statistics.median
        rows.append(Row(name, middle(ours), "env steps/s", middle(limit), middle(theirs)))
    return rows


def _stepper(env: MujocoEnv) -> Callable[[], int]:
    env.reset(seed=0)
    action = torch.tensor(COMMAND).expand(env.num_envs, 3)

    def work() -> int:
        env.step(action)
        return env.num_envs

    return work


def _single(robot: str, task: str, tier: str) -> Callable[[], OmnibodyEnv]:
    def make() -> OmnibodyEnv:
        torch.set_num_threads(1)
        return OmnibodyEnv(task, robot, tier)

    return make


def _peer_stepper(peer: SubprocVecEnv) -> Callable[[], int]:
    peer.reset()
    action = np.tile(np.asarray(COMMAND, np.float32), (peer.num_envs, 1))

    def work() -> int:
        peer.step(action)
        return peer.num_envs

    return work


def _raw_loop(env: MujocoEnv, threads: int) -> Callable[[], int]:
    """``mj_step`` and ``mj_multiRay`` in C threads and nothing else, replaying a recorded gait on the same models."""
    env.reset(seed=0)
    models = [env.model(i) for i in range(env.num_envs)]
    datas = [copy.copy(env.data(i)) for i in range(env.num_envs)]
    controls = _record_controls(env, models, datas)
    begin = [copy.copy(env.data(i)) for i in range(env.num_envs)]
    substeps = round(env.plant.control_dt / env.plant.timestep)
    rays = ray_directions(env.embodiment.camera).ravel()
    groups = np.array([group == GROUP_SCENE for group in range(mujoco.mjNGROUP)], np.uint8)
    cutoff = 1.5 * env.embodiment.camera.max_range
    pool = ThreadPoolExecutor(threads)
    period = 0

    def world(row: int, step: int) -> None:
        data = datas[row]
        if step == 0:
            mujoco.mj_copyData(data, models[row], begin[row])
        hit, distance = np.empty(len(rays) // 3, np.int32), np.empty(len(rays) // 3)
        for control in controls[step]:
            data.ctrl[:] = control[row]
            mujoco.mj_step(models[row], data, substeps)
        origin = data.qpos[:3].copy()
        origin[2] = 0.3
        mujoco.mj_multiRay(
            models[row], data, origin, rays, groups, True, -1, hit, distance, None, len(distance), cutoff
        )

    def work() -> int:
        nonlocal period
        step = period % len(controls)
        list(pool.map(lambda row: world(row, step), range(env.num_envs)))
        period += 1
        return env.num_envs

    return work


def _record_controls(
    env: MujocoEnv, models: Sequence[mujoco.MjModel], datas: Sequence[mujoco.MjData], steps: int = 50
) -> list[list[np.ndarray]]:
    """Actuator targets of ``steps`` policy steps, (ticks, N, nu) each, by the plant's own controller."""
    controller = env.plant.controller(models[0], env.num_envs)
    controller.reset(np.arange(env.num_envs))
    substeps = round(env.plant.control_dt / env.plant.timestep)
    twist = np.tile(np.asarray(COMMAND), (env.num_envs, 1))
    recorded = []
    for _ in range(steps):
        ticks = []
        for _ in range(round(env.dt / env.plant.control_dt)):
            qpos, qvel = np.stack([d.qpos for d in datas]), np.stack([d.qvel for d in datas])
            ticks.append(controller.command(twist, qpos, qvel).copy())
            for model, data, control in zip(models, datas, ticks[-1], strict=True):
                data.ctrl[:] = control
                mujoco.mj_step(model, data, substeps)
        recorded.append(ticks)
    return recorded


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench env``."""
    cfg = parse(EnvBenchCfg, argv)
    print_rows(env_rows(cfg), cfg.json)
