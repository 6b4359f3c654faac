"""How well a legged body walks: falls and speed errors under random commands and pushes.

    python -m omnibody.training.walking.measure robots=[go2,spot] runs=100

The bar of a walking body: no fall in 95 of 100 runs of 60 s, mean error of at most 0.15 m/s and 0.2 rad/s, while it is
pushed by 0.5 m/s every 4 s.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from omnibody.robots.plant import Plant, rotate
from omnibody.robots.spec import Embodiment
from omnibody.robots.table import load_robot, make_plant
from omnibody.training.config import parse
from omnibody.training.statistics import wilson

COMMAND_PERIOD = 3.0  # between new commands [s]
PUSH_PERIOD = 4.0  # [s]
STOP_SHARE = 0.1  # of the commands are zero
WINDOW = 0.4  # of the moving average of the velocity, about a stride [s]
FALLEN_UPRIGHT = 0.5  # cosine of the tilt below which a body has fallen
FALLEN_HEIGHT = 0.45  # share of the standing height below which it has fallen
BAR_RATE, BAR_SPEED, BAR_TURN = 0.95, 0.15, 0.2


@dataclass
class MeasureConfig:
    """Measure how well legged bodies walk."""

    robots: list[str] = field(default_factory=lambda: ["go2", "go1", "spot"])  # bodies to measure
    runs: int = 100  # independent runs a body
    seconds: float = 60.0  # length of a run [s]
    push: float = 0.5  # velocity change of a push [m/s]
    grip: float = 1.0  # factor on every contact's friction
    seed: int = 0  # of commands, pushes and starts
    out: str = ""  # JSON file to write

    def __post_init__(self) -> None:
        if self.runs < 1 or self.seconds < COMMAND_PERIOD:
            raise ValueError(f"wanted runs >= 1, seconds >= {COMMAND_PERIOD}; came {self.runs} and {self.seconds}")


@dataclass(frozen=True)
class Course:
    """What happens in the runs, control step by control step: commands and pushes."""

    twist: np.ndarray  # (K, N, 3)
    push: np.ndarray  # (K, N, 2) velocity change in the world [m/s]
    yaw: np.ndarray  # (N,) at the start


@dataclass(frozen=True)
class Track:
    """What came out: velocities (K, N, 3), NaN after a fall, and the time of the fall (N,) [s], inf without one."""

    twist: np.ndarray
    fall: np.ndarray


def measure(
    embodiment: Embodiment, runs: int = 100, seconds: float = 60.0, push: float = 0.5, seed: int = 0, grip: float = 1.0
) -> dict[str, Any]:
    """Walk tier T2 of a legged body through ``runs`` random courses; the result is plain JSON data.

    ``error`` is the mean absolute difference between the commanded twist and the twist averaged over the last
    ``WINDOW`` seconds, the moments after a change of command and after a push included.
    """
    plant = make_plant(embodiment, "T2")
    course = random_course(embodiment, plant.control_dt, runs, seconds, push, np.random.default_rng(seed))
    track = walk(plant, flat_ground(plant, grip), course)
    falls = int(np.isfinite(track.fall).sum())
    rate = wilson(runs - falls, runs)
    error = speed_error(track.twist, course.twist, round(WINDOW / plant.control_dt))
    return {
        "robot": embodiment.name,
        "runs": runs,
        "seconds": seconds,
        "push": push,
        "grip": grip,
        "seed": seed,
        "falls": falls,
        "fall_times": sorted(round(float(time), 2) for time in track.fall[np.isfinite(track.fall)]),
        "survival": rate.value,
        "low": rate.low,
        "high": rate.high,
        "error": [round(float(value), 4) for value in error],
        "passed": bool(rate.value >= BAR_RATE and max(error[:2]) <= BAR_SPEED and error[2] <= BAR_TURN),
    }


def random_course(
    embodiment: Embodiment, dt: float, runs: int, seconds: float, push: float, rng: np.random.Generator
) -> Course:
    """Commands uniform within the body's limits, every tenth zero; pushes in a random direction."""
    steps = round(seconds / dt)
    step = np.arange(steps)
    num = int(np.ceil(seconds / COMMAND_PERIOD))
    twist = rng.uniform(embodiment.limits.velocity_low, embodiment.limits.velocity_high, (num, runs, 3))
    twist[rng.random((num, runs)) < STOP_SHARE] = 0.0
    angle = rng.uniform(-np.pi, np.pi, (steps, runs, 1))
    # In the middle between two multiples of the period, so that pushes and commands do not coincide for long.
    pushed = step % round(PUSH_PERIOD / dt) == round(0.5 * PUSH_PERIOD / dt)
    return Course(
        twist[step // round(COMMAND_PERIOD / dt)],
        push * pushed[:, None, None] * np.concatenate([np.cos(angle), np.sin(angle)], axis=2),
        rng.uniform(-np.pi, np.pi, runs),
    )


def flat_ground(plant: Plant, grip: float = 1.0) -> mujoco.MjModel:
    """The body on an endless floor, without its visual meshes."""
    spec = plant.spec()
    spec.worldbody.add_geom(name="floor/0", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 0.05])
    spec.compiler.discardvisual = True
    model = spec.compile()
    model.geom_friction[:] *= grip
    return model


