"""The quadrupeds as compiled and as they walk. What every body owes its users is tested in test_contract.py."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from omnibody.robots import go1, go2, spot
from omnibody.robots.identify import Track, floor_model, identify, run
from omnibody.robots.quadruped import JOINTS, LEGS, QuadrupedConstants, QuadrupedPlant, trot_constants
from omnibody.robots.trot import PERIOD
from omnibody.training.walking.measure import flat_ground, measure, random_course, walk

BODIES = {"go2": go2, "go1": go1, "spot": spot}
STRIDE = round(PERIOD / QuadrupedPlant.control_dt)  # control steps


class Robot:
    """A plant with its constants and its model on a floor."""

    def __init__(self, name: str) -> None:
        self.constants: QuadrupedConstants = BODIES[name].CONSTANTS
        self.embodiment = BODIES[name].EMBODIMENT
        self.plant: QuadrupedPlant = BODIES[name].plant(self.embodiment)
        self.model = flat_ground(self.plant)

    def walk(self, commands: np.ndarray) -> Track:
        """Follow commands (T, N, 3) from rest."""
        return run(self.plant, commands, self.model)


@pytest.fixture(scope="module", params=list(BODIES))
def robot(request: pytest.FixtureRequest) -> Robot:
    return Robot(request.param)


def ticks(seconds: float) -> int:
    return round(seconds / QuadrupedPlant.control_dt)


def test_servos_are_as_stated(robot: Robot) -> None:
    """kp, kd and torque of every joint, by name; the compiled torque is that of the formula, within the limit."""
    model, data, wanted = robot.model, mujoco.MjData(robot.model), robot.constants
    data.qpos[:] = robot.plant.stand(0, 0, 0)
    data.qvel[6:] = 0.5
    data.ctrl[:] = data.qpos[7:] + 0.1
    data.ctrl[0] += 100.0
    mujoco.mj_forward(model, data)
    formula = wanted.kp * (data.ctrl - data.qpos[7:]) - wanted.kd * data.qvel[6:]
    limits = np.tile(wanted.torque, 4)
    np.testing.assert_allclose(data.actuator_force, np.clip(formula, -limits, limits), atol=1e-9)
    assert data.actuator_force[0] == wanted.torque[0] < formula[0]
    names = [f"{leg}_{joint}" for leg in LEGS for joint in JOINTS]
    assert [model.actuator(k).name for k in range(model.nu)] == names
    assert [model.joint(int(model.actuator_trnid[k, 0])).name for k in range(12)] == [f"{n}_joint" for n in names]


def test_only_feet_have_friction(robot: Robot) -> None:
    model = robot.model
    feet = [model.geom(leg).id for leg in LEGS]
    robot_geoms = np.flatnonzero(model.geom_bodyid > 0)
    others = np.setdiff1d(robot_geoms, feet)
    assert (model.geom_condim[feet] == 3).all() and (model.geom_condim[others] == 1).all()
    np.testing.assert_allclose(model.geom_friction[feet, 0], 0.8)
    assert (model.geom_contype[robot_geoms] == 0).all() and model.geom_contype[model.geom("floor/0").id] == 1
    assert model.nexclude == 0 and model.ncam == 0 and model.nlight == 0 and model.nsensor == 0 and model.nkey == 0


def test_another_order_of_joints_is_refused(robot: Robot) -> None:
    spec = robot.plant.spec()
    trot_constants(spec.compile(), 0.3, robot.embodiment.limits, 0.02)
    spec = robot.plant.spec()
    spec.joint("FL_hip_joint").name, spec.joint("FR_hip_joint").name = "other", "FL_hip_joint"
    for name in ("FL_hip", "FR_hip"):
        spec.actuator(name).target = "FL_hip_joint" if name == "FL_hip" else "other"
    with pytest.raises(ValueError, match="wanted a free joint and then"):
        trot_constants(spec.compile(), 0.3, robot.embodiment.limits, 0.02)


def test_it_stands_truly_still(robot: Robot) -> None:
    still = robot.walk(np.zeros((ticks(3.0), 1, 3)))
    assert np.abs(still.twist[:, 0]).max() < 0.1
    assert np.abs(still.twist[ticks(1.0) :, 0]).max() < 0.005
    assert np.abs(still.position[-1, 0, :2]).max() < 0.03 and abs(still.yaw[-1, 0]) < 0.01
    slow = robot.walk(np.tile((0.0, 0.1, 0.0), (ticks(3.0), 1, 1)))  # negative control: the slowest of walks
    assert np.abs(slow.twist[ticks(0.3) :, 0]).max() > 0.1


def test_it_stops_and_starts_at_any_phase(robot: Robot) -> None:
    """One robot a control step of the stride: each is told to stop there, stands still 2 s later, and walks on."""
    num, begin = STRIDE, ticks(1.5)
    commands = np.tile((0.6, 0.1, -0.4), (begin + ticks(6.0), num, 1))
    for k in range(num):
        commands[begin + k : begin + k + ticks(4.0), k] = 0.0
    track = robot.walk(commands)
    moving = np.array([track.twist[begin + k - STRIDE : begin + k, k] for k in range(num)])
    still = np.array([track.twist[begin + k + ticks(2.0) : begin + k + ticks(4.0), k] for k in range(num)])
    assert np.abs(still[..., :2]).max() < 0.1 and np.abs(still[..., 2]).max() < 0.1
    again = track.twist[-STRIDE:].mean(axis=0)
    np.testing.assert_allclose(again, commands[-1], atol=0.15)
    assert np.abs(moving).max() > 0.3  # negative control: before it was told to stop


def speed_errors(robot: Robot, follow: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Error (N, 3) of the mean twist of the last 5 strides of 5 s, when commands (N, 3) pass through ``follow``."""
    wanted = np.array([(0.8, 0, 0), (-0.4, 0, 0), (0, 0.25, 0), (0, 0, 0.7), (0.5, -0.2, 0.5)])
    track = robot.walk(np.tile(follow(wanted), (ticks(5.0), 1, 1)))
    return np.abs(track.twist[-5 * STRIDE :].mean(axis=0) - wanted)


