"""Where a figure came from: machine, versions, revision of the code, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from omnibody.training.threads import usable_cores

PACKAGES = ("omnibody", "torch", "mujoco", "numpy", "gymnasium", "stable-baselines3")


def provenance() -> dict[str, Any]:
    """Everything below under one roof, ready for JSON: ``hardware``, ``versions``, ``git``, ``command``."""
    return {"hardware": hardware(), "versions": versions(), "git": git_revision(), "command": command()}


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory [GiB], GPU and operating system of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(), "cores": usable_cores(), "memory_gib": round(memory, 1), "gpu": gpu,
        "system": platform.platform(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Python and the packages that can change a result."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def git_revision() -> str | None:
    """Commit of the checkout this package runs from, with ``-dirty`` behind it if it was edited; None without one."""
    folder = Path(__file__).resolve().parent
    try:
        inside = subprocess.run(["git", "ls-files", __file__], cwd=folder, capture_output=True, text=True)
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:  # no git on this machine
        return None
    # An installed package may lie inside the checkout of some other project.
    return described.stdout.strip() or None if inside.stdout.strip() else None


def command() -> str:
    """The command line of this process, as one would type it."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _read(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
