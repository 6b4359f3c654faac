"""The student: its divergence in closed form, what it is told about bodies, and that it learns from teachers."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from omnibody.policies.batch import fake_batch
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.generalist import CompassGeneralist, CompassGeneralistCfg, kl_loss, mse_loss
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.policies.policy import Context
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import ROBOTS, load_robot

TRAINED_ON = ["carrier", "omni", "go2"]


def one_hot() -> CompassGeneralistCfg:
    return CompassGeneralistCfg(CompassBaseCfg.tiny(), hidden=[16], code="onehot", bodies=TRAINED_ON)


@pytest.fixture
def student(spec: IOSpec) -> CompassGeneralist:
    policy = CompassGeneralistCfg.tiny().build(spec)
    policy.fit_descriptor([load_robot(name) for name in TRAINED_ON])
    return policy


def test_kl_equals_torch_distributions() -> None:
    means, stds = torch.randn(2, 5, 3), torch.rand(2, 5, 3) + 0.1
    everything = torch.ones(5, 3, dtype=torch.bool)
    reference = kl_divergence(Normal(means[0], stds[0]), Normal(means[1], stds[1])).mean()
    torch.testing.assert_close(kl_loss(means[0], stds[0], means[1], stds[1], everything), reference)
    swapped = kl_loss(means[1], stds[1], means[0], stds[0], everything)
    assert not torch.allclose(swapped, reference)  # it is KL(teacher || student), not the other way round
    assert kl_loss(means[0], stds[0], means[0], stds[0], everything).abs() < 1e-6


@pytest.mark.parametrize("divergence", ["kl", "mse"])
def test_missing_axes_do_not_count(divergence: str) -> None:
    def loss(mean: torch.Tensor) -> torch.Tensor:
        if divergence == "mse":
            return mse_loss(teacher, mean, active)
        return kl_loss(teacher, torch.full((5, 3), 0.1), mean, torch.tensor(0.2), active)

    teacher, mean = torch.randn(2, 5, 3)
    active = torch.ones(5, 3, dtype=torch.bool)
    active[:, 1] = False
    wrong_vy, wrong_vx = mean.clone(), mean.clone()
    wrong_vy[:, 1] += 3.0
    wrong_vx[:, 0] += 3.0
    assert torch.equal(loss(mean), loss(wrong_vy)) and not torch.equal(loss(mean), loss(wrong_vx))


def test_bodies_are_told_apart_by_their_descriptor(student, obs) -> None:
    actions = {}
    for name in ROBOTS:
        state = student.begin(Context(load_robot(name)), 4)
        scaled = ((state["code"] - student.code_mean) / student.code_std).clamp(-3.0, 3.0)
        assert scaled.isfinite().all()
        actions[name] = student.student_mean(torch.zeros(4, student.base.feature_width), state["code"])
    assert not torch.allclose(actions["carrier"], actions["go2"])


def test_one_hot_refuses_a_body_it_was_not_made_for(spec, obs) -> None:
    policy = one_hot().build(spec)
    assert policy.begin(Context(load_robot("omni")), 2)["code"].tolist() == [[0.0, 1.0, 0.0]] * 2
    with pytest.raises(UserError, match="unknown robot 'spot'; choose one of: carrier, go2, omni"):
        policy.begin(Context(load_robot("spot")), 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"code": "name"}, "wanted descriptor or onehot, came 'name'"),
        ({"code": "onehot"}, "wanted names with code=onehot"),
        ({"bodies": ["omni"]}, "none otherwise"),
        ({"divergence": "l1"}, "wanted kl or mse"),
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompassGeneralistCfg(**bad)


def test_it_acts_within_limits_and_keeps_missing_axes_at_zero(student, obs, carrier, omni) -> None:
    for body, moves in ((carrier, False), (omni, True)):
        action, state = student.act(obs, student.begin(Context(body), 4))
        assert action.shape == (4, 1, 3) and (action[..., 1].abs().max().item() > 0) == moves
        assert (state["previous_action"][:, 1].abs().max().item() > 0) == moves
        assert (action[:, 0].abs() <= torch.tensor(body.limits.velocity_high)).all()
    sampled = student.act(obs, student.begin(Context(omni), 4), torch.Generator().manual_seed(0))[0]
    assert not torch.equal(sampled, action)


def labels(specialist: CompassResidual, student: CompassGeneralist, name: str, seed: int) -> SimpleNamespace:
    """What one teacher says about 64 random observations."""
    body = load_robot(name)
    frames = fake_batch(student.spec, 64, 1, 1, torch.Generator().manual_seed(seed)).obs
    obs = {key: value[:, 0] for key, value in frames.items()}
    with torch.no_grad():
        features, mean, std, state = specialist.distribution(obs, specialist.begin(Context(body), 64))
    code = student.code(body).expand(64, -1)
    return SimpleNamespace(features=features, code=code, mean=mean, std=std, active=state["velocity_high"] > 0.0)


def join(batches: list[SimpleNamespace]) -> SimpleNamespace:
    return SimpleNamespace(**{k: torch.cat([vars(b)[k] for b in batches]) for k in vars(batches[0])})


@pytest.mark.parametrize("code", ["descriptor", "onehot"])
def test_one_student_learns_teachers_that_disagree(code: str, spec) -> None:
    """Two teachers on one base want the opposite; the student tells them apart by the body alone.

    Unseen observations: the error is under a fifth of that of the best body-blind student (the mean of both)."""
    base = CompassBaseCfg.tiny().build(spec)
    cfg = one_hot() if code == "onehot" else CompassGeneralistCfg.tiny()
    student, teachers = CompassGeneralist.on(base, cfg), {}
    student.fit_descriptor([load_robot(name) for name in TRAINED_ON])
    for name, push in (("omni", 0.5), ("go2", -0.5)):
        teachers[name] = CompassResidual.on(base, ResidualActorCfg(hidden=[16]))
        torch.nn.init.constant_(teachers[name].actor.mean.bias, push)

    def both(seed: int) -> SimpleNamespace:
        return join([labels(teacher, student, name, seed) for name, teacher in teachers.items()])

    generator, held_out = torch.Generator(), both(1000)
    optimiser = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], 1e-2)
    for i in range(80):
        optimiser.zero_grad()
        student.loss(both(i), generator)[0].backward()
        optimiser.step()
    first, second = held_out.mean.chunk(2)
    blind = ((first - second) / 2.0).pow(2).mean().item()
    assert student.loss(held_out, generator)[1]["mse"] < 0.2 * blind
    swapped = SimpleNamespace(**vars(held_out) | {"code": held_out.code.flip(0)})
    assert student.loss(swapped, generator)[1]["mse"] > blind
    assert all(p.grad is None for p in student.base.parameters())
