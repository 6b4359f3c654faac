"""Meta-World v3 (Yu et al. 2019, McLean et al. 2025): 50 tasks of a Sawyer arm at a table, with experts by script.

Rewards (v2, at most 10 a step), success and starts are those of the package metaworld, as its MT benchmarks have them:
the goal is seen. Unlike there, every episode has a start of its own in place of one of 50, and success ends it, as in
Meta-World's own evaluation. The package wants MuJoCo 3.3.0, which `omnibody.envs.metaworld` does not need.

Metres in the world's frame, x to the right, y away from the robot's base, z up; 80 Hz.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.sawyer import DrawnArm
from omnibody.robots.spec import Body, Field
from omnibody.sim_tasks.metaworld_figures import FOLDS
from omnibody.sim_tasks.metaworld_names import INSTRUCTIONS
from omnibody.sim_tasks.task import Obs

# Without dependencies: it pins MuJoCo 3.3.0, and of the rest only imageio is not Omnibody's too.
INSTALL = "pip install --no-deps metaworld==3.1.1 imageio"
LIMIT = 6.25  # 500 steps at 80 Hz, all that Meta-World plays [s]
FRAME = 18  # numbers of one moment in ``state``, which holds two of them and the goal
# Keys of the observation: where they stand in ``state``.
PARTS = {
    "hand": slice(0, 3),
    "gripper": slice(3, 4),
    "object": slice(4, 11),
    "second": slice(11, 18),
    "previous": slice(18, 36),
    "goal": slice(36, 39),
}


def package(module: str = "metaworld") -> Any:
    """A module of the package metaworld; ``UserError`` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"metaworld: its tasks want the package metaworld ({error}); {INSTALL}") from error


@dataclass(frozen=True)
class MetaWorldState:
    """What the task knows of N tables: ``time`` (N,) float32 since the episode began [s], ``state`` (N, 39) float64 as
    Meta-World observes it, and how it judged the last step: ``reward`` (N,) float64, ``success`` (N,) bool."""

    time: Tensor
    state: Tensor
    reward: Tensor
    success: Tensor


@dataclass
class MetaWorldCfg:
    """One of the 50 tasks."""

    scene: str = "reach-v3"  # which, by Meta-World's name
    max_seconds: float = LIMIT  # time limit [s], at most 6.25

    def __post_init__(self) -> None:
        if self.scene not in INSTRUCTIONS:
            raise unknown("scene", self.scene, INSTRUCTIONS)
        if not 0.0 < self.max_seconds <= LIMIT:
            raise ValueError(f"max_seconds: wanted more than 0 and at most {LIMIT}, came {self.max_seconds}")

    def build(self, body: Body, num_envs: int) -> MetaWorld:
        """The task on ``num_envs`` tables."""
        if not isinstance(body, DrawnArm):
            raise UserError(f"robot: metaworld wants its own arm (sawyer), came {body.name}")
        return MetaWorld(self, body, num_envs)


class MetaWorld:
    """The task; its state is Meta-World's, so it only says what that means."""

    folds = FOLDS

    def __init__(self, cfg: MetaWorldCfg, body: DrawnArm, num_envs: int) -> None:
        self.scene, self.name, self.instruction = cfg.scene, f"metaworld/{cfg.scene}", INSTRUCTIONS[cfg.scene]
        self.max_seconds, self.body, self.num_envs = cfg.max_seconds, body, num_envs
        self.obs_fields = _obs_fields()
        self._expert = package("metaworld.policies").ENV_POLICY_MAP[cfg.scene]()

    def observe(self, world: MetaWorldState) -> Obs:
        """What a policy sees, (N, ...) each: the 39 numbers by their meaning."""
        return {key: world.state[:, part].float() for key, part in PARTS.items()}

    def reward(self, world: MetaWorldState) -> Tensor:
        """Meta-World's, (N,)."""
        return world.reward.float()

    def success(self, world: MetaWorldState) -> Tensor:
        """(N,) bool: by Meta-World's own test; ends the episode."""
        return world.success

    def failure(self, world: MetaWorldState) -> Tensor:
        """(N,) bool: nothing ends an episode but success."""
        return torch.zeros_like(world.success)

    def measures(self, world: MetaWorldState) -> dict[str, Tensor]:
        """The ``reward`` of the last step, (N,)."""
        return {"reward": self.reward(world)}

    def path(self, world: MetaWorldState) -> Tensor:
        """Hand, object and goal, x, y, z [m] each, (N, 9)."""
        hand, thing, goal = (world.state[:, PARTS[key]][:, :3] for key in ("hand", "object", "goal"))
        return torch.cat([hand, thing, goal], 1)

    def failures(self, world: MetaWorldState) -> list[str]:
        """A word only: nothing ends an episode but success."""
        return ["failure"] * self.num_envs

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """``hand_path``: how far the hand moved [m]."""
        return {"hand_path": float(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1).sum())}

    def expert(self, world: MetaWorldState) -> Tensor:
        """Actions (N, 4) of the task's scripted expert, which knows nothing but ``state``."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Constant.s. may be too high")  # it asks for more than there is
            actions = np.stack([self._expert.get_action(row) for row in world.state.numpy()])
        return torch.from_numpy(actions.astype(np.float32)).clamp(-1.0, 1.0)


def _obs_fields() -> dict[str, Field]:
    """Bounds are those of the hand's reach and of the table; an object's turn is a quaternion, wxyz or xyzw."""
    axes, turn = ("x", "y", "z"), ("q0", "q1", "q2", "q3")
    low, high = (-0.525, 0.348, -0.0525), (0.525, 1.025, 0.7)
    pose_low, pose_high = (*3 * (-2.0,), *4 * (-1.0,)), (*3 * (2.0,), *4 * (1.0,))
    pose = Field((7,), "float32", "m,m,m,1,1,1,1", pose_low, pose_high, (*axes, *turn))  # zeros where there is none
    moment = (*(f"hand_{name}" for name in axes), "gripper", *(f"{o}_{n}" for o in "ab" for n in (*axes, *turn)))
    return {
        "hand": Field((3,), "float32", "m", low, high, axes),
        "gripper": Field((1,), "float32", "1", (0.0,), (1.0,), ("opening",)),
        "object": pose,
        "second": pose,
        "previous": Field(
            (FRAME,),
            "float32",
            ",".join(["m,m,m,1", pose.unit, pose.unit]),
            (*low, 0.0, *pose_low, *pose_low),
            (*high, 1.0, *pose_high, *pose_high),
            moment,
        ),
        "goal": Field((3,), "float32", "m", (-2.0,), (2.0,), axes),
    }
