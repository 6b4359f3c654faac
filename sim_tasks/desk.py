"""A desk with seven elements of one joint each, of which a goal wants four: a stand-in for the relay kitchen.

The protocol is the kitchen's as BESO plays it (arXiv 2304.02532): 28 s at 10 Hz, goals are joint values that play
ended at, ``reward`` counts elements done whichever they are and ``result`` those that the goal wanted; with four done
the episode ends. Numbers are not comparable with the kitchen's, whose arm has nine joints and touches what it moves:
here a point gripper takes hold of the nearest handle by a constraint, and nothing collides.

Lengths in m, x to the right, y away from the player, z up. qpos is the gripper's (x, y, z) and the seven elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.gripper import SITE, PointGripper
from omnibody.robots.spec import Body, Field
from omnibody.sim_tasks.desk_elements import ELEMENTS, FULL, NAMES, done, handles
from omnibody.sim_tasks.desk_figures import FOLDS
from omnibody.sim_tasks.desk_player import Player
from omnibody.sim_tasks.tabletop import TabletopCfg, TabletopWorld
from omnibody.sim_tasks.task import Obs

STREAM = 0xDE5C  # keeps this generator apart from others that are seeded by (seed, episode)
WANTED = 4  # elements of a goal
TIME_STEP = 0.005  # [s]


@dataclass
class DeskCfg(TabletopCfg):
    """The desk."""

    scene: str = ""  # there is only one
    max_seconds: float = 28.0  # time limit [s]

    def __post_init__(self) -> None:
        if self.scene:
            raise unknown("scene", self.scene, ("",))

    def build(self, body: Body, num_envs: int) -> Desk:
        """The task at ``num_envs`` desks."""
        if not isinstance(body, PointGripper):
            raise UserError(f"robot: desk wants a point gripper (gripper), came {body.name}")
        return Desk(self, body, num_envs)


@dataclass(frozen=True)
class Episode:
    """A start and a goal: ``gripper`` (3,) [m], the elements' values at ``rest`` and ``goal`` (7,), and the elements
    that the goal wants, in the ``order`` (4,) in which the player does them."""

    gripper: np.ndarray
    rest: np.ndarray
    goal: np.ndarray
    order: np.ndarray


class Desk:
    """The task; ``goal`` (N, 7) holds the wanted value of each desk's elements."""

    name = "desk"
    instruction = "bring the elements of the desk to where the goal has them"
    folds = FOLDS

    def __init__(self, cfg: DeskCfg, body: PointGripper, num_envs: int) -> None:
        self.max_seconds, self.body, self.num_envs = cfg.max_seconds, body, num_envs
        self.goal = np.zeros((num_envs, len(NAMES)))
        self.obs_fields = _obs_fields(body)
        self._players: list[Player | None] = [None] * num_envs

    def model(self) -> mujoco.MjModel:
        """Gripper and elements, without gravity and contacts; constraint k joins the gripper to element k's handle."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = TIME_STEP
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_GRAVITY
        self.body.add_to(spec)
        for element in ELEMENTS:
            element.add_to(spec)
            spec.add_equality(
                name=element.name,
                type=mujoco.mjtEq.mjEQ_CONNECT,
                objtype=mujoco.mjtObj.mjOBJ_SITE,
                name1=SITE,
                name2=element.name,
                active=False,
                solref=[0.04, 1.0],  # soft, as the handle may be 4 cm away when it is taken hold of
            )
        return spec.compile()

    def start(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> np.ndarray:
        """Begin episode ``episodes[i]`` at desk ``rows[i]``; qpos (len(rows), 10)."""
        began = [begin(self.body, seed, int(episode)) for episode in episodes]
        for row, number, one in zip(rows.tolist(), episodes.tolist(), began, strict=True):
            self.goal[row] = one.goal
            self._players[row] = Player(one.order, one.goal, self.body.stride, (seed, number))
        return np.array([np.concatenate([one.gripper, one.rest]) for one in began])

    def place(self, data: mujoco.MjData, qpos: np.ndarray) -> None:
        """Put gripper and elements at ``qpos`` (10,), the servos at rest."""
        data.qpos[:] = qpos
        data.ctrl[:] = qpos[:3]

    def drive(self, data: mujoco.MjData, row: int, action: np.ndarray) -> None:
        """Aim the servos ``action[:3]`` [m] from here; by ``action[3]`` take the nearest handle in reach, or let go.

        What is held stays held until the flag says otherwise.
        """
        data.ctrl[:] = np.clip(data.qpos[:3] + action[:3], self.body.low, self.body.high)
        if action[3] <= 0.5:
            data.eq_active[:] = 0
        elif not data.eq_active.any():
            distance = np.linalg.norm(handles(data.qpos[3:]) - data.qpos[:3], axis=1)
            nearest = int(distance.argmin())
            data.eq_active[nearest] = distance[nearest] < self.body.reach

    def observe(self, world: TabletopWorld) -> Obs:
        """What a policy sees, (N, ...) each; the handles from the gripper."""
        gripper, values = world.qpos[:, :3], world.qpos[:, 3:]
        ways = torch.from_numpy(handles(values.numpy())) - gripper[:, None]
        return {
            "gripper": gripper.float(),
            "grasp": world.eq_active.any(1, keepdim=True).float(),
            "elements": values.float(),
            "handles": ways.flatten(1).float(),
            "goal": torch.from_numpy(self.goal).float(),
        }

    def reward(self, world: TabletopWorld) -> Tensor:
        """How many elements are done, at most four, (N,)."""
        return self.measures(world)["done"]

    def success(self, world: TabletopWorld) -> Tensor:
        """(N,) bool: all that the goal wants is done; ends the episode."""
        return self.measures(world)["wanted_done"] == WANTED

    def failure(self, world: TabletopWorld) -> Tensor:
        """(N,) bool: four elements are done, but not those; ends the episode, too."""
        return (self.measures(world)["done"] == WANTED) & ~self.success(world)

    def measures(self, world: TabletopWorld) -> dict[str, Tensor]:
        """How many elements are ``done``, at most four, and of those that the goal wants ``wanted_done``, (N,) each."""
        is_done = done(world.qpos[:, 3:].numpy())
        counts = {"done": np.minimum(is_done.sum(1), WANTED), "wanted_done": (is_done & done(self.goal)).sum(1)}
        return {name: torch.from_numpy(count).float() for name, count in counts.items()}

    def path(self, world: TabletopWorld) -> Tensor:
        """The gripper's (x, y, z) [m], the elements' values and the goal's, (N, 17)."""
        return torch.cat([world.qpos, torch.from_numpy(self.goal)], 1)

    def failures(self, world: TabletopWorld) -> list[str]:
        """The one way to fail."""
        return ["others done"] * self.num_envs

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """``gripper_path``: how far the gripper moved [m]."""
        return {"gripper_path": float(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1).sum())}

    def expert(self, world: TabletopWorld) -> Tensor:
        """The players' actions (N, 4)."""
        qpos, held = world.qpos.numpy(), world.eq_active.numpy()
        actions = [player.act(*now) for player, *now in zip(self._players, qpos, held, strict=True) if player]
        return torch.from_numpy(np.array(actions)).float()


