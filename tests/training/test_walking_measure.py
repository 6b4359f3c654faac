"""The measure of walking bodies: courses as described, errors in closed form, falls counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot
from omnibody.training.walking.measure import (
    COMMAND_PERIOD,
    PUSH_PERIOD,
    STOP_SHARE,
    main,
    measure,
    moving_average,
    random_course,
    speed_error,
)

DT = 0.02


def test_courses_are_as_described() -> None:
    """The share of stops is within 5 standard deviations: a false alarm in a million."""
    body, runs, seconds = load_robot("go2"), 200, 12.0
    course = random_course(body, DT, runs, seconds, 0.5, np.random.default_rng(0))
    per_command, per_push = round(COMMAND_PERIOD / DT), round(PUSH_PERIOD / DT)
    changes = np.flatnonzero((np.diff(course.twist, axis=0) != 0).any(axis=(1, 2))) + 1
    assert list(changes) == list(range(per_command, len(course.twist), per_command))
    assert (course.twist >= body.limits.velocity_low).all() and (course.twist <= body.limits.velocity_high).all()
    stops = (course.twist[::per_command] == 0).all(axis=2)
    assert abs(stops.mean() - STOP_SHARE) < 5 * np.sqrt(STOP_SHARE * (1 - STOP_SHARE) / stops.size)
    size = np.linalg.norm(course.push, axis=2)
    pushed = np.flatnonzero(size[:, 0])
    assert list(pushed) == list(range(per_push // 2, len(size), per_push))
    np.testing.assert_allclose(size[pushed], 0.5)
    assert np.ptp(np.arctan2(course.push[pushed, :, 1], course.push[pushed, :, 0])) > np.pi


def test_same_seed_same_course() -> None:
    body = load_robot("go2")
    one, two, other = (random_course(body, DT, 3, 6.0, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.twist == two.twist).all() and (one.push == two.push).all()
    assert (one.twist != other.twist).any()


def test_sway_averages_out_and_an_offset_does_not() -> None:
    time = np.arange(400) * DT
    command = np.full((400, 1, 3), 0.5)
    sway = 0.5 + 0.3 * np.sin(2 * np.pi * time / 0.4)
    track = np.repeat(sway[:, None, None], 3, axis=2)
    np.testing.assert_allclose(speed_error(track, command, 20), 0.0, atol=1e-9)
    np.testing.assert_allclose(speed_error(track + 0.1, command, 20), 0.1, atol=1e-9)
    assert speed_error(track, command, 13).min() > 0.01  # negative control: no whole period


def test_what_follows_a_fall_does_not_count() -> None:
    command, track = np.zeros((100, 2, 3)), np.full((100, 2, 3), 0.2)
    track[50:, 0] = np.nan
    np.testing.assert_allclose(speed_error(track, command, 10), 0.2)
    assert np.isnan(moving_average(track, 10)[45:, 0]).all()


def test_the_result_is_plain_data_and_repeats() -> None:
    first, again, other = (measure(load_robot("go2"), 3, 4.0, seed=seed) for seed in (0, 0, 1))
    assert json.loads(json.dumps(first)) == first == again != other
    assert first["falls"] == 0 and first["survival"] == 1.0 and 0.3 < first["low"] < 0.5


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk.json"
    assert main(["robots=[go2]", "runs=2", "seconds=3", f"out={out}"]) == 0
    assert "go2" in capsys.readouterr().out and json.loads(out.read_text())[0]["runs"] == 2
    assert main(["robots=[go2]", "runs=4", "seconds=6", "push=4", "grip=0.1"]) == 1
    with pytest.raises(UserError, match="did you mean go2"):
        main(["robots=[go3]"])
    with pytest.raises(UserError, match="runs"):
        main(["runs=0"])
