"""Writing a dataset: whole episodes, appended one by one, safe against a kill at any moment.

An episode that ``append`` has returned for is on disk: first as a folder of its own in ``.staging/`` (renamed into
place when complete), then, with its neighbours, in a data file. A file of ``meta/episodes/`` is the commit of the data
file of the same number; a data file without it is left over from a kill and written again from the staged episodes.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnibody.policies.files import atomic_file, atomic_folder, write_text
from omnibody.training.data import layout
from omnibody.training.data.layout import Column, DatasetError, Episode, Origin
from omnibody.training.data.stats import feature_stats, merge_stats, video_stats
from omnibody.training.data.video import write_video

COMPRESSION = {"compression": "zstd", "compression_level": 5}


class DatasetWriter:
    """Appends episodes to the dataset at ``path``; creates it, or continues one of the same origin.

    Only one process can write at a time. Use as a context manager: leaving it makes the dataset readable (``close``).
    ``data_file_mb`` is the size at which a data file is closed [MB].
    """

    def __init__(self, path: Path | str, origin: Origin, revision: str, data_file_mb: float = layout.DATA_FILE_MB):
        self.path, self.origin, self.data_file_mb = Path(path), origin, data_file_mb
        self.fps = layout.frames_per_second(origin.spec)
        self._obs, self._steps = layout.obs_columns(origin.spec), layout.step_columns(origin)
        self._lock = _claim(self.path)
        try:
            _check_origin(self.path, origin, revision)
            self._files, self._committed, self._committed_frames = self._recover()
            self._staged = sorted((self.path / layout.STAGING).glob("[0-9]*"))
            self._staged_frames = sum(_row(folder)["length"] for folder in self._staged)
            self._staged_bytes = sum(_size(folder) for folder in self._staged)
            self._publish()
        except BaseException:
            self._lock.close()
            raise

    @property
    def num_episodes(self) -> int:
        """Finished episodes on disk; the next one appended gets this number."""
        return self._committed + len(self._staged)

    def append(self, episode: Episode) -> None:
        """Add a finished episode; when this returns, the episode survives a kill."""
        number, steps = self.num_episodes, len(episode.action)
        where = f"episode {number}"
        if steps == 0:
            raise DatasetError(f"{where}: wanted at least one step, came none")
        if episode.obs.keys() != self._obs.keys():
            raise DatasetError(f"{where}: wanted observations {sorted(self._obs)}, came {sorted(episode.obs)}")
        if missing := [name for name in self._steps if getattr(episode, name) is None]:
            raise DatasetError(f"{where}: wanted {missing[0]}, which the dataset's origin declares, came none")
        obs = {key: column.stored(episode.obs[key], where) for key, column in self._obs.items()}
        step = {name: column.stored(getattr(episode, name), where) for name, column in self._steps.items()}
        wanted = {**dict.fromkeys(obs, steps + 1), **dict.fromkeys(step, steps)}
        for name, values in {**obs, **step}.items():
            if len(values) != wanted[name]:
                raise DatasetError(f"{where}: {name}: wanted {wanted[name]} rows for {steps} steps, came {len(values)}")
        folder = self.path / layout.STAGING / f"{number:08d}"
        with atomic_folder(folder) as temporary:
            self._stage(temporary, number, obs, step)
        self._staged.append(folder)
        self._staged_frames += steps
        self._staged_bytes += _size(folder)
        if self._staged_bytes >= self.data_file_mb * 1e6:
            self._commit()

    def close(self) -> None:
        """Put the staged episodes into a data file, and let another process write."""
        if self._staged:
            self._commit()
        self._lock.close()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stage(self, folder: Path, number: int, obs: dict[str, np.ndarray], step: dict[str, np.ndarray]) -> None:
        """Write what one episode adds to the data, final and episodes files, and its videos."""
        length = len(step["action"])
        first = self._committed_frames + self._staged_frames
        frame = np.arange(length)
        index = (frame / self.fps, frame, np.full(length, number), first + frame, np.zeros(length))
        columns = {self._obs[key]: values[:-1] for key, values in obs.items()}
        columns |= {self._steps[name]: values for name, values in step.items()}
        columns |= {c: v.astype(c.dtype) for c, v in zip(layout.INDEX_COLUMNS, index, strict=True)}
        row: dict[str, Any] = {"episode_index": number, "tasks": [self.origin.instruction], "length": length}
        row |= {"dataset_from_index": first, "dataset_to_index": first + length}
        for column, values in columns.items():
            if column.is_video:
                write_video(folder / f"{column.name}.mp4", np.concatenate([values, obs[_key(column)][-1:]]), self.fps)
                row |= self._video_row(column, number, length)
            stats = video_stats(values) if column.is_video else feature_stats(values)
            row |= {f"stats/{column.name}/{name}": value.tolist() for name, value in stats.items()}
        table = {c.name: layout.to_arrow(values) for c, values in columns.items() if not c.is_video}
        final = {c.name: layout.to_arrow(obs[key][-1:]) for key, c in self._obs.items() if not c.is_video}
        pq.write_table(pa.table(table), folder / "data.parquet", **COMPRESSION)
        pq.write_table(pa.table(final), folder / "final.parquet", **COMPRESSION)
        (folder / "row.json").write_text(json.dumps(row))

    def _video_row(self, column: Column, number: int, length: int) -> dict[str, Any]:
        chunk, file = divmod(number, layout.FILES_PER_CHUNK)
        values = {"chunk_index": chunk, "file_index": file, "from_timestamp": 0.0, "to_timestamp": length / self.fps}
        return {f"videos/{column.name}/{name}": value for name, value in values.items()}

    def _commit(self) -> None:
        """Move the staged episodes into the next data file."""
        chunk, file = divmod(self._files, layout.FILES_PER_CHUNK)
        rows = [_row(folder) for folder in self._staged]
        for folder, row in zip(self._staged, rows, strict=True):
            row |= {"data/chunk_index": chunk, "data/file_index": file}
            row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
            for video in folder.glob("*.mp4"):
                target = layout.numbered(self.path, f"{layout.VIDEOS}/{video.stem}", row["episode_index"], ".mp4")
                with atomic_file(target) as temporary:
                    shutil.copyfile(video, temporary)
        for part, place in (("data.parquet", layout.DATA), ("final.parquet", layout.FINAL)):
            _join([folder / part for folder in self._staged], layout.numbered(self.path, place, self._files))
        with atomic_file(layout.numbered(self.path, layout.EPISODES, self._files)) as temporary:
            pq.write_table(pa.Table.from_pylist(rows), temporary)
        self._files += 1
        self._committed += len(rows)
        self._committed_frames = rows[-1]["dataset_to_index"]
        self._publish()
        for folder in self._staged:
            shutil.rmtree(folder)
        self._staged, self._staged_frames, self._staged_bytes = [], 0, 0

    def _recover(self) -> tuple[int, int, int]:
        """Tidy up after a kill; returns the numbers of data files, episodes and frames that are committed."""
        commits = sorted((self.path / layout.EPISODES).glob("*/*.parquet"))
        episodes = frames = 0
        if commits:
            last = pq.read_table(commits[-1], columns=["episode_index", "dataset_to_index"])
            episodes, frames = last["episode_index"][-1].as_py() + 1, last["dataset_to_index"][-1].as_py()
        for place in (layout.DATA, layout.FINAL):
            for file in sorted((self.path / place).glob("*/*.parquet"))[len(commits) :]:
                file.unlink()
        for folder in (self.path / layout.STAGING).glob("[0-9]*"):
            if int(folder.name) < episodes:
                shutil.rmtree(folder)
        return len(commits), episodes, frames

    def _publish(self) -> None:
        """Bring ``info.json``, ``stats.json`` and ``tasks.parquet`` to the state of the committed episodes."""
        columns = [*self._obs.values(), *self._steps.values(), *layout.INDEX_COLUMNS]
        has_video = any(column.is_video for column in columns)
        info = {
            "codebase_version": layout.CODEBASE_VERSION,
            "robot_type": self.origin.robot,
            "total_episodes": self._committed,
            "total_frames": self._committed_frames,
            "total_tasks": 1,
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self._committed}"},
            "data_path": f"{layout.DATA}/{layout.NUMBERED}.parquet",
            "video_path": f"{layout.VIDEOS}/{{video_key}}/{layout.NUMBERED}.mp4" if has_video else None,
            "features": {column.name: column.feature(self.fps) for column in columns},
        }
        task = pa.table({"task_index": pa.array([0]), "task": pa.array([self.origin.instruction])})
        with atomic_file(self.path / layout.TASKS) as temporary:
            task.to_pandas().set_index("task").to_parquet(temporary)
        if self._committed:
            stats = _dataset_stats(self.path, columns)
            write_text(self.path / layout.STATS, json.dumps(stats, indent=1))
        write_text(self.path / layout.INFO, json.dumps(info, indent=1))


def _row(staged: Path) -> dict[str, Any]:
    """What a staged episode adds to ``meta/episodes``."""
    return json.loads((staged / "row.json").read_text())


def _size(staged: Path) -> int:
    """What a staged episode adds to its data file [bytes]."""
    return (staged / "data.parquet").stat().st_size


def _key(column: Column) -> str:
    return column.name.removeprefix("observation.images.")


def _claim(path: Path) -> Any:
    """An open file whose lock says that this process writes the dataset; a killed process loses it by itself."""
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / layout.LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DatasetError(
            f"{path} is being written by another process; wait for it or choose another folder"
        ) from error
    return lock


def _check_origin(path: Path, origin: Origin, revision: str) -> None:
    """Create ``meta/omnibody.json``, or see that it agrees with ``origin`` and note the revision that goes on."""
    file = path / layout.ORIGIN
    revisions: list[str] = []
    if file.is_file():
        raw = json.loads(file.read_text(encoding="utf-8"))
        revisions = raw["revisions"]
        if difference := Origin.from_dict(raw).mismatch(origin):
            raise DatasetError(f"{path} holds another dataset: {difference}; choose another folder")
    elif other := next((p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")), None):
        raise DatasetError(f"{path}: wanted an empty folder or a dataset of Omnibody, came one that holds {other.name}")
    if revision not in revisions:
        text = json.dumps({**origin.to_dict(), "revisions": [*revisions, revision]}, indent=1)
        write_text(file, text)


def _join(parts: list[Path], target: Path) -> None:
    """One parquet file with a row group for each of ``parts``."""
    with (
        atomic_file(target) as temporary,
        pq.ParquetWriter(temporary, pq.read_schema(parts[0]), **COMPRESSION) as writer,
    ):
        for part in parts:
            writer.write_table(pq.read_table(part))


def _dataset_stats(path: Path, columns: list[Column]) -> dict[str, Any]:
    table = pa.concat_tables(pq.read_table(file) for file in sorted((path / layout.EPISODES).glob("*/*.parquet")))
    merged = {}
    for column in columns:
        prefix, shape = f"stats/{column.name}/", (3, 1, 1) if column.is_video else (column.shape or (1,))[-1:]
        names = [name for name in table.column_names if name.startswith(prefix)]
        parts = {
            name.removeprefix(prefix): layout.from_arrow(table[name], (1,) if name.endswith("/count") else shape)
            for name in names
        }
        merged[column.name] = {key: value.tolist() for key, value in merge_stats(parts).items()}
    return merged
