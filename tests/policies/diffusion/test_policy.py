"""The policy: restarts, streaming, and a two-mode toy."""

import dataclasses

import pytest
import torch

from omnibody.policies.batch import Batch, fake_batch, random_values
from omnibody.policies.diffusion.policy import Diffusion, DiffusionCfg, ProcessName
from omnibody.policies.policy import Context, where_state
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_robot

SPEC = IOSpec(
    obs={"goal": Field((2,), "float32", "m", (-2.0, 3.0), (4.0, 3.0))},  # the second element is constant
    action=Field((1,), "float32", "m/s", (0.0,), (4.0,)),
    rate_hz=10.0,
)
CONTEXT = Context(load_robot("carrier"))


def made(seed: int = 0, **settings: object) -> Diffusion:
    torch.manual_seed(seed)
    policy = dataclasses.replace(DiffusionCfg.tiny(), obs_keys=["goal"], **settings).build(SPEC)
    for parameter in policy.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # a fresh adaLN-zero network says 0 to everything
    return policy.eval()


def observed(size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"goal": random_values(SPEC.obs["goal"], (size,), torch.Generator().manual_seed(seed))}


@torch.no_grad()
@pytest.mark.parametrize("process", ProcessName)
def test_a_restarted_row_acts_like_a_fresh_one(process: ProcessName) -> None:
    policy, obs = made(process=process), observed(2)
    fresh = policy.begin(CONTEXT, 2)
    _, later = policy.act(obs, fresh, torch.Generator().manual_seed(1))
    mixed = where_state(torch.tensor([True, False]), fresh, later)
    first, kept, both = (policy.act(obs, state, torch.Generator().manual_seed(2))[0] for state in (fresh, later, mixed))
    torch.testing.assert_close(both[0], first[0])
    torch.testing.assert_close(both[1], kept[1])
    assert not torch.allclose(first[1], kept[1], atol=1e-4)
    assert first.isfinite().all() and first.shape == (2, 2, 1) and (first >= 0).all() and (first <= 4).all()


@torch.no_grad()
def test_one_chunk_forgets_and_more_remember() -> None:
    for chunks, forgets in ((1, True), (2, False)):
        policy, obs = made(chunks=chunks), observed(2)
        fresh = policy.begin(CONTEXT, 2)
        _, later = policy.act(obs, fresh, torch.Generator().manual_seed(1))
        acts = [policy.act(obs, state, torch.Generator().manual_seed(2))[0] for state in (fresh, later)]
        assert torch.equal(*acts) == forgets


def test_wrong_windows_and_keys_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="action_steps"):
        made().loss(fake_batch(SPEC, 2, 1, 3, generator), generator)
    with pytest.raises(UserError, match="obs_keys"):
        DiffusionCfg.tiny().build(SPEC)


@pytest.mark.parametrize("chunks", [1, 2])
def test_two_modes_are_learned_and_not_averaged(chunks: int) -> None:
    """Half of the windows hold action 1, half 3, whatever is observed."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    cfg = dataclasses.replace(DiffusionCfg.tiny(), obs_keys=["goal"], chunks=chunks, width=32, steps=8)
    policy = cfg.build(SPEC)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    for _ in range(400):
        batch: Batch = fake_batch(SPEC, 128, 1, 2 * chunks, generator)
        mode = 1 + 2 * torch.randint(2, (128, 1, 1), generator=generator).float()
        loss, _ = policy.loss(dataclasses.replace(batch, expert=mode.expand(-1, 2 * chunks, -1)), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        action, _ = policy.act(observed(400), policy.begin(CONTEXT, 400), generator)
    near = (action - 1).abs().minimum((action - 3).abs()).squeeze(-1).amax(1) < 0.5
    assert near.float().mean() > 0.9
    assert 0.3 < (action[:, 0, 0] > 2).float().mean() < 0.7
