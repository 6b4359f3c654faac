"""Domain randomisation: what may differ between episodes, drawn from each episode's own generator."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from omnibody.robots.plant import GROUP_ROBOT


@dataclass
class RandomizationCfg:
    """Half-widths of uniform distributions around the nominal body, and noise scales; all zero is the nominal body."""

    mass: float = 0.0  # share of every robot body's mass and inertia
    friction: float = 0.0  # share of the robot geoms' friction coefficients
    latency: float = 0.0  # extra delay from command to controller, 0 to this [s]
    camera_pitch: float = 0.0  # mounting error [rad]
    camera_position: float = 0.0  # mounting error per axis [m]
    depth_noise: float = 0.0  # standard deviation as a share of the depth
    depth_dropout: float = 0.0  # probability that a pixel has no return
    velocity_noise: float = 0.0  # standard deviation [m/s, m/s, rad/s]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0.0:
                raise ValueError(f"randomization.{name} must not be negative, got {value}")
        if self.mass >= 1.0 or self.friction >= 1.0:
            raise ValueError(f"randomization.mass and .friction are shares below 1, got {self.mass}, {self.friction}")

    @property
    def changes_model(self) -> bool:
        """Whether an episode needs a model of its own."""
        return self.mass > 0.0 or self.friction > 0.0


MODERATE = RandomizationCfg(
    mass=0.15,
    friction=0.2,
    latency=0.06,
    camera_pitch=0.03,
    camera_position=0.02,
    depth_noise=0.02,
    depth_dropout=0.01,
    velocity_noise=0.03,
)


@dataclass(frozen=True)
class EpisodeDraw:
    """One episode's body: the camera's mounting error and the command latency in control ticks."""

    camera_pitch: float
    camera_offset: np.ndarray
    latency_ticks: int
    noise: np.random.Generator


def draw_episode(
    cfg: RandomizationCfg, seed: int, episode: int, base_latency: float, control_dt: float
) -> tuple[EpisodeDraw, np.random.Generator]:
    """The randomised facts of an episode, a pure function of (seed, episode), and its generator for the model."""
    rng = np.random.default_rng([seed, episode, 0x0D0A])
    latency = base_latency + rng.uniform(0.0, cfg.latency)
    draw = EpisodeDraw(
        camera_pitch=rng.uniform(-cfg.camera_pitch, cfg.camera_pitch),
        camera_offset=rng.uniform(-cfg.camera_position, cfg.camera_position, 3),
        latency_ticks=round(latency / control_dt),
        noise=np.random.default_rng([seed, episode, 0x0D0B]),
    )
    return draw, rng


def randomize_model(model: mujoco.MjModel, cfg: RandomizationCfg, rng: np.random.Generator) -> None:
    """Scale the masses and frictions of the robot's bodies in place."""
    scale = 1.0 + rng.uniform(-cfg.mass, cfg.mass)
    model.body_mass *= scale
    model.body_inertia *= scale
    robot = model.geom_group == GROUP_ROBOT
    model.geom_friction[robot] *= 1.0 + rng.uniform(-cfg.friction, cfg.friction)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def noisy_depth(depth: np.ndarray, max_range: float, cfg: RandomizationCfg, rng: np.random.Generator) -> np.ndarray:
    """Depth (H, W) [m] with multiplicative noise and missing returns (which read ``max_range``)."""
    out = depth * (1.0 + cfg.depth_noise * rng.standard_normal(depth.shape))
    out[rng.random(depth.shape) < cfg.depth_dropout] = max_range
    return np.clip(out, 0.0, max_range).astype(np.float32)
