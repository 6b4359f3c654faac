"""Rewards of the point-goal task: potentials that telescope, dead ends that do not pay, the original's numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from omnibody.robots.spec import Embodiment
from omnibody.sim_tasks.scene import Box
from omnibody.sim_tasks.task import World

Make = Callable[..., Any]


def total(task: Any, worlds: list[World], term: str) -> float:
    return sum(float(task.reward(w, torch.zeros(1, 3))[1][term]) for w in worlds)


def test_progress_telescopes(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    """Whatever the way, its progress sums to the cost at its start minus that at its end."""
    rng = np.random.default_rng(0)
    task = nav(body, hall(Box("rack", 0.0, 0.0, 1.0, 4.0, 1.0)))
    start = (-3.0, 0.0, 0.0)
    task.place(0, 0, start, (3.0, 0.0, 0.0))
    walk = np.array(start) + np.cumsum(rng.uniform(-0.2, 0.2, (40, 3)), axis=0)
    ends = [float(task.measures(world(body, [p]))["cost_to_go"]) for p in (start, walk[-1])]
    assert total(task, [world(body, [p]) for p in walk], "progress") == pytest.approx(ends[0] - ends[1], abs=1e-3)
    # A closed way pays nothing.
    task.place(0, 0, start, (3.0, 0.0, 0.0))
    assert total(task, [world(body, [p]) for p in (*walk, start)], "progress") == pytest.approx(0.0, abs=1e-3)


def test_a_dead_end_does_not_pay(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    """Defect 6: driving into a pocket towards a goal behind it must not look like progress."""
    pocket = (
        Box("wall", 2.0, 0.0, 0.2, 6.0, 2.0),
        Box("wall", 0.5, 3.0, 3.2, 0.2, 2.0),
        Box("wall", 0.5, -3.0, 3.2, 0.2, 2.0),
    )
    start, deep, goal = (-1.5, 0.05, 0.0), (1.0, 0.05, 0.0), (4.0, 0.05, 0.0)
    rewards = {}
    for reward, term in (("geodesic", "progress"), ("compass_exact", "distance")):
        task = nav(body, hall(*pocket), reward=reward)
        task.place(0, 0, start, goal)
        if reward == "geodesic":
            rewards[reward] = total(task, [world(body, [deep])], term)
        else:
            near, far = (total(task, [world(body, [p])], term) for p in (deep, start))
            rewards[reward] = near - far
    assert rewards["geodesic"] < -1.0
    assert rewards["compass_exact"] > 0.2  # control: the Euclidean reward pays for it
    # Without the pocket both agree.
    task = nav(body, hall())
    task.place(0, 0, start, goal)
    assert total(task, [world(body, [deep])], "progress") > 2.0


def test_the_originals_numbers(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    task = nav(body, hall(), reward="compass_exact")
    task.place(0, 0, (-2.0, 0.0, 0.0), (1.0, 0.0, 0.0))

    def reward(x: float, **more: bool) -> float:
        return float(task.reward(world(body, [(x, 0.0, 0.0)], **more), torch.zeros(1, 3))[0])

    assert reward(-2.0) == pytest.approx(-0.3)
    assert reward(1.0) == pytest.approx(200.0)
    assert reward(1.0, contact=True) == pytest.approx(-100.0)
    assert reward(0.0, contact=True) == pytest.approx(-100.1)


def test_terms_sum_and_have_their_signs(body: Embodiment, hall: Make, nav: Make, world: Callable[..., World]):
    task = nav(body, hall())
    task.place(0, 0, (-2.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    reward, terms = task.reward(world(body, [(-1.5, 0.0, 0.0)]), torch.tensor([[1.0, 0.0, 0.5]]))
    assert float(reward) == pytest.approx(sum(float(v) for v in terms.values()), abs=1e-6)
    assert float(terms["progress"]) == pytest.approx(0.5, abs=0.05)
    assert float(terms["action_rate"]) == pytest.approx(-0.02 * 1.25)
    assert float(terms["time"]) == pytest.approx(-0.01)
    # The same action again is no change; a reset forgets it.
    again = task.reward(world(body, [(-1.5, 0.0, 0.0)]), torch.tensor([[1.0, 0.0, 0.5]]))[1]
    assert float(again["action_rate"]) == 0.0 and float(again["progress"]) == pytest.approx(0.0, abs=1e-5)
    assert float(task.reward(world(body, [(1.0, 0.0, 0.0)]), torch.zeros(1, 3))[1]["goal"]) == 10.0
    assert float(task.reward(world(body, [(1.0, 0.0, 0.0)], contact=True), torch.zeros(1, 3))[1]["collision"]) == -10.0
