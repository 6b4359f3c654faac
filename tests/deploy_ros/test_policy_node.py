"""The policy node as a real process: each fault of a robot, with the guard against it and without.

Without its guard (``without`` names it) the same fault must get past, or the test would prove nothing.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from omnibody.deploy_ros.runner import OVERRUNS, RESUME, STALE_PERIODS  # noqa: E402
from omnibody.robots.table import load_robot  # noqa: E402

# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"
LIMITS = load_robot("carrier").limits
PERIOD, LATE = 0.1, 0.4  # of the policy; what a busy computer may add to a reaction [s]
WITH = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without"])


@pytest.fixture(scope="module")
def shared(start_robot: Callable[..., Any]) -> Any:
    return start_robot()


@pytest.fixture
def robot(shared: Any) -> Any:
    shared.drive()
    return shared


@WITH
@pytest.mark.parametrize("topic", ["odom", "depth"])
def test_a_silent_sensor_stops_it_within_a_period_and_it_resumes(robot: Any, topic: str, guarded: bool) -> None:
    if not guarded:
        robot.without("stale")
    robot.silent = {topic}
    lost = robot.node.get_clock().now().nanoseconds * 1e-9
    stopped = robot.stops()
    assert stopped is guarded
    if guarded:
        zero = next(stamp for _, stamp, speed, _ in robot.heard if speed == 0.0 and stamp > lost)
        assert zero - lost < (STALE_PERIODS + 1.0) * PERIOD + LATE
        reading = {"odom": "pose", "depth": "depth"}[topic]
        assert robot.says(f"stale: {reading}, age") and robot.level == DiagnosticStatus.ERROR
        robot.silent, count = set(), len(robot.heard)
        assert robot.drives()
        moving = next(stamp for _, stamp, speed, _ in robot.heard[count:] if speed > 0.0)
        assert moving - robot.heard[count][1] > RESUME - 2 * PERIOD


@WITH
@pytest.mark.parametrize(("late", "guard"), [(-5.0, "stale"), (0.2, "backwards,stale")], ids=["future", "backwards"])
def test_a_stamp_from_the_future_or_going_backwards_holds(robot: Any, late: float, guard: str, guarded: bool) -> None:
    if not guarded:
        robot.without(guard)
    robot.late = late
    held = robot.until(lambda: robot.speed == 0.0, 1.0)
    assert held is guarded
    if late > 0.0:  # the new clock is taken after a while
        assert robot.drives()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan twist": ({"velocity": float("nan")}, "odom.twist: wanted finite numbers, came [nan"),
    "inf pose": ({"pose": [float("inf"), 0.0, 0.0]}, "odom.pose: wanted finite numbers, came [inf"),
    "nan depth": ({"depth": np.full((16, 64), np.nan, np.float32)}, "depth.data: wanted distances [m], came 1024"),
    "encoding": (
        {"fields": {"depth": {"encoding": "rgb8"}}},
        "depth.encoding: wanted one of 32FC1, 16UC1, came 'rgb8'",
    ),
    "size": ({"fields": {"depth": {"height": 15}}}, "depth.data: wanted 15 rows of 256 bytes, came 4096 bytes"),
    "step": ({"fields": {"depth": {"step": 8}}}, "depth.step: wanted at least one pixel and 256 bytes a row"),
}


def test_bad_messages_are_not_forwarded_but_named(robot: Any) -> None:
    for name, (spoilt, words) in BAD.items():
        robot.restore()
        assert robot.drives(), name
        for field, value in spoilt.items():
            setattr(robot, field, value)
        assert robot.says(words), f"{name}: {robot.said}"
        assert robot.speed == 0.0 and robot.level == DiagnosticStatus.ERROR, name
    robot.restore()
    assert robot.drives()
    robot.without("unusable,stale")
    for name, (spoilt, _) in BAD.items():  # the control: without the guard it drives on
        for field, value in spoilt.items():
            setattr(robot, field, value)
        assert not robot.stops(0.3), name
        robot.restore()


@WITH
@pytest.mark.parametrize("fault", ["nan", "raise"])
def test_a_broken_policy_holds_and_says_so(robot: Any, fault: str, guarded: bool) -> None:
    if fault == "raise" and not guarded:
        pytest.skip("ends the process: test_an_exception_sends_zero_and_says_so")
    robot.without(fault if guarded else f"{fault},finite,stale")
    before = len(robot.heard)
    stopped = robot.stops(1.0)
    finite = all(np.isfinite(speed) for _, _, speed, _ in robot.heard[before:])
    assert (stopped and finite) is guarded
    robot.send("estop", data=True)  # a filter that has passed a NaN on starts anew
    assert robot.until(lambda: robot.speed == 0.0, 3.0)
    if guarded:
        robot.send("estop", data=False)
        assert robot.says({"nan": "action: wanted finite numbers", "raise": "RuntimeError: broken"}[fault])
        assert robot.counts["errors"] > 0 and robot.process.poll() is None


@WITH
def test_commands_stay_within_the_limits(robot: Any, guarded: bool) -> None:
    robot.without("wild" if guarded else "wild,limits,stale")
    before = len(robot.heard)
    robot.until(lambda: len(robot.heard) > before + 12, 5.0)
    twists = np.array([[speed, 0.0, turn] for _, _, speed, turn in robot.heard[before:]])
    slack = 1e-6
    inside = (twists <= np.array(LIMITS.velocity_high) + slack) & (twists >= np.array(LIMITS.velocity_low) - slack)
    steps = np.abs(np.diff(twists, axis=0)) <= np.array(LIMITS.acceleration) * PERIOD + slack
    assert (inside.all() and steps.all()) == guarded
    if guarded:
        robot.until(lambda: robot.counts["velocity"] > 0, 3.0)
        assert robot.counts["velocity"] > 0 and robot.counts["acceleration"] > 0


@WITH
def test_it_brakes_for_an_obstacle_whatever_the_policy_says(robot: Any, guarded: bool) -> None:
    robot.without("ahead" if guarded else "ahead,obstacle,stale")
    assert robot.drives(0.5)
    robot.depth = np.full((16, 64), 0.05, np.float32)  # 3 cm before the footprint
    assert robot.until(lambda: robot.speed < 0.1, 1.0) is guarded


@WITH
@pytest.mark.parametrize("guard", ["latch", "same goal"])
def test_a_reached_goal_latches_while_it_is_streamed(robot: Any, guard: str, guarded: bool) -> None:
    robot.without("ahead" if guarded else f"ahead,{guard},stale")
    robot.pose = [robot.goal, 0.0, 0.0]
    robot.until(lambda: robot.speed == 0.0, 3.0)
    robot.pose = [0.0, 0.0, 0.0]  # pushed away
    stays = robot.stops(0.5)
    assert stays is guarded
    if guarded:
        assert robot.says("goal reached") and robot.level == DiagnosticStatus.WARN
        robot.goal += 0.5  # a new one arms it again
        assert robot.drives()


@WITH
def test_a_streamed_goal_does_not_wipe_the_memory(robot: Any, guarded: bool) -> None:
    robot.without("memory" if guarded else "memory,same goal,stale")
    robot.until(lambda: False, 1.2)  # what it had before is gone by then
    assert robot.until(lambda: robot.speed > 0.6, 3.0) is guarded


@WITH
def test_estop_stops_until_it_is_released(robot: Any, guarded: bool) -> None:
    if not guarded:
        robot.without("estop,stale")
    robot.send("estop", data=True)
    assert robot.stops(1.0) is guarded
    if guarded:
        assert robot.says("estop") and robot.level == DiagnosticStatus.ERROR
    robot.send("estop", data=False)
    assert robot.drives()


@WITH
def test_a_slow_policy_skips_and_then_holds(robot: Any, guarded: bool) -> None:
    robot.without("slow" if guarded else "slow,overrun,stale")
    counted = robot.counts.get("overruns", 0)
    assert robot.stops(3.0) is guarded
    robot.says("overrun" if guarded else "driving")
    assert robot.counts["overruns"] >= counted + OVERRUNS
    if guarded:
        assert "overrun, over 0.100 s" in robot.said
    robot.without("")
    assert robot.drives()


def test_services_stop_and_engage(robot: Any) -> None:
    assert robot.call(Trigger, "stop", Trigger.Request()).success
    assert robot.stops(1.0) and robot.says("disengaged") and robot.level == DiagnosticStatus.WARN
    assert robot.call(SetBool, "engage", SetBool.Request(data=True)).success
    assert robot.drives()


def change(robot: Any, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(robot.call(ChangeState, "policy_node/change_state", request).success)


def state(robot: Any) -> int:
    return int(robot.call(GetState, "policy_node/get_state", GetState.Request()).current_state.id)


@WITH
def test_deactivate_stops(robot: Any, guarded: bool) -> None:
    if not guarded:
        robot.without("halt,stale")
    assert robot.drives()
    assert change(robot, Transition.TRANSITION_DEACTIVATE)
    robot.until(lambda: False, 0.5)
    assert (robot.speed == 0.0) is guarded
    assert change(robot, Transition.TRANSITION_ACTIVATE)
    assert robot.drives()


def spoil_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


OTHER_BODY = """
from dataclasses import replace
from omnibody.robots.carrier import EMBODIMENT as CARRIER
EMBODIMENT = replace(CARRIER, camera=replace(CARRIER.camera, width=32))
"""
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (spoil_weights, "is cut short or damaged"),
    "pickle": (lambda folder: (folder / "extra.pkl").write_bytes(b"\x80"), "extra.pkl, which may be a pickle"),
    "incomplete": (lambda folder: (folder / "spec.json").unlink(), "lacks spec.json"),
}


def test_a_bad_checkpoint_is_refused_and_the_node_lives(robot: Any, tmp_path: Path) -> None:
    assert change(robot, Transition.TRANSITION_DEACTIVATE) and change(robot, Transition.TRANSITION_CLEANUP)
    for name, (spoil, words) in SPOILT.items():
        folder = tmp_path / name
        shutil.copytree(CHECKPOINT, folder)
        spoil(folder)
        robot.set(checkpoint=str(folder))
        assert not change(robot, Transition.TRANSITION_CONFIGURE), name
        assert robot.says(words), f"{name}: {robot.said}"
        assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED
    (tmp_path / "other.py").write_text(OTHER_BODY)
    robot.set(robot=str(tmp_path / "other.py"), checkpoint=str(CHECKPOINT))
    assert not change(robot, Transition.TRANSITION_CONFIGURE) and robot.says(
        "wants shape (16, 64), carrier has (16, 32)"
    )
    robot.set(robot="carrier", backend="onnx")
    assert not change(robot, Transition.TRANSITION_CONFIGURE) and robot.says("wanted an ONNX file")
    # Controls: unspoilt it drives, and without the guard a pickle in the folder is not noticed.
    robot.set(backend="torch")
    robot.without("files")
    for folder in (tmp_path / "pickle", CHECKPOINT):
        robot.set(checkpoint=str(folder))
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        assert robot.drives(0.1)
        robot.without("")
        if folder != CHECKPOINT:
            assert change(robot, Transition.TRANSITION_DEACTIVATE) and change(robot, Transition.TRANSITION_CLEANUP)


def test_it_records_what_it_hears_and_commands(robot: Any, tmp_path: Path) -> None:
    reader = pytest.importorskip("rosbags.rosbag2").Reader
    for folder in (str(tmp_path / "bags"), ""):
        assert change(robot, Transition.TRANSITION_DEACTIVATE) and change(robot, Transition.TRANSITION_CLEANUP)
        robot.set(record=folder)
        assert change(robot, Transition.TRANSITION_CONFIGURE) and change(robot, Transition.TRANSITION_ACTIVATE)
        robot.heard.clear()
        assert robot.until(lambda: robot.speed > 0.0 and len(robot.heard) > 10, 10.0)
    (bag,) = (tmp_path / "bags").iterdir()
    with reader(bag) as whole:
        counts = {connection.topic: connection.msgcount for connection in whole.connections}
    assert all(counts[topic] > 3 for topic in ("/odom", "/depth", "/goal_pose", "/cmd_vel")), counts


def test_sigterm_sends_zero_and_says_so(robot: Any) -> None:
    """The last one of the shared node."""
    assert robot.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert robot.speed == 0.0


@WITH
@pytest.mark.parametrize("way", ["sigint", "exception"])
def test_an_end_sends_zero_and_says_so(start_robot: Callable[..., Any], way: str, guarded: bool) -> None:
    robot = start_robot()
    robot.drive()
    off = "" if guarded else "halt,stale"
    robot.without(off)
    assert robot.drives()
    if way == "sigint":
        assert robot.end(signal.SIGINT) == 128 + signal.SIGINT
    else:
        robot.without(f"raise,catch,{off}")
        assert robot.until(lambda: robot.process.poll() is not None, 10.0)
        robot.until(lambda: False, 0.3, feed=False)
        assert robot.process.returncode == 1
    assert (robot.speed == 0.0) is guarded
