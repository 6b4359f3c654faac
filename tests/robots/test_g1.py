"""The G1: derived constants on the compiled model, left-right symmetry, batching, walking and standing still."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from omnibody.robots.g1 import CHECKPOINT, EMBODIMENT, FEET, FOOT_RADIUS, MOTORS, STAND, G1Plant
from omnibody.robots.g1_walk import (
    ACTION_SCALE,
    MIRROR_LEG,
    MIRROR_LEG_INDEX,
    MIRROR_OBS,
    MIRROR_OBS_INDEX,
    MIRROR_TWIST,
    G1Walk,
    ResidualNetwork,
    gait_pose,
)
from omnibody.robots.plant import GROUP_ROBOT, GROUP_ROBOT_VISUAL
from omnibody.training.walking.measure import flat_ground, measure

PLANT = G1Plant(EMBODIMENT)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return flat_ground(PLANT)


def walk_of(num: int) -> G1Walk:
    return G1Walk.load(CHECKPOINT, num, EMBODIMENT.limits.acceleration)


def run(model: mujoco.MjModel, twist: tuple[float, float, float], seconds: float, limp: bool = False) -> np.ndarray:
    """Base states (K, 6) from standing: position x, y, height, velocity vx, vy, wz in the heading frame."""
    data = mujoco.MjData(model)
    data.qpos[:] = PLANT.stand(0.0, 0.0, 0.0)
    controller = PLANT.controller(model, 1)
    controller.reset(np.arange(1))
    rows = []
    for _ in range(round(seconds / PLANT.control_dt)):
        data.ctrl[:] = controller.command(np.array([twist]), data.qpos[None].copy(), data.qvel[None].copy())[0]
        if limp:
            data.ctrl[:] = 0.0
        mujoco.mj_step(model, data, round(PLANT.control_dt / PLANT.timestep))
        base = PLANT.base_state(data.qpos[None], data.qvel[None])
        rows.append([*base.position[0], *base.linear[0, :2], base.angular[0, 2]])
    return np.array(rows)


def test_spec_is_a_body_that_touches_only_the_scene() -> None:
    spec = PLANT.spec()
    model = spec.compile()
    assert model.body(1).name == "base" and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    assert (model.nq, model.nv, model.nu) == (36, 35, 29)
    assert [model.actuator(i).name for i in range(29)] == [model.joint(i + 1).name[:-6] for i in range(29)]
    solid = model.geom_group == GROUP_ROBOT
    assert (model.geom_contype == 0).all() and (model.geom_conaffinity == solid).all()
    assert (model.geom_group[~solid] == GROUP_ROBOT_VISUAL).all() and solid.sum() > 8
    parent = mujoco.MjSpec()
    parent.option = spec.option
    parent.attach(spec, prefix="a/", frame=parent.worldbody.add_frame())
    assert parent.compile().nq == 36, "meshes are found from any scene"


def test_motor_constants_reach_the_model(model: mujoco.MjModel) -> None:
    """Figures of mjlab's g1_constants.py, worked out by hand for three joints; the knee's are not the elbow's."""
    knee = 0.489e-4 * 22.5**2 + 0.109e-4 * 25.0 + 0.738e-4
    elbow = 0.139e-4 * (32.0 / 9.0 * 4.5) ** 2 + 0.017e-4 * 4.5**2 + 0.169e-4
    for name, armature, limit in (("knee", knee, 139.0), ("elbow", elbow, 25.0), ("ankle_roll", 2.0 * elbow, 50.0)):
        actuator = model.actuator(f"left_{name}")
        assert model.joint(f"left_{name}_joint").armature[0] == pytest.approx(armature)
        assert actuator.gainprm[0] == pytest.approx(armature * (20.0 * math.pi) ** 2)
        assert -actuator.biasprm[2] == pytest.approx(4.0 * armature * 20.0 * math.pi)
        assert actuator.forcerange[1] == limit
    assert knee != pytest.approx(elbow)
    wanted = [0.125 * motor.torque_limit / motor.stiffness for motor in list(MOTORS.values())[:12]]
    np.testing.assert_allclose(ACTION_SCALE, wanted, atol=2e-4)
    assert model.body_mass.sum() == pytest.approx(EMBODIMENT.mass, abs=0.01)


