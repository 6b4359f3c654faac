"""Push-T: push a T on a table to a goal pose with a round tool (Florence et al. 2021, Chi et al. 2023).

Positions in px on gym-pusht's table of 512 x 512, x to the right and y down; 10 Hz; the action is where the tool is
to go. Starts are gym-pusht 0.1.8's: the tool in 50..449, the T in 100..399, each way in whole px, at any angle. There a
reset sets the T's position before its angle, which moves it about its centre of mass; ``starts`` does the same sum in
advance, so a backend has to set angle, then position, and stands as gym-pusht does.

A recording made elsewhere and the simulator go through the same ``observations``. The angle is seen as cosine and sine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.pusher import PlanarTool
from omnibody.robots.spec import Body, Field
from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t_figures import FOLDS
from omnibody.sim_tasks.task import Obs

STREAM = 0x7EE  # keeps this generator apart from others that are seeded by (seed, episode)
CANONICAL, SHIFTED = (256.0, 256.0, math.pi / 4), (356.0, 356.0, math.pi / 4)
GOALS = {"": CANONICAL, "shifted": SHIFTED}
Pose = tuple[float, float, float]  # x [px], y [px], angle [rad]
SUCCESS = 0.95  # coverage above which an episode ends, as in gym-pusht


@dataclass(frozen=True)
class TableWorld:
    """What the task knows of N tables: ``time`` (N,) float32 since the episode began [s], float64 positions of the tool
    ``agent`` (N, 2) [px] and the T's pose ``block`` (N, 3) [px, px, rad]."""

    time: Tensor
    agent: Tensor
    block: Tensor


@dataclass
class PushTCfg:
    """Push-T with its canonical goal (256, 256, 45 degrees), or with the goal ``shifted`` by (100, 100)."""

    scene: str = ""  # which goal: "" or "shifted"
    max_seconds: float = 30.0  # time limit [s]

    def __post_init__(self) -> None:
        if self.scene not in GOALS:
            raise unknown("scene", self.scene, GOALS)

    @property
    def name(self) -> str:
        """The task's, in the table."""
        return f"push_t/{self.scene}".removesuffix("/")

    @property
    def goals(self) -> tuple[Pose, ...]:
        """The wanted poses of the T, which take turns."""
        return (GOALS[self.scene],)

    def build(self, body: Body, num_envs: int) -> PushT:
        """The task on ``num_envs`` tables."""
        if not isinstance(body, PlanarTool):
            raise UserError(f"robot: push_t wants a tool on a table (pusher), came {body.name}")
        return PushT(self, body, num_envs)


@dataclass
class TwoGoalPushTCfg(PushTCfg):
    """Push-T whose goal is one of the two in turn: the policy has to look at it."""

    @property
    def name(self) -> str:
        """The task's, in the table."""
        return "push_t_two_goal"

    @property
    def goals(self) -> tuple[Pose, ...]:
        """Both."""
        return tuple(GOALS.values())


