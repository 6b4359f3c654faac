"""The wheel holds every file of the tree: setuptools leaves out, silently, whatever pyproject.toml does not name."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("robots", "sim_tasks", "envs", "policies", "training", "deploy_ros", "assets")
SKIP = shutil.ignore_patterns("__pycache__", ".*")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The unpacked wheel of a copy of the tree, and its files; to the copy a subfolder that nobody listed was added."""
    source = tmp_path_factory.mktemp("source")
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, source / layer, ignore=SKIP)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    tree = files_below(source)
    (source / "robots" / "forgotten").mkdir()
    (source / "robots" / "forgotten" / "__init__.py").touch()
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, str(target), str(source)], check=True, stdout=subprocess.DEVNULL)
    (file,) = target.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(target / "unpacked")
    return target / "unpacked", tree


def files_below(root: Path) -> set[str]:
    """Files of the layers, hidden ones and caches left out."""
    names = {path.relative_to(root).as_posix() for layer in LAYERS for path in (root / layer).rglob("*.*")}
    return {name for name in names if (root / name).is_file() and "__pycache__" not in name and "/." not in name}


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    assert {"omnibody." + ".".join(folder.parts) for folder in folders} - set(listed) == set()


def test_every_file_is_in_the_wheel(wheel):
    unpacked, tree = wheel
    assert tree - files_below(unpacked / "omnibody") == set()


def test_an_unlisted_folder_is_left_out(wheel):
    assert not (wheel[0] / "omnibody" / "robots" / "forgotten").exists()


def test_the_unpacked_wheel_runs(wheel):
    """`omnibody list` from the wheel alone: an editable install comes after PYTHONPATH."""
    code = "import sys; from omnibody.training import cli; print(cli.__file__); sys.exit(cli.main(['list']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(wheel[0]), "PATH": "", "HOME": str(Path.home())},
        cwd=wheel[0],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(wheel[0]))
    assert "carrier" in done.stdout