def begin(body: PointGripper, seed: int, episode: int) -> Episode:
    """What an episode of ``seed`` begins with: the gripper in the middle, elements near 0, four wanted near full."""
    rng = np.random.default_rng([STREAM, seed, episode])
    low, high = np.array(body.low), np.array(body.high)
    gripper = low + rng.uniform(0.25, 0.75, 3) * (high - low)
    rest = FULL * rng.normal(0.0, 0.02, len(FULL)).clip(-0.05, 0.05)
    order = rng.permutation(len(FULL))[:WANTED]
    goal = rest.copy()
    goal[order] = FULL[order] * rng.uniform(0.9, 1.05, WANTED)
    return Episode(gripper, rest, goal, order)


def _obs_fields(body: PointGripper) -> dict[str, Field]:
    low, high = zip(*(element.limits for element in ELEMENTS), strict=True)
    units = ",".join("m" if element.pivot is None else "rad" for element in ELEMENTS)
    values = Field((len(NAMES),), "float32", units, tuple(2 * v for v in low), tuple(2 * v for v in high), NAMES)
    ways = tuple(f"{name}_{axis}" for name in NAMES for axis in "xyz")
    return {
        "gripper": Field((3,), "float32", "m", body.low, body.high, ("x", "y", "z")),
        "grasp": Field((1,), "float32", "1", (0.0,), (1.0,), ("holds",)),
        "elements": values,
        "handles": Field((len(ways),), "float32", "m", (-1.0,), (1.0,), ways),
        "goal": values,
    }
