"""The engines that a policy can run on, all on one thread of the CPU."""

from __future__ import annotations

from pathlib import Path

from omnibody.policies.checkpoint import load_policy
from omnibody.policies.policy import Policy
from omnibody.robots.errors import unknown

BACKENDS = ("torch", "onnx")


def load_for(backend: str, source: Path) -> Policy:
    """The policy of a checkpoint folder (torch) or of a file written by ``omnibody export`` (onnx)."""
    if backend == "torch":
        return load_policy(source)
    if backend != "onnx":
        raise unknown("backend", backend, BACKENDS)
    from omnibody.policies.compass.export import OnnxPolicy  # a second of imports that torch does not need

    return OnnxPolicy(source)
