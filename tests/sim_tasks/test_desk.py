"""The desk counts what its goal wants and nothing else, its handles are MuJoCo's, and its player can do it."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from omnibody.envs.any_task import make_task_env
from omnibody.envs.tabletop import TabletopEnv
from omnibody.robots.errors import UserError
from omnibody.robots.gripper import GRIPPER, SITE
from omnibody.robots.table import load_body
from omnibody.sim_tasks.desk import Desk, DeskCfg, begin
from omnibody.sim_tasks.desk_elements import ELEMENTS, FULL, NAMES, SLACK, done, handles
from omnibody.sim_tasks.tabletop import TabletopWorld
from omnibody.training.results import summarize
from omnibody.training.rollout import rollout


def env_of(num_envs: int, **settings: float) -> TabletopEnv:
    env = make_task_env(GRIPPER, DeskCfg(**settings), num_envs)
    assert isinstance(env, TabletopEnv)
    return env


def world_of(values: np.ndarray) -> TabletopWorld:
    """Desks whose elements stand at ``values`` (N, 7)."""
    num = len(values)
    qpos = torch.from_numpy(np.concatenate([np.zeros((num, 3)), values], 1))
    free = torch.zeros(num, len(NAMES), dtype=torch.bool)
    return TabletopWorld(torch.zeros(num), qpos, torch.zeros_like(qpos), qpos[:, :3], torch.zeros(num, 0, 3), free)


def test_handles_are_where_mujoco_has_them() -> None:
    model = Desk(DeskCfg(), GRIPPER, 1).model()
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    for _ in range(20):
        data.qpos[:] = rng.uniform(-1, 1, model.nq)
        mujoco.mj_kinematics(model, data)
        found = np.array([data.site(name).xpos for name in NAMES])
        np.testing.assert_allclose(handles(data.qpos[3:]), found, atol=1e-9)
        np.testing.assert_allclose(data.qpos[:3], data.site(SITE).xpos, atol=1e-9)
        assert np.abs(handles(data.qpos[3:] + 0.1) - found).max(1).min() > 1e-3  # control: every element matters


def test_no_handle_comes_into_the_reach_of_anothers_grasp() -> None:
    """Wherever elements stand, at most one handle is within the radius in which the player takes hold."""
    shares = np.linspace(-SLACK, 1 + SLACK, 25)
    ways = handles(shares[:, None] * FULL).transpose(1, 0, 2)  # (7, 25, 3)
    inside = (ways >= np.array(GRIPPER.low)) & (ways <= np.array(GRIPPER.high))
    assert inside.all()
    for one in range(len(NAMES)):
        for other in range(one):
            apart = np.linalg.norm(ways[one][:, None] - ways[other][None], axis=2)
            assert apart.min() > 1.5 * GRIPPER.reach, (NAMES[one], NAMES[other])


def test_wrong_elements_count_for_reward_and_not_for_result() -> None:
    task = Desk(DeskCfg(), GRIPPER, 5)
    task.start(np.arange(5), np.full(5, 3), seed=1)
    wanted, others = np.flatnonzero(done(task.goal[0])), np.flatnonzero(~done(task.goal[0]))
    values = np.zeros((5, len(NAMES)))
    for row, elements in enumerate(([], wanted, wanted[:3], others, [*wanted[:1], *others])):
        values[row, elements] = FULL[elements]
    world = world_of(values)
    measures = task.measures(world)
    assert measures["done"].tolist() == [0, 4, 3, 3, 4] and task.reward(world).tolist() == [0, 4, 3, 3, 4]
    assert measures["wanted_done"].tolist() == [0, 4, 3, 0, 1]
    assert task.success(world).tolist() == [False, True, False, False, False]
    assert task.failure(world).tolist() == [False, False, False, False, True]


def test_an_element_is_done_within_its_tolerance_of_full() -> None:
    for share, is_done in ((0.0, False), (0.69, False), (0.71, True), (1.0, True), (1.29, True), (1.31, False)):
        assert (done(share * FULL) == is_done).all(), share
    assert not done(-FULL).any()


def test_doing_nothing_scores_nothing() -> None:
    env = env_of(2, max_seconds=3.0)
    obs = env.reset(0)
    for _ in range(30):
        step = env.step(torch.zeros(2, 4))
        assert not step.reward.any() and not step.measures["wanted_done"].any()
    assert step.truncated.all() and not step.success.any()
    torch.testing.assert_close(step.next_obs["elements"], obs["elements"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("element", range(len(NAMES)), ids=NAMES)
def test_what_is_held_moves_and_what_is_let_go_stays(element: int) -> None:
    env = env_of(1)
    env.reset(0)

    def go(share: float, grasp: float, steps: int = 15, aside: float = 0.0) -> np.ndarray:
        """Along the way of the element's handle, or ``aside`` of it; the elements' values afterwards."""
        aim = handles(share * FULL)[element] + [0.0, 0.0, aside]
        for _ in range(steps):
            way = aim - env.world.qpos[0, :3].numpy()
            step = env.step(torch.tensor([[*way, grasp]], dtype=torch.float32))
        return step.world.qpos[0, 3:].numpy() / FULL

    begun = go(0.0, 0.0)
    assert np.abs(go(0.5, 0.0) - begun).max() < 0.01  # an open gripper moves nothing
    out_of_reach = 1.2 * GRIPPER.reach
    go(0.0, 0.0, aside=out_of_reach)
    assert np.abs(go(0.0, 1.0, aside=out_of_reach) - begun).max() < 0.01 and not env.world.eq_active.any()
    go(0.0, 0.0)
    moved = go(0.0, 1.0, steps=1)
    assert env.world.eq_active[0].nonzero().flatten().tolist() == [element]
    for share in np.linspace(0.1, 1.0, 10):
        moved = go(float(share), 1.0, steps=3)
    assert moved[element] == pytest.approx(1.0, abs=0.05)
    rest = np.arange(len(NAMES)) != element
    assert np.abs((moved - begun)[rest]).max() < 1e-3
    left = go(1.0, 0.0, steps=2)
    assert not env.world.eq_active.any()
    assert np.abs(go(0.0, 0.0, steps=20) - left).max() < 0.01


def test_an_episode_is_a_function_of_seed_and_number() -> None:
    """Start, goal and what the player does, whatever the number of desks."""

    def played(num_envs: int, seed: int) -> torch.Tensor:
        env = env_of(num_envs)
        obs, row = env.reset(seed, first_episode=3 - num_envs + 1), num_envs - 1
        seen = [torch.cat([obs[key][row] for key in obs])]
        for _ in range(25):
            obs = env.step(env.expert()).next_obs
            seen.append(torch.cat([obs[key][row] for key in obs]))
        return torch.stack(seen)

    assert torch.equal(played(1, 5), played(3, 5))
    assert not torch.allclose(played(1, 5), played(1, 6), atol=0.01)


def test_goals_want_four_of_the_seven_each_as_often() -> None:
    begun = [begin(GRIPPER, 0, episode) for episode in range(700)]
    wanted = done(np.array([one.goal for one in begun]))
    assert (wanted.sum(1) == 4).all() and not done(np.array([one.rest for one in begun])).any()
    # 400 of 700 each; five standard deviations of a hypergeometric count
    assert np.abs(wanted.sum(0) - 400).max() < 5 * (700 * 4 / 7 * 3 / 7) ** 0.5
    first = np.bincount([one.order[0] for one in begun], minlength=7)
    assert np.abs(first - 100).max() < 5 * (700 / 7 * 6 / 7) ** 0.5


def test_the_player_does_what_the_goal_wants_and_stays_in_bounds() -> None:
    env = env_of(30)
    records = rollout(None, env, 60, seed=4)
    figures = summarize(records, "desk")
    assert figures["sr"] > 0.98 and figures["reward"] == figures["result"] and figures["p4"] == figures["sr"]
    assert 4.0 < np.mean([record.seconds for record in records]) < 15.0
    obs, action = env.reset(0), env.expert()
    for _ in range(60):
        action = env.expert()
        low, high = torch.tensor(env.spec.action.low), torch.tensor(env.spec.action.high)
        assert ((action >= low - 1e-6) & (action <= high + 1e-6)).all()
        obs = env.step(action).obs
        for key, field in env.spec.obs.items():
            assert obs[key].shape == (30, *field.shape) and obs[key].dtype == torch.float32
            inside = (obs[key] >= torch.tensor(field.low) - 0.02) & (obs[key] <= torch.tensor(field.high) + 0.02)
            assert inside.all(), key


def test_a_player_with_another_goal_gets_no_result() -> None:
    """Control: what counts is the goal, not that four elements are done."""
    env = env_of(8)
    env.reset(0)
    env.task.goal[:] = np.where(done(env.task.goal), 0.0, FULL)  # the players keep what they were told
    failed, result = torch.zeros(8, dtype=torch.bool), torch.zeros(8)
    for _ in range(150):
        step = env.step(env.expert())
        first = ~failed
        failed |= step.terminated & ~step.success
        result = torch.where(first, torch.maximum(result, step.measures["wanted_done"]), result)
        if failed.all():
            break
    assert failed.all() and not result.any()


def test_it_refuses_other_bodies_and_scenes() -> None:
    with pytest.raises(UserError, match="gripper"):
        DeskCfg().build(load_body("pusher"), 1)
    with pytest.raises(UserError, match="scene"):
        DeskCfg(scene="kitchen")
    assert all(element.limits[0] < element.limits[1] for element in ELEMENTS)
    assert replace(GRIPPER, reach=0.1).action == GRIPPER.action
