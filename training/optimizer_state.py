"""An optimiser's moments as flat named tensors, so that a resumable run needs no pickle."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer


def flat_moments(optimizer: Optimizer, prefix: str = "") -> dict[str, Tensor]:
    """Copies on the CPU of every parameter's moments, as ``<prefix><parameter's index>.<name>``, for safetensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}{index}.{name}": value.detach().cpu().clone().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def load_moments(optimizer: Optimizer, tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Put back what ``flat_moments`` gave; keys without ``prefix`` are left alone, hyper-parameters stay."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, _, name = key.removeprefix(prefix).partition(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
