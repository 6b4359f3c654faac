"""Planning with the heading: who needs it, what turns cost, and what only a turned body can do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from omnibody.robots.spec import Embodiment, Footprint
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.planner import roadmap
from omnibody.sim_tasks.pose_planner import (
    HEADINGS,
    REVERSE_FACTOR,
    SIDEWAYS_FACTOR,
    TURN_LENGTH,
    at_heading,
    heading_matters,
    pose_cost,
)
from omnibody.sim_tasks.scene import Box, Scene

Hall = Callable[..., Scene]


def costs(body: Embodiment, scene: Scene, goal: tuple[float, float]) -> Callable[[float, float, float], float]:
    """Cost-to-go of a body at (x, y, yaw), without the weight of near obstacles."""
    ways = roadmap(scene, body.footprint)
    ways = replace(ways, weight=np.ones_like(ways.weight))
    cell = int(scene.grid.cells(np.array(goal)))
    cost = pose_cost(ways, body.limits, cell, ways.fields(cell)[0])

    def look_up(x: float, y: float, yaw: float) -> float:
        column, row = (np.array((x, y)) - scene.grid.origin) / scene.grid.resolution
        return at_heading(cost, column, row, yaw)

    return look_up


def test_cars_and_long_bodies_need_it():
    car, carrier = load_robot("ackermann"), load_robot("carrier")
    assert heading_matters(car.footprint, car.limits)
    assert not heading_matters(carrier.footprint, carrier.limits)
    assert heading_matters(Footprint(1.22, 0.52, 0.6), carrier.limits)


def test_headings_are_interpolated_exactly_at_the_lattice_and_between():
    cost = np.zeros((16, 3, 3))
    cost += np.arange(16)[:, None, None]
    for m, yaw in enumerate(HEADINGS):
        assert at_heading(cost, 1.0, 1.0, yaw) == pytest.approx(m)
        assert at_heading(cost, 1.0, 1.0, yaw - 4 * np.pi) == pytest.approx(m)
    assert at_heading(cost, 1.0, 1.0, 0.5 * (HEADINGS[5] + HEADINGS[6])) == pytest.approx(5.5)
    assert at_heading(cost, 1.0, 1.0, 0.5 * (HEADINGS[15] + 2 * np.pi)) == pytest.approx(7.5)  # 15 and 0


def test_a_turning_body_pays_for_its_turns(hall: Hall):
    body = replace(load_robot("carrier"), footprint=Footprint(1.0, 0.4, 0.5))
    cost = costs(body, hall(), (3.05, 0.05))
    assert cost(0.05, 0.05, 0.0) == pytest.approx(3.0, abs=0.01)
    assert cost(0.05, 0.05, np.pi) == pytest.approx(min(3.0 + TURN_LENGTH * np.pi, REVERSE_FACTOR * 3.0), abs=0.02)
    assert cost(2.55, 0.05, np.pi) == pytest.approx(REVERSE_FACTOR * 0.5, abs=0.02)  # backing up is cheaper here
    beside = cost(3.05, -0.45, 0.0)
    assert beside == pytest.approx(0.5 + TURN_LENGTH * np.pi / 2, abs=0.02)
    holonomic = costs(replace(load_robot("omni"), footprint=body.footprint), hall(), (3.05, 0.05))
    assert holonomic(3.05, -0.45, 0.0) == pytest.approx(SIDEWAYS_FACTOR * 0.5, abs=0.02) != beside


def test_a_car_goes_round(hall: Hall):
    """Turning about costs a car at least a half circle, half of it backwards or not, and never is free."""
    car = load_robot("ackermann")
    cost, radius = costs(car, hall(), (0.05, 0.05)), car.limits.min_turning_radius
    assert cost(-3.05, 0.05, 0.0) == pytest.approx(3.1, abs=0.02)
    about = cost(-3.05, 0.05, np.pi)
    assert 3.1 + radius < about < 3.1 * REVERSE_FACTOR + 0.02
    assert cost(0.05, -0.45, 0.0) > 0.5 + 0.5 * radius  # beside the goal, which a car cannot slide to


def test_a_long_body_in_a_corner_must_turn_first(hall: Hall):
    """A corridor 1 m wide: lengthways it is straight ahead; across, the body does not fit and is told it is far."""
    walls = [Box("wall", 0.0, y, 8.0, 0.2, 2.0) for y in (-0.6, 0.6)]
    body: Any = replace(load_robot("omni"), footprint=Footprint(1.2, 0.5, 0.5))
    cost = costs(body, hall(*walls), (5.05, 0.05))
    assert cost(0.05, 0.05, 0.0) == pytest.approx(5.0, abs=0.02)
    assert cost(0.05, 0.05, np.pi / 2) > 8.0
    # Control: without the corridor the same turn is cheap.
    assert costs(body, hall(), (5.05, 0.05))(0.05, 0.05, np.pi / 2) < 5.0 + TURN_LENGTH * np.pi / 2 + 0.05
