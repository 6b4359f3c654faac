"""Scenes: exact distances, free tests, and what MuJoCo makes of them."""

import math

import mujoco
import numpy as np
import pytest

from omnibody.sim_tasks.scene import Box, Grid, Scene
from omnibody.sim_tasks.task import SEMANTIC_CLASSES

BOXES = (Box("rack", 1.0, 0.5, 2.0, 0.6, 2.0, 0.4), Box("clutter", -1.5, -1.0, 0.5, 0.5, 0.15, 1.0))
SCENE = Scene("two", BOXES, (-3.0, -2.0), (3.0, 2.0))


def test_distance_is_that_of_the_outlines():
    """Against the nearest of many points on the boxes' edges, which is at most half their spacing off."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-3.0, -2.0), (3.0, 2.0), (300, 2))
    t = np.linspace(-0.5, 0.5, 801)
    edges = []
    for b in BOXES:
        c, s = math.cos(b.yaw), math.sin(b.yaw)
        for u, v in ((t, 0 * t + 0.5), (t, 0 * t - 0.5), (0 * t + 0.5, t), (0 * t - 0.5, t)):
            x, y = u * b.length, v * b.width
            edges.append(np.stack((b.x + c * x - s * y, b.y + s * x + c * y), 1))
    edge = np.concatenate(edges)
    nearest = np.sqrt(((points[:, None] - edge[None]) ** 2).sum(-1).min(1))
    distance = SCENE.distance_at(points)
    np.testing.assert_allclose(np.abs(distance), nearest, atol=0.002)
    assert (distance < 0).any() and (distance > 0).any()


def test_the_grid_holds_the_distance_at_its_cells():
    grid = SCENE.grid
    assert grid.shape == (40, 60)
    centres = grid.centres()
    np.testing.assert_allclose(SCENE.distance.ravel(), SCENE.distance_at(centres), atol=1e-6)
    np.testing.assert_array_equal(grid.cells(centres), np.arange(len(centres)))
    # A point outside belongs to the border.
    assert grid.cells(np.array([99.0, 99.0])) == len(centres) - 1


def test_free_is_bounds_and_radius():
    points = np.array([(-2.0, 1.5), (1.0, 0.5), (1.0, 1.2), (9.0, 0.0)])
    assert SCENE.is_free(points, 0.3).tolist() == [True, False, True, False]
    assert SCENE.is_free(points, 0.5).tolist() == [True, False, False, False]
    assert (SCENE.inflate(0.5) >= SCENE.occupied).all() and SCENE.inflate(0.5).sum() > SCENE.occupied.sum()


def test_mujoco_sees_the_same_distance():
    spec = mujoco.MjSpec()
    SCENE.extrude(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    names = [model.geom(i).name for i in range(model.ngeom)]
    assert names == ["floor/0", "rack/0", "clutter/1"]
    assert all(name.split("/")[0] in SEMANTIC_CLASSES for name in names)
    assert model.body("scene").parentid == 0 and model.geom("floor/0").bodyid == 0
    geom = np.zeros(1, np.int32)
    # The direction of steepest descent of the distance leads a ray straight to the nearest box.
    at = np.array([1.2, 1.6])
    slope = [SCENE.distance_at((at + d)[None])[0] - SCENE.distance_at((at - d)[None])[0] for d in 1e-4 * np.eye(2)]
    towards = -np.array([*slope, 0.0]) / np.linalg.norm(slope)
    hit = mujoco.mj_ray(model, data, np.array([*at, 0.1]), towards, None, 1, -1, geom)
    assert names[geom[0]] == "rack/0"
    assert hit == pytest.approx(SCENE.distance_at(at[None])[0], abs=1e-4)
    # A low pallet is not there for a ray above it.
    over = mujoco.mj_ray(model, data, np.array([-3.0, -1.0, 0.5]), np.array([1.0, 0.0, 0.0]), None, 1, -1, geom)
    under = mujoco.mj_ray(model, data, np.array([-3.0, -1.0, 0.1]), np.array([1.0, 0.0, 0.0]), None, 1, -1, geom)
    assert over == -1 and under > 0


@pytest.mark.parametrize(("kind", "length"), [("sofa", 1.0), ("wall", 0.0), ("floor", 1.0)])
def test_impossible_boxes_are_refused(kind: str, length: float):
    with pytest.raises(ValueError, match="box"):
        Box(kind, 0.0, 0.0, length, 1.0, 1.0)


def test_grid_covers_its_rectangle():
    grid = Grid.over((0.0, 0.0), (1.0, 0.35), 0.1)
    assert grid.shape == (4, 10) and grid.origin == (0.05, 0.05)
