"""Statistics of features as LeRobot keeps them: per episode, and merged over a dataset.

Over all axes but the last (per channel for video), so that a (16, 64) depth image has 64 of each; ``count`` counts
steps. The quantiles of a dataset are the step-weighted means of its episodes' quantiles, as in LeRobot.
"""

from __future__ import annotations

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_VIDEO_FRAMES = 100  # of an episode that enter its statistics

Stats = dict[str, np.ndarray]


def feature_stats(values: np.ndarray) -> Stats:
    """Statistics of stored values (L, ...)."""
    flat = values.astype(np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    quantiles = np.quantile(flat, list(QUANTILES.values()), axis=0)
    moments = {"min": flat.min(0), "max": flat.max(0), "mean": flat.mean(0), "std": flat.std(0)}
    return {**moments, "count": np.array([len(values)]), **dict(zip(QUANTILES, quantiles, strict=True))}


def video_stats(frames: np.ndarray) -> Stats:
    """Statistics (3, 1, 1) of RGB frames (L, H, W, 3) uint8, on a scale of 0 to 1, from evenly spread frames."""
    spread = np.linspace(0, len(frames) - 1, min(len(frames), MAX_VIDEO_FRAMES)).round().astype(int)
    stats = feature_stats(frames[spread].astype(np.float64) / 255.0)
    return {k: np.array([len(frames)]) if k == "count" else v.reshape(3, 1, 1) for k, v in stats.items()}


def merge_stats(parts: Stats) -> Stats:
    """Statistics of the union of E episodes, given stacked (E, ...): exact for count, min, max, mean and std."""
    counts = parts["count"]
    weight = (counts / counts.sum()).reshape(-1, *[1] * (parts["mean"].ndim - 1))
    mean = (weight * parts["mean"]).sum(0)
    variance = (weight * (parts["std"] ** 2 + (parts["mean"] - mean) ** 2)).sum(0)
    moments = {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    quantiles = {name: (weight * parts[name]).sum(0) for name in QUANTILES}
    return {**moments, "count": counts.sum(0), **quantiles}
