"""Block push: push two blocks into two targets with a round tip, either block into either target, in either order.

The task of Florence et al. (arXiv 2109.00137) in its form with several ways to solve it (Shafiullah et al., arXiv
2206.11251), with BESO's goals (arXiv 2304.02532). Starts, targets, tolerance and time limit are theirs. Ours are the
engine, MuJoCo in place of PyBullet, the tip on a servo in place of an arm, and two things in what is seen: of a block's
yaw cosine and sine of four times the angle, which are the same for poses of a square that look the same, and the blocks
from where the tip is told to be. Compare protocols, not figures.

A goal says where both blocks are to end: where a demonstration would leave them, short of the centre of the target that
the episode asks for (even odds). Metres on a table, 10 Hz; the action moves the tip's commanded position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.plant import GROUP_OBJECT, GROUP_SCENE
from omnibody.robots.spec import Body, Field
from omnibody.robots.tip import PlanarTip
from omnibody.sim_tasks.block_push_figures import FOLDS, shown
from omnibody.sim_tasks.block_push_player import HOME, Player
from omnibody.sim_tasks.tabletop import TabletopCfg, TabletopWorld
from omnibody.sim_tasks.task import Obs

STREAM, PLAYER = 0xB10C, 0xB10D  # keep these generators apart from others that are seeded by (seed, episode)
TICK = 0.01  # [s]
HALF = 0.02  # half a block's edge [m]
BLOCK_MASS, FRICTION = 0.1, 0.5
COLOURS = ((0.84, 0.37, 0.0, 1.0), (0.8, 0.47, 0.65, 1.0))
MIDDLE = np.array([0.4, -0.2])  # of the blocks' starts [m]
SPREAD = np.array([0.1, 0.15])
APART = 0.1  # between the blocks at least
SIDE, AHEAD, JITTER = 0.12, 0.2, np.array([0.005, 0.0075])  # targets at x = 0.4 -+ SIDE, y = AHEAD, and the jitter
TARGETS_APART = 0.12  # at least
IN_TARGET = 0.05  # [m]; how near to a target's centre a block's counts as in it
SHORT = (0.02, 0.04)  # [m]; how far before a target's centre demonstrations leave blocks


@dataclass
class BlockPushCfg(TabletopCfg):
    """Two blocks, two targets."""

    scene: str = ""  # there is one
    max_seconds: float = 35.0  # time limit [s]

    def __post_init__(self) -> None:
        if self.scene:
            raise unknown("scene", self.scene, [""])

    def build(self, body: Body, num_envs: int) -> BlockPush:
        """The task on ``num_envs`` tables."""
        if not isinstance(body, PlanarTip):
            raise UserError(f"robot: block_push wants a tip on a table (tip), came {body.name}")
        return BlockPush(self, body, num_envs)


class BlockPush:
    """The task; ``goal`` (N, 4) holds the wanted x, y of both blocks, ``targets`` (N, 2, 2) where the targets are and
    ``asked`` (N, 2) the target of each block."""

    name = "block_push"
    instruction = "push both blocks to where the goal shows them"
    folds = FOLDS

    def __init__(self, cfg: BlockPushCfg, body: PlanarTip, num_envs: int) -> None:
        self.max_seconds, self.body, self.num_envs = cfg.max_seconds, body, num_envs
        self.goal, self.targets = np.zeros((num_envs, 4)), np.zeros((num_envs, 2, 2))
        self.asked = np.zeros((num_envs, 2), np.int64)
        self.obs_fields = _obs_fields(body)
        self._players: list[Player | None] = [None] * num_envs

    def model(self) -> mujoco.MjModel:
        """A table, two free blocks (qpos 0 ... 13) and the tip (14, 15)."""
        spec = mujoco.MjSpec()
        spec.option.timestep = TICK
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        friction = [FRICTION, 0.005, 0.0001]
        spec.worldbody.add_geom(
            name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], friction=friction, group=GROUP_SCENE
        )
        for number, colour in enumerate(COLOURS):
            block = spec.worldbody.add_body(name=f"block{number}", pos=[0.3 + 0.2 * number, 0.0, HALF])
            block.add_freejoint(name=f"block{number}")
            block.add_geom(
                name=f"block{number}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[HALF, HALF, HALF],
                mass=BLOCK_MASS,
                friction=friction,
                group=GROUP_OBJECT,
                rgba=colour,
            )
        self.body.add_to(spec)
        return spec.compile()

    def start(self, rows: np.ndarray, episodes: np.ndarray, seed: int) -> np.ndarray:
        """Blocks, targets and goals of new episodes; qpos (len(rows), 16)."""
        qpos = np.zeros((len(rows), 16))
        for index, (row, episode) in enumerate(zip(rows, episodes, strict=True)):
            rng = np.random.default_rng([STREAM, seed, int(episode)])
            blocks, yaws = _blocks(rng), rng.uniform(-math.pi, math.pi, 2)
            self.targets[row] = targets = _targets(rng)
            self.asked[row] = asked = rng.permutation(2)
            self.goal[row] = _ends(blocks, targets[asked], rng).ravel()
            self._players[row] = Player(asked, np.random.default_rng([PLAYER, seed, int(episode)]))
            for number in range(2):
                half = yaws[number] / 2
                pose = (*blocks[number], HALF, math.cos(half), 0.0, 0.0, math.sin(half))
                qpos[index, 7 * number : 7 * number + 7] = pose
            qpos[index, 14:] = HOME
        return qpos

    def place(self, data: mujoco.MjData, qpos: np.ndarray) -> None:
        """Put blocks and tip; the tip is told to stay."""
        data.qpos[:] = qpos
        data.ctrl[:] = qpos[14:]

    def drive(self, data: mujoco.MjData, row: int, action: np.ndarray) -> None:
        """Move the tip's commanded position by ``action`` (2,) [m], as far as the workspace goes."""
        data.ctrl[:] = np.clip(data.ctrl + action, self.body.low, self.body.high)

    def observe(self, world: TabletopWorld) -> Obs:
        """What a policy sees, (N, ...) each."""
        blocks, turn = _positions(world), 4.0 * _yaws(world)
        seen = {
            "blocks": blocks.flatten(1),
            "turns": torch.stack([turn.cos(), turn.sin()], 2).flatten(1),
            "tip": world.qpos[:, 14:],
            "tip_target": world.ctrl,
            "from_tip": (blocks - world.ctrl[:, None]).flatten(1),
            "targets": torch.from_numpy(self.targets.reshape(-1, 4).copy()),
            "goal": torch.from_numpy(self.goal.copy()),
        }
        return {key: values.float() for key, values in seen.items()}

    def reward(self, world: TabletopWorld) -> Tensor:
        """Share of the blocks that stand in targets, each in another one, (N,)."""
        return (self._matches(world).sum(2).amax(1) / 2).float()

    def success(self, world: TabletopWorld) -> Tensor:
        """(N,) bool: each block is in the target that is asked for; ends the episode."""
        return self._in_asked(world).all(1)

    def failure(self, world: TabletopWorld) -> Tensor:
        """(N,) bool: both blocks are in targets, but each in the other's; ends the episode, as in the original."""
        return (self.reward(world) == 1.0) & ~self.success(world)

    def measures(self, world: TabletopWorld) -> dict[str, Tensor]:
        """``distance``: mean distance of the blocks to the targets asked for [m], (N,)."""
        distance = (_positions(world) - torch.from_numpy(self._asked_targets())).norm(dim=2)
        return {"distance": distance.mean(1).float()}

    def path(self, world: TabletopWorld) -> Tensor:
        """The tip x, y, the blocks x, y each, the targets x, y each [m], and the first block's target, (N, 11)."""
        facts = np.concatenate([self.targets.reshape(-1, 4), self.asked[:, :1]], 1)
        return torch.cat([world.qpos[:, 14:], _positions(world).flatten(1), torch.from_numpy(facts)], 1)

    def poses(self, world: TabletopWorld) -> tuple[np.ndarray, np.ndarray]:
        """Of the blocks: x, y (N, 2, 2) [m] and yaw (N, 2) [rad]."""
        return _positions(world).numpy(), _yaws(world).numpy()

    def failures(self, world: TabletopWorld) -> list[str]:
        """The only way to fail."""
        return ["swapped"] * self.num_envs

    def conclude(self, outcome: str, path: np.ndarray, dt: float) -> dict[str, float]:
        """What `block_push_figures.shown` makes of the blocks' way; the episode's facts are those of its first row."""
        blocks, targets = path[:, 2:6].reshape(-1, 2, 2), path[0, 6:10].reshape(2, 2)
        is_in = np.linalg.norm(blocks[:, :, None] - targets, axis=3) < IN_TARGET
        return shown(is_in, int(path[0, 10]))

    def expert(self, world: TabletopWorld) -> Tensor:
        """The player's displacements (N, 2)."""
        tip, (blocks, yaws), actions = world.ctrl.numpy(), self.poses(world), []
        for row, player in enumerate(self._players):
            assert player is not None, "start the episodes first"
            actions.append(player.act(tip[row], blocks[row], yaws[row], self.targets[row]))
        return torch.from_numpy(np.array(actions)).float()

    def _asked_targets(self) -> np.ndarray:
        """Where each block is to go (N, 2, 2)."""
        return np.take_along_axis(self.targets, self.asked[:, :, None], 1)

    def _in_asked(self, world: TabletopWorld) -> Tensor:
        return (_positions(world) - torch.from_numpy(self._asked_targets())).norm(dim=2) < IN_TARGET

    def _matches(self, world: TabletopWorld) -> Tensor:
        """(N, 2, 2) bool: whether a block (last axis) is in its target, as one matches them straight or crossed."""
        apart = _positions(world)[:, None] - torch.from_numpy(np.stack([self.targets, self.targets[:, ::-1]], 1))
        return apart.norm(dim=3) < IN_TARGET


