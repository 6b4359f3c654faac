"""The ament package installs launch files, parameter files and programs that fit the nodes, the bodies and each other.

ROS's ``launch`` is not on PyPI, so the launch files are run by a reader of the few actions they use. Names, signatures
and scoping are those of launch 3.4 and launch_ros 0.26 (Jazzy), docs.ros.org/en/jazzy/p/launch and .../launch_ros: a
name that these do not have, or an argument that is not theirs, fails here as it would there.
"""

from __future__ import annotations

import ast
import copy
import importlib
import re
import runpy
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from omnibody.deploy_ros.workstation.fleet import SimCfg
from omnibody.robots.errors import UserError
from omnibody.robots.table import ROBOTS, load_robot
from omnibody.sim_tasks.table import task_config

pytest.importorskip("rclpy")
# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
ROOT = Path(__file__).parents[2]
NAME = "omnibody_ros"


@dataclass(frozen=True)
class Started:
    """A program of a package as launch would start it."""

    package: str
    executable: str
    name: str
    namespace: str
    files: tuple[str, ...]
    parameters: dict[str, Any] = field(hash=False)
    remaps: frozenset[tuple[str, str]]


@dataclass
class LaunchContext:
    share: Path
    launch_configurations: dict[str, Any] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)  # configurations that were read


@dataclass
class LaunchConfiguration:
    variable_name: str

    def perform(self, context: LaunchContext) -> str:
        context.needed.add(self.variable_name)
        return context.launch_configurations[self.variable_name]


@dataclass
class FindPackageShare:
    package: str

    def perform(self, context: LaunchContext) -> str:
        assert self.package == context.share.name, self.package
        return str(context.share)


def perform(value: Any, context: LaunchContext) -> str:
    parts = value if isinstance(value, list) else [value]
    return "".join(part if isinstance(part, str) else part.perform(context) for part in parts)


@dataclass
class ParameterFile:
    param_file: Any


@dataclass
class ParameterValue:
    value: Any
    value_type: type = field(kw_only=True)

    def evaluate(self, context: LaunchContext) -> Any:
        text = perform(self.value, context)
        return {"true": True, "false": False}[text] if self.value_type is bool else self.value_type(text)


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: Any = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)
    choices: list[str] | None = field(default=None, kw_only=True)

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        if self.default_value is not None:
            context.launch_configurations.setdefault(self.name, self.default_value)
        value = context.launch_configurations[self.name]
        assert self.choices is None or value in self.choices, value
        yield from ()


@dataclass
class SetRemap:
    src: str
    dst: str

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        context.launch_configurations.setdefault("ros_remaps", []).append((self.src, self.dst))
        yield from ()


@dataclass
class GroupAction:
    actions: list[Any]

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        outside = copy.deepcopy(context.launch_configurations)
        for action in self.actions:
            yield from action.execute(context)
        context.launch_configurations = outside


@dataclass
class PythonLaunchDescriptionSource:
    launch_file_path: Any


@dataclass
class IncludeLaunchDescription:
    launch_description_source: PythonLaunchDescriptionSource
    launch_arguments: Iterable[tuple[str, Any]] = field(default=(), kw_only=True)

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        given = {name: perform(value, context) for name, value in self.launch_arguments}
        context.launch_configurations.update(given)
        yield from _visit(Path(perform(self.launch_description_source.launch_file_path, context)), context, set(given))


@dataclass
class OpaqueFunction:
    function: Callable[[LaunchContext], list[Any]] = field(kw_only=True)

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        for action in self.function(context):
            yield from action.execute(context)


@dataclass(kw_only=True)
class Node:
    package: str
    executable: str
    name: str
    namespace: Any
    parameters: list[Any]
    output: str

    def execute(self, context: LaunchContext) -> Iterator[Started]:
        files = [perform(p.param_file, context) for p in self.parameters if isinstance(p, ParameterFile)]
        values = {key: v.evaluate(context) for p in self.parameters if isinstance(p, dict) for key, v in p.items()}
        remaps = frozenset(context.launch_configurations.get("ros_remaps", []))
        namespace = perform(self.namespace, context)
        yield Started(self.package, self.executable, self.name, namespace, tuple(files), values, remaps)


@dataclass
class LaunchDescription:
    initial_entities: list[Any]


PUBLIC: dict[str, list[type]] = {
    "launch": [LaunchContext, LaunchDescription],
    "launch.actions": [DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction],
    "launch.launch_description_sources": [PythonLaunchDescriptionSource],
    "launch.substitutions": [LaunchConfiguration],
    "launch_ros.actions": [Node, SetRemap],
    "launch_ros.parameter_descriptions": [ParameterFile, ParameterValue],
    "launch_ros.substitutions": [FindPackageShare],
}


