"""The experiment files beside the code fit the training command, and every one makes a policy that learns and acts."""

from pathlib import Path

import pytest
import torch

from omnibody.policies.batch import fake_batch, random_values
from omnibody.policies.diffusion.config import DiffusionCfg, LargeDiffusionCfg
from omnibody.policies.policy import Context
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_body, load_robot
from omnibody.sim_tasks.table import body_of, task_config
from omnibody.training.config import parse
from omnibody.training.train import TrainCfg

ROOT = Path(__file__).parents[3]
NAMES = sorted(file.stem for file in (ROOT / "policies" / "diffusion").glob("*.yaml"))
TASKS = sorted(file.stem for file in (ROOT / "sim_tasks").glob("*.yaml"))
SPEC = IOSpec(
    obs={key: Field((2,), "float32", "m", (-1.0, -1.0), (1.0, 1.0)) for key in ("agent", "goal")},
    action=Field((2,), "float32", "m", (-1.0, -1.0), (1.0, 1.0)),
    rate_hz=10.0,
)
PAPER = {name: ["policy.net=TRANSFORMER", "policy.width=240", "policy.heads=12"] for name in ("beso", "cfg_beso")}


def read(name: str, *words: str) -> TrainCfg:
    return parse(TrainCfg, [f"experiment=policies/diffusion/{name}", "data=[d]", "out=o", *words])


def one_step_and_call(cfg: DiffusionCfg, batch: int) -> None:
    """A step of the optimiser lowers the loss on its own batch; the call gives as many actions as foreseen."""
    torch.manual_seed(0)
    policy, generator = cfg.build(SPEC), torch.Generator().manual_seed(0)
    windows = fake_batch(SPEC, batch, cfg.obs_steps, cfg.obs_steps - 1 + cfg.horizon, generator)
    policy.fit_statistics([windows])
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)

    def loss() -> torch.Tensor:
        return policy.loss(windows, torch.Generator().manual_seed(1))[0]

    before = loss()
    before.backward()
    optimizer.step()
    with torch.no_grad():
        assert loss() < before
        obs = {key: random_values(field, (2,), generator) for key, field in SPEC.obs.items()}
        action, _ = policy.act(obs, policy.begin(Context(load_robot("carrier")), 2), generator)
    assert action.shape == (2, cfg.horizon, 2) and action.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_trains_and_acts(name: str) -> None:
    cfg = read(name)
    policy, windows = cfg.policy, cfg.windows
    assert type(policy) is DiffusionCfg and cfg.fit.ema > 0
    assert (windows.obs_steps, windows.lead) == (policy.obs_steps, policy.obs_steps - 1)
    assert windows.action_steps == policy.obs_steps - 1 + policy.horizon
    one_step_and_call(policy, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_trains_and_acts_at_paper_size(name: str) -> None:
    cfg = read(name, "policy=diffusion_l", *PAPER.get(name, []))
    assert type(cfg.policy) is LargeDiffusionCfg
    one_step_and_call(cfg.policy, 2)


def test_the_paper_size_is_the_papers() -> None:
    """65.8 M parameters in the original, whose step encoder and FiLM layers are wider than ours."""
    net = read("dp_ddpm100", "policy=diffusion_l").policy.build(SPEC).net
    assert 55e6 < sum(parameter.numel() for parameter in net.parameters()) < 75e6


@pytest.mark.parametrize("name", TASKS)
def test_every_tasks_experiment_fits_its_windows_and_its_size(name: str) -> None:
    """Of checkpoints that are shipped: at most 10 MB, and what it sees the task shows."""
    cfg = parse(TrainCfg, [f"experiment=sim_tasks/{name}", "data=[d]", "out=o"])
    name = name.removesuffix("_flow")
    built = task_config(name).build(load_body(body_of(name)), 1)
    policy = cfg.policy.build(IOSpec(built.obs_fields, built.body.action, built.body.rate_hz))
    assert sum(value.numel() for value in policy.state_dict().values()) * 4 <= 10e6
    assert cfg.windows.action_steps == cfg.policy.obs_steps - 1 + cfg.policy.horizon
    assert (cfg.windows.obs_steps, cfg.windows.lead) == (cfg.policy.obs_steps, cfg.policy.obs_steps - 1)
