"""Reading a dataset: every column as one memory-mapped array, built once and keyed by the dataset's content.

In the cache an episode of L steps takes L + 1 rows: the last row holds the observation its last step led to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from omnibody.policies.files import atomic_folder
from omnibody.training.data import layout
from omnibody.training.data.layout import Column, DatasetError, Origin
from omnibody.training.data.video import read_video

VERSION = b"1"  # of the cache's own format


@dataclass(frozen=True)
class Dataset:
    """A dataset of E episodes, open for reading.

    ``length`` (E,) steps; ``first`` (E,) the cache row where each episode begins; ``arrays`` {name: (rows, ...)} as
    stored, by observation key under "obs." and by the other names of an `Episode`; ``digest`` of the content.
    """

    path: Path
    origin: Origin
    length: np.ndarray
    first: np.ndarray
    arrays: dict[str, np.ndarray]
    digest: str

    @property
    def num_episodes(self) -> int:
        """How many episodes there are."""
        return len(self.length)


def open_dataset(path: Path | str) -> Dataset:
    """Open the dataset at ``path``; the first time, this unpacks it into ``<path>/.cache``."""
    root = Path(path)
    origin, length = _read_meta(root)
    digest = _digest(root)
    cache = root / layout.CACHE / digest
    columns = _columns(origin)
    if not cache.is_dir():
        _build_cache(root, cache, columns, length)
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in columns}
    first = np.concatenate([[0], np.cumsum(length + 1)[:-1]])
    return Dataset(root, origin, length, first, arrays, digest)


def _read_meta(root: Path) -> tuple[Origin, np.ndarray]:
    try:
        origin = Origin.from_dict(json.loads((root / layout.ORIGIN).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DatasetError(f"no dataset of Omnibody in {root}; make one with omnibody collect") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{root / layout.ORIGIN} is damaged: {error}") from error
    commits = sorted((root / layout.EPISODES).glob("*/*.parquet"))
    if not commits:
        raise DatasetError(f"{root} holds no finished episodes; run the same omnibody collect again to go on")
    table = pa.concat_tables(_read_table(file, ["length"]) for file in commits)
    return origin, table["length"].to_numpy()


def _columns(origin: Origin) -> dict[str, Column]:
    obs = {f"obs.{key}": column for key, column in layout.obs_columns(origin.spec).items()}
    return obs | layout.step_columns(origin)


def _digest(root: Path) -> str:
    """A digest of everything the cache is made of."""
    digest = hashlib.blake2b(VERSION, digest_size=16)
    for folder in (layout.EPISODES, layout.FINAL, layout.DATA, layout.VIDEOS):
        for file in sorted(path for path in (root / folder).glob("**/*") if path.suffix in (".parquet", ".mp4")):
            digest.update(str(file.relative_to(root)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
    origin = json.loads((root / layout.ORIGIN).read_text(encoding="utf-8"))
    # Opening a finished dataset with a newer revision of the code notes that revision; the content stays the same.
    digest.update(json.dumps({key: value for key, value in origin.items() if key != "revisions"}).encode())
    return digest.hexdigest()


def _build_cache(root: Path, cache: Path, columns: dict[str, Column], length: np.ndarray) -> None:
    """Unpack once, however many processes (one per GPU) want it at the same time; outdated caches go."""
    with (root / layout.CACHE_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if cache.is_dir():
            return
        for outdated in (root / layout.CACHE).glob("*"):
            shutil.rmtree(outdated)
        with atomic_folder(cache) as folder:
            _unpack(root, folder, columns, length)


def _unpack(root: Path, folder: Path, columns: dict[str, Column], length: np.ndarray) -> None:
    """Write ``<name>.npy`` for every column, an episode (a row group of a data file) at a time."""
    rows = int((length + 1).sum())
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", column.dtype, (rows, *column.shape))
        for name, column in columns.items()
    }
    at = 0
    for number, (steps, final) in enumerate(tqdm(_episodes(root), "unpack", len(length), delay=2, unit="episode")):
        if len(steps) != length[number]:
            raise DatasetError(f"{root}: episode {number}: wanted {length[number]} steps, came {len(steps)}")
        for name, column in columns.items():
            rows_of = slice(at, at + len(steps) + 1)
            if column.is_video:
                file = layout.numbered(root, f"{layout.VIDEOS}/{column.name}", number, ".mp4")
                arrays[name][rows_of] = np.stack(list(read_video(file)))
                continue
            arrays[name][at : at + len(steps)] = layout.from_arrow(steps[column.name], column.shape)
            if name.startswith("obs."):
                arrays[name][at + len(steps)] = layout.from_arrow(final[column.name], column.shape)[0]
        at += len(steps) + 1
    if at != rows:
        raise DatasetError(f"{root}: wanted {len(length)} episodes, the data files hold fewer; collect it again")


def _episodes(root: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(steps, final observation) of every episode, in order."""
    for data, final in zip(_parts(root, layout.DATA), _parts(root, layout.FINAL), strict=True):
        for group in range(data.num_row_groups):
            yield data.read_row_group(group), final.read_row_group(group)


def _parts(root: Path, folder: str) -> Iterator[pq.ParquetFile]:
    for file in sorted((root / folder).glob("*/*.parquet")):
        try:
            yield pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{file} is cut short or damaged: {error}") from error


def _read_table(file: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{file} is cut short or damaged: {error}") from error
