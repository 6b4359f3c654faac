"""The dataset writer: what goes in comes out, and a kill at any moment loses and doubles nothing."""

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from omnibody.robots.spec import Field, IOSpec
from omnibody.training.data import layout, writer
from omnibody.training.data.fake import fake_episode
from omnibody.training.data.layout import DatasetError, Episode, Origin
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.writer import DatasetWriter

Write = Callable[..., Path]


def rows_of(dataset: Dataset, number: int) -> slice:
    return slice(dataset.first[number], dataset.first[number] + dataset.length[number])


def assert_holds(dataset: Dataset, episodes: list[Episode]) -> None:
    """The dataset holds exactly these episodes, bit for bit except that depth is rounded to a millimetre."""
    assert dataset.length.tolist() == [len(episode.action) for episode in episodes]
    for number, episode in enumerate(episodes):
        rows = rows_of(dataset, number)
        for name in ("action", "expert", "reward", "terminated", "truncated", "success", "pose"):
            np.testing.assert_array_equal(dataset.arrays[name][rows], getattr(episode, name))
        with_final = slice(rows.start, rows.stop + 1)
        for key, values in episode.obs.items():
            stored = dataset.arrays[f"obs.{key}"][with_final]
            if key == "depth":
                np.testing.assert_allclose(stored * 0.001, values, atol=0.00051)
            else:
                np.testing.assert_array_equal(stored, values)


def content(path: Path) -> str:
    """A digest of the data and of everything the metadata say, however they are cut into files."""
    digest = hashlib.sha256()
    for folder in (layout.DATA, layout.FINAL, layout.EPISODES):
        for row in itertools.chain(
            *(pq.read_table(f).to_pylist() for f in sorted((path / folder).glob("*/*.parquet")))
        ):
            digest.update(
                repr([(k, v) for k, v in row.items() if not k.endswith(("file_index", "chunk_index"))]).encode()
            )
    for file in (layout.INFO, layout.STATS):
        digest.update((path / file).read_bytes())
    return digest.hexdigest()


