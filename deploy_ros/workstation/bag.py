"""``omnibody collect source=bag``: a rosbag2 (MCAP or sqlite3) of a driven robot becomes a dataset.

The bag is played through the policy node's own conversion and runner, with a policy that only looks, so a step of the
dataset is exactly what the node would have acted on: at the body's rate, when new readings are there. The command that
was in force until the next step is its action. An episode ends at its goal, with a new goal, where readings or commands
stopped or were unusable; what a bag does not tell (reward, what things are) the dataset does not hold.

Time is that of the stamps of odometry and depth; the order is that of the log.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import torch
from omegaconf import MISSING
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore
from tqdm import tqdm

from omnibody.deploy_ros import messages
from omnibody.deploy_ros.inputs import READINGS, Inputs
from omnibody.deploy_ros.messages import MessageError
from omnibody.deploy_ros.recorder import storage_file
from omnibody.deploy_ros.runner import Command, Hold, PolicyRunner
from omnibody.envs.mujoco_env import io_spec
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment, IOSpec
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNav, GoalNavCfg
from omnibody.training.config import BODY, parse
from omnibody.training.data.layout import Episode, Origin
from omnibody.training.data.writer import DatasetWriter
from omnibody.training.provenance import git_revision

SEEN = ("depth", "velocity", "image", "route", "goal")  # what a robot tells of a simulated observation
COMMAND_TIMEOUT = 0.5  # a command is in force for so long, as drivers do [s]
TYPES = {
    "odom": ("nav_msgs/msg/Odometry",),
    "depth": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "goal_pose": ("geometry_msgs/msg/PoseStamped",),
    "plan": ("nav_msgs/msg/Path",),
    "cmd_vel": ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"),
}
BROKEN = (ReaderError, AnyReaderError, SerdeError, TypesysError, apsw.Error, OSError, EOFError, AssertionError)


@dataclass
class TopicsCfg:
    """Topics of the bag; a name is also found below one namespace. Empty: the body's own name for it."""

    odom: str = ""  # nav_msgs/Odometry
    depth: str = ""  # sensor_msgs/Image, 32FC1 or 16UC1, or its CompressedImage of compressedDepth
    image: str = ""  # sensor_msgs/Image or CompressedImage in colours, where rgb asks for it
    goal_pose: str = "goal_pose"  # geometry_msgs/PoseStamped; each new one begins an episode
    plan: str = "plan"  # nav_msgs/Path; a bag may lack it: the way to a goal is then a straight line
    cmd_vel: str = ""  # geometry_msgs/Twist or TwistStamped: the actions


@dataclass
class BagCfg:
    """Turn a rosbag2 of a driven robot into a dataset."""

    path: str = MISSING  # the bag: its folder, or an .mcap or .db3 file
    robot: str = field(default=MISSING, metadata=BODY)  # the body that was driven
    out: str = MISSING  # folder of the dataset
    rgb: int = 0  # rows of the colour picture, kept as video; 0: none
    topics: TopicsCfg = field(default_factory=TopicsCfg)  # where the bag keeps what


class _Onlooker(Policy):
    """Stands where a policy would and counts its episodes; its commands go nowhere."""

    def __init__(self, spec: IOSpec) -> None:
        super().__init__()
        self.spec, self.episodes = spec, 0

    def begin(self, context: Context, batch_size: int) -> State:
        """Count: an episode begins."""
        self.episodes += 1
        return {}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[torch.Tensor, State]:
        """Stand still."""
        return torch.zeros(1, 1, 3), state


