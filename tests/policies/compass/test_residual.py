"""The specialist: it starts as its base, stays within limits, and tells what a student needs."""

import pytest
import torch

from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.commands import limit_state
from omnibody.policies.compass.residual import CompassResidual, CompassResidualCfg, ResidualActorCfg, combine
from omnibody.policies.policy import Context
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import ROBOTS, load_robot

ACTOR = ResidualActorCfg(hidden=[16, 16])


@pytest.fixture
def specialist(spec: IOSpec) -> CompassResidual:
    return CompassResidual.on(CompassBaseCfg.tiny().build(spec), ACTOR)


@pytest.mark.parametrize("name", ROBOTS)
def test_it_starts_as_its_base_bit_for_bit(name: str, specialist, obs) -> None:
    """Over 10 closed-loop steps, on every body; a last layer that is not zero is noticed."""
    context, base = Context(load_robot(name)), specialist.base

    def stays_equal() -> bool:
        state, own = base.begin(context, 4), specialist.begin(context, 4)
        equal = True
        for _ in range(10):
            wanted, state = base.act(obs, state)
            came, own = specialist.act(obs, own)
            equal &= torch.equal(wanted, came) and all(torch.equal(state[k], own[k]) for k in state)
        return equal

    assert stays_equal()
    torch.nn.init.constant_(specialist.actor.mean.bias, -0.05)
    assert not stays_equal()


def test_the_sum_is_scaled_and_limited() -> None:
    state = limit_state(load_robot("carrier"), 1)  # vx in [-0.3, 1], no vy, wz in [-1, 1]
    base = torch.tensor([[0.5, 0.0, 0.2]])
    cases = {
        (0.4, 0.4, -0.4): [0.7, 0.0, 0.0],
        (9.0, 9.0, 9.0): [1.0, 0.0, 0.7],
        (-9.0, -9.0, -9.0): [0.0, 0.0, -0.3],
    }
    for residual, expected in cases.items():
        torch.testing.assert_close(combine(base, torch.tensor([residual]), 0.5, state), torch.tensor([expected]))
    torch.testing.assert_close(combine(base, torch.full((1, 3), -9.0), 1.0, state)[0, 0], torch.tensor(-0.3))


def test_only_the_actor_learns(specialist, obs, omni) -> None:
    action, _ = specialist.act(obs, specialist.begin(Context(omni), 4))
    action.sum().backward()
    assert all(p.grad is None for p in specialist.base.parameters())
    assert specialist.actor.mean.bias.grad.abs().max() > 0


def test_the_distribution_is_that_of_the_executed_command(specialist, obs, omni) -> None:
    """Its mean is what ``act`` sends; samples have its mean and standard deviation in normalised units."""
    torch.nn.init.constant_(specialist.actor.mean.bias, 0.1)
    state, high = specialist.begin(Context(omni), 4), torch.tensor(omni.limits.velocity_high)
    features, mean, std, following = specialist.distribution(obs, state)
    action, after = specialist.act(obs, state)
    torch.testing.assert_close(mean * high, action[:, 0])
    assert features.shape == (4, specialist.base.feature_width)
    assert torch.equal(following["h"], after["h"]) and not torch.equal(following["previous_action"], mean)
    torch.testing.assert_close(specialist.executed(following, action[:, 0])["previous_action"], mean)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([specialist.act(obs, state, generator)[0][:, 0] / high for _ in range(2000)])
    # 2000 draws: a standard error of 0.1 / 45 of the mean; 5 of them, 12 numbers, false alarm under 1e-5.
    torch.testing.assert_close(draws.mean(0), mean, atol=0.012, rtol=0.0)
    torch.testing.assert_close(draws.std(0), std, atol=0.012, rtol=0.0)


def test_missing_axes_have_zero_mean(specialist, obs, carrier) -> None:
    torch.nn.init.constant_(specialist.actor.mean.bias, 0.1)
    _, mean, _, _ = specialist.distribution(obs, specialist.begin(Context(carrier), 4))
    assert (mean[:, 1] == 0.0).all() and (mean[:, 0] != 0.0).all()


def test_from_scratch_drops_the_base_command(specialist, spec, obs, omni) -> None:
    scratch = CompassResidual.on(specialist.base, ACTOR, from_scratch=True)
    for policy, moves in ((scratch, False), (specialist, True)):
        action, _ = policy.act(obs, policy.begin(Context(omni), 4))
        assert (action.abs().max().item() > 0.0) == moves


def test_tiny_config_builds(spec) -> None:
    assert CompassResidualCfg.tiny().build(spec).actor.log_std.exp().allclose(torch.tensor(0.1))
