"""The runner without ROS: every guard, and what happens without the fault or the guard."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import torch

from omnibody.deploy_ros import runner as module
from omnibody.deploy_ros import safety
from omnibody.deploy_ros.inputs import Inputs
from omnibody.deploy_ros.runner import Command, Hold, PolicyRunner
from omnibody.deploy_ros.safety import SafetyFilter
from omnibody.envs.make import make_env
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.compass.export import OnnxPolicy, export_onnx
from omnibody.policies.executor import Executor
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot
from omnibody.sim_tasks import planner
from omnibody.sim_tasks.goal_nav import GoalNavCfg

CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"
CARRIER = load_robot("carrier")
FAR = np.full((16, 64), 10.0, np.float32)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(CHECKPOINT)


@pytest.fixture
def runner(policy: Policy) -> PolicyRunner:
    out = PolicyRunner(policy, CARRIER)
    out.set_goal((3.0, 0.0, 0.0))
    return out


def feed(runner: PolicyRunner, stamp: float, **changed: Any) -> None:
    for key, value in {"pose": np.zeros(3), "velocity": np.zeros(3), "depth": FAR, **changed}.items():
        if value is not None:
            runner.observe(key, value, stamp)


def reason(answer: Command | Hold) -> str:
    return answer.reason if isinstance(answer, Hold) else ""


def test_fresh_data_gives_a_command(runner: PolicyRunner) -> None:
    feed(runner, 0.0)
    answer = runner.tick(0.02)
    assert isinstance(answer, Command) and np.isfinite(answer.twist).all()


@pytest.mark.parametrize("key", ["pose", "velocity", "depth"])
def test_a_stale_reading_holds_and_fresh_ones_resume_after_half_a_second(runner: PolicyRunner, key: str) -> None:
    feed(runner, 0.0)
    assert isinstance(runner.tick(0.3), Command)  # three periods are allowed
    feed(runner, 0.4, **{key: None})
    assert reason(runner.tick(0.4)).startswith(f"stale: {key}, age 0.40")
    answers = []
    for n in range(5, 12):
        feed(runner, n / 10)
        answers.append(runner.tick(n / 10))
    assert [isinstance(a, Command) for a in answers] == [False] * 5 + [True] * 2


def test_without_the_staleness_guard_it_drives_on(runner: PolicyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE_PERIODS", math.inf)
    feed(runner, 0.0)
    assert isinstance(runner.tick(60.0), Command)


def test_a_stamp_in_the_future_or_backwards_and_a_clock_jump_hold(runner: PolicyRunner) -> None:
    feed(runner, 1.0)
    assert reason(runner.tick(0.5)).startswith("stale: pose, age -0.50")
    for n in range(12):
        feed(runner, 2.0 + n / 10)
        runner.tick(2.0 + n / 10)
    feed(runner, 3.05)
    assert reason(runner.tick(3.1)).startswith("recovering")
    assert reason(runner.tick(100.0)).startswith("stale")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["pose", "velocity", "depth"])
def test_a_number_that_is_none_never_reaches_the_policy(runner: PolicyRunner, key: str, bad: float) -> None:
    feed(runner, 0.0)
    value = (FAR if key == "depth" else np.zeros(3)).copy()
    value.flat[0] = bad
    feed(runner, 0.1, **{key: value})
    assert reason(runner.tick(0.1)) == f"unusable: {key}, wanted finite numbers, came NaN or inf"


def test_a_wrong_size_names_wanted_and_came(runner: PolicyRunner) -> None:
    feed(runner, 0.0, depth=np.ones((8, 8), np.float32))
    assert reason(runner.tick(0.0)) == "unusable: depth, wanted shape (16, 64), came (8, 8)"


def test_an_exception_or_nan_of_the_policy_holds(runner: PolicyRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(runner, 0.0)

    def fail(obs: Any, state: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(runner.policy, "act", fail)
    assert reason(runner.tick(0.0)) == "policy failed, RuntimeError: broken" and runner.counts["errors"] == 1
    monkeypatch.setattr(runner.policy, "act", lambda obs, state: (torch.full((1, 1, 3), math.nan), state))
    assert "wanted finite numbers" in reason(runner.tick(0.1))
    monkeypatch.undo()
    assert isinstance(runner.tick(0.2), Command)


def test_five_overruns_in_a_row_hold(runner: PolicyRunner) -> None:
    runner.period = 0.0  # every call is late
    runner._stale = lambda now: None  # the data is not what is tested here
    feed(runner, 0.0)
    answers = [runner.tick(0.0) for _ in range(6)]
    assert [reason(a)[:7] for a in answers] == ["", "", "", "", "overrun", "overrun"] and runner.counts["overruns"] == 6
    runner.period = 10.0
    assert isinstance(runner.tick(0.0), Command)


def test_estop_holds_until_released(runner: PolicyRunner) -> None:
    feed(runner, 0.0)
    runner.estop = True
    assert reason(runner.tick(0.0)) == "estop"
    runner.estop = False
    assert isinstance(runner.tick(0.1), Command)


def test_a_robot_is_at_its_goal_where_the_task_says_so() -> None:
    task = GoalNavCfg()
    assert (task.goal_tolerance, task.heading_tolerance) == (module.GOAL_DISTANCE, module.GOAL_HEADING)
    assert (task.speed_tolerance, task.turn_tolerance) == (module.REST_SPEED, module.REST_TURN)
    assert safety.MARGIN == planner.MARGIN


def linger(runner: PolicyRunner, pose: np.ndarray, first: float, speed: float = 0.0) -> Command | Hold:
    """The answer after half a second about ``pose``, moving in x at ``speed`` [m/s]."""
    for n in range(6):
        feed(runner, first + n / 10, pose=pose + np.array([speed * (n - 5) / 10, 0.0, 0.0]))
        answer = runner.tick(first + n / 10)
    return answer


def test_a_body_that_still_moves_is_not_at_its_goal(runner: PolicyRunner) -> None:
    assert isinstance(linger(runner, np.array([2.8, 0.0, 0.0]), 0.0, speed=0.3), Command)
    assert reason(linger(runner, np.array([2.8, 0.0, 0.0]), 0.6)) == "goal reached"


def test_a_swaying_body_is_at_rest_as_in_the_task(runner: PolicyRunner) -> None:
    env = make_env("carrier", GoalNavCfg(num_scenes=1), num_envs=1, tier="T0", threads=1)
    env.reset(seed=0)
    for n in range(12):
        world = env.step(torch.tensor([[0.3 * (-1) ** n, 0.0, 0.0]])).world
        pose = np.array([*world.position[0, :2].tolist(), float(world.yaw[0])])
        feed(runner, n / 10, pose=pose)
    (then, before), (now, last) = runner._poses[0], runner._poses[-1]
    moved = np.linalg.norm(last[:2] - before[:2]) / (now - then)
    assert np.isclose(moved, world.twist[0, :2].norm(), atol=1e-4)
    runner.set_goal(last)
    assert reason(runner.tick(1.1)) == "goal reached"


def test_the_goal_latches_and_a_new_one_arms_again(runner: PolicyRunner) -> None:
    assert reason(linger(runner, np.array([2.8, 0.0, 0.0]), 0.0)) == "goal reached"
    feed(runner, 0.6, pose=np.array([1.0, 0.0, 0.0]))  # pushed away
    runner.set_goal((3.0, 0.0, 0.0))
    assert reason(runner.tick(0.6)) == "goal reached"
    runner.set_goal((-3.0, 0.0, 0.0))
    assert isinstance(runner.tick(0.6), Command)


def test_plan_and_goal_may_come_in_either_order(runner: PolicyRunner) -> None:
    old, new = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]]), np.array([[0.0, 0.0], [-2.0, 1.0], [-3.0, 0.0]])
    feed(runner, 0.0)
    runner.set_route(old)
    assert runner.way().tolist() == old.tolist()
    runner.set_goal((-3.0, 0.0, 0.0))
    straight = runner.route()
    assert len(runner.way()) == 0  # the old plan leads elsewhere
    runner.set_route(new)
    after = runner.route()
    assert not np.allclose(after, straight)
    runner.set_goal((3.0, 0.0, 0.0))
    runner.set_route(new)
    runner.set_goal((-3.0, 0.0, 0.0))  # the plan was there first
    assert np.allclose(runner.route(), after)


def test_it_ticks_when_readings_come_and_without_them_a_little_later(runner: PolicyRunner) -> None:
    feed(runner, 0.0)
    assert runner.due(0.0)
    runner.tick(0.0)
    feed(runner, 0.05)
    assert not runner.due(0.05)  # too early
    feed(runner, 0.1, depth=None)
    assert runner.due(0.1)  # the depth of 0.05 is new too
    runner.tick(0.1)
    feed(runner, 0.2, depth=None)
    assert not runner.due(0.2) and runner.due(0.22)
    runner.tick(0.22)
    assert not runner.due(0.29) and runner.due(0.0)  # a clock that jumped back


def test_it_stops_at_once_when_a_reading_has_become_stale(runner: PolicyRunner) -> None:
    feed(runner, 0.0)
    assert isinstance(runner.tick(0.29), Command)
    assert not runner.due(0.3) and runner.due(0.301)
    assert reason(runner.tick(0.301)).startswith("stale")
    assert not runner.due(0.33)


def test_another_rate_is_refused_unless_asked_for(policy: Policy) -> None:
    slow = dataclasses.replace(CARRIER, rate_hz=5.0)
    with pytest.raises(UserError, match=r"trained at 10.0 Hz, carrier runs at 5.0 Hz; ask for"):
        PolicyRunner(policy, slow)
    assert PolicyRunner(policy, slow, rate_hz=5.0).period == 0.2


def test_a_body_with_another_camera_is_refused(policy: Policy) -> None:
    other = dataclasses.replace(CARRIER, camera=dataclasses.replace(CARRIER.camera, width=32))
    with pytest.raises(UserError, match=r"depth: the policy wants shape \(16, 64\), carrier has \(16, 32\)"):
        PolicyRunner(policy, other)


def test_a_flood_of_readings_keeps_few(runner: PolicyRunner) -> None:
    for n in range(5000):
        runner.observe("pose", np.zeros(3), n / 1000)
        runner.observe("pose", np.zeros(3), n / 1000)
    assert len(runner._poses) < 50 and reason(linger(runner, np.array([2.8, 0.0, 0.0]), 6.0)) == "goal reached"


def test_streaming_one_goal_keeps_the_memory(policy: Policy) -> None:
    twists = []
    for goals in ([(3.0, 0.0, 0.0)] * 5, [(3.0, 0.0, 0.0), *[None] * 4], [(3.0, 0.01 * n, 0.0) for n in range(5)]):
        runner = PolicyRunner(policy, CARRIER)
        for n, goal in enumerate(goals):
            if goal is not None:
                runner.set_goal(goal)
            feed(runner, n / 10, depth=np.full_like(FAR, 3.0 + n))
            runner.tick(n / 10)
        twists.append({key: value.clone() for key, value in runner._state.items()})
    assert all(torch.equal(twists[0][key], twists[1][key]) for key in twists[0])
    assert any(not torch.allclose(twists[0][key], twists[2][key], atol=1e-3) for key in twists[0])


@pytest.mark.parametrize("route", ["astar", "line"])
def test_the_observation_is_the_envs(policy: Policy, route: str) -> None:
    env = make_env("carrier", GoalNavCfg(scene="office", route=route, num_scenes=4), num_envs=4, tier="T0", threads=1)
    obs = env.reset(seed=3)
    for row in range(4):
        runner = PolicyRunner(policy, CARRIER)
        pose = np.array([*env.world.position[row, :2].tolist(), float(env.world.yaw[row])])
        feed(runner, 0.0, pose=pose, velocity=obs["velocity"][row].numpy(), depth=obs["depth"][row].numpy())
        runner.set_goal(env.task.goal[row])
        if route == "astar":
            runner.set_route(env.task.way(row, pose[:2]))
        own = runner.observation()
        for key in ("depth", "velocity", "goal", "route"):
            assert torch.allclose(own[key][0], obs[key][row], atol=1e-5), key
    if route == "astar":  # the plan matters: the second way has a bend
        runner.set_route(np.zeros((0, 2)))
        assert not torch.allclose(runner.observation()["route"][0], obs["route"][row], atol=1e-3)


def test_torch_and_onnx_command_alike(policy: Any, tmp_path: Path) -> None:
    export_onnx(policy, Context(CARRIER), tmp_path / "policy.onnx")
    runners = [PolicyRunner(p, CARRIER) for p in (policy, OnnxPolicy(tmp_path / "policy.onnx"))]
    rng, worst = np.random.default_rng(0), 0.0
    for runner in runners:
        runner.set_goal((5.0, 1.0, 0.5))
        runner.period = 10.0  # a busy computer is not what is tested here
    for n in range(100):
        pose, velocity = np.array([0.02 * n, 0.1 * math.sin(n / 9), 0.01 * n]), rng.normal(0.0, 0.2, 3)
        depth = rng.uniform(3.0, 10.0, (16, 64)).astype(np.float32)
        answers = []
        for runner in runners:
            feed(runner, n / 10, pose=pose, velocity=velocity, depth=depth)
            answers.append(runner.tick(n / 10))
        assert all(isinstance(answer, Command) for answer in answers)
        worst = max(worst, float(np.abs(answers[0].twist - answers[1].twist).max()))
    assert worst <= 1e-4


class Planner(Policy):
    """Says in which call and row an action was planned, and how many steps it had been shown by then."""

    obs_keys = ("velocity",)

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.spec, self.action_steps, self.weight = policy.spec, 3, torch.nn.Parameter(torch.zeros(1))

    def begin(self, context: Context, batch_size: int) -> State:
        return {"calls": torch.zeros(batch_size, 1), "shown": torch.zeros(batch_size, 1)}

    def observe(self, obs: Obs, state: State) -> State:
        return {**state, "shown": state["shown"] + 1}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[torch.Tensor, State]:
        rows = torch.stack([torch.tensor([float(state["calls"]), n, float(state["shown"])]) for n in range(5)])
        return 0.01 * rows[None], {"calls": state["calls"] + 1, "shown": state["shown"] + 1}


def test_chunks_are_played_as_in_simulation_and_do_not_outlive_a_hold(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SafetyFilter, "filter", lambda self, twist, obstacles: twist)
    planner = Planner(policy)
    runner, executor = PolicyRunner(planner, CARRIER), Executor(planner, Context(CARRIER), 1)
    runner.set_goal((3.0, 0.0, 0.0))

    def commands(first: int, count: int) -> np.ndarray:
        out = []
        for n in range(first, first + count):
            feed(runner, n / 10)
            answer = runner.tick(n / 10)
            assert isinstance(answer, Command)
            out.append(answer.twist)
        return np.stack(out)

    offline = np.concatenate([executor.act({"velocity": torch.zeros(1, 3)}).numpy() for _ in range(8)])
    assert np.allclose(commands(0, 8), offline) and np.allclose(offline[:4, 1], [0.0, 0.01, 0.02, 0.0])
    assert commands(8, 2)[-1, 1] == 0.0  # a new chunk has begun
    runner.estop = True
    feed(runner, 1.0)
    assert isinstance(runner.tick(1.0), Hold)
    runner.estop = False
    assert commands(11, 1)[0, 1] == 0.0  # and another one after the hold
    runner.set_goal((-3.0, 0.0, 0.0))
    assert np.allclose(commands(12, 1), offline[:1])  # an episode from its beginning


@pytest.mark.parametrize("seen", [True, False])
def test_it_brakes_for_points_and_holds_when_they_stop_coming(
    runner: PolicyRunner, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(runner.policy, "act", lambda obs, state: (torch.tensor([[[1.0, 0.0, 0.0]]]), state))
    ahead = 0.5 * CARRIER.footprint.length + 0.04
    wall = np.array([[ahead, y, 0.0] for y in np.linspace(-1, 1, 21)]) if seen else np.zeros((0, 3))
    for n in range(10):
        feed(runner, n / 10)
        runner.observe("points", wall, n / 10)
        answer = runner.tick(n / 10)
    assert isinstance(answer, Command) and bool(answer.twist[0] < 0.1) is seen
    feed(runner, 1.3)
    assert reason(runner.tick(1.3)).startswith("stale: points, age 0.40")


@pytest.mark.parametrize("frame", ["map", "odom"])
def test_a_goal_and_a_plan_from_before_the_odometry_must_be_in_its_frame(runner: PolicyRunner, frame: str) -> None:
    odom, other = (Message(frame_id=name, stamp=Message(sec=0, nanosec=0)) for name in ("odom", frame))
    turn, zero = Message(x=0.0, y=0.0, z=0.0, w=1.0), Message(x=0.0, y=0.0, z=0.0)
    pose, zeros = Message(position=Message(x=2.0, y=0.0, z=0.0), orientation=turn), Message(linear=zero, angular=zero)
    here = Message(position=zero, orientation=turn)
    came: list[str] = []
    inputs = Inputs(runner, came.append)
    inputs.take("plan", Message(header=other, poses=[Message(pose=here), Message(pose=pose)]))
    inputs.take("goal_pose", Message(header=other, pose=pose))
    inputs.take("odom", Message(header=odom, pose=Message(pose=here), twist=Message(twist=zeros)))
    runner.observe("depth", FAR, 0.0)
    assert isinstance(runner.tick(0.0), Command)  # the goal of before, or the new one
    if frame == "odom":
        assert not came and runner.way().tolist() == [[0.0, 0.0], [2.0, 0.0]]
    else:
        assert [error.partition(",")[0] for error in came] == [
            f"{name}.header.frame_id: wanted 'odom'" for name in ("plan", "goal_pose")
        ]
        assert len(runner.way()) == 0


def test_a_tick_that_came_between_two_readings_does_not_part_them_for_ever(runner: PolicyRunner) -> None:
    """After one tick with an image but old odometry, the next waits for both; with a lagging camera too."""
    for lag in (0.0, 0.07):
        began, ages = 10.0 if lag else 0.0, []
        feed(runner, began)
        runner.tick(began)
        for n in range(1, 6):
            now = began + n / 10
            runner.observe("depth", FAR, now - lag)
            if n == 1:
                runner.tick(now)  # a late one, for want of odometry
            elif runner.due(now):
                ages.append(now - runner._stamps["pose"])
                runner.tick(now)
            feed(runner, now, depth=None)
            if runner.due(now):
                ages.append(now - runner._stamps["pose"])
                runner.tick(now)
        assert len(ages) == 4 and max(ages) < 0.01
