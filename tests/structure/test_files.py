"""Every file is short, and none knows the machine it was written on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("robots", "sim_tasks", "envs", "policies", "training", "deploy_ros", "tests", "docs", "assets", ".ci")
MOST_LINES = 400
MOST_BYTES = 10 * 2**20
# Written with a gap, so that this file does not match itself.
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(" + r"work|farm|tmp/[a-z]\w*|root|home/[a-z]\w*)/")


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    yield from (path for path in ROOT.iterdir() if path.is_file())


def is_text(path: Path) -> bool:
    return b"\0" not in path.read_bytes()[:4096]


def too_long(path: Path) -> bool:
    return len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES


def test_no_python_file_is_long():
    assert [str(path.relative_to(ROOT)) for path in files() if path.suffix == ".py" and too_long(path)] == []


def test_a_long_file_is_seen(tmp_path):
    (tmp_path / "long.py").write_text("x = 1\n" * 401)
    (tmp_path / "right.py").write_text("x = 1\n" * 400)
    assert too_long(tmp_path / "long.py") and not too_long(tmp_path / "right.py")


def test_no_file_is_large():
    assert [str(path.relative_to(ROOT)) for path in files() if path.stat().st_size > MOST_BYTES] == []


def test_no_machine_paths():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if is_text(path)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("open('/" + "work/main/x')", True),
        ("/" + "tmp/claude/x", True),
        ("/" + "home/ann/x", True),
        ("a/work/b", False),
        ("/opt/ros/jazzy/setup.bash", False),
    ],
)
def test_the_pattern_tells_them_apart(text, bad):
    assert bool(MACHINE_PATH.search(text)) is bad
