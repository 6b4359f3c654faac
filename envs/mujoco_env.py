"""`VecEnv` on MuJoCo: N worlds of one body in one task, stepped in C threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mujoco
import numpy as np
import torch
from torch import Tensor

from omnibody.envs.camera import DepthCamera
from omnibody.envs.colour_camera import ColourCamera, Viewpoint
from omnibody.envs.randomization import EpisodeDraw, RandomizationCfg, draw_episode, noisy_depth, randomize_model
from omnibody.envs.simulation import SceneBank, Shard
from omnibody.envs.vec_env import Step
from omnibody.robots.plant import BaseState, Plant, into_heading, rotation_matrix
from omnibody.robots.spec import Embodiment, Field, IOSpec
from omnibody.sim_tasks.task import SEMANTIC_CLASSES, Obs, Task, World

TWIST_WINDOW = 0.5  # World.twist averages over this time [s]
PIECES_PER_THREAD = 8  # that a look at all worlds is cut into, for the threads to take as they get free


class MujocoEnv:
    """See `omnibody.envs.vec_env.VecEnv` for the contract.

    ``threads`` shards step side by side; results do not depend on it, nor on ``num_envs``, because everything random
    belongs to an episode. ``rgb`` > 0 adds pictures of that many rows from the body's camera: observation ``image``.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        plant: Plant,
        task: Task,
        num_envs: int,
        threads: int,
        randomization: RandomizationCfg,
        rgb: int = 0,
    ) -> None:
        self.embodiment, self.plant, self.task, self.num_envs = embodiment, plant, task, num_envs
        self.randomization = randomization
        self.dt = 1.0 / embodiment.rate_hz
        self._ticks = round(self.dt / plant.control_dt)
        if embodiment.latency + randomization.latency > self.dt:
            total = embodiment.latency + randomization.latency
            raise ValueError(f"latency {total} s exceeds a policy step of {self.dt} s; lower randomization.latency")
        self._colour = ColourCamera(embodiment.camera, rgb) if rgb else None
        self.spec = io_spec(embodiment, task, self._colour.field if self._colour else None)
        self.bank = SceneBank(plant, task.build)
        camera = DepthCamera(embodiment.camera)
        threads = min(threads, num_envs)
        bounds = np.linspace(0, num_envs, threads + 1).astype(int)
        self._slices = [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        first = self.bank.model(0)
        self._shards = [Shard(plant, first, s.stop - s.start, camera) for s in self._slices]
        most = -(-num_envs // (PIECES_PER_THREAD * threads))
        self._pieces = [
            (shard, slice(first, first + most)) for shard in self._shards for first in range(0, len(shard.rows), most)
        ]
        self._pool = ThreadPoolExecutor(max(1, threads - 1))  # the caller's thread works too
        self._seed = 0
        self._next_episode = 0
        self._scenes = [0] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._action = np.zeros((num_envs, 3))
        self._poses = np.zeros((num_envs, round(TWIST_WINDOW / self.dt) + 1, 3))
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.world: World
        self._draws: list[EpisodeDraw] = [draw_episode(randomization, 0, 0, 0.0, self.dt)[0]] * num_envs
        self._expert_rng = np.random.default_rng(0)

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start the episodes ``first_episode ... + N - 1`` of ``seed``."""
        self._seed, self._next_episode = seed, first_episode
        self._expert_rng = np.random.default_rng([seed, 0x0E0E])
        self._begin(np.arange(self.num_envs))
        self.world = self._world(self._base())
        return self._sense() | self.task.observe(self.world)

    def step(self, action: Tensor) -> Step:
        """Apply twist commands (N, 3) for ``dt`` seconds; finished envs begin their next episode."""
        command = self.embodiment.limits.clip(self._checked(action))
        self._advance(command)
        self._action = command
        self._steps += 1
        base = self._base()
        self._poses[:, :-1] = self._poses[:, 1:]
        self._poses[:, -1] = _ground_pose(base)
        self.world = self._world(base)
        pieces = iter(self._pieces)
        looks = [self._pool.submit(_look, pieces) for _ in self._shards[1:]]
        # While other threads cast rays, this one asks the task for all that needs none.
        shown = self.task.observe(self.world)
        reward, terms = self.task.reward(self.world, torch.from_numpy(command).float())
        success, failure = self.task.success(self.world), self.task.failure(self.world)
        # A collision in the very step that reaches the goal is a failure.
        success = success & ~failure
        terminated = success | failure
        truncated = torch.from_numpy(self._steps >= round(self.task.max_seconds / self.dt)) & ~terminated
        measures, world, episode = self.task.measures(self.world), self.world, self.episode
        done = terminated | truncated
        _look(pieces)
        for job in looks:
            job.result()
        next_obs = self._sense() | shown
        obs = self._restart(done, next_obs) if bool(done.any()) else next_obs
        return Step(obs, next_obs, reward, terminated, truncated, success, terms, measures, world, episode)

    def look(self) -> Obs:
        """Cast the cameras again and observe, without stepping."""
        _look(iter(self._pieces))
        return self._sense() | self.task.observe(self.world)

    def expert(self) -> Tensor:
        """The task's expert commands (N, 3) for the current state."""
        return self.task.expert(self.world, self._expert_rng)

    def close(self) -> None:
        """Stop the worker threads and free the graphics context."""
        self._pool.shutdown()
        if self._colour is not None:
            self._colour.close()

    def model(self, row: int) -> mujoco.MjModel:
        """The compiled model that env ``row`` runs in (without visual meshes)."""
        shard, k = self._locate(row)
        return shard.world(k).model

    def data(self, row: int) -> mujoco.MjData:
        """The simulation state of env ``row``."""
        shard, k = self._locate(row)
        return shard.world(k).data

    def scene(self, row: int) -> int:
        """The scene env ``row`` runs in."""
        return self._scenes[row]

    def _locate(self, row: int) -> tuple[Shard, int]:
        for shard, rows in zip(self._shards, self._slices, strict=True):
            if rows.start <= row < rows.stop:
                return shard, row - rows.start
        raise IndexError(f"env {row} of {self.num_envs}")

    def _advance(self, command: np.ndarray) -> None:
        """Step all worlds, a shard in each thread."""
        own, *others = [
            partial(shard.advance, command[rows], self._action[rows], self._ticks)
            for shard, rows in zip(self._shards, self._slices, strict=True)
        ]
        jobs = [self._pool.submit(other) for other in others]
        own()
        for job in jobs:
            job.result()

    def _checked(self, action: Tensor) -> np.ndarray:
        if tuple(action.shape) != (self.num_envs, 3):
            raise ValueError(f"action: wanted shape ({self.num_envs}, 3), came {tuple(action.shape)}")
        command = action.detach().cpu().numpy().astype(np.float64)
        if not np.isfinite(command).all():
            rows = np.nonzero(~np.isfinite(command).all(1))[0].tolist()
            raise ValueError(f"action: wanted finite numbers, came NaN or inf in rows {rows}")
        return command

    def _begin(self, rows: np.ndarray) -> None:
        episodes = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        for row, episode, start in zip(rows, episodes, self.task.reset(rows, episodes, self._seed), strict=True):
            draw, rng = draw_episode(
                self.randomization, self._seed, int(episode), self.embodiment.latency, self.plant.control_dt
            )
            model = self.bank.model(start.scene)
            if self.randomization.changes_model:
                model = model.__copy__()
                randomize_model(model, self.randomization, rng)
            shard, k = self._locate(row)
            shard.load(k, model, self.plant.stand(*start.pose), draw)
            self._draws[row], self._scenes[row] = draw, start.scene
            self._poses[row] = start.pose
        self._steps[rows] = 0
        self._action[rows] = 0.0
        self.episode = self.episode.clone()
        self.episode[torch.from_numpy(rows)] = torch.from_numpy(episodes)
        for shard, span in zip(self._shards, self._slices, strict=True):
            inside = rows[(rows >= span.start) & (rows < span.stop)] - span.start
            if len(inside):
                shard.ready()
            for k in inside:
                shard.look(slice(k, k + 1))

    def _restart(self, done: Tensor, next_obs: Obs) -> Obs:
        self._begin(np.nonzero(done.numpy())[0])
        self.world = self._world(self._base())
        fresh = self._sense(rows=np.nonzero(done.numpy())[0]) | self.task.observe(self.world)
        return {k: torch.where(done.reshape(-1, *[1] * (v.ndim - 1)), fresh[k], v) for k, v in next_obs.items()}

    def _base(self) -> BaseState:
        parts = [shard.base for shard in self._shards]
        return BaseState(*(np.concatenate([getattr(p, f) for p in parts]) for f in BaseState.__dataclass_fields__))

    def _world(self, base: BaseState) -> World:
        return World(
            time=torch.from_numpy(self._steps * self.dt).float(),
            position=torch.from_numpy(base.position).float(),
            quaternion=torch.from_numpy(base.quaternion).float(),
            yaw=torch.from_numpy(base.yaw).float(),
            linear=torch.from_numpy(base.linear).float(),
            angular=torch.from_numpy(base.angular).float(),
            twist=torch.from_numpy(mean_twist(self._poses, self.dt)).float(),
            contact=torch.from_numpy(np.concatenate([shard.hit for shard in self._shards])),
        )

    def _sense(self, rows: Iterable[int] | None = None) -> Obs:
        """What the sensors of all envs give; noise and pictures are drawn for ``rows`` only (all by default)."""
        cfg, world, camera = self.randomization, self.world, self.embodiment.camera
        rows = range(self.num_envs) if rows is None else rows
        pixels = (self.num_envs, camera.height, camera.width)
        depth = np.concatenate([shard.depth for shard in self._shards]).reshape(pixels)
        semantics = np.concatenate([shard.semantics for shard in self._shards]).reshape(pixels)
        velocity = torch.cat([world.linear[:, :2], world.angular[:, 2:]], 1)
        for row in rows:
            rng = self._draws[row].noise
            if cfg.depth_noise or cfg.depth_dropout:
                depth[row] = noisy_depth(depth[row], camera.max_range, cfg, rng)
            if cfg.velocity_noise:
                velocity[row] += cfg.velocity_noise * torch.from_numpy(rng.standard_normal(3)).float()
        own = {"depth": torch.from_numpy(depth), "semantics": torch.from_numpy(semantics), "velocity": velocity}
        if self._colour is not None:
            own["image"] = torch.zeros((self.num_envs, *self._colour.field.shape), dtype=torch.uint8)
            own["image"][list(rows)] = torch.from_numpy(self._colour.take([self._viewpoint(row) for row in rows]))
        return own

    def _viewpoint(self, row: int) -> Viewpoint:
        """Where the camera of env ``row`` is now, its mounting error included."""
        mount, draw, world = self.embodiment.camera, self._draws[row], self.world
        turn = rotation_matrix(world.quaternion[row].double().numpy())
        axes = turn @ mount.into_base(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), draw.camera_pitch).T
        position = world.position[row].double().numpy() + turn @ (mount.position + draw.camera_offset)
        return Viewpoint(self.model(row), self.data(row), position, axes[:, 0], axes[:, 1])


def _look(pieces: Iterator[tuple[Shard, slice]]) -> None:
    """Cast cameras piece by piece; several threads may share an iterator over a list."""
    for shard, rows in pieces:
        shard.look(rows)


def _ground_pose(base: BaseState) -> np.ndarray:
    return np.stack([base.position[:, 0], base.position[:, 1], base.yaw], 1)


def mean_twist(poses: np.ndarray, dt: float) -> np.ndarray:
    """Mean (vx, vy, wz) over a window of ground poses (N, W, 3), in the present heading frame."""
    seconds = (poses.shape[1] - 1) * dt
    moved = (poses[:, -1] - poses[:, 0]) / seconds
    turned = np.angle(np.exp(1j * (poses[:, -1, 2] - poses[:, 0, 2]))) / seconds
    return np.concatenate([into_heading(poses[:, -1, 2], moved[:, :2]), turned[:, None]], 1)


def io_spec(embodiment: Embodiment, task: Task, image: Field | None = None) -> IOSpec:
    """What a body's environment of a task shows and takes; ``image``: that of its colour camera, if it has one."""
    camera = embodiment.camera
    pixels = (camera.height, camera.width)
    twist = ("vx", "vy", "wz")
    own = {
        "depth": Field(pixels, "float32", "m", (0.0,), (camera.max_range,)),
        "semantics": Field(pixels, "uint8", "class", (0.0,), (len(SEMANTIC_CLASSES) - 1.0,)),
        "velocity": Field((3,), "float32", "m/s,m/s,rad/s", (-5.0,), (5.0,), twist),
    }
    own |= {"image": image} if image else {}
    return IOSpec(own | task.obs_fields, embodiment.action, embodiment.rate_hz)
