"""From a name or a file to a body and its plants, and the errors on the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omnibody.robots.carrier import EMBODIMENT as CARRIER
from omnibody.robots.carrier import CarrierPlant
from omnibody.robots.errors import UserError
from omnibody.robots.surrogate import KinematicPlant, ServoPlant
from omnibody.robots.table import ROBOTS, load_robot, make_plant

ROBOT_FILE = """
import dataclasses
from omnibody.robots.carrier import EMBODIMENT as CARRIER, CarrierPlant

class HeavyPlant(CarrierPlant):
    timestep = 0.004

EMBODIMENT = dataclasses.replace(CARRIER, name="heavy", plants=CARRIER.plants | {"T2": f"{__file__}:HeavyPlant"})
"""


def message(name: str) -> str:
    with pytest.raises(UserError) as caught:
        load_robot(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_give_bodies_of_that_name() -> None:
    assert load_robot("carrier") is CARRIER
    assert set(ROBOTS) == {"carrier", "omni", "ackermann", "go2", "aliengo", "go1", "spot", "g1"}


@pytest.mark.parametrize("typed, meant", [("carier", "carrier"), ("Omni", "omni"), ("akkerman", "ackermann")])
def test_a_typo_is_told_the_nearest_name(typed: str, meant: str) -> None:
    assert f"unknown robot {typed!r}; did you mean {meant}" in message(typed)


def test_a_name_like_no_other_is_told_them_all() -> None:
    assert all(name in message("zzzzzzzz") for name in ROBOTS)


def test_tiers_give_their_plants() -> None:
    kinds = {tier: type(make_plant(CARRIER, tier)) for tier in ("T0", "T1", "T2")}
    assert kinds == {"T0": KinematicPlant, "T1": ServoPlant, "T2": CarrierPlant}
    assert all(make_plant(CARRIER, tier).tier == tier for tier in kinds)


def test_a_missing_tier_names_those_there_are() -> None:
    poor = dataclasses.replace(CARRIER, plants={"T0": CARRIER.plants["T0"], "T1": CARRIER.plants["T1"]})
    with pytest.raises(UserError, match="robot 'carrier' has no tier 'T2'; it has T0, T1"):
        make_plant(poor, "T2")


def test_a_file_of_ones_own_brings_its_body_and_plant(tmp_path: Path) -> None:
    path = tmp_path / "heavy.py"
    path.write_text(ROBOT_FILE)
    heavy = load_robot(str(path))
    assert heavy.name == "heavy" and load_robot(str(path)) is heavy
    plant = make_plant(heavy, "T2")
    assert type(plant).__name__ == "HeavyPlant" and plant.timestep == 0.004
    assert isinstance(make_plant(heavy, "T1"), ServoPlant)


def test_files_that_will_not_do(tmp_path: Path) -> None:
    assert "no file" in message(str(tmp_path / "absent.py"))
    (tmp_path / "empty.py").write_text("X = 1\n")
    assert "defines no EMBODIMENT" in message(str(tmp_path / "empty.py"))
    (tmp_path / "wrong.py").write_text("EMBODIMENT = 1\n")
    assert "must be an Embodiment, came int" in message(str(tmp_path / "wrong.py"))


def test_a_broken_file_shows_its_own_error_every_time(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_robot(str(tmp_path / "broken.py"))


def test_a_model_file_asks_how_it_drives() -> None:
    assert "EMBODIMENT = from_mjcf('some/bot.urdf', 'differential'" in message("some/bot.urdf")
