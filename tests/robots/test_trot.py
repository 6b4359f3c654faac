"""The trot's geometry, force balance and state: closed forms, finite differences, invariances; no physics stepped."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from omnibody.robots import go1, go2, spot
from omnibody.robots.leg import LegGeometry, forward_kinematics, inverse_kinematics, joint_speeds, read_pose, solve
from omnibody.robots.quadruped import QuadrupedPlant
from omnibody.robots.trot import GRAVITY, LEGS, Trot, find_feet, stance_forces, trot
from omnibody.robots.trot_state import Scratch, TrotConstants

BODIES = {"go2": go2, "go1": go1, "spot": spot}


class Robot:
    """A plant with its compiled model and facts."""

    def __init__(self, name: str) -> None:
        self.plant: QuadrupedPlant = BODIES[name].plant(BODIES[name].EMBODIMENT)
        self.model = self.plant.spec().compile()
        self.facts: TrotConstants = self.plant.controller(self.model, 1).constants
        self.legs: LegGeometry = self.facts.legs

    def states(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Random states near standing, (num, 19) and (num, 18)."""
        qpos = np.array([self.plant.stand(*rng.uniform(-3, 3, 3)) for _ in range(num)])
        qpos[:, 3:7] += 0.05 * rng.standard_normal((num, 4))
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
        qpos[:, 2] += 0.01 * rng.standard_normal(num)
        qpos[:, 7:] += 0.1 * rng.standard_normal((num, 12))
        return qpos, 0.3 * rng.standard_normal((num, 18))


