"""What ``omnibody bench ros`` makes of the times it heard, in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from omnibody.deploy_ros.workstation.bench_ros import RosBenchCfg, _intervals  # noqa: E402


def test_waits_and_jitter_are_told_from_the_simulators_pace() -> None:
    readings = np.array([0.0, 0.1, 0.2, 0.45, 0.55])  # the simulator pauses once
    waits = np.array([0.005, 0.007, 0.005, 0.005, 0.005])
    commands = [(at, n != 3) for n, at in enumerate((readings + waits).tolist())]  # the fourth stops
    latency, jitter, pace = _intervals(SimpleNamespace(odometry=readings.tolist(), commands=commands), 100.0)
    np.testing.assert_allclose(latency, [5.0, 7.0, 5.0, 5.0])
    np.testing.assert_allclose(jitter, [2.0, 2.0], atol=1e-9)  # only between commands that drive
    np.testing.assert_allclose(pace, [0.0, 0.0], atol=1e-9)
    driven = [(at, True) for at, _ in commands]
    _, jitter, pace = _intervals(SimpleNamespace(odometry=readings.tolist(), commands=driven), 100.0)
    np.testing.assert_allclose((jitter.max(), pace.max()), (2.0, 150.0), atol=1e-9)  # the pause is not the node's


def test_a_drive_too_short_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="minutes: wanted more than"):
        RosBenchCfg(minutes=0.01)