def walk(plant: Plant, model: mujoco.MjModel, course: Course) -> Track:
    """Run a course, each core walking a share of the runs."""
    runs = len(course.yaw)
    shares = np.array_split(np.arange(runs), min(os.cpu_count() or 1, runs))
    with ThreadPoolExecutor(len(shares)) as pool:
        tracks = list(pool.map(lambda rows: _walk_rows(plant, model, course, rows), shares))
    return Track(
        np.concatenate([track.twist for track in tracks], axis=1), np.concatenate([track.fall for track in tracks])
    )


def _walk_rows(plant: Plant, model: mujoco.MjModel, course: Course, rows: np.ndarray) -> Track:
    worlds = [mujoco.MjData(model) for _ in rows]
    for world, yaw in zip(worlds, course.yaw[rows], strict=True):
        world.qpos[:] = plant.stand(0.0, 0.0, float(yaw))
    controller = plant.controller(model, len(rows))
    height = plant.stand(0.0, 0.0, 0.0)[2]
    substeps = round(plant.control_dt / plant.timestep)
    twist = np.full((len(course.twist), len(rows), 3), np.nan)
    fall = np.full(len(rows), np.inf)
    for k in range(len(course.twist)):
        qpos, qvel = np.stack([world.qpos for world in worlds]), np.stack([world.qvel for world in worlds])
        base = plant.base_state(qpos, qvel)
        upright = rotate(base.quaternion, np.tile((0.0, 0.0, 1.0), (len(rows), 1)))[:, 2]
        fallen = (upright < FALLEN_UPRIGHT) | (base.position[:, 2] < FALLEN_HEIGHT * height)
        fall[fallen & np.isinf(fall)] = k * plant.control_dt
        standing = np.isinf(fall)
        twist[k, standing] = np.column_stack([base.linear[:, :2], base.angular[:, 2]])[standing]
        control = controller.command(course.twist[k, rows], qpos, qvel)
        for world, target, push, active in zip(worlds, control, course.push[k, rows], standing, strict=True):
            if active:
                world.ctrl[:] = target
                world.qvel[:2] += push
                mujoco.mj_step(model, world, substeps)
    return Track(twist, fall)


def speed_error(twist: np.ndarray, command: np.ndarray, window: int) -> np.ndarray:
    """Mean absolute error (3,) of twist (K, N, 3), averaged over the last ``window`` steps, against the command."""
    error: np.ndarray = np.nanmean(np.abs(moving_average(twist, window) - command[window - 1 :]), axis=(0, 1))
    return error


def moving_average(signal: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last ``window`` rows, (K, ...) -> (K - window + 1, ...)."""
    total = np.cumsum(np.concatenate([np.zeros((1, *signal.shape[1:])), signal]), axis=0)
    return (total[window:] - total[:-window]) / window


def table(results: list[dict[str, Any]]) -> str:
    """The results as lines of text."""
    lines = [f"{'robot':<10}{'falls':>9}{'survival (95 %)':>24}{'vx':>8}{'vy':>8}{'wz':>8}  bar"]
    for row in results:
        interval = f"{row['survival']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        errors = "".join(f"{value:8.3f}" for value in row["error"])
        verdict = "passed" if row["passed"] else "MISSED"
        lines.append(f"{row['robot']:<10}{row['falls']:>5}/{row['runs']:<3}{interval:>24}{errors}  {verdict}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Command line; exit code 1 when a body misses the bar."""
    config = parse(MeasureConfig, argv)
    results = []
    for name in config.robots:
        print(f"walking {name}: {config.runs} runs of {config.seconds:g} s", file=sys.stderr)
        results.append(measure(load_robot(name), config.runs, config.seconds, config.push, config.seed, config.grip))
    print(table(results))
    if config.out:
        Path(config.out).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0 if all(row["passed"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