def test_episodes_come_back(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    path = write(tmp_path / "data", episodes)
    assert_holds(open_dataset(path), episodes)
    with pytest.raises(AssertionError):  # the check sees one changed number
        changed = replace(episodes[2], action=episodes[2].action + np.float32(1e-6))
        assert_holds(open_dataset(path), [*episodes[:2], changed, *episodes[3:]])


def test_layout_is_lerobots(tmp_path: Path, write: Write, episodes: list[Episode], origin: Origin) -> None:
    path = write(tmp_path / "data", episodes)
    info = json.loads((path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and info["robot_type"] == "carrier"
    assert info["features"]["observation.depth"] == {"dtype": "uint16", "shape": [6, 8], "names": None}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["vx", "vy", "wz"]}
    table = pq.read_table(path / "data/chunk-000/file-000.parquet")
    assert set(table.column_names) == set(info["features"])
    assert table["index"].to_pylist() == list(range(info["total_frames"]))
    rows = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    bounds = [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows]
    assert [a for a, _ in bounds[1:]] == [b for _, b in bounds[:-1]] and bounds[-1][1] == info["total_frames"]
    assert Origin.from_dict(json.loads((path / "meta/omnibody.json").read_text())) == origin


def test_statistics_equal_those_of_all_rows(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    stats = json.loads((write(tmp_path / "data", episodes) / "meta/stats.json").read_text())
    actions = np.concatenate([episode.action for episode in episodes]).astype(np.float64)
    depth = np.concatenate([episode.obs["depth"][:-1] for episode in episodes]).reshape(-1, 8)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-9)
    np.testing.assert_allclose(np.array(stats["observation.depth"]["std"]) * 0.001, depth.std(0), rtol=1e-4)
    assert stats["action"]["count"] == [len(actions)]
    # Negative control: the mean of the episodes' means is not the mean of the rows.
    assert not np.allclose(stats["action"]["mean"], np.mean([e.action.mean(0) for e in episodes], axis=0), rtol=1e-3)


def test_continuing_equals_writing_at_once(
    tmp_path: Path, origin: Origin, episodes: list[Episode], write: Write
) -> None:
    for episode in episodes:
        with DatasetWriter(tmp_path / "parts", origin, "revision") as one:
            one.append(episode)
    whole = write(tmp_path / "whole", episodes)
    assert len(list((tmp_path / "parts/data").glob("*/*.parquet"))) == len(episodes)
    assert content(tmp_path / "parts") == content(whole)
    assert_holds(open_dataset(tmp_path / "parts"), episodes)
    assert content(write(tmp_path / "other", episodes[::-1])) != content(whole)


STEPS = ("_join", "atomic_file", "atomic_folder", "write_text")


class Killed(BaseException):
    """Stands in for SIGKILL at one exact point; the test with the real signal is below."""


@pytest.mark.parametrize("name", STEPS)
def test_a_stop_before_any_write_is_mended(
    name: str, tmp_path: Path, origin: Origin, episodes: list[Episode], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before the k-th write of each kind, for every k, then run the same again."""
    whole = content(write(tmp_path / "whole", episodes))
    original = getattr(writer, name)
    for k in itertools.count(1):
        path, calls = tmp_path / f"{name}{k}", itertools.count(1)

        def stop(*args: object, calls: itertools.count = calls, k: int = k) -> object:
            if next(calls) == k:
                raise Killed
            return original(*args)

        monkeypatch.setattr(writer, name, stop)
        try:
            _record(path, origin, episodes)
            finished = True
        except Killed:
            finished = False
        monkeypatch.setattr(writer, name, original)
        _record(path, origin, episodes)
        assert content(path) == whole, f"stopped before {name} number {k}"
        if finished:
            break
    assert k > 2


def _record(path: Path, origin: Origin, episodes: list[Episode]) -> None:
    """What collect does: go on after the episodes that are there. Small files, so that there are several commits."""
    one = DatasetWriter(path, origin, "revision", data_file_mb=0.03)
    try:
        for episode in episodes[one.num_episodes :]:
            one.append(episode)
        one.close()
    finally:
        one._lock.close()  # a killed process would have lost it


KILLED = """
import json, sys
import numpy as np
from omnibody.training.data.fake import fake_episode
from omnibody.training.data.layout import Origin
from omnibody.training.data.writer import DatasetWriter

origin = Origin.from_dict(json.loads(sys.argv[2]))
with DatasetWriter(sys.argv[1], origin, "revision", data_file_mb=0.02) as writer:
    while writer.num_episodes < 40:
        rng = np.random.default_rng(writer.num_episodes)
        writer.append(fake_episode(origin.spec, 5 + writer.num_episodes % 7, rng))
        print(writer.num_episodes, flush=True)
"""


def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path, origin: Origin) -> None:
    rng, reported = np.random.default_rng(5), 0
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data"), json.dumps(origin.to_dict())]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, 8))):
                reported = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.wait()
            rest = process.stdout.read().split()
        reported = int(rest[-1]) if rest else reported
        with DatasetWriter(tmp_path / "data", origin, "revision", data_file_mb=0.02) as one:
            assert reported <= one.num_episodes <= reported + 1  # what was reported is there
    assert reported < 40  # the kills came while it was at work
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(finished.stdout.split()[-1]) == 40
    wanted = [fake_episode(origin.spec, 5 + k % 7, np.random.default_rng(k)) for k in range(40)]
    assert_holds(open_dataset(tmp_path / "data"), wanted)


def test_another_spec_is_refused_with_both_values(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    path = write(tmp_path / "data", episodes)
    before = content(path)
    other = open_dataset(path).origin.spec
    smaller = replace(other, obs={**other.obs, "depth": Field((8, 6), "float32", "m", (0.0,), (10.0,))})
    with pytest.raises(DatasetError, match=r"'depth' shape: wanted \(6, 8\), came \(8, 6\)"):
        write(path, [], spec=smaller)
    with pytest.raises(DatasetError, match="rate_hz: wanted 10.0, came 20.0"):
        write(path, [], spec=replace(other, rate_hz=20.0))
    with pytest.raises(DatasetError, match="seed: wanted 3, came 4"):
        write(path, [], seed=4)
    with pytest.raises(DatasetError, match="robot: wanted carrier, came go2"):
        write(path, [], robot="go2")
    assert content(path) == before
    write(path, [])  # the same origin is welcome


def test_bad_episodes_are_refused_and_leave_no_trace(tmp_path: Path, origin: Origin, episodes: list[Episode]) -> None:
    good = episodes[0]

    def obs(**changes: np.ndarray) -> Episode:
        return replace(good, obs={**good.obs, **changes})

    nan = good.obs["velocity"].copy()
    nan[3, 1] = np.nan
    bad = {
        "velocity: wanted finite": obs(velocity=nan),
        r"depth: wanted 0..65.535 m": obs(depth=good.obs["depth"] + 60),
        "semantics: wanted uint8": obs(semantics=good.obs["semantics"].astype(np.int64) + 255),
        r"route: wanted shape": obs(route=good.obs["route"][:, :5]),
        "reward: wanted 23 rows": replace(good, reward=good.reward[:-1]),
        "depth: wanted 24 rows": obs(depth=good.obs["depth"][:-1]),
        "wanted observations": replace(good, obs={k: v for k, v in good.obs.items() if k != "goal"}),
        "wanted at least one step": fake_episode(origin.spec, 0, np.random.default_rng(0)),
    }
    with DatasetWriter(tmp_path / "data", origin, "revision") as one:
        for message, episode in bad.items():
            with pytest.raises(DatasetError, match=message):
                one.append(episode)
        assert one.num_episodes == 0
        one.append(good)
    assert_holds(open_dataset(tmp_path / "data"), [good])


def test_only_one_writer_at_a_time(tmp_path: Path, origin: Origin) -> None:
    with DatasetWriter(tmp_path / "data", origin, "a"):
        with pytest.raises(DatasetError, match="written by another process"):
            DatasetWriter(tmp_path / "data", origin, "a")
    with DatasetWriter(tmp_path / "data", origin, "b"):
        assert json.loads((tmp_path / "data/meta/omnibody.json").read_text())["revisions"] == ["a", "b"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path, origin: Origin) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("mine")
    with pytest.raises(DatasetError, match="came one that holds chapter.txt"):
        DatasetWriter(tmp_path / "thesis", origin, "a")
    assert (tmp_path / "thesis/chapter.txt").read_text() == "mine"
    with pytest.raises(DatasetError, match="no dataset of Omnibody"):
        open_dataset(tmp_path / "thesis")


def test_damage_is_reported(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    path = write(tmp_path / "data", episodes)
    file = path / "data/chunk-000/file-000.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="file-000.parquet is cut short or damaged"):
        open_dataset(path)


def test_the_cache_follows_the_content(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    path = write(tmp_path / "data", episodes[:2])
    first = open_dataset(path)
    again = open_dataset(path)
    assert again.digest == first.digest
    with DatasetWriter(path, first.origin, "newer revision"):
        pass  # what a finished `collect` does after an update of the code
    assert open_dataset(path).digest == first.digest
    write(path, episodes[2:])
    longer = open_dataset(path)
    assert longer.digest != first.digest and longer.num_episodes == len(episodes)
    assert len(list((path / layout.CACHE).iterdir())) == 1
    other = write(tmp_path / "other", [*episodes[:1], replace(episodes[1], reward=episodes[1].reward[::-1])])
    assert open_dataset(other).digest != first.digest


def test_rgb_is_kept_as_video(tmp_path: Path, write: Write, spec: IOSpec) -> None:
    """Smooth pictures survive the codec to a few grey levels; noise (the control) does not."""
    colour = replace(spec, obs={"rgb": Field((32, 48, 3), "uint8", "1", (0.0,), (255.0,)), "goal": spec.obs["goal"]})
    noise = [fake_episode(colour, steps, np.random.default_rng(steps)) for steps in (7, 12)]
    ramp = np.linspace(0, 200, 48)[:, None] + np.zeros((32, 48, 3))
    smooth = [
        replace(
            e, obs={**e.obs, "rgb": (ramp + 4 * np.arange(len(e.action) + 1)[:, None, None, None]).astype(np.uint8)}
        )
        for e in noise
    ]
    errors = {}
    for name, episodes in (("smooth", smooth), ("noise", noise)):
        dataset = open_dataset(write(tmp_path / name, episodes, spec=colour))
        came = dataset.arrays["obs.rgb"].astype(int)
        errors[name] = np.abs(came - np.concatenate([e.obs["rgb"] for e in episodes])).mean()
        assert len(came) == sum(len(e.action) + 1 for e in episodes)
    assert errors["smooth"] < 3 < 20 < errors["noise"]
    features = json.loads((tmp_path / "smooth/meta/info.json").read_text())["features"]
    assert features["observation.images.rgb"]["dtype"] == "video"
