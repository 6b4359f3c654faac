"""A policy that sees colours behind ROS topics: its picture is the environment's, and without one it holds."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from omnibody.deploy_ros.inputs import Inputs
from omnibody.deploy_ros.runner import NEEDED, Command, Hold, PolicyRunner
from omnibody.envs.make import make_env
from omnibody.envs.mujoco_env import MujocoEnv, io_spec
from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.policies.policy import Policy
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.sim_tasks.table import task_config
from omnibody.training.cli import main
from omnibody.training.data.reader import open_dataset

# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
CARRIER, ROWS = load_robot("carrier"), 32
SHAPE = CARRIER.camera.picture(ROWS).shape
START = 180.0  # of three nodes, on a busy computer [s]
WITH = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without"])


def spec(*more: str) -> IOSpec:
    """What a robot with a camera tells, and ``more`` that only a simulator does."""
    whole = io_spec(CARRIER, GoalNavCfg().build(CARRIER, 1), CARRIER.camera.picture(ROWS))
    keys = ("depth", "velocity", "image", "route", "goal", *more)
    return dataclasses.replace(whole, obs={key: whole.obs[key] for key in keys})


def seeing(io: IOSpec) -> Policy:
    """An untrained policy that sees all of it; what it wants to do depends on all."""
    torch.manual_seed(0)
    cfg = dataclasses.replace(DiffusionCfg.tiny(), obs_keys=list(io.obs), obs_steps=1)
    policy = cfg.build(io)
    for parameter in policy.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


@pytest.fixture
def runner() -> PolicyRunner:
    out = PolicyRunner(seeing(spec()), CARRIER)
    out.period = 10.0  # a busy computer is not what is tested here
    out.set_goal((3.0, 0.0, 0.0))
    return out


@pytest.fixture(scope="module")
def env() -> Iterator[MujocoEnv]:
    made = make_env("carrier", GoalNavCfg(scene="office", num_scenes=2), num_envs=2, tier="T0", threads=1, rgb=ROWS)
    yield made
    made.close()


def feed(runner: PolicyRunner, stamp: float, **changed: Any) -> None:
    readings = {"pose": np.zeros(3), "velocity": np.zeros(3), "depth": np.full((16, 64), 8.0, np.float32)}
    for key, value in {**readings, "image": np.full(SHAPE, 90, np.uint8), **changed}.items():
        if value is not None:
            runner.observe(key, value, stamp)


def sent(picture: np.ndarray) -> Any:
    height, width, _ = picture.shape
    header = Message(stamp=Message(sec=0, nanosec=0), frame_id="camera")
    return Message(
        header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
        data=picture.tobytes(),
    )  # fmt: skip


def test_the_observation_is_the_envs(runner: PolicyRunner, env: MujocoEnv) -> None:
    obs = env.reset(seed=3)
    inputs = Inputs(runner, pytest.fail)
    pose = np.array([*env.world.position[0, :2].tolist(), float(env.world.yaw[0])])
    feed(runner, 0.0, pose=pose, velocity=obs["velocity"][0].numpy(), depth=obs["depth"][0].numpy(), image=None)
    runner.set_goal(env.task.goal[0])
    runner.set_route(env.task.way(0, pose[:2]))
    inputs.take("image", sent(obs["image"][0].numpy()))
    own = runner.observation()
    assert own.keys() == spec().obs.keys()
    for key, value in own.items():
        assert value.dtype == obs[key].dtype and torch.allclose(value[0], obs[key][0], atol=1e-5), key
    inputs.take("image", sent(obs["image"][1].numpy()))  # the control: another world's
    assert (runner.observation()["image"][0] != obs["image"][0]).float().mean() > 0.1


def test_what_it_commands_depends_on_the_picture() -> None:
    twists = []
    for colour in (90, 90, 250):
        runner = PolicyRunner(seeing(spec()), CARRIER)
        runner.set_goal((3.0, 0.0, 0.0))
        feed(runner, 0.0, image=np.linspace(0, colour, np.prod(SHAPE)).astype(np.uint8).reshape(SHAPE))
        answer = runner.tick(0.0)
        assert isinstance(answer, Command)
        twists.append(answer.twist)
    assert np.array_equal(twists[0], twists[1]) and not np.allclose(twists[0], twists[2], atol=1e-4)


def test_it_waits_for_a_picture_and_holds_without(runner: PolicyRunner) -> None:
    runner.period = 0.1
    assert runner.needed == (*NEEDED, "image")
    feed(runner, 0.0, image=None)
    assert runner.tick(0.0) == Hold("stale: image", "none came yet")
    feed(runner, 1.0)
    runner.tick(1.0)
    feed(runner, 1.1, image=None)
    assert not runner.due(1.1) and runner.due(1.12)
    feed(runner, 1.1)
    assert runner.due(1.1)
    feed(runner, 1.42, image=None)
    assert runner.tick(1.42) == Hold("stale: image", "age 0.32 s")
    feed(runner, 1.5, image=np.zeros((8, 8, 3), np.uint8))
    assert runner.tick(1.5) == Hold("unusable: image", f"wanted shape {SHAPE}, came (8, 8, 3)")


def test_a_policy_that_does_not_look_needs_no_picture() -> None:
    """Though the data that it was trained on had some, and semantics, which only a simulator has."""
    blind = dataclasses.replace(DiffusionCfg.tiny(), obs_keys=["velocity", "goal"]).build(spec("semantics"))
    runner = PolicyRunner(blind, CARRIER)
    runner.set_goal((3.0, 0.0, 0.0))
    feed(runner, 0.0, image=None)
    assert runner.needed == NEEDED and isinstance(runner.tick(0.0), Command) and "image" not in runner.observation()


def test_what_the_camera_cannot_give_is_refused() -> None:
    other = dataclasses.replace(CARRIER, camera=dataclasses.replace(CARRIER.camera, horizontal_fov=1.0))
    with pytest.raises(UserError, match=r"image: the policy wants shape \(32, 92, 3\), carrier has \(32, 48, 3\)"):
        PolicyRunner(seeing(spec()), other)
    with pytest.raises(UserError, match=r"gives depth, .*, image; the policy wants semantics as well"):
        PolicyRunner(seeing(spec("semantics")), CARRIER)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "seeing"
    save_pretrained(seeing(spec()), folder, {})
    return folder


def test_pictures_are_heard_only_for_who_sees_them_and_compressed_if_asked(domain: None, runner: PolicyRunner) -> None:
    rclpy = pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CompressedImage

    from omnibody.deploy_ros.subscriptions import subscriptions

    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-r", "image:=/camera/color/image_raw"], context=context)
    node = rclpy.create_node("node", context=context)

    def heard(compressed: bool) -> dict[str, tuple[str, str]]:
        return {
            one.key: (one.kind.__name__, node.resolve_topic_name(one.topic))
            for one in subscriptions(node, runner, compressed)
        }

    assert heard(False)["image"] == ("Image", "/camera/color/image_raw")
    assert heard(True)["image"] == ("CompressedImage", "/camera/color/image_raw/compressed")
    assert heard(True)["depth"] == ("CompressedImage", "/depth/compressedDepth")
    inputs, picture = Inputs(runner, pytest.fail), np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    png = BytesIO()
    Picture.fromarray(picture).save(png, format="PNG")
    message = CompressedImage(format="rgb8; png compressed bgr8", data=png.getvalue())
    inputs.take("image", deserialize_message(serialize_message(message), CompressedImage))
    assert np.array_equal(runner._values["image"], picture)
    runner.needed = NEEDED
    assert "image" not in heard(False) and "depth" in heard(False)
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def shared(start_robot: Callable[..., Any], checkpoint: Path) -> Any:
    pytest.importorskip("rclpy")
    return start_robot("-p", f"checkpoint:={checkpoint}")


@pytest.fixture
def robot(shared: Any) -> Any:
    shared.restore()
    shared.without("ahead")
    assert shared.drives(), shared.said
    return shared


@WITH
def test_a_silent_camera_stops_it_and_it_resumes(robot: Any, guarded: bool) -> None:
    assert robot.node.count_subscribers("image") == 1
    if not guarded:
        robot.without("ahead,stale")
    robot.silent = {"image"}
    assert robot.stops() is guarded
    if guarded:
        assert robot.says("stale: image, age")
        robot.silent = set()
        assert robot.drives()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoding", "bayer_rggb8", "image.encoding: wanted one of rgb8, bgr8, rgba8, bgra8, came 'bayer_rggb8'"),
        ("height", 31, "image.data: wanted 31 rows of 276 bytes, came 8832 bytes"),
        ("step", 8, "image.step: wanted at least one pixel and 276 bytes a row"),
    ],
)
def test_a_bad_picture_holds_and_is_named(robot: Any, field: str, value: Any, words: str) -> None:
    robot.fields = {"image": {field: value}}
    assert robot.says(f"unusable: image, {words}") and robot.speed == 0.0, robot.said
    robot.fields = {}
    assert robot.drives()
    robot.without("ahead,unusable,stale")
    robot.fields = {"image": {field: value}}
    assert not robot.stops(0.3)  # the control: without the guard it drives on


def test_it_drives_a_simulated_body_and_what_it_saw_becomes_a_dataset(
    domain: None, checkpoint: Path, tmp_path: Path
) -> None:
    """Only the checkpoint says that there are pictures: simulator, node, recording. Stopped after a while by Ctrl-C."""
    rclpy = pytest.importorskip("rclpy")
    from geometry_msgs.msg import Twist

    words = [f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}", f"record={tmp_path / 'bags'}"]
    words += ["robots=[carrier]", "lockstep=true"]
    command = [Path(sys.executable).with_name("omnibody"), "deploy", "sim", *words]
    context = rclpy.Context()
    rclpy.init(context=context)
    node, twists = rclpy.create_node("ear", context=context), list[Any]()
    node.create_subscription(Twist, "cmd_vel", twists.append, 100)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + START
        while sum(twist.linear.x != 0.0 for twist in twists) < 10 and process.poll() is None:
            assert time.monotonic() < end, "it does not drive"
            executor.spin_once(timeout_sec=0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, process.stderr and process.stderr.read()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    [bag] = (tmp_path / "bags").iterdir()
    assert (
        main(["collect", "source=bag", f"path={bag}", "robot=carrier", f"rgb={ROWS}", f"out={tmp_path / 'data'}"]) == 0
    )
    data = open_dataset(tmp_path / "data")
    assert data.length.sum() >= 8 and len(data.arrays["obs.image"]) == (data.length + 1).sum()
    env = make_env("carrier", task_config("goal_nav/single_rack", split="test"), num_envs=1, threads=1, rgb=ROWS)
    start = env.reset(1)["image"][0].numpy().astype(int)
    env.close()
    first = data.arrays["obs.image"][0].astype(int)
    assert np.abs(first - start).mean() < 8.0 < np.abs(first[:, ::-1] - start).mean()
