"""The imitation base: what reaches its state, what its loss reads, and that it learns."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from omnibody.policies.batch import Batch, fake_batch
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.base import CompassBase, CompassBaseCfg, head_input, path_targets
from omnibody.policies.compass.commands import clip_twist, limit_state, normalise
from omnibody.policies.policy import Context
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment, IOSpec
from omnibody.robots.table import ROBOTS, load_robot


def exact_tiny() -> CompassBaseCfg:
    """The original's choices at test size."""
    tiny, exact = CompassBaseCfg.tiny(), CompassBaseCfg.compass_exact()
    sizes = {key: getattr(tiny.world, key) for key in ("hidden", "latent", "embed", "channels")}
    return dataclasses.replace(exact, world=dataclasses.replace(exact.world, **sizes), policy_width=tiny.policy_width)


def batch_of(spec: IOSpec, body: Embodiment, size: int, steps: int, generator: torch.Generator) -> Batch:
    descriptor = torch.from_numpy(body.descriptor()).expand(size, -1)
    return dataclasses.replace(fake_batch(spec, size, steps, steps + 20, generator), descriptor=descriptor)


@pytest.mark.parametrize("cfg", [CompassBaseCfg.tiny(), exact_tiny()], ids=["default", "exact"])
def test_shapes_and_gradients_reach_every_parameter(cfg, spec, omni, generator) -> None:
    policy = cfg.build(spec)
    total, parts = policy.loss(batch_of(spec, omni, 3, 6, generator), generator)
    assert total.shape == () and set(parts) == {"action", "path", "kl", "semantics", "depth"}
    total.backward()
    silent = {n for n, p in policy.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    # The first KL of an untrained model is under the free bits, so the prior waits; the original has none.
    assert silent <= {n for n, _ in policy.named_parameters() if "prior_head" in n}
    assert bool(silent) == (cfg.loss.free_bits > 0)


def test_without_semantics_it_learns_from_all_else(spec, omni, generator) -> None:
    told = dataclasses.replace(spec, obs={key: field for key, field in spec.obs.items() if key != "semantics"})
    policy = CompassBaseCfg.tiny().build(told)
    total, parts = policy.loss(batch_of(told, omni, 3, 6, generator), generator)
    assert total.isfinite() and set(parts) == {"action", "path", "kl", "depth"}
    seeing = CompassBaseCfg.tiny().build(spec)
    fewer = {
        name for name, one in seeing.named_parameters() if one.shape != dict(policy.named_parameters())[name].shape
    }
    assert fewer == {"world.decoder.convolutions.7.weight", "world.decoder.convolutions.7.bias"}


def test_prior_gets_its_gradient_above_the_free_bits(spec, omni, generator) -> None:
    cfg = CompassBaseCfg.tiny()
    cfg.loss.free_bits = 0.0
    policy = cfg.build(spec)
    policy.loss(batch_of(spec, omni, 3, 6, generator), generator)[0].backward()
    assert all(p.grad.abs().max() > 0 for p in policy.world.rssm.prior_head.parameters())


def test_acting_needs_its_own_keys_only_and_gives_one_allowed_command(spec, obs, carrier) -> None:
    policy = CompassBaseCfg.tiny().build(spec)
    seen = {key: obs[key] for key in policy.obs_keys}
    assert "semantics" not in seen and "privileged" not in seen
    state = policy.begin(Context(carrier), 4)
    action, after = policy.act(seen, state)
    assert action.shape == (4, 1, 3) and after.keys() == state.keys()
    assert np.array_equal(carrier.limits.clip(action.detach().numpy()), action.detach().numpy())
    policy_state, _, _ = policy.features(seen, state)
    assert head_input(policy_state, seen).shape == (4, policy.feature_width)


def test_rows_of_a_batch_do_not_see_each_other(spec, obs, carrier) -> None:
    policy = CompassBaseCfg.tiny().build(spec)
    action, after = policy.act(obs, policy.begin(Context(carrier), 4))
    one = {key: value[2:3] for key, value in obs.items()}
    alone, after_alone = policy.act(one, policy.begin(Context(carrier), 1))
    torch.testing.assert_close(alone, action[2:3])
    torch.testing.assert_close(after_alone["h"], after["h"][2:3])


@pytest.mark.parametrize("cfg", [CompassBaseCfg.tiny(), exact_tiny()], ids=["default", "exact"])
def test_online_equals_offline(cfg, spec, omni, generator) -> None:
    """Step by step with state in and out gives the states of a whole window; forgetting the action does not."""
    policy, batch = cfg.build(spec), batch_of(spec, omni, 3, 7, generator)
    action = clip_twist(batch.action.reshape(-1, 3), limit_state(omni, 3 * 27)).view(3, 27, 3)
    previous = torch.cat([torch.zeros(3, 1, 3), action[:, :6]], 1)
    batch = dataclasses.replace(batch, action=action, previous_action=previous)
    with torch.no_grad():
        rollout, offline = policy.encode(batch, None)
        for remember in (True, False):
            state, online = policy.begin(Context(omni), 3), []
            for t in range(7):
                policy_state, _, state = policy.features({k: v[:, t] for k, v in batch.obs.items()}, state)
                online.append(policy_state)
                state = policy.executed(state, action[:, t]) if remember else state
            assert torch.allclose(torch.stack(online, 1), offline, atol=1e-5) == remember
            assert torch.allclose(state["h"], rollout.h[:, -1], atol=1e-5) == remember


def test_axes_a_body_lacks_never_reach_the_recurrent_state(spec, obs, carrier, omni) -> None:
    """COMPASS samples dead action dimensions and feeds them back (its second defect)."""
    policy = CompassBaseCfg.tiny().build(spec)
    clean = torch.tensor([[0.5, 0.0, 0.2]]).expand(4, 3)
    dirty = clean + torch.tensor([0.0, 0.7, 0.0])
    for body, reaches in ((carrier, False), (omni, True)):
        _, _, state = policy.features(obs, policy.begin(Context(body), 4))
        after = [policy.features(obs, policy.executed(state, action))[2] for action in (clean, dirty)]
        assert torch.equal(after[0]["h"], after[1]["h"]) != reaches
        assert torch.equal(after[0]["previous_action"], after[1]["previous_action"]) != reaches


def test_missing_axes_in_a_batch_never_reach_the_world_model(spec, carrier, omni, generator) -> None:
    policy = CompassBaseCfg.tiny().build(spec)
    for body, reaches in ((carrier, False), (omni, True)):
        batch = batch_of(spec, body, 3, 6, generator)
        dirty = dataclasses.replace(batch, previous_action=batch.previous_action + torch.tensor([0.0, 0.3, 0.0]))
        states = [policy.encode(b, None)[0].h for b in (batch, dirty)]
        assert torch.equal(*states) != reaches


def test_sideways_stays_exactly_zero_without_a_sideways_axis(spec, obs, carrier, omni) -> None:
    """Over 20 closed-loop steps; the same weights do move an omnidirectional body sideways."""
    policy = CompassBaseCfg.tiny().build(spec)
    for body, moves in ((carrier, False), (omni, True)):
        state, sideways = policy.begin(Context(body), 4), 0.0
        for _ in range(20):
            action, state = policy.act(obs, state)
            sideways += action[..., 1].abs().max().item() + state["previous_action"][:, 1].abs().max().item()
        assert (sideways > 0.0) == moves


@pytest.mark.parametrize("name", ROBOTS)
def test_commands_are_limited_as_the_body_says(name: str, generator: torch.Generator) -> None:
    body = load_robot(name)
    twist = 4.0 * torch.rand(50, 3, generator=generator) - 2.0
    state = limit_state(body, 50)
    ours = clip_twist(twist, state)
    np.testing.assert_allclose(ours.numpy(), body.limits.clip(twist.numpy()), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(ours, twist)
    assert torch.equal(clip_twist(ours, state), ours)
    assert normalise(ours, state["velocity_high"]).abs().max() <= 1.0 + 1e-6


def test_path_targets_of_a_straight_drive_in_any_world_frame() -> None:
    """1 m/s forward: 0.4, 0.8 ... 2 m ahead and 0 m to the left, wherever the world's origin is."""
    pose = torch.zeros(1, 30, 3)
    pose[0, :, 0] = 0.1 * torch.arange(30)
    pad = torch.zeros(1, 30, dtype=torch.bool)
    target, known = path_targets(pose, pad, 10.0)
    expected = torch.tensor([[0.4, 0.0], [0.8, 0.0], [1.2, 0.0], [1.6, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(target[0, 3], expected)
    assert known[0, 9].all() and known[0, 25].tolist() == [True, False, False, False, False]
    turn, moved = 2.1, pose.clone()
    moved[..., 0] = math.cos(turn) * pose[..., 0] + 5.0
    moved[..., 1] = math.sin(turn) * pose[..., 0] - 3.0
    moved[..., 2] = turn
    torch.testing.assert_close(path_targets(moved, pad, 10.0)[0][0, 3], expected, atol=1e-5, rtol=0.0)
    moved[..., 2] = 0.0  # negative control: positions turned, heading not
    assert not torch.allclose(path_targets(moved, pad, 10.0)[0][0, 3], expected, atol=1e-2)


def test_padding_is_not_learned_from(spec, omni, generator) -> None:
    policy, batch = CompassBaseCfg.tiny().build(spec), batch_of(spec, omni, 3, 6, generator)
    batch.pad[:, 4:] = True

    def loss_without(step: int) -> float:
        obs = {key: value.clone() for key, value in batch.obs.items()}
        expert = batch.expert.clone()
        obs["depth"][:, step], expert[:, step] = 1.0, 0.3
        changed = dataclasses.replace(batch, obs=obs, expert=expert)
        return policy.loss(changed, torch.Generator().manual_seed(3))[0].item()

    original = policy.loss(batch, torch.Generator().manual_seed(3))[0].item()
    assert loss_without(5) == pytest.approx(original, rel=1e-6)
    assert loss_without(3) != pytest.approx(original, rel=1e-3)


def test_padding_before_an_episode_leaves_a_fresh_state(spec, omni, generator) -> None:
    policy, batch = CompassBaseCfg.tiny().build(spec), batch_of(spec, omni, 3, 6, generator)
    late = dataclasses.replace(
        batch,
        obs={key: value[:, 2:] for key, value in batch.obs.items()},
        previous_action=batch.previous_action[:, 2:],
        pad=batch.pad[:, 2:],
    )
    fresh = policy.encode(late, None)[0].latent
    assert not torch.allclose(policy.encode(batch, None)[0].latent[:, 2:], fresh)
    batch.pad[:, :2] = True
    torch.testing.assert_close(policy.encode(batch, None)[0].latent[:, 2:], fresh)


def steering_batch(spec: IOSpec, body: Embodiment, seed: int) -> Batch:
    """The expert drives on at 0.5 m/s and turns at 0.8 rad/s to the side, drawn anew each frame, where the route is."""
    generator = torch.Generator().manual_seed(seed)
    batch = batch_of(spec, body, 32, 4, generator)
    side = torch.randint(0, 2, (32, 4), generator=generator) * 2.0 - 1.0
    batch.obs["route"][..., 1::2] += 5.0 * side[..., None, None]
    expert = torch.zeros_like(batch.expert)
    expert[:, :4, 0], expert[:, :4, 2] = 0.5, 0.8 * side
    return dataclasses.replace(batch, expert=expert)


def action_error(policy: CompassBase, batch: Batch, constant: Tensor | None) -> float:
    """Mean L1 of the normalised command; of a constant one if given."""
    command = torch.tanh(policy.command_head(policy.encode(batch, None)[1])) if constant is None else constant
    return (command - batch.expert[:, :4]).abs().sum(-1).mean().item()


def test_sixty_steps_beat_the_mean_action(spec, carrier) -> None:
    """On unseen batches: half the error of always giving the mean action (0.80). A learner without skill is at 0.80
    with a standard error of 0.07, so half of it by luck is over 5 standard errors away. Negative control: untrained."""
    policy = CompassBaseCfg.tiny().build(spec)
    held_out, noise = steering_batch(spec, carrier, 99), torch.Generator().manual_seed(0)
    baseline = action_error(policy, held_out, held_out.expert[:, :4].mean((0, 1)))
    assert action_error(policy, held_out, None) > 0.8 * baseline
    optimiser = torch.optim.Adam(policy.parameters(), 5e-3)
    for i in range(60):
        optimiser.zero_grad()
        policy.loss(steering_batch(spec, carrier, i), noise)[0].backward()
        optimiser.step()
    assert action_error(policy, held_out, None) < 0.5 * baseline


def test_a_checkpoint_acts_the_same(spec, obs, carrier, tmp_path) -> None:
    policy = CompassBaseCfg.tiny().build(spec).eval()
    save_pretrained(policy, tmp_path / "base", {})
    loaded = load_policy(tmp_path / "base")
    actions = [p.act(obs, p.begin(Context(carrier), 4))[0] for p in (policy, loaded, CompassBaseCfg.tiny().build(spec))]
    assert torch.equal(actions[0], actions[1]) and not torch.equal(actions[0], actions[2])


def test_a_spec_without_a_route_and_short_actions_are_refused(spec, omni, generator) -> None:
    without = IOSpec({k: f for k, f in spec.obs.items() if k != "route"}, spec.action, spec.rate_hz)
    with pytest.raises(UserError, match="wanted observation 'route' with 2 axes"):
        CompassBaseCfg.tiny().build(without)
    with pytest.raises(UserError, match="wanted action windows of at least 6, came 3"):
        CompassBaseCfg.tiny().build(spec).loss(fake_batch(spec, 2, 6, 3, generator), generator)


def test_full_size(spec) -> None:
    """1.5 to 2 million parameters, both presets."""
    for cfg in (CompassBaseCfg(), CompassBaseCfg.compass_exact()):
        assert 1.5e6 < sum(p.numel() for p in cfg.build(spec).parameters()) < 2.0e6
