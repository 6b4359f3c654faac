"""Where everything of a dataset stands on disk, and as what.

The folder is a LeRobotDataset v3.0 (github.com/huggingface/lerobot, `lerobot/datasets/utils.py`): ``meta/info.json``,
``meta/stats.json``, ``meta/tasks.parquet``, ``meta/episodes/``, ``data/`` and ``videos/``. Ours beside it, which
LeRobot does not look at: ``meta/omnibody.json`` (the `Origin`), ``meta/final/`` (the observation after each episode's
last step), ``.staging/`` (finished episodes not yet in a data file) and ``.cache/``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from omnibody.robots.errors import UserError
from omnibody.robots.spec import DESCRIPTOR_NAMES, Embodiment, Field, IOSpec
from omnibody.training.run_folder import leaves

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
NUMBERED = "chunk-{chunk_index:03d}/file-{file_index:03d}"
INFO, STATS, TASKS, ORIGIN = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/omnibody.json"
EPISODES, FINAL, DATA, VIDEOS = "meta/episodes", "meta/final", "data", "videos"
STAGING, CACHE, LOCK, CACHE_LOCK = ".staging", ".cache", ".lock", ".cache.lock"

ACTION, EXPERT, POSE, REWARD = "action", "action.expert", "pose", "next.reward"
OPTIONAL = ("expert", "pose", "reward")  # columns that a dataset may lack
TERMINATED, TRUNCATED, SUCCESS = "next.terminated", "next.truncated", "next.success"
MILLIMETRE = 0.001  # [m]; depth is stored in whole millimetres, as depth cameras give it
MAX_DEPTH = 65.535  # [m]


class DatasetError(UserError, RuntimeError):
    """A dataset that cannot be read or continued, with what is wrong with it."""


@dataclass(frozen=True)
class Origin:
    """What a dataset was recorded with; two recordings continue each other only if these agree.

    ``descriptor`` as in `Embodiment.descriptor`, empty for a body without one; ``recipe``: how the actions were made
    (noise, share of random ones); ``parts``: those of ``OPTIONAL`` that each step holds. Where no ``expert`` is held,
    the executed actions are the expert's own.
    """

    spec: IOSpec
    task: str
    instruction: str
    robot: str
    tier: str
    descriptor: tuple[float, ...]
    seed: int
    recipe: dict[str, Any]
    parts: tuple[str, ...] = OPTIONAL

    @staticmethod
    def of(
        embodiment: Embodiment, spec: IOSpec, task: str, instruction: str, tier: str, seed: int, recipe: dict[str, Any]
    ) -> Origin:
        """The origin of a dataset recorded with ``embodiment``."""
        facts = tuple(float(fact) for fact in embodiment.descriptor())
        return Origin(spec, task, instruction, embodiment.name, tier, facts, seed, recipe)

    def to_dict(self) -> dict[str, Any]:
        """For ``meta/omnibody.json``."""
        raw = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        named = dict(zip(DESCRIPTOR_NAMES, self.descriptor, strict=True)) if self.descriptor else {}
        return {**raw, "spec": json.loads(self.spec.to_json()), "descriptor": named}

    @staticmethod
    def from_dict(raw: dict[str, Any]) -> Origin:
        """Read what ``to_dict`` made."""
        own = {field.name: raw[field.name] for field in dataclasses.fields(Origin) if field.name in raw}
        named = raw["descriptor"]
        own["descriptor"] = tuple(named[name] for name in DESCRIPTOR_NAMES) if named else ()
        own["parts"] = tuple(raw.get("parts", OPTIONAL))  # older datasets hold all
        return Origin(**{**own, "spec": IOSpec.from_json(json.dumps(raw["spec"]))})

    def mismatch(self, other: Origin) -> str:
        """The first difference to ``other`` (wanted: self, came: other); empty when they are equal."""
        if difference := self.spec.mismatch(other.spec):
            return difference
        wanted, came = leaves(self.to_dict()), leaves(other.to_dict())
        for name in wanted | came:
            if wanted.get(name) != came.get(name):
                return f"{name}: wanted {wanted.get(name)}, came {came.get(name)}"
        return ""


@dataclass(frozen=True)
class Episode:
    """One finished episode of L steps, in physical units.

    ``obs`` {key: (L + 1, ...)}: what each step acted on, and what the last step led to; ``action`` (L, Da) executed,
    ``terminated``, ``truncated``, ``success`` (L,) of the step. Where the origin's ``parts`` name them: ``expert``
    (L, Da) what the expert wanted; ``pose`` (L, 3): x [m], y [m], yaw [rad] before the step; ``reward`` (L,) of it.
    """

    obs: dict[str, np.ndarray]
    action: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    expert: np.ndarray | None = None
    pose: np.ndarray | None = None
    reward: np.ndarray | None = None


@dataclass(frozen=True)
class Column:
    """One feature: its name in LeRobot, how it is stored, and how the numbers relate to the physical ones."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    is_video: bool = False
    scale: float = 1.0  # physical = stored * scale

    def feature(self, fps: int) -> dict[str, Any]:
        """The entry in ``info.json``."""
        if self.is_video:
            height, width, _ = self.shape
            video: dict[str, Any] = {
                "video.fps": fps,
                "video.height": height,
                "video.width": width,
                "video.channels": 3,
            }
            video |= {
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "has_audio": False,
            }
            return {"dtype": "video", "shape": self.shape, "names": ["height", "width", "channels"], "info": video}
        return {"dtype": self.dtype, "shape": self.shape or (1,), "names": list(self.names) or None}

    def stored(self, values: np.ndarray, where: str) -> np.ndarray:
        """Physical values (L, ...) as they are stored; refuses wrong shapes, NaN and depth out of range."""
        if values.shape[1:] != self.shape:
            raise DatasetError(f"{where}: {self.name}: wanted shape (steps, *{self.shape}), came {values.shape}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DatasetError(f"{where}: {self.name}: wanted finite numbers, came NaN or infinity")
        if self.scale != 1.0:
            if values.min() < 0.0 or values.max() > MAX_DEPTH:
                raise DatasetError(f"{where}: {self.name}: wanted 0..{MAX_DEPTH} m, came up to {values.max()} m")
            values = np.rint(values / self.scale)
        stored = values.astype(self.dtype)
        if stored.dtype.kind in "iub" and not np.array_equal(stored, values):
            raise DatasetError(f"{where}: {self.name}: wanted {self.dtype}, came values that do not fit it")
        return stored

    def physical(self, values: np.ndarray) -> np.ndarray:
        """Stored values as a policy sees them: float32 in physical units where scaled, unchanged otherwise."""
        return values if self.scale == 1.0 else values.astype(np.float32) * np.float32(self.scale)


def obs_columns(spec: IOSpec) -> dict[str, Column]:
    """The column of every observation.

    A float image in metres whose key is "depth" or begins with "depth_" is stored in whole millimetres; an 8-bit image
    with three channels becomes video.
    """
    return {key: _obs_column(key, field) for key, field in spec.obs.items()}


def _obs_column(key: str, field: Field) -> Column:
    if field.dtype == "uint8" and len(field.shape) == 3 and field.shape[-1] == 3:
        return Column(f"observation.images.{key}", "uint8", field.shape, is_video=True)
    if key.split("_")[0] == "depth":
        return Column(f"observation.{key}", "uint16", field.shape, scale=MILLIMETRE)
    return Column(f"observation.{key}", field.dtype, field.shape, field.names)


def step_columns(origin: Origin) -> dict[str, Column]:
    """The columns of an `Episode` beside its observations, by field name."""
    action = origin.spec.action
    columns = {
        "action": Column(ACTION, "float32", action.shape, action.names),
        "expert": Column(EXPERT, "float32", action.shape, action.names),
        "pose": Column(POSE, "float32", (3,), ("x", "y", "yaw")),
        "reward": Column(REWARD, "float32", ()),
        "terminated": Column(TERMINATED, "bool", ()),
        "truncated": Column(TRUNCATED, "bool", ()),
        "success": Column(SUCCESS, "bool", ()),
    }
    return {name: column for name, column in columns.items() if name not in OPTIONAL or name in origin.parts}


INDEX_COLUMNS = (
    Column("timestamp", "float32", ()),
    Column("frame_index", "int64", ()),
    Column("episode_index", "int64", ()),
    Column("index", "int64", ()),
    Column("task_index", "int64", ()),
)


def frames_per_second(spec: IOSpec) -> int:
    """The rate of the spec, which LeRobot wants whole."""
    if spec.rate_hz != int(spec.rate_hz):
        raise DatasetError(f"rate_hz: wanted a whole number of steps per second (LeRobot's fps), came {spec.rate_hz}")
    return int(spec.rate_hz)


def numbered(root: Path, folder: str, number: int, suffix: str = ".parquet") -> Path:
    """The ``number``-th file of a folder, 1000 files to a chunk."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return root / folder / (NUMBERED.format(chunk_index=chunk, file_index=file) + suffix)


def to_arrow(values: np.ndarray) -> pa.Array:
    """An array (L, ...) as an Arrow column of L numbers, lists or lists of lists."""
    column = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def from_arrow(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """An Arrow column as an array (L, *shape)."""
    flat = column.combine_chunks()
    for _ in shape:
        flat = flat.flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), *shape)
