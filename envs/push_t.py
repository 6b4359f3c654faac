"""`VecEnv` of Push-T on pymunk (Chipmunk): N tables with a tool and a T, gym-pusht's physics without its drawing.

The constants and the order of operations are gym-pusht 0.1.8's, so a step from the same state gives the same bits; a
test compares them. A start is set angle first: a body turns about its centre of mass, so the other order moves the T.
"""

from __future__ import annotations

import numpy as np
import pymunk
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibody.envs.vec_env import Step
from omnibody.robots.errors import UserError
from omnibody.robots.pusher import PlanarTool
from omnibody.robots.spec import IOSpec
from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t import PushT, TableWorld
from omnibody.sim_tasks.task import Obs

TICK = 0.01  # [s]
MASS = 1.0
# Ends of the table's edges [px], gym-pusht's; the last one's direction decides the order of contact points.
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
WALL_RADIUS = 2.0


class Table:
    """One table: a kinematic tool, a T that slides with friction against all motion (damping 0), and four walls."""

    def __init__(self, tool: PlanarTool) -> None:
        self._tool, self._ticks = tool, round(1.0 / (TICK * tool.rate_hz))
        self._space = pymunk.Space()
        self._space.damping = 0.0
        self._space.add(*(pymunk.Segment(self._space.static_body, a, b, WALL_RADIUS) for a, b in WALLS))
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._space.add(self._agent, pymunk.Circle(self._agent, tool.radius))
        bar, stem = (_rectangle(box) for box in (tee.BAR, tee.STEM))
        # gym-pusht gives the stem the bar's moment of inertia; kept, as its scores are compared with.
        self._block = pymunk.Body(MASS, 2 * pymunk.moment_for_poly(MASS, bar))
        self._space.add(self._block, pymunk.Poly(self._block, bar), pymunk.Poly(self._block, stem))
        self._block.center_of_gravity = tee.CENTRE_OF_MASS

    @property
    def state(self) -> tuple[float, ...]:
        """Tool x, y [px], the T's x, y [px] and angle [rad]."""
        return (*self._agent.position, *self._block.position, self._block.angle)

    def place(self, state: NDArray[np.float64]) -> None:
        """Put tool and T at ``state`` (5,), at rest, and let overlaps push the T out for one tick."""
        x, y, block_x, block_y, angle = state.tolist()
        self._agent.velocity = self._block.velocity = (0.0, 0.0)
        self._block.angular_velocity = 0.0
        self._agent.position = (x, y)
        self._block.angle = angle
        self._block.position = (block_x, block_y)
        self._space.step(TICK)

    def advance(self, x: float, y: float) -> None:
        """Draw the tool towards (x, y) [px] for one step of the policy."""
        agent, space = self._agent, self._space
        stiffness, damping = self._tool.stiffness, self._tool.damping
        for _ in range(self._ticks):
            (px, py), (vx, vy) = agent.position, agent.velocity
            pull_x, pull_y = stiffness * (x - px) + damping * (0.0 - vx), stiffness * (y - py) + damping * (0.0 - vy)
            agent.velocity = (vx + pull_x * TICK, vy + pull_y * TICK)
            space.step(TICK)


def _rectangle(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


class PushTEnv:
    """See `omnibody.envs.vec_env.VecEnv` for the contract; tables step one after the other in this thread."""

    def __init__(self, task: PushT, num_envs: int) -> None:
        self.embodiment, self.task, self.num_envs = task.body, task, num_envs
        self.dt = 1.0 / task.body.rate_hz
        self.spec = IOSpec(task.obs_fields, task.body.action, task.body.rate_hz)
        self.tables = [Table(task.body) for _ in range(num_envs)]
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.world: TableWorld
        self._seed, self._next_episode = 0, 0
        self._steps = np.zeros(num_envs, np.int64)

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start the episodes ``first_episode ... + N - 1`` of ``seed``."""
        self._seed, self._next_episode = seed, first_episode
        return self._begin(np.arange(self.num_envs))

    def step(self, action: Tensor) -> Step:
        """Send the tools to ``action`` (N, 2) [px] for ``dt`` seconds; finished envs begin their next episode."""
        for table, target in zip(self.tables, self._checked(action).tolist(), strict=True):
            table.advance(*target)
        self._steps += 1
        self.world = world = self._look()
        next_obs, episode = self.task.observe(world), self.episode
        reward, success, measures = self.task.reward(world), self.task.success(world), self.task.measures(world)
        truncated = torch.from_numpy(self._steps >= round(self.task.max_seconds / self.dt)) & ~success
        done = success | truncated
        obs = self._begin(np.flatnonzero(done.numpy())) if bool(done.any()) else next_obs
        terms = {"coverage": reward}
        return Step(obs, next_obs, reward, success, truncated, success, terms, measures, world, episode)

    def expert(self) -> Tensor:
        """There is none: people show this task."""
        raise UserError("checkpoint: push_t has no scripted expert; give a policy trained on demonstrations")

    def close(self) -> None:
        """Nothing runs between calls."""

    def _checked(self, action: Tensor) -> NDArray[np.float64]:
        if tuple(action.shape) != (self.num_envs, 2):
            raise ValueError(f"action: wanted shape ({self.num_envs}, 2), came {tuple(action.shape)}")
        target = action.detach().cpu().numpy().astype(np.float64)
        if not np.isfinite(target).all():
            raise ValueError("action: wanted finite numbers, came NaN or inf")
        return np.clip(target, 0.0, self.task.body.size)

    def _begin(self, rows: NDArray[np.int64]) -> Obs:
        """Start the next episodes in ``rows``; the observation of all tables."""
        episodes = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        for row, start in zip(rows, self.task.reset(rows, episodes, self._seed), strict=True):
            # A new one, as Chipmunk remembers the contacts of the last episode.
            self.tables[row] = Table(self.task.body)
            self.tables[row].place(start)
        self._steps[rows] = 0
        self.episode = self.episode.clone()
        self.episode[torch.from_numpy(rows)] = torch.from_numpy(episodes)
        self.world = self._look()
        return self.task.observe(self.world)

    def _look(self) -> TableWorld:
        state = torch.tensor([table.state for table in self.tables], dtype=torch.float64)
        time = torch.from_numpy(self._steps * self.dt).float()
        return TableWorld(time, state[:, :2], state[:, 2:])
