"""Measure the policy that drives a robot behind ROS topics; the report is that of ``omnibody eval``.

With ``sim_node`` it plays numbered episodes: the start states of ``omnibody eval`` with the same task, split and seed.
With ``goals``, a YAML list of [x, y, yaw] in the odometry's frame, it sends any robot from goal to goal; the task is
then ``goal_nav/map`` with the robot's ``map``, or a scene that stands for the place.
``checkpoint`` says which policy the other process runs. The same command resumes.

Start: ``python -m omnibody.deploy_ros.workstation.eval_node --ros-args -p robot:=go2 -p task:=goal_nav/office
-p checkpoint:=<folder> -p out:=<folder>``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rclpy
import yaml
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from tqdm import tqdm

from omnibody.deploy_ros.workstation.topic_env import TopicEnv
from omnibody.robots.errors import UserError
from omnibody.robots.spec import mobile
from omnibody.sim_tasks.goal_nav import GoalNav, Pose
from omnibody.training.eval_folder import open_folder
from omnibody.training.evaluate import EvalCfg, build_report, fingerprint, load_policies, write_report
from omnibody.training.provenance import provenance
from omnibody.training.results import Cell
from omnibody.training.rollout import play

PARAMETERS: dict[str, Any] = {
    "robot": "carrier",
    "task": "goal_nav/single_rack",
    "split": "test",
    "map": "",
    "checkpoint": "",
    "episodes": 20,
    "seed": 1,
    "goals": "",
    "out": "",
}
ROBOT_TIER = "robot"  # the tier of what is not our simulation


def run(node: Node) -> Path:
    """Play what the node's parameters ask for; returns the path of report.html."""
    settings = {name: node.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
    goals = read_goals(Path(settings.pop("goals"))) if settings["goals"] else settings.pop("goals") or ()
    cfg = _config(settings, len(goals))
    [(policy, by_robot)] = load_policies(cfg).items()
    [body] = map(mobile, cfg.bodies.values())
    task = cfg.task(cfg.tasks[0]).build(body, 1)
    if not isinstance(task, GoalNav):
        raise UserError(f"task: wanted one of goal_nav, as others are not judged by odometry, came {cfg.tasks[0]}")
    env = TopicEnv(node, body, task, goals)
    name, tier = f"{policy} over ROS", ROBOT_TIER if goals else body.best_tier
    identity = {"policies": {name: {body.name: fingerprint(by_robot[body.name])}}, "goals": list(goals), **settings}
    with open_folder(Path(cfg.out), identity, provenance()) as folder:
        began = datetime.now(UTC)
        file = folder.records(name, body.name, cfg.tasks[0], tier, f"seed{cfg.seed}")
        with tqdm(total=cfg.episodes, initial=len(file.episodes), unit="episode", disable=None) as bar:
            for record in play(None, env, cfg.episodes, cfg.seed, file.episodes):
                folder.note_run()
                file.append(record)
                bar.update()
                tqdm.write(f"episode {record.episode}: {record.outcome}, {record.seconds:.1f} s")
        env.close()
        cells = [Cell(name, body.name, cfg.tasks[0], tier, tuple(file.sorted()))]
        report = build_report(cells, cfg, identity, began) | {"runs": folder.runs()}
        return write_report(folder.path, cells, cfg, report)


def read_goals(path: Path) -> Sequence[Pose]:
    """The goals (x [m], y [m], yaw [rad]) of a YAML file."""
    try:
        goals = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [(float(x), float(y), float(yaw)) for x, y, yaw in goals]
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise UserError(f"goals: wanted a YAML list of [x, y, yaw], came {path}: {error}") from error


def _config(settings: dict[str, Any], num_goals: int) -> EvalCfg:
    for key in ("checkpoint", "out"):
        if not settings[key]:
            raise UserError(f"{key}: wanted a folder, came nothing; give -p {key}:=<folder>")
    names = ("checkpoint", "split", "map", "seed", "out")
    try:
        return EvalCfg(
            robots=[settings["robot"]],
            tasks=[settings["task"]],
            episodes=num_goals or settings["episodes"],
            **{name: settings[name] for name in names},
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def main() -> int:
    """Run the node; exit codes as those of ``omnibody``."""
    rclpy.init()
    try:
        print(run(Node("eval_node")))
    except UserError as error:
        print(f"eval_node: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