class PushT:
    """The task; ``goal`` (N, 3) holds the wanted pose of each table's T."""

    instruction = "push the T onto the outline of its goal"
    folds = FOLDS

    def __init__(self, cfg: PushTCfg, body: PlanarTool, num_envs: int) -> None:
        self.name, self.max_seconds, self.body, self.num_envs = cfg.name, cfg.max_seconds, body, num_envs
        self.goals = np.array(cfg.goals)
        self.goal = np.tile(self.goals[0], (num_envs, 1))
        self.obs_fields = _obs_fields(body.size)

    def reset(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> np.ndarray:
        """Begin episode ``episodes[i]`` on table ``rows[i]``; the starts (len(rows), 5): tool x, y, T x, y, angle.

        Episode k has the goal k modulo their number.
        """
        self.goal[rows] = self.goals[episodes % len(self.goals)]
        return np.stack([start(np.random.default_rng([STREAM, seed, int(episode)])) for episode in episodes])

    def observe(self, world: TableWorld) -> Obs:
        """What a policy sees, (N, ...) each."""
        seen = observations(world.agent.numpy(), world.block.numpy(), self.goal)
        return {key: torch.from_numpy(values) for key, values in seen.items()}

    def reward(self, world: TableWorld) -> Tensor:
        """Coverage as a share of what success wants, at most 1, (N,): gym-pusht's."""
        return (self._coverage(world) / SUCCESS).clamp(max=1.0).float()

    def success(self, world: TableWorld) -> Tensor:
        """(N,) bool: the goal is covered; ends the episode."""
        return self._coverage(world) > SUCCESS

    def failure(self, world: TableWorld) -> Tensor:
        """(N,) bool: nothing that happens on a table ends an episode but success."""
        return torch.zeros(self.num_envs, dtype=torch.bool)

    def expert(self, world: TableWorld) -> Tensor:
        """There is none: people show this task."""
        raise UserError("checkpoint: push_t has no scripted expert; give a policy trained on demonstrations")

    def measures(self, world: TableWorld) -> dict[str, Tensor]:
        """``coverage`` of the goal and ``iou``, intersection over union with it, (N,) each."""
        coverage = self._coverage(world)
        return {"coverage": coverage.float(), "iou": (coverage / (2.0 - coverage)).float()}

    def path(self, world: TableWorld) -> Tensor:
        """Tool x, y [px] and the T's pose x, y [px], angle [rad], (N, 5)."""
        return torch.cat([world.agent, world.block], 1)

    def failures(self, world: TableWorld) -> list[str]:
        """A word only: nothing that happens on a table ends an episode but success."""
        return ["failure"] * self.num_envs

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """``tool_path``: how far the tool moved [px]."""
        return {"tool_path": float(np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum())}

    def recorded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations, reward and success (L, ...) of a recorded ``state`` (L, 5): tool x, y, T x, y [px], angle."""
        state = recorded_state(columns)
        goal = np.tile(self.goals[0], (len(state), 1))
        coverage = tee.overlap(state[:, 2:], goal) / tee.AREA
        seen = observations(state[:, :2], state[:, 2:], goal)
        return {**seen, "reward": np.minimum(coverage / SUCCESS, 1.0), "success": coverage > SUCCESS}

    def _coverage(self, world: TableWorld) -> Tensor:
        return torch.from_numpy(tee.overlap(world.block.numpy(), self.goal) / tee.AREA)


def recorded_state(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The column ``state`` (L, 5) of a recording: tool x, y, T x, y [px], angle [rad]."""
    if "state" not in columns or columns["state"].shape[1:] != (5,):
        came = {name: values.shape[1:] for name, values in columns.items()}
        raise UserError(f"source: push_t wants a column state of 5 (tool x, y, T x, y, angle), came {came}")
    return columns["state"].astype(np.float64)


def start(rng: np.random.Generator) -> np.ndarray:
    """A start (5,) as gym-pusht draws it: tool x, y, T x, y, angle, once its reset has moved the T."""
    agent, block = rng.integers(50, 450, 2), rng.integers(100, 400, 2)
    angle = rng.uniform(-math.pi, math.pi)
    return np.array([*agent, *turned_in_place(block.astype(np.float64), angle), angle])


def turned_in_place(position: np.ndarray, angle: float) -> np.ndarray:
    """Where (2,) the origin of an upright T at ``position`` comes to lie when it turns about its centre of mass."""
    centre, c, s = np.array(tee.CENTRE_OF_MASS), math.cos(angle), math.sin(angle)
    return position + centre - np.array([[c, -s], [s, c]]) @ centre


def observations(agent: np.ndarray, block: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
    """``agent`` (L, 2), the T's pose ``block`` (L, 3) and ``goal`` (L, 3) as a policy sees them, float32."""
    corners = tee.corners(block)
    seen = {
        "agent": agent,
        "block": _with_direction(block),
        "corners": corners.reshape(len(block), -1),
        "reach": (corners - agent[:, None]).reshape(len(block), -1),
        "goal": _with_direction(goal),
    }
    return {key: values.astype(np.float32) for key, values in seen.items()}


def _with_direction(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([pose[:, :2], np.cos(pose[:, 2:]), np.sin(pose[:, 2:])], 1)


def _obs_fields(size: float) -> dict[str, Field]:
    pose = Field((4,), "float32", "px,px,1,1", (0.0, 0.0, -1.0, -1.0), (size, size, 1.0, 1.0), ("x", "y", "cos", "sin"))
    names = tuple(f"{axis}{corner}" for corner in range(8) for axis in "xy")
    return {
        "agent": Field((2,), "float32", "px", (0.0,), (size,), ("x", "y")),
        "block": pose,
        "corners": Field((16,), "float32", "px", (0.0,), (size,), names),
        "reach": Field((16,), "float32", "px", (-size,), (size,), names),  # the corners as seen from the tool
        "goal": pose,
    }