@pytest.fixture(scope="module", params=list(BODIES))
def robot(request: pytest.FixtureRequest) -> Robot:
    return Robot(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_angles(rng: np.random.Generator) -> tuple[float, float, float]:
    return rng.uniform(-0.6, 0.6), rng.uniform(0.2, 1.3), rng.uniform(-2.4, -1.0)


def test_inverse_kinematics_undoes_forward(robot: Robot, rng: np.random.Generator) -> None:
    jacobian = np.empty((3, 3))
    for _ in range(50):
        angles = random_angles(rng)
        for leg in range(4):
            foot = forward_kinematics(robot.legs, leg, angles, jacobian)
            assert inverse_kinematics(robot.legs, leg, foot) == pytest.approx(angles, abs=1e-9)
            wrong = inverse_kinematics(robot.legs, leg ^ 1, foot)  # negative control: the other side's leg
            assert wrong != pytest.approx(angles, abs=1e-3)


def test_foot_is_where_mujoco_has_it(robot: Robot, rng: np.random.Generator) -> None:
    data, jacobian, work = mujoco.MjData(robot.model), np.empty((3, 3)), scratch()
    qpos, qvel = robot.states(rng, 10)
    mirrored = robot.legs._replace(upper_bend=robot.legs.upper_bend + 0.05)
    for k in range(10):
        data.qpos[:] = qpos[k]
        mujoco.mj_kinematics(robot.model, data)
        find_feet(qpos[k], read_pose(qpos[k], qvel[k]), robot.legs, work)
        truth = np.array([data.geom(leg).xpos for leg in LEGS])
        np.testing.assert_allclose(work.feet, truth, atol=1e-9)
        bent = forward_kinematics(mirrored, 0, tuple(qpos[k, 7:10]), jacobian)  # negative control: another bend
        assert np.abs(np.array(bent) - work.feet_body[0]).max() > 1e-3


def test_jacobian_is_the_derivative(robot: Robot, rng: np.random.Generator) -> None:
    jacobian, scrap, step = np.empty((3, 3)), np.empty((3, 3)), 1e-6
    for _ in range(20):
        angles = np.array(random_angles(rng))
        for leg in range(4):
            forward_kinematics(robot.legs, leg, tuple(angles), jacobian)
            sides = [
                [forward_kinematics(robot.legs, leg, tuple(angles + sign * step * axis), scrap) for axis in np.eye(3)]
                for sign in (1, -1)
            ]
            difference = (np.array(sides[0]) - np.array(sides[1])).T / (2 * step)
            np.testing.assert_allclose(jacobian, difference, atol=1e-8)
            forward_kinematics(robot.legs, leg ^ 1, tuple(angles), scrap)
            assert np.abs(scrap - difference).max() > 1e-2  # negative control: the other side's leg


def test_joint_speeds_invert_the_jacobian(robot: Robot, rng: np.random.Generator) -> None:
    jacobian = np.empty((3, 3))
    for _ in range(50):
        forward_kinematics(robot.legs, 2, random_angles(rng), jacobian)
        velocity = rng.uniform(-0.3, 0.3, 3)
        speeds = joint_speeds(jacobian, tuple(velocity), 1e3)
        np.testing.assert_allclose(jacobian @ speeds, velocity, atol=1e-9)
        assert np.abs(joint_speeds(jacobian, tuple(100 * velocity), 2.0)).max() <= 2.0


def test_solve_agrees_with_numpy(rng: np.random.Generator) -> None:
    root, vector = rng.standard_normal((6, 6)), rng.standard_normal(6)
    matrix = root @ root.T + 0.1 * np.eye(6)
    answer = vector.copy()
    solve(matrix.copy(), answer)
    np.testing.assert_allclose(answer, np.linalg.solve(matrix, vector), atol=1e-9)


def scratch() -> Scratch:
    four = np.zeros((4, 4, 3))
    return Scratch(four[0], four[1], np.zeros((4, 3, 3)), four[2], four[3], np.zeros((6, 6)), np.zeros(6))


def test_standing_feet_carry_the_trunk(robot: Robot) -> None:
    """At rest, with all feet down, the forces balance gravity and turn nothing; on a lifted foot there is none."""
    controller, work = Trot(robot.facts, 1), scratch()
    qpos, qvel = robot.plant.stand(1.0, 2.0, 0.7), np.zeros(18)
    qpos[2] = robot.facts.height
    controller.command(np.zeros((1, 3)), qpos[None], qvel[None])
    pose = read_pose(qpos, qvel)
    find_feet(qpos, pose, robot.legs, work)
    weight = robot.facts.mass * GRAVITY
    for down in (np.array([1, 1, 1, 1], bool), np.array([1, 0, 0, 1], bool)):
        controller.state.standing[0] = down
        stance_forces(0, pose, 0.0, 0.0, int(down.sum()), robot.facts, controller.state, work)
        com = qpos[:3] + np.array([[*pose.row0], [*pose.row1], [*pose.row2]]) @ robot.facts.com
        np.testing.assert_allclose(work.force.sum(axis=0), (0, 0, weight), atol=2e-3 * weight)
        torque = np.cross(work.feet - com, work.force).sum(axis=0)
        assert np.abs(torque).max() < 0.01 * weight * robot.facts.height
        assert (work.force[~down] == 0).all()


def test_forces_stay_in_the_friction_cone(robot: Robot, rng: np.random.Generator) -> None:
    controller, work = Trot(robot.facts, 1), scratch()
    for qpos, qvel in zip(*robot.states(rng, 30), strict=True):
        controller.reset(np.array([0]))
        controller.command(np.zeros((1, 3)), qpos[None], qvel[None])
        find_feet(qpos, read_pose(qpos, qvel), robot.legs, work)
        stance_forces(0, read_pose(qpos, qvel), 0.1, 0.0, 4, robot.facts, controller.state, work)
        horizontal, load = np.hypot(work.force[:, 0], work.force[:, 1]), work.force[:, 2]
        assert (load >= 0).all() and (horizontal <= robot.facts.friction * load + 1e-9).all()
        loose = robot.facts._replace(friction=1e3)
        stance_forces(0, read_pose(qpos, qvel), 0.1, 0.0, 4, loose, controller.state, work)
        if (np.hypot(work.force[:, 0], work.force[:, 1]) > robot.facts.friction * work.force[:, 2] + 1e-6).any():
            return  # negative control met: without the bound some state leaves the cone
    pytest.fail("no random state asks for more than the cone allows: the test proves nothing")


def drive(robot: Robot, qpos: np.ndarray, qvel: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Targets (T, N, 12) for states (T, N, ...) and one twist (N, 3) throughout."""
    controller = Trot(robot.facts, qpos.shape[1])
    return np.array([controller.command(twist, q, v) for q, v in zip(qpos, qvel, strict=True)])


def turned(qpos: np.ndarray, qvel: np.ndarray, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """The same states in a world turned by ``yaw`` and moved."""
    qpos, qvel, c, s = qpos.copy(), qvel.copy(), np.cos(yaw), np.sin(yaw)
    for plane in (qpos, qvel):
        plane[..., 0], plane[..., 1] = c * plane[..., 0] - s * plane[..., 1], s * plane[..., 0] + c * plane[..., 1]
    qpos[..., :3] += (5.0, -2.0, 0.0)
    w, z = np.cos(yaw / 2), np.sin(yaw / 2)
    qw, qx, qy, qz = np.moveaxis(qpos[..., 3:7].copy(), -1, 0)
    qpos[..., 3:7] = np.stack([w * qw - z * qz, w * qx - z * qy, w * qy + z * qx, w * qz + z * qw], -1)
    return qpos, qvel


def wandering_states(robot: Robot, rng: np.random.Generator, steps: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random sequences of states, (steps, num, ...)."""
    qpos, qvel = robot.states(rng, num)
    drift = np.cumsum(rng.standard_normal((steps, num, 19)) * 0.003, axis=0)
    path = qpos + drift
    path[..., 3:7] /= np.linalg.norm(path[..., 3:7], axis=-1, keepdims=True)
    return path, np.repeat(qvel[None], steps, axis=0)


def test_a_turned_world_changes_nothing(robot: Robot, rng: np.random.Generator) -> None:
    qpos, qvel = wandering_states(robot, rng, 40, 3)
    twist = np.array([[0.6, 0.1, 0.4], [0.0, 0.0, 0.0], [-0.3, -0.2, -0.7]])
    plain = drive(robot, qpos, qvel, twist)
    for yaw in (0.5, 2.9):
        np.testing.assert_allclose(drive(robot, *turned(qpos, qvel, yaw), twist), plain, atol=1e-7)
    wrong, _ = turned(qpos, qvel, 0.5)  # negative control: the velocity is not turned along
    assert np.abs(drive(robot, wrong, qvel, twist) - plain).max() > 1e-3


def test_rows_do_not_see_each_other(robot: Robot, rng: np.random.Generator) -> None:
    qpos, qvel = wandering_states(robot, rng, 40, 4)
    twist = rng.uniform(-0.3, 0.3, (4, 3))
    together = drive(robot, qpos, qvel, twist)
    alone = [drive(robot, qpos[:, [k]], qvel[:, [k]], twist[[k]])[:, 0] for k in range(4)]
    assert (together == np.stack(alone, axis=1)).all()
    order = [2, 0, 3, 1]
    assert (drive(robot, qpos[:, order], qvel[:, order], twist[order]) == together[:, order]).all()
    assert (together[:, order] != together).any()  # negative control


def test_reset_forgets_one_row(robot: Robot, rng: np.random.Generator) -> None:
    qpos, qvel = wandering_states(robot, rng, 30, 2)
    twist = np.tile((0.5, 0.1, -0.4), (2, 1))
    through = drive(robot, qpos, qvel, twist)
    controller = Trot(robot.facts, 2)
    for k in range(15):
        controller.command(twist, qpos[k], qvel[k])
    controller.reset(np.array([1]))
    again = np.array([controller.command(twist, qpos[k], qvel[k]) for k in range(15, 30)])
    fresh = drive(robot, qpos[15:], qvel[15:], twist)
    assert (again[:, 0] == through[15:, 0]).all() and (again[:, 1] == fresh[:, 1]).all()
    assert (again[:, 1] != through[15:, 1]).any()  # negative control


def test_commands_are_held_within_the_limits(robot: Robot) -> None:
    qpos, qvel = robot.plant.stand(0, 0, 0)[None], np.zeros((1, 18))
    controller = Trot(robot.facts, 1)
    step = robot.facts.acceleration * robot.facts.dt
    controller.command(np.array([[9.0, -9.0, 9.0]]), qpos, qvel)
    np.testing.assert_allclose(controller.state.twist[0], step * (1, -1, 1))
    for _ in range(100):
        controller.command(np.array([[9.0, -9.0, 9.0]]), qpos, qvel)
    expected = robot.facts.high[0], robot.facts.low[1], robot.facts.high[2]
    np.testing.assert_allclose(controller.state.twist[0], expected)


def test_wrong_shapes_are_refused(robot: Robot) -> None:
    qpos, qvel = robot.plant.stand(0, 0, 0)[None], np.zeros((1, 18))
    with pytest.raises(ValueError, match="wanted 2 rows"):
        Trot(robot.facts, 2).command(np.zeros((2, 3)), qpos, qvel)


def test_the_gil_is_free() -> None:
    assert trot.targetoptions["nogil"]


SCRIPT = """
import json, sys
import numpy as np
from omnibody.robots import go2
plant = go2.plant(go2.EMBODIMENT)
controller = plant.controller(plant.spec().compile(), 2)
rng = np.random.default_rng(0)
rest = plant.stand(0.0, 0.0, 0.3)
out = []
for _ in range(30):
    qpos = np.tile(rest, (2, 1))
    qpos[:, 7:] += 0.05 * rng.standard_normal((2, 12))
    out.append(controller.command(np.tile((0.5, 0.1, 0.3), (2, 1)), qpos, 0.1 * rng.standard_normal((2, 18))).tolist())
json.dump(out, sys.stdout)
"""


def test_compiled_code_is_this_code() -> None:
    """The same script with and without numba; a difference means a stale cache (see ``leg.py``)."""
    outputs = []
    for disable in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": disable}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(np.array(json.loads(done.stdout)))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-9)
    assert np.ptp(outputs[0], axis=0).max() > 0.05  # negative control: the targets move