def test_stands_on_its_soles_under_its_centre_of_mass(model: mujoco.MjModel) -> None:
    def soles(pose: np.ndarray) -> tuple[np.ndarray, float]:
        data = mujoco.MjData(model)
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        spheres = np.array([data.geom(f"{foot}_contact_{i}").xpos for foot in FEET for i in range(4)])
        return spheres[:, 2] - FOOT_RADIUS, float(data.subtree_com[1, 0] - spheres[:, 0].mean())

    height, ahead = soles(PLANT.stand(0.0, 0.0, 0.0))
    assert np.abs(height).max() < 1e-3 and abs(ahead) < 0.01
    bent = PLANT.stand(0.0, 0.0, 0.0)
    bent[7:][3] += 0.3
    assert np.abs(soles(bent)[0]).max() > 0.01, "control: a bent knee lifts the sole"


def random_state(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """qpos, qvel near standing."""
    qpos = np.tile(PLANT.stand(0.3, -0.2, 0.0), (num, 1)) + rng.normal(0.0, 0.1, (num, 36))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, rng.normal(0.0, 0.5, (num, 35))


def mirrored(qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state reflected in the x-z plane (legs only: the controller does not read the arms)."""
    qpos, qvel = qpos.copy(), qvel.copy()
    qpos[:, [1, 4, 6]] *= -1.0
    qvel[:, [1, 3, 5]] *= -1.0
    qpos[:, 7:19], qvel[:, 6:18] = mirror_legs(qpos[:, 7:19]), mirror_legs(qvel[:, 6:18])
    return qpos, qvel


def mirror_legs(legs: np.ndarray) -> np.ndarray:
    return legs[:, MIRROR_LEG_INDEX] * MIRROR_LEG


def test_mirrored_state_gives_mirrored_targets() -> None:
    rng = np.random.default_rng(0)
    (qpos, qvel), twist = random_state(rng, 8), rng.uniform(-0.3, 0.3, (8, 3))

    def targets(qpos: np.ndarray, qvel: np.ndarray, twist: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
        walk = walk_of(8)
        walk.cycle.walking[:], walk.cycle.blend[:], walk.cycle.phase[:], walk.cycle.twist[:] = True, 1.0, phase, twist
        return walk.observe(qpos, qvel), walk.command(twist, qpos, qvel)[:, :12]

    obs, legs = targets(qpos, qvel, twist, 0.13)
    obs_other, legs_other = targets(*mirrored(qpos, qvel), twist * MIRROR_TWIST, 0.63)
    np.testing.assert_allclose(obs_other, obs[:, MIRROR_OBS_INDEX] * MIRROR_OBS, atol=1e-9)
    np.testing.assert_allclose(legs_other, mirror_legs(legs), atol=1e-4)
    same_phase = targets(*mirrored(qpos, qvel), twist * MIRROR_TWIST, 0.13)[1]
    assert np.abs(same_phase - mirror_legs(legs)).max() > 0.05, "control: without the half phase it is another gait"


def test_network_alone_is_symmetric_only_as_the_mean_of_both_sides() -> None:
    rng = np.random.default_rng(1)
    network = ResidualNetwork(
        [(rng.normal(size=(32, 50)), rng.normal(size=32)), (rng.normal(size=(12, 32)), np.ones(12))]
    )
    obs = rng.normal(size=(5, 50))
    other = network(obs[:, MIRROR_OBS_INDEX] * MIRROR_OBS)
    np.testing.assert_allclose(other, mirror_legs(network(obs)), rtol=1e-4, atol=1e-4)
    (weight, bias), *_ = network.layers
    assert np.abs(obs @ weight + bias - ((obs[:, MIRROR_OBS_INDEX] * MIRROR_OBS) @ weight + bias)).max() > 1.0
    with pytest.raises(ValueError, match="maps 50 to 12"):
        ResidualNetwork([(np.zeros((12, 49)), np.zeros(12))])


def test_a_batch_equals_its_bodies_one_by_one() -> None:
    rng = np.random.default_rng(2)
    states = [random_state(rng, 3) for _ in range(40)]
    twist = np.array([[0.5, 0.0, 0.3], [0.0, 0.0, 0.0], [-0.2, 0.2, 0.0]])
    batch = walk_of(3)
    alone = [walk_of(1) for _ in range(3)]
    for qpos, qvel in states:
        together = batch.command(twist, qpos, qvel)
        for i, walk in enumerate(alone):
            np.testing.assert_allclose(
                together[i], walk.command(twist[i : i + 1], qpos[i : i + 1], qvel[i : i + 1])[0], atol=1e-5
            )
    batch.reset(np.array([1]))
    after = batch.command(twist, *states[0])
    np.testing.assert_allclose(after[1], walk_of(3).command(twist, *states[0])[1], atol=1e-5)
    assert np.abs(after[0] - walk_of(3).command(twist, *states[0])[0]).max() > 1e-3, "control: row 0 kept its past"
    with pytest.raises(ValueError, match="own qpos"):
        batch.command(twist, np.zeros((3, 43)), np.zeros((3, 41)))


def test_the_gait_table_is_symmetric_and_interpolated() -> None:
    table, rng = walk_of(1).gait.pose, np.random.default_rng(3)
    phase, twist = rng.random(20), rng.uniform(-0.3, 0.3, (20, 3))
    pose = gait_pose(table, phase, twist)
    np.testing.assert_allclose(
        gait_pose(table, (phase + 0.5) % 1.0, twist * MIRROR_TWIST), mirror_legs(pose), atol=1e-3
    )
    assert np.abs(gait_pose(table, phase, twist * MIRROR_TWIST) - mirror_legs(pose)).max() > 0.05
    centre = gait_pose(table, np.array([4.5 / len(table)]), np.array([[0.1, 0.2, 0.3]]))[0]
    np.testing.assert_allclose(centre, np.array([1.0, 0.1, 0.2, 0.3]) @ table[4], atol=1e-6)


def test_walks_forward_where_a_limp_body_falls(model: mujoco.MjModel) -> None:
    track = run(model, (0.5, 0.0, 0.0), 5.0)
    assert track[:, 2].min() > 0.5 and track[-1, 0] > 1.5 and abs(track[-1, 1]) < 0.8
    assert run(model, (0.5, 0.0, 0.0), 5.0, limp=True)[-1, 2] < 0.4


def test_stands_still_at_zero_command(model: mujoco.MjModel) -> None:
    """What a success test asks: speed below 0.1 m/s and 0.1 rad/s, averaged over half a second; a walk fails it."""

    def stillness(track: np.ndarray) -> np.ndarray:
        return np.abs(track[-50:, 3:].reshape(2, 25, 3).mean(1)).max(0)

    assert (stillness(run(model, (0.0, 0.0, 0.0), 3.0)) < 0.1).all()
    assert stillness(run(model, (0.4, 0.0, 0.0), 3.0))[0] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_meets_the_walking_bar() -> None:
    """100 runs of 60 s with 0.5 m/s pushes: see ``measure``; the control is a push four times as hard."""
    result = measure(EMBODIMENT, runs=100)
    assert result["passed"], result
    assert measure(EMBODIMENT, runs=10, seconds=12.0, push=2.0)["survival"] < 0.95


def test_the_shipped_pose_is_the_stand() -> None:
    np.testing.assert_array_equal(PLANT.stand(1.0, 2.0, 0.5)[7:], STAND)
    yaw = PLANT.base_state(PLANT.stand(1.0, 2.0, 0.5)[None], np.zeros((1, 35))).yaw[0]
    assert yaw == pytest.approx(0.5)
