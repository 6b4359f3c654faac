"""Record the G1's gait table from a model-based walker.

The walker places its feet by the capture point of a linear inverted pendulum and moves by whole-body control. Its leg
angles, and the servo targets that would give its torques, are regressed on (1, vx, vy, wz) in bins of the phase: the
tables that the trained residual starts from.

    python -m omnibody.training.walking.gait out=gait.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from safetensors.numpy import save_file

from omnibody.robots.g1 import MOTORS
from omnibody.robots.g1_walk import MIRROR_LEG, MIRROR_LEG_INDEX, MIRROR_TWIST, NUM_LEG, STAND_LEGS
from omnibody.robots.plant import into_heading, yaw_of
from omnibody.training.config import parse
from omnibody.training.walking.wholebody import Tasks, WholeBody, rotation_between, yaw_quaternion

TIMESTEP = 0.004  # of physics and control [s]
STEP_TIME = 0.32  # planned; feet land after 0.27 s on average [s]
STEP_WIDTH = 0.20  # [m]
SWING_HEIGHT = 0.06  # [m]
COM_HEIGHT = 0.60  # over the stance sole [m]
ACCELERATION = np.array([0.6, 0.6, 1.5])  # of the walked twist
YAW_LEASH = 0.25  # most the reference yaw leads the body [rad]
COP_RANGE = np.array([0.06, 0.016])  # centre of pressure in the sole [m]
GRAVITY = 9.81
LEG_GAINS = np.array([[motor.stiffness, motor.damping] for motor in list(MOTORS.values())[:NUM_LEG]]).T


@dataclass
class RecordConfig:
    """Record the G1's gait table; the defaults made the shipped one."""

    out: str = "gait.safetensors"  # file to write
    episodes: int = 12  # walks
    seconds: float = 12.0  # length of a walk [s]
    seed: int = 100  # of the commands of the first walk; one more for each
    bins: int = 32  # of the phase


