"""Processes, rules and samplers against closed forms and diffusers."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
)
from torch import Tensor

from omnibody.policies.diffusion.levels import staircase_rows, uniform_rows
from omnibody.policies.diffusion.parameterisation import Prediction, target, to_x0
from omnibody.policies.diffusion.processes import EDM, Process, RectifiedFlow, VPCosine, perturb
from omnibody.policies.diffusion.rules import Rule, step_weights
from omnibody.policies.diffusion.sampling import Table

PROCESSES = [VPCosine(), EDM(0.02, 1.0), RectifiedFlow()]
SIGMA_DATA = 0.4
UNIT = (torch.tensor(-1.0), torch.tensor(1.0))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_step(process: Process, x: Tensor, x0: Tensor, s: Tensor, to: Tensor, fresh: Tensor, eta: float) -> Tensor:
    """DDIM from levels s (T,) to ``to``."""
    step = step_weights(Rule.DDIM, process, torch.stack([s, to]), eta)[0]
    after = step.keep * x + step.pull * x0
    return after if step.fresh is None else after + step.fresh * fresh


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("prediction", Prediction)
def test_a_perfect_output_gives_back_the_data_per_token(process: Process, prediction: Prediction) -> None:
    if prediction is Prediction.EDM and not isinstance(process, EDM):
        process = EDM(0.1, 20.0)
    x0, noise, s = normal(4, 6, 3), normal(4, 6, 3, seed=1), 0.05 + 0.85 * torch.rand(4, 6)
    x = perturb(process, x0, noise, s)
    output = target(prediction, process, x0, noise, s, SIGMA_DATA)
    torch.testing.assert_close(to_x0(prediction, process, output, x, s, SIGMA_DATA), x0, rtol=1e-3, atol=1e-3)
    if prediction is not Prediction.X0:
        other = to_x0(prediction, process, output, x, s.flip(1), SIGMA_DATA)
        assert not torch.allclose(other, x0, atol=1e-2)  # levels belong to tokens


def test_preconditioning_has_unit_targets_and_needs_the_datas_size() -> None:
    """EDM's F has mean square 1 at every level if sigma_data is the data's own."""
    process, x0, noise = EDM(0.02, 5.0), 0.4 * normal(4000, 1, 2), normal(4000, 1, 2, seed=1)

    def off(sigma_data: float) -> float:
        levels = [torch.full((4000, 1), level) for level in (0.1, 0.5, 0.9)]
        squares = [target(Prediction.EDM, process, x0, noise, s, sigma_data).square().mean() for s in levels]
        return max(abs(square.item() - 1) for square in squares)

    assert off(SIGMA_DATA) < 0.05
    assert off(3 * SIGMA_DATA) > 0.3


def test_ddim_is_euler_in_edm_space_and_not_in_vp() -> None:
    x0, eps, s, to = normal(2, 5, 3), normal(2, 5, 3, seed=1), torch.full((5,), 0.9), torch.full((5,), 0.4)

    def gap(process: Process) -> float:
        x = perturb(process, x0, eps, s.expand(2, -1))
        sigma, sigma_to = process.sigma(s).unsqueeze(-1), process.sigma(to).unsqueeze(-1)
        euler = x + (sigma_to - sigma) * (x - x0) / sigma
        return (one_step(process, x, x0, s, to, eps, 0.0) - euler).abs().max().item()

    assert gap(EDM()) < 1e-5
    assert gap(VPCosine()) > 1e-2


class Steps:
    """diffusers' cumulative alphas as a process whose levels are time steps; -1 is clean."""

    def __init__(self, cumulative: Tensor) -> None:
        self.cumulative = torch.cat([torch.ones(1), cumulative])

    def alpha(self, s: Tensor) -> Tensor:
        return self.cumulative[s.long() + 1].sqrt()

    def sigma(self, s: Tensor) -> Tensor:
        return (1 - self.cumulative[s.long() + 1]).sqrt()


SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
MATRIX = normal(3, 3, seed=9)


