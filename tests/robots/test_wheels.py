"""T2 of the wheeled bodies: slip, torque, steering geometry, and how well T0 and T1 imitate them."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from omnibody.robots import ackermann, carrier, omni
from omnibody.robots.identify import Track, floor_model, identify, imitate, run, step_commands
from omnibody.robots.plant import Plant
from omnibody.robots.spec import Embodiment
from omnibody.robots.table import make_plant
from omnibody.robots.wheels import TwistRamp, joint_columns

BODIES = {module.EMBODIMENT.name: module.EMBODIMENT for module in (carrier, omni, ackermann)}
TIERS = ("T0", "T1", "T2")


def constant(command: tuple[float, float, float], seconds: float) -> np.ndarray:
    return np.tile(np.array(command), (round(seconds / 0.02), 1, 1))


def drive(embodiment: Embodiment, tier: str, command: tuple[float, float, float], seconds: float = 2.0) -> Track:
    return run(make_plant(embodiment, tier), constant(command, seconds))


@pytest.mark.parametrize("friction, slips", [(0.8, False), (0.02, True)])
def test_wheels_slip_on_ice(friction: float, slips: bool) -> None:
    plant = make_plant(carrier.EMBODIMENT, "T2")
    model = floor_model(plant)
    for wheel in carrier.WHEELS:
        model.geom(wheel).friction[0] = friction
    track = run(plant, constant((1.0, 0.0, 0.0), 1.5), model)
    rolled = track.qpos[-1, 0, joint_columns(model, carrier.WHEELS)[0]].mean() * carrier.RADIUS
    moved = track.position[-1, 0, 0]
    assert (rolled > 2.0 * moved) == slips
    assert (rolled == pytest.approx(moved, rel=0.02)) != slips


@pytest.mark.parametrize("load, keeps_up", [(1.0, True), (6.0, False)])
def test_motors_are_weak_against_a_heavy_load(load: float, keeps_up: bool) -> None:
    plant = make_plant(carrier.EMBODIMENT, "T2")
    model = floor_model(plant)
    model.body("base").mass *= load
    model.body("base").inertia *= load
    speed = run(plant, constant((1.0, 0.0, 0.0), 0.8), model).twist[-1, 0, 0]
    assert (speed > 0.95) == keeps_up


@pytest.mark.parametrize("tier", TIERS)
def test_a_car_never_turns_in_place(tier: str) -> None:
    assert abs(drive(ackermann.EMBODIMENT, tier, (0.0, 0.0, 1.0)).yaw[-1, 0]) < 1e-3
    assert drive(carrier.EMBODIMENT, tier, (0.0, 0.0, 1.0)).yaw[-1, 0] > 1.5


def test_a_car_keeps_its_turning_radius() -> None:
    commands = np.repeat(np.random.default_rng(0).uniform(-1, 1, (8, 4, 3)), 40, axis=0)
    radius = ackermann.EMBODIMENT.limits.min_turning_radius

    def tightest(embodiment: Embodiment) -> float:
        twist = run(make_plant(embodiment, "T2"), commands).twist
        at_speed = np.abs(twist[..., 0]) > 0.15
        return float((np.abs(twist[..., 0]) / np.maximum(np.abs(twist[..., 2]), 1e-9))[at_speed].min())

    assert tightest(ackermann.EMBODIMENT) > 0.9 * radius
    assert tightest(carrier.EMBODIMENT) < 0.5 * radius


@pytest.mark.parametrize("curvature", [-1.5, -0.3, 0.8, 1.6])
def test_the_front_wheels_roll_about_one_point_on_the_rear_axle(curvature: float) -> None:
    plant = make_plant(ackermann.EMBODIMENT, "T2")
    controller = plant.controller(floor_model(plant), 1)
    qpos = plant.stand(0.0, 0.0, 0.0)[None]
    for _ in range(100):  # until the ramp has arrived
        left, right = controller.command(np.array([[0.5, 0.0, 0.5 * curvature]]), qpos, np.zeros((1, 12)))[0, :2]
    # The normal of a wheel at (L, y) with angle d meets the rear axle at y + L / tan(d).
    meets = ackermann.SIDES + ackermann.WHEELBASE / np.tan([left, right])
    np.testing.assert_allclose(meets, 1.0 / curvature, rtol=1e-6)
    parallel = ackermann.SIDES + ackermann.WHEELBASE / np.tan([left, left])
    assert np.ptp(parallel) > 0.1


@pytest.mark.parametrize("tier", TIERS)
def test_only_the_omni_base_drives_sideways(tier: str) -> None:
    moved = drive(omni.EMBODIMENT, tier, (0.0, 0.5, 0.0)).position[-1, 0]
    assert moved[1] > 0.7 and abs(moved[0]) < 0.03
    for still in (carrier.EMBODIMENT, ackermann.EMBODIMENT):
        assert np.abs(drive(still, tier, (0.0, 0.5, 0.0)).position[-1, 0, :2]).max() < 0.01


def test_a_swerve_module_turns_the_short_way() -> None:
    plant = make_plant(omni.EMBODIMENT, "T2")
    controller = plant.controller(floor_model(plant), 2)
    qpos = np.repeat(plant.stand(0.0, 0.0, 0.0)[None], 2, axis=0)
    for _ in range(50):
        control = controller.command(np.array([[-0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]), qpos, np.zeros((2, 14)))
    np.testing.assert_allclose(control[0, :4], 0.0, atol=1e-9)
    np.testing.assert_allclose(control[0, 4:], -0.5 / omni.RADIUS)
    np.testing.assert_allclose(np.abs(control[1, :4]), np.pi / 2, atol=1e-6)
    np.testing.assert_allclose(control[1, 4:], 0.0, atol=1e-9)


def outside(embodiment: Embodiment, plant: Plant) -> float:
    """How far the standing body's collision geoms stick out of its footprint [m]; the floor and up to its height."""
    model = floor_model(plant)
    data = mujoco.MjData(model)
    data.qpos[:] = plant.stand(0.0, 0.0, 0.0)
    mujoco.mj_forward(model, data)
    half = np.array([embodiment.footprint.length, embodiment.footprint.width]) / 2
    worst = 0.0
    for geom in np.flatnonzero(model.geom_conaffinity & (model.geom_bodyid > 0)):
        centre, reach = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        turn = data.geom_xmat[geom].reshape(3, 3)
        middle, extent = data.geom_xpos[geom] + turn @ centre, np.abs(turn) @ reach
        over = middle[2] + extent[2] - embodiment.footprint.height
        worst = max(worst, over, (np.abs(middle[:2]) + extent[:2] - half).max())
    return worst


