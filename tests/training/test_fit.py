"""The supervised loop: it learns, it is a function of its seed, and a kill does not change a bit of the result."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from omnibody.policies.batch import Batch
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.policies.table import POLICIES
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.training import fit as fitting
from omnibody.training.data.fake import fake_episode
from omnibody.training.data.layout import Episode
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.fit import FitCfg, fit, learning_rate, parameter_groups
from omnibody.training.run_folder import LOG

Write = Callable[..., Path]
SLOPE = np.array([[0.02, -0.01, 0.0, 0.1], [0.0, 0.03, 0.2, 0.0], [-0.04, 0.0, 0.0, 0.3]], np.float32)


@dataclass
class LineCfg:
    """The expert's command as a linear function of the goal."""

    dropout: float = 0.1  # on the goal: draws from torch's global generator
    noise: float = 0.01  # on the target: draws from the loss's own generator

    def build(self, spec: IOSpec) -> "Line":
        return Line(self, spec)


class Line(Policy):
    def __init__(self, cfg: LineCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec = cfg, spec
        self.layer = nn.Linear(4, 3)
        self.calls = 0

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        self.calls += self.training
        said = self.layer(F.dropout(batch.obs["goal"], self.cfg.dropout, self.training))
        target = batch.expert + self.cfg.noise * torch.randn(batch.expert.shape, generator=generator)
        error = ((said - target)[~batch.pad] ** 2).mean()
        return error, {"worst": error.item()}

    def begin(self, context: Context, batch_size: int) -> State:
        return {}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        return self.layer(obs["goal"]).unsqueeze(1), state


class Stopped(Exception):
    """Ends a run in the middle."""


class Stopping(Line):
    """Stops the run in its 17th step."""

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.calls == 16 and self.training:
            raise Stopped
        return super().loss(batch, generator)


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "line", f"{__name__}:LineCfg")


@pytest.fixture
def windows(tmp_path: Path, write: Write, spec: IOSpec) -> Windows:
    """Experts that command a linear function of the goal."""

    def linear(episode: Episode) -> Episode:
        return replace(episode, expert=episode.obs["goal"][:-1] @ SLOPE.T)

    rng = np.random.default_rng(1)
    path = write(tmp_path / "data", [linear(fake_episode(spec, 12, rng)) for _ in range(8)])
    return Windows.of([open_dataset(path)], 4, 4, stride=2)


def line(spec: IOSpec, cls: type[Line] = Line, **changes: float) -> Line:
    torch.manual_seed(3)
    return cls(replace(LineCfg(), **changes), spec)


CFG = FitCfg(epochs=4, batch_size=6, checkpoint_every=5, log_every=4, learning_rate=0.02)


def test_learning_rate_is_torchs_one_cycle() -> None:
    for total, warmup in ((100, 0.2), (37, 0.3), (4, 0.2)):
        cfg = FitCfg(warmup=warmup)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        reference = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, cfg.learning_rate, total_steps=total, pct_start=warmup, cycle_momentum=False
        )
        theirs = []
        for _ in range(total):
            theirs.append(reference.get_last_lr()[0])
            optimizer.step()
            if len(theirs) < total:
                reference.step()
        ours = [learning_rate(step, total, cfg) for step in range(total)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-16)
        other = [learning_rate(step, total, FitCfg(warmup=warmup + 0.3)) for step in range(total)]
        assert not np.allclose(other, theirs, rtol=1e-2)
    assert learning_rate(0, 5, FitCfg(warmup=0.2)) == FitCfg().learning_rate  # where torch divides by zero


def test_only_matrices_decay() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4), nn.Linear(3, 2))
    net[2].bias.requires_grad = False
    decayed, rest = parameter_groups(net, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4, 2] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in rest["params"]] == [1, 1, 1] and rest["weight_decay"] == 0.0


