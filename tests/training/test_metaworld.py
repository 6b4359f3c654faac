"""Meta-World from demonstration to figures: collected from its script, learned for a step, evaluated and filmed."""

import json
from pathlib import Path

import numpy as np
import pytest

from omnibody.envs import render
from omnibody.training.cli import main as omnibody
from omnibody.training.data.reader import Dataset, open_dataset

pytest.importorskip("metaworld")

TASK = "metaworld/drawer-open-v3"
TINY = ["policy=diffusion", "policy.obs_keys=[hand,gripper,object,goal]", "policy.horizon=4", "policy.chunk=2"]
TINY += ["policy.width=16", "policy.layers=1", "windows.obs_steps=2", "windows.action_steps=5", "windows.lead=1"]
TINY += ["fit.epochs=1", "fit.batch_size=16", "fit.held_out=0.4"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shown"
    assert omnibody(["collect", f"task={TASK}", "seed=2", "episodes=3", "num_envs=2", f"out={path}"]) == 0
    return path


def assert_successful(data: Dataset) -> None:
    for first, length in zip(data.first, data.length, strict=True):
        success = data.arrays["success"][first : first + length]
        assert success[-1] and not success[:-1].any()
        assert (data.arrays["terminated"][first : first + length] == success).all()


def test_demonstrations_are_the_experts(shown: Path, tmp_path: Path) -> None:
    """In however many worlds; the recorded action is what moved the hand, within its bounds."""
    data = open_dataset(shown)
    assert data.num_episodes == 3 and (data.origin.robot, data.origin.task) == ("sawyer", TASK)
    assert data.origin.instruction == "pull the drawer open" and data.origin.spec.rate_hz == 80.0
    assert_successful(data)
    assert omnibody(["collect", f"task={TASK}", "seed=2", "episodes=3", "num_envs=3", f"out={tmp_path / 'one'}"]) == 0
    other = open_dataset(tmp_path / "one")
    for name, values in data.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name], err_msg=name)
    assert np.abs(data.arrays["action"]).max() <= 1.0
    first, length = int(data.first[0]), int(data.length[0])
    moved = np.diff(data.arrays["obs.hand"][first : first + length + 1], axis=0)
    assert np.corrcoef(moved[1:, 2], data.arrays["action"][first : first + length - 1, 2])[0, 1] > 0.5


def test_a_policy_learns_a_step_and_is_evaluated_beside_the_expert(shown: Path, tmp_path: Path) -> None:
    assert omnibody(["train", *TINY, f"data=[{shown}]", f"out={tmp_path / 'run'}"]) == 0
    words = [f"checkpoints=[{tmp_path / 'run' / 'policy'},expert]", f"tasks=[{TASK}]", "episodes=2", "clips=1"]
    assert omnibody(["eval", *words, f"out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    tiny, expert = report["cells"]
    assert (expert["robot"], expert["task"], expert["tier"], expert["n"]) == ("sawyer", TASK, "3D", 2)
    assert expert["sr"] == 1.0 > tiny["sr"] and expert["mean_max_reward"] > tiny["mean_max_reward"] > 0.0
    assert expert["mean_max_reward_lo"] <= expert["mean_max_reward"] <= 10.0 and tiny["nfe_per_action"] > 0
    assert report["definitions"]["mean_max_reward"] and "as in its MT benchmarks" in report["start_states"]
    assert "at 0.5 times its speed" in (tmp_path / "out" / "report.html").read_text()


def test_without_opengl_the_clip_is_a_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "graphics_backend", lambda: (_ for _ in ()).throw(render.GraphicsError("none")))
    words = ["checkpoint=expert", f"tasks=[{TASK}]", "episodes=1", "clips=1", f"out={tmp_path / 'out'}"]
    assert omnibody(["eval", *words]) == 0
    assert "a drawing of hand (blue), object and goal (green)" in (tmp_path / "out" / "report.html").read_text()
