"""The T's area against shapely, its corners and starts against gym-pusht."""

import warnings

import numpy as np
import pytest
import shapely.geometry as geometry
from shapely.ops import unary_union

from omnibody.sim_tasks import tee
from omnibody.sim_tasks.push_t import start, turned_in_place


def outline(pose: np.ndarray) -> geometry.Polygon:
    return geometry.Polygon(tee.corners(pose))


def test_overlap_is_shapelys() -> None:
    rng = np.random.default_rng(0)
    pose = np.concatenate([rng.uniform(150, 350, (400, 2)), rng.uniform(-9, 9, (400, 1))], 1)
    goal = np.concatenate([rng.uniform(200, 300, (400, 2)), rng.uniform(-9, 9, (400, 1))], 1)
    wanted = [outline(a).intersection(outline(b)).area for a, b in zip(pose, goal, strict=True)]
    ours = tee.overlap(pose, goal)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    assert (ours > 0).mean() > 0.5
    # Negative control: the hull of the T covers more.
    hulls = [outline(a).convex_hull.intersection(outline(b)).area for a, b in zip(pose, goal, strict=True)]
    assert not np.allclose(ours, hulls, atol=1.0)


def test_a_pose_covers_itself_and_nothing_far_away() -> None:
    pose = np.array([[256.0, 256.0, 0.7], [300.0, 200.0, -2.0]])
    np.testing.assert_allclose(tee.overlap(pose, pose), tee.AREA, rtol=1e-12)
    np.testing.assert_allclose(tee.overlap(pose, pose + [0, 0, 2 * np.pi]), tee.AREA, rtol=1e-9)
    assert (tee.overlap(pose, pose + [400.0, 0.0, 0.0]) == 0).all()
    boxes = [geometry.box(*tee.BAR), geometry.box(*tee.STEM)]
    assert unary_union(boxes).area == tee.AREA


def test_starts_are_gym_pushts() -> None:
    """Its own reset with the numbers we draw, T displaced by its legacy order, leads to our start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gym_pusht.envs.pusht import PushTEnv

        env = PushTEnv()
    for seed in range(20):
        came, _ = env.reset(seed=seed)
        ours = start(np.random.Generator(np.random.PCG64(seed)))
        touching = np.linalg.norm(came[:2] - ours[:2]) > 1e-9 or np.abs(came[2:4] - ours[2:4]).max() > 1e-9
        free = np.linalg.norm(tee.corners(ours[2:]) - ours[:2], axis=1).min() > 80
        assert not (touching and free)
        if not touching:
            assert came[4] == pytest.approx(ours[4] % (2 * np.pi))
    drawn = np.array([200.0, 300.0])
    assert np.linalg.norm(turned_in_place(drawn, 1.0) - drawn) > 20  # the order matters
