"""ONNX graphs of the COMPASS policies with explicit state, and a policy that runs one.

Inputs ``obs.<key>`` (only what acting needs) and ``state.<key>``, outputs ``action`` (B, 1, 3) [m/s, m/s, rad/s] and
``next_state.<key>``; the batch size is free. The file carries what a robot needs to use it: the IOSpec, the policy's
config and, for a one-hot generalist, the names of its bodies. Nothing in it is about a certain body.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf, NoSuchFile
from torch import Tensor, nn

from omnibody.policies.checkpoint import policy_name
from omnibody.policies.compass.base import CompassBase
from omnibody.policies.compass.commands import limit_state
from omnibody.policies.compass.generalist import CompassGeneralist, body_code
from omnibody.policies.compass.residual import CompassResidual
from omnibody.policies.files import atomic_file
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec

CompassPolicy = CompassBase | CompassResidual | CompassGeneralist
OPSET = 18
MAX_BYTES = 20_000_000


class _Step(nn.Module):
    """``act`` with tensors in and out in a fixed order."""

    def __init__(self, policy: CompassPolicy, state_keys: list[str]) -> None:
        super().__init__()
        self.policy, self.state_keys = policy, state_keys

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self.policy.obs_keys)
        obs = dict(zip(self.policy.obs_keys, tensors[:count], strict=True))
        state = dict(zip(self.state_keys, tensors[count:], strict=True))
        action, state = self.policy.act(obs, state)
        return action, *(state[key] for key in self.state_keys)


def export_onnx(policy: CompassPolicy, context: Context, path: Path) -> None:
    """Write ``policy`` as an ONNX file; the body of ``context`` only serves to make an example state."""
    state = policy.begin(context, 2)
    obs = {key: torch.zeros(2, *policy.spec.obs[key].shape) for key in policy.obs_keys}
    names = [f"obs.{key}" for key in obs] + [f"state.{key}" for key in state]
    inputs = (*obs.values(), *state.values())
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            _Step(policy, list(state)).eval(),
            inputs,
            input_names=names,
            output_names=["action", *(f"next_state.{key}" for key in state)],
            dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo=True there is always one
    model = program.model_proto
    facts = {
        "policy": policy_name(policy.cfg),
        "config": json.dumps(dataclasses.asdict(policy.cfg)),
        "spec": policy.spec.to_json(),
        "bodies": json.dumps(policy.cfg.bodies if isinstance(policy, CompassGeneralist) else []),
    }
    onnx.helper.set_model_props(model, facts)
    data = model.SerializeToString()
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: wanted at most {MAX_BYTES} bytes, came {len(data)}; make the policy smaller")
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about its own internals and about torchvision not being installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


class OnnxPolicy(Policy):
    """An exported policy behind the same ``begin`` and ``act``, on onnxruntime with one thread.

    ``cfg`` is the exported policy's configuration as a plain dictionary.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except (InvalidProtobuf, NoSuchFile) as error:
            raise UserError(f"{path}: wanted an ONNX file written by `omnibody export`, came none ({error})") from error
        facts = self._session.get_modelmeta().custom_metadata_map
        if "spec" not in facts:
            raise UserError(f"{path}: wanted an ONNX file written by `omnibody export`, came one without an IOSpec")
        self.spec, self.cfg = IOSpec.from_json(facts["spec"]), json.loads(facts["config"])
        self.name, self._bodies = facts["policy"], json.loads(facts["bodies"])
        widths = {node.name: node.shape[1:] for node in self._session.get_inputs()}
        self._state_widths = {k.removeprefix("state."): w for k, w in widths.items() if k.startswith("state.")}
        self.obs_keys = tuple(k.removeprefix("obs.") for k in widths if k.startswith("obs."))
        self._outputs = [node.name for node in self._session.get_outputs()]

    def begin(self, context: Context, batch_size: int) -> State:
        """Limits and code of the body, zero for all else."""
        state = {key: torch.zeros(batch_size, *width) for key, width in self._state_widths.items()}
        state |= limit_state(context.embodiment, batch_size)
        if "code" in state:
            state["code"] = body_code(context.embodiment, self._bodies).expand(batch_size, -1).clone()
        return state

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """The mean action (B, 1, 3); an exported graph has no randomness."""
        if generator is not None:
            raise ValueError("OnnxPolicy: an exported policy gives the mean action only; pass no generator")
        feed = {f"obs.{key}": obs[key].float().numpy() for key in self.obs_keys}
        feed |= {f"state.{key}": value.numpy() for key, value in state.items()}
        values = [torch.from_numpy(value) for value in self._session.run(self._outputs, feed)]
        named = dict(zip(self._outputs, values, strict=True))
        return named["action"], {key: named[f"next_state.{key}"] for key in state}
