"""Batched G1 walking environment for stable-baselines3: flat floor, random commands, pushes, friction and mass.

It steps the very ``G1Walk`` that is shipped; the action is the residual of its network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv

from omnibody.robots.g1 import EMBODIMENT, FEET, FOOT_RADIUS, FOOT_SPHERES, G1Plant
from omnibody.robots.g1_walk import ACTION_LIMIT, NUM_LEG, NUM_OBS, G1Walk, Gait, ResidualNetwork, gait_pose
from omnibody.robots.plant import BaseState, free_base_state, rotate

ANKLE_HEIGHT = 0.035  # of the ankle roll link over the ground when the foot is flat [m]
ERROR_FILTER = 0.2  # time constant of the velocity errors that are rewarded [s]: gait sway is not an error
NOISE = np.repeat([0.1, 0.05, 0.02, 0.0, 0.02, 0.05, 0.0], [3, 3, 3, 5, 12, 12, 12])  # of the scaled observation


@dataclass(frozen=True)
class WalkEnvConfig:
    """How hard the training is. Ranges are uniform."""

    num_envs: int = 64
    max_seconds: float = 20.0
    command_seconds: tuple[float, float] = (3.0, 6.0)
    stop_share: float = 0.3
    push_seconds: tuple[float, float] = (2.5, 5.0)
    push_speed: float = 0.8  # largest [m/s], once episodes last
    friction: tuple[float, float] = (0.5, 1.0)
    mass_share: float = 0.2  # of the torso's mass, either way


def stripped_model() -> mujoco.MjModel:
    """G1 on a floor with nothing but what physics needs: no meshes, only the foot spheres collide."""
    spec = G1Plant(EMBODIMENT).spec()
    for geom in list(spec.geoms):
        if "contact" not in geom.name:
            spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], contype=1, conaffinity=1)
    return spec.compile()


class G1WalkEnv(VecEnv):
    """See the module; observations (N, 50) and actions (N, 12) as in ``g1_walk``."""

    def __init__(self, cfg: WalkEnvConfig, gait: Gait, seed: int) -> None:
        super().__init__(
            cfg.num_envs,
            Box(-np.inf, np.inf, (NUM_OBS,), np.float32),
            Box(-ACTION_LIMIT, ACTION_LIMIT, (NUM_LEG,), np.float32),
        )
        self.cfg, self.gait, self.rng = cfg, gait, np.random.default_rng(seed)
        self.plant, num = G1Plant(EMBODIMENT), cfg.num_envs
        untrained = ResidualNetwork([(np.zeros((NUM_LEG, NUM_OBS)), np.zeros(NUM_LEG))])
        self.walk = G1Walk(gait, untrained, num, EMBODIMENT.limits.acceleration)
        self.models = [stripped_model() for _ in range(num)]
        self.datas = [mujoco.MjData(model) for model in self.models]
        self.substeps = round(self.plant.control_dt / self.plant.timestep)
        model = self.models[0]
        self.torso = model.body("torso_link").id
        self.torso_mass, self.torso_inertia = model.body_mass[self.torso], model.body_inertia[self.torso].copy()
        self.feet = [model.body(foot).id for foot in FEET]
        self.spheres = [model.geom(f"{foot}_contact_{i}").id for foot in FEET for i in range(len(FOOT_SPHERES))]
        self.command, self.error = np.zeros((num, 3)), np.zeros((num, 3))
        self.command_left, self.push_left = np.zeros(num), np.zeros(num)  # [s]
        self.age, self.total = np.zeros(num), np.zeros(num)  # [s], summed reward
        self.actions = np.zeros((num, NUM_LEG))
        self.skill = 0.0  # recent share of an episode survived; pushes grow with it
        self.terms: dict[str, float] = {}

    def reset(self) -> np.ndarray:
        """See ``VecEnv.reset``."""
        for row in range(self.num_envs):
            self._reset_row(row)
            self.age[row] = self.rng.uniform(0.0, self.cfg.max_seconds)  # so that time limits do not come in step
        return self._observe(*self._state())

    def step_async(self, actions: np.ndarray) -> None:
        """See ``VecEnv.step_async``."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """See ``VecEnv.step_wait``; one control period."""
        previous = self.walk.action
        ctrl = self.walk.targets(self.actions, self.command, *self._state())
        for model, data, row in zip(self.models, self.datas, ctrl, strict=True):
            data.ctrl[:] = row
            mujoco.mj_step(model, data, self.substeps)
        qpos, qvel = self._state()
        base = free_base_state(qpos, qvel)
        up = rotate(base.quaternion, np.broadcast_to([0.0, 0.0, 1.0], (len(qpos), 3)))[:, 2]
        fallen = (up < 0.6) | (base.position[:, 2] < 0.5)
        self.age += self.plant.control_dt
        late = (self.age >= self.cfg.max_seconds) & ~fallen
        terms = self._reward(base, qpos, up, previous)
        reward = 0.25 * np.sum(list(terms.values()), axis=0)
        self.terms = {name: float(value.mean()) for name, value in terms.items()}
        self.terms |= {
            f"error_{n}": float(e) for n, e in zip(("vx", "vy", "wz"), np.abs(self.error).mean(0), strict=True)
        }
        self.total += reward
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if late.any():
            last = self._observe(qpos, qvel)
        for row in np.flatnonzero(fallen | late).tolist():
            if late[row]:
                infos[row] = {"TimeLimit.truncated": True, "terminal_observation": last[row]}
            self.skill += 0.01 * (self.age[row] / self.cfg.max_seconds - self.skill)
            infos[row]["episode"] = {"r": self.total[row], "l": self.age[row] / self.plant.control_dt, "t": 0.0}
            self._reset_row(row)
        self._disturb()
        return self._observe(*self._state()), reward.astype(np.float32), fallen | late, infos

    def _reward(self, base: BaseState, qpos: np.ndarray, up: np.ndarray, previous: np.ndarray) -> dict[str, np.ndarray]:
        """Terms (N,); weights from the walking study, with yaw weighted up."""
        cycle, action = self.walk.cycle, self.walk.action
        velocity = np.concatenate([base.linear[:, :2], base.angular[:, 2:]], 1)
        self.error += (velocity - cycle.twist - self.error) * (self.plant.control_dt / ERROR_FILTER)
        lift = np.sin(2.0 * np.pi * cycle.phase)
        swing = np.stack([np.maximum(lift, 0.0), np.maximum(-lift, 0.0)], 1) * cycle.blend[:, None]
        stance = np.stack([cycle.phase >= 0.5, cycle.phase < 0.5], 1) | ~cycle.walking[:, None]
        foot_height = np.array([data.xpos[self.feet, 2] for data in self.datas])
        sphere_height = np.array([data.geom_xpos[self.spheres, 2] for data in self.datas])
        contact = (sphere_height.reshape(-1, 2, len(FOOT_SPHERES)) < FOOT_RADIUS).any(2)
        legs = qpos[:, 7 : 7 + NUM_LEG]
        return {
            "linear": 1.5 * np.exp(-(self.error[:, :2] ** 2).sum(1) / 0.06),
            "yaw": 1.2 * np.exp(-(self.error[:, 2] ** 2) / 0.1),
            "alive": np.full(self.num_envs, 0.3),
            "upright": 0.5 * np.exp(-(1.0 - up) / 0.02),
            "imitate": 0.7 * np.exp(-2.0 * ((legs - self.walk.reference()) ** 2).sum(1)),
            "contact": 0.6 * (2.0 * (contact == stance).mean(1) - 1.0),
            "swing": 0.4 * np.exp(-(((foot_height - ANKLE_HEIGHT - 0.06 * swing) / 0.03) ** 2)).mean(1),
            "tumble": -0.03 * (base.angular[:, :2] ** 2).sum(1),
            "bounce": -0.5 * base.linear[:, 2] ** 2,
            "jerk": -0.02 * ((action - previous) ** 2).sum(1),
            "effort": -0.01 * (action**2).sum(1),
        }

    def _reset_row(self, row: int) -> None:
        """Start standing, or in the pose of a random half phase of the gait, on another floor with another mass."""
        rng, model, data = self.rng, self.models[row], self.datas[row]
        model.geom_friction[self.spheres, 0] = rng.uniform(*self.cfg.friction)
        heavier = rng.uniform(1.0 - self.cfg.mass_share, 1.0 + self.cfg.mass_share)
        model.body_mass[self.torso], model.body_inertia[self.torso] = (
            self.torso_mass * heavier,
            self.torso_inertia * heavier,
        )
        mujoco.mj_setConst(model, data)
        mujoco.mj_resetData(model, data)
        self.walk.reset(np.array([row]))
        data.qpos[:] = self.plant.stand(0.0, 0.0, rng.uniform(-np.pi, np.pi))
        if rng.random() < 0.5:
            cycle = self.walk.cycle
            cycle.walking[row], cycle.blend[row], cycle.phase[row] = True, 1.0, rng.choice([0.0, 0.5])
            data.qpos[7 : 7 + NUM_LEG] = gait_pose(self.gait.pose, cycle.phase[row : row + 1], np.zeros((1, 3)))[0]
        data.qpos[7 : 7 + NUM_LEG] += rng.uniform(-0.05, 0.05, NUM_LEG)
        mujoco.mj_kinematics(model, data)
        data.qpos[2] -= data.geom_xpos[self.spheres, 2].min() - FOOT_RADIUS
        data.qvel[:6] = rng.uniform(-0.15, 0.15, 6)
        self.error[row], self.age[row], self.total[row] = 0.0, 0.0, 0.0
        self._draw_command(row)
        self.push_left[row] = rng.uniform(*self.cfg.push_seconds)

    def _draw_command(self, row: int) -> None:
        """A stop, a straight walk, or any twist within the limits."""
        rng, limits = self.rng, EMBODIMENT.limits
        self.command_left[row] = rng.uniform(*self.cfg.command_seconds)
        self.command[row] = rng.uniform(limits.velocity_low, limits.velocity_high)
        kind = rng.random()
        if kind < self.cfg.stop_share:
            self.command[row] = 0.0
        elif kind < self.cfg.stop_share + 0.15:
            self.command[row, 1:] = 0.0

    def _disturb(self) -> None:
        """Count down to the next command and the next push of every row."""
        self.command_left -= self.plant.control_dt
        self.push_left -= self.plant.control_dt
        for row in np.flatnonzero(self.command_left < 0.0).tolist():
            self._draw_command(row)
        for row in np.flatnonzero(self.push_left < 0.0).tolist():
            angle, speed = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(0.0, self.cfg.push_speed * self.skill)
            self.datas[row].qvel[:2] += speed * np.array([np.cos(angle), np.sin(angle)])
            self.push_left[row] = self.rng.uniform(*self.cfg.push_seconds)

    def _state(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([data.qpos for data in self.datas]), np.array([data.qvel for data in self.datas])

    def _observe(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        clean = self.walk.observe(qpos, qvel)
        return (clean + NOISE * self.rng.uniform(-1.0, 1.0, clean.shape)).astype(np.float32)

    # What stable-baselines3 asks of every VecEnv.

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """See ``VecEnv.get_attr``."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the rows share one object."""
        raise NotImplementedError(f"G1WalkEnv has no attribute per row, cannot set {attr_name!r}")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Refused: the rows share one object."""
        raise NotImplementedError(f"G1WalkEnv has no method per row, cannot call {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """See ``VecEnv.env_is_wrapped``: never."""
        return [False] * self.num_envs

    def get_images(self) -> Sequence[np.ndarray | None]:
        """No pictures: see ``training/walking/measure.py`` for results."""
        return [None] * self.num_envs
