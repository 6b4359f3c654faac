"""SIGKILL at random moments of `rl` and `distill`: the same command goes on and ends, and does no work twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.envs import make_env
from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.compass.base import CompassBase, CompassBaseCfg
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.rl.state import read_numbers
from omnibody.training.rl.train import STATE
from omnibody.training.run_folder import LOG

OMNIBODY = [str(Path(sys.executable).with_name("omnibody"))]
TASK = ["task.scene=single_rack", "task.num_scenes=4", "task.max_seconds=0.5", "tier=T0", "num_envs=4"]
ROLLOUT = 4 * 8  # environment steps


@pytest.fixture
def base(tmp_path: Path) -> CompassBase:
    env = make_env("carrier", GoalNavCfg(scene="single_rack", num_scenes=4), 1, "T0", threads=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = CompassBaseCfg.tiny().build(env.spec).eval()
    env.close()
    save_pretrained(base, tmp_path / "base", {})
    return base


def kill(command: list[str], may_die: Callable[[], bool], most_seconds: float) -> None:
    """Run a command and SIGKILL it up to ``most_seconds`` after ``may_die`` has become true."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not may_die():
            time.sleep(0.005)
        time.sleep(np.random.default_rng().uniform(0.0, most_seconds))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run must not have ended before"


def rows(log: Path) -> list[str]:
    """The whole lines of a log."""
    return log.read_text().split("\n")[:-1]


@pytest.mark.slow
def test_rl_goes_on_from_its_last_state(tmp_path: Path, base: CompassBase) -> None:
    """A row's wall-clock seconds tell whether it was written anew, so rows kept to the letter were not done again."""
    run, total = tmp_path / "run", 60 * ROLLOUT
    words = [*TASK, f"base={tmp_path / 'base'}", "robot=carrier", f"steps={total}", "actor.hidden=[16]", f"out={run}"]
    command = [*OMNIBODY, "rl", *words, "ppo.rollout=8", "ppo.batch_size=32", "ppo.epochs=1"]

    def saved() -> int:
        return int(read_numbers(run / STATE)["steps"]) if (run / STATE).exists() else 0

    for least in (10, 30):
        kill(command, lambda rollouts=least: saved() >= rollouts * ROLLOUT, 1.0)
        assert saved() % (10 * ROLLOUT) == 0 and not (run / "policy").exists()
    before, kept = rows(run / LOG), saved() // ROLLOUT
    subprocess.run(command, check=True, capture_output=True)
    after = rows(run / LOG)
    steps = [json.loads(row)["steps"] for row in after]
    assert steps == list(range(ROLLOUT, total + 1, ROLLOUT))
    assert after[:kept] == before[:kept]
    assert (run / "policy" / "weights.safetensors").exists() and saved() == total


def specialist(base: CompassBase, lean: float) -> CompassResidual:
    policy = CompassResidual.on(base, ResidualActorCfg(hidden=[16]))
    with torch.no_grad():
        policy.actor.mean.bias += torch.tensor([lean, 0.0, -lean])
    return policy.eval()


@pytest.mark.slow
def test_distill_ends_with_the_same_weights_and_keeps_its_labels(tmp_path: Path, base: CompassBase) -> None:
    """Killed somewhere in the labels or the training of two rounds, once before and once after the first round."""
    words = [*TASK, "steps=20", "rounds=2", "student.hidden=[64]"]
    words += ["fit.epochs=10", "fit.batch_size=32", "fit.checkpoint_every=5", "fit.log_every=1"]
    for name, lean in (("carrier", 0.3), ("ackermann", -0.2)):
        save_pretrained(specialist(base, lean), tmp_path / name, {})
        words.append(f"teachers.{name}={tmp_path / name}")
    command, run = [*OMNIBODY, "distill", *words], tmp_path / "killed"
    labels, written = run / "labels", {}
    for least in (1, 3):
        kill([*command, f"out={run}"], lambda files=least: len(list(labels.glob("*.safetensors"))) >= files, 1.0)
        assert not (run / "policy").exists()
        found = {file: file.stat().st_mtime_ns for file in labels.glob("*.safetensors")}
        assert written.items() <= found.items()
        written = found
    for folder in (run, tmp_path / "whole"):
        subprocess.run([*command, f"out={folder}"], check=True, capture_output=True)
    assert written.items() <= {file: file.stat().st_mtime_ns for file in labels.glob("*.safetensors")}.items()
    for file in ("policy/weights.safetensors", "labels/round-1-carrier.safetensors"):
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for number in range(2):
        steps = [json.loads(row)["step"] for row in rows(run / f"round-{number}" / LOG) if "held_out" not in row]
        assert steps == list(range(1, len(steps) + 1))
