"""The table of policies that play chunks says what the evaluations said, and one is run for real."""

import json
from pathlib import Path

import numpy as np
import pytest

from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_body
from omnibody.sim_tasks.figures import ESTIMATE, SHARE
from omnibody.sim_tasks.push_t import PushTCfg
from omnibody.sim_tasks.table import TOOL_TASKS, figures_of, task_names
from omnibody.training.bench.diffusion import SCORES, TABLE, DiffusionBenchCfg, _row, diffusion_rows, table

FIGURES = ("mean_max_coverage", "mean_max_reward", "success_90", "success_95", "final_iou")


def cell(value: float) -> dict:
    figures = {
        f"{name}{end}": value + step for name in FIGURES for end, step in (("", 0.0), ("_lo", -0.1), ("_hi", 0.1))
    }
    return {"task": "push_t", "policy": "dp", **figures, "nfe_per_action": 1.0, "chunk_jump": 2.0, "jerk": 3.0}


def test_a_row_holds_costs_and_the_score_at_each_latency() -> None:
    row = _row("push_t", {0: cell(0.8), 4: cell(0.5)}, np.array([8.0, 10.0, 30.0]), action_steps=5)
    assert row["p50_ms"] == 10.0 and row["hz"] == 500.0  # five actions in every 10 ms
    assert row["latency"].keys() == {0, 4} and row["latency"][4] == pytest.approx([0.5, 0.4, 0.6])
    other = _row("push_t", {0: cell(0.3)}, np.array([1.0, 1.0]), action_steps=5)
    head, first, second = table([row, other]).splitlines()
    assert head.split()[-2:] == ["d=0", "d=4"] and first.split()[-2:] == ["0.800", "0.500"]
    assert head.split()[:2] == ["push_t", "mean_max_coverage"]
    assert second.split()[-2:] == ["0.300", "-"] and "0.800 [0.700, 0.900]" in first


def test_every_tools_task_has_a_score_with_limits() -> None:
    assert set(SCORES) == set(TOOL_TASKS)
    for task, score in SCORES.items():
        name = next(name for name in task_names() if name.partition("/")[0] == task)
        kinds = {figure.name: figure.kind for figure in figures_of(name).figures}
        assert kinds[score] in (ESTIMATE, SHARE), task


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="latencies: wanted 0 and more"):
        DiffusionBenchCfg(["a"], "out", latencies=[1, 2])
    with pytest.raises(ValueError, match="tasks: wanted some of push_t"):
        DiffusionBenchCfg(["a"], "out", tasks=["goal_nav/office"])


@pytest.mark.slow
def test_a_real_bench_writes_its_table(tmp_path: Path) -> None:
    task = PushTCfg().build(load_body("pusher"), 1)
    policy = DiffusionCfg.tiny().build(IOSpec(task.obs_fields, task.body.action, 10.0))
    save_pretrained(policy, tmp_path / "tiny", {})
    cfg = DiffusionBenchCfg([str(tmp_path / "tiny")], str(tmp_path / "out"), episodes=2, seeds=[1], calls=5)
    rows = diffusion_rows(cfg)
    assert json.loads((tmp_path / "out" / TABLE).read_text())[0]["n"] == 2
    assert rows[0]["policy"] == "tiny" and 0 <= rows[0]["mean_max_coverage"] <= 1 and rows[0]["p95_ms"] > 0
