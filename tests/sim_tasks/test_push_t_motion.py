"""Motions of recordings: goals land on goals, mirrors are their own inverse, and physics agrees with both."""

import math

import numpy as np
import pytest

from omnibody.sim_tasks.push_t import CANONICAL, SHIFTED
from omnibody.sim_tasks.push_t_motion import SHORTEST, Motion, mirror, moved, to_goal

SIZE = 512.0
OTHER = (300.0, 200.0, 2.0)


def recording(rng: np.random.Generator, steps: int = 60) -> dict[str, np.ndarray]:
    state = np.concatenate([rng.uniform(150, 400, (steps, 4)), rng.uniform(-3, 3, (steps, 1))], 1)
    return {"state": state, "action": rng.uniform(150, 400, (steps, 2))}


def carried(motion: Motion, pose: tuple[float, float, float]) -> tuple[float, ...]:
    return (*motion.points(np.array([pose[:2]]))[0], motion.turn + motion.sense * pose[2])


def test_the_goal_lands_on_the_goal() -> None:
    np.testing.assert_allclose(carried(to_goal(SHIFTED, OTHER), SHIFTED), OTHER)
    np.testing.assert_allclose(carried(mirror(OTHER), OTHER), OTHER)


def test_a_mirror_is_its_own_inverse_and_only_the_canonical_one_keeps_the_table() -> None:
    columns, motion = recording(np.random.default_rng(0)), mirror(CANONICAL)
    again = moved(moved(columns, motion, SIZE), motion, SIZE)
    for key in columns:
        np.testing.assert_allclose(again[key], columns[key], atol=1e-9)
    assert motion.keeps(SIZE) and not mirror(SHIFTED).keeps(SIZE) and not to_goal(SHIFTED, CANONICAL).keeps(SIZE)


def test_what_comes_too_near_to_a_wall_is_cut_off() -> None:
    columns, motion = recording(np.random.default_rng(1)), to_goal((256.0, 256.0, 0.0), (216.0, 256.0, 0.0))
    columns["state"][20, 0] = 59.0  # 19 px from the wall after the motion
    np.testing.assert_array_equal(moved(columns, motion, SIZE)["action"], columns["action"][21:] - [40.0, 0.0])
    columns["state"][60 - SHORTEST, 2] = 99.0
    assert len(moved(columns, motion, SIZE)["state"]) == 0


@pytest.mark.parametrize("motion", [mirror(CANONICAL), to_goal(CANONICAL, (240.0, 280.0, math.pi / 4 + 0.7))])
def test_physics_agrees(motion: Motion) -> None:
    """A push in the moved world is the moved push; under a motion that is none (half a mirror) it is not."""
    pymunk_env = pytest.importorskip("omnibody.envs.push_t")
    pusher = pytest.importorskip("omnibody.robots.pusher")
    start, target = np.array([200.0, 300.0, 262.0, 262.0, 0.4]), np.array([[330.0, 240.0], [280.0, 300.0]])

    def pushed(state: np.ndarray, targets: np.ndarray) -> np.ndarray:
        table = pymunk_env.Table(pusher.TOOL)
        table.place(state)
        for x, y in np.repeat(targets, 8, 0).tolist():
            table.advance(x, y)
        return np.array(table.state)

    def carry(state: np.ndarray, by: Motion) -> np.ndarray:
        return np.concatenate([*by.points(state[:4].reshape(2, 2)), [by.turn + by.sense * state[4]]])

    end = pushed(start, target)
    assert np.abs(end - start)[2:4].max() > 10  # the T was pushed
    np.testing.assert_allclose(pushed(carry(start, motion), motion.points(target)), carry(end, motion), atol=1.0)
    half = Motion(motion.matrix, motion.offset, motion.turn, -motion.sense)
    assert np.abs(pushed(carry(start, half), half.points(target)) - carry(end, half)).max() > 5
