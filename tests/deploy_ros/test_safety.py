"""The safety filter: limits, obstacles, and what happens without them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnibody.deploy_ros.safety import SafetyFilter, cloud_obstacles, depth_obstacles, scan_obstacles
from omnibody.robots.table import load_robot

CARRIER = load_robot("carrier")
FAR = np.full((16, 64), 10.0, np.float32)
NOTHING = np.zeros((0, 2))


@pytest.mark.parametrize("robot", ["carrier", "spot", "go2"])
def test_the_filter_bounds_velocity_and_acceleration(robot: str) -> None:
    body = load_robot(robot)
    safety, rng, last = SafetyFilter(body, 0.1), np.random.default_rng(0), np.zeros(3)
    for _ in range(200):
        wish = rng.normal(0.0, 5.0, 3)
        out = safety.filter(wish, NOTHING)
        assert (out <= np.array(body.limits.velocity_high) + 1e-9).all()
        assert (out >= np.array(body.limits.velocity_low) - 1e-9).all()
        if body.limits.min_turning_radius == 0.0:
            assert (np.abs(out - last) <= np.array(body.limits.acceleration) * 0.1 + 1e-9).all()
        last = out
    assert safety.counts["velocity"] > 0 and safety.counts["acceleration"] > 0


def test_a_modest_command_passes_untouched() -> None:
    safety = SafetyFilter(CARRIER, 0.1)
    assert np.allclose(safety.filter(np.array([0.05, 0.0, 0.02]), NOTHING), [0.05, 0.0, 0.02])
    assert sum(safety.counts.values()) == 0


def drive_at(wall: float, see: bool) -> float:
    """How near a point robot with the filter comes to a wall ``wall`` [m] ahead when the policy wants full speed."""
    safety, x = SafetyFilter(CARRIER, 0.1), 0.0
    for _ in range(300):
        points = np.array([[wall - x, y] for y in np.linspace(-1, 1, 21)]) if see else NOTHING
        x += 0.1 * float(safety.filter(np.array([CARRIER.limits.velocity_high[0], 0.0, 0.0]), points)[0])
    return wall - x - 0.5 * CARRIER.footprint.length


def test_it_stops_before_a_wall_and_would_not_without_seeing_it() -> None:
    assert 0.0 < drive_at(4.0, see=True) < 0.5
    assert drive_at(4.0, see=False) < 0.0


def test_what_is_beside_or_behind_does_not_brake() -> None:
    safety, out = SafetyFilter(CARRIER, 0.1), np.zeros(3)
    for _ in range(50):
        out = safety.filter(np.array([0.5, 0.0, 0.0]), np.array([[0.5, 2.0], [-1.5, 0.0]]))
    assert np.allclose(out, [0.5, 0.0, 0.0]) and safety.counts["obstacle"] == 0


def test_points_of_depth_scan_and_cloud() -> None:
    wall = np.full((16, 64), 2.0, np.float32)
    points = depth_obstacles(wall, CARRIER.camera, CARRIER.base_height, 1.0)
    assert len(points) and points[:, 0].min() > 1.0 and points[:, 0].max() < 3.0
    assert len(depth_obstacles(FAR, CARRIER.camera, CARRIER.base_height, 1.0)) == 0
    assert np.allclose(scan_obstacles(np.array([[1.0, math.pi / 2], [np.inf, 0.0]])), [[0.0, 1.0]])
    floor, table, ceiling = -0.2, 0.3, 0.9  # heights over a base that is 0.2 m high
    cloud = np.array([[1.0, 0.5, z] for z in (floor, table, ceiling)])
    assert cloud_obstacles(cloud, 0.2, 1.0).tolist() == [[1.0, 0.5]]
