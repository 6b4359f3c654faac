"""``omnibody doctor``: what of this computer Omnibody can use, and how to get what is missing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omnibody.robots.assets import WHEELS, cache_dir
from omnibody.training.config import PACKAGE, parse

# A picture of one sphere, and the name of what drew it.
DRAW = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any(), "the picture is black"
    from OpenGL.GL import GL_RENDERER, glGetString
    print(glGetString(GL_RENDERER).decode())
"""
GPU = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
ROS = "import os, rclpy; print(os.environ.get('ROS_DISTRO', ''), rclpy.__file__)"


@dataclass
class DoctorCfg:
    """Say what is installed and usable."""

    json: bool = False  # print one JSON list of findings and nothing else


@dataclass(frozen=True)
class Finding:
    """One part: whether it is usable, what was found, and how to get it when it is not."""

    part: str
    ok: bool
    found: str
    advice: str = ""


def main(argv: list[str]) -> None:
    """Run the verb."""
    cfg = parse(DoctorCfg, argv)
    findings = list(examine())
    if cfg.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return
    for finding in findings:
        print(f"{'ok ' if finding.ok else '-- '} {finding.part:<22} {finding.found}")
        if not finding.ok:
            print(f"{'':26} to get it: {finding.advice}")


def examine() -> Iterator[Finding]:
    """All findings, the required parts first."""
    yield _python()
    yield from _packages()
    yield _machine()
    yield from _pictures()
    yield _gpu()
    yield _ros()
    yield _isaac()
    yield _lerobot()
    yield from _assets()


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2]
    return Finding(
        "python", ok, f"{platform.python_version()} {sys.executable}", "make setup with Python 3.11 or newer"
    )


def _packages() -> Iterator[Finding]:
    """The direct dependencies, as the package's own metadata lists them."""
    for requirement in importlib.metadata.requires("omnibody") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            yield Finding(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed", f"pip install -c constraints.txt '{requirement}'")


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    advice = "the demo wants two cores and 6 GiB"
    return Finding("cores and memory", cores >= 2 and memory >= 6, f"{cores} cores, {memory:.0f} GiB", advice)


def _pictures() -> Iterator[Finding]:
    for backend, package in (("egl", "libegl1 libgl1-mesa-dri"), ("osmesa", "libosmesa6")):
        found, ok = run_python(DRAW, MUJOCO_GL=backend)
        yield Finding(f"RGB by {backend}", ok, found, f"apt-get install {package} (.ci/debian-packages.sh)")


def _gpu() -> Finding:
    found, ok = run_python(GPU)
    advice = "nothing here needs one; with an NVIDIA GPU, a driver and a CUDA build of torch"
    return Finding("GPU", ok and bool(found), found or "none that torch can use", advice)


def _ros() -> Finding:
    distributions = sorted(Path("/opt/ros").glob("*/setup.bash"))
    advice = "pip install 'ros-jazzy-rclpy[fastrtps]' (Python 3.11), or a ROS 2 distribution and its setup.bash"
    if distributions:
        advice = f"source {distributions[-1]}"
    return _importable("ROS 2 (rclpy)", "rclpy", ROS, advice)


def _isaac() -> Finding:
    advice = "an environment of its own with Python 3.12: pip install isaaclab==3.0.0"
    return _importable("Isaac Lab", "isaaclab", "import isaaclab; print(isaaclab.__version__)", advice)


def _importable(part: str, module: str, code: str, advice: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(part, False, f"no module {module}", advice)
    found, ok = run_python(code)
    return Finding(part, ok, found, advice)


def _lerobot() -> Finding:
    python = PACKAGE / ".venv-lerobot" / "bin" / "python"
    if not python.exists():
        return Finding("LeRobot environment", False, f"no {python.parents[1].name}", "make lerobot")
    found, ok = run_python("import importlib.metadata as m; print('lerobot', m.version('lerobot'))", python=str(python))
    return Finding("LeRobot environment", ok, found, "rm -r .venv-lerobot, then make lerobot")


def _assets() -> Iterator[Finding]:
    for name, wheel in WHEELS.items():
        ok = (cache_dir() / wheel.folder).is_dir()
        found = f"{wheel.project} {wheel.version} {'in' if ok else 'not in'} {cache_dir()}"
        yield Finding(f"robot models {name}", ok, found, "comes by itself on first use, with network")


def run_python(code: str, python: str = sys.executable, **variables: str) -> tuple[str, bool]:
    """Last line that a fresh Python prints, or of its complaint, and whether it went well."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYOPENGL_PLATFORM", "MUJOCO_GL")} | variables
    try:
        done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "no answer in 120 s", False
    text = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return text[-1] if text else "", done.returncode == 0
