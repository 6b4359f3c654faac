"""A ROS domain of its own for every test that starts ROS."""

import random

import pytest


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps discovery on this machine, in a domain that no other test or robot is likely to use."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.randint(1, 100)))
