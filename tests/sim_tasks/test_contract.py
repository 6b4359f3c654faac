"""Every task of mobile bodies in the table fulfils the contract of sim_tasks/task.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment
from omnibody.sim_tasks.families import make_scene
from omnibody.sim_tasks.ros_map import save_ros_map
from omnibody.sim_tasks.table import TASKS, TOOL_TASKS, body_of, task_config, task_names
from omnibody.sim_tasks.task import SEMANTIC_CLASSES, World

NUM = 5


@pytest.fixture(params=[name for name in task_names() if body_of(name) is None])
def task(request: pytest.FixtureRequest, body: Embodiment, tmp_path: Path) -> Any:
    settings: dict[str, Any] = {}
    if request.param.endswith("/map"):
        save_ros_map(make_scene("single_rack", 2), tmp_path / "map.yaml")
        settings["map"] = str(tmp_path / "map.yaml")
    else:
        settings["num_scenes"] = 4
    made = task_config(request.param, **settings).build(body, NUM)
    assert made.name == request.param
    return made


def begin(task: Any, world: Callable[..., World], body: Embodiment, first: int = 0) -> World:
    starts = task.reset(np.arange(NUM), first + np.arange(NUM), 9)
    return world(body, np.array([s.pose for s in starts]))


def test_it_says_what_it_is(task: Any):
    assert task.instruction and task.max_seconds > 0 and task.obs_fields


def test_observations_keep_their_word(task: Any, world: Callable[..., World], body: Embodiment):
    for first in range(0, 4 * NUM, NUM):
        obs = task.observe(begin(task, world, body, first))
        assert obs.keys() == task.obs_fields.keys()
        for key, field in task.obs_fields.items():
            assert obs[key].shape == (NUM, *field.shape) and str(obs[key].dtype) == f"torch.{field.dtype}"
            assert obs[key].isfinite().all()
            low, high = (torch.tensor(bound) for bound in (field.low, field.high))
            assert ((obs[key] >= low) & (obs[key] <= high)).all(), key


def test_resets_are_functions_of_seed_and_episode(task: Any, world: Callable[..., World], body: Embodiment):
    first, second = begin(task, world, body), task.observe(begin(task, world, body))
    begin(task, world, body, 50)
    third = task.observe(begin(task, world, body))
    assert all(torch.equal(second[key], third[key]) for key in second)
    assert not torch.equal(first.position, begin(task, world, body, 50).position)  # control


def test_resetting_a_row_leaves_the_others_alone(task: Any, world: Callable[..., World], body: Embodiment):
    state = begin(task, world, body)
    before = task.observe(state)
    task.reset(np.array([2]), np.array([77]), 9)
    after = task.observe(state)
    changed = [bool((before["goal"][row] != after["goal"][row]).any()) for row in range(NUM)]
    assert changed == [row == 2 for row in range(NUM)]


def test_rewards_ends_and_measures(task: Any, world: Callable[..., World], body: Embodiment):
    state = begin(task, world, body)
    reward, terms = task.reward(state, torch.zeros(NUM, 3))
    assert reward.shape == (NUM,) and reward.dtype == torch.float32
    torch.testing.assert_close(sum(terms.values()), reward)
    for flag in (task.success(state), task.failure(state)):
        assert flag.shape == (NUM,) and flag.dtype == torch.bool and not flag.any()
    for value in task.measures(state).values():
        assert value.shape == (NUM,) and value.isfinite().all()
    assert task.failure(world(body, state.position.numpy(), contact=True)).all()


def test_the_expert_stays_within_the_limits(task: Any, world: Callable[..., World], body: Embodiment):
    action = task.expert(begin(task, world, body), np.random.default_rng(0))
    assert action.shape == (NUM, 3) and action.dtype == torch.float32
    clipped = body.limits.clip(action.double().numpy().copy())
    np.testing.assert_allclose(clipped, action.numpy(), atol=1e-6)


def test_its_scenes_compile(task: Any, world: Callable[..., World], body: Embodiment):
    for start in task.reset(np.arange(2), np.arange(2), 0):
        spec = mujoco.MjSpec()
        task.build(spec, start.scene)
        model = spec.compile()
        names = [model.geom(i).name for i in range(model.ngeom)]
        assert {name.split("/")[0] for name in names} <= set(SEMANTIC_CLASSES)
        assert "floor/0" in names and model.body("scene").id > 0
    with pytest.raises(ValueError, match="scenes"):
        task.build(mujoco.MjSpec(), 10_000)


def test_names_are_found_or_refused_with_the_nearest():
    assert set(name.split("/")[0] for name in task_names()) == set(TASKS | TOOL_TASKS)
    with pytest.raises(UserError, match="goal_nav/office"):
        task_config("goal_nav/ofice")
    with pytest.raises(UserError, match="goal_nav"):
        task_config("goal_nav")
