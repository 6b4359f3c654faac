"""Walking controller of the G1: a recorded gait plus a mirror-symmetric residual network, in plain numpy.

leg targets = stand + w (table(phase, twist) - stand) + scale * network(observation), where w in [0, 1] blends walking
in and standing out. The table holds servo targets, so it carries the torques of the walker it was recorded from.
The same object steps the training environment, so training and use cannot differ.
Base velocity comes from the simulator here; a real robot needs a state estimator for it (training adds noise to it).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from omnibody.robots.plant import free_base_state, rotate

CONTROL_DT = 0.02  # [s]
PERIOD = 0.56  # of one gait cycle, two steps [s]
START_TIME, STOP_TIME = 0.1, 0.2  # of the blend from standing to walking and back [s]
ACTION_LIMIT = 4.0
STILL_TWIST = 0.05  # a commanded twist below this in every part means "stand" [m/s, rad/s]
STOP_SPEED, STOP_SPIN = 0.25, 0.8  # the clock may stop below these [m/s, rad/s]
WAKE_SPEED = 0.30  # a standing body moving faster than this starts to step [m/s]

NUM_LEG = 12
NUM_QPOS, NUM_QVEL = 36, 35  # free joint + 29 hinges
STAND_LEG = (-0.400, 0.0, 0.0, 0.850, -0.450, 0.0)  # hip pitch, roll, yaw, knee, ankle pitch, roll [rad]
STAND_LEGS = np.array(STAND_LEG * 2)
STAND_WAIST = np.zeros(3)
ARM_POSE = np.array([0.2, 0.2, 0.0, 0.6, 0.0, 0.0, 0.0, 0.2, -0.2, 0.0, 0.6, 0.0, 0.0, 0.0])
# Residual per unit action [rad]: an eighth of the angle at which the servo reaches its torque limit.
ACTION_SCALE = np.array((0.2738, 0.1753, 0.2738, 0.1753, 0.2193, 0.2193) * 2)

MIRROR_LEG = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0] * 2)  # pitch joints keep their sign, roll and yaw flip
MIRROR_LEG_INDEX = np.r_[6:12, 0:6]
OBS_SCALE = np.r_[np.full(3, 2.0), np.full(3, 0.5), np.ones(3), np.full(3, 2.0), np.ones(2)]
NUM_OBS = len(OBS_SCALE) + 3 * NUM_LEG
# Under reflection in the x-z plane: lateral velocity, roll and yaw rate, lateral gravity, vy, wz and half a phase.
MIRROR_OBS = np.concatenate([[1, -1, 1, -1, 1, -1, 1, -1, 1, 1, -1, -1, -1, -1], MIRROR_LEG, MIRROR_LEG, MIRROR_LEG])
MIRROR_OBS_INDEX = np.concatenate([np.arange(14), *(start + MIRROR_LEG_INDEX for start in (14, 26, 38))])
MIRROR_TWIST = np.array([1.0, -1.0, -1.0])


def gait_pose(table: np.ndarray, phase: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Leg angles (N, 12) [rad] at phase (N,) in cycles for twists (N, 3).

    ``table`` (bins, 4, 12) holds, at bin centres, coefficients of (1, vx, vy, wz); bins are interpolated linearly.
    """
    at = phase * len(table) - 0.5
    first = np.floor(at).astype(int)
    share = (at - first)[:, None, None]
    rows = (1.0 - share) * table[first % len(table)] + share * table[(first + 1) % len(table)]
    basis = np.concatenate([np.ones((len(twist), 1)), twist], 1)
    return (basis[:, None, :] @ rows)[:, 0]


@dataclass(frozen=True)
class Gait:
    """Recorded gait: tables (bins, 4, 12) of leg angles and servo targets, and the targets (12,) that stand still."""

    pose: np.ndarray
    target: np.ndarray
    stand: np.ndarray

    @staticmethod
    def load(path: Path) -> Gait:
        """Read what ``training/walking/gait.py`` wrote."""
        return Gait(**{name: array.astype(np.float64) for name, array in load_file(path).items()})