class Replay:
    """Cuts the messages of a drive into episodes: ``take`` each in the order of the log, then ``end``.

    ``cuts`` counts what ended episodes, ``unusable`` what was wrong with messages; ``hold`` is the runner's last one.
    """

    def __init__(self, spec: IOSpec, embodiment: Embodiment) -> None:
        self._onlooker = _Onlooker(spec)
        self.runner = PolicyRunner(self._onlooker, embodiment)
        self.cuts: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        self.hold = "no readings"
        self._inputs = Inputs(self.runner, self._refused)
        self._now = self._odom = -np.inf  # the clock and the odometry's latest stamp [s]
        self._command, self._commanded = np.zeros(3), -np.inf
        self._steps: list[tuple[Obs, np.ndarray]] = []  # observation and pose of each tick
        self._actions: list[np.ndarray] = []  # one less
        self._episode = self._onlooker.episodes

    def take(self, key: str, message: Any) -> Episode | None:
        """One message of a topic of ``TYPES``; an episode if this one has ended it."""
        ended = None
        if key == "cmd_vel":
            self._commanded_by(message)
            return None
        if key in READINGS:
            self._advance(key, messages.stamp(message))
        self._inputs.take(key, message)
        if self._episode != self._onlooker.episodes:
            self._episode = self._onlooker.episodes
            ended = self.end("new goal") or ended
        if np.isfinite(self._odom) and key in READINGS and self.runner.due(self._now):
            ended = self._tick() or ended
        return ended

    def _commanded_by(self, message: Any) -> None:
        try:
            self._command = messages.twist(getattr(message, "twist", message), "cmd_vel")
            self._commanded = self._now
        except MessageError as error:
            self._refused(str(error))

    def _refused(self, error: str) -> None:
        self.unusable[error] += 1

    def _advance(self, key: str, stamp: float) -> None:
        """The clock is the latest stamp of a reading; one that begins anew is the odometry's."""
        if key == "odom":
            self._now, self._odom = stamp if stamp < self._odom else self._now, stamp
        self._now = max(self._now, stamp)

    def _tick(self) -> Episode | None:
        answer, ended = self.runner.tick(self._now), None
        if self._steps:
            if self._now - self._commanded > COMMAND_TIMEOUT:
                ended = self.end("stale: cmd_vel")
            else:
                self._actions.append(self._command)
        at_goal = answer == Hold("goal reached")
        if isinstance(answer, Command) or (at_goal and self._steps):
            self._steps.append((self.runner.observation(), self.runner.pose))
        if isinstance(answer, Hold):
            self.hold = answer.reason
            ended = self.end(answer.what) or ended
        return ended

    def end(self, why: str) -> Episode | None:
        """What has been driven since the last end: a step or more, but not standing still, as a node that holds."""
        steps, actions = self._steps, self._actions
        self._steps, self._actions = [], []
        length = len(steps) - 1
        if length < 1 or not np.any(actions[:length]):
            return None
        self.cuts[why] += 1
        last, success = np.arange(length) == length - 1, why == "goal reached"
        return Episode(
            obs={key: np.concatenate([obs[key].numpy() for obs, _ in steps]) for key in self._onlooker.spec.obs},
            action=np.stack(actions[:length]).astype(np.float32),
            pose=np.stack([pose for _, pose in steps[:length]]).astype(np.float32),
            terminated=last & success,
            truncated=last & (not success),
            success=last & success,
        )


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """A bag to read from; one that is none or is broken raises `UserError`, while it is read as well."""
    file = path if (path / "metadata.yaml").is_file() else storage_file(path)
    try:
        with AnyReader([file], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            yield reader
    except BROKEN as error:
        raise UserError(
            f"{path}: wanted a whole rosbag2, came one that cannot be read ({error}); where a recorder was killed,"
            f" python -m omnibody.deploy_ros.recorder {file} saves the rest"
        ) from error


def find_topics(connections: Sequence[Connection], wanted: dict[str, str]) -> dict[str, str]:
    """Topic -> key of ``TYPES``, by the ``wanted`` name of each key; all but "plan" must be there."""
    found, kinds = {}, {connection.topic: connection.msgtype for connection in connections}
    listing = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(kinds.items())) or "none"
    for key, name in wanted.items():
        exact = f"/{name.lstrip('/')}"
        topics = [exact] if exact in kinds else [topic for topic in kinds if topic.endswith(exact)]
        if not topics and key == "plan":
            continue
        if len(topics) != 1:
            what = f"one of {', '.join(topics)}" if topics else f"a topic {name}"
            raise UserError(f"topics.{key}: wanted {what}, the bag holds {listing}; name it by topics.{key}=<topic>")
        if kinds[topics[0]] not in TYPES[key]:
            raise UserError(f"topics.{key}: wanted {' or '.join(TYPES[key])}, {topics[0]} is {kinds[topics[0]]}")
        found[topics[0]] = key
    return found


def bag_spec(embodiment: Embodiment, rgb: int) -> IOSpec:
    """What a robot tells of goal navigation's observations, with pictures of ``rgb`` rows if that is not 0."""
    image = embodiment.camera.picture(rgb) if rgb else None
    spec = io_spec(embodiment, GoalNavCfg().build(embodiment, 1), image)
    return replace(spec, obs={key: field for key, field in spec.obs.items() if key in SEEN})


def episodes(replay: Replay, reader: AnyReader, topics: dict[str, str]) -> Iterator[Episode]:
    """The episodes of a bag, in order."""
    used = [connection for connection in reader.connections if connection.topic in topics]
    total = sum(connection.msgcount for connection in used)
    for connection, _, data in tqdm(reader.messages(used), "bag", total, unit="message", delay=2):
        ended = replay.take(topics[connection.topic], reader.deserialize(data, connection.msgtype))
        if ended is not None:
            yield ended
    if (last := replay.end("end of the bag")) is not None:
        yield last


def record(cfg: BagCfg) -> tuple[list[int], Replay]:
    """Run what ``cfg`` says: the steps of each new episode, and what cut them."""
    body = load_robot(cfg.robot)
    own = {key: name or getattr(body.ros, key) for key, name in asdict(cfg.topics).items() if key != "image" or cfg.rgb}
    spec = bag_spec(body, cfg.rgb)
    replay = Replay(spec, body)
    with open_bag(Path(cfg.path)) as reader:
        topics = find_topics(reader.connections, own)
        recipe = {"bag": Path(cfg.path).name, "topics": {key: topic for topic, key in topics.items()}}
        source = Origin.of(body, spec, "goal_nav", GoalNav.instruction, "recorded", 0, recipe)
        lengths = []
        with DatasetWriter(cfg.out, replace(source, parts=("pose",)), git_revision() or "unknown") as writer:
            done = writer.num_episodes
            for number, episode in enumerate(episodes(replay, reader, topics)):
                if number >= done:
                    writer.append(episode)
                    lengths.append(len(episode.action))
    if not replay.cuts:
        raise UserError(f"{cfg.path}: wanted a drive to a goal of a step or more, came none; {_reasons(replay)}")
    return lengths, replay


def _reasons(replay: Replay) -> str:
    """Why a bag gave nothing."""
    for message, count in replay.unusable.most_common(1):
        return f"{count} messages were unusable: {message}"
    return f"the last reason not to drive: {replay.hold}"


def main(argv: Sequence[str]) -> None:
    """``omnibody collect source=bag path=<bag> robot=<body> out=<folder>``."""
    cfg = parse(BagCfg, argv)
    lengths, replay = record(cfg)
    ends = ", ".join(f"{why} {count}" for why, count in replay.cuts.most_common())
    print(f"{cfg.out}: {len(lengths)} new episodes, {sum(lengths)} steps; ended by: {ends}")
    if replay.unusable:
        (worst, _), count = replay.unusable.most_common(1)[0], replay.unusable.total()
        print(f"{count} messages were unusable, most often: {worst}", file=sys.stderr)
