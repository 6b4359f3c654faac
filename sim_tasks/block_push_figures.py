"""What an evaluation of block push keeps of each episode, and the figures it makes of them."""

from __future__ import annotations

import numpy as np

from omnibody.sim_tasks.figures import ESTIMATE, NUMBER, SHARE, Column, Episodes, Figure, Figures

FOLDS = {"final_distance": ("distance", "last")}  # of the blocks to the targets asked for, mean [m]


def shown(is_in: np.ndarray, asked: int) -> dict[str, float]:
    """What an episode showed of which ``is_in`` (steps + 1, 2, 2) bool says that block b is in target t.

    ``asked`` is the first block's target. ``reward``: pairs of block and target entered, two at most, as a share of
    two; ``result``: those of the two pairs asked for; ``order``: 2 * b + t of the first pair entered, -1 without one.
    """
    entered: np.ndarray = np.any(is_in, axis=0)
    wanted = entered[[0, 1], [asked, 1 - asked]]
    first = np.where(entered, is_in.argmax(0), len(is_in))
    order = int(first.argmin()) if entered.any() else -1
    reward = min(int(entered.sum()), 2) / 2
    return {"reward": reward, "result": int(wanted.sum()) / 2, "asked": float(asked), "order": float(order)}


def entropy(modes: np.ndarray) -> float:
    """Of the shares in which whole numbers occur among ``modes`` (n,) [nats]; 0 of none."""
    shares = np.unique(modes, return_counts=True)[1] / max(len(modes), 1)
    return float(-(shares * np.log(shares)).sum())


def _mode_entropy(episodes: Episodes) -> float:
    order = episodes["order"]
    return entropy(order[order >= 0])


def _mode_entropy_given_goal(episodes: Episodes) -> float:
    """Mean over the two goals, weighted by their episodes."""
    kept = episodes["order"] >= 0
    order, asked = episodes["order"][kept], episodes["asked"][kept]
    parts = [order[asked == goal] for goal in (0, 1)]
    return sum(len(part) * entropy(part) for part in parts) / max(len(order), 1)


FIGURES = Figures(
    figures=(
        Figure(
            "reward",
            "mean share of the two blocks that entered a target, whichever; limits are Student's 95 %: BESO's reward",
            ESTIMATE,
            lambda episodes: episodes["reward"],
        ),
        Figure(
            "result",
            "the same for the target that the goal asks for: BESO's result",
            ESTIMATE,
            lambda episodes: episodes["result"],
        ),
        Figure(
            "p1",
            "share of episodes in which at least one block entered a target, with Wilson's 95 % limits",
            SHARE,
            lambda episodes: episodes["reward"] >= 0.5,
        ),
        Figure("p2", "the same for two", SHARE, lambda episodes: episodes["reward"] >= 1.0),
        Figure(
            "mode_entropy",
            "entropy over the first block in a target and which, of episodes with one [nats]; at most ln 4 = 1.386."
            " Goals make half of it for those who follow them; a policy's own shows without them (guidance=0)",
            NUMBER,
            _mode_entropy,
        ),
        Figure(
            "mode_entropy_given_goal",
            "the same within each of the two goals, mean; ln 2 = 0.693 where either block comes first in its target",
            NUMBER,
            _mode_entropy_given_goal,
        ),
        Figure(
            "final_distance",
            "mean distance of the blocks to the targets asked for at the end [m]",
            ESTIMATE,
            lambda episodes: episodes["final_distance"],
        ),
    ),
    columns=(
        Column("reward", "blocks in targets [%]", (("reward", 100.0, 1),)),
        Column("result", "in those asked for [%]", (("result", 100.0, 1),)),
        Column("p1, p2", "episodes with [%]", (("p1", 100.0, 1), ("p2", 100.0, 1))),
        Column(
            "entropy", "of orders, in a goal [nats]", (("mode_entropy", 1.0, 2), ("mode_entropy_given_goal", 1.0, 2))
        ),
        Column("NFE", "per action", (("nfe_per_action", 1.0, 2),)),
    ),
    start_states="Block push's starts: blocks in x 0.3..0.5, y -0.35..-0.05 m at least 0.1 m apart, at any yaw; targets"
    " near (0.28, 0.2) and (0.52, 0.2), which first at even odds; the goal asks for either matching at even odds."
    " Those of episode k under seed s are a pure function of (s, k).",
)
