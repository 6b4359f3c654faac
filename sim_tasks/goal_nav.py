"""Point-goal navigation with heading: reach (x, y, yaw) among obstacles without touching any.

Observations, in the heading frame: ``route`` (10, 4), ``goal`` (4,) and, for a critic only, ``privileged`` (28,).
Everything is computed from the world passed in, so there is no lag between a reset or a step and what is observed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.spec import Embodiment, Field
from omnibody.sim_tasks.expert import Follower
from omnibody.sim_tasks.families import ALL, FAMILIES, SPLITS, split_scene
from omnibody.sim_tasks.goal_nav_figures import FOLDS, stood_still
from omnibody.sim_tasks.goal_nav_survey import COST_RANGE, NUM_RAYS, RAY_RANGE, into_headings, survey
from omnibody.sim_tasks.planner import Roadmap, roadmap, routes, sample, straight_routes, whole_way
from omnibody.sim_tasks.pose_planner import HEADINGS, heading_matters, pose_cost
from omnibody.sim_tasks.ros_map import load_ros_map
from omnibody.sim_tasks.scene import Grid, Scene
from omnibody.sim_tasks.task import Obs, Start, World

TRIES = 100  # goals drawn for one episode
Pose = tuple[float, float, float]  # x [m], y [m], yaw [rad] in the world
SCENES = (*FAMILIES, ALL, "map")


@dataclass
class GoalNavCfg:
    """The task's knobs.

    ``heading_tolerance`` counts only for bodies that turn in place (min_turning_radius 0): a car cannot correct its
    heading without leaving the goal.
    """

    scene: str = "office"  # a family of scenes, "all" of them, or "map"
    map: str = ""  # YAML of a ROS map_server map, with scene=map
    split: str = "train"  # whose scenes: train or test
    num_scenes: int = 128  # that take turns
    route: str = "astar"  # what the policy is shown: the planned way, or "line", straight as the original
    reward: str = "geodesic"  # or "compass_exact", the original's terms
    max_seconds: float = 45.0  # time limit [s]
    min_distance: float = 2.0  # from start to goal, as the crow flies [m]
    max_distance: float = 7.0  # the same [m]
    max_way: float = 12.0  # the shortest way is at most this long [m]
    goal_tolerance: float = 0.5  # [m]
    heading_tolerance: float = 0.1  # [rad]
    speed_tolerance: float = 0.1  # counts as at rest [m/s]
    turn_tolerance: float = 0.1  # counts as at rest [rad/s]

    def __post_init__(self) -> None:
        choices = {"scene": SCENES, "split": SPLITS, "route": ("astar", "line"), "reward": tuple(REWARDS)}
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise unknown(key, getattr(self, key), allowed)
        if (self.scene == "map") != bool(self.map):
            raise UserError(f"scene=map and map=<map.yaml> go together; came scene={self.scene} map={self.map!r}")
        if self.num_scenes < 1 or not 0.0 <= self.min_distance < self.max_distance:
            came = f"{self.num_scenes}, {self.min_distance}, {self.max_distance}"
            raise UserError(f"goal_nav: wanted num_scenes >= 1 and 0 <= min_distance < max_distance; came {came}")

    def build(self, embodiment: Embodiment, num_envs: int) -> GoalNav:
        """The task for ``num_envs`` of a body."""
        return GoalNav(self, embodiment, num_envs)


@dataclass(frozen=True)
class _Survey:
    """(N,) each: ``success``, ``failure`` bool, ``distance`` to the goal [m], ``heading`` error in (-pi, pi] [rad],
    ``cost`` to go [m], ``clearance`` [m]; ``privileged`` (N, 28) and ``goal`` (N, 4) as observed."""

    success: np.ndarray
    failure: np.ndarray
    distance: np.ndarray
    heading: np.ndarray
    cost: np.ndarray
    clearance: np.ndarray
    privileged: np.ndarray
    goal: np.ndarray


class GoalNav:
    """``Task`` of point-goal navigation; see the module's and ``GoalNavCfg``'s words."""

    instruction = "go to the goal pose without touching anything"
    folds = FOLDS

    def __init__(self, cfg: GoalNavCfg, embodiment: Embodiment, num_envs: int) -> None:
        self.cfg = cfg
        self.embodiment = embodiment
        self.num_envs = num_envs
        self.name = f"goal_nav/{cfg.scene}"
        self.max_seconds = cfg.max_seconds
        self.num_scenes = 1 if cfg.scene == "map" else cfg.num_scenes
        self._roadmaps: dict[int, Roadmap] = {}
        self.grid: Grid = self.roadmap(0).scene.grid
        shape = (num_envs, *self.grid.shape)
        self.goal = np.zeros((num_envs, 3))  # x, y [m], yaw [rad] in the world
        self.shortest = np.zeros(num_envs)  # length of the shortest feasible way from the start [m]
        self._cost = np.zeros(shape, np.float32)
        self._move = np.full(shape, -1, np.int8)
        self._nearest = np.zeros(shape, np.int32)
        self._distance = np.zeros(shape, np.float32)
        self._last_cost = np.zeros(num_envs, np.float32)  # of the previous step, for the reward
        self._last_action = np.zeros((num_envs, 3), np.float32)
        self._surveyed: tuple[World, _Survey] | None = None
        self._follower = Follower(embodiment)
        self._expert_cost = self._cost[:, None]
        self._goal_cells = np.zeros((num_envs, 2), np.int64)  # scene and flat cell
        self._posed = heading_matters(embodiment.footprint, embodiment.limits)
        self._stale = np.zeros(num_envs, bool)  # the expert's cost over headings is made when first asked for
        if self._posed:
            self._expert_cost = np.zeros((num_envs, len(HEADINGS), *self.grid.shape), np.float32)
        self._outline = _rectangle_outline(embodiment.footprint.length, embodiment.footprint.width)
        self.obs_fields = _obs_fields(cfg, embodiment)

    def scene(self, index: int) -> Scene:
        """Scene ``index`` of this task's split."""
        return self.roadmap(index).scene

    def roadmap(self, index: int) -> Roadmap:
        """Where the body can go in scene ``index``."""
        if index not in self._roadmaps:
            if not 0 <= index < self.num_scenes:
                raise ValueError(f"task {self.name} has scenes 0 to {self.num_scenes - 1}, asked for {index}")
            if self.cfg.scene == "map":
                scene = load_ros_map(self.cfg.map)
            else:
                scene = split_scene(self.cfg.scene, self.cfg.split, index)
            self._roadmaps[index] = roadmap(scene, self.embodiment.footprint)
        return self._roadmaps[index]

    def build(self, spec: mujoco.MjSpec, scene: int) -> None:
        """Add floor, light and the boxes of a scene to the robot's spec."""
        self.scene(scene).extrude(spec)

    def reset(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> list[Start]:
        """Begin episode ``episodes[i]`` in env ``rows[i]``; scenes take turns, start and goal are drawn."""
        starts = []
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            scene = episode % self.num_scenes
            start, goal = self._draw(scene, np.random.default_rng([seed, episode]))
            starts.append(self.place(row, scene, start, goal))
        return starts

    def place(self, row: int, scene: int, start: Pose, goal: Pose) -> Start:
        """Begin an episode of one's own choice in env ``row``, from pose to pose (x [m], y [m], yaw [rad])."""
        ways = self.roadmap(scene)
        cells = ways.scene.grid.cells(np.array([start[:2], goal[:2]]))
        for label, pose, cell in zip(("start", "goal"), (start, goal), cells, strict=True):
            if not ways.open.flat[cell]:
                raise UserError(
                    f"{ways.scene.name}: the {label} ({pose[0]:.2f}, {pose[1]:.2f}) is in or too near an obstacle for"
                    f" {self.embodiment.name}, or cut off from the rest; choose another"
                )
        self.goal[row], self.shortest[row] = goal, ways.lengths(int(cells[1])).flat[cells[0]]
        self._cost[row], self._move[row] = ways.fields(int(cells[1]))
        self._nearest[row], self._distance[row] = ways.nearest, ways.scene.distance
        self._surveyed = None
        self._goal_cells[row], self._stale[row] = (scene, cells[1]), self._posed
        self._last_action[row] = 0.0
        here = np.array([[start[:2]]])
        self._last_cost[row] = sample(self._cost[row : row + 1], here, self.grid.origin, self.grid.resolution)[0, 0]
        return Start(scene, start)

    def _draw(self, scene: int, rng: np.random.Generator) -> tuple[Pose, Pose]:
        """Draw the start and the goal of an episode."""
        ways, cfg = self.roadmap(scene), self.cfg
        centres = ways.scene.grid.centres()[ways.stations]
        for _ in range(TRIES if len(centres) else 0):
            goal = int(rng.integers(len(centres)))
            apart = np.linalg.norm(centres - centres[goal], axis=1)
            near = np.flatnonzero((apart >= cfg.min_distance) & (apart <= cfg.max_distance))
            if len(near) == 0:
                continue
            near = near[ways.lengths(int(ways.stations[goal])).flat[ways.stations[near]] <= cfg.max_way]
            if len(near) == 0:
                continue
            start = int(near[rng.integers(len(near))])
            yaw, goal_yaw = (float(v) for v in rng.uniform(-math.pi, math.pi, 2))
            (x, y), (goal_x, goal_y) = centres[start].tolist(), centres[goal].tolist()
            return (x, y, yaw), (goal_x, goal_y, goal_yaw)
        raise UserError(
            f"{ways.scene.name}: no start and goal {cfg.min_distance} to {cfg.max_distance} m apart that"
            f" {self.embodiment.name} ({self.embodiment.footprint.length} x {self.embodiment.footprint.width} m) can"
            " drive between; use a map with more free space or a smaller body"
        )

    def observe(self, world: World) -> Obs:
        """``route`` (N, 10, 4), ``goal`` (N, 4) and ``privileged`` (N, 28), float32, heading frame."""
        position, yaw = _planar_pose(world)
        if self.cfg.route == "line":
            ways = straight_routes(position, self.goal[:, :2])
        else:
            ways = routes(self._move, self._nearest, position, self.goal[:, :2], self.grid)
        seen = self._survey(world)
        shown = {"route": into_headings(ways, position, yaw), "goal": seen.goal, "privileged": seen.privileged}
        return {key: torch.from_numpy(values) for key, values in shown.items()}

    def way(self, row: int, position: np.ndarray) -> np.ndarray:
        """The way (K, 2) [m, world] that ``route`` shows the first ten segments of, from ``position`` (2,)."""
        goal = self.goal[row, :2]
        if self.cfg.route == "line":
            return np.stack((position, goal))
        return whole_way(self._move[row], self._nearest[row], position, goal, self.grid)

    def reward(self, world: World, action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reward (N,) of a step and its terms; call once per step, as progress is against the previous call."""
        terms = REWARDS[self.cfg.reward](self, self._survey(world), action.numpy())
        values = np.stack(tuple(terms.values()), dtype=np.float32, casting="same_kind")
        return torch.from_numpy(values.sum(axis=0)), dict(zip(terms, torch.from_numpy(values).unbind(), strict=True))

    def success(self, world: World) -> Tensor:
        """(N,) bool: near the goal, at rest, and turned the right way if the body can turn in place; no contact."""
        return torch.from_numpy(self._survey(world).success)

    def failure(self, world: World) -> Tensor:
        """(N,) bool: touched something, tilted by more than 60 degrees, or sank by half the base's height."""
        return torch.from_numpy(self._survey(world).failure)

    def _survey(self, world: World) -> _Survey:
        """What observation, reward, success, failure and measures all ask of one world, worked out once."""
        if self._surveyed is None or self._surveyed[0] is not world:
            cfg, twist, grid = self.cfg, world.twist.numpy(), self.grid
            position, yaw = _planar_pose(world)
            privileged, goal, figures = survey(
                self._cost, self._distance, position, yaw, self.goal, self._outline, grid.origin, grid.resolution
            )
            distance, heading, cost, clearance = figures
            failure = self._broken(world)
            moves = np.hypot(twist[:, 0], twist[:, 1]) >= cfg.speed_tolerance
            turns = np.abs(twist[:, 2]) >= cfg.turn_tolerance
            success = (distance < cfg.goal_tolerance) & ~(moves | turns | failure)
            if self.turns_in_place:
                success &= np.abs(heading) < cfg.heading_tolerance
            found = _Survey(success, failure, distance, heading, cost, clearance, privileged, goal)
            self._surveyed = world, found
        return self._surveyed[1]

    def _broken(self, world: World) -> np.ndarray:
        quaternion, height = world.quaternion.numpy(), self.embodiment.base_height
        x, y = quaternion[:, 1], quaternion[:, 2]
        tilted = 1.0 - 2.0 * (x * x + y * y) < 0.5
        # At least 5 cm, as the base of a flat body may rest on the floor itself.
        sunk = world.position[:, 2].numpy() < height - max(0.5 * height, 0.05)
        return world.contact.numpy() | tilted | sunk

    def expert(self, world: World, rng: np.random.Generator) -> Tensor:
        """Twist commands (N, 3) of the route follower; deterministic, nothing is drawn from ``rng``."""
        position, yaw = _planar_pose(world)
        twist = np.concatenate((world.linear[:, :2].numpy(), world.angular[:, 2:].numpy()), axis=1).astype(np.float64)
        pose = np.concatenate((position, yaw[:, None]), axis=1)
        for row in np.flatnonzero(self._stale):
            scene, cell = self._goal_cells[row]
            limits = self.embodiment.limits
            self._expert_cost[row] = pose_cost(self.roadmap(int(scene)), limits, int(cell), self._cost[row])
        self._stale[:] = False
        return _tensor(self._follower.command(pose, twist, self.goal, self._expert_cost, self._distance, self.grid))

    def measures(self, world: World) -> dict[str, Tensor]:
        """Per step (N,): see the keys; lengths [m], ``heading_error`` [rad]."""
        seen = self._survey(world)
        return {
            "clearance": torch.from_numpy(seen.clearance),
            "goal_distance": torch.from_numpy(seen.distance),
            "heading_error": torch.from_numpy(np.abs(seen.heading)),
            "cost_to_go": torch.from_numpy(seen.cost),
            "shortest_way": _tensor(self.shortest),
        }

    def path(self, world: World) -> Tensor:
        """Ground poses (N, 3): x [m], y [m], yaw [rad]."""
        return torch.cat([world.position[:, :2], world.yaw[:, None]], 1)

    def failures(self, world: World) -> list[str]:
        """ "collision", or "fall" without a contact (N)."""
        return ["collision" if touched else "fall" for touched in world.contact.tolist()]

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """``path_length`` [m], and whether an episode that timed out was ``stuck``."""
        length = float(np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum())
        return {"path_length": length, "stuck": float(outcome == "timeout" and stood_still(path[:, :2], dt))}

    @property
    def turns_in_place(self) -> bool:
        """Whether the goal's heading counts."""
        return self.embodiment.limits.min_turning_radius == 0.0


def _geodesic(task: GoalNav, seen: _Survey, action: np.ndarray) -> dict[str, np.ndarray]:
    """Progress along the planned way, so that dead ends pay nothing; the sum of ``progress`` telescopes."""
    terms = {
        "progress": task._last_cost - seen.cost,
        "goal": 10.0 * seen.success,
        "collision": -10.0 * seen.failure,
        "time": np.full(task.num_envs, -0.01),
        "action_rate": -0.02 * np.square(action - task._last_action).sum(axis=1),
    }
    task._last_cost[:], task._last_action[:] = seen.cost, action
    return terms


def _compass_exact(task: GoalNav, seen: _Survey, action: np.ndarray) -> dict[str, np.ndarray]:
    """The original's weights times its step of 0.1 s, with the present distance instead of the last step's."""
    return {"distance": -0.1 * seen.distance, "goal": 200.0 * seen.success, "collision": -100.0 * seen.failure}


REWARDS = {"geodesic": _geodesic, "compass_exact": _compass_exact}


def _obs_fields(cfg: GoalNavCfg, embodiment: Embodiment) -> dict[str, Field]:
    """What ``observe`` returns. A way shorter than ten segments ends within 10 m; the goal may be driven away from."""
    fastest = np.maximum(np.abs(embodiment.limits.velocity_low), embodiment.limits.velocity_high)
    far = 2.0 * (cfg.max_distance + math.hypot(*fastest[:2]) * cfg.max_seconds)
    rays = tuple(f"ray_{i}" for i in range(NUM_RAYS))
    return {
        "route": Field((10, 4), "float32", "m", (-far,), (far,), ("x0", "y0", "x1", "y1")),
        "goal": Field(
            (4,), "float32", "m,m,1,1", (-far, -far, -1.0, -1.0), (far, far, 1.0, 1.0), ("x", "y", "cos", "sin")
        ),
        "privileged": Field(
            (NUM_RAYS + 4,),
            "float32",
            "m",
            (*(0.0,) * NUM_RAYS, -100.0, 0.0, -1.0, -1.0),
            (*(RAY_RANGE,) * NUM_RAYS, 100.0, COST_RANGE, 1.0, 1.0),
            (*rays, "clearance", "cost_to_go", "descent_cos", "descent_sin"),
        ),
    }


def _planar_pose(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Ground position (N, 2) [m] and yaw (N,) [rad] of the base, float64."""
    return world.position[:, :2].numpy().astype(np.float64), world.yaw.numpy().astype(np.float64)


def _tensor(array: np.ndarray) -> Tensor:
    """A float32 tensor of its own."""
    return torch.from_numpy(np.array(array, np.float32))


def _rectangle_outline(length: float, width: float) -> np.ndarray:
    """Points on the edge of a rectangle at most 5 cm apart, (P, 2) [m]."""
    x, y = (np.linspace(-0.5, 0.5, max(3, math.ceil(size / 0.05) + 1)) * size for size in (length, width))
    sides = [np.stack((x, np.full_like(x, s * width)), 1) for s in (-0.5, 0.5)]
    ends = [np.stack((np.full_like(y, s * length), y), 1) for s in (-0.5, 0.5)]
    return np.concatenate(sides + ends)
