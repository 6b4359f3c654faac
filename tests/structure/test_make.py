"""One way in: CI, pre-commit and people run the same commands, and a fresh clone sets itself up first."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from omnibody.sim_tasks.metaworld import INSTALL

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """The files that make looks at, without an environment."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    return tmp_path


def plan(folder: Path, target: str) -> list[str]:
    """Commands that ``make <target>`` would run."""
    # Under `make test` the inner make would first name the folder, which has "pytest" in it.
    words = ["make", "-n", "--no-print-directory", target]
    done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def position(commands: list[str], word: str) -> int:
    return next((number for number, command in enumerate(commands) if word in command), -1)


def test_a_fresh_clone_sets_up_and_then_checks_everything(clone):
    commands = plan(clone, "test")
    steps = ["debian-packages.sh", "-m venv", "install", "ruff check", "ruff format --check", "mypy", "pytest"]
    places = [position(commands, step) for step in steps]
    assert places == sorted(places) and places[0] >= 0


def test_torch_comes_before_the_rest(clone):
    commands = plan(clone, "setup")
    assert 0 <= position(commands, "constraints.txt torch") < position(commands, "-e '.[dev,ros,push-t]'")


def test_meta_world_brings_no_other_mujoco(clone):
    """What make installs is what a user is told to, at the same version."""
    commands = plan(clone, "setup")
    assert 0 <= position(commands, "-e '.[dev") < position(commands, "--no-deps metaworld imageio")
    (pin,) = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("metaworld=="))
    assert INSTALL == f"pip install --no-deps {pin} imageio"


def test_set_up_once_until_the_requirements_change(clone):
    stamp = clone / ".venv" / ".omnibody-installed"
    stamp.parent.mkdir()
    stamp.touch()
    assert position(plan(clone, "demo"), "install") == -1
    later = time.time() + 2
    os.utime(clone / "constraints.txt", (later, later))
    assert position(plan(clone, "demo"), "install") >= 0


def test_ci_runs_what_people_run():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert commands == ["set -e", 'cd "$(dirname "$0")/.."', "make test"]


def test_pre_commit_runs_parts_of_make_test():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    whole = plan(ROOT, "test")
    for hook in local["hooks"]:
        part = plan(ROOT, hook["entry"].removeprefix("make "))
        assert part and set(part) <= set(whole)
