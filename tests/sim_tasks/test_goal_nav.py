"""The point-goal task: what is drawn, observed and judged. The rewards are in test_rewards.py."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import NUM_RAYS, RAY_RANGE, GoalNav, GoalNavCfg
from omnibody.sim_tasks.scene import Box, Scene
from omnibody.sim_tasks.task import World

Make = Callable[..., Any]


def starts_and_goals(task: GoalNav, episodes: list[int], seed: int = 3) -> np.ndarray:
    rows = np.arange(len(episodes))
    starts = task.reset(rows, np.array(episodes), seed)
    return np.concatenate((np.array([(s.scene, *s.pose) for s in starts]), task.goal[rows]), axis=1)


def test_episodes_are_functions_of_seed_and_number(body: Embodiment):
    cfg = GoalNavCfg(num_scenes=4)
    drawn = starts_and_goals(cfg.build(body, 6), [0, 1, 2, 3, 4, 5])
    again = cfg.build(body, 3)
    starts_and_goals(again, [7, 8, 9])
    np.testing.assert_array_equal(starts_and_goals(again, [4, 0, 2]), drawn[[4, 0, 2]])
    # Controls: another seed, and another episode in the same scene, differ.
    assert not np.isclose(starts_and_goals(again, [4, 0, 2], seed=4)[:, 1:], drawn[[4, 0, 2], 1:]).any()
    assert drawn[0, 0] == drawn[4, 0] and not np.isclose(drawn[0, 1:], drawn[4, 1:]).any()


@pytest.mark.parametrize("family", ["office", "single_rack", "multi_rack", "mixed"])
def test_goals_are_reachable_and_have_room_to_turn(largest: Embodiment, family: str):
    """Against a flood fill of the cells where the body's inner circle fits, which every way must stay in."""
    task = GoalNavCfg(scene=family, split="test", num_scenes=6).build(largest, 24)
    drawn = starts_and_goals(task, list(range(24)))
    for index, *pose in drawn:
        scene = task.scene(int(index))
        ends = np.array([pose[:2], pose[3:5]])
        assert (scene.distance_at(ends) >= largest.footprint.circumscribed_radius + 0.09).all()
        assert 2.0 <= np.linalg.norm(ends[0] - ends[1]) <= 7.0
        part, _ = ndimage.label(~scene.inflate(largest.footprint.inscribed_radius))
        here, there = part.flat[scene.grid.cells(ends)]
        assert here == there != 0
    assert (task.shortest <= 12.0).all() and (
        task.shortest >= np.linalg.norm(drawn[:, 1:3] - drawn[:, 4:6], axis=1) - 0.01
    ).all()
    # Yaws are all around, not of one side (chance 24 * 2^-23 per column).
    for column in (3, 6):
        assert drawn[:, column].min() < 0 < drawn[:, column].max()


def test_the_goal_is_seen_from_where_the_robot_is_now(body: Embodiment, world: Callable[..., World]):
    """Defect 4 of specs/compass.md section 4: the first observation of an episode must not show the last goal."""
    task = GoalNavCfg(num_scenes=4).build(body, 2)
    first = starts_and_goals(task, [0, 1])
    seen = task.observe(world(body, first[:, 1:4]))["goal"]
    second = starts_and_goals(task, [2, 3])
    fresh = task.observe(world(body, second[:, 1:4]))
    for row in range(2):
        x, y, yaw = second[row, 1:4]
        offset = second[row, 4:6] - (x, y)
        c, s = np.cos(yaw), np.sin(yaw)
        by_hand = (c * offset[0] + s * offset[1], c * offset[1] - s * offset[0])
        turn = second[row, 6] - yaw
        np.testing.assert_allclose(fresh["goal"][row], (*by_hand, np.cos(turn), np.sin(turn)), atol=1e-5)
        np.testing.assert_allclose(fresh["route"][row, 0, :2], 0.0, atol=1e-5)
    # Control: the observation kept from before the reset is another one.
    assert not torch.isclose(seen, fresh["goal"]).all(dim=1).any()
    # Moving by one step moves the goal at once.
    moved = second[:, 1:4] + (0.1, 0.0, 0.0)
    assert not torch.isclose(task.observe(world(body, moved))["goal"][:, :2], fresh["goal"][:, :2]).all(dim=1).any()


