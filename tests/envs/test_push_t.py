"""Push-T's tables are gym-pusht's, and people's recorded actions do on them what they did when recorded."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.envs.any_task import make_task_env
from omnibody.envs.push_t import PushTEnv, Table
from omnibody.policies.policy import Context
from omnibody.robots.errors import UserError
from omnibody.robots.pusher import TOOL
from omnibody.robots.spec import mobile
from omnibody.robots.table import load_body, load_robot
from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t import CANONICAL, SHIFTED, PushTCfg, TwoGoalPushTCfg, start, turned_in_place
from omnibody.training.data.reader import open_dataset
from omnibody.training.importing import ImportCfg, import_source

RECORDINGS = Path(__file__).parent / "push_t" / "recordings.npz"


def env_of(num_envs: int, **settings: float) -> PushTEnv:
    env = make_task_env(TOOL, PushTCfg(**settings), num_envs)
    assert isinstance(env, PushTEnv)
    return env


def test_a_step_gives_gym_pushts_bits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_pusht.envs.pusht import PushTEnv as Reference

        reference = Reference()
    rng, touched = np.random.default_rng(0), 0
    for seed in range(4):
        reference.reset(seed=seed)
        table, begin = Table(TOOL), start(np.random.Generator(np.random.PCG64(seed)))
        table.place(begin)
        for _ in range(40):
            action = np.clip(begin[2:4] + rng.uniform(-80, 80, 2), 0, 512)
            reference.step(action)
            table.advance(*action)
            wanted = (*reference.agent.position, *reference.block.position, reference.block.angle)
            assert table.state == pytest.approx(wanted, abs=1e-9)
        coverage = tee.overlap(np.array([table.state[2:]]), np.array([CANONICAL])) / tee.AREA
        assert coverage[0] == pytest.approx(reference._get_coverage(), abs=1e-9)
        touched += np.abs(np.array(table.state[2:4]) - begin[2:4]).max() > 5
    assert touched  # the T was pushed, so contacts were compared too


def replayed(displaced: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the T to the recorded one after 20 steps [px], and the best reward, of every recorded episode."""
    with np.load(RECORDINGS) as file:
        state, action, ends = file["state"].astype(float), file["action"].astype(float), file["episode_ends"]
    errors, rewards = [], []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        begin, table = state[first].copy(), Table(TOOL)
        if displaced:  # as gym-pusht's reset_to_state does by setting position before angle
            begin[2:4] = turned_in_place(begin[2:4], begin[4])
        table.place(begin)
        poses = []
        for row in range(first, last):
            if row == first + 20:
                errors.append(np.linalg.norm(np.array(table.state[2:4]) - state[row, 2:4]))
            table.advance(*action[row])
            poses.append(table.state[2:])
        goal = np.tile(np.array(CANONICAL), (len(poses), 1))
        rewards.append(min(1.0, (tee.overlap(np.array(poses), goal) / tee.AREA / 0.95).max()))
    return np.array(errors), np.array(rewards)


def test_recorded_actions_do_what_they_did() -> None:
    """Open loop, so contacts make some episodes leave the recording later on; the stock reset loses it at once."""
    errors, rewards = replayed(displaced=False)
    assert np.median(errors) < 0.1 and rewards.mean() > 0.9
    errors, rewards = replayed(displaced=True)
    assert np.median(errors) > 20 and rewards.mean() < 0.6


def test_data_and_simulator_are_seen_alike(tmp_path: Path) -> None:
    import_source(ImportCfg(source=str(RECORDINGS), out=str(tmp_path / "data"), task="push_t"))
    dataset, env = open_dataset(tmp_path / "data"), env_of(1)
    env.reset(0)
    with np.load(RECORDINGS) as file:
        env.tables[0].place(file["state"][0].astype(float))
    env.world = env._look()
    seen = env.task.observe(env.world)
    assert seen.keys() == dataset.origin.spec.obs.keys() and env.spec == dataset.origin.spec
    for key, value in seen.items():
        np.testing.assert_allclose(value[0].numpy(), dataset.arrays[f"obs.{key}"][0], atol=0.05)
    # The recording's rewards are what the task gives for the same poses.
    for row in range(0, 100, 9):
        x, y, c, s = dataset.arrays["obs.block"][row].astype(float)
        pose = torch.tensor([[x, y, np.arctan2(s, c)]], dtype=torch.float64)
        world = type(env.world)(env.world.time, env.world.agent, pose)
        assert float(env.task.reward(world)[0]) == pytest.approx(dataset.arrays["reward"][row], abs=1e-4)