@pytest.mark.parametrize("name", BODIES)
def test_the_footprint_holds_the_body_and_its_mass(name: str) -> None:
    embodiment = BODIES[name]
    plant = make_plant(embodiment, "T2")
    assert -0.03 < outside(embodiment, plant) < 1e-6
    smaller = dataclasses.replace(embodiment.footprint, width=embodiment.footprint.width - 0.15)
    assert outside(dataclasses.replace(embodiment, footprint=smaller), plant) > 0.01
    assert floor_model(plant).body_mass.sum() == pytest.approx(embodiment.mass, rel=0.01)


@pytest.mark.parametrize("name", BODIES)
def test_the_stated_lag_is_the_identified_one(name: str) -> None:
    embodiment = BODIES[name]
    plant = make_plant(embodiment, "T2")
    found = identify(embodiment, plant)
    np.testing.assert_allclose(embodiment.lag, found.lag, rtol=0.05)
    assert max(found.error) < 0.03
    # Ten times the lag is no imitation.
    commands = step_commands(embodiment, plant.control_dt)
    slow = imitate(dataclasses.replace(embodiment, lag=(0.8, 0.8, 0.8)), commands, plant.control_dt)
    assert np.sqrt(np.mean((slow - run(plant, commands).twist) ** 2)) > 0.06


@pytest.mark.parametrize("name", BODIES)
def test_t1_imitates_t2(name: str) -> None:
    """RMS twist difference on random commands below 0.05, a tenth of what not moving at all would differ by."""
    embodiment = BODIES[name]
    commands = np.repeat(np.random.default_rng(5).uniform(-1, 1, (8, 4, 3)), 40, axis=0)
    t1, t2 = (run(make_plant(embodiment, tier), commands).twist for tier in ("T1", "T2"))
    assert np.sqrt(np.mean((t1 - t2) ** 2)) < 0.05
    assert np.sqrt(np.mean(t2**2)) > 0.2


def test_the_ramp_keeps_the_acceleration_and_forgets_reset_rows() -> None:
    ramp = TwistRamp(carrier.EMBODIMENT.limits, 2, 0.02)
    first = ramp.step(np.full((2, 3), 5.0)).copy()
    np.testing.assert_allclose(first, np.tile([0.03, 0.0, 0.06], (2, 1)))
    for _ in range(200):
        last = ramp.step(np.full((2, 3), 5.0))
    np.testing.assert_array_equal(last, np.tile([1.0, 0.0, 1.0], (2, 1)))
    ramp.reset(np.array([1]))
    after = ramp.step(np.full((2, 3), 5.0))
    np.testing.assert_allclose(after[1], first[1])
    np.testing.assert_array_equal(after[0], last[0])


@pytest.mark.parametrize("name", BODIES)
def test_only_the_floor_is_touched_when_standing(name: str) -> None:
    plant = make_plant(BODIES[name], "T2")
    model = floor_model(plant)
    data = mujoco.MjData(model)
    data.qpos[:] = plant.stand(0.3, -0.2, 1.0)
    mujoco.mj_step(model, data, 100)
    floor = model.geom("floor/0").id
    assert data.ncon > 2
    assert all(floor in contact.geom for contact in data.contact)
    data.qpos[2] += 0.1
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