def test_it_learns(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    """The held-out error falls below a hundredth of what the best constant command reaches (deterministic, seeded)."""
    batch = windows.batch(np.arange(len(windows)))
    constant = batch.expert.var((0, 1)).mean().item()
    policy = line(spec, dropout=0.0, noise=0.0)
    fitted = fit(policy, windows, replace(CFG, epochs=60), tmp_path / "run")
    assert fitted.held_out["loss"] < constant / 100
    assert fitted.samples_per_second > 0
    untrained = fit(line(spec), windows, replace(CFG, epochs=1, learning_rate=1e-9), tmp_path / "other")
    assert untrained.held_out["loss"] > constant / 2


@pytest.mark.parametrize(("ema", "kept"), [(0.0, "optimizer"), (0.9, "optimizer"), (0.9, "average")])
def test_a_stopped_run_ends_with_the_same_bits(
    tmp_path: Path, windows: Windows, spec: IOSpec, ema: float, kept: str
) -> None:
    """Dropout and noise included; the controls: another seed, and what was kept forgotten at the resume."""
    cfg, whole = replace(CFG, ema=ema), line(spec)
    fit(whole, windows, cfg, tmp_path / "whole")
    for name, forget in (("resumed", False), ("forgetful", True)):
        run = tmp_path / name
        with pytest.raises(Stopped):
            fit(line(spec, Stopping), windows, cfg, run)
        (state,) = (run / "steps").iterdir()
        assert state.name == "step-00000015"
        if forget:
            values = load_file(state / f"{kept}.safetensors")
            save_file({key: torch.zeros_like(value) for key, value in values.items()}, state / f"{kept}.safetensors")
        policy = line(spec)
        fit(policy, windows, cfg, run)
        same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), policy.parameters(), strict=True))
        assert same is not forget
        weights = [(folder / "policy/weights.safetensors").read_bytes() for folder in (tmp_path / "whole", run)]
        assert (weights[0] == weights[1]) is not forget
        assert not (run / "steps").exists()
    rows = [json.loads(row) for row in (tmp_path / "resumed/log.jsonl").read_text().splitlines()]
    trained = [row["step"] for row in rows if "held_out" not in row]
    assert trained == sorted(set(trained))
    seeded = line(spec)
    fit(seeded, windows, replace(cfg, seed=1), tmp_path / "seeded")
    assert not torch.equal(seeded.layer.weight, whole.layer.weight)


