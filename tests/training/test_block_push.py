"""Block push from play to figures: collected by its player, learned with goals in hindsight, evaluated and filmed."""

import json
from pathlib import Path

import numpy as np
import pytest

from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.training.cli import main as omnibody
from omnibody.training.data.hindsight import HindsightCfg
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows

WORDS = ["task=block_push", "seed=2"]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "play"
    assert omnibody(["collect", *WORDS, "episodes=5", "num_envs=4", f"out={path}"]) == 0
    return path


def test_play_is_what_the_player_did(play: Path, tmp_path: Path) -> None:
    """In however many worlds and parts; the command of a step is the action and no other is recorded."""
    data = open_dataset(play)
    assert data.num_episodes == 5 and data.origin.robot == "tip" and data.origin.parts == ("reward",)
    for episodes in (2, 5):
        assert omnibody(["collect", *WORDS, f"episodes={episodes}", "num_envs=3", f"out={tmp_path / 'parts'}"]) == 0
    parts = open_dataset(tmp_path / "parts")
    for name, values in data.arrays.items():
        np.testing.assert_array_equal(values, parts.arrays[name], err_msg=name)
    for first, length in zip(data.first, data.length, strict=True):
        target, action = data.arrays["obs.tip_target"][first : first + length + 1], data.arrays["action"][first:]
        np.testing.assert_allclose(np.diff(target, axis=0), action[:length], atol=1e-6)
        assert data.arrays["success"][first + length - 1] and data.arrays["reward"][first + length - 1] == 1.0


def test_goals_in_hindsight_are_where_blocks_came(play: Path) -> None:
    data = open_dataset(play)
    windows = Windows.of([data], 5, 5, lead=4, pad_after=0, hindsight=HindsightCfg("blocks", keep=0.0))
    rows = np.arange(0, len(windows), 37)
    goals = windows.batch(rows).obs["goal"][:, 0].numpy()
    for goal, (episode, step) in zip(goals, windows.anchors[rows], strict=True):
        first, length = data.first[episode], data.length[episode]
        later = data.arrays["obs.blocks"][first + step + 1 : first + length + 1]
        assert (later == goal).all(1).any()


def test_what_a_player_has_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["task=block_push", "rgb=32"], "rgb: wanted nothing for block_push, came 32"),
        (["task=block_push", "exploration.random=0.5"], "exploration: wanted nothing for block_push"),
        (["task=push_t"], "task: wanted one with an expert, came push_t, which people show; see omnibody import"),
        (["task=goal_nav/office"], "robot: wanted a body, nothing came"),
        (["task=blok_push"], "unknown task 'blok_push'; did you mean block_push?"),
    ):
        assert omnibody(["collect", *words, f"out={tmp_path / 'none'}"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_cells_hold_its_figures_and_the_page_a_clip(play: Path, tmp_path: Path) -> None:
    cfg = DiffusionCfg.tiny()
    cfg.goal_keys = ["goal"]
    save_pretrained(cfg.build(open_dataset(play).origin.spec), tmp_path / "tiny", {})
    words = ["checkpoints=[expert," + str(tmp_path / "tiny") + "]", "tasks=[block_push]", "episodes=3", "clips=1"]
    assert omnibody(["eval", *words, f"out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    expert, tiny = report["cells"]
    assert (expert["robot"], expert["task"], expert["tier"]) == ("tip", "block_push", "3D")
    assert expert["reward"] == expert["result"] == expert["p2"] == expert["sr"] == 1.0 and expert["mode_entropy"] > 0
    assert tiny["result"] <= tiny["reward"] < 1.0 and tiny["nfe_per_action"] > 0 and tiny["ms_p50"] > 0
    assert all(report["definitions"][name] for name in ("reward", "result", "p1", "p2", "mode_entropy"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a drawing of the simulated table" in page and "in those asked for" in page
