"""`omnibody deploy`: real processes that end together, whoever is killed, and an exit code that says who it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnibody.deploy_ros.workstation.processes import Program
from omnibody.training.cli import main

rclpy = pytest.importorskip("rclpy")
# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(done, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.fixture
def deployed(domain: None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`omnibody deploy policy` and the number of its node, which is up."""
    command = [Path(sys.executable).with_name("omnibody"), "deploy", "policy", f"checkpoint={CHECKPOINT}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "policy_node" in line:
            break
    (node,) = children(process.pid)
    yield process, node
    process.kill()
    process.wait()
    process.stderr.close()
    wait_for(lambda: not alive(node))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_node_too(deployed, number, code):
    process, node = deployed
    process.send_signal(number)
    assert process.wait(60) == code
    assert not alive(node)


def test_a_killed_node_is_named(deployed):
    process, node = deployed
    subprocess.run(["kill", "-KILL", str(node)], check=True)
    assert process.wait(60) == 4
    assert "omnibody: /policy_node ended by SIGKILL" in process.stderr.read()


def test_no_node_outlives_its_killed_parent(deployed):
    process, node = deployed
    process.kill()
    wait_for(lambda: not alive(node), 20.0)


def test_a_plain_child_outlives_its_killed_parent():
    """The control: it is not the kernel's habit."""
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    time.sleep(0.3)
    assert alive(child)
    subprocess.run(["kill", str(child)], check=True)


def test_a_wrong_word_is_one_line(capsys):
    assert main(["deploy", "fleat"]) == 2
    assert capsys.readouterr().err.startswith("omnibody: unknown thing to start 'fleat'")
    assert main(["deploy", "policy", "checkpoint=x", "robot=g2"]) == 2
    assert "unknown robot 'g2'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"mjcf": "a b.xml", "base": "it\'s"}', "true", "12", "my bot.py", "a: b # c"])
def test_any_text_reaches_a_node(text, domain):
    """A body's description, a folder named like a number: ROS reads parameters as YAML."""
    parameters = {"checkpoint": text, "use_sim_time": True}
    words = Program("policy_node", text, "space", parameters, {"odom": "/spot/odometry"}).command()
    context = rclpy.Context()
    rclpy.init(args=words, context=context)
    node = rclpy.create_node("node", context=context)
    assert [node.declare_parameter(name, "").value for name in ("robot", "checkpoint")] == [text, text]
    assert node.resolve_topic_name("odom") == "/spot/odometry" and node.resolve_topic_name("depth") == "/space/depth"
    assert node.get_namespace() == "/space" and node.get_parameter("use_sim_time").value is True
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_bad_checkpoint_is_told_before_anything_starts(tmp_path, capsys):
    assert main(["deploy", "sim", f"out={tmp_path / 'out'}", f"checkpoint={tmp_path / 'none'}"]) == 2
    assert "none" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture
def fleet(domain: None, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Two bodies in namespaces, simulators in step with their policies."""
    words = [f"checkpoint={CHECKPOINT}", f"out={tmp_path / 'out'}", "robots=[carrier,omni]", "lockstep=true"]
    command = [Path(sys.executable).with_name("omnibody"), "deploy", "fleet", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    yield process, tmp_path / "out"
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.slow
def test_a_fleet_drives_and_reports(fleet):
    process, out = fleet
    assert process.wait(400) == 0, process.stderr.read()
    report = json.loads((out / "report.json").read_text())
    assert [(cell["robot"], cell["n"], cell["tier"]) for cell in report["cells"]] == [
        ("carrier", 1, "T2"),
        ("omni", 1, "T2"),
    ]
    assert sum(cell["successes"] for cell in report["cells"]) > 0  # nobody drives without the policy
    assert (out / "report.html").read_text().count('class="drive"') == 2


def test_a_fleet_stops_when_a_simulator_is_killed(fleet):
    process, _ = fleet
    wait_for(lambda: len(children(process.pid)) == 6, 200.0)
    nodes = children(process.pid)
    simulator = next(pid for pid in nodes if "sim_node" in Path(f"/proc/{pid}/cmdline").read_text())
    assert b"rgb:=0" in Path(f"/proc/{simulator}/cmdline").read_bytes()  # this policy sees no pictures
    subprocess.run(["kill", "-KILL", str(simulator)], check=True)
    assert process.wait(120) == 3
    assert "sim_node ended by SIGKILL" in process.stderr.read()
    assert not any(alive(pid) for pid in nodes)