def started(share: Path, file: str, **arguments: str) -> list[Started]:
    """What ``ros2 launch <package> <file> name:=value ...`` starts; ``share`` is the package's share folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("launch_ros", *PUBLIC):
            module = ModuleType(name)
            vars(module).update({kind.__name__: kind for kind in PUBLIC.get(name, [])})
            patch.setitem(sys.modules, name, module)
        return list(_visit(share / "launch" / file, LaunchContext(share, dict(arguments)), set(arguments)))


def _visit(path: Path, context: LaunchContext, given: set[str]) -> Iterator[Started]:
    """The programs of one file; all that is given must be declared there, and all that is declared used."""
    entities = runpy.run_path(str(path))["generate_launch_description"]().initial_entities
    declared = {entity.name for entity in entities if isinstance(entity, DeclareLaunchArgument)}
    assert given <= declared, f"{path.name} declares no {given - declared}"
    for entity in entities:
        yield from entity.execute(context)
    assert declared <= context.needed, f"{path.name} does not use {declared - context.needed}"


def install(folder: Path, target: Path) -> tuple[dict[str, str], Path]:
    """What the package's own setup.py puts where: programs ("module:function" by name) and its share folder."""
    target.mkdir()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["setup.py", "-q", "egg_info", "-e", str(target), "install_data", "-d", str(target)])
        runpy.run_path("setup.py", run_name="__main__")
    lines = (target / f"{NAME}.egg-info" / "entry_points.txt").read_text().splitlines()
    return dict(line.split(" = ") for line in lines if " = " in line), target / "share" / NAME


def node_of(program: str) -> tuple[dict[str, Any], set[str]]:
    """The parameters of the node that ``program`` runs, and the topics that its own source names."""
    module = importlib.import_module(program.partition(":")[0])
    assert callable(getattr(module, program.partition(":")[2]))
    source = Path(str(module.__file__)).read_text()
    topics = re.findall(r'create_(?:publisher|subscription)\(\w+, "([^"]+)"', source)
    return {**module.PARAMETERS, "use_sim_time": False}, set(topics)


def check(folder: Path, target: Path) -> None:
    """Fail on whatever the package in ``folder`` names that does not exist; ``target`` is an empty folder."""
    programs, share = install(folder, target)
    assert (target / "share/ament_index/resource_index/packages" / NAME).is_file()
    for part in ("launch", "config"):
        assert {file.name for file in (folder / part).glob("*.*")} == {file.name for file in (share / part).iterdir()}
    nodes = {name: node_of(program) for name, program in programs.items()}
    check_manifest(folder)
    for file in (share / "launch").iterdir():
        check_imports(file)
        robots = "robots" if file.name == "fleet.launch.py" else "robot"
        for start in started(share, file.name, **{robots: "go2"}, checkpoint="folder"):
            check_start(start, nodes)
    for file in (share / "config").iterdir():
        check_config(file, nodes)


def check_manifest(folder: Path) -> None:
    manifest = ElementTree.parse(folder / "package.xml")
    assert manifest.findtext("name") == NAME
    assert manifest.findtext("version") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert manifest.findtext("export/build_type") == "ament_python"
    known = {node.text for node in manifest.iter("exec_depend")}
    word = re.compile(r"^ *(?:from|import) (rclpy|launch\w*|\w+_(?:msgs|srvs|interfaces))\b", re.MULTILINE)
    used = {name for file in folder.rglob("*.py") for name in word.findall(file.read_text())}
    assert used - known == set(), "package.xml lacks exec_depend"


def check_imports(file: Path) -> None:
    """Only names of the public API, so nothing of ours: a launch file runs where launch is installed."""
    for node in ast.walk(ast.parse(file.read_text())):
        assert not isinstance(node, ast.Import)
        if isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= {kind.__name__ for kind in PUBLIC[str(node.module)]}


def check_start(start: Started, nodes: dict[str, tuple[dict[str, Any], set[str]]]) -> None:
    assert start.package == NAME
    parameters, _ = nodes[start.executable]
    assert start.name == start.executable
    assert all(Path(file).is_file() for file in start.files)
    assert {name: type(value) for name, value in start.parameters.items()}.items() <= {
        name: type(value) for name, value in parameters.items()
    }.items()
    topics = set.union(*(topics for _, topics in nodes.values()))
    assert {source for source, _ in start.remaps} <= topics


