"""`omnibody doctor` and `omnibody list` say what is true here."""

import importlib.metadata
import json

from omnibody.robots.table import ROBOTS
from omnibody.training.cli import main
from omnibody.training.doctor import run_python


def test_doctor_finds_what_this_test_runs_on(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["part"]: finding for finding in json.loads(capsys.readouterr().out)}
    for package in ("torch", "mujoco", "hydra-core"):
        assert findings[package]["ok"] and findings[package]["found"] == importlib.metadata.version(package)
    assert {"RGB by egl", "RGB by osmesa", "GPU", "ROS 2 (rclpy)", "Isaac Lab", "LeRobot environment"} <= set(findings)
    assert all(finding["advice"] for finding in findings.values() if not finding["ok"])


def test_a_failing_part_is_told_with_its_reason():
    assert run_python("import no_such_module") == ("ModuleNotFoundError: No module named 'no_such_module'", False)
    assert run_python("print(1); print(2)") == ("2", True)


def test_list_shows_the_tables(capsys):
    assert main(["list", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in tables["robots"]] == list(ROBOTS)
    assert all(row["licence"] and "T2" in row["tiers"] for row in tables["robots"])
    assert main(["list"]) == 0
    assert "robots:\n  carrier" in capsys.readouterr().out
