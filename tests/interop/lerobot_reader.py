"""Runs in LeRobot's own environment (`make lerobot`): opens a dataset with `LeRobotDataset` and dumps windows of it.

python lerobot_reader.py <dataset> <out.npz> <steps> <rows, e.g. 0,17,240>
Arrays in the file: ``<column>/<row>`` and ``<column>/<row>/pad`` for every window of ``steps`` consecutive steps from
``row`` on; ``seconds``: processor time for one window, the median of all; ``episodes``, ``frames``: LeRobot's counts.
"""

import sys
import time

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

COUNTERS = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def main(root: str, out: str, steps: int, rows: list[int]) -> None:
    columns = sorted(LeRobotDataset("omnibody/interop", root=root).meta.features.keys() - COUNTERS)
    rate = LeRobotDataset("omnibody/interop", root=root).fps
    ahead = {column: [step / rate for step in range(steps)] for column in columns}
    dataset = LeRobotDataset("omnibody/interop", root=root, delta_timestamps=ahead, video_backend="pyav")
    found, seconds = {}, []
    for row in rows:
        start = time.process_time()
        item = dataset[row]
        seconds.append(time.process_time() - start)
        for column in columns:
            found[f"{column}/{row}"] = item[column].numpy()
            found[f"{column}/{row}/pad"] = item[f"{column}_is_pad"].numpy()
        found[f"task/{row}"] = np.array(item["task"])
    counts = {"episodes": np.array(dataset.num_episodes), "frames": np.array(dataset.num_frames)}
    np.savez(out, seconds=np.array(np.median(seconds)), **counts, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(row) for row in sys.argv[4].split(",")])
