"""Writes the messages of a node into a rosbag2 (MCAP) on a thread of its own, so that control never waits for a disk.

A bag whose recorder was killed lacks its end, and readers refuse it; what is whole in it, all but the last second, is
saved by ``python -m omnibody.deploy_ros.recorder <bag>``, for anybody's MCAP.
"""

from __future__ import annotations

import os
import queue
import struct
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omnibody.robots.errors import UserError

try:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
except ModuleNotFoundError as missing:
    raise UserError("rosbags, which records, is not installed; pip install rosbags") from missing

MOST_WAITING = 32_000_000  # messages that the disk is slower than by more are dropped [bytes]
FLUSH = 1.0  # a kill loses no more than this [s]
CLOSING = 5.0  # a disk that does not take the rest in this time is left alone [s]
MAGIC = b"\x89MCAP0\r\n"
# What a closed file ends with: DataEnd, and a Footer that says there is no index (mcap.dev/spec, section Records).
DATA_END = 0x0F
END = struct.pack("<BQI", DATA_END, 4, 0) + struct.pack("<BQQQI", 0x02, 20, 0, 0, 0) + MAGIC


class Recorder:
    """A new bag in ``folder``, named after ``name`` and the time; ``bag`` is its path.

    ``counts``: messages written, and dropped because the disk was too slow or because of ``error``, empty while all is
    well.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.bag = folder / f"{name}_{datetime.now():%Y_%m_%d-%H_%M_%S_%f}"
        self.counts = {"recorded": 0, "record_dropped": 0}
        self.error = ""
        self._writer = Writer(self.bag, version=9, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
        except OSError as error:
            raise UserError(f"record: {folder}: {error.strerror}; choose another folder") from error
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Connection] = {}
        self._queue: queue.SimpleQueue[tuple[str, int, bytes] | None] = queue.SimpleQueue()
        self._waiting, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def add(self, topic: str, kind: str) -> None:
        """Make a topic, with its leading slash, of a type ("nav_msgs/msg/Odometry") known, before any message."""
        self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._store)

    def listen(self, node: Any, kind: Any, topic: str, qos: Any) -> Any:
        """A subscription of rclpy's ``node`` to ``topic``, of message class ``kind``, that writes all it hears."""
        name = node.resolve_topic_name(topic)
        self.add(name, f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}")
        # Not the middleware's time of arrival: rclpy's EventsExecutor fails at callbacks that ask for it.
        return node.create_subscription(kind, topic, lambda data: self.write(name, data, time.time_ns()), qos, raw=True)

    def write(self, topic: str, data: bytes, stamp: int) -> None:
        """Take a serialized message that came at ``stamp`` [ns]; returns at once."""
        with self._lock:
            if self.error or self._waiting + len(data) > MOST_WAITING:
                self.counts["record_dropped"] += 1
                return
            self._waiting += len(data)
        self._queue.put((topic, stamp, data))

    def status(self) -> dict[str, Any]:
        """For diagnostics: ``counts``, and ``error`` where there is one."""
        return {**self.counts, **({"record_error": self.error} if self.error else {})}

    def close(self) -> None:
        """Write what waits, and the end of the bag."""
        self._queue.put(None)
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self.error = self.error or "the disk takes no more"
        elif self.error:
            self._writer.abort()
        else:
            self._writer.close()

    def _run(self) -> None:
        flushed = time.monotonic()
        try:
            while (item := self._next(flushed)) is not None:
                topic, stamp, data = item
                if topic:
                    self._writer.write(self._connections[topic], stamp, data)
                    self.counts["recorded"] += 1
                    with self._lock:
                        self._waiting -= len(data)
                if time.monotonic() - flushed >= FLUSH:
                    self._flush()
                    flushed = time.monotonic()
        except (OSError, ValueError) as error:  # a full disk must not stop a robot
            self.error = f"{type(error).__name__}: {error}"

    def _next(self, flushed: float) -> tuple[str, int, bytes] | None:
        """The next message; one without a topic when it is time to flush; None at the end."""
        try:
            return self._queue.get(timeout=max(flushed + FLUSH - time.monotonic(), 0.0))
        except queue.Empty:
            return "", 0, b""

    def _flush(self) -> None:
        """End the chunk, so that it can be read whatever happens next."""
        storage: Any = self._writer.storage
        if storage.chunk.msgs:
            storage.close_chunk()
            storage.bio.flush()


def storage_file(bag: Path) -> Path:
    """The one file that holds the messages of a bag: ``bag`` itself, or what is in the folder."""
    if bag.is_file():
        return bag
    files = sorted(file for kind in ("*.mcap", "*.db3") for file in bag.glob(kind))
    if len(files) != 1:
        raise UserError(
            f"{bag}: wanted a rosbag2, a folder with metadata.yaml or one .mcap or .db3 file, came"
            f" {f'one with {len(files)} such files and no metadata.yaml' if bag.is_dir() else 'no such path'}"
        )
    return files[0]


def whole_bytes(file: Path) -> int:
    """How many bytes of an MCAP file belong to whole records in front of its end."""
    size, at = file.stat().st_size, len(MAGIC)
    with file.open("rb") as stream:
        if stream.read(at) != MAGIC:
            raise UserError(f"{file}: wanted an MCAP file, came something else")
        while len(head := stream.read(9)) == 9 and head[0] != DATA_END:
            after = at + 9 + int(struct.unpack("<Q", head[1:])[0])
            if after > size:
                break
            at = after
            stream.seek(at)
    return at


def repair(bag: Path) -> int:
    """Put the end to an MCAP bag that lacks it, in place of a record cut short; returns how many messages it holds."""
    file = storage_file(bag)
    size = whole_bytes(file)
    with file.open("r+b") as stream:
        stream.seek(-len(MAGIC), os.SEEK_END)
        if stream.read() == MAGIC and size > len(MAGIC):
            raise UserError(f"{file}: wanted a file without its end, came a whole one")
        stream.truncate(size)
        stream.seek(size)
        stream.write(END)
    with Reader(file) as reader:
        return reader.message_count


def main() -> int:
    """``python -m omnibody.deploy_ros.recorder <bag>``; exit codes as those of ``omnibody``."""
    try:
        if len(sys.argv) != 2:
            raise UserError(f"wanted the path of one bag, came {len(sys.argv) - 1}")
        print(f"{sys.argv[1]}: {repair(Path(sys.argv[1]))} messages; `ros2 bag reindex` makes its metadata.yaml")
    except UserError as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
