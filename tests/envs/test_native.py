"""The loops over many worlds against MuJoCo's own bindings, world by world."""

import copy

import mujoco
import numpy as np
import pytest
import torch

from omnibody.envs import native
from omnibody.robots.plant import GROUP_SCENE

TWIST = torch.tensor((0.3, 0.0, 0.5))


@pytest.mark.parametrize("robot", ["carrier", "go2"])
def test_push_equals_stepping_each_world_from_python_to_the_bit(make, robot):
    env = make(robot, num_envs=3, tier="T2", threads=1)
    env.reset(seed=0)
    env.step(TWIST.expand(3, 3))
    models, ours = [env.model(k) for k in range(3)], [copy.copy(env.data(k)) for k in range(3)]
    theirs = [copy.copy(data) for data in ours]
    worlds = np.array([native.addresses(m, d, d.sensordata) for m, d in zip(models, ours, strict=True)], np.int64)
    nq, nv, nu = models[0].nq, models[0].nv, models[0].nu
    qpos, qvel, touched = np.empty((3, nq)), np.empty((3, nv)), np.empty(3)
    control = np.random.default_rng(0).uniform(-1, 1, (3, nu))
    native.push(worlds, control, 4, qpos, qvel, touched)
    for k, data in enumerate(theirs):
        data.ctrl[:] = control[k]
        mujoco.mj_step(models[k], data, 4)
        assert (qpos[k] == data.qpos).all() and (qvel[k] == data.qvel).all() and touched[k] == data.sensordata[0]
    # The comparison is not blind: another command leads elsewhere.
    mujoco.mj_step(models[0], theirs[0], 1)
    assert not (qpos[0] == theirs[0].qpos).all()


def test_cast_gives_the_hits_of_each_world_and_none_of_the_next(make):
    env = make("carrier", num_envs=2, tier="T1", threads=1)
    env.reset(seed=3)
    worlds = np.array([native.addresses(env.model(k), env.data(k), env.data(k).sensordata) for k in range(2)], np.int64)
    rng = np.random.default_rng(1)
    rays = rng.standard_normal((2, 50, 3))
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    origins = env.world.position.numpy().astype(np.float64) + (0.0, 0.0, 0.5)
    groups = np.array([group == GROUP_SCENE for group in range(mujoco.mjNGROUP)], np.uint8)
    geoms, distances = np.empty((2, 50), np.int32), np.empty((2, 50))
    native.cast(worlds, origins, rays, groups, 20.0, geoms, distances)
    for k in range(2):
        geom, distance = np.empty(50, np.int32), np.empty(50)
        mujoco.mj_multiRay(
            env.model(k), env.data(k), origins[k], rays[k].ravel(), groups, True, -1, geom, distance, None, 50, 20.0
        )
        assert (geoms[k] == geom).all() and (distances[k] == distance).all()
    assert (geoms[0] != geoms[1]).any() and (geoms >= 0).any()