def test_the_weights_average_is_kept_and_held_out(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    last, average = line(spec), line(spec)
    fit(last, windows, CFG, tmp_path / "last")
    fitted = fit(average, windows, replace(CFG, ema=0.9), tmp_path / "average")
    assert not torch.equal(last.layer.weight, average.layer.weight)
    held = windows.split(CFG.held_out, CFG.seed)[1]
    measured = [fitting.held_out_loss(policy.eval(), held, CFG, Accelerator()) for policy in (average, last)]
    assert measured[0] == fitted.held_out != measured[1]


def test_a_finished_run_is_not_trained_again(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    first, second = line(spec), line(spec)
    once = fit(first, windows, CFG, tmp_path / "run")
    again = fit(second, windows, CFG, tmp_path / "run")
    assert torch.equal(first.layer.weight, second.layer.weight) and second.calls == 0
    assert again.held_out == once.held_out and again.steps == once.steps


def test_global_generators_are_left_alone(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    policy = line(spec)
    torch.manual_seed(9), np.random.seed(9), random.seed(9)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    fit(policy, windows, replace(CFG, epochs=1), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_another_training_is_refused(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    run = tmp_path / "run"
    fit(line(spec), windows, CFG, run)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    bad = {
        "fit.learning_rate=0.02, now fit.learning_rate=0.5": lambda: fit(
            line(spec), windows, replace(CFG, learning_rate=0.5), run
        ),
        "policy.cfg.dropout=0.1, now policy.cfg.dropout=0.3": lambda: fit(line(spec, dropout=0.3), windows, CFG, run),
        "data.stride=2, now data.stride=1": lambda: fit(line(spec), replace(windows, stride=1), CFG, run),
        "batch_size: wanted at most": lambda: fit(line(spec), windows, replace(CFG, batch_size=999), tmp_path / "new"),
    }
    for message, call in bad.items():
        with pytest.raises(UserError, match=message):
            call()
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    fit(line(spec), windows, replace(CFG, log_every=7), run)  # how often it logs may change


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    policy = line(spec)
    with torch.no_grad():
        policy.layer.bias[0] = torch.nan
    with pytest.raises(UserError, match="the loss is nan and its gradient.s norm nan at step 0"):
        fit(policy, windows, CFG, tmp_path / "run")
    assert not (tmp_path / "run/policy").exists()


def test_the_gradient_is_no_longer_than_asked(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    lengths = {}
    for largest in (1e6, 1e-3):
        policy = line(spec)
        fit(policy, windows, replace(CFG, grad_clip=largest), tmp_path / str(largest))
        lengths[largest] = torch.cat([p.grad.flatten() for p in policy.parameters()]).norm()  # of the last step
    assert lengths[1e6] > 0.01
    assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_bad_settings_are_refused() -> None:
    for key, value in (("epochs", 0), ("warmup", 1.0), ("held_out", 0.0), ("batch_size", -1), ("ema", 1.0)):
        with pytest.raises(ValueError, match=key):
            FitCfg(**{key: value})


def _train(data: Path, out: Path, **more: object) -> list[str]:
    words = {"policy.world.hidden": 24, "policy.world.latent": 8, "policy.world.embed": 16, "policy.world.channels": 4}
    words |= {"policy.policy_width": 16, "windows.obs_steps": 4, "windows.action_steps": 4, "windows.stride": 4}
    words |= {"fit.epochs": 6, "fit.batch_size": 4, "fit.checkpoint_every": 3, "fit.log_every": 1, "fit.held_out": 0.2}
    words |= {"data": f"[{data}]", "out": out, **more}
    return [f"{key}={value}" for key, value in words.items()]


def test_sigkill_and_the_same_command_end_with_the_same_weights(
    tmp_path: Path, write: Write, full_spec: IOSpec
) -> None:
    """`omnibody train` on a world model, killed at a random moment."""
    rng = np.random.default_rng()
    data = write(tmp_path / "data", [fake_episode(full_spec, 24, rng) for _ in range(6)], spec=full_spec)
    command, out = [sys.executable, "-m", "omnibody.training.train"], tmp_path / "killed"
    with subprocess.Popen([*command, *_train(data, out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        stop_after = rng.integers(1, 25)
        while run.poll() is None and _logged(out) < stop_after:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL and not (out / "policy").exists()
    for folder in (out, tmp_path / "whole"):
        subprocess.run([*command, *_train(data, folder)], check=True, capture_output=True)
    weights = [(folder / "policy/weights.safetensors").read_bytes() for folder in (tmp_path / "whole", out)]
    assert weights[0] == weights[1]
    steps = [json.loads(row)["step"] for row in (out / "log.jsonl").read_text().splitlines() if "held_out" not in row]
    assert steps == list(range(1, 43))


def _logged(run: Path) -> int:
    log = run / LOG
    return log.read_text().count('"lr"') if log.exists() else 0


LAUNCHED = """
import importlib.util, sys
from pathlib import Path
import torch

test_file, data, out = sys.argv[1:]
module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("line_policy", test_file))
sys.modules["line_policy"] = module
spec.loader.exec_module(module)
module.POLICIES["line"] = "line_policy:LineCfg"
windows = module.Windows.of([module.open_dataset(data)], 4, 4, stride=4)
policy = module.line(windows.spec, dropout=0.0, noise=0.0)
module.fit(policy, windows, module.CFG, Path(out))
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, windows: Windows, spec: IOSpec) -> None:
    """`accelerate launch` with two processes: the gradient of the whole batch, so the same weights up to rounding."""
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    words = [str(script), __file__, str(windows.datasets[0].path), str(tmp_path / "two")]
    options = ["--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, *words], check=True, capture_output=True
    )
    one = line(spec, dropout=0.0, noise=0.0)
    fit(one, Windows.of(windows.datasets, 4, 4, stride=4), CFG, tmp_path / "one")
    two = load_file(tmp_path / "two/policy/weights.safetensors")
    torch.testing.assert_close(two["layer.weight"], one.layer.weight.detach(), atol=1e-5, rtol=1e-5)
    untrained = line(spec, dropout=0.0, noise=0.0)
    assert not torch.allclose(two["layer.weight"], untrained.layer.weight, atol=1e-2)
