"""Recordings made elsewhere, episode by episode: Diffusion Policy's replay buffers and LeRobot's datasets.

``read_source`` looks at what stands at a path: an ``.npz`` file or a zarr v2 folder with ``episode_ends``
(github.com/real-stanford/diffusion_policy, `replay_buffer.py`), or the folder of a LeRobotDataset v2.1 or v3.0;
``hf://owner/name`` fetches the last from the Hugging Face Hub. Nothing is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnibody.policies.checkpoint import HUB
from omnibody.robots.errors import UserError
from omnibody.training.data import layout

ENDS, ACTION = "episode_ends", "action"
COUNTERS = {column.name for column in layout.INDEX_COLUMNS}
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """``name`` of the recording; ``rate_hz``, None where it does not say; ``episodes``: columns (L, ...) of each."""

    name: str
    rate_hz: float | None
    episodes: list[Columns]


def read_source(source: str) -> Source:
    """The recording at a path or on the Hub; raises ``UserError`` for anything else."""
    path = _download(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source).expanduser()
    name = source if source.startswith(HUB) else path.name
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return Source(name, None, _cut(path, {key: file[key] for key in file.files}))
    if (path / ".zgroup").is_file():
        return Source(name, None, _cut(path, _zarr_arrays(path)))
    if (path / layout.INFO).is_file():
        return _lerobot(path, name)
    raise UserError(
        f"source: wanted an .npz file or zarr folder with {ENDS}, a LeRobot dataset folder or {HUB}owner/name,"
        f" came {source}"
    )


def _cut(path: Path, arrays: Columns) -> list[Columns]:
    """Episodes of arrays (frames, ...) that ``episode_ends`` cuts."""
    if ENDS not in arrays or ACTION not in arrays:
        raise UserError(f"source: {path} wants arrays {ENDS} and {ACTION}, came {sorted(arrays)}")
    ends = arrays.pop(ENDS).astype(np.int64)
    frames = {key: len(values) for key, values in arrays.items()}
    if len(ends) == 0 or (np.diff(ends, prepend=0) <= 0).any() or set(frames.values()) != {int(ends[-1])}:
        raise UserError(f"source: {path}: {ENDS} must rise to the number of frames, came {ends[-3:]} for {frames}")
    return [
        {key: values[first:last] for key, values in arrays.items()}
        for first, last in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)
    ]


def _zarr_arrays(path: Path) -> Columns:
    try:
        import zarr
    except ImportError as error:
        raise UserError("source: reading zarr wants the package zarr; install omnibody[push-t]") from error
    root: Any = zarr.open_group(str(path), mode="r")
    if "data" not in root or f"meta/{ENDS}" not in root:
        raise UserError(f"source: {path}: wanted groups data and meta/{ENDS}, came {sorted(root.keys())}")
    arrays: dict[str, Any] = {**dict(root["data"].arrays()), ENDS: root[f"meta/{ENDS}"]}
    return {key: array[:] for key, array in arrays.items()}


def _lerobot(path: Path, name: str) -> Source:
    """Columns under their own names, without the prefix "observation."; pictures and video are left out."""
    try:
        info = json.loads((path / layout.INFO).read_text(encoding="utf-8"))
        features = {key: part for key, part in info["features"].items() if key not in COUNTERS}
        rate = float(info["fps"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"source: {path / layout.INFO} is damaged: {error}") from error
    shapes = {
        key: () if list(part["shape"]) == [1] else tuple(part["shape"])
        for key, part in features.items()
        if part["dtype"] not in ("video", "image", "string")
    }
    files = sorted((path / layout.DATA).glob("*/*.parquet"))
    if not files or ACTION not in shapes:
        raise UserError(f"source: {path} wants data files with an {ACTION}, came {len(files)} with {sorted(shapes)}")
    table = pa.concat_tables(pq.read_table(file, columns=["episode_index", *shapes]) for file in files)
    cuts = np.flatnonzero(np.diff(table["episode_index"].to_numpy())) + 1
    columns = {key.removeprefix("observation."): layout.from_arrow(table[key], shapes[key]) for key in shapes}
    columns = {key: _in_metres(key, values) for key, values in columns.items()}
    parts = {key: np.split(values, cuts) for key, values in columns.items()}
    return Source(name, rate, [dict(zip(parts, one, strict=True)) for one in zip(*parts.values(), strict=True)])


def _in_metres(key: str, values: np.ndarray) -> np.ndarray:
    """Depth as cameras give it, whole millimetres, in metres; all else as it is."""
    is_depth = key.split("_")[0] == "depth" and values.dtype == np.uint16
    return (values * layout.MILLIMETRE).astype(np.float32) if is_depth else values


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", allow_patterns=["meta/*", "data/**/*.parquet"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(f"source: {HUB}{repo_id} cannot be fetched: {' '.join(str(error).split())}") from error
