"""Distillation: what is labelled, who drives, and that a student learns its teacher on its own states."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.envs import make_env
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.generalist import CompassGeneralist, CompassGeneralistCfg
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.distill.distill import DistillCfg, distill
from omnibody.training.distill.labels import Labels, collect_labels
from omnibody.training.fit import FitCfg

TASK = GoalNavCfg(scene="single_rack", num_scenes=4)


def teacher(seed: int = 0, lean: float = 0.3) -> CompassResidual:
    """A specialist with a base of fixed weights, whose residual leans to one side."""
    env = make_env("carrier", TASK, 1, "T0", threads=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = CompassResidual.on(CompassBaseCfg.tiny().build(env.spec), ResidualActorCfg(hidden=[16]))
    env.close()
    with torch.no_grad():
        policy.actor.mean.bias += torch.tensor([lean, 0.0, -lean])
    return policy.eval()


def config(tmp_path: Path, teachers: dict[str, CompassResidual], **changes: object) -> DistillCfg:
    paths = {}
    for name, policy in teachers.items():
        save_pretrained(policy, tmp_path / name, {})
        paths[name] = str(tmp_path / name)
    cfg = DistillCfg(
        teachers=paths,
        out=str(tmp_path / "run"),
        student=CompassGeneralistCfg(hidden=[64]),
        task=TASK,
        tier="T0",
        rounds=2,
        num_envs=4,
        steps=60,
        fit=FitCfg(epochs=40, batch_size=32, held_out=0.1, warmup=0.1, learning_rate=3e-3),
    )
    return dataclasses.replace(cfg, **changes)


def gather(student_drives: bool) -> tuple[Labels, np.ndarray]:
    env = make_env("carrier", TASK, 2, "T0", threads=1)
    one = teacher()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        student = CompassGeneralist.on(one.base, CompassGeneralistCfg(hidden=[8]))
    generator = torch.Generator().manual_seed(0)
    labels = collect_labels(one, student, env, 10, student_drives, 0, 0, generator)
    env.close()
    return labels, env.world.position.numpy()


def test_labels_hold_the_teachers_command_and_only_the_axes_the_body_has():
    labels, _ = gather(student_drives=False)
    assert len(labels) == 20
    assert labels.active[:, 1].sum() == 0 and labels.active[:, [0, 2]].all()
    assert (labels.mean[:, 1] == 0.0).all() and (labels.std > 0.0).all()
    descriptor = torch.from_numpy(load_robot("carrier").descriptor())
    torch.testing.assert_close(labels.code[7], descriptor)


def test_in_a_dagger_round_the_student_drives():
    (_, by_teacher), (_, by_student) = gather(False), gather(True)
    assert not np.array_equal(by_teacher, by_student)
    np.testing.assert_array_equal(gather(True)[1], by_student)  # and the same seed drives the same way


def test_the_student_comes_close_to_the_teacher_and_far_closer_than_an_untrained_one(tmp_path):
    one = teacher()
    student = distill(config(tmp_path, {"carrier": one}))
    labels = Labels.load(tmp_path / "run" / "labels" / "round-1-carrier.safetensors")
    untrained = CompassGeneralist.on(one.base, CompassGeneralistCfg(hidden=[64]))
    untrained.fit_descriptor([load_robot("carrier")])

    def error(policy: CompassGeneralist) -> float:
        with torch.no_grad():
            return float((policy.student_mean(labels.features, labels.code) - labels.mean)[:, [0, 2]].abs().mean())

    assert error(student) < 0.25 * error(untrained)
    # What is on disk is that student.
    loaded = load_policy(tmp_path / "run" / "policy")
    assert isinstance(loaded, CompassGeneralist) and error(loaded) == pytest.approx(error(student))


def test_a_stopped_distillation_goes_on_with_the_labels_it_has(tmp_path):
    cfg = config(tmp_path, {"carrier": teacher()}, rounds=1)
    distill(cfg)
    path = tmp_path / "run" / "labels" / "round-0-carrier.safetensors"
    written = path.stat().st_mtime_ns
    distill(dataclasses.replace(cfg, rounds=2))
    assert path.stat().st_mtime_ns == written
    assert (tmp_path / "run" / "labels" / "round-1-carrier.safetensors").exists()


def test_teachers_on_different_bases_are_refused(tmp_path):
    cfg = config(tmp_path, {"carrier": teacher(0), "omni": teacher(1)})
    with pytest.raises(UserError, match="one base, but that of omni has another"):
        distill(cfg)


def test_a_teacher_that_is_no_specialist_is_refused(tmp_path):
    save_pretrained(teacher().base, tmp_path / "base", {})
    cfg = config(tmp_path, {"carrier": teacher()})
    cfg.teachers = {"carrier": str(tmp_path / "base")}
    with pytest.raises(UserError, match="wanted compass_residual checkpoints, came a CompassBase"):
        distill(cfg)
