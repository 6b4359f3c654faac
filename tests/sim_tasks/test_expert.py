"""The expert: within the body's limits, careful, and good enough to show that the task can be solved."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from omnibody.robots.spec import Embodiment
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNav, GoalNavCfg
from omnibody.sim_tasks.scene import Box
from omnibody.sim_tasks.task import World

Make = Callable[..., Any]


def command(task: GoalNav, state: World) -> np.ndarray:
    return task.expert(state, np.random.default_rng(0)).numpy()


@pytest.mark.parametrize("robot", ["carrier", "omni", "ackermann"])
def test_commands_are_within_limits(robot: str, world: Callable[..., World]):
    body = load_robot(robot)
    task = GoalNavCfg(scene="mixed", num_scenes=2).build(body, 12)
    starts = task.reset(np.arange(12), np.arange(12), 1)
    rng = np.random.default_rng(0)
    twist = rng.uniform(body.limits.velocity_low, body.limits.velocity_high, (12, 3))
    got = command(task, world(body, np.array([s.pose for s in starts]), twist)).astype(np.float64)
    np.testing.assert_allclose(body.limits.clip(got.copy()), got, atol=1e-6)
    assert np.abs(got).max(axis=0)[0] > 0.1
    # Control: commands beyond the limits would show.
    assert not np.allclose(body.limits.clip(got + 2.0), got + 2.0)


def test_it_turns_and_stops_at_the_goal(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    task = nav(body, hall())
    task.place(0, 0, (-2.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    np.testing.assert_array_equal(command(task, world(body, [(1.1, 0.0, 1.0)])), 0.0)
    for yaw, sign in ((0.3, 1.0), (1.7, -1.0), (1.0 + 3.0, -1.0)):
        vx, vy, wz = command(task, world(body, [(1.1, 0.0, yaw)]))[0]
        assert vx == vy == 0.0 and sign * wz > 0.0
    assert command(task, world(body, [(0.0, 0.0, 0.0)]))[0, 0] > 0.1  # control: away from the goal it drives


def test_it_does_not_drive_into_a_wall(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    """Heading fast for a wall with the goal behind it, it brakes or turns; without the wall it keeps on."""
    state = world(body, [(-0.75, 0.0, 0.0)], np.array([(1.0, 0.0, 0.0)]))
    speeds = []
    for boxes in ((Box("wall", 0.3, 0.0, 0.2, 5.0, 2.0),), ()):
        task = nav(body, hall(*boxes))
        task.place(0, 0, (-3.0, 0.0, 0.0), (3.0, 0.0, 0.0))
        speeds.append(command(task, state)[0, 0])
    assert speeds[0] < 0.5 < speeds[1]


def test_rows_do_not_affect_each_other(body: Embodiment, world: Callable[..., World]):
    poses = []
    for rows in ([0, 1, 2], [2, 0, 1]):
        task = GoalNavCfg(num_scenes=3).build(body, 3)
        starts = task.reset(np.array(rows), np.arange(3), 5)
        state = world(body, np.array([starts[rows.index(row)].pose for row in range(3)]))
        poses.append(command(task, state)[rows])
    np.testing.assert_array_equal(poses[0], poses[1])


@pytest.mark.parametrize(("robot", "family"), [("carrier", "office"), ("ackermann", "mixed")])
def test_it_solves_unseen_scenes(robot: str, family: str, drive: Callable[..., np.ndarray]):
    """16 of 16, with one miss allowed; standing still solves none."""
    task = GoalNavCfg(scene=family, split="test", num_scenes=8).build(load_robot(robot), 16)
    assert drive(task, np.arange(16), 21).sum() >= 15


@pytest.mark.slow
@pytest.mark.parametrize("family", ["office", "single_rack", "multi_rack", "mixed"])
@pytest.mark.parametrize("robot", ["carrier", "omni", "ackermann", "go2", "g1"])
def test_it_solves_nearly_all(robot: str, family: str, drive: Callable[..., np.ndarray]):
    """At least 95 of 100 (measured: 100). An expert of true rate 99 % fails this with a chance of 5e-4."""
    task = GoalNavCfg(scene=family, split="test", num_scenes=32).build(load_robot(robot), 100)
    assert drive(task, np.arange(100), 31).sum() >= 95


def test_standing_still_solves_nothing(body: Embodiment, drive: Callable[..., np.ndarray]):
    class Idle(GoalNav):
        def expert(self, world: World, rng: np.random.Generator) -> Any:
            return super().expert(world, rng) * 0.0

    assert not drive(Idle(GoalNavCfg(num_scenes=2, max_seconds=2.0), body, 4), np.arange(4), 21).any()
