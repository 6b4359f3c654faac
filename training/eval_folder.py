"""The folder of an evaluation: what it is about, and its episode records, safe against being killed at any moment."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnibody.policies.files import write_text
from omnibody.robots.errors import UserError
from omnibody.training.rollout import EpisodeRecord
from omnibody.training.run_folder import refuse_another

IDENTITY, LOCK, RECORDS, RUNS = "eval.json", ".lock", "records", "runs.jsonl"


class EvalFolder:
    """``eval.json`` with the identity and ``records/<cell>.jsonl`` with one line per finished episode.

    ``runs.jsonl`` says of each process that added episodes where it came from: code that changed in between shows.
    """

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        self.path = path
        self._provenance: dict[str, Any] | None = provenance

    def note_run(self) -> None:
        """Write down that this process adds episodes; all calls but the first do nothing."""
        if self._provenance is not None:
            _whole_lines(self.path / RUNS)
            with (self.path / RUNS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(self._provenance) + "\n")
            self._provenance = None

    def runs(self) -> list[dict[str, Any]]:
        """The processes that added episodes, oldest first."""
        return [json.loads(line) for line in _whole_lines(self.path / RUNS)]

    def records(self, *labels: str) -> RecordFile:
        """The records of the cell and seed that ``labels`` name."""
        stem = "__".join(re.sub(r"[^\w.-]+", "-", label) for label in labels)
        return RecordFile(self.path / RECORDS / f"{stem}.jsonl")


@contextmanager
def open_folder(path: Path, identity: dict[str, Any], provenance: dict[str, Any]) -> Iterator[EvalFolder]:
    """The folder of the evaluation ``identity`` (JSON), new or resumed; refuses the folder of another one."""
    if path.exists() and not path.is_dir():
        raise UserError(f"out: wanted a folder, came the file {path}; choose another out=")
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"out: {path} is in use by another process; wait for it or choose another out=") from error
        _claim(path, identity)
        yield EvalFolder(path, provenance)


def _claim(path: Path, identity: dict[str, Any]) -> None:
    file = path / IDENTITY
    if not file.exists():
        strangers = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
        if strangers:
            raise UserError(f"out: {path} holds {strangers[0]} but no {IDENTITY}; choose an empty or a new folder")
        write_text(file, json.dumps(identity, indent=1))
    refuse_another(file, identity)


class RecordFile:
    """Episode records as JSON lines; ``append`` is on disk when it returns, short of a power cut."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._records = {record.episode: record for record in self._read()}

    @property
    def episodes(self) -> set[int]:
        """The episode numbers recorded."""
        return set(self._records)

    def sorted(self) -> list[EpisodeRecord]:
        """All records by episode number."""
        return [self._records[episode] for episode in sorted(self._records)]

    def append(self, record: EpisodeRecord) -> None:
        """Add the record of an episode that has none yet."""
        if record.episode in self._records:
            raise ValueError(f"{self._path}: episode {record.episode} is recorded already")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")
        self._records[record.episode] = record

    def _read(self) -> Iterator[EpisodeRecord]:
        for number, line in enumerate(_whole_lines(self._path), 1):
            try:
                yield EpisodeRecord.from_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{self._path} line {number} is damaged ({error}); delete that file") from error


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file, without the last one if the process was killed in the middle of it; it is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.decode("utf-8").splitlines()
