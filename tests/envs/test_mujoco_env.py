import numpy as np
import pytest
import torch

from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.randomization import MODERATE, RandomizationCfg


def drive(env: MujocoEnv, steps: int, seed: int = 3) -> dict[int, list[np.ndarray]]:
    """Positions per episode while every env follows the expert."""
    env.reset(seed)
    paths: dict[int, list[np.ndarray]] = {}
    for _ in range(steps):
        step = env.step(env.expert())
        for row in range(env.num_envs):
            paths.setdefault(int(step.episode[row]), []).append(step.world.position[row].numpy().copy())
    return paths


@pytest.mark.parametrize(("robot", "tier"), [("carrier", "T0"), ("carrier", "T1"), ("carrier", "T2"), ("go2", "T2")])
def test_an_episode_does_not_depend_on_batch_size_threads_or_neighbours(make, robot, tier):
    many = drive(make(robot, 4, tier, threads=2), 25)
    one = drive(make(robot, 1, tier, threads=1), 25)
    np.testing.assert_array_equal(np.array(many[0]), np.array(one[0]))
    # Negative control: another episode is another path.
    assert not np.array_equal(np.array(many[0]), np.array(many[1]))


def test_same_seed_same_bits_also_with_randomisation_and_another_seed_differs(make):
    def depth(seed: int) -> torch.Tensor:
        env = make(randomization=MODERATE)
        env.reset(seed)
        for _ in range(5):
            step = env.step(env.expert())
        return step.obs["depth"]

    assert torch.equal(depth(1), depth(1))
    assert not torch.equal(depth(1), depth(2))


def test_finished_rows_show_the_true_successor_and_the_next_episodes_first_observation(make):
    env = make(num_envs=3, max_seconds=0.5)
    env.reset(0)
    for _ in range(4):
        assert not env.step(torch.zeros(3, 3)).done.any()
    step = env.step(torch.zeros(3, 3))
    assert step.truncated.all() and not step.terminated.any()
    assert step.episode.tolist() == [0, 1, 2] and env.episode.tolist() == [3, 4, 5]
    fresh = make(num_envs=3, max_seconds=0.5).reset(0, first_episode=3)
    for key, value in fresh.items():
        torch.testing.assert_close(step.obs[key], value)
    assert not torch.equal(step.obs["route"], step.next_obs["route"])


def test_driving_into_an_obstacle_terminates_and_is_not_a_success(make):
    env = make(num_envs=4)
    env.reset(0)
    ended = torch.zeros(4, dtype=torch.bool)
    for _ in range(200):
        step = env.step(torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3))
        ended |= step.terminated
        assert not step.success.any()
        if ended.all():
            break
    assert ended.all()


def test_depth_is_measured_along_the_optical_axis(make):
    """A level camera facing a wall reads the wall's distance in every pixel that sees it, not the longer ray."""
    env = make(num_envs=1)
    env.reset(0)
    camera = env.embodiment.camera
    step = env.step(torch.zeros(1, 3))
    depth, seen = step.obs["depth"][0], step.obs["semantics"][0]
    floor = seen == 1
    rows = torch.arange(camera.height).float()[:, None].expand_as(depth)
    slope = np.tan(camera.vertical_fov / 2) * ((2 * rows + 1) / camera.height - 1)
    height = env.embodiment.base_height + camera.position[2]
    expected = height / slope[floor]
    assert floor.any()
    torch.testing.assert_close(depth[floor], expected, atol=0.02, rtol=0.02)


def test_latency_delays_the_response_and_more_than_a_step_is_refused(make):
    def reach(latency: float) -> float:
        env = make(num_envs=1, randomization=RandomizationCfg(latency=latency))
        env.reset(0)
        start = env.world.position[0, :2].clone()
        return float((env.step(torch.tensor([[0.5, 0.0, 0.0]])).world.position[0, :2] - start).norm())

    assert reach(0.1) < reach(0.0)
    with pytest.raises(ValueError, match="latency"):
        make(randomization=RandomizationCfg(latency=0.2))


@pytest.mark.parametrize("bad", [torch.zeros(4, 2), torch.zeros(3, 3)])
def test_an_action_of_another_shape_is_refused_with_both_shapes(make, bad):
    env = make()
    env.reset(0)
    with pytest.raises(ValueError, match=r"wanted shape \(4, 3\), came"):
        env.step(bad)


def test_an_action_that_is_not_finite_is_refused_with_its_row(make):
    env = make()
    env.reset(0)
    action = torch.zeros(4, 3)
    action[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        env.step(action)


def test_the_twist_is_the_mean_over_half_a_second(make):
    env = make(num_envs=1)
    env.reset(0)
    poses = [torch.cat([env.world.position[0, :2], env.world.yaw])]
    for _ in range(6):
        step = env.step(torch.tensor([[0.3, 0.0, 0.4]]))
        poses.append(torch.cat([step.world.position[0, :2], step.world.yaw]))
    moved = poses[-1] - poses[-6]
    assert float(step.world.twist[0, :2].norm()) == pytest.approx(float(moved[:2].norm()) / 0.5, rel=1e-4)
    assert float(step.world.twist[0, 2]) == pytest.approx(float(moved[2]) / 0.5, rel=1e-4)


@pytest.mark.parametrize(("robot", "tier"), [("carrier", "T1"), ("go2", "T2"), ("g1", "T2")])
def test_controllers_run_at_50_hz_inside_a_10_hz_step(make, robot, tier):
    """The original ran its 50 Hz walking networks at every physics step, 200 Hz."""
    env = make(robot, 1, tier)
    env.reset(0)
    shard, calls = env._shards[0], []
    command = shard.controller.command
    shard.controller.command = lambda *state: calls.append(1) or command(*state)
    before = env.data(0).time
    env.step(torch.zeros(1, 3))
    assert len(calls) == 5
    assert env.data(0).time - before == pytest.approx(0.1)
