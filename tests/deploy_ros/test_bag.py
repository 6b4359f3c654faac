"""Bags become datasets: a drive of the simulation comes back step by step, and what is no drive is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from omnibody.deploy_ros.workstation.bag import SEEN, TYPES, BagCfg, record  # noqa: E402
from omnibody.envs.make import make_env  # noqa: E402
from omnibody.policies.compass.base import CompassBaseCfg  # noqa: E402
from omnibody.robots.errors import UserError  # noqa: E402
from omnibody.robots.table import load_robot  # noqa: E402
from omnibody.sim_tasks.goal_nav import GoalNavCfg  # noqa: E402
from omnibody.training.cli import main  # noqa: E402
from omnibody.training.data.reader import Dataset, open_dataset  # noqa: E402
from omnibody.training.fit import FitCfg  # noqa: E402
from omnibody.training.train import TrainCfg, WindowsCfg, train  # noqa: E402

STORE = get_typestore(Stores.ROS2_JAZZY)
STEPS, GOALS = 25, 2  # of each goal
ROWS = 32  # of the picture
Message = tuple[str, Any]  # topic and message
Step = dict[str, Any]
CARRIER = load_robot("carrier")


def ros(kind: str, **values: Any) -> Any:
    return STORE.types[kind](**values)


def header(seconds: float, frame: str = "odom") -> Any:
    stamp = ros("builtin_interfaces/msg/Time", sec=int(seconds), nanosec=round(1e9 * (seconds % 1.0)))
    return ros("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def pose(x: float, y: float, yaw: float) -> Any:
    turn = ros("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    return ros("geometry_msgs/msg/Pose", position=ros("geometry_msgs/msg/Point", x=x, y=y, z=0.0), orientation=turn)


def twist(vx: float, vy: float, wz: float) -> Any:
    linear = ros("geometry_msgs/msg/Vector3", x=vx, y=vy, z=0.0)
    return ros("geometry_msgs/msg/Twist", linear=linear, angular=ros("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=wz))


def odometry(seconds: float, place: list[float], speed: list[float]) -> Any:
    covariance = np.zeros(36)
    return ros(
        "nav_msgs/msg/Odometry",
        header=header(seconds),
        child_frame_id="base_link",
        pose=ros("geometry_msgs/msg/PoseWithCovariance", pose=pose(*place), covariance=covariance),
        twist=ros("geometry_msgs/msg/TwistWithCovariance", twist=twist(*speed), covariance=covariance),
    )


def image(seconds: float, pixels: np.ndarray, encoding: str = "32FC1") -> Any:
    raw = pixels if encoding == "rgb8" and pixels.ndim == 3 else pixels.astype("<f4")
    height, width = raw.shape[:2]
    return ros(
        "sensor_msgs/msg/Image",
        header=header(seconds, "camera"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=raw[0].nbytes,
        data=np.frombuffer(raw.tobytes(), np.uint8),
    )


@pytest.fixture(scope="module")
def drive() -> list[Step]:
    """What a simulated body saw and was told, step by step, on its way to one goal and then to another."""
    task = GoalNavCfg(scene="single_rack", route="line", num_scenes=1)
    env = make_env("carrier", task, num_envs=1, tier="T0", threads=1, rgb=ROWS)
    steps: list[Step] = []
    for goal in range(GOALS):
        obs = env.reset(seed=1, first_episode=goal)
        for _ in range(STEPS):
            action = env.expert()[0].numpy()
            place = [*env.world.position[0, :2].tolist(), float(env.world.yaw[0])]
            seen = {key: obs[key][0].numpy().copy() for key in SEEN}
            aim = env.task.goal[0].tolist()
            steps.append({"seconds": 5.0 + 0.1 * len(steps), "seen": seen, "pose": place, "aim": aim, "action": action})
            step = env.step(torch.from_numpy(action[None]))
            assert not step.done.any()
            obs = step.obs
    env.close()
    return steps


def said(step: Step) -> list[Message]:
    """The messages of a step in the order of `sim_node`, and the command that answers."""
    at, speed = step["seconds"], step["seen"]["velocity"].tolist()
    return [
        ("goal_pose", ros("geometry_msgs/msg/PoseStamped", header=header(at), pose=pose(*step["aim"]))),
        ("image", image(at, step["seen"]["image"], "rgb8")),
        ("depth", image(at, step["seen"]["depth"])),
        ("odom", odometry(at, step["pose"], speed)),
        ("cmd_vel", twist(*step["action"].tolist())),
    ]


def write(path: Path, messages: list[Message], storage: StoragePlugin = StoragePlugin.MCAP, prefix: str = "/") -> Path:
    """A bag of these messages, a millisecond apart."""
    with Writer(path, version=9, storage_plugin=storage) as bag:
        kinds = {topic: message.__msgtype__ for topic, message in messages}
        topics = {topic: bag.add_connection(prefix + topic, kind, typestore=STORE) for topic, kind in kinds.items()}
        for n, (topic, message) in enumerate(messages):
            bag.write(topics[topic], n * 10**6, STORE.serialize_cdr(message, kinds[topic]))
    return path


def dataset(bag: Path, out: Path, robot: str = "carrier", rgb: int = 0) -> Dataset:
    record(BagCfg(path=str(bag), robot=robot, out=str(out), rgb=rgb))
    return open_dataset(out)


def everything(drive: list[Step]) -> list[Message]:
    return [message for step in drive for message in said(step)]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_drive_comes_back_as_it_was(storage: StoragePlugin, drive: list[Step], tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", everything(drive), storage, prefix="/robot1/")
    data = dataset(bag, tmp_path / "data")
    assert data.length.tolist() == [STEPS - 1] * GOALS
    assert list(data.origin.spec.obs) == ["depth", "velocity", "route", "goal"] and data.origin.parts == ("pose",)
    for number, first in enumerate(data.first):
        own = drive[number * STEPS : (number + 1) * STEPS]
        for key in data.origin.spec.obs:
            came = data.arrays[f"obs.{key}"][first : first + STEPS].astype(np.float64)
            wanted = np.stack([step["seen"][key] for step in own])
            np.testing.assert_allclose(came * (0.001 if key == "depth" else 1.0), wanted, atol=6e-4)
        steps = slice(first, first + STEPS - 1)
        np.testing.assert_allclose(data.arrays["action"][steps], [step["action"] for step in own[:-1]], atol=1e-6)
        np.testing.assert_allclose(data.arrays["pose"][steps], [step["pose"] for step in own[:-1]], atol=1e-5)
        assert data.arrays["truncated"][first + STEPS - 2] and not data.arrays["success"][steps].any()


def test_pictures_become_video_where_asked_for(drive: list[Step], tmp_path: Path) -> None:
    """As ``omnibody collect rgb=``: nearly what was seen, as H.264 loses a little; a smaller one, too."""
    bag = write(tmp_path / "bag", everything(drive))
    for rows in (ROWS, ROWS // 2):
        data = dataset(bag, tmp_path / f"data{rows}", rgb=rows)
        assert data.length.tolist() == [STEPS - 1] * GOALS and list(data.origin.spec.obs) == list(SEEN)
        assert data.origin.spec.obs["image"] == CARRIER.camera.picture(rows)
        step = ROWS // rows
        for number, first in enumerate(data.first):
            own = drive[number * STEPS : (number + 1) * STEPS]
            wanted = np.stack([one["seen"]["image"] for one in own]).astype(int)
            came = data.arrays["obs.image"][first : first + STEPS].astype(int)
            assert np.abs(came - wanted[:, step // 2 :: step, step // 2 :: step]).mean() < 8.0
            assert np.abs(came - wanted[::-1, step // 2 :: step, step // 2 :: step]).mean() > 12.0  # the control
    short = write(tmp_path / "short", without(drive, "image", range(8, 15)))
    assert dataset(short, tmp_path / "cut", rgb=ROWS).num_episodes == 2
    assert dataset(short, tmp_path / "whole").num_episodes == 1  # the control: who does not look misses nothing
    with pytest.raises(UserError, match=r"topics.image: wanted a topic image, the bag holds .*; name it by topics"):
        dataset(write(tmp_path / "none", without(drive, "image", range(STEPS))), tmp_path / "no", rgb=ROWS)


def test_a_storage_file_alone_is_a_bag_too_and_a_second_run_adds_nothing(drive: list[Step], tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", everything(drive))
    file = next(bag.glob("*.mcap"))
    assert dataset(file, tmp_path / "data").num_episodes == dataset(file, tmp_path / "data").num_episodes == GOALS


def test_standing_at_the_goal_ends_in_success(drive: list[Step], tmp_path: Path) -> None:
    """The same readings again and again, with the goal where the body stands; the drive goes on and is not taken."""
    here = {**drive[0], "aim": drive[0]["pose"], "action": np.full(3, 0.01, np.float32)}
    still = [{**here, "seconds": 5.0 + 0.1 * n} for n in range(20)]
    data = dataset(write(tmp_path / "bag", everything(still)), tmp_path / "data")
    assert data.length.tolist() == [5]  # at rest for half a second
    assert data.arrays["terminated"][4] and data.arrays["success"][:5].tolist() == [False] * 4 + [True]
    held = [{**step, "action": np.zeros(3, np.float32)} for step in still]
    with pytest.raises(UserError, match="wanted a drive to a goal"):
        dataset(write(tmp_path / "held", everything(held)), tmp_path / "none")


def without(drive: list[Step], topic: str, gap: range) -> list[Message]:
    kept = [[one for one in said(step) if n not in gap or one[0] != topic] for n, step in enumerate(drive[:STEPS])]
    return [message for step in kept for message in step]


@pytest.mark.parametrize("topic", ["depth", "odom", "cmd_vel"])
def test_where_something_stopped_the_episode_is_cut(topic: str, drive: list[Step], tmp_path: Path) -> None:
    data = dataset(write(tmp_path / "gap", without(drive, topic, range(8, 15))), tmp_path / "data")
    assert data.num_episodes == 2 and data.length.sum() < STEPS - 3
    one = dataset(write(tmp_path / "short", without(drive, topic, range(8, 9))), tmp_path / "other")
    assert one.num_episodes == 1  # the control: a single one may be lost


def test_unusable_images_cut_as_well(drive: list[Step], tmp_path: Path) -> None:
    messages = everything(drive[:STEPS])
    at, _ = drive[10]["seconds"], messages[5 * 10 + 2]
    messages[5 * 10 + 2] = ("depth", image(at, np.zeros((16, 64))))
    _, replay = record(BagCfg(path=str(write(tmp_path / "bag", messages)), robot="carrier", out=str(tmp_path / "data")))
    assert replay.cuts["unusable: depth"] == 1 and replay.unusable.total() == 1


def spoilt(change: Callable[[Message], Message | None]) -> Callable[[list[Message]], list[Message]]:
    return lambda messages: [kept for kept in map(change, messages) if kept is not None]


BAD = {
    "topics.cmd_vel: wanted a topic cmd_vel, the bag holds /depth (sensor_msgs/msg/Image), /goal_pose": spoilt(
        lambda one: None if one[0] == "cmd_vel" else one
    ),
    "sensor_msgs/msg/CompressedImage, /depth is geometry_msgs/msg/Twist": spoilt(
        lambda one: ("depth", twist(0.0, 0.0, 0.0)) if one[0] == "depth" else one
    ),
    "depth.encoding: wanted one of 32FC1, 16UC1, came 'rgb8'": spoilt(
        lambda one: ("depth", image(5.0, np.ones((4, 4)), "rgb8")) if one[0] == "depth" else one
    ),
    "goal_pose.header.frame_id: wanted 'odom', the odometry's, came 'map'": spoilt(
        lambda one: (
            (one[0], ros(one[1].__msgtype__, header=header(5.0, "map"), pose=one[1].pose))
            if one[0] == "goal_pose"
            else one
        )
    ),
}


def complaint(bag: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["collect", "source=bag", f"path={bag}", "robot=carrier", f"out={out}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("message", BAD)
def test_a_bag_that_gives_nothing_says_why_in_a_line(
    message: str, drive: list[Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = everything(drive[:5])[1:]  # the odometry comes before a goal
    bag = write(tmp_path / "bag", BAD[message](messages))
    assert message in complaint(bag, tmp_path / "data", capsys)


def test_what_is_no_bag_or_half_of_one_is_refused(
    drive: list[Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such path" in complaint(tmp_path / "none", tmp_path / "data", capsys)
    (tmp_path / "text.mcap").write_text("something else")
    assert "cannot be read" in complaint(tmp_path / "text.mcap", tmp_path / "data", capsys)
    for name, storage in (("mcap", StoragePlugin.MCAP), ("db3", StoragePlugin.SQLITE3)):
        bag = write(tmp_path / name, everything(drive), storage)
        file = next(bag.glob(f"*.{name}"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert "wanted a whole rosbag2" in complaint(bag, tmp_path / "data", capsys)


def test_topics_have_names_of_their_own(drive: list[Step], tmp_path: Path) -> None:
    messages = [("teleop/cmd" if topic == "cmd_vel" else topic, message) for topic, message in everything(drive)]
    bag = write(tmp_path / "bag", messages)
    with pytest.raises(UserError, match="name it by topics.cmd_vel="):
        dataset(bag, tmp_path / "data")
    cfg = BagCfg(path=str(bag), robot="carrier", out=str(tmp_path / "data"))
    cfg.topics.cmd_vel = "/teleop/cmd"
    assert record(cfg)[0] == [STEPS - 1] * GOALS


def test_a_policy_trains_on_it(drive: list[Step], tmp_path: Path) -> None:
    dataset(write(tmp_path / "bag", everything(drive)), tmp_path / "data")
    fit = FitCfg(epochs=1, batch_size=4, held_out=0.5)
    policy = CompassBaseCfg.tiny()
    fitted = train(TrainCfg([str(tmp_path / "data")], str(tmp_path / "run"), policy, WindowsCfg(8, 8, stride=4), fit))
    assert fitted.steps >= 1 and "semantics" not in fitted.held_out and math.isfinite(fitted.held_out["action"])


def test_the_types_are_those_the_node_hears() -> None:
    for kinds in TYPES.values():
        assert all(kind in STORE.types for kind in kinds)