class Walker:
    """Walks a ``WholeBody`` at slow twists. ``stance`` and swing feet are 0 left, 1 right."""

    def __init__(self) -> None:
        self.body = WholeBody(TIMESTEP)
        self.reset()

    def reset(self) -> None:
        """Stand, about to lift the left foot."""
        self.body.reset()
        self.stance, self.time, self.steps = 1, 0.0, 0
        self.yaw = 0.0  # reference
        self.torque = np.zeros(len(MOTORS))
        self.twist, self.mean_velocity, self.trim = np.zeros(3), np.zeros(2), np.zeros(2)
        self._lift_off()

    def sample(self) -> np.ndarray:
        """Swing foot, twist, leg angles and servo targets of the legs (28,)."""
        data, stiffness, damping = self.body.data, *LEG_GAINS
        legs, rates = data.qpos[7 : 7 + NUM_LEG], data.qvel[6 : 6 + NUM_LEG]
        targets = legs + (self.torque[:NUM_LEG] + damping * rates) / stiffness
        return np.concatenate([[1.0 - self.stance], self.twist, legs, targets])

    @property
    def fallen(self) -> bool:
        """Whether the body tilts or sinks too much to be an example."""
        return bool(self.body.data.xmat[self.body.base][8] < 0.9 or self.body.data.qpos[2] < 0.55)

    def step(self, command: np.ndarray) -> None:
        """One physics step under a twist command (3,)."""
        body = self.body
        mujoco.mj_step1(body.model, body.data)
        self._follow(command)
        self._switch()
        tasks = Tasks(body.model.nv + 6)
        cop, foothold = self._plan()
        self._add_swing(tasks, foothold)
        self._add_base(tasks, cop)
        self.torque = body.torques(tasks, self.stance)
        body.data.qfrc_applied[6:] = self.torque
        mujoco.mj_step2(body.model, body.data)

    def _follow(self, command: np.ndarray) -> None:
        """Slew the twist, lead the yaw reference, and trim the velocity by its mean error."""
        self.twist += np.clip(command - self.twist, -ACCELERATION * TIMESTEP, ACCELERATION * TIMESTEP)
        yaw = float(yaw_of(self.body.data.qpos[3:7]))
        ahead = (self.yaw + self.twist[2] * TIMESTEP - yaw + np.pi) % (2.0 * np.pi) - np.pi
        self.yaw = yaw + float(np.clip(ahead, -YAW_LEASH, YAW_LEASH))
        velocity = into_heading(np.array(self.yaw), self.body.com()[1])[:2]
        self.mean_velocity += (velocity - self.mean_velocity) * TIMESTEP / (2.0 * STEP_TIME)
        if self.steps > 0:
            change = 0.6 * TIMESTEP * (self.twist[:2] - self.mean_velocity)
            self.trim = np.clip(self.trim + change, -0.25, 0.25)

    def _switch(self) -> None:
        """Change feet when the swing foot lands, or is overdue."""
        self.time += TIMESTEP
        swing = 1 - self.stance
        sinking = (self.body.jacobian(swing)[0] @ self.body.data.qvel)[2] < 0.05
        landed = self.time > 0.75 * STEP_TIME and self.body.touching(swing) and sinking
        if landed or self.time > 1.15 * STEP_TIME:
            self.stance, self.time, self.steps = swing, 0.0, self.steps + 1
            self._lift_off()

    def _lift_off(self) -> None:
        point, rotation = self.body.sole(1 - self.stance)
        self.lift_point, self.lift_yaw = point.copy(), float(np.arctan2(rotation[1, 0], rotation[0, 0]))
        self.foothold: np.ndarray | None = None

    def _plan(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre of pressure (2,) and next foothold (2,) in the world that keep the capture point on its orbit."""
        stance, foot = self.body.sole(self.stance)
        com, velocity, _ = self.body.com()
        side = 1.0 if self.stance == 1 else -1.0  # +1 when the left foot swings
        rate = np.sqrt(GRAVITY / max(0.3, com[2] - stance[2]))
        capture = com[:2] + velocity[:2] / rate
        left, growth = max(0.0, STEP_TIME - self.time), np.exp(rate * STEP_TIME)
        speed = self.twist[:2] + self.trim
        stride = speed * STEP_TIME + np.array([0.0, side * STEP_WIDTH])
        offset = speed * STEP_TIME / (growth - 1.0) - np.array([0.0, side * STEP_WIDTH / (growth + 1.0)])
        turn = _turn(self.yaw)
        wanted = stance[:2] + turn @ (stride + offset)
        soon = np.exp(rate * max(left, 0.06))
        cop = (wanted - capture * soon) / (1.0 - soon)
        inside = np.clip(foot[:2, :2].T @ (cop - stance[:2]), -COP_RANGE, COP_RANGE)
        cop = stance[:2] + foot[:2, :2] @ (inside if self.steps > 0 else np.zeros(2))
        landing = cop + (capture - cop) * np.exp(rate * left) - turn @ offset
        step = turn.T @ (landing - stance[:2])
        step = np.array([np.clip(step[0], -0.4, 0.5), side * np.clip(side * step[1], 0.13, 0.45)])
        landing = stance[:2] + turn @ step
        if self.foothold is not None:
            landing = self.foothold + np.clip(landing - self.foothold, -0.02, 0.02)
        self.foothold = landing
        return cop, landing

    def _add_swing(self, tasks: Tasks, foothold: np.ndarray) -> None:
        """Bring the swing foot to the foothold along a quintic, over a squared sine."""
        swing, duration = 1 - self.stance, 0.95 * STEP_TIME
        x = min(self.time / duration, 1.0)
        moving = x < 1.0
        share = x**3 * (10.0 - 15.0 * x + 6.0 * x * x)
        speed = 30.0 * x * x * (1.0 - x) ** 2 / duration
        push = (60.0 * x - 180.0 * x * x + 120.0 * x**3) / duration**2 * moving
        end = np.append(foothold, self.body.sole(self.stance)[0][2] - 0.005)
        position = self.lift_point + (end - self.lift_point) * share
        velocity, acceleration = (end - self.lift_point) * speed, (end - self.lift_point) * push
        w = np.pi / duration
        position[2] += SWING_HEIGHT * np.sin(np.pi * x) ** 2
        velocity[2] += SWING_HEIGHT * w * np.sin(2.0 * np.pi * x) * moving
        acceleration[2] += 2.0 * SWING_HEIGHT * w * w * np.cos(2.0 * np.pi * x) * moving
        turn = (self.yaw + self.twist[2] * (STEP_TIME - self.time) - self.lift_yaw + np.pi) % (2.0 * np.pi) - np.pi
        point, rotation = self.body.sole(swing)
        matrix, drift = self.body.jacobian(swing)
        now = matrix @ self.body.data.qvel
        linear = acceleration + 300.0 * (position - point) + 32.0 * (velocity - now[:3])
        facing = rotation_between(rotation, yaw_quaternion(self.lift_yaw + turn * share))
        angular = 150.0 * facing + 22.4 * (np.array([0.0, 0.0, turn * speed]) - now[3:])
        tasks.add(matrix[:3], linear - drift[:3], 8.0)
        tasks.add(matrix[3:], angular - drift[3:], 2.4)

    def _add_base(self, tasks: Tasks, cop: np.ndarray) -> None:
        """Pendulum motion of the centre of mass about the centre of pressure; an upright pelvis facing ahead."""
        body = self.body
        com, velocity, matrix = body.com()
        ground = body.sole(self.stance)[0][2]
        stiffness = GRAVITY / max(0.3, com[2] - ground)
        rise = 150.0 * (ground + COM_HEIGHT - com[2]) - 20.0 * velocity[2]
        tasks.add(matrix, np.append(stiffness * (com[:2] - cop), rise), 20.0)
        spin = np.zeros((3, body.model.nv))
        mujoco.mj_jacBody(body.model, body.data, None, spin, body.base)
        tilt = rotation_between(body.data.xmat[body.base].reshape(3, 3), yaw_quaternion(self.yaw))
        wanted = 200.0 * tilt + 28.0 * (np.array([0.0, 0.0, self.twist[2]]) - spin @ body.data.qvel)
        tasks.add(spin, wanted, np.array([10.0, 10.0, 60.0]))


def _turn(yaw: float) -> np.ndarray:
    return np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])


def record(cfg: RecordConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Walk random slow twists; phases (M,), twists (M, 3), leg angles and servo targets (M, 12) of whole steps.

    Steps that begin less than 1.5 s after a change of the command are left out.
    """
    walker, steps = Walker(), []
    hold = round(4.0 / TIMESTEP)  # physics steps per command
    for episode in range(cfg.episodes):
        rng = np.random.default_rng(cfg.seed + episode)
        walker.reset()
        rows: list[np.ndarray] = []
        for k in range(round(cfg.seconds / TIMESTEP)):
            if k % hold == 0:
                command, rows = rng.uniform([-0.3, -0.2, -0.5], [0.5, 0.2, 0.5]) * (rng.random() > 0.15), []
            count = walker.steps
            walker.step(command)
            if walker.fallen:
                print(f"episode {episode}: fell at {k * TIMESTEP:.1f} s under {command.round(2)}, rest dropped")
                break
            if walker.steps > count:
                steps += [np.array(rows)] if rows else []
                rows = [walker.sample()] if k % hold * TIMESTEP > 1.5 else []
            elif rows:
                rows.append(walker.sample())
    for step in steps:  # a foot lands a little early or late: stretch every step to half a cycle
        step[:, 0] = 0.5 * np.linspace(0.0, 1.0, len(step), endpoint=False) + 0.5 * step[:, 0]
    data = np.concatenate(steps)
    print(f"{len(steps)} steps, {len(data) / len(steps) * TIMESTEP:.3f} s each, {len(data)} samples")
    return data[:, 0], data[:, 1:4], data[:, 4:16], data[:, 16:]


def fit_table(phase: np.ndarray, twist: np.ndarray, legs: np.ndarray, bins: int) -> np.ndarray:
    """Table (bins, 4, 12), as ``gait_pose`` reads it, by ridge regression on the data and its mirror image."""
    phase = np.concatenate([phase, (phase + 0.5) % 1.0])
    twist = np.concatenate([twist, twist * MIRROR_TWIST])
    legs = np.concatenate([legs, legs[:, MIRROR_LEG_INDEX] * MIRROR_LEG])
    basis = np.concatenate([np.ones((len(twist), 1)), twist], 1)
    table = np.zeros((bins, 4, NUM_LEG))
    which = (phase * bins).astype(int)
    for index in range(bins):
        rows = basis[which == index]
        normal = rows.T @ rows + np.diag([1e-3, 1.0, 1.0, 1.0])
        table[index] = np.linalg.solve(normal, rows.T @ legs[which == index])
    return 0.25 * np.roll(table, 1, 0) + 0.5 * table + 0.25 * np.roll(table, -1, 0)


def standing_targets() -> np.ndarray:
    """Servo targets (12,) that hold the standing pose against gravity, half the weight on each sole."""
    body = WholeBody(TIMESTEP)
    body.reset()
    force = np.array([0.0, 0.0, 0.5 * body.mass * GRAVITY, 0.0, 0.0, 0.0])
    torque = body.data.qfrc_bias - sum(body.jacobian(foot)[0].T @ force for foot in (0, 1))
    return np.asarray(STAND_LEGS + torque[6 : 6 + NUM_LEG] / LEG_GAINS[0])


def main(argv: list[str]) -> None:
    """Record and save the tables."""
    cfg = parse(RecordConfig, argv)
    phase, twist, legs, targets = record(cfg)
    tables = {
        "pose": fit_table(phase, twist, legs, cfg.bins),
        "target": fit_table(phase, twist, targets, cfg.bins),
        "stand": standing_targets(),
    }
    save_file({name: table.astype(np.float32) for name, table in tables.items()}, Path(cfg.out))


if __name__ == "__main__":
    main(sys.argv[1:])
