"""The body's data: exact JSON round trip, refused fields, named mismatches, twists within limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from omnibody.robots.spec import Field, Footprint, IOSpec, Limits

DEPTH = Field((16, 64), "float32", "m", (0.0,), (10.0,))
TWIST = Field((3,), "float32", "m/s,m/s,rad/s", (-0.3, 0.0, -1.0), (1.0, 1 / 3, 1e-17), ("vx", "vy", "wz"))
SPEC = IOSpec({"depth": DEPTH, "twist": TWIST, "count": Field((), "int64", "", (0.0,), (5.0,))}, TWIST, 10.0)


def test_json_round_trip_is_exact() -> None:
    back = IOSpec.from_json(SPEC.to_json())
    assert back == SPEC and back.to_json() == SPEC.to_json()
    assert isinstance(back.action.low, tuple) and isinstance(back.obs["depth"].shape, tuple)


def test_json_of_another_spec_differs() -> None:
    other = dataclasses.replace(SPEC, action=dataclasses.replace(TWIST, high=(1.0, 1 / 3, 2e-17)))
    assert IOSpec.from_json(other.to_json()) != SPEC


@pytest.mark.parametrize("bound", ["low", "high"])
def test_field_refuses_bounds_of_another_length(bound: str) -> None:
    with pytest.raises(ValueError, match=rf"Field\.{bound} needs 1 or 3 numbers for shape \(3,\), got 2"):
        dataclasses.replace(TWIST, **{bound: (0.0, 0.0)})
    dataclasses.replace(TWIST, **{bound: (0.5,)})


def test_field_refuses_names_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"needs 3 names .* got \('vx',\)"):
        dataclasses.replace(TWIST, names=("vx",))


def test_mismatch_names_both_values() -> None:
    slower = dataclasses.replace(SPEC, rate_hz=5.0)
    wide = dataclasses.replace(SPEC, action=DEPTH)
    blind = dataclasses.replace(SPEC, obs={"twist": TWIST})
    coarse = dataclasses.replace(SPEC, obs=SPEC.obs | {"depth": dataclasses.replace(DEPTH, shape=(8, 32))})
    assert SPEC.mismatch(slower) == "rate_hz: wanted 10.0, came 5.0"
    assert SPEC.mismatch(wide) == "action shape: wanted (3,), came (16, 64)"
    assert SPEC.mismatch(blind) == "observation 'depth': wanted, but only ['twist'] came"
    assert SPEC.mismatch(coarse) == "observation 'depth' shape: wanted (16, 64), came (8, 32)"


def test_equal_specs_and_additional_observations_match() -> None:
    richer = dataclasses.replace(SPEC, obs=SPEC.obs | {"rgb": DEPTH})
    assert SPEC.mismatch(SPEC) == "" and SPEC.mismatch(richer) == ""
    assert richer.mismatch(SPEC) != ""


def test_clip_keeps_twists_within_limits_and_turning_radius() -> None:
    limits = Limits((-0.5, 0.0, -1.0), (1.0, 0.0, 1.0), (1.0, 0.0, 1.0), min_turning_radius=0.6)
    twist = np.random.default_rng(0).uniform(-3, 3, (1000, 3))
    kept = twist.copy()
    clipped = limits.clip(twist)
    assert (twist == kept).all()
    assert (clipped >= limits.velocity_low).all() and (clipped <= limits.velocity_high).all()
    assert (np.abs(clipped[:, 2]) * 0.6 <= np.abs(clipped[:, 0]) + 1e-12).all()
    np.testing.assert_array_equal(limits.clip(clipped), clipped)
    free = dataclasses.replace(limits, min_turning_radius=0.0).clip(twist)
    assert (np.abs(free[:, 2]) * 0.6 > np.abs(free[:, 0]) + 1e-12).any()


def test_footprint_circles() -> None:
    footprint = Footprint(0.8, 0.6, 1.0)
    assert footprint.circumscribed_radius == pytest.approx(0.5)
    assert footprint.inscribed_radius == pytest.approx(0.3)
