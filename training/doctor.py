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
from omnibody.sim_tasks.metaworld import INSTALL
from omnibody.training.config import PACKAGE, parse
from omnibody.training.threads import usable_cores

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
META_WORLD = "import importlib.metadata as m, metaworld; print('metaworld', m.version('metaworld'))"
# A message from one node to another, as a firewall or a bad middleware keeps ROS's processes apart.
TALK = """
import random, time
import rclpy
from std_msgs.msg import String
rclpy.init(domain_id=random.randint(1, 100))
talker, listener, heard = rclpy.create_node("talker"), rclpy.create_node("listener"), []
listener.create_subscription(String, "word", heard.append, 1)
publisher, began = talker.create_publisher(String, "word", 1), time.monotonic()
while not heard and time.monotonic() < began + 10:
    publisher.publish(String(data="hello"))
    rclpy.spin_once(listener, timeout_sec=0.05)
assert heard, "no message came through in 10 s"
milliseconds = 1e3 * (time.monotonic() - began)
print(f"a message came through in {milliseconds:.0f} ms,", rclpy.get_rmw_implementation_identifier())
"""


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
    yield from ros()
    yield _isaac()
    yield _lerobot()
    yield _importable("Meta-World", "metaworld", META_WORLD, INSTALL)
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
    cores = usable_cores()
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


def ros() -> Iterator[Finding]:
    """What a ROS node needs."""
    distributions = sorted(Path("/opt/ros").glob("*/setup.bash"))
    advice = "pip install -e '.[ros]' (Python 3.11), or apt-get install ros-jazzy-ros-base (Ubuntu 24.04) and source it"
    if distributions:
        advice = f"source {distributions[-1]}"
    yield _importable("ROS 2 (rclpy)", "rclpy", ROS, advice)
    modules = _ros_modules()
    missing = [name for name in modules if not _installed(name)]
    found = f"no {', '.join(missing)}" if missing else f"all {len(modules)} packages"
    yield Finding("ROS 2 messages", not missing, found, advice)
    if _installed("rclpy") and _installed("std_msgs"):
        found, ok = run_python(TALK, ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
        yield Finding(
            "ROS 2 on this machine", ok, found, "let UDP through to localhost, or try another RMW_IMPLEMENTATION"
        )
    ok = _installed("launch_ros")
    advice = "apt-get install ros-jazzy-launch-ros (no wheels); omnibody deploy starts the same nodes without it"
    yield Finding("ROS 2 launch", ok, "launch_ros" if ok else "no module launch_ros", advice)


def _ros_modules() -> list[str]:
    """Modules of the extra ``ros`` besides rclpy, as the package's own metadata lists them."""
    names = (
        re.match(r"[\w-]+", line) for line in importlib.metadata.requires("omnibody") or [] if 'extra == "ros"' in line
    )
    modules = [re.sub(r"^ros-[a-z]+-", "", name[0]).replace("-", "_") for name in names if name]
    return [name for name in modules if name != "rclpy"]


def _isaac() -> Finding:
    advice = "an environment of its own with Python 3.12: pip install isaaclab==3.0.0"
    return _importable("Isaac Lab", "isaaclab", "import isaaclab; print(isaaclab.__version__)", advice)


def _importable(part: str, module: str, code: str, advice: str) -> Finding:
    if not _installed(module):
        return Finding(part, False, f"no module {module}", advice)
    found, ok = run_python(code)
    return Finding(part, ok, found, advice)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


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
