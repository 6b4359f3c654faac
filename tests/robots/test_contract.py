"""What every body in the table owes its users, at every tier; a new member is tested without a new test."""

from __future__ import annotations

import dataclasses
from functools import cache

import mujoco
import numpy as np
import pytest

from omnibody.robots.identify import Track, run
from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL, Plant
from omnibody.robots.spec import DESCRIPTOR_NAMES, Embodiment
from omnibody.robots.table import ROBOTS, load_robot, make_plant

TIERS = ("T0", "T1", "T2")
bodies = pytest.mark.parametrize("name", ROBOTS)
bodies_and_tiers = pytest.mark.parametrize("name, tier", [(name, tier) for name in ROBOTS for tier in TIERS])


@cache
def plant_of(name: str, tier: str) -> Plant:
    return make_plant(load_robot(name), tier)


@cache
def model_of(name: str, tier: str) -> mujoco.MjModel:
    spec = plant_of(name, tier).spec()
    spec.worldbody.add_geom(name="floor/0", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    return spec.compile()


def drive(name: str, tier: str, commands: list[tuple[float, float, float]], seconds: float) -> Track:
    """Constant commands, one body each."""
    plant = plant_of(name, tier)
    ticks = round(seconds / plant.control_dt)
    return run(plant, np.tile(np.array(commands), (ticks, 1, 1)), model_of(name, tier))


def model_faults(model: mujoco.MjModel, plant: Plant) -> list[str]:
    """What is wrong with a plant's compiled model on a floor."""
    faults = []
    if model.body(1).name != "base" or (model.body_rootid[1:] != 1).any():
        faults.append(f"the root body is {model.body(1).name!r}, or not the only one")
    if model.opt.timestep != plant.timestep:
        faults.append(f"timestep {model.opt.timestep}, stated {plant.timestep}")
    substeps = plant.control_dt / plant.timestep
    if abs(substeps - round(substeps)) > 1e-9 or substeps < 1:
        faults.append(f"control_dt {plant.control_dt} is no multiple of {plant.timestep}")
    robot = model.geom_bodyid > 0
    solid = robot & ((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    if not solid.any():
        faults.append("nothing can collide")
    if (model.geom_contype[solid] != 0).any() or (model.geom_conaffinity[solid] != 1).any():
        faults.append("a geom collides with more than the scene")
    if (model.geom_group[solid] != GROUP_ROBOT).any():
        faults.append("a geom that collides is outside GROUP_ROBOT")
    if (model.geom_group[robot & ~solid] != GROUP_ROBOT_VISUAL).any():
        faults.append("a geom to look at is outside GROUP_ROBOT_VISUAL")
    if robot.sum() + 1 != model.ngeom:
        faults.append("the plant brings geoms of the world")
    return faults


@bodies_and_tiers
def test_the_model_is_as_agreed(name: str, tier: str) -> None:
    plant, model = plant_of(name, tier), model_of(name, tier)
    assert plant.tier == tier and plant.kinematic == (tier == "T0")
    assert model_faults(model, plant) == []
    assert plant.stand(0.0, 0.0, 0.0).shape == (model.nq,)
    assert plant.controller(model, 2).command(np.zeros((2, 3)), *at_rest(plant, model, 2)).shape == (2, model.nu)


def test_model_faults_are_seen() -> None:
    plant = plant_of("carrier", "T2")
    spec = plant.spec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 1], pos=[9, 0, 0])
    spec.body("base").name = "trunk"
    spec.option.timestep = 0.001
    spec.geom("chassis").contype = 1
    spec.geom("battery").group = 0
    spec.geom("wheel_left_spoke").group = 0
    assert len(model_faults(spec.compile(), plant)) == 6


def at_rest(plant: Plant, model: mujoco.MjModel, num: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(plant.stand(0.0, 0.0, 0.0), (num, 1)), np.zeros((num, model.nv))


def moved(track: Track, height: float) -> float:
    """The largest departure of the first body from the origin at this height, in metres and radians alike."""
    departure = np.abs(track.position[:, 0] - [0.0, 0.0, height])
    return float(max(departure.max(), np.abs(track.yaw[:, 0]).max()))


@bodies_and_tiers
def test_it_stands_still(name: str, tier: str) -> None:
    height = load_robot(name).base_height
    assert moved(drive(name, tier, [(0.0, 0.0, 0.0)], 1.0), height) < 0.1
    assert moved(drive(name, tier, [(0.3, 0.0, 0.0)], 1.0), height) > 0.15


@bodies_and_tiers
def test_it_stands_where_it_is_put(name: str, tier: str) -> None:
    plant, model = plant_of(name, tier), model_of(name, tier)
    state = plant.base_state(plant.stand(1.5, -2.0, 2.5)[None], np.zeros((1, model.nv)))
    np.testing.assert_allclose(state.position[0], (1.5, -2.0, load_robot(name).base_height), atol=0.02)
    assert state.yaw[0] == pytest.approx(2.5, abs=1e-6)
    np.testing.assert_allclose(np.abs(state.quaternion[0] @ (np.cos(1.25), 0, 0, np.sin(1.25))), 1.0, atol=1e-3)
    assert not state.linear.any() and not state.angular.any()


@bodies_and_tiers
def test_it_tracks_a_command(name: str, tier: str) -> None:
    """Over the last of three seconds within 0.15 m/s and 0.2 rad/s on average; another command is further away."""
    high = np.array(load_robot(name).limits.velocity_high)
    commands = [(0.6 * high[0], 0.0, 0.0), (0.6 * high[0], 0.0, 0.5 * high[2]), (0.0, 0.6 * high[1], 0.0)]
    track = drive(name, tier, commands, 3.0)
    mean = track.twist[-round(1.0 / plant_of(name, tier).control_dt) :].mean(axis=0)
    mean[1, 1] = 0.0  # a car's middle swings out in a bend
    error = np.abs(mean - commands)
    assert (error[:, :2] < 0.15).all() and (error[:, 2] < 0.2).all()
    assert np.abs(mean[0] - [0.0, 0.0, 0.0]).max() > 0.3
    assert np.abs(mean[1, 2] - 0.0) > 0.25


@bodies_and_tiers
def test_base_velocity_is_the_derivative_of_the_position(name: str, tier: str) -> None:
    """Up to what the sway of a walking body between control ticks adds."""
    track = drive(name, tier, [(0.4, 0.0, 0.4)], 2.0)
    dt = plant_of(name, tier).control_dt
    turned = np.unwrap(track.yaw[:, 0])
    span = slice(round(0.5 / dt), None)
    assert (turned[-1] - turned[span][0]) == pytest.approx(track.twist[span][1:, 0, 2].sum() * dt, abs=0.1)
    cos, sin = np.cos(track.yaw[:, 0]), np.sin(track.yaw[:, 0])
    x, y = track.twist[:, 0, 0], track.twist[:, 0, 1]
    ahead = np.stack((cos * x - sin * y, sin * x + cos * y), axis=1)[span][1:].sum(axis=0) * dt
    gone = track.position[-1, 0, :2] - track.position[span][0, 0, :2]
    np.testing.assert_allclose(ahead, gone, atol=0.05)
    assert np.abs(np.array([x[span].sum(), y[span].sum()]) * dt - gone).max() > 0.08


def controls(name: str, tier: str, twist: np.ndarray, num_ticks: int = 5) -> np.ndarray:
    """Actuator targets (T, N, nu), or next states at T0, of fresh bodies in varied poses."""
    plant, model = plant_of(name, tier), model_of(name, tier)
    controller = plant.controller(model, len(twist))
    controller.reset(np.arange(len(twist)))
    out = []
    for tick in range(num_ticks):
        qpos, qvel = at_rest(plant, model, len(twist))
        qvel[:, :2] += 0.2 * twist[:, :2] * tick
        if plant.kinematic:
            out.append(np.concatenate(controller.integrate(twist, qpos, qvel), axis=1))
        else:
            out.append(controller.command(twist, qpos, qvel))
    return np.stack(out)


@bodies_and_tiers
def test_bodies_of_a_batch_do_not_touch_each_other(name: str, tier: str) -> None:
    twist = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 3))
    together = controls(name, tier, twist)
    for row in range(3):
        np.testing.assert_allclose(together[:, row], controls(name, tier, twist[row : row + 1])[:, 0], atol=1e-5)
    assert np.abs(together[-1, 0] - together[-1, 1]).max() > 1e-4


