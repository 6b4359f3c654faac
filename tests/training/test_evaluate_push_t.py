"""``omnibody eval`` on Push-T: its figures with their limits, its body by default, a clip, and what latency changes."""

import json
from pathlib import Path

import pytest

from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_body
from omnibody.sim_tasks.push_t import PushTCfg
from omnibody.training.evaluate import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy; it moves the tool somewhere, which is enough."""
    task = PushTCfg().build(load_body("pusher"), 1)
    policy = DiffusionCfg.tiny().build(IOSpec(task.obs_fields, task.body.action, 10.0))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_pretrained(policy, path, {})
    return path


def test_cells_hold_push_ts_figures_and_the_page_a_clip(checkpoint: Path, tmp_path: Path) -> None:
    main([f"checkpoint={checkpoint}", "tasks=[push_t,push_t_two_goal]", "episodes=2", "clips=1", f"out={tmp_path}/out"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(cell["robot"], cell["task"], cell["tier"], cell["n"]) for cell in report["cells"]] == [
        ("pusher", "push_t", "2D", 2),
        ("pusher", "push_t_two_goal", "2D", 2),
    ]
    for cell in report["cells"]:
        for name in ("mean_max_coverage", "mean_max_reward", "success_90", "success_95", "final_iou"):
            assert cell[f"{name}_lo"] <= cell[name] <= cell[f"{name}_hi"]
            assert report["definitions"][name]
        assert cell["nfe_per_action"] > 0 and cell["ms_p95"] >= cell["ms_p50"] > 0 and cell["jerk"] > 0
        assert "spl" not in cell and "collisions" not in cell
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a drawing of the simulated table" in page and "coverage" in page and "SPL" not in page
    assert "gym-pusht" in report["start_states"]


def test_what_push_t_has_not_is_told_in_a_line(checkpoint: Path, tmp_path: Path) -> None:
    cases = {
        "robots: wanted at least one name": ["tasks=[goal_nav/office]"],
        "push_t wants a tool on a table .* came carrier": ["tasks=[push_t]", "robots=[carrier]"],
        "wanted a mobile base": ["tasks=[goal_nav/office]", "robots=[pusher]"],
        "latency: wanted 0 to": ["tasks=[push_t]", "latency=300"],
        "latency: wanted at least 0": ["tasks=[push_t]", "latency=-1"],
        "no scripted expert": ["tasks=[push_t]", "checkpoint=expert"],
    }
    for number, (message, words) in enumerate(cases.items()):
        common = [f"checkpoint={checkpoint}", f"out={tmp_path}/{number}", "episodes=1", "clips=0"]
        with pytest.raises(UserError, match=message):
            main([*common, *words])
