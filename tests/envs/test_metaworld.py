"""Tables of Meta-World are the package's own, bit for bit, each episode with a start of its own."""

import pickle
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from omnibody.envs.any_task import make_task_env
from omnibody.envs.metaworld import WELD, MetaWorldEnv
from omnibody.robots.errors import UserError
from omnibody.robots.sawyer import SAWYER
from omnibody.robots.table import load_body
from omnibody.sim_tasks.metaworld import INSTALL, LIMIT, PARTS, MetaWorldCfg
from omnibody.sim_tasks.metaworld_names import INSTRUCTIONS
from omnibody.sim_tasks.table import body_of, task_config
from omnibody.training.rollout import rollout

metaworld = pytest.importorskip("metaworld")
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402
from metaworld.types import Task  # noqa: E402

EASY = ("reach-v3", "push-v3", "drawer-open-v3", "door-open-v3", "button-press-topdown-v3")
HARD = {"peg-insert-side-v3": 0.3, "soccer-v3": 0.5}  # least share solved
Raw = Callable[[str], metaworld.SawyerXYZEnv]


def env_of(scene: str, num_envs: int = 1, **settings: float) -> MetaWorldEnv:
    env = make_task_env(SAWYER, MetaWorldCfg(scene, **settings), num_envs)
    assert isinstance(env, MetaWorldEnv)
    return env


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Raw:
    """Meta-World's own environments, whose only change is what MuJoCo 4 asks for."""

    def weld(env: metaworld.SawyerXYZEnv) -> None:
        env.model.eq_data[:, :11] = WELD

    monkeypatch.setattr(metaworld.SawyerXYZEnv, "reset_mocap_welds", weld)
    return lambda scene: metaworld.ALL_V3_ENVIRONMENTS[scene]()


def played(raw: Raw, scene: str, shift: float) -> tuple[list[np.ndarray], list[float], list[bool]]:
    """States, rewards and successes of a scripted episode of theirs from episode 3 of seed 7, ``shift`` added to x."""
    env, reference = env_of(scene), raw(scene)
    env.reset(7, first_episode=3)
    start = {"rand_vec": env.tables[0].env._last_rand_vec, "partially_observable": False}
    reference.set_task(Task(scene, pickle.dumps({"env_cls": type(reference), **start})))
    states, rewards, successes, expert = [reference.reset()[0]], [], [], ENV_POLICY_MAP[scene]()
    while not any(successes):
        action = expert.get_action(states[-1]) + np.float32([shift, 0.0, 0.0, 0.0])
        state, reward, _, truncated, info = reference.step(action)
        states, rewards, successes = [*states, state], [*rewards, reward], [*successes, bool(info["success"])]
        assert not truncated
    return states, rewards, successes


def differences(raw: Raw, scene: str, shift: float) -> tuple[int, int]:
    """In how many numbers our episode and theirs differ, and the number of its steps."""
    states, rewards, successes = played(raw, scene, shift)
    env, count = env_of(scene), 0
    env.reset(7, first_episode=3)
    count += int((env.world.state[0].numpy() != states[0]).sum())
    for state, reward, success in zip(states[1:], rewards, successes, strict=True):
        step = env.step(env.expert())
        count += int((step.world.state[0].numpy() != state).sum())
        count += (float(step.world.reward[0]) != reward) + (bool(step.success[0]) != success)
    return count, len(rewards)


@pytest.mark.filterwarnings("ignore:Constant")  # their experts' own
@pytest.mark.parametrize("scene", ("drawer-open-v3", "assembly-v3", "push-wall-v3"))
def test_an_episode_gives_meta_worlds_bits(raw: Raw, scene: str) -> None:
    count, steps = differences(raw, scene, 0.0)
    assert count == 0 and steps > 30


@pytest.mark.filterwarnings("ignore:Constant")
def test_other_actions_give_other_bits(raw: Raw) -> None:
    assert differences(raw, "drawer-open-v3", 1e-3)[0] > 0


def starts(num_envs: int, seed: int, count: int = 6) -> dict[int, np.ndarray]:
    """First states of the episodes 2, 3, ... of three steps each."""
    env, seen = env_of("hammer-v3", num_envs, max_seconds=3 / 80), {}
    env.reset(seed, first_episode=2)
    while len(seen) < count:
        for row, episode in enumerate(env.episode.tolist()):
            seen.setdefault(episode, env.world.state[row].numpy().copy())
        for _ in range(3):
            step = env.step(torch.rand(num_envs, 4))
        assert step.truncated.all() and not step.terminated.any()
    return {episode: seen[episode] for episode in range(2, 2 + count)}


def test_starts_are_a_function_of_seed_and_number() -> None:
    """Whatever the batch size and whatever happened before."""
    one, four, other = starts(1, 5), starts(4, 5), starts(4, 6)
    for episode, state in one.items():
        np.testing.assert_array_equal(state, four[episode])
        assert not np.array_equal(state, other[episode])
    assert len({state.tobytes() for state in one.values()}) == len(one)


