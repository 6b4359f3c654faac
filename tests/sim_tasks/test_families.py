"""Scene families: reproducible, split, bounded, and passable for the largest body."""

import pytest

from omnibody.robots.errors import UserError
from omnibody.sim_tasks.families import ALL, FAMILIES, MAX_BOXES, make_scene, passable, scene_seed, split_scene
from omnibody.sim_tasks.scene import Box, Scene

NAMES = sorted(FAMILIES)


@pytest.mark.parametrize("family", NAMES)
def test_a_scene_is_a_function_of_family_and_seed(family: str):
    assert make_scene(family, 3).boxes == make_scene(family, 3).boxes
    assert make_scene(family, 3).boxes != make_scene(family, 5).boxes
    other = NAMES[(NAMES.index(family) + 1) % len(NAMES)]
    assert make_scene(family, 3).boxes != make_scene(other, 3).boxes


@pytest.mark.parametrize("family", NAMES)
def test_train_and_test_share_no_scene(family: str):
    assert not {scene_seed("train", i) for i in range(200)} & {scene_seed("test", i) for i in range(200)}
    train = {split_scene(family, "train", i).boxes for i in range(5)}
    assert len(train) == 5
    assert not train & {split_scene(family, "test", i).boxes for i in range(5)}
    # Control: the same split does share.
    assert split_scene(family, "train", 4).boxes in train


@pytest.mark.parametrize("family", NAMES)
def test_scenes_are_bounded_and_passable(family: str):
    for seed in range(6):
        scene = make_scene(family, seed)
        assert len(scene.boxes) <= MAX_BOXES
        assert passable(scene)
        assert 0.6 < (scene.distance > 0).mean() < 0.95
        assert scene.grid == make_scene(NAMES[0], 0).grid


def test_families_hold_what_they_promise():
    kinds = {f: {b.kind for i in range(6) for b in make_scene(f, i).boxes} for f in NAMES}
    assert kinds["office"] == {"wall", "furniture", "clutter"}
    assert kinds["single_rack"] == kinds["multi_rack"] == {"wall", "rack", "clutter"}
    assert kinds["mixed"] == {"wall", "rack", "furniture", "clutter"}
    for family in ("single_rack", "multi_rack", "mixed"):
        assert any(b.height == 0.15 for i in range(6) for b in make_scene(family, i).boxes)
    assert any(b.height == 0.9 for i in range(6) for b in make_scene("office", i).boxes)  # chairs


def test_a_closed_wall_is_not_passable():
    scene = make_scene("single_rack", 0)
    closed = Scene("closed", (*scene.boxes, Box("wall", 0.0, 0.0, 0.2, 14.0, 2.0)), scene.low, scene.high)
    assert not passable(closed)


def test_all_takes_the_families_in_turn():
    names = [split_scene(ALL, "test", i).name for i in range(8)]
    assert names == [f"{family}/{seed}" for seed in (1, 3) for family in FAMILIES]


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="single_rack"):
        make_scene("singel_rack", 0)
    with pytest.raises(UserError, match="test"):
        scene_seed("tset", 0)