def test_it_follows_a_command(robot: Robot) -> None:
    assert speed_errors(robot, lambda wanted: wanted).max() < 0.09
    for axis in range(3):  # negative control: each component in turn is held back
        keep = np.ones(3)
        keep[axis] = 0.0
        assert speed_errors(robot, lambda wanted, keep=keep: wanted * keep)[:, axis].max() > 0.2


def test_base_height_and_mass_are_the_model_s(robot: Robot) -> None:
    assert robot.plant.stand(0, 0, 0)[2] == pytest.approx(robot.embodiment.base_height, abs=0.005)
    assert robot.model.body("base").subtreemass[0] == pytest.approx(robot.embodiment.mass, abs=0.05)
    walking = robot.walk(np.tile((0.5, 0.0, 0.0), (ticks(3.0), 1, 1)))
    assert walking.position[ticks(1.0) :, 0, 2].mean() == pytest.approx(robot.embodiment.base_height, abs=0.02)


def test_falls_are_noticed(robot: Robot) -> None:
    """Half of those that are pushed by 3 m/s on ice fall at least, and none of those left alone on a floor."""
    course = random_course(robot.embodiment, robot.plant.control_dt, 4, 6.0, 3.0, np.random.default_rng(0))
    assert np.isfinite(walk(robot.plant, flat_ground(robot.plant, 0.1), course).fall).sum() >= 2
    calm = random_course(robot.embodiment, robot.plant.control_dt, 4, 6.0, 0.0, np.random.default_rng(0))
    assert not np.isfinite(walk(robot.plant, robot.model, calm).fall).any()


@pytest.mark.slow
def test_the_stated_lag_is_the_identified_one(robot: Robot) -> None:
    lag = identify(robot.embodiment, robot.plant).lag
    np.testing.assert_allclose(robot.embodiment.lag, lag, atol=0.04)


@pytest.mark.slow
def test_the_bar(robot: Robot) -> None:
    """No fall in 95 of 100 runs of 60 s under 0.5 m/s pushes, 0.15 m/s and 0.2 rad/s; not so when pushed by 2 m/s."""
    assert measure(robot.embodiment, runs=100, seconds=60.0, push=0.5, seed=1)["passed"]
    assert not measure(robot.embodiment, runs=20, seconds=20.0, push=2.0, seed=1)["passed"]


def test_floor_models_agree(robot: Robot) -> None:
    """The two ways to put a body on a floor give the same physics."""
    other = floor_model(robot.plant)
    assert other.nv == robot.model.nv and (other.body_mass == robot.model.body_mass).all()