def say(x: Tensor, t: Tensor) -> Tensor:
    """Some noise that a network could see in x at step t."""
    return torch.tanh(x @ MATRIX) * (0.5 + t / 100)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_and_ddpm_steps_equal_those_of_diffusers(eta: float) -> None:
    theirs = DDIMScheduler(**SCHEDULE, clip_sample=False)
    theirs.set_timesteps(10)
    process, x, fresh = Steps(theirs.alphas_cumprod), normal(2, 4, 3), normal(2, 4, 3, seed=2)
    s, to = torch.full((4,), 50.0), torch.full((4,), 40.0)
    output = say(x, torch.tensor(50.0))
    wanted = theirs.step(output, 50, x, eta=eta, variance_noise=fresh).prev_sample
    x0 = to_x0(Prediction.EPS, process, output, x, s.expand(2, -1), SIGMA_DATA)
    torch.testing.assert_close(one_step(process, x, x0, s, to, fresh, eta), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(one_step(process, x, x0, s, to + 1, fresh, eta), wanted, atol=1e-3)


def test_eta_1_over_all_steps_is_ddpm() -> None:
    theirs = DDPMScheduler(**SCHEDULE, clip_sample=False)
    process, x = Steps(theirs.alphas_cumprod), normal(1, 4, 3)
    s, to = torch.full((4,), 60.0), torch.full((4,), 59.0)
    output = say(x, torch.tensor(60.0))
    wanted = theirs.step(output, 60, x, generator=torch.Generator().manual_seed(0)).prev_sample
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x0 = to_x0(Prediction.EPS, process, output, x, s.expand(1, -1), SIGMA_DATA)
    torch.testing.assert_close(one_step(process, x, x0, s, to, fresh, 1.0), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(one_step(process, x, x0, s, to, fresh, 0.0), wanted, atol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # inside diffusers
def test_dpmpp_2m_walks_as_in_diffusers() -> None:
    theirs = DPMSolverMultistepScheduler(**SCHEDULE, final_sigmas_type="zero", prediction_type="sample")
    theirs.set_timesteps(8)
    times = torch.cat([theirs.timesteps.float(), torch.tensor([-1.0])])
    x = wanted = normal(2, 4, 3)
    for t in theirs.timesteps:
        wanted = theirs.step(0.5 * say(wanted, t).clamp(-2, 2), t, wanted).prev_sample

    def walked(rule: Rule) -> Tensor:
        rows = (times + 1).unsqueeze(-1).expand(-1, 4)
        table = Table.of(rows, Shifted(theirs.alphas_cumprod), Prediction.X0, SIGMA_DATA, rule, 0.0, UNIT)
        return table.walk(lambda x, row: 0.5 * say(x, times[row]).clamp(-2, 2), x, lambda: x)[0]

    torch.testing.assert_close(walked(Rule.DPMPP_2M), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(walked(Rule.DDIM), wanted, atol=1e-2)


class Shifted(Steps):
    """Steps counted from 1, so that clean is level 0."""

    def alpha(self, s: Tensor) -> Tensor:
        return super().alpha(s - 1)

    def sigma(self, s: Tensor) -> Tensor:
        return super().sigma(s - 1)


def sigmas(scheduler: object, steps: int) -> tuple[Tensor, Tensor]:
    """(K + 1,) noise of a diffusers scheduler with sigmas of EDM's kind, and its times."""
    scheduler.set_timesteps(steps)
    return scheduler.sigmas, scheduler.timesteps


class Sigmas:
    """Levels that are standard deviations themselves, without scaling of the data."""

    def alpha(self, s: Tensor) -> Tensor:
        return torch.ones_like(s)

    def sigma(self, s: Tensor) -> Tensor:
        return s


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_eta_1_on_sigmas_is_eulers_ancestral_step() -> None:
    theirs = EulerAncestralDiscreteScheduler(**SCHEDULE)
    levels, times = sigmas(theirs, 5)
    x = normal(1, 4, 3)
    theirs._step_index = None
    theirs.is_scale_input_called = True
    wanted = theirs.step(say(x, times[1]), times[1], x, generator=torch.Generator().manual_seed(0)).prev_sample
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x0 = x - levels[1] * say(x, times[1])
    s, to = levels[1].expand(4), levels[2].expand(4)
    torch.testing.assert_close(one_step(Sigmas(), x, x0, s, to, fresh, 1.0), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one_step(Sigmas(), x, x0, s, to, fresh, 0.5), wanted, atol=1e-2)


@pytest.mark.parametrize("process", [Sigmas(), RectifiedFlow()])
@pytest.mark.parametrize(("rule", "order"), [(Rule.HEUN, 4.0), (Rule.DDIM, 2.0)])
def test_heun_is_second_order_and_ddim_first(process: Process, rule: Rule, order: float) -> None:
    """On the path of x0 = 0.3 x halving the steps divides Heun's error by 4 and Euler's by 2."""
    x = normal(1, 4, 3) * 0.1

    def end(rule: Rule, steps: int) -> Tensor:
        rows = torch.linspace(0.9, 0.3, steps + 1).unsqueeze(-1).expand(-1, 4)
        table = Table.of(rows, process, Prediction.X0, SIGMA_DATA, rule, 0.0, UNIT)
        return table.walk(lambda x, _: 0.3 * x, x, lambda: x)[0].double()

    exact = end(Rule.HEUN, 640)
    ratio = ((end(rule, 10) - exact).abs().max() / (end(rule, 20) - exact).abs().max()).item()
    assert 0.8 * order < ratio < 1.2 * order


def test_a_jump_forgets_where_it_was() -> None:
    rows, fresh = uniform_rows(2), normal(1, 4, 3, seed=2)
    table = Table.of(rows, VPCosine(), Prediction.X0, SIGMA_DATA, Rule.JUMP, 0.0, UNIT)
    seen = []
    for start in (normal(1, 4, 3), normal(1, 4, 3, seed=1)):
        table.walk(lambda x, row: seen.append(x) or torch.full_like(x, 0.5), start, lambda: fresh)
    assert torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[2])
    level = rows[1].unsqueeze(-1)
    torch.testing.assert_close(seen[1], VPCosine().alpha(level) * 0.5 + VPCosine().sigma(level) * fresh)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("rule", Rule)
def test_tokens_whose_level_stays_keep_their_bits(process: Process, rule: Rule) -> None:
    x, noise = normal(1, 3, 2), normal(1, 3, 2, seed=3)
    rows = torch.tensor([[0.0, 0.5, 0.75], [0.0, 0.5, 0.5], [0.0, 0.5, 0.25]])
    table = Table.of(rows, process, Prediction.X0, SIGMA_DATA, rule, 1.0 if rule is Rule.DDIM else 0.0, UNIT)
    after, _ = table.walk(lambda x, _: 0.1 * x, x, lambda: noise)
    assert torch.equal(after[:, :2], x[:, :2]) and not torch.equal(after[:, 2], x[:, 2])


@pytest.mark.parametrize("rule", [Rule.DDIM, Rule.DPMPP_2M, Rule.HEUN])
@pytest.mark.parametrize("process", PROCESSES)
def test_a_mixtures_modes_are_sampled_at_their_rates(process: Process, rule: Rule) -> None:
    """Exact score of modes -0.5 (weight .3) and +0.5 (weight .7), each with deviation 0.05."""
    wide = EDM(0.005, 20.0) if isinstance(process, EDM) else process
    rows, x = uniform_rows(60), normal(4000, 1, 1)
    modes, weights = torch.tensor([-0.5, 0.5]), torch.tensor([0.3, 0.7])

    def clean(x: Tensor, row: int) -> Tensor:
        alpha, sigma = wide.alpha(rows[row]), wide.sigma(rows[row])
        variance = alpha**2 * 0.05**2 + sigma**2
        share = torch.softmax(weights.log() - (x - alpha * modes) ** 2 / (2 * variance), dim=-1)
        return (share * (modes + alpha * 0.05**2 / variance * (x - alpha * modes))).sum(-1, keepdim=True)

    table = Table.of(rows, wide, Prediction.X0, SIGMA_DATA, rule, 0.0, UNIT)
    x, _ = table.walk(clean, table.start * x, lambda: x)
    assert abs((x > 0).float().mean().item() - 0.7) < 0.03
    assert ((x.abs() - 0.5).abs() < 0.2).float().mean() > 0.99


@pytest.mark.parametrize(("rule", "wanted"), [(Rule.DDIM, 4), (Rule.HEUN, 7)])
def test_a_table_counts_the_calls_of_the_network(rule: Rule, wanted: int) -> None:
    table = Table.of(staircase_rows(4, 1, 2), VPCosine(), Prediction.V, SIGMA_DATA, rule, 0.0, UNIT)
    calls: list[int] = []
    table.walk(lambda x, row: calls.append(row) or x, normal(1, 2, 1), lambda: normal(1, 2, 1))
    assert len(calls) == table.evaluations == wanted
