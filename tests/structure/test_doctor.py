"""`omnibody doctor` and `omnibody list` say what is true here."""

import importlib.metadata
import json
import sys

import pytest

from omnibody.robots.table import ROBOTS, TOOLS
from omnibody.training.cli import main
from omnibody.training.doctor import ros, run_python


def test_doctor_finds_what_this_test_runs_on(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["part"]: finding for finding in json.loads(capsys.readouterr().out)}
    for package in ("torch", "mujoco", "hydra-core"):
        assert findings[package]["ok"] and findings[package]["found"] == importlib.metadata.version(package)
    assert {
        "RGB by egl",
        "RGB by osmesa",
        "GPU",
        "ROS 2 (rclpy)",
        "Isaac Lab",
        "LeRobot environment",
        "Meta-World",
    } <= set(findings)
    assert all(finding["advice"] for finding in findings.values() if not finding["ok"])


def test_doctor_says_what_of_ros_is_missing_and_how_to_get_it(monkeypatch):
    before = {finding.part: finding for finding in ros()}
    assert {"ROS 2 (rclpy)", "ROS 2 messages", "ROS 2 launch"} <= set(before)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.setitem(sys.modules, "nav_msgs", None)
    after = {finding.part: finding for finding in ros()}
    assert not after["ROS 2 (rclpy)"].ok and "nav_msgs" in after["ROS 2 messages"].found
    assert all(
        "'.[ros]'" in after[part].advice or "source" in after[part].advice
        for part in ("ROS 2 (rclpy)", "ROS 2 messages")
    )
    assert "omnibody deploy" in after["ROS 2 launch"].advice
    assert "ROS 2 on this machine" not in after


def test_doctor_sends_a_message_over_ros():
    pytest.importorskip("rclpy")
    (finding,) = (finding for finding in ros() if finding.part == "ROS 2 on this machine")
    assert finding.ok and "came through" in finding.found


def test_a_failing_part_is_told_with_its_reason():
    assert run_python("import no_such_module") == ("ModuleNotFoundError: No module named 'no_such_module'", False)
    assert run_python("print(1); print(2)") == ("2", True)


def test_list_shows_the_tables(capsys):
    assert main(["list", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in tables["robots"]] == [*ROBOTS, *TOOLS]
    assert all(row["licence"] for row in tables["robots"])
    assert all(("T2" in row["tiers"]) == (row["name"] in ROBOTS) for row in tables["robots"])
    assert main(["list"]) == 0
    assert "robots:\n  carrier" in capsys.readouterr().out
