"""ONNX files act as their policies do, in closed loop, for all three kinds."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from omnibody.policies.batch import fake_batch
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.export import CompassPolicy, OnnxPolicy, export_onnx
from omnibody.policies.compass.generalist import CompassGeneralistCfg
from omnibody.policies.compass.residual import CompassResidualCfg
from omnibody.policies.policy import Context, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_robot

STEPS = 100
CONFIGS = {
    "compass_base": CompassBaseCfg.tiny(),
    "compass_residual": CompassResidualCfg.tiny(),
    "compass_generalist": CompassGeneralistCfg.tiny(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, spec: IOSpec, tmp_path_factory) -> tuple[str, CompassPolicy, Path]:
    torch.manual_seed(0)
    policy = CONFIGS[request.param].build(spec).eval()
    for weight in policy.parameters():  # an untrained net hardly reacts, so that every error would look small
        if weight.ndim > 1:
            torch.nn.init.orthogonal_(weight)
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    export_onnx(policy, Context(load_robot("carrier")), path)
    return request.param, policy, path


def closed_loop(policy: Policy, spec: IOSpec, body: str, batch: int = 2) -> tuple[Tensor, State]:
    """Actions (STEPS, B, 3) and the last state, with the state fed back and a world that answers the command."""
    generator = torch.Generator().manual_seed(5)
    state, actions = policy.begin(Context(load_robot(body)), batch), []
    velocity = torch.zeros(batch, 3)
    for _ in range(STEPS):
        obs = {k: v[:, 0] for k, v in fake_batch(spec, batch, 1, 1, generator).obs.items()}
        obs["velocity"] = velocity
        with torch.no_grad():
            action, state = policy.act(obs, state)
        actions.append(action[:, 0])
        velocity = 0.5 * velocity + 0.5 * action[:, 0]
    return torch.stack(actions), state


@pytest.mark.parametrize("body", ["carrier", "omni"])
def test_closed_loop_parity_over_100_steps(exported, spec, body: str) -> None:
    """The bound holds for actions and state, and one weight changed by 5 % breaks it."""
    _, policy, path = exported
    wanted, wanted_state = closed_loop(policy, spec, body)
    came, came_state = closed_loop(OnnxPolicy(path), spec, body)
    assert (wanted - came).abs().max() <= 1e-4
    assert wanted_state.keys() == came_state.keys()
    assert all((wanted_state[k] - came_state[k]).abs().max() <= 1e-4 for k in wanted_state)
    weight = next(p for name, p in policy.named_parameters() if name.endswith("rssm.gru.weight_ih"))
    with torch.no_grad():
        weight.mul_(1.05)
    changed, _ = closed_loop(policy, spec, body)
    with torch.no_grad():
        weight.div_(1.05)
    assert (changed - came).abs().max() > 1e-4


def test_state_is_explicit_and_only_needed_inputs_are_asked_for(exported, spec) -> None:
    name, policy, path = exported
    graph = onnx.load(path).graph
    state = policy.begin(Context(load_robot("omni")), 1)
    assert [node.name for node in graph.input] == [f"obs.{k}" for k in policy.obs_keys] + [f"state.{k}" for k in state]
    assert [node.name for node in graph.output] == ["action", *(f"next_state.{k}" for k in state)]
    assert path.stat().st_size <= 20_000_000


def test_the_file_describes_itself_and_no_body(exported, spec) -> None:
    name, policy, path = exported
    onnx_policy = OnnxPolicy(path)
    assert onnx_policy.spec == spec and onnx_policy.name == name
    facts = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(facts["config"]) == onnx_policy.cfg
    assert not any("carrier" in value for key, value in facts.items())
    state = onnx_policy.begin(Context(load_robot("go2")), 3)
    reference = policy.begin(Context(load_robot("go2")), 3)
    assert all(torch.equal(state[key], reference[key]) for key in reference)


def test_the_command_has_three_axes_and_vy_is_kept(exported, spec) -> None:
    """COMPASS's node publishes vx and wz only and its generalist cannot be exported at all."""
    _, _, path = exported
    for body, moves in (("omni", True), ("carrier", False)):
        actions, _ = closed_loop(OnnxPolicy(path), spec, body, batch=1)
        assert actions.shape == (STEPS, 1, 3)
        assert (actions[..., 1].abs().max().item() > 0.0) == moves


def test_bad_files_and_samples_are_refused(exported, spec, tmp_path, obs) -> None:
    _, _, path = exported
    onnx_policy = OnnxPolicy(path)
    with pytest.raises(ValueError, match="mean action only"):
        onnx_policy.act(obs, onnx_policy.begin(Context(load_robot("omni")), 4), torch.Generator())
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:1000])
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    for name in ("none.onnx", "cut.onnx", "foreign.onnx"):
        with pytest.raises(UserError, match="wanted an ONNX file written by"):
            OnnxPolicy(tmp_path / name)
