"""Processes, rules and levels against closed forms and diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from omnibody.policies.diffusion.levels import staircase_rows, training_levels, uniform_rows
from omnibody.policies.diffusion.parameterisation import Prediction, target, to_x0_eps
from omnibody.policies.diffusion.processes import EDM, Process, RectifiedFlow, VPCosine, perturb
from omnibody.policies.diffusion.rules import ddim

PROCESSES = [VPCosine(), EDM(), RectifiedFlow()]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", Prediction)
def test_a_perfect_output_gives_back_data_and_noise_per_token(process: Process, prediction: Prediction) -> None:
    x0, noise, s = normal(4, 6, 3), normal(4, 6, 3, seed=1), 0.05 + 0.85 * torch.rand(4, 6)
    x = perturb(process, x0, noise, s)
    got = to_x0_eps(prediction, process, target(prediction, process, x0, noise, s), x, s)
    torch.testing.assert_close(got, (x0, noise), rtol=1e-3, atol=1e-3)
    other = to_x0_eps(prediction, process, target(prediction, process, x0, noise, s), x, s.flip(1))
    assert not torch.allclose(other[0] + other[1], x0 + noise, atol=1e-2)  # levels belong to tokens


def test_ddim_is_euler_in_edm_space_and_not_in_vp() -> None:
    x0, eps, s, to = normal(2, 5, 3), normal(2, 5, 3, seed=1), torch.full((2, 5), 0.9), torch.full((2, 5), 0.4)

    def gap(process: Process) -> float:
        x = perturb(process, x0, eps, s)
        sigma, sigma_to = process.sigma(s).unsqueeze(-1), process.sigma(to).unsqueeze(-1)
        euler = x + (sigma_to - sigma) * (x - x0) / sigma
        return (ddim(process, x, x0, eps, s, to) - euler).abs().max().item()

    assert gap(EDM()) < 1e-5
    assert gap(VPCosine()) > 1e-2


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_steps_equal_those_of_diffusers(eta: float) -> None:
    theirs = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    theirs.set_timesteps(10)
    level_of = _Table(theirs.alphas_cumprod)
    x, output, fresh = normal(2, 4, 3), normal(2, 4, 3, seed=1), normal(2, 4, 3, seed=2)
    t = 50
    wanted = theirs.step(output, t, x, eta=eta, variance_noise=fresh).prev_sample
    s, to = torch.full((2, 4), float(t)), torch.full((2, 4), float(t - 10))
    x0, eps = to_x0_eps(Prediction.EPS, level_of, output, x, s)
    torch.testing.assert_close(ddim(level_of, x, x0, eps, s, to, fresh, eta), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(ddim(level_of, x, x0, eps, s, to + 1, fresh, eta), wanted, atol=1e-3)


class _Table:
    """diffusers' cumulative alphas as a process whose levels are its time steps."""

    def __init__(self, cumulative: Tensor) -> None:
        self.cumulative = cumulative

    def alpha(self, s: Tensor) -> Tensor:
        return self.cumulative[s.long()].sqrt()

    def sigma(self, s: Tensor) -> Tensor:
        return (1 - self.cumulative[s.long()]).sqrt()


@pytest.mark.parametrize("process", PROCESSES)
def test_tokens_whose_level_stays_keep_their_bits(process: Process) -> None:
    x, x0, eps = normal(1, 3, 2), normal(1, 3, 2, seed=1), normal(1, 3, 2, seed=2)
    s, to = torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[0.0, 0.5, 0.25]])
    after = ddim(process, x, x0, eps, s, to, normal(1, 3, 2, seed=3), 1.0)
    assert torch.equal(after[:, :2], x[:, :2]) and not torch.equal(after[:, 2], x[:, 2])


@pytest.mark.parametrize(("steps", "chunks", "chunk"), [(1, 2, 8), (3, 4, 2), (5, 1, 4)])
def test_the_staircase_hands_every_chunk_the_level_of_the_one_before(steps: int, chunks: int, chunk: int) -> None:
    rows = staircase_rows(steps, chunks, chunk)
    assert rows.shape == (steps + 1, chunks * chunk)
    assert rows[-1, :chunk].eq(0).all() and rows[0, -chunk:].eq(1).all()
    torch.testing.assert_close(rows[-1, chunk:], rows[0, :-chunk])
    assert (rows.diff(dim=0) < 0).all()


def test_one_chunk_of_stairs_is_uniform() -> None:
    assert torch.equal(staircase_rows(4, 1, 3), uniform_rows(4, 3))
    assert not torch.equal(staircase_rows(4, 3, 1), uniform_rows(4, 3))


def test_the_kind_of_level_is_drawn_per_sample() -> None:
    levels = training_levels(2000, 2, 3, 0.8, torch.Generator().manual_seed(0))
    stairs = (levels[:, 0] != levels[:, -1]).float().mean().item()
    assert 0.77 < stairs < 0.83
    assert training_levels(200, 2, 3, 0.0, torch.Generator().manual_seed(0)).diff(dim=1).eq(0).all()


@pytest.mark.parametrize("process", PROCESSES)
def test_a_point_masses_mixture_is_sampled_at_its_rates(process: Process) -> None:
    """Exact score of modes -1 (weight .3) and +1 (weight .7), each with deviation 0.05."""
    wide = EDM(sigma_max=20.0) if isinstance(process, EDM) else process
    start = torch.ones(4000, 1)
    x = wide.sigma(start).unsqueeze(-1) * normal(4000, 1, 1)
    for row, lower in zip(uniform_rows(100, 1)[:-1], uniform_rows(100, 1)[1:], strict=True):
        s, to = row.expand(4000, 1), lower.expand(4000, 1)
        alpha, sigma = wide.alpha(s).unsqueeze(-1), wide.sigma(s).unsqueeze(-1)
        modes, weights = torch.tensor([-1.0, 1.0]), torch.tensor([0.3, 0.7])
        variance = alpha**2 * 0.05**2 + sigma**2
        share = torch.softmax(weights.log() - (x - alpha * modes) ** 2 / (2 * variance), dim=-1)
        gain = alpha * 0.05**2 / variance
        x0 = (share * (modes + gain * (x - alpha * modes))).sum(-1, keepdim=True)
        x = ddim(wide, x, x0, (x - alpha * x0) / sigma, s, to)
    assert abs((x > 0).float().mean().item() - 0.7) < 0.03
    assert ((x.abs() - 1).abs() < 0.25).float().mean() > 0.99
