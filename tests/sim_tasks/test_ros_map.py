"""Maps of ROS's map_server as scenes, and scenes as maps."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from omnibody.robots.errors import UserError
from omnibody.sim_tasks.families import make_scene
from omnibody.sim_tasks.ros_map import load_ros_map, save_ros_map
from omnibody.sim_tasks.scene import Scene

META = {"image": "m.png", "resolution": 0.1, "origin": [0.0, 0.0, 0.0], "occupied_thresh": 0.65, "free_thresh": 0.25}


def write(folder: Path, pixels: np.ndarray, **meta: Any) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "m.png")
    (folder / "m.yaml").write_text(yaml.safe_dump(META | meta))
    return folder / "m.yaml"


def room() -> np.ndarray:
    """40 x 60 cells, white floor, black walls, and a black block whose bottom left cell is (10, 30) from below."""
    pixels = np.full((40, 60), 254)
    pixels[[0, -1]] = pixels[:, [0, -1]] = 0
    pixels[40 - 15 : 40 - 10, 30:36] = 0
    return pixels


@pytest.mark.parametrize("family", ["office", "multi_rack"])
def test_a_scene_survives_the_round_trip(tmp_path: Path, family: str):
    scene = make_scene(family, 1)
    save_ros_map(scene, tmp_path / "office.yaml")
    back = load_ros_map(tmp_path / "office.yaml")
    rng = np.random.default_rng(0)
    points = rng.uniform(-6.7, 6.7, (2000, 2))
    was, now = scene.distance_at(points), back.distance_at(points)
    outside = was > 0.1
    # A cell of 5 cm is occupied if its centre is: an edge moves by half its diagonal at most, a corner by all of it.
    assert np.abs(was - now)[outside].max() < 0.071
    assert ((was < -0.036) <= (now < 0)).all()
    # Control: another scene is further off.
    assert np.abs(make_scene(family, 3).distance_at(points) - now)[outside].max() > 0.5


def test_boxes_cover_exactly_what_is_not_free(tmp_path: Path):
    rng = np.random.default_rng(1)
    pixels = np.where(rng.random((40, 60)) < 0.2, 0, 254)
    pixels[0, 0] = pixels[-1, -1] = 254  # so that nothing is cropped
    scene = load_ros_map(write(tmp_path, pixels))
    x, y = (np.arange(60) + 0.5) * 0.1, (np.arange(40) + 0.5) * 0.1
    centres = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    np.testing.assert_array_equal((scene.distance_at(centres) < 0).reshape(40, 60), pixels[::-1] == 0)


def test_walls_are_merged_into_few_boxes(tmp_path: Path):
    assert len(load_ros_map(write(tmp_path, room())).boxes) == 5  # four walls and the block


def test_axes_and_origin(tmp_path: Path):
    """Row 0 of the image is the far side; the origin is the outer corner of the bottom left cell."""
    scene = load_ros_map(write(tmp_path, room(), origin=[-1.0, 2.0, 0.0]))
    block = next(b for b in scene.boxes if b.length == pytest.approx(0.6) and b.width == pytest.approx(0.5))
    assert (block.x, block.y) == (pytest.approx(-1.0 + 3.3), pytest.approx(2.0 + 1.25))


def test_a_turned_origin_turns_the_map(tmp_path: Path):
    plain = load_ros_map(write(tmp_path, room()))
    yaw = 0.5
    turned = load_ros_map(write(tmp_path, room(), origin=[1.0, 2.0, yaw]))
    points = np.random.default_rng(0).uniform((0.2, 0.2), (5.8, 3.8), (200, 2))
    c, s = math.cos(yaw), math.sin(yaw)
    there = points @ np.array([[c, s], [-s, c]]) + (1.0, 2.0)
    np.testing.assert_allclose(turned.distance_at(there), plain.distance_at(points), atol=1e-9)
    assert ((there > turned.low) & (there < turned.high)).all()
    assert not np.allclose(turned.distance_at(points), plain.distance_at(points), atol=0.1)


@pytest.mark.parametrize(
    ("value", "meta", "free"),
    [
        (205, {}, True),  # 0.196 < 0.25
        (205, {"free_thresh": 0.15}, False),  # unknown
        (128, {}, False),
        (0, {}, False),
        (0, {"negate": 1}, True),
        (254, {"negate": 1}, False),
        (128, {"mode": "scale"}, False),
        (230, {"mode": "scale"}, True),
    ],
)
def test_which_cells_are_free(tmp_path: Path, value: int, meta: dict[str, Any], free: bool):
    pixels = np.full((9, 9), value)
    pixels[[0, -1]] = 0 if meta.get("negate") else 254  # free, so that the rows between are not cropped
    scene = load_ros_map(write(tmp_path, pixels, **meta))
    assert bool(scene.distance_at(np.array([[0.45, 0.35]]))[0] > 0) is free


def test_unknown_and_the_edge_of_the_image_are_walls(tmp_path: Path):
    pixels = np.full((20, 20, 4), 255)
    pixels[5:8, 5:8, 3] = 0  # transparent: unknown
    scene = load_ros_map(write(tmp_path, pixels))
    x = np.array([[0.65, 1.35], [1.5, 0.5], [-0.1, 1.0], [2.1, 1.0], [1.0, 2.1]])
    assert (scene.distance_at(x) < 0).tolist() == [True, False, True, True, True]


def test_files_of_map_saver_style_are_read(tmp_path: Path):
    """PGM image, integer resolution and origin, no mode, as older tools wrote them."""
    Image.fromarray(room().astype(np.uint8)).save(tmp_path / "map.pgm")
    (tmp_path / "map.yaml").write_text(
        "image: map.pgm\nresolution: 1\norigin: [0, 0, 0]\nnegate: 0\noccupied_thresh: 0.65\nfree_thresh: 0.196\n"
    )
    assert load_ros_map(tmp_path / "map.yaml").high == (pytest.approx(60.0), pytest.approx(40.0))


def broken(folder: Path, kind: str) -> Path:
    path = write(folder, room(), **{"resolution": {"resolution": 0}, "mode": {"mode": "raw"}}.get(kind, {}))
    if kind == "no image":
        (folder / "m.png").unlink()
    if kind == "bad image":
        (folder / "m.png").write_bytes(b"\x89PNG not really")
    if kind == "nothing free":
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "m.png")
    if kind == "not yaml":
        path.write_text("image: [unclosed\nfoo: }")
    if kind == "a list":
        path.write_text("- 1\n- 2\n")
    if kind == "no origin":
        path.write_text(yaml.safe_dump({k: v for k, v in META.items() if k != "origin"}))
    if kind == "missing":
        return folder / "other.yaml"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such map"),
        ("no image", "m.png does not exist"),
        ("bad image", "cannot be read"),
        ("nothing free", "no cell is free"),
        ("not yaml", "not a map YAML"),
        ("a list", "not a map YAML"),
        ("no origin", "'origin'"),
        ("resolution", "resolution > 0"),
        ("mode", "mode 'raw'"),
    ],
)
def test_bad_maps_get_one_clear_line(tmp_path: Path, kind: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        load_ros_map(broken(tmp_path, kind))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_good_map_gets_none(tmp_path: Path):
    assert isinstance(load_ros_map(broken(tmp_path, "fine")), Scene)


def test_the_task_takes_a_map(tmp_path: Path, drive: Callable[..., np.ndarray]):
    from omnibody.robots.table import load_robot
    from omnibody.sim_tasks.table import task_config

    save_ros_map(make_scene("mixed", 7), tmp_path / "hall.yaml")
    task = task_config("goal_nav/map", map=str(tmp_path / "hall.yaml")).build(load_robot("carrier"), 8)
    assert drive(task, np.arange(8), 2).sum() >= 7
