"""Block push: its starts and goals, how it judges, and that its player solves it in all four orders."""

import math

import numpy as np
import pytest
import torch

from omnibody.envs.any_task import make_task_env
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_body
from omnibody.robots.tip import TIP
from omnibody.sim_tasks.block_push import IN_TARGET, BlockPush, BlockPushCfg
from omnibody.sim_tasks.block_push_figures import FIGURES, entropy, shown
from omnibody.sim_tasks.tabletop import TabletopWorld
from omnibody.training.rollout import rollout


def started(num: int, seed: int = 3) -> tuple[BlockPush, TabletopWorld]:
    task = BlockPushCfg().build(TIP, num)
    return task, world_at(task.start(np.arange(num), np.arange(num), seed))


def world_at(qpos: np.ndarray) -> TabletopWorld:
    num = len(qpos)
    state, none = torch.from_numpy(qpos.copy()), torch.zeros(num, 0)
    return TabletopWorld(torch.zeros(num), state, torch.zeros(num, 14), state[:, 14:], none, none.bool())


def test_starts_and_goals_are_the_originals() -> None:
    """Of 400 fair draws 140 to 260 show one side but for a chance of 2e-9."""
    task, world = started(400)
    blocks, yaws = task.poses(world)
    assert (abs(blocks - [0.4, -0.2]) <= [0.1, 0.15]).all() and np.ptp(yaws) > 6.0
    assert np.linalg.norm(blocks[:, 0] - blocks[:, 1], axis=1).min() >= 0.1
    assert (abs(abs(task.targets[..., 0] - 0.4) - 0.12) <= 0.005).all()
    assert (abs(task.targets[..., 1] - 0.2) <= 0.0075).all()
    asked = task.targets[np.arange(400)[:, None], task.asked]
    assert np.linalg.norm(task.goal.reshape(-1, 2, 2) - asked, axis=2).max() < IN_TARGET
    for side in (task.targets[:, 0, 0] > 0.4, task.asked[:, 0] == 1, (task.targets[:, 0, 0] > 0.4) == task.asked[:, 0]):
        assert 140 < side.sum() < 260
    obs = task.observe(world)
    assert obs.keys() == task.obs_fields.keys()
    for key, field in task.obs_fields.items():
        low, high = (torch.tensor(bound) for bound in (field.low, field.high))
        assert obs[key].shape == (400, *field.shape) and ((obs[key] >= low) & (obs[key] <= high)).all(), key


def test_a_quarter_turn_of_a_block_is_not_seen() -> None:
    task, world = started(1)
    qpos = world.qpos.numpy().copy()
    for turn, is_same in ((math.pi / 2, True), (math.pi / 4, False)):
        half = task.poses(world)[1][0, 0] / 2 + turn / 2
        qpos[0, 3:7] = math.cos(half), 0.0, 0.0, math.sin(half)
        seen = task.observe(world_at(qpos))["turns"]
        assert torch.allclose(seen, task.observe(world)["turns"], atol=1e-5) is is_same


@pytest.mark.parametrize(
    ("targets", "reward", "success", "failure"),
    [
        ((0, 1), 1.0, True, False),
        ((1, 0), 1.0, False, True),
        ((0, 0), 0.5, False, False),
        ((1, None), 0.5, False, False),
    ],
)
def test_blocks_in_targets(targets: tuple[int | None, ...], reward: float, success: bool, failure: bool) -> None:
    """Where the first block is asked into the first target."""
    task, world = started(1)
    task.asked[0] = 0, 1
    qpos = world.qpos.numpy().copy()
    for block, target in enumerate(targets):
        if target is not None:
            qpos[0, 7 * block : 7 * block + 2] = task.targets[0, target] + [0.0, 0.049 - 0.098 * block]
    world = world_at(qpos)
    assert (float(task.reward(world)), bool(task.success(world)), bool(task.failure(world))) == (
        reward,
        success,
        failure,
    )
    for block in range(2):  # a centimetre further, and none is in
        qpos[0, 7 * block + 1] += 0.01 - 0.02 * block
    assert float(task.reward(world_at(qpos))) == 0.0


def test_what_an_episode_showed() -> None:
    is_in = np.zeros((6, 2, 2), bool)
    assert shown(is_in, 0) == {"reward": 0.0, "result": 0.0, "asked": 0.0, "order": -1.0}
    is_in[2:4, 1, 0] = True  # the second block enters the first target, leaves it, and enters the other
    is_in[5, 1, 1] = True
    assert shown(is_in, 0) == {"reward": 1.0, "result": 0.5, "asked": 0.0, "order": 2.0}
    assert shown(is_in, 1)["result"] == 0.5
    is_in[4, 0, 0] = True  # a third pair counts no more
    assert shown(is_in, 0)["reward"] == 1.0 and shown(is_in, 0)["result"] == 1.0


def test_entropy_of_orders() -> None:
    assert entropy(np.array([0, 1, 2, 3])) == pytest.approx(math.log(4))
    assert entropy(np.array([1, 1])) == entropy(np.array([])) == 0.0
    of = {figure.name: figure.of for figure in FIGURES.figures}
    episodes = {"order": np.array([0.0, 3, 1, 2, -1]), "asked": np.array([0.0, 0, 1, 1, 0])}
    assert of["mode_entropy"](episodes) == pytest.approx(math.log(4))
    assert of["mode_entropy_given_goal"](episodes) == pytest.approx(math.log(2))
    one_way = {"order": np.array([0.0, 0, 1, 1]), "asked": np.array([0.0, 0, 1, 1])}
    assert of["mode_entropy"](one_way) == pytest.approx(math.log(2)) and of["mode_entropy_given_goal"](one_way) == 0.0


def test_the_player_solves_it_in_all_orders() -> None:
    """It solves 99 of 100, so fewer than 21 of 24 once in 10^4; that one of four even orders is missing, 4e-3 of seeds
    but never of this one."""
    records = rollout(None, make_task_env(TIP, BlockPushCfg(), 8), 24, 1)
    assert sum(record.success for record in records) >= 21
    assert {record.measures["order"] for record in records} == {0.0, 1.0, 2.0, 3.0}
    for record in records:
        assert record.measures["result"] == 1.0 or not record.success


def test_another_body_is_refused() -> None:
    with pytest.raises(UserError, match="block_push wants a tip on a table .* came pusher"):
        BlockPushCfg().build(load_body("pusher"), 1)
    with pytest.raises(UserError, match="unknown scene"):
        BlockPushCfg(scene="far")