def test_episodes_are_a_function_of_seed_and_number() -> None:
    """Whatever the batch size, and with a time limit that makes envs begin anew on the way."""

    def firsts(num_envs: int, seed: int) -> dict[int, list[float]]:
        env = env_of(num_envs, max_seconds=0.3)
        obs, found = env.reset(seed, first_episode=2), {}
        while len(found) < 6:
            for row, episode in enumerate(env.episode.tolist()):
                found.setdefault(episode, obs["agent"][row].tolist() + obs["block"][row].tolist())
            for _ in range(3):
                step = env.step(torch.full((num_envs, 2), 256.0))
            assert step.truncated.all() and not step.success.any()
            obs = step.obs
        return {episode: found[episode] for episode in range(2, 8)}

    assert firsts(1, 5) == firsts(3, 5) == firsts(6, 5)
    assert firsts(1, 6) != firsts(1, 5)


def test_a_step_tells_the_successor_and_restarts_the_rest() -> None:
    env = env_of(2)
    env.reset(1)
    env.tables[0].place(np.array([50.0, 50.0, *CANONICAL]))
    step = env.step(torch.tensor([[50.0, 50.0], [400.0, 100.0]]))
    assert step.success.tolist() == [True, False] and step.terminated.tolist() == [True, False]
    assert step.measures["coverage"][0] == pytest.approx(1.0) and step.reward[0] == 1.0
    assert step.measures["iou"][0] == pytest.approx(1.0)
    assert step.next_obs["block"][0, :2].tolist() == [256.0, 256.0] and step.obs["block"][0, :2].tolist() != [
        256.0,
        256.0,
    ]
    assert torch.equal(step.next_obs["block"][1], step.obs["block"][1])
    assert step.episode.tolist() == [0, 1] and env.episode.tolist() == [2, 1]
    with pytest.raises(ValueError, match="wanted shape"):
        env.step(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="finite"):
        env.step(torch.full((2, 2), torch.nan))


def test_two_goals_take_turns_and_are_seen() -> None:
    env = make_task_env(TOOL, TwoGoalPushTCfg(), 3)
    obs = env.reset(1, first_episode=1)
    assert obs["goal"][:, :2].tolist() == [list(SHIFTED[:2]), list(CANONICAL[:2]), list(SHIFTED[:2])]
    one = env_of(3)
    assert torch.equal(one.reset(1, first_episode=1)["block"], obs["block"])  # the same starts as with one goal
    far = torch.tensor([[*SHIFTED], [*SHIFTED], [*CANONICAL]], dtype=torch.float64)
    world = type(one.world)(one.world.time, one.world.agent, far)
    coverage = env.task.measures(world)["coverage"]
    assert coverage[0] == pytest.approx(1.0) and coverage[1] < 0.5 and coverage[2] == pytest.approx(coverage[1])


def test_bodies_go_with_their_tasks() -> None:
    assert load_body("pusher") is TOOL and TOOL.action.shape == (2,)
    with pytest.raises(UserError, match="wanted a mobile base .* came pusher, a PlanarTool"):
        load_robot("pusher")
    with pytest.raises(UserError, match="push_t wants a tool on a table"):
        PushTCfg().build(load_body("carrier"), 1)
    with pytest.raises(UserError, match="wanted a mobile base"):
        mobile(Context(TOOL).embodiment)
    with pytest.raises(UserError, match="no scripted expert"):
        env_of(1).expert()
