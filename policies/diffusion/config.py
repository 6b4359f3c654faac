"""What makes a diffusion policy: every member of the family is a set of these values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Self

from omnibody.policies.diffusion.levels import Density
from omnibody.policies.diffusion.parameterisation import Prediction
from omnibody.policies.diffusion.processes import EDM, Process, RectifiedFlow, VPCosine
from omnibody.policies.diffusion.rules import Rule
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec

if TYPE_CHECKING:
    from omnibody.policies.diffusion.policy import Diffusion


class ProcessName(Enum):
    """The noise process."""

    VP = "vp"
    EDM = "edm"
    FLOW = "flow"


class Net(Enum):
    """The network."""

    RESMLP = "resmlp"
    TRANSFORMER = "transformer"
    UNET = "unet"


class Objective(Enum):
    """What is learned: to denoise, or besides to jump over many levels at once."""

    DENOISE = "denoise"
    SHORTCUT = "shortcut"  # a step of any length equals two of half its length, arXiv 2410.12557
    CONSISTENCY = "consistency"  # one step from anywhere to the data, arXiv 2303.01469 and 2310.02279


@dataclass
class DiffusionCfg:
    """Denoised action chunks on vectors and images."""

    obs_keys: list[str] = field(default_factory=list)  # what the policy sees, images too; empty: every vector
    goal_keys: list[str] = field(default_factory=list)  # observations that are the goal, which can be left out
    goal_dropout: float = 0.0  # share of training samples without their goal
    guidance: float = 1.0  # weight of the goal while sampling; 1 is plain conditioning, 0 ignores the goal
    relative_to: str = (
        ""  # the observation that actions are told from, as a tool's position; empty: actions as they are
    )
    obs_steps: int = 2  # observations the policy sees, the present one the last
    horizon: int = 16  # actions it foresees, from the present one on
    chunk: int = 8  # actions executed per call
    past: int = 0  # executed actions it sees, as clean tokens in front
    prefix: int = 0  # most actions that may be fixed before a call, for executing while it computes
    process: ProcessName = ProcessName.FLOW  # vp, edm or flow
    sigma_min: float = 0.02  # of edm
    sigma_max: float = 1.0  # of edm
    prediction: Prediction = Prediction.FLOW  # what the network says: eps, x0, v, flow or edm
    objective: Objective = Objective.DENOISE  # denoise, shortcut or consistency
    levels: dict[str, float] = field(default_factory=lambda: {"constant": 1.0})  # shares of kinds of training levels
    density: Density = Density.UNIFORM  # of training levels
    streaming: bool = False  # keep later actions half denoised between calls
    rule: Rule = Rule.DDIM  # ddim, dpmpp_2m, heun or jump
    steps: int = 4  # steps per call
    eta: float = 0.0  # noise added by ddim; 0 is DDIM or Euler, 1 is DDPM or Euler's ancestral step
    net: Net = Net.RESMLP  # resmlp, transformer or unet
    width: int = 256  # of the network; of the U-Net's finest resolution
    layers: int = 3  # of the network; the U-Net's resolutions
    heads: int = 4  # of the transformer

    def __post_init__(self) -> None:
        for key in ("obs_steps", "horizon", "chunk", "steps", "width", "layers", "heads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: wanted at least 1, came {getattr(self, key)}")
        for key in ("past", "prefix", "eta", "guidance"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}: wanted at least 0, came {getattr(self, key)}")
        self._check_chunks()
        self._check_sampling()

    def _check_chunks(self) -> None:
        if self.horizon < self.chunk:
            raise ValueError(f"horizon: wanted at least chunk = {self.chunk}, came {self.horizon}")
        if self.streaming and self.horizon % self.chunk:
            raise ValueError(f"horizon: wanted a multiple of chunk = {self.chunk} to stream, came {self.horizon}")
        if self.past >= max(self.obs_steps, 1) and self.past:
            raise ValueError(f"past: wanted less than obs_steps = {self.obs_steps}, came {self.past}")
        if self.prefix and (self.streaming or self.prefix + self.chunk > self.horizon):
            raise ValueError(
                f"prefix: wanted at most horizon - chunk = {self.horizon - self.chunk} and no streaming, "
                f"came {self.prefix}"
            )

    def _check_sampling(self) -> None:
        if not 0 <= self.goal_dropout < 1:
            raise ValueError(f"goal_dropout: wanted a share in [0, 1), came {self.goal_dropout}")
        if not self.goal_keys and (self.goal_dropout or self.guidance != 1):
            raise ValueError("goal_dropout and guidance: wanted goal_keys with them, came none")
        if self.guidance != 1 and not self.goal_dropout:
            raise ValueError(f"guidance: wanted goal_dropout above 0 with guidance {self.guidance}, came 0")
        if self.eta and self.rule is not Rule.DDIM:
            raise ValueError(f"eta: wanted 0 with the rule {self.rule.value}, came {self.eta}")
        if (self.prediction is Prediction.EDM) != (self.process is ProcessName.EDM):
            raise ValueError(
                f"prediction: wanted edm with the process edm and only then, came {self.prediction.value} "
                f"with {self.process.value}"
            )
        if self.objective is Objective.SHORTCUT and self.prediction is not Prediction.FLOW:
            raise ValueError(f"prediction: wanted flow for the objective shortcut, came {self.prediction.value}")
        if self.objective is not Objective.DENOISE and (self.streaming or self.past or self.prefix):
            raise ValueError(f"objective: wanted denoise with streaming, past or prefix, came {self.objective.value}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min: wanted in (0, sigma_max = {self.sigma_max}), came {self.sigma_min}")

    @classmethod
    def tiny(cls) -> Self:
        """An instance for tests."""
        return cls(horizon=4, chunk=2, width=16, layers=1, heads=2)

    def noise_process(self) -> Process:
        """The noise process."""
        if self.process is ProcessName.EDM:
            return EDM(self.sigma_min, self.sigma_max)
        return VPCosine() if self.process is ProcessName.VP else RectifiedFlow()

    def seen(self, spec: IOSpec) -> list[str]:
        """The keys of the observation, without those of the goal."""
        vectors = [key for key, part in spec.obs.items() if len(part.shape) == 1 and key not in self.goal_keys]
        return self.obs_keys or vectors

    def build(self, spec: IOSpec) -> Diffusion:
        """The untrained policy; its weights come from torch's global generator."""
        from omnibody.policies.diffusion.policy import Diffusion

        if missing := [key for key in (*self.obs_keys, *self.goal_keys) if key not in spec.obs]:
            raise UserError(f"obs_keys: wanted some of {sorted(spec.obs)}, came {missing}; name keys of the task")
        if self.relative_to:
            fitting = [key for key, part in spec.obs.items() if part.shape == spec.action.shape]
            if self.relative_to not in fitting:
                raise UserError(f"relative_to: wanted one of {fitting}, shaped like an action, came {self.relative_to}")
        return Diffusion(self, spec)


@dataclass
class LargeDiffusionCfg(DiffusionCfg):
    """The family at the size of Diffusion Policy's paper, for a GPU: a U-Net of 256, 512 and 1024 channels."""

    net: Net = Net.UNET  # resmlp, transformer or unet
