"""The recorder: what is written comes back, and a kill, a full disk or a slow one cost what the module says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import Reader, ReaderError  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from omnibody.deploy_ros import recorder as module  # noqa: E402
from omnibody.deploy_ros.recorder import Recorder, repair, storage_file  # noqa: E402
from omnibody.robots.errors import UserError  # noqa: E402

STORE = get_typestore(Stores.ROS2_JAZZY)
BOOL = "std_msgs/msg/Bool"
# Records without end, or writes more than it may; says where.
CHILD = """
import resource, signal, sys, time
from pathlib import Path
from omnibody.deploy_ros.recorder import Recorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = Recorder(Path(sys.argv[1]), "robot")
recorder.add("/estop", "std_msgs/msg/Bool")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print(recorder.bag, flush=True)
while not recorder.error:
    recorder.write("/estop", bytes((0, 1, 0, 0, 1)), time.time_ns())
    time.sleep(0.001)
recorder.write("/estop", bytes((0, 1, 0, 0, 1)), time.time_ns())
print(recorder.error, recorder.counts["record_dropped"], flush=True)
recorder.close()
"""


def flag(data: bool) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types[BOOL](data), BOOL))


def read(path: Path) -> list[bool]:
    with Reader(path) as reader:
        messages: list[Any] = [STORE.deserialize_cdr(data, BOOL) for _, _, data in reader.messages()]
    return [message.data for message in messages]


def child(folder: Path, most_bytes: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(folder), str(most_bytes)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_is_written_comes_back_in_order(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "robot")
    recorder.add("/estop", BOOL)
    values = [n % 3 == 0 for n in range(500)]
    for n, value in enumerate(values):
        recorder.write("/estop", flag(value), n)
    recorder.close()
    assert read(recorder.bag) == values and recorder.counts == {"recorded": 500, "record_dropped": 0}
    with pytest.raises(UserError, match="came a whole one"):
        repair(recorder.bag)
    assert read(recorder.bag) == values


def test_a_killed_recorder_leaves_a_bag_that_can_be_repaired(tmp_path: Path) -> None:
    with child(tmp_path, 10**9) as process:
        bag = Path(said(process))
        time.sleep(2.5)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(ReaderError):  # the control: it is not whole by itself
        read(storage_file(bag))
    with storage_file(bag).open("ab") as stream:
        stream.write(os.urandom(5))  # and a record that was begun
    count = repair(bag)
    assert count == len(read(storage_file(bag))) > 500  # of more than a thousand a second, all but the last second


def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path: Path) -> None:
    with child(tmp_path, 20_000) as process:
        said(process)
        error, dropped = said(process).rsplit(" ", 1)
        assert "File too large" in error and int(dropped) >= 1
        assert process.wait(20) == 0


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 0)
    recorder = Recorder(tmp_path, "robot")
    recorder.add("/estop", BOOL)
    began = time.perf_counter()
    for _ in range(100):
        recorder.write("/estop", flag(True), 0)
    assert time.perf_counter() - began < 0.1
    recorder.close()
    assert recorder.counts == {"recorded": 0, "record_dropped": 100}


def test_what_is_no_bag_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"not a bag")
    with pytest.raises(UserError, match="wanted an MCAP file"):
        repair(tmp_path / "a.mcap")
    with pytest.raises(UserError, match="no such path"):
        repair(tmp_path / "none")
    with pytest.raises(UserError, match="choose another folder"):
        Recorder(tmp_path / "a.mcap", "robot")
