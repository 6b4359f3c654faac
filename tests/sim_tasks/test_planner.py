"""Planning on the grid: closed forms, a reference implementation, footprints, and the route encoding by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import lil_matrix
from scipy.sparse.csgraph import dijkstra

from omnibody.robots.route import ROUTE_SEGMENTS
from omnibody.robots.spec import Footprint
from omnibody.sim_tasks.planner import (
    MOVE_LENGTHS,
    MOVES,
    Roadmap,
    footprint_discs,
    roadmap,
    routes,
    straight_routes,
)
from omnibody.sim_tasks.scene import Box, Scene

SMALL = Footprint(0.4, 0.4, 0.5)
LONG = Footprint(1.1, 0.6, 0.5)
Hall = Callable[..., Scene]


def cell(ways: Roadmap, x: float, y: float) -> int:
    return int(ways.scene.grid.cells(np.array([x, y])))


def length(ways: Roadmap, start: tuple[float, float], goal: tuple[float, float]) -> float:
    return float(ways.lengths(cell(ways, *goal)).flat[cell(ways, *start)])


def route(ways: Roadmap, start: tuple[float, float], goal: tuple[float, float]) -> np.ndarray:
    _, move = ways.fields(cell(ways, *goal))
    at = np.array([start]), np.array([goal])
    return routes(move[None], ways.nearest[None], *at, ways.scene.grid)[0]


def test_an_empty_room_is_crossed_within_the_grid_bound(hall: Hall):
    """Sixteen directions cost at most 1 / cos(13.3 deg) = 2.8 % over the straight line, and never less than it."""
    ways = roadmap(hall(), SMALL)
    goal = cell(ways, 0.05, 0.05)
    straight = np.linalg.norm(ways.scene.grid.centres() - ways.scene.grid.centres()[goal], axis=1)
    lengths = ways.lengths(goal).ravel()
    away = ways.open.ravel() & (straight > 0.5)
    ratio = lengths[away] / straight[away]
    assert ratio.min() > 1.0 - 1e-5 and ratio.max() < 1.028
    # Control: eight directions would exceed it.
    assert 1.0 / math.cos(math.pi / 8) > 1.028


def test_a_wall_is_passed_through_its_gap(hall: Hall):
    wall = (Box("wall", 0.0, -3.0, 0.2, 4.0, 2.0), Box("wall", 0.0, 3.0, 0.2, 4.0, 2.0))  # gap: y in (-1, 1)
    ways = roadmap(hall(*wall), SMALL)
    start, goal = (-2.05, 3.05), (2.05, 3.05)
    corner = 0.1, 1.0  # of the wall; the centre passes it at the inscribed radius and the margin or wider
    shortest = 2.0 * math.hypot(2.05 - corner[0], 3.05 - corner[1]) + 2 * corner[0]
    assert shortest < length(ways, start, goal) < 1.15 * shortest
    # Control: without the wall the way is straight.
    assert length(roadmap(hall(), SMALL), start, goal) == pytest.approx(4.1, abs=0.01)
    # The cost keeps off the walls, so the planned way is at least as long as the shortest one.
    way = route(ways, start, goal)
    planned = np.hypot(way[:, 2] - way[:, 0], way[:, 3] - way[:, 1]).sum()
    assert planned > 0.97 * length(ways, start, goal)
    assert ways.scene.distance_at(way[:, 2:]).min() > SMALL.inscribed_radius


@pytest.mark.parametrize(("width", "passes"), [(0.6, True), (1.0, False)])
def test_a_long_body_passes_a_gap_narrower_than_its_length(hall: Hall, width: float, passes: bool):
    """A gap of 0.9 m: 1.1 m x 0.6 m fits lengthways, though its circle (1.25 m) does not; 1.1 m x 1.0 m does not."""
    wall = (Box("wall", 0.0, -2.725, 0.2, 4.55, 2.0), Box("wall", 0.0, 2.725, 0.2, 4.55, 2.0))
    ways = roadmap(hall(*wall), Footprint(1.1, width, 0.5))
    sides = [ways.open.flat[cell(ways, x, 0.05)] for x in (-3.0, 3.0)]
    assert all(sides) is passes and any(sides)


def test_costs_agree_with_a_reference_implementation(hall: Hall):
    scene = Scene("small", hall(Box("rack", 0.5, 0.3, 1.0, 0.5, 2.0, 0.3)).boxes, (-2.0, -1.5), (2.0, 1.5))
    ways = roadmap(scene, SMALL)
    rows, columns = ways.open.shape
    graph = lil_matrix((rows * columns, rows * columns))
    weight = ways.weight.ravel()
    for here in np.flatnonzero(ways.open.ravel()):
        for m, (dx, dy) in enumerate(MOVES):
            if ways.moves.flat[here] >> m & 1:
                there = here + dy * columns + dx
                graph[here, there] = MOVE_LENGTHS[m] * 0.5 * (weight[here] + weight[there]) * 0.1
    goal = cell(ways, -1.0, -1.0)
    wanted = dijkstra(graph.tocsr(), indices=goal)
    cost, move = ways.fields(goal)
    np.testing.assert_allclose(cost[ways.open], wanted.reshape(rows, columns)[ways.open], rtol=1e-4)
    # Each next move goes downhill by exactly its price.
    for here in np.flatnonzero(ways.open.ravel()):
        if here != goal:
            dx, dy = MOVES[move.flat[here]]
            step = graph[here, here + dy * columns + dx]
            assert cost.flat[here] - step == pytest.approx(cost.flat[here + dy * columns + dx], abs=1e-3)


def test_discs_cover_the_footprint():
    for footprint in (LONG, SMALL, Footprint(0.5, 0.6, 1.0), Footprint(0.3, 0.9, 1.0)):
        centres, radius = footprint_discs(footprint)
        x, y = np.meshgrid(np.linspace(-0.5, 0.5, 41) * footprint.length, np.linspace(-0.5, 0.5, 41) * footprint.width)
        points = np.stack((x.ravel(), y.ravel()), 1)
        gap = np.linalg.norm(points[:, None] - centres, axis=2).min(1)
        assert gap.max() <= radius + 1e-9
        assert radius < footprint.inscribed_radius * 1.5


def test_straight_encoding_by_hand():
    way = straight_routes(
        np.array([(1.0, 2.0), (0.0, 0.0), (3.0, 3.0)]), np.array([(3.5, 2.0), (0.0, 12.5), (3.0, 3.0)])
    )
    third = 2.5 / 3.0  # 2.5 m: three equal segments of at most 1 m
    np.testing.assert_allclose(way[0, :3, 0], 1.0 + third * np.arange(3))
    np.testing.assert_allclose(way[0, :3, 2], 1.0 + third * np.arange(1, 4))
    np.testing.assert_allclose(way[0, 3:], np.tile((3.5, 2.0, 3.5, 2.0), (7, 1)))
    piece = 12.5 / 13.0  # cut after ten of thirteen
    np.testing.assert_allclose(way[1, :, 3], piece * np.arange(1, 11))
    np.testing.assert_allclose(way[2], np.full((10, 4), 3.0))


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5, 7.0, 11.4])
def test_a_planned_straight_way_is_encoded_like_the_straight_one(hall: Hall, distance: float):
    ways = roadmap(hall(), SMALL)
    start, goal = (-5.65, 0.05), (-5.65 + distance, 0.05)
    wanted = straight_routes(np.array([start]), np.array([goal]))[0]
    np.testing.assert_allclose(route(ways, start, goal), wanted, atol=1e-6)


def test_segments_are_equal_and_join_up(hall: Hall):
    wall = (Box("wall", 0.0, -2.0, 0.2, 6.0, 2.0),)
    way = route(roadmap(hall(*wall), SMALL), (-3.0, -3.03), (2.98, -3.0))
    np.testing.assert_allclose(way[1:, :2], way[:-1, 2:])
    np.testing.assert_allclose(way[0, :2], (-3.0, -3.03))
    lengths = np.hypot(way[:, 2] - way[:, 0], way[:, 3] - way[:, 1])
    assert len(way) == ROUTE_SEGMENTS and lengths.max() <= 1.0 + 1e-9 and lengths.min() > 0.85


def test_a_robot_in_an_inflated_cell_still_gets_a_route(hall: Hall):
    ways = roadmap(hall(), LONG)
    start, goal = (5.95, 4.95), (3.05, 3.05)
    assert not ways.open.flat[cell(ways, *start)]
    way = route(ways, start, goal)
    np.testing.assert_allclose(way[0, :2], start)
    np.testing.assert_allclose(way[-1, 2:], goal)
    cost, _ = ways.fields(cell(ways, *goal))
    assert np.isfinite(cost).all()
    assert cost.flat[cell(ways, *start)] > cost.flat[cell(ways, 5.0, 4.0)]
