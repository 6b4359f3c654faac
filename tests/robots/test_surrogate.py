"""T0 and T1: closed-form responses, one motion for both tiers, obstacles that only T1 obeys."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from omnibody.robots.ackermann import EMBODIMENT as CAR
from omnibody.robots.carrier import EMBODIMENT as CARRIER
from omnibody.robots.identify import floor_model, identify, run
from omnibody.robots.omni import EMBODIMENT as OMNI
from omnibody.robots.spec import Embodiment
from omnibody.robots.surrogate import KinematicPlant, ServoPlant

PLANTS = [KinematicPlant, ServoPlant]
LAG = (0.3, 0.5, 0.2)


def quick(embodiment: Embodiment, lag: tuple[float, float, float] = LAG) -> Embodiment:
    """The body with this lag and accelerations that never bind."""
    limits = dataclasses.replace(embodiment.limits, acceleration=(50.0, 50.0, 50.0))
    return dataclasses.replace(embodiment, lag=lag, limits=limits)


def constant(command: tuple[float, float, float], seconds: float, dt: float = 0.02) -> np.ndarray:
    return np.tile(np.array(command), (round(seconds / dt), 1, 1))


def random_commands(seed: int, seconds: float = 4.0, num: int = 4) -> np.ndarray:
    """New uniform commands every half second, (T, num, 3)."""
    draws = np.random.default_rng(seed).uniform(-1.0, 1.0, (round(seconds / 0.5), num, 3))
    return np.repeat(draws, 25, axis=0)


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_step_response_is_the_exponential_of_the_lag(plant: type, axis: int) -> None:
    command = np.zeros(3)
    command[axis] = 0.5
    twist = run(plant(quick(OMNI)), constant(tuple(command), 1.0)).twist[:, 0]
    time = 0.02 * np.arange(1, len(twist) + 1)
    expected = {lag: 0.5 * (1.0 - np.exp(-time / lag)) for lag in (LAG[axis], 1.2 * LAG[axis])}
    np.testing.assert_allclose(twist[:, axis], expected[LAG[axis]], atol=2e-3)
    assert np.abs(np.delete(twist, axis, axis=1)).max() < 2e-3
    assert np.abs(twist[:, axis] - expected[1.2 * LAG[axis]]).max() > 0.02


@pytest.mark.parametrize("plant", PLANTS)
def test_acceleration_limit_makes_a_ramp(plant: type) -> None:
    speed = run(plant(CARRIER), constant((1.0, 0.0, 0.0), 0.4)).twist[:, 0, 0]
    np.testing.assert_allclose(np.diff(speed), 1.5 * 0.02, atol=1e-4)
    assert np.diff(run(plant(quick(CARRIER)), constant((1.0, 0.0, 0.0), 0.4)).twist[:, 0, 0])[0] > 2 * 1.5 * 0.02


@pytest.mark.parametrize("embodiment", [CARRIER, OMNI, CAR], ids=lambda e: e.name)
def test_both_tiers_move_alike(embodiment: Embodiment) -> None:
    commands = random_commands(seed=1)
    t0, t1 = (run(plant(embodiment), commands) for plant in PLANTS)
    np.testing.assert_allclose(t0.twist, t1.twist, atol=0.01)
    assert np.linalg.norm(t0.position - t1.position, axis=-1).max() < 0.03
    slower = run(KinematicPlant(dataclasses.replace(embodiment, lag=(0.4, 0.4, 0.4))), commands)
    assert np.linalg.norm(slower.position - t1.position, axis=-1).max() > 0.06


@pytest.mark.parametrize("plant", PLANTS)
def test_constant_twist_drives_a_circle(plant: type) -> None:
    track = run(plant(CARRIER), constant((0.6, 0.0, 0.8), 10.0))
    lap = track.position[100:, 0, :2]  # the transient is over
    heading = track.yaw[100:, 0]
    centre = lap + 0.75 * np.stack((-np.sin(heading), np.cos(heading)), axis=1)
    assert np.ptp(centre, axis=0).max() < 0.02
    wrong = lap + 0.9 * np.stack((-np.sin(heading), np.cos(heading)), axis=1)
    assert np.ptp(wrong, axis=0).max() > 0.2


@pytest.mark.parametrize("plant", PLANTS)
def test_base_state_velocity_is_the_derivative_of_its_pose(plant: type) -> None:
    track = run(plant(OMNI), random_commands(seed=2))
    moved = np.diff(track.position[..., :2], axis=0) / 0.02
    yaw = track.yaw[1:]
    mean = 0.5 * (track.twist[1:] + track.twist[:-1])
    cos, sin = np.cos(yaw), np.sin(yaw)
    heading = np.stack((cos * moved[..., 0] + sin * moved[..., 1], cos * moved[..., 1] - sin * moved[..., 0]), axis=-1)
    np.testing.assert_allclose(heading, mean[..., :2], atol=0.04)
    assert np.abs(moved - mean[..., :2]).max() > 0.4  # the world frame is another


@pytest.mark.parametrize("plant", PLANTS)
def test_a_car_turns_about_its_rear_axle(plant: type) -> None:
    twist = run(plant(CAR), constant((0.8, 0.0, 0.9), 2.0)).twist[-1, 0]
    assert twist[2] == pytest.approx(0.9, abs=0.01)
    assert twist[1] + twist[2] * CAR.limits.turn_centre == pytest.approx(0.0, abs=0.01)
    assert abs(twist[1]) > 0.1


@pytest.mark.parametrize("plant", PLANTS)
def test_turning_radius_holds_during_transients(plant: type) -> None:
    commands = random_commands(seed=3, seconds=6.0)
    twist = run(plant(CAR), commands).twist
    slack = 0.02
    assert (np.abs(twist[..., 2]) * CAR.limits.min_turning_radius <= np.abs(twist[..., 0]) + slack).all()
    twist = run(plant(CARRIER), commands).twist
    assert (np.abs(twist[..., 2]) * CAR.limits.min_turning_radius > np.abs(twist[..., 0]) + slack).any()


def walled(plant: KinematicPlant | ServoPlant, distance: float) -> mujoco.MjModel:
    spec = plant.spec()
    scene = spec.worldbody.add_body(name="scene", pos=[distance + 0.1, 0, 0.5])
    scene.add_geom(name="wall/0", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 2.0, 0.5])
    return spec.compile()


@pytest.mark.parametrize("distance, reached", [(1.0, 0.7), (5.0, 2.0)])
def test_a_wall_stops_t1_and_not_t0(distance: float, reached: float) -> None:
    commands = constant((1.0, 0.0, 0.0), 3.0)
    model = walled(ServoPlant(CARRIER), distance)
    held = run(ServoPlant(CARRIER), commands, model).position[-1, 0, 0]
    through = run(KinematicPlant(CARRIER), commands).position[-1, 0, 0]
    assert through > 2.0
    assert held == pytest.approx(reached, abs=0.02) if distance < 2.0 else held > reached


@pytest.mark.parametrize("distance, contacts", [(0.2, True), (0.4, False)])
def test_t0_feels_a_wall(distance: float, contacts: bool) -> None:
    plant = KinematicPlant(CARRIER)
    model = walled(plant, distance)
    data = mujoco.MjData(model)
    data.qpos[:] = plant.stand(0.0, 0.0, 0.0)
    mujoco.mj_forward(model, data)
    assert (data.ncon > 0) is contacts


def test_the_box_hovers_over_the_floor() -> None:
    plant = ServoPlant(CARRIER)
    model = floor_model(plant)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    box = model.geom("footprint")
    assert data.geom("footprint").xpos[2] + box.size[2] == pytest.approx(CARRIER.footprint.height)
    np.testing.assert_allclose(2 * box.size[:2], (CARRIER.footprint.length, CARRIER.footprint.width))


def test_integrate_leaves_its_inputs_alone_and_rows_apart() -> None:
    controller = KinematicPlant(OMNI).controller(floor_model(KinematicPlant(OMNI)), 5)
    rng = np.random.default_rng(4)
    arrays = [rng.uniform(-1, 1, (5, 3)) for _ in range(3)]
    kept = [a.copy() for a in arrays]
    qpos, qvel = controller.integrate(*arrays)
    assert all((a == b).all() for a, b in zip(arrays, kept, strict=True))
    order = rng.permutation(5)
    again = controller.integrate(*(a[order] for a in arrays))
    np.testing.assert_array_equal(again[0], qpos[order])
    np.testing.assert_array_equal(again[1], qvel[order])
    assert not np.array_equal(again[0], qpos)


def test_identification_finds_a_known_lag() -> None:
    found = identify(dataclasses.replace(OMNI, lag=(0.1, 0.1, 0.1)), ServoPlant(dataclasses.replace(OMNI, lag=LAG)))
    np.testing.assert_allclose(found.lag, LAG, rtol=0.02)
    assert max(found.error) < 2e-3