def test_a_start_shows_where_things_are() -> None:
    """A hand that stands still sees nothing move; a start drawn by the reset itself shows the drawer elsewhere."""
    env = env_of("drawer-open-v3")
    first = env.reset(0)["object"]
    still = torch.tensor([[0.0, 0.0, 0.0, -1.0]])
    torch.testing.assert_close(env.step(still).next_obs["object"], first, atol=1e-3, rtol=0.0)
    naive = env.tables[0].env
    naive._freeze_rand_vec = False
    seen = naive.reset()[0][PARTS["object"]]
    assert np.abs(naive.step(still[0].numpy())[0][PARTS["object"]] - seen).max() > 0.01


def test_a_step_tells_the_successor_and_restarts_the_rest() -> None:
    env = env_of("reach-v3", 3, max_seconds=1.0)
    obs, ended = env.reset(1), []
    for number in range(1, 101):
        step = env.step(env.expert() * torch.tensor([[1.0], [1.0], [0.0]]))  # the third hand stays where it is
        fresh = step.done
        for key, values in step.obs.items():
            assert torch.equal(values[~fresh], step.next_obs[key][~fresh])
            torch.testing.assert_close(values[fresh], env.world.state[:, PARTS[key]].float()[fresh])
        previous = step.next_obs["previous"][:, :3]
        torch.testing.assert_close(previous, obs["hand"])
        assert torch.equal(step.terminated, step.success) and not (step.terminated & step.truncated).any()
        for row in torch.nonzero(fresh).flatten().tolist():
            assert not torch.equal(step.obs["goal"][row], step.next_obs["goal"][row])
            assert int(env.episode[row]) > int(step.episode[row])
            ended.append((row, bool(step.success[row]), int(step.episode[row])))
        assert (step.truncated.tolist() == [False, False, True]) == (number == 80)
        obs = step.obs
    assert [end[1:] for end in ended if end[0] == 2] == [(False, 2)]
    assert {row for row, success, _ in ended if success} == {0, 1}
    assert sorted({episode for _, _, episode in ended}) == sorted(episode for _, _, episode in ended)


def test_actions_are_checked_and_clipped() -> None:
    far, near = env_of("push-v3"), env_of("push-v3")
    far.reset(2), near.reset(2)
    one, other = far.step(torch.tensor([[9.0, -9.0, 3.0, 7.0]])), near.step(torch.tensor([[1.0, -1.0, 1.0, 1.0]]))
    assert torch.equal(one.world.state, other.world.state) and torch.equal(one.reward, other.reward)
    with pytest.raises(ValueError, match=r"wanted shape \(1, 4\), came \(1, 3\)"):
        near.step(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="finite"):
        near.step(torch.full((1, 4), torch.nan))


def test_names_bodies_and_limits() -> None:
    assert sorted(INSTRUCTIONS) == sorted(metaworld.ALL_V3_ENVIRONMENTS)
    assert body_of("metaworld/reach-v3") == "sawyer" and load_body("sawyer") is SAWYER
    env = env_of("reach-v3")
    table = env.tables[0].env
    assert table.dt == pytest.approx(env.dt) and SAWYER.stride == table.action_scale
    assert round(LIMIT / env.dt) == table.max_path_length
    for message, make in {
        "did you mean metaworld/reach-v3": lambda: task_config("metaworld/reach-v2"),
        "max_seconds: wanted more than 0 and at most 6.25, came 7": lambda: MetaWorldCfg(max_seconds=7.0),
        "metaworld wants its own arm .sawyer., came pusher": lambda: MetaWorldCfg().build(load_body("pusher"), 1),
    }.items():
        with pytest.raises((UserError, ValueError), match=message):
            make()


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "metaworld"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(UserError) as caught:
        env_of("reach-v3")
    assert str(caught.value).endswith(INSTALL) and "\n" not in str(caught.value)


def rate(scene: str, episodes: int, seed: int) -> float:
    """The share of episodes that the task's expert solves; states stay within the bounds of their fields."""
    env = env_of(scene, min(episodes, 4))
    records = rollout(None, env, episodes, seed)
    assert all(len(record.path[0]) == 9 and record.measures["max_reward"] <= 10.0 for record in records)
    for key, field in env.spec.obs.items():
        values = env.task.observe(env.world)[key].numpy()
        assert values.shape == (env.num_envs, *field.shape)
        assert (values >= np.float32(field.low) - 1e-6).all() and (values <= np.float32(field.high) + 1e-6).all()
    return sum(record.success for record in records) / episodes


@pytest.mark.parametrize("scene", EASY)
def test_experts_solve_easy_tasks(scene: str) -> None:
    assert rate(scene, 4, 1) == 1.0


@pytest.mark.slow
def test_experts_solve_all_tasks() -> None:
    """10 episodes each, 0.98 of them solved when this was written; the table is what a failure shows.

    A machine that gives other bits than that one fails by chance in 1 of 100 cases for a task that is solved at 0.9.
    """
    rates = {scene: rate(scene, 10, 1) for scene in INSTRUCTIONS}
    table = "\n".join(f"{scene:30} {value:.1f}" for scene, value in rates.items())
    assert np.mean(list(rates.values())) >= 0.95, table
    assert all(value >= HARD.get(scene, 0.7) for scene, value in rates.items()), table
