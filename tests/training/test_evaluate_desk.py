"""``omnibody eval`` on the desk: BESO's figures with their limits for its player and for a net, and a clip."""

import json
from pathlib import Path

import pytest

from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_body
from omnibody.sim_tasks.desk import DeskCfg
from omnibody.training.evaluate import main

SHIPPED = Path(__file__).parents[2] / "assets" / "checkpoints" / "desk-beso"


def test_cells_hold_besos_figures_and_the_page_a_clip(tmp_path: Path) -> None:
    task = DeskCfg().build(load_body("gripper"), 1)
    policy = DiffusionCfg.tiny().build(IOSpec(task.obs_fields, task.body.action, 10.0))
    save_pretrained(policy, tmp_path / "tiny", {})
    words = ["tasks=[desk]", "episodes=3", "clips=1", f"out={tmp_path}/out"]
    main([f"checkpoints=[{tmp_path}/tiny,expert]", *words])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    untrained, player = report["cells"]
    for cell in report["cells"]:
        assert (cell["robot"], cell["task"], cell["tier"], cell["n"]) == ("gripper", "desk", "3D", 3)
        for name in ("reward", "result", "p1", "p2", "p3", "p4"):
            assert cell[f"{name}_lo"] <= cell[name] <= cell[f"{name}_hi"] and report["definitions"][name]
    assert player["reward"] == player["result"] == 4.0 and player["p4"] == player["sr"] == 1.0
    assert untrained["result"] < 1.0 and untrained["nfe_per_action"] == 4 / 2 and untrained["ms_p50"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a drawing of the simulated desk" in page and "SPL" not in page
    assert "pure function of (seed, episode)" in report["start_states"]


@pytest.mark.slow
def test_the_shipped_net_does_what_the_goal_wants(tmp_path: Path) -> None:
    """A player that took four of the seven at random would have a result of 4 * 4 / 7 = 2.3 with a reward of 4."""
    main([f"checkpoint={SHIPPED}", "tasks=[desk]", "episodes=50", "seed=1", "clips=0", f"out={tmp_path}/out"])
    (cell,) = json.loads((tmp_path / "out" / "report.json").read_text())["cells"]
    assert cell["result"] > 3.5 and cell["reward"] >= cell["result"]
