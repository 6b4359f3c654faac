"""Tables in MuJoCo keep the contract of environments, here with block push on them."""

import pytest
import torch

from omnibody.envs.any_task import make_task_env
from omnibody.envs.tabletop import TabletopEnv
from omnibody.robots.tip import TIP
from omnibody.sim_tasks.block_push import BlockPushCfg


def env_of(num_envs: int, max_seconds: float = 35.0) -> TabletopEnv:
    env = make_task_env(TIP, BlockPushCfg(max_seconds=max_seconds), num_envs)
    assert isinstance(env, TabletopEnv)
    return env


def played(num_envs: int, seed: int, first: int = 2, count: int = 6) -> dict[int, list[torch.Tensor]]:
    """Where the blocks were seen in the episodes ``first`` on, each of 8 steps, as the player plays them."""
    env = env_of(num_envs, max_seconds=0.8)
    obs, seen = env.reset(seed, first_episode=first), {}
    while len(seen) < count or min(map(len, seen.values())) < 10:
        for row, episode in enumerate(env.episode.tolist()):
            seen.setdefault(episode, [obs["tip"][row], obs["blocks"][row]])
        step = env.step(env.expert())
        for row, episode in enumerate(step.episode.tolist()):
            seen[episode].append(step.next_obs["tip"][row])
        obs = step.obs
        seen = {episode: kept for episode, kept in seen.items() if episode < first + count}
    return seen


def test_episodes_are_a_function_of_seed_and_number() -> None:
    """Whatever the batch size; starts, physics and what the player does at random."""
    one, three, other = played(1, 5), played(3, 5), played(3, 6)
    for episode in one:
        assert all(torch.equal(a, b) for a, b in zip(one[episode], three[episode], strict=True)), episode
    assert not torch.equal(one[2][1], other[2][1])
    assert not torch.equal(one[2][-1], one[3][-1])


def test_a_step_tells_the_successor_and_restarts_the_rest() -> None:
    env = env_of(2)
    env.reset(1)
    task, data = env.task, env.datas[0]
    for block in range(2):  # both where they are asked for
        data.qpos[7 * block : 7 * block + 2] = task.targets[0, task.asked[0, block]]
    step = env.step(torch.zeros(2, 2))
    assert step.success.tolist() == step.terminated.tolist() == [True, False] and not step.truncated.any()
    assert step.reward.tolist() == [1.0, 0.0]
    assert not torch.equal(step.obs["blocks"][0], step.next_obs["blocks"][0])
    assert torch.equal(step.obs["blocks"][1], step.next_obs["blocks"][1])
    assert step.episode.tolist() == [0, 1] and env.episode.tolist() == [2, 1]


def test_actions_are_checked_and_clipped() -> None:
    env = env_of(2)
    env.reset(1)
    step = env.step(torch.tensor([[9.0, -9.0], [0.05, 0.0]]))
    reached = torch.tensor([[0.4, -0.5], [0.35, -0.4]])
    torch.testing.assert_close(step.next_obs["tip_target"], reached)
    with pytest.raises(ValueError, match=r"wanted shape \(2, 2\), came \(2, 3\)"):
        env.step(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="finite"):
        env.step(torch.full((2, 2), torch.nan))


def test_the_tip_follows_and_blocks_stay_where_none_touches_them() -> None:
    env = env_of(1)
    first = env.reset(3)
    for _ in range(20):
        step = env.step(torch.tensor([[-0.01, 0.0]]))
    torch.testing.assert_close(step.next_obs["tip"], step.next_obs["tip_target"], atol=2e-3, rtol=0.0)
    torch.testing.assert_close(step.next_obs["blocks"], first["blocks"], atol=1e-4, rtol=0.0)
    block = first["blocks"][0, :2]
    for aim in (block - torch.tensor([0.0, 0.06]), block + torch.tensor([0.0, 0.02])):
        for _ in range(25):
            way = aim - step.next_obs["tip_target"][0]
            step = env.step((way * min(1.0, 0.03 / max(float(way.norm()), 1e-6)))[None])
    assert float(step.next_obs["blocks"][0, 1] - block[1]) > 0.02
