"""The real policy node, in which a test may switch single guards off or spoil the policy: its parameter ``without``.

A comma-separated list of the names below; setting it anew undoes what was set before.
"""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from rcl_interfaces.msg import SetParametersResult

from omnibody.deploy_ros import messages, policy_node, runner, safety
from omnibody.policies import checkpoint

Set = Any  # pytest.MonkeyPatch.setattr
nothing = lambda *args: None  # noqa: E731


def act_with(set_: Set, node: Any, twist: tuple[float, float, float], seconds: float = 0.0) -> None:
    """Let the policy command ``twist`` after so many seconds."""

    def act(obs: Any, state: Any) -> Any:
        time.sleep(seconds)
        return torch.tensor([[twist]]), state

    set_(node._runner.policy, "act", act)


def act_by_memory(set_: Set, node: Any) -> None:
    """Let the policy drive the faster the longer it remembers."""
    policy = node._runner.policy
    set_(policy, "begin", lambda context, size: {"age": torch.zeros(size, 1)})
    set_(
        policy,
        "act",
        lambda obs, state: (torch.tensor([[[0.05 * float(state["age"]), 0.0, 0.0]]]), {"age": state["age"] + 1}),
    )
    node._runner._begin()


def fail(*args: Any) -> Any:
    raise RuntimeError("broken")


GUARDS = {
    "stale": lambda s, n: [s(runner, "STALE_PERIODS", math.inf), s(runner, "FUTURE", math.inf)],
    "backwards": lambda s, n: s(runner.PolicyRunner, "interrupted", nothing),
    "unusable": lambda s, n: s(runner.PolicyRunner, "fault", nothing),
    "finite": lambda s, n: [s(runner, "_checked", lambda twist: twist), s(messages, "_finite", nothing)],
    "limits": lambda s, n: s(safety.SafetyFilter, "filter", lambda self, twist, obstacles: twist),
    "obstacle": lambda s, n: s(safety.SafetyFilter, "_share", lambda self, twist, obstacles: 1.0),
    "latch": lambda s, n: s(runner.PolicyRunner, "_at_goal", lambda self, goal: False),
    "same goal": lambda s, n: s(runner, "SAME_GOAL", -1.0),
    "estop": lambda s, n: s(runner.PolicyRunner, "estop", property(lambda self: False, nothing), raising=False),
    "halt": lambda s, n: s(policy_node.PolicyNode, "halt", nothing),
    "catch": lambda s, n: s(runner.PolicyRunner, "_answer", lambda self, now: runner.Command(self._act())),
    "overrun": lambda s, n: s(runner, "OVERRUNS", math.inf),
    "trim": lambda s, n: s(runner.PolicyRunner, "_remember", lambda self, *pose: self._poses.append(pose)),
    "files": lambda s, n: s(checkpoint, "_check_files", nothing),
}
FAULTS = {
    "nan": lambda s, n: act_with(s, n, (math.nan, 0.0, 0.0)),
    "wild": lambda s, n: act_with(s, n, (50.0, 0.0, -9.0)),
    "ahead": lambda s, n: act_with(s, n, (1.0, 0.0, 0.0)),
    "slow": lambda s, n: act_with(s, n, (0.5, 0.0, 0.0), 0.15),
    "memory": act_by_memory,
    "raise": lambda s, n: s(n._runner.policy, "act", fail),
}


class MeddledNode(policy_node.PolicyNode):
    def __init__(self) -> None:
        super().__init__()
        self._patches = pytest.MonkeyPatch()
        self.declare_parameter("without", "")
        self.add_on_set_parameters_callback(self._meddle)

    def _meddle(self, parameters: Any) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "without":
                self._patches.undo()
                for name in filter(None, parameter.value.split(",")):
                    {**GUARDS, **FAULTS}[name](self._patches.setattr, self)
        return SetParametersResult(successful=True)


policy_node.PolicyNode = MeddledNode
policy_node.main()