@bodies
def test_the_facts_are_told_in_full(name: str) -> None:
    embodiment = load_robot(name)
    facts = embodiment.descriptor()
    assert facts.shape == (len(DESCRIPTOR_NAMES),) and facts.dtype == np.float32 and np.isfinite(facts).all()
    assert embodiment.name == name and tuple(sorted(embodiment.plants)) == TIERS
    limits = embodiment.limits
    assert all(low <= 0.0 <= high for low, high in zip(limits.velocity_low, limits.velocity_high, strict=True))
    assert min(embodiment.lag) > 0.0 and limits.acceleration[0] > 0.0 and limits.acceleration[2] > 0.0
    assert (limits.acceleration[1] > 0.0) == limits.holonomic
    assert embodiment.license and embodiment.source
    assert (embodiment.camera.width, embodiment.camera.height) == (64, 16)
    assert 0.1 < embodiment.camera.position[2] + embodiment.base_height < 2.0


def test_descriptors_tell_bodies_apart() -> None:
    facts = {name: load_robot(name).descriptor() for name in ROBOTS}
    for name, own in facts.items():
        assert all(np.abs(own - other).max() > 0.01 for key, other in facts.items() if key != name)
        twin = dataclasses.replace(load_robot(name), name="twin")
        np.testing.assert_array_equal(twin.descriptor(), own)


def reach(embodiment: Embodiment, plant: Plant) -> tuple[np.ndarray, float]:
    """Half length and half width (2,) [m] that the standing body's collision geoms take up, and its mass [kg]."""
    model = plant.spec().compile()
    data = mujoco.MjData(model)
    data.qpos[:] = plant.stand(0.0, 0.0, 0.0)
    mujoco.mj_forward(model, data)
    solid = model.geom_conaffinity > 0
    centre, half = model.geom_aabb[solid, :3], model.geom_aabb[solid, 3:]
    turn = data.geom_xmat[solid].reshape(-1, 3, 3)
    middle = data.geom_xpos[solid] + np.einsum("gij,gj->gi", turn, centre)
    extent = np.einsum("gij,gj->gi", np.abs(turn), half)
    return (np.abs(middle) + extent)[:, :2].max(axis=0), float(model.body_mass.sum())


@bodies_and_tiers
def test_the_footprint_and_the_mass_are_the_body_s_own(name: str, tier: str) -> None:
    """The standing body stays within 3 cm of its footprint and fills two thirds of it; 5 % on the mass."""
    embodiment = load_robot(name)
    taken, mass = reach(embodiment, plant_of(name, tier))
    half = np.array([embodiment.footprint.length, embodiment.footprint.width]) / 2
    assert (taken < half + 0.03).all() and (taken > 0.66 * half).all()
    assert mass == pytest.approx(embodiment.mass, rel=0.05)
