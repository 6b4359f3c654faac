"""From a drive of real nodes to a trained policy; and both backends replay the recording alike."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from omnibody.deploy_ros import messages  # noqa: E402
from omnibody.deploy_ros.inputs import Inputs  # noqa: E402
from omnibody.deploy_ros.runner import Command, PolicyRunner  # noqa: E402
from omnibody.deploy_ros.workstation.bag import open_bag  # noqa: E402
from omnibody.deploy_ros.workstation.processes import Processes, Program, own_domain  # noqa: E402
from omnibody.policies.checkpoint import load_policy  # noqa: E402
from omnibody.policies.compass.export import OnnxPolicy, export_onnx  # noqa: E402
from omnibody.policies.policy import Context, Policy  # noqa: E402
from omnibody.robots.table import load_robot  # noqa: E402
from omnibody.training.cli import main  # noqa: E402
from omnibody.training.data.reader import open_dataset  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"
CARRIER = load_robot("carrier")
TOPICS = ("/odom", "/depth", "/scan", "/goal_pose", "/plan")
EPISODES, PATIENCE = 2, 300.0  # [s]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the generalist on its way to two goals; the node was stopped by a signal."""
    folder = tmp_path_factory.mktemp("drive")
    sim = Program("sim_node", "carrier", parameters={"task": "goal_nav/single_rack", "lockstep": True})
    own = {"checkpoint": str(CHECKPOINT), "use_sim_time": True, "record": str(folder / "bags")}
    with Processes(own_domain(), folder / "logs") as processes:
        processes.start(Program("policy_node", "carrier", parameters=own))
        processes.start(sim)
        end = time.monotonic() + PATIENCE
        while f"episode {EPISODES - 1}: " not in processes.log(sim).read_text():
            assert time.monotonic() < end and not processes.ended(), processes.log(sim).read_text()
    return next((folder / "bags").iterdir())


def test_a_recorded_drive_trains_a_policy(bag: Path, tmp_path: Path) -> None:
    assert main(["collect", "source=bag", f"path={bag}", "robot=carrier", f"out={tmp_path / 'data'}"]) == 0
    data = open_dataset(tmp_path / "data")
    assert data.num_episodes >= EPISODES and data.length.sum() > 50
    ends = data.first + data.length - 1
    assert data.arrays["success"][ends].any()
    sizes = [f"policy.world.{name}=16" for name in ("hidden", "latent", "embed")] + ["policy.world.channels=4"]
    words = ["policy=compass_base", *sizes, "policy.policy_width=16", "fit.epochs=2", "fit.batch_size=4"]
    assert main(["train", f"data=[{tmp_path / 'data'}]", f"out={tmp_path / 'run'}", *words]) == 0
    spec = load_policy(tmp_path / "run" / "policy").spec
    assert list(spec.obs) == ["depth", "velocity", "route", "goal"]


def commands(policy: Policy, bag: Path) -> np.ndarray:
    """What the runner commands on the readings of a bag (T, 3)."""
    runner = PolicyRunner(policy, CARRIER)
    inputs, twists = Inputs(runner, pytest.fail), []
    with open_bag(bag) as reader:
        for connection, _, data in reader.messages([c for c in reader.connections if c.topic in TOPICS]):
            message = reader.deserialize(data, connection.msgtype)
            inputs.take(connection.topic[1:], message)
            if connection.topic == "/odom" and runner.due(now := messages.stamp(message)):
                answer = runner.tick(now)
                twists += [answer.twist] if isinstance(answer, Command) else []
    return np.array(twists)


def test_both_backends_replay_a_recording_alike(bag: Path, tmp_path: Path) -> None:
    policy = load_policy(CHECKPOINT)
    export_onnx(policy, Context(CARRIER), tmp_path / "policy.onnx")
    own = commands(policy, bag)
    assert len(own) >= 100
    assert np.abs(own - commands(OnnxPolicy(tmp_path / "policy.onnx"), bag)).max() <= 1e-4
    with torch.no_grad():  # the control: another policy commands something else
        for weight in policy.parameters():
            weight.mul_(1.01)
    assert np.abs(own - commands(policy, bag)).max() > 1e-3