def python_calls(function: Callable[[], object]) -> int:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def test_nothing_loops_over_environments_in_python(body: Embodiment, world: Callable[..., World]):
    """Defect 5: the number of Python calls of a step does not depend on the number of environments."""
    counts, loops = [], []
    for num in (2, 16):
        task = GoalNavCfg(num_scenes=2).build(body, num)
        drawn = starts_and_goals(task, list(range(num)))
        state, action = world(body, drawn[:, 1:4]), torch.zeros(num, 3)

        def step(task: GoalNav = task, state: World = state, action: torch.Tensor = action) -> None:
            task.observe(state)
            task.reward(state, action)
            task.success(state)
            task.measures(state)
            task.expert(state, np.random.default_rng(0))

        step()  # compile first
        counts.append(python_calls(step))
        loops.append(python_calls(lambda state=state: [yaw.item() for yaw in state.yaw]))
    assert counts[0] == counts[1]
    assert loops[1] > loops[0]  # control


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_observations_turn_and_move_with_the_world(
    body: Embodiment, hall: Make, nav: Make, world: Callable[..., World], quarter: int
):
    boxes = (
        Box("rack", 0.0, 0.5, 2.0, 0.8, 2.0),
        Box("rack", -2.0, -2.0, 0.6, 1.2, 2.0),
        Box("rack", 3.0, 3.0, 1, 1, 1),
    )
    scene = hall(*boxes)
    angle = quarter * np.pi / 2
    c, s = round(np.cos(angle)), round(np.sin(angle))
    shift = np.array([3.0, -2.0])

    def turned(pose: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, yaw = pose
        return c * x - s * y + shift[0], s * x + c * y + shift[1], yaw + angle

    moved = tuple(
        Box(b.kind, *turned((b.x, b.y, 0.0))[:2], b.length, b.width, b.height, b.yaw + angle) for b in scene.boxes
    )
    corners = np.array([turned((x, y, 0.0))[:2] for x in (-6.2, 6.2) for y in (-5.2, 5.2)])
    other = Scene("turned", moved, tuple(corners.min(0)), tuple(corners.max(0)))
    start, goal = (-3.63, 2.22, 0.7), (3.27, -1.31, -2.0)
    seen = []
    for where, here, there in ((scene, start, goal), (other, turned(start), turned(goal))):
        task = nav(body, where)
        task.place(0, 0, here, there)
        seen.append(task.observe(world(body, [here])))
    assert seen[0].keys() == {"route", "goal", "privileged"}
    torch.testing.assert_close(seen[0]["goal"], seen[1]["goal"], atol=1e-4, rtol=0)
    # Of two equally cheap ways round a cell the turned grid may take the other one.
    torch.testing.assert_close(seen[0]["route"], seen[1]["route"], atol=0.1, rtol=0)
    torch.testing.assert_close(seen[0]["privileged"], seen[1]["privileged"], atol=0.02, rtol=0.01)
    # Control: the same pose in the world that was not turned along looks different.
    assert not torch.allclose(seen[0]["goal"], task.observe(world(body, [start]))["goal"], atol=0.5)


def test_the_privileged_view_by_hand(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    task = nav(body, hall())
    task.place(0, 0, (3.05, 0.05, 0.0), (0.05, 0.05, 0.0))
    view = task.observe(world(body, [(3.05, 0.05, 0.0)]))["privileged"][0].numpy()
    rays, clearance, cost, descent = view[:NUM_RAYS], view[-4], view[-3], view[-2:]
    assert rays[0] == pytest.approx(6.0 - 3.05, abs=0.03)  # ahead
    assert rays[6] == pytest.approx(5.0 - 0.05, abs=0.03)  # left
    assert rays[12] == RAY_RANGE  # behind: the wall is 9 m away
    assert clearance == pytest.approx(6.0 - 3.05 - body.footprint.length / 2, abs=0.03)
    assert 3.0 <= cost < 3.05 and descent[0] == pytest.approx(-1.0, abs=0.01)


def test_clearance_is_the_rectangles(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    """Side on, the width counts; head on, the length; turned by 45 degrees, the corner."""
    task = nav(body, hall())
    task.place(0, 0, (0.0, 0.0, 0.0), (3.0, 0.0, 0.0))
    length, width = body.footprint.length, body.footprint.width
    for yaw, reach in ((0.0, length / 2), (np.pi / 2, width / 2), (np.pi / 4, (length + width) / 8**0.5)):
        for x in (5.0, 5.5, 5.9):
            clearance = float(task.measures(world(body, [(x, 0.0, yaw)]))["clearance"])
            # Inside a wall the distance field is that of a 20 cm box.
            wanted = 6.0 - x - reach
            assert clearance == pytest.approx(wanted, abs=0.03) if wanted > -0.1 else clearance < 0.0


def test_success_needs_place_rest_and_heading(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    task, goal = nav(body, hall()), (1.0, 1.0, 0.5)

    def success(pose: tuple[float, float, float], twist: tuple[float, float, float] = (0, 0, 0), **more: bool) -> bool:
        return bool(task.success(world(body, [pose], np.array([twist]), **more)))

    task.place(0, 0, (-2.0, 0.0, 0.0), goal)
    assert success((1.3, 1.3, 0.55)) and success((1.3, 1.3, 0.55 - 2 * np.pi))
    assert not success((1.4, 1.4, 0.5))  # 0.57 m off
    assert not success((1.0, 1.0, 0.65))
    assert not success(goal, (0.11, 0.0, 0.0)) and not success(goal, (0.0, 0.0, -0.11))
    assert not success(goal, contact=True)
    car = load_robot("ackermann")
    assert car.limits.min_turning_radius > 0
    task = nav(car, hall())
    task.place(0, 0, (-2.0, 0.0, 0.0), goal)
    assert bool(task.success(world(car, [(1.3, 1.3, 3.0)])))  # a car's heading does not count


def test_failure_is_contact_tilt_or_fall(hall: Make, nav: Make, world: Callable[..., World]):
    body = load_robot("go2")
    task = nav(body, hall())
    good = world(body, [(0.0, 0.0, 0.3)])
    assert not task.failure(good)
    assert task.failure(replace(good, contact=torch.tensor([True])))
    for degrees, falls in ((50.0, False), (70.0, True)):
        half = np.radians(degrees) / 2
        tilted = torch.tensor([[np.cos(half), np.sin(half), 0.0, 0.0]], dtype=torch.float32)
        assert bool(task.failure(replace(good, quaternion=tilted))) is falls
    low = good.position - torch.tensor([0.0, 0.0, 0.6 * body.base_height])
    assert task.failure(replace(good, position=low))


def test_a_record_holds_the_path_its_length_and_whether_it_got_stuck(
    body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]
):
    task = nav(body, hall())
    task.place(0, 0, (-3.0, 0.0, 0.0), (3.0, 0.0, 0.0))
    path = np.concatenate([task.path(world(body, [(-3.0 + 0.25 * k, 0.0, 0.5)])).numpy() for k in range(9)])
    assert path[-1].tolist() == [-1.0, 0.0, 0.5]
    assert task.conclude("success", path, 0.1) == {"path_length": pytest.approx(2.0, abs=1e-5), "stuck": 0.0}
    waits = np.concatenate([path, np.repeat(path[-1:], 100, axis=0)])
    assert task.conclude("timeout", waits, 0.1)["stuck"] == 1.0
    assert task.conclude("timeout", path[::-1].repeat(9, axis=0), 0.1)["stuck"] == 0.0
    assert task.shortest[0] == pytest.approx(6.0, abs=0.15)
    contact = world(body, [(0.0, 0.0, 0.0)])
    assert task.failures(replace(contact, contact=torch.tensor([True]))) == ["collision"]
    assert task.failures(contact) == ["fall"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scene": "ofice"}, "office"),
        ({"route": "a*"}, "route"),
        ({"reward": "dense"}, "reward"),
        ({"split": "val"}, "split"),
        ({"scene": "map"}, "map=<map.yaml>"),
        ({"num_scenes": 0}, "num_scenes"),
        ({"min_distance": 8.0}, "min_distance"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        GoalNavCfg(**settings)


def test_goals_in_walls_and_scenes_without_room_are_refused(body: Embodiment, hall: Make, nav: Make):
    task = nav(body, hall(Box("rack", 0.0, 0.0, 1.0, 1.0, 1.0)))
    with pytest.raises(UserError, match=r"goal \(0.10, 0.20\).*carrier"):
        task.place(0, 0, (3.0, 3.0, 0.0), (0.1, 0.2, 0.0))
    with pytest.raises(UserError, match="start"):
        task.place(0, 0, (9.0, 3.0, 0.0), (3.0, 3.0, 0.0))
    tiny = Scene("tiny", hall().boxes, (-6.2, -5.2), (-4.9, -3.9))
    with pytest.raises(UserError, match="2.0 to 7.0 m apart"):
        nav(body, tiny).reset(np.array([0]), np.array([0]), 0)
