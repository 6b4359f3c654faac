"""Runs in LeRobot's own environment (`make lerobot`), not in ours: its diffusion policy on recordings of Push-T.

python lerobot_peer.py measure <recordings.npz> <folder> <calls> <width>
Writes ``<folder>/peer.json``: ``parameters``; ``call_ms``, the median of a call with 8 steps of DDIM at batch 1;
``window_ms`` to read one window; and ``<folder>/dataset`` for the next command.

python lerobot_peer.py train <folder> <out> <batch size> <steps> <width>
Writes ``<out>.json``: ``samples_per_second`` of `lerobot_train`, from its own log, reading included.

python lerobot_peer.py play <recordings.npz> <folder> <batch size> <steps> <width>
Trains, then answers each line of its input, JSON {"begin": whether an episode begins, and the observations by our
names}, by a line with the action [x, y].
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
OURS = {STATE: "agent", ENVIRONMENT: "corners", ACTION: "action"}
# Its defaults leave observations of kind ENV as they are, here in pixels; trained so for 15 minutes it covered .12.
NORMALISED = json.dumps({kind: "MIN_MAX" for kind in ("STATE", "ENV", "ACTION")})
NAME, FPS, LOG_EVERY, CALL_STEPS = "omnibody/peer", 10, 10, 8


def written(recordings: dict[str, np.ndarray], root: Path) -> LeRobotDataset:
    """A dataset of LeRobot's own making."""
    shapes = {STATE: (2,), ENVIRONMENT: recordings["corners"].shape[1:], ACTION: (2,)}
    features = {key: {"dtype": "float32", "shape": shape, "names": None} for key, shape in shapes.items()}
    dataset = LeRobotDataset.create(NAME, FPS, features, root=root, use_videos=False)
    begin = 0
    for end in recordings["episode_ends"]:
        for row in range(begin, end):
            dataset.add_frame({key: recordings[name][row] for key, name in OURS.items()} | {"task": "push"})
        dataset.save_episode()
        begin = end
    dataset.finalize()
    return dataset


def trained(root: Path, out: Path, batch: int, steps: int, width: int) -> float:
    """Samples per second of LeRobot's training command, the median of what it logs after the first rows.

    The policy is in ``out``/checkpoints/last/pretrained_model; it takes 8 steps of DDIM a call.
    """
    words = [
        f"--dataset.repo_id={NAME}", f"--dataset.root={root}", "--policy.type=diffusion", "--policy.device=cpu",
        f"--policy.down_dims=[{width},{2 * width},{4 * width}]", "--policy.push_to_hub=false", f"--batch_size={batch}",
        f"--steps={steps}", f"--save_freq={steps}", f"--log_freq={LOG_EVERY}", "--wandb.enable=false",
        f"--policy.normalization_mapping={NORMALISED}",
        "--policy.noise_scheduler_type=DDIM", f"--policy.num_inference_steps={CALL_STEPS}", f"--output_dir={out}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_train", *words], capture_output=True, text=True, check=False
    )
    rows = re.findall(r"updt_s:([\d.]+) data_s:([\d.]+)", done.stdout + done.stderr)
    if len(rows) < 2:
        raise SystemExit(f"LeRobot's training said no times:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return batch / float(np.median([float(update) + float(data) for update, data in rows[1:]]))


def called(environment: int, calls: int, width: int) -> tuple[int, float]:
    """Parameters of the policy, and the median time of a call [ms]."""
    config = DiffusionConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (2,)),
            ENVIRONMENT: PolicyFeature(FeatureType.ENV, (environment,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        down_dims=(width, 2 * width, 4 * width),
        noise_scheduler_type="DDIM",
        num_inference_steps=CALL_STEPS,
        device="cpu",
    )
    policy = DiffusionPolicy(config).eval()
    batch = {STATE: torch.rand(1, 2), ENVIRONMENT: torch.rand(1, environment)}
    times = []
    with torch.inference_mode():
        for _ in range(calls):
            policy.reset()  # so that every call computes a chunk
            began = time.perf_counter()
            policy.select_action(dict(batch))
            times.append(1e3 * (time.perf_counter() - began))
    return sum(p.numel() for p in policy.parameters()), float(np.median(times))


def read(root: Path, count: int = 200) -> float:
    """Median time to read one window of 2 observations and 16 actions [ms]."""
    ahead = {STATE: [-0.1, 0.0], ENVIRONMENT: [-0.1, 0.0], ACTION: [(n - 1) / FPS for n in range(16)]}
    dataset, times = LeRobotDataset(NAME, root=root, delta_timestamps=ahead), []
    for row in np.random.default_rng(0).integers(len(dataset), size=count):
        began = time.perf_counter()
        dataset[int(row)]
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


def measure(source: str, folder: str, calls: str, width: str) -> None:
    """See the module's words."""
    recordings = dict(np.load(source))
    root = Path(folder) / "dataset"
    written(recordings, root)
    parameters, call = called(recordings["corners"].shape[1], int(calls), int(width))
    figures = {"parameters": parameters, "call_ms": call, "window_ms": read(root)}
    (Path(folder) / "peer.json").write_text(json.dumps(figures))


def train(folder: str, out: str, batch: str, steps: str, width: str) -> None:
    """See the module's words."""
    rate = trained(Path(folder) / "dataset", Path(out), int(batch), int(steps), int(width))
    Path(out).with_suffix(".json").write_text(json.dumps({"samples_per_second": rate}))


def play(source: str, folder: str, batch: str, steps: str, width: str) -> None:
    """See the module's words."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what LeRobot prints is no answer
    root, out = Path(folder) / "dataset", Path(folder) / "train"
    written(dict(np.load(source)), root)
    trained(root, out, int(batch), int(steps), int(width))
    checkpoint = out / "checkpoints/last/pretrained_model"
    policy = DiffusionPolicy.from_pretrained(checkpoint).eval()
    before, after = make_pre_post_processors(policy.config, str(checkpoint))
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["begin"]:
            policy.reset()
        seen = {key: torch.tensor(asked[OURS[key]]) for key in (STATE, ENVIRONMENT)}
        with torch.inference_mode():
            action = after(policy.select_action(before(seen)))
        print(json.dumps(action.flatten().tolist()), file=answers, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    commands: dict[str, Callable[..., None]] = {"measure": measure, "train": train, "play": play}
    commands[sys.argv[1]](*sys.argv[2:])
