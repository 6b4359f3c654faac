"""Simulate a body on an empty floor, and identify its response: the lag and acceleration that T0 and T1 imitate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.optimize import least_squares

from omnibody.robots.plant import KinematicController, Plant
from omnibody.robots.spec import Embodiment, Vector3
from omnibody.robots.surrogate import respond


@dataclass(frozen=True)
class Track:
    """What N bodies did, one row per control period, after it: twist (T, N, 3) in the heading frame [m/s, m/s, rad/s],
    position (T, N, 3) [m] and yaw (T, N) [rad] of the base, joints qpos (T, N, nq) and qvel (T, N, nv)."""

    twist: np.ndarray
    position: np.ndarray
    yaw: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray


def floor_model(plant: Plant) -> mujoco.MjModel:
    """The plant's body on an infinite plane."""
    spec = plant.spec()
    spec.worldbody.add_geom(name="floor/0", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    return spec.compile()


def run(plant: Plant, commands: np.ndarray, model: mujoco.MjModel | None = None) -> Track:
    """Follow twist commands (T, N, 3), one row per control period, from rest at the origin on an empty floor."""
    model = floor_model(plant) if model is None else model
    num = commands.shape[1]
    controller = plant.controller(model, num)
    controller.reset(np.arange(num))
    worlds = [mujoco.MjData(model) for _ in range(num)]
    for world in worlds:
        world.qpos[:] = plant.stand(0.0, 0.0, 0.0)
        mujoco.mj_forward(model, world)
    qpos, qvel = np.stack([w.qpos for w in worlds]), np.stack([w.qvel for w in worlds])
    states, joints = [], []
    for twist in commands:
        if plant.kinematic:
            assert isinstance(controller, KinematicController)
            qpos, qvel = controller.integrate(twist, qpos, qvel)
        else:
            for world, control in zip(worlds, controller.command(twist, qpos, qvel), strict=True):
                world.ctrl[:] = control
                mujoco.mj_step(model, world, round(plant.control_dt / plant.timestep))
            qpos, qvel = np.stack([w.qpos for w in worlds]), np.stack([w.qvel for w in worlds])
        states.append(plant.base_state(qpos, qvel))
        joints.append((qpos, qvel))
    twist = [np.concatenate((s.linear[:, :2], s.angular[:, 2:]), axis=1) for s in states]
    return Track(
        np.stack(twist),
        np.stack([s.position for s in states]),
        np.stack([s.yaw for s in states]),
        np.stack([q for q, _ in joints]),
        np.stack([v for _, v in joints]),
    )


@dataclass(frozen=True)
class Response:
    """How `surrogate.respond` imitates a plant best: ``lag`` [s] of (vx, vy, wz), and the root mean square ``error``
    of what is left [m/s, m/s, rad/s]."""

    lag: Vector3
    error: Vector3


def step_commands(embodiment: Embodiment, control_dt: float, seconds: float = 1.5) -> np.ndarray:
    """Twist commands (T, 9, 3) that step each axis up and down again; a car drives on while it steps its turning.

    Per axis: to the upper limit, to 0.4 of it, to the lower limit. Three phases of ``seconds``: before, step, after.
    """
    limits = embodiment.limits
    phase = round(seconds / control_dt)
    commands = np.zeros((3 * phase, 9, 3))
    for axis in range(3):
        high, low = limits.velocity_high[axis], limits.velocity_low[axis]
        commands[phase : 2 * phase, 3 * axis : 3 * axis + 3, axis] = high, 0.4 * high, low
    commands[:, 6:, 0] = limits.min_turning_radius * limits.velocity_high[2]
    return commands


def imitate(embodiment: Embodiment, commands: np.ndarray, dt: float) -> np.ndarray:
    """Twists (T, N, 3) that `surrogate.respond` gives for commands (T, N, 3) from rest."""
    twist, out = np.zeros_like(commands[0]), np.empty_like(commands)
    for k, command in enumerate(commands):
        twist = respond(embodiment, twist, command, dt)
        out[k] = twist
    return out


def identify(embodiment: Embodiment, plant: Plant) -> Response:
    """Fit the lag to the plant's step responses by least squares, at the body's stated acceleration limits.

    A body that cannot move sideways is given the lag of vx for vy.
    """
    dt = plant.control_dt
    commands = step_commands(embodiment, dt)
    measured = run(plant, commands).twist
    axes = [0, 1, 2] if embodiment.limits.holonomic else [0, 2]

    def lag_of(parameters: np.ndarray) -> Vector3:
        x, *y, w = np.exp(parameters).tolist()
        return (x, *y, w) if y else (x, x, w)

    def misfit(parameters: np.ndarray) -> np.ndarray:
        trial = dataclasses.replace(embodiment, lag=lag_of(parameters))
        return (imitate(trial, commands, dt) - measured)[..., axes].ravel()

    fit = least_squares(misfit, np.log([0.1] * len(axes)), bounds=(np.log(0.01), np.log(2.0)), diff_step=0.01)
    lag = lag_of(fit.x)
    rest = imitate(dataclasses.replace(embodiment, lag=lag), commands, dt) - measured
    x, y, w = np.sqrt(np.mean(rest**2, axis=(0, 1))).tolist()
    return Response(lag, (x, y, w))
