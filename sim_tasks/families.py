"""Procedural indoor scenes, 14 m square: ``office``, ``single_rack``, ``multi_rack`` and ``mixed``.

A scene is a pure function of (family, seed). Training scenes have even seeds and test scenes odd ones, so the two
splits never share one. Every passage meant to be passable is at least ``GAP`` wide, and a scene is admitted only if
the largest body (``LARGEST``) can drive from everywhere to everywhere that has room to turn.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

from omnibody.robots.errors import unknown
from omnibody.robots.spec import Footprint
from omnibody.sim_tasks.planner import roadmap
from omnibody.sim_tasks.scene import Box, Scene, planar_array, signed_distance

HALF = 7.0  # half the side of every scene [m]
INNER = 6.8  # inner face of the outer walls [m]
GAP = 1.1  # narrowest intended passage [m]
DOOR = (1.2, 1.6)  # door widths [m]
WALL_HEIGHT, WALL_THICKNESS = 2.0, 0.15  # [m]
MAX_BOXES = 60
LARGEST = Footprint(1.25, 0.6, 0.8)  # the body every scene must be passable for
TRIES = 40  # placements of one object, and layouts of one scene
SPLITS = ("train", "test")
ALL = "all"  # every family in turn, for training


def scene_seed(split: str, index: int) -> int:
    """Seed of scene ``index`` of a split; the splits' seeds are disjoint."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return 2 * index + SPLITS.index(split)


def make_scene(family: str, seed: int) -> Scene:
    """The scene of a family (a key of ``FAMILIES``) under a seed."""
    if family not in FAMILIES:
        raise unknown("scene family", family, FAMILIES)
    rng = np.random.default_rng([zlib.crc32(family.encode()), seed])
    for _ in range(TRIES):
        layout = _Layout(rng)
        FAMILIES[family](layout, rng)
        scene = layout.scene(f"{family}/{seed}")
        if passable(scene):
            return scene
    raise RuntimeError(f"scene {family}/{seed}: no layout of {TRIES} was passable")


