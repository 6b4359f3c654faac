"""Goals in hindsight: what an episode did reach later stands in for what it was to reach.

Andrychowicz et al., arXiv 1707.01495, with goals drawn evenly from the rest of the episode ("future").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GOAL = "goal"  # the observation that is replaced
STREAM = 0x601  # keeps this generator apart from others


@dataclass
class HindsightCfg:
    """Which windows get a goal from their own future."""

    key: str = ""  # observation whose later value becomes the goal, of push_t block; empty: goals stay as recorded
    keep: float = 0.5  # share of samples that keep the recorded goal

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep: wanted a share in [0, 1), came {self.keep}")


def goal_rows(step: np.ndarray, length: np.ndarray, keep: float, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the windows at ``step`` (B,) of episodes of ``length`` (B,) get a new goal, bool (B,), and the step
    (B,) in step + 1 ... length to take it from. A function of which windows ``indices`` stand together in a batch, so
    that it changes from epoch to epoch and not with a resume."""
    rng = np.random.default_rng([STREAM, *indices.tolist()])
    later = step + 1 + np.floor(rng.random(len(step)) * (length - step)).astype(np.int64)
    return rng.random(len(step)) >= keep, later