class ResidualNetwork:
    """Mirror-symmetric perceptron: the mean of its output and the mirrored output for the mirrored input."""

    def __init__(self, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """``layers`` holds (weight (out, in), bias (out,)) from input to output; ELU between them."""
        self.layers = [(np.ascontiguousarray(weight.T, np.float32), bias.astype(np.float32)) for weight, bias in layers]
        if self.layers[0][0].shape[0] != NUM_OBS or self.layers[-1][0].shape[1] != NUM_LEG:
            shapes = [weight.shape for weight, _ in layers]
            raise ValueError(f"the G1 residual network maps {NUM_OBS} to {NUM_LEG} numbers, got layers {shapes}")

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Mean action (N, 12) for observations (N, 50)."""
        hidden = np.concatenate([observation, observation[:, MIRROR_OBS_INDEX] * MIRROR_OBS]).astype(np.float32)
        for weight, bias in self.layers[:-1]:
            hidden = hidden @ weight + bias
            hidden = np.where(hidden > 0.0, hidden, np.expm1(np.minimum(hidden, 0.0)))
        weight, bias = self.layers[-1]
        plain, mirrored = np.split(hidden @ weight + bias, 2)
        return 0.5 * (plain + mirrored[:, MIRROR_LEG_INDEX] * MIRROR_LEG)


class GaitCycle:
    """Gait clock of N bodies: slew-limited twist, phase, and the blend between standing and walking."""

    def __init__(self, num: int, acceleration: tuple[float, float, float]) -> None:
        self.slew = np.asarray(acceleration) * CONTROL_DT
        self.twist = np.zeros((num, 3))  # [m/s, m/s, rad/s]
        self.phase = np.zeros(num)  # cycles in [0, 1); the left leg swings in the first half
        self.blend = np.zeros(num)  # 0 standing, 1 walking
        self.walking = np.zeros(num, bool)

    def reset(self, rows: np.ndarray) -> None:
        """Stand in ``rows``."""
        self.twist[rows], self.phase[rows], self.blend[rows], self.walking[rows] = 0.0, 0.0, 0.0, False

    def advance(self, command: np.ndarray, linear: np.ndarray, angular: np.ndarray) -> None:
        """One control period with twist commands (N, 3) and base velocities (N, 3) in the heading frame."""
        self.twist += np.clip(command - self.twist, -self.slew, self.slew)
        still = (np.abs(command) < STILL_TWIST).all(1) & (np.abs(self.twist) < STILL_TWIST).all(1)
        speed, spin = np.linalg.norm(linear[:, :2], axis=1), np.abs(angular).max(1)
        phase = (self.phase + CONTROL_DT / PERIOD) % 1.0
        crossed = np.floor(2.0 * phase) != np.floor(2.0 * self.phase)
        stop = self.walking & still & crossed & (speed < STOP_SPEED) & (spin < STOP_SPIN)
        start = ~self.walking & (~still | (speed > WAKE_SPEED))
        # Swing first the leg on the side the body goes to: the other would have to cross it.
        leftward = self.twist[:, 1] + linear[:, 1] + 0.1 * self.twist[:, 2] >= 0.0
        self.walking = (self.walking & ~stop) | start
        self.phase = np.where(stop, np.floor(2.0 * phase) / 2.0, np.where(self.walking, phase, self.phase))
        self.phase = np.where(start & (self.blend == 0.0), np.where(leftward, 0.0, 0.5), self.phase)
        change = np.where(self.walking, CONTROL_DT / START_TIME, -CONTROL_DT / STOP_TIME)
        self.blend = np.clip(self.blend + change, 0.0, 1.0)


class G1Walk:
    """See ``Controller``; state per body: its gait cycle and its last action."""

    def __init__(
        self, gait: Gait, network: ResidualNetwork, num: int, acceleration: tuple[float, float, float]
    ) -> None:
        self.gait, self.network = gait, network
        self.cycle = GaitCycle(num, acceleration)
        self.action = np.zeros((num, NUM_LEG))

    @staticmethod
    def load(folder: Path, num: int, acceleration: tuple[float, float, float]) -> G1Walk:
        """Read ``weights.safetensors`` and ``gait.safetensors`` from a checkpoint folder."""
        weights = load_file(folder / "weights.safetensors")
        count = len(weights) // 2
        network = ResidualNetwork([(weights[f"{i}.weight"], weights[f"{i}.bias"]) for i in range(count)])
        return G1Walk(Gait.load(folder / "gait.safetensors"), network, num, acceleration)

    def reset(self, rows: np.ndarray) -> None:
        """See ``Controller.reset``: stand."""
        self.cycle.reset(rows)
        self.action[rows] = 0.0

    def command(self, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """See ``Controller.command``: position targets (N, 29) [rad]; qpos (N, 36), qvel (N, 35)."""
        if qpos.shape[1] != NUM_QPOS or qvel.shape[1] != NUM_QVEL:
            raise ValueError(
                f"G1Walk wants the body's own qpos (N, {NUM_QPOS}) and qvel (N, {NUM_QVEL}), "
                f"got {qpos.shape} and {qvel.shape}: cut out the G1's columns"
            )
        return self.targets(self.network(self.observe(qpos, qvel)), twist, qpos, qvel)

    def observe(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Observation (N, 50): velocity, spin, gravity, twist, phase, leg angles and rates, last action."""
        base = free_base_state(qpos, qvel)
        inverse = base.quaternion * np.array([1.0, -1.0, -1.0, -1.0])
        gravity = rotate(inverse, np.broadcast_to([0.0, 0.0, -1.0], (len(qpos), 3)))
        angle = 2.0 * np.pi * self.cycle.phase
        clock = np.stack([np.sin(angle), np.cos(angle)], 1) * self.cycle.blend[:, None]
        body = np.concatenate([base.linear, qvel[:, 3:6], gravity, self.cycle.twist, clock], 1) * OBS_SCALE
        legs = 2.0 * (qpos[:, 7 : 7 + NUM_LEG] - STAND_LEGS)
        return np.concatenate([body, legs, 0.1 * qvel[:, 6 : 6 + NUM_LEG], self.action], 1)

    def reference(self) -> np.ndarray:
        """Leg angles (N, 12) [rad] that the recorded gait has now."""
        return self._blend(self.gait.pose, STAND_LEGS)

    def _blend(self, table: np.ndarray, stand: np.ndarray) -> np.ndarray:
        walk = gait_pose(table, self.cycle.phase, self.cycle.twist)
        return np.asarray(stand + self.cycle.blend[:, None] * (walk - stand))

    def targets(self, action: np.ndarray, twist: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Advance the gait by one control period; position targets (N, 29) [rad] for residual actions (N, 12)."""
        base = free_base_state(qpos, qvel)
        self.cycle.advance(twist, base.linear, base.angular)
        self.action = np.clip(action, -ACTION_LIMIT, ACTION_LIMIT)
        legs = self._blend(self.gait.target, self.gait.stand) + ACTION_SCALE * self.action
        rest = np.broadcast_to(np.concatenate([STAND_WAIST, ARM_POSE]), (len(legs), 17))
        return np.concatenate([legs, rest], 1)
