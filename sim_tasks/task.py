"""The task contract: scene, goal, reward, success test and expert, written against `World`, never a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
from torch import Tensor

from omnibody.robots.spec import Embodiment, Field

Obs = dict[str, Tensor]

# Class of what a camera ray hits, by the part of a geom's name before the first "/" ("rack/12" -> "rack").
# "nothing" is a ray that hits nothing within range.
SEMANTIC_CLASSES = ("nothing", "floor", "wall", "rack", "furniture", "clutter")


@dataclass(frozen=True)
class World:
    """What a task may know about N simulated worlds, as batched tensors (float32 unless said).

    ``time`` (N,) since the episode began [s]; ``position`` (N, 3) [m], ``quaternion`` (N, 4) wxyz and ``yaw`` (N,)
    of the base in the world; ``linear`` (N, 3) [m/s] and ``angular`` (N, 3) [rad/s] of the base in the heading frame,
    now; ``twist`` (N, 3) = (vx, vy, wz) averaged over the last half second, which takes a gait's own sway out;
    ``contact`` (N,) bool: some part of the robot touched the scene (not the floor) since the last step.
    """

    time: Tensor
    position: Tensor
    quaternion: Tensor
    yaw: Tensor
    linear: Tensor
    angular: Tensor
    twist: Tensor
    contact: Tensor


@dataclass(frozen=True)
class Start:
    """Where an episode begins: the scene to load and the ground pose (x [m], y [m], yaw [rad]) to stand at."""

    scene: int
    pose: tuple[float, float, float]


class Judged(Protocol):
    """What an evaluation asks of any task, whatever its world is; ``world`` is the one that its env gives.

    ``folds``: what a record keeps of the measures of an episode's steps, by its own name: (measure, "min", "max" or
    "last").
    """

    name: str
    instruction: str
    max_seconds: float

    @property
    def folds(self) -> Mapping[str, tuple[str, str]]:
        """See above."""

    def measures(self, world: Any) -> dict[str, Tensor]:
        """What an evaluation records each step, (N,) each."""

    def path(self, world: Any) -> Tensor:
        """What of the world a record keeps for drawing and for telling starts apart, (N, P)."""

    def failures(self, world: Any) -> list[str]:
        """How each of N envs has failed, in a word, if it has."""

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """More measures of an episode, of its ``path`` (steps + 1, P) at steps of ``dt`` [s]."""


class ToolTask(Judged, Protocol):
    """What an environment asks of a task of one tool, whatever its world is."""

    obs_fields: dict[str, Field]  # what ``observe`` returns

    @property
    def body(self) -> Any:
        """The one that acts, a `omnibody.robots.spec.Body`."""

    def observe(self, world: Any) -> Obs:
        """What a policy sees, (N, ...) each."""

    def reward(self, world: Any) -> Tensor:
        """Reward (N,) float32 of the step that led to ``world``."""

    def success(self, world: Any) -> Tensor:
        """(N,) bool: all that the goal asks for is done; ends the episode."""

    def failure(self, world: Any) -> Tensor:
        """(N,) bool: the episode has ended in another way."""

    def expert(self, world: Any) -> Tensor:
        """Actions (N, Da) float32 that solve the task; to be asked once in every step, as a player goes on by it."""


class Task(Judged, Protocol):
    """One task for ``num_envs`` equal bodies.

    A task holds the goals of the running episodes; everything about episode ``k`` under ``seed`` (scene, start, goal)
    is a pure function of (seed, k) and the body, so that two policies can be compared on the same start states.
    """

    obs_fields: dict[str, Field]  # what ``observe`` returns

    def build(self, spec: mujoco.MjSpec, scene: int) -> None:
        """Add floor, lights and the geometry of a scene to the robot's spec.

        Static geometry hangs on a world child body named ``scene``; geoms are named ``<semantic class>/<index>``.
        """

    def reset(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> list[Start]:
        """Begin episode ``episodes[i]`` in env ``rows[i]``; returns the starts in the same order."""

    def observe(self, world: World) -> Obs:
        """The task's own observations, (N, ...) each."""

    def reward(self, world: World, action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reward (N,) of the step that led to ``world`` by ``action`` (N, 3), and its summands by name."""

    def success(self, world: World) -> Tensor:
        """(N,) bool: the goal is reached; ends the episode."""

    def failure(self, world: World) -> Tensor:
        """(N,) bool: collision or fall; ends the episode."""

    def expert(self, world: World, rng: np.random.Generator) -> Tensor:
        """Twist commands (N, 3) that solve the task, within the body's limits."""


class TaskFactory(Protocol):
    """Builds a task for a body and a batch size."""

    def build(self, embodiment: Embodiment, num_envs: int) -> Task:
        """The task bound to its body."""