def _positions(world: TabletopWorld) -> Tensor:
    """Of the blocks (N, 2, 2) [m]."""
    return world.qpos[:, :14].view(-1, 2, 7)[:, :, :2]


def _yaws(world: TabletopWorld) -> Tensor:
    """Of the blocks (N, 2) [rad]."""
    w, x, y, z = world.qpos[:, :14].view(-1, 2, 7)[:, :, 3:].unbind(2)
    return torch.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _blocks(rng: np.random.Generator) -> np.ndarray:
    """Where the blocks begin (2, 2) [m]."""
    while True:
        blocks = MIDDLE + SPREAD * rng.uniform(-1, 1, (2, 2))
        if np.linalg.norm(blocks[0] - blocks[1]) >= APART:
            return blocks


def _targets(rng: np.random.Generator) -> np.ndarray:
    """Where the targets are (2, 2) [m], the first one on either side."""
    side = SIDE * rng.choice([-1.0, 1.0])
    while True:
        targets = np.array([[0.4 - side, AHEAD], [0.4 + side, AHEAD]]) + JITTER * rng.uniform(-1, 1, (2, 2))
        if np.linalg.norm(targets[0] - targets[1]) >= TARGETS_APART:
            return targets


def _ends(blocks: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where demonstrations leave ``blocks`` (2, 2) that go to ``targets`` (2, 2): on their way, near the centre."""
    way = targets - blocks
    return targets - rng.uniform(*SHORT, (2, 1)) * way / np.linalg.norm(way, axis=1, keepdims=True)


def _obs_fields(body: PlanarTip) -> dict[str, Field]:
    low, high, both = 2 * body.low, 2 * body.high, ("x0", "y0", "x1", "y1")
    width = tuple(float(b - a) for a, b in zip(low, high, strict=True))
    places = Field((4,), "float32", "m", low, high, both)
    place = Field((2,), "float32", "m", body.low, body.high, ("x", "y"))
    return {
        "blocks": places,
        "turns": Field((4,), "float32", "1", (-1.0,), (1.0,), ("cos0", "sin0", "cos1", "sin1")),
        "tip": place,
        "tip_target": place,
        "from_tip": Field((4,), "float32", "m", tuple(-one for one in width), width, both),
        "targets": places,
        "goal": places,
    }