def check_config(file: Path, nodes: dict[str, tuple[dict[str, Any], set[str]]]) -> None:
    body = load_robot(file.stem)
    for name, section in yaml.safe_load(file.read_text()).items():
        parameters, _ = nodes[name.removeprefix("/**/")]
        values = section["ros__parameters"]
        assert {key: type(value) for key, value in values.items()}.items() <= {
            key: type(value) for key, value in parameters.items()
        }.items()
        assert values["robot"] == body.name
        if "task" in values:
            task_config(values["task"])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, as setup.py writes beside itself."""
    return shutil.copytree(ROOT / "deploy_ros", tmp_path / "package", ignore=shutil.ignore_patterns("__pycache__"))


def test_all_that_the_package_names_exists(package: Path, tmp_path: Path) -> None:
    check(package, tmp_path / "installed")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("setup.py", "policy_node:main", "policy_node:run"),
        ("setup.py", "sim_node =", "simulator ="),
        ("setup.py", "config/*.yaml", "config/g*.yaml"),
        ("package.xml", "<exec_depend>nav_msgs</exec_depend>", ""),
        ("package.xml", "0.1.0", "9.9.9"),
        ("config/go2.yaml", "robot: go2", "robot: go1"),
        ("config/go2.yaml", "backend:", "back_end:"),
        ("config/go2.yaml", "/**/sim_node", "/**/simulator"),
        ("config/go2.yaml", "single_rack", "single_track"),
        ("launch/policy.launch.py", '"/config/"', '"/params/"'),
        ("launch/policy.launch.py", '"checkpoint": Param', '"check_point": Param'),
        ("launch/policy.launch.py", "value_type=bool", "value_type=str"),
        ("launch/policy.launch.py", '"backend", default_value', '"back", default_value'),
        ("launch/policy.launch.py", 'executable="policy_node"', 'executable="policy"'),
        ("launch/policy.launch.py", "from launch_ros.actions import Node", "from launch_ros.actions.node import Node"),
        ("launch/policy.launch.py", "from launch import", "import omnibody.robots\nfrom launch import"),
        ("launch/sim.launch.py", '"/clock"', '"/time"'),
        ("launch/sim.launch.py", "/launch/policy", "/launch/police"),
        ("launch/sim.launch.py", '            "robot": robot,\n', '            "robo": robot,\n'),
        ("launch/fleet.launch.py", '"namespace": r', '"name_space": r'),
    ],
)
def test_a_broken_package_is_seen(file: str, old: str, new: str, package: Path, tmp_path: Path) -> None:
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    with pytest.raises((AssertionError, AttributeError, ImportError, KeyError, OSError, TypeError, UserError)):
        check(package, tmp_path / "installed")


def test_a_fleet_is_a_simulator_and_a_policy_in_each_namespace(package: Path, tmp_path: Path) -> None:
    _, share = install(package, tmp_path / "installed")
    starts = started(share, "fleet.launch.py", robots="carrier,go2", checkpoint="folder")
    assert [(s.executable, s.namespace, Path(s.files[0]).stem) for s in starts] == [
        ("sim_node", "carrier", "carrier"),
        ("policy_node", "carrier", "carrier"),
        ("sim_node", "go2", "go2"),
        ("policy_node", "go2", "go2"),
    ]
    # Each body has the time of its own simulator: a relative name lands in the namespace.
    assert all(s.remaps == {("/clock", "clock")} for s in starts)
    assert [s.parameters.get("use_sim_time") for s in starts] == [None, True, None, True]


def test_deploy_starts_what_the_launch_files_start(package: Path, tmp_path: Path) -> None:
    _, share = install(package, tmp_path / "installed")
    starts = started(share, "fleet.launch.py", robots="carrier,go2", checkpoint="folder")
    cfg = SimCfg(out="out", checkpoint="folder", robots=["carrier", "go2"])
    programs = [program for robot in cfg.robots for program in cfg.drive(robot, robot)[:2]]
    for start, program in zip(starts, programs, strict=True):
        words = program.command()
        assert (start.executable, start.namespace) == (program.executable, program.namespace)
        assert [Path(word).name for word in words if word.endswith(".yaml")] == [Path(f).name for f in start.files]
        assert f"__ns:=/{start.namespace}" in words
        assert {f"{source}:={target}" for source, target in start.remaps} <= set(words)
        given = {name: value for name, value in start.parameters.items() if name != "backend"}  # the file has it
        assert given.items() <= program.parameters.items()


@pytest.mark.parametrize(("file", "robots"), [("sim", "robot"), ("fleet", "robots")])
def test_pictures_are_asked_for_by_their_rows(file: str, robots: str, package: Path, tmp_path: Path) -> None:
    _, share = install(package, tmp_path / "installed")
    for given, wanted in ({"rgb": "96"}, 96), ({}, 0):
        starts = started(share, f"{file}.launch.py", **{robots: "go2"}, checkpoint="folder", **given)
        assert [s.parameters["rgb"] for s in starts if s.executable == "sim_node"] == [wanted]
        simulator, *_ = SimCfg(out="out", checkpoint="folder").drive("go2", "", wanted)
        assert f"rgb:={wanted}" in simulator.command()


@pytest.mark.parametrize("file", ["policy", "sim", "fleet"])
def test_recording_is_asked_for_by_one_argument(file: str, package: Path, tmp_path: Path) -> None:
    _, share = install(package, tmp_path / "installed")
    robots = {"robots" if file == "fleet" else "robot": "go2", "checkpoint": "folder"}
    for given, wanted in ({"record": "/bags"}, "/bags"), ({}, ""):
        starts = started(share, f"{file}.launch.py", **robots, **given)
        assert [s.parameters["record"] for s in starts if s.executable == "policy_node"] == [wanted]
    _, policy, _ = SimCfg(out="out", checkpoint="folder", record="/bags").drive("go2", "")
    assert "record:='/bags'" in policy.command()
    _, policy, _ = SimCfg(out="out", checkpoint="folder").drive("go2", "")
    assert not [word for word in policy.command() if word.startswith("record:=")]


def test_every_body_has_a_parameter_file() -> None:
    assert {file.stem for file in (ROOT / "deploy_ros" / "config").iterdir()} == set(ROBOTS)