def split_scene(family: str, split: str, index: int) -> Scene:
    """Scene ``index`` of a family's split; in ``ALL`` the families take turns."""
    if family == ALL:
        names = tuple(FAMILIES)
        return make_scene(names[index % len(names)], scene_seed(split, index // len(names)))
    return make_scene(family, scene_seed(split, index))


def passable(scene: Scene) -> bool:
    """Whether ``LARGEST`` reaches (nearly) every place where it has room to turn."""
    room = scene.distance > LARGEST.circumscribed_radius + 0.1
    reached = roadmap(scene, LARGEST).open & room
    return bool(reached.sum() >= 0.97 * room.sum())


class _Layout:
    """Boxes under construction, with placement that keeps passages open."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.boxes: list[Box] = []
        self.keep_clear: list[Box] = []  # in front of doors: nothing is placed there
        middle = 0.5 * (HALF + INNER)
        for sign in (-1.0, 1.0):
            self.boxes.append(Box("wall", sign * middle, 0.0, HALF - INNER, 2 * HALF, WALL_HEIGHT))
            self.boxes.append(Box("wall", 0.0, sign * middle, 2 * INNER, HALF - INNER, WALL_HEIGHT))

    def scene(self, name: str) -> Scene:
        """The finished scene, turned by a random number of quarter turns."""
        turn = 0.5 * math.pi * int(self.rng.integers(4))
        c, s = round(math.cos(turn)), round(math.sin(turn))
        turned = (
            Box(b.kind, c * b.x - s * b.y, s * b.x + c * b.y, b.length, b.width, b.height, b.yaw + turn)
            for b in self.boxes
        )
        return Scene(name, tuple(turned), (-HALF, -HALF), (HALF, HALF))

    def wall(self, start: tuple[float, float], end: tuple[float, float], doors: tuple[float, ...] = ()) -> None:
        """An axis-parallel wall with doors centred at fractions of its length."""
        (x0, y0), (x1, y1) = start, end
        length, along_x = math.hypot(x1 - x0, y1 - y0), x1 != x0
        at = 0.0
        for fraction in (*sorted(doors), math.inf):
            width = float(self.rng.uniform(*DOOR))
            edge = length if math.isinf(fraction) else float(np.clip(fraction * length - width / 2, at, length))
            if edge - at > 0.05:
                f = 0.5 * (at + edge) / length
                size = (edge - at, WALL_THICKNESS) if along_x else (WALL_THICKNESS, edge - at)
                self.boxes.append(Box("wall", x0 + f * (x1 - x0), y0 + f * (y1 - y0), *size, WALL_HEIGHT))
            at = min(edge + width, length)
            if not math.isinf(fraction):
                f = (edge + width / 2) / length
                self.keep_clear.append(Box("wall", x0 + f * (x1 - x0), y0 + f * (y1 - y0), width, width, 1.0))

    def fits(self, box: Box, touching: tuple[Box, ...] = ()) -> bool:
        """Whether ``box`` is in bounds, not before a door, and ``GAP`` from all boxes but those in ``touching``."""
        outline = _outline(box)
        others = [b for b in self.boxes if not any(b is t for t in touching)]
        if len(self.boxes) >= MAX_BOXES or np.abs(outline).max() > INNER:
            return False
        clear_of_doors = signed_distance(outline, planar_array(self.keep_clear)).min() > 0.5
        return clear_of_doors and signed_distance(outline, planar_array(others)).min() >= GAP

    def beside(self, kind: str, length: float, width: float, height: float, hosts: tuple[str, ...]) -> tuple[Box, ...]:
        """Place a box along a random box of the classes ``hosts``; both boxes, or () if no try fits."""
        candidates = [b for b in self.boxes if b.kind in hosts and max(b.length, b.width) > length]
        for _ in range(TRIES if candidates else 0):
            host = candidates[self.rng.integers(len(candidates))]
            along_length = host.length >= host.width
            long, short = max(host.length, host.width), min(host.length, host.width)
            side = -1.0 if self.rng.random() < 0.5 else 1.0
            u = float(self.rng.uniform(-0.5, 0.5)) * (long - length)
            v = side * (0.5 * (short + width) + 0.01)
            yaw = host.yaw + (0.0 if along_length else 0.5 * math.pi)
            c, s = math.cos(yaw), math.sin(yaw)
            box = Box(kind, host.x + c * u - s * v, host.y + s * u + c * v, length, width, height, yaw)
            if self.fits(box, (host,)):
                self.boxes.append(box)
                return box, host
        return ()

    def freestanding(self, kind: str, length: float, width: float, height: float) -> None:
        """Place a box at a random pose with ``GAP`` all around, if a try fits."""
        for _ in range(TRIES):
            x, y = self.rng.uniform(-INNER, INNER, 2)
            box = Box(kind, float(x), float(y), length, width, height, float(self.rng.uniform(0.0, math.pi)))
            if self.fits(box):
                self.boxes.append(box)
                return

    def desk(self) -> None:
        """A desk against a wall, mostly with a chair before it."""
        length, width = float(self.rng.uniform(1.2, 1.6)), float(self.rng.uniform(0.6, 0.8))
        placed = self.beside("furniture", length, width, 0.75, ("wall",))
        if not placed or self.rng.random() < 0.3:
            return
        desk = placed[0]
        for side in (-1.0, 1.0):  # the side that is not the wall's
            v = side * (0.5 * (width + 0.45) + 0.01)
            x, y = desk.x - math.sin(desk.yaw) * v, desk.y + math.cos(desk.yaw) * v
            chair = Box("furniture", x, y, 0.45, 0.45, 0.9, desk.yaw)
            if self.fits(chair, placed) and signed_distance(_outline(chair), planar_array([placed[1]])).min() > 0.0:
                self.boxes.append(chair)
                return

    def clutter(self, pallets: int, crates: int, cones: int) -> None:
        """Warehouse clutter: pallets 0.15 m high (some loaded), crates and cones, freestanding or against racks."""
        for _ in range(pallets):
            height = 0.15 if self.rng.random() < 0.6 else float(self.rng.uniform(0.6, 1.2))
            if self.rng.random() < 0.5 or not self.beside("clutter", 1.2, 0.8, height, ("rack", "wall")):
                self.freestanding("clutter", 1.2, 0.8, height)
        for _ in range(crates):
            a, b, c = (float(v) for v in self.rng.uniform(0.35, 0.8, 3))
            self.freestanding("clutter", a, b, c)
        for _ in range(cones):
            self.freestanding("clutter", 0.28, 0.28, 0.45)


def _outline(box: Box) -> np.ndarray:
    """Points on the edge of a box, at most about 0.2 m apart, (P, 2)."""
    n = max(3, math.ceil(max(box.length, box.width) / 0.2) + 1)
    t, one = np.linspace(-1.0, 1.0, n), np.ones(n)
    unit = np.concatenate([np.stack(p, 1) for p in ((t, one), (t, -one), (one, t), (-one, t))])
    _, _, half_length, half_width, c, s = box.planar
    u, v = unit[:, 0] * half_length, unit[:, 1] * half_width
    return np.stack((box.x + c * u - s * v, box.y + s * u + c * v), axis=1)


def _office(layout: _Layout, rng: np.random.Generator) -> None:
    """Rooms on both sides of a corridor, doors, alcoves, sometimes a blocked corridor; desks, chairs, boxes."""
    middle, clear = float(rng.uniform(-0.8, 0.8)), float(rng.uniform(1.9, 2.4))
    blocked = rng.random() < 0.3
    for sign in (-1.0, 1.0):
        y = middle + sign * 0.5 * (clear + WALL_THICKNESS)
        edges = _split(rng, int(rng.integers(2, 4)))
        doors = [float(rng.uniform(a + 1.0, b - 1.0)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        layout.wall((-INNER, y), (INNER, y), tuple((d + INNER) / (2 * INNER) for d in doors))
        for x in edges[1:-1]:
            through = (float(rng.uniform(0.3, 0.7)),) if blocked or rng.random() < 0.4 else ()
            layout.wall((x, y), (x, sign * INNER), through)
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            if b - a > 4.0 and rng.random() < 0.6:  # an alcove: a dead end inside the room
                x, reach = float(rng.uniform(a + 1.6, b - 1.6)), float(rng.uniform(1.8, 2.8))
                layout.wall((x, sign * INNER), (x, sign * (INNER - reach)))
    if blocked:
        x = float(rng.uniform(-3.0, 3.0))
        layout.wall((x, middle - clear / 2), (x, middle + clear / 2))
    for _ in range(12):
        layout.desk()
    for _ in range(4):
        layout.beside("furniture", float(rng.uniform(0.8, 1.2)), 0.4, 1.8, ("wall",))
    for _ in range(3):
        layout.freestanding("furniture", float(rng.uniform(1.0, 1.4)), 0.8, 0.75)
    for _ in range(5):
        length, width, height = (float(v) for v in rng.uniform(0.3, 0.5, 3))
        layout.beside("clutter", length, width, height, ("wall",))
    layout.clutter(pallets=0, crates=5, cones=1)


def _split(rng: np.random.Generator, rooms: int) -> list[float]:
    """Edges of ``rooms`` rooms of about equal width across the scene, (rooms + 1,) [m]."""
    edges = np.linspace(-INNER, INNER, rooms + 1)
    edges[1:-1] += rng.uniform(-0.6, 0.6, rooms - 1)
    return [float(e) for e in edges]


def _rack_row(layout: _Layout, rng: np.random.Generator, y: float, left: float, right: float, depth: float) -> None:
    """A row of racks at ``y`` from ``left`` to ``right`` [m], mostly with one cross passage."""
    cut = float(rng.uniform(left + 2.0, right - 2.0)) if right - left > 6.0 and rng.random() < 0.7 else right
    gap = float(rng.uniform(1.3, 1.8))
    for a, b in ((left, cut - gap / 2), (cut + gap / 2, right)) if cut < right else ((left, right),):
        layout.boxes.append(Box("rack", 0.5 * (a + b), y, b - a, depth, 2.4))


def _hall_extras(layout: _Layout, rng: np.random.Generator, pockets: int) -> None:
    """Columns, a parked vehicle and wall pockets that look like a way through."""
    for _ in range(pockets):
        x, side, reach = float(rng.uniform(-4.0, 4.0)), float(rng.choice((-1.0, 1.0))), float(rng.uniform(1.6, 2.6))
        layout.wall((x, side * INNER), (x, side * (INNER - reach)))
    for _ in range(int(rng.integers(2, 5))):
        layout.freestanding("wall", 0.4, 0.4, WALL_HEIGHT)
    if rng.random() < 0.7:
        layout.freestanding("clutter", 2.0, 1.1, 1.8)


def _single_rack(layout: _Layout, rng: np.random.Generator) -> None:
    """A warehouse hall with one row of racks and clutter."""
    length, left = float(rng.uniform(7.0, 9.5)), float(rng.uniform(-4.8, -3.0))
    _rack_row(layout, rng, float(rng.uniform(-1.5, 1.5)), left, min(left + length, 5.0), float(rng.uniform(0.9, 1.2)))
    _hall_extras(layout, rng, pockets=int(rng.integers(1, 3)))
    layout.clutter(pallets=6, crates=6, cones=6)


def _multi_rack(layout: _Layout, rng: np.random.Generator) -> None:
    """Several aisles; some rows touch a wall, so that an aisle is a dead end or needs a detour."""
    rows, depth = int(rng.integers(3, 5)), float(rng.uniform(0.9, 1.1))
    for y in np.linspace(-INNER, INNER, rows + 2)[1:-1]:
        left, right = float(rng.uniform(-5.2, -4.2)), float(rng.uniform(4.2, 5.2))
        end = rng.random()
        left, right = (-INNER if end < 0.2 else left), (INNER if end > 0.8 else right)
        _rack_row(layout, rng, float(y + rng.uniform(-0.15, 0.15)), left, right, depth)
    for _ in range(8):
        layout.beside("clutter", float(rng.uniform(0.4, 0.8)), float(rng.uniform(0.3, 0.6)), 0.5, ("rack", "wall"))
    layout.clutter(pallets=6, crates=4, cones=6)


def _mixed(layout: _Layout, rng: np.random.Generator) -> None:
    """A hall with two short rack rows joined by doors to a strip of offices."""
    x = float(rng.uniform(0.8, 2.0))
    edges = _split(rng, 3)
    doors = [float(rng.uniform(a + 1.0, b - 1.0)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    layout.wall((x, -INNER), (x, INNER), tuple((d + INNER) / (2 * INNER) for d in doors))
    for y in edges[1:-1]:
        layout.wall((x, y), (INNER, y), (float(rng.uniform(0.3, 0.7)),) if rng.random() < 0.5 else ())
    for y in (float(rng.uniform(-3.8, -2.2)), float(rng.uniform(1.6, 3.2))):
        left = float(rng.uniform(-5.2, -4.6))
        _rack_row(layout, rng, y, left, min(left + float(rng.uniform(3.0, 4.5)), x - 1.5), float(rng.uniform(0.9, 1.1)))
    for _ in range(6):
        layout.desk()
    for _ in range(3):
        layout.beside("furniture", float(rng.uniform(0.8, 1.2)), 0.4, 1.8, ("wall",))
    layout.clutter(pallets=4, crates=6, cones=5)


FAMILIES: dict[str, Callable[[_Layout, np.random.Generator], None]] = {
    "office": _office,
    "single_rack": _single_rack,
    "multi_rack": _multi_rack,
    "mixed": _mixed,
}
