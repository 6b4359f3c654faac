"""Scenes from the maps of ROS's map_server (an image and a YAML), and back.

Free cells are what a robot may drive on; occupied cells, unknown cells and everything outside the image become walls,
merged into few boxes. World frame = map frame. Format: nav2_map_server, modes ``trinary`` and ``scale``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from omnibody.robots.errors import UserError
from omnibody.sim_tasks.scene import Box, Grid, Scene

WALL_HEIGHT = 2.0  # of extruded walls [m]
BORDER = 0.2  # thickness of the wall around the free space where the image ends [m]
KEYS: dict[str, tuple[type, ...]] = {
    "image": (str,),
    "resolution": (int, float),
    "origin": (list,),
    "occupied_thresh": (float,),
    "free_thresh": (float,),
}


def load_ros_map(path: str | Path) -> Scene:
    """The scene of a map YAML. Raises UserError on a map that cannot be used."""
    path = Path(path)
    meta = _read_meta(path)
    free = _free_cells(path, meta)
    if not free.any():
        raise UserError(f"{path}: no cell is free; check free_thresh ({meta['free_thresh']}) and negate")
    resolution = float(meta["resolution"])
    border = math.ceil(BORDER / resolution)
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    free = np.pad(free[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], border)
    corner = (np.array([columns[0], rows[0]]) - border) * resolution  # of the padded crop, in the image's frame
    boxes = _merge(~free)
    return _scene(path.stem, boxes, free.shape, corner, resolution, [float(v) for v in meta["origin"]])


def save_ros_map(scene: Scene, path: str | Path, resolution: float = 0.05) -> None:
    """Write a scene as a map YAML at ``path`` and a PGM beside it; what stands on the floor is occupied."""
    path = Path(path)
    grid = Grid.over(scene.low, scene.high, resolution)
    occupied = (scene.distance_at(grid.centres()) <= 0.0).reshape(grid.shape)
    image = path.with_suffix(".pgm")
    Image.fromarray(np.where(occupied[::-1], 0, 254).astype(np.uint8)).save(image)
    meta = {
        "image": image.name,
        "mode": "trinary",
        "resolution": resolution,
        "origin": [float(scene.low[0]), float(scene.low[1]), 0.0],
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    path.write_text(yaml.safe_dump(meta, sort_keys=False))


def _read_meta(path: Path) -> dict[str, Any]:
    """The YAML's content, checked."""
    if not path.is_file():
        raise UserError(f"{path}: no such map; give the YAML file that names the map's image")
    try:
        meta = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a map YAML ({reason})") from error
    if not isinstance(meta, dict):
        raise UserError(f"{path}: not a map YAML; wanted the keys {', '.join(KEYS)}")
    for key, kind in KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"{path}: {key!r} is missing or not a valid value, got {meta.get(key)!r}")
    if meta["resolution"] <= 0 or not 0.0 <= meta["free_thresh"] < meta["occupied_thresh"] <= 1.0:
        raise UserError(f"{path}: wanted resolution > 0 and 0 <= free_thresh < occupied_thresh <= 1")
    if len(meta["origin"]) != 3 or not all(isinstance(v, int | float) for v in meta["origin"]):
        raise UserError(f"{path}: 'origin' must be [x, y, yaw], got {meta['origin']!r}")
    if meta.get("mode", "trinary") not in ("trinary", "scale"):
        raise UserError(f"{path}: mode {meta['mode']!r} is not supported; use 'trinary' or 'scale'")
    return meta


def _free_cells(path: Path, meta: dict[str, Any]) -> np.ndarray:
    """Free cells, bool (rows, columns), row 0 at the bottom of the image."""
    file = path.parent / meta["image"]
    if not file.is_file():
        raise UserError(f"{path}: its image {file} does not exist")
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGBA"), np.float64)[::-1]
    except OSError as error:
        raise UserError(f"{path}: its image {file} cannot be read ({error})") from error
    shade = pixels[..., :3].mean(axis=2) / 255.0
    occupancy = shade if meta.get("negate", 0) else 1.0 - shade
    return (occupancy < meta["free_thresh"]) & (pixels[..., 3] == 255.0)  # transparent cells are unknown


def _merge(solid: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Few rectangles (row, column, rows, columns) that cover exactly the solid cells; they may overlap."""
    left = solid.copy()
    out = []
    while left.any():
        row, column = divmod(int(np.argmax(left)), solid.shape[1])
        wide, tall = _grow(solid[row:, column:]), _grow(solid[row:, column:].T)[::-1]
        best = max((wide, tall), key=lambda size: int(left[row : row + size[0], column : column + size[1]].sum()))
        left[row : row + best[0], column : column + best[1]] = False
        out.append((row, column, *best))
    return out


def _grow(solid: np.ndarray) -> tuple[int, int]:
    """Size (rows, columns) of the solid rectangle at cell (0, 0) that first grows along its row."""
    columns = int(np.argmin(np.append(solid[0], False)))
    rows = int(np.argmin(np.append(solid[:, :columns].all(axis=1), False)))
    return rows, columns


def _scene(
    name: str,
    rectangles: list[tuple[int, int, int, int]],
    shape: tuple[int, ...],
    corner: np.ndarray,
    resolution: float,
    origin: list[float],
) -> Scene:
    """Boxes and bounds in the map frame, which ``origin`` (x, y, yaw) turns the image into."""
    c, s = math.cos(origin[2]), math.sin(origin[2])

    def world(column: float, row: float) -> tuple[float, float]:
        x, y = corner[0] + column * resolution, corner[1] + row * resolution
        return origin[0] + c * x - s * y, origin[1] + s * x + c * y

    boxes = []
    for row, column, rows, columns in rectangles:
        x, y = world(column + 0.5 * columns, row + 0.5 * rows)
        boxes.append(Box("wall", x, y, columns * resolution, rows * resolution, WALL_HEIGHT, origin[2]))
    corners = np.array([world(i, j) for i in (0, shape[1]) for j in (0, shape[0])])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return Scene(name, tuple(boxes), (float(low[0]), float(low[1])), (float(high[0]), float(high[1])))
