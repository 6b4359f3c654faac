"""Who may import whom: robots <- sim_tasks <- envs <- training, robots <- policies <- training, deploy_ros apart."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "robots": {"robots"},
    "sim_tasks": {"robots", "sim_tasks"},
    "envs": {"robots", "sim_tasks", "envs"},
    "policies": {"robots", "policies"},
    "training": {"robots", "sim_tasks", "envs", "policies", "training"},
    "deploy_ros": {"robots", "policies", "deploy_ros"},
}
WORKSTATION = "deploy_ros/workstation"  # not for a robot's computer: may import every layer
# What a robot's computer need not have installed to run a policy.
NOT_ON_A_ROBOT = {"mujoco", "hydra", "stable_baselines3", "gymnasium", "accelerate"}


def imported(file: Path) -> set[str]:
    """Dotted names that a file imports, those inside functions too; a relative import keeps its dots."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def violations(root: Path) -> list[str]:
    """Imports below ``root`` that cross the layers, or take a layer by a name that loads it a second time."""
    wrong = []
    for layer, allowed in ALLOWED.items():
        for file in sorted((root / layer).rglob("*.py")):
            within = set(ALLOWED) if file.is_relative_to(root / WORKSTATION) else allowed
            for name in sorted(imported(file)):
                first, second = [*name.split("."), ""][:2]
                crosses = first == "omnibody" and second not in within
                if crosses or first in ALLOWED or name.startswith("."):
                    wrong.append(f"{file.relative_to(root)}: {name}")
    return wrong


def test_imports_keep_to_the_layers():
    assert violations(ROOT) == []


def test_a_bad_tree_is_seen(tmp_path):
    bad = {
        "robots/a.py": "from omnibody.sim_tasks.task import World",
        "policies/b.py": "def late():\n    import omnibody.envs.make",
        "envs/c.py": "from omnibody import training",
        "deploy_ros/d.py": "import omnibody.sim_tasks.task as task",
        "training/e.py": "from robots.spec import Field",
        "sim_tasks/f.py": "from ..envs import make",
        "training/g.py": "import omnibody.robots.spec, omnibody.envs.make, torch",
        "deploy_ros/workstation/h.py": "import omnibody.envs.make, omnibody.training.cli",
    }
    for name, text in bad.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    assert {line.split(":")[0] for line in violations(tmp_path)} == set(bad) - {
        "training/g.py",
        "deploy_ros/workstation/h.py",
    }


def test_tests_import_through_the_namespace():
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in (ROOT / "tests").rglob("*.py")
        for name in imported(file)
        if name.split(".")[0] in ALLOWED
    ]
    assert wrong == []


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level packages in memory after importing ``modules`` in a fresh Python."""
    lines = [f"import {module}" for module in modules]
    code = "\n".join([*lines, "import sys", "print(*{name.split('.')[0] for name in sys.modules})"])
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def modules_of(layer: str) -> list[str]:
    files = sorted((ROOT / layer).rglob("*.py"))
    return ["omnibody." + ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files]


def test_policies_need_no_simulator():
    assert loaded_by(modules_of("policies")) & NOT_ON_A_ROBOT == set()


def test_the_simulator_is_seen_where_it_is_needed():
    assert "mujoco" in loaded_by(["omnibody.robots.plant"])
