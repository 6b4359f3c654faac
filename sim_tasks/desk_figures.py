"""What an evaluation of the desk keeps of each episode, and the figures it makes of them."""

from __future__ import annotations

import functools

import numpy as np

from omnibody.sim_tasks.figures import ESTIMATE, SHARE, Column, Episodes, Figure, Figures

FOLDS = {
    "reward": ("done", "max"),  # most elements that were done at once, at most 4
    "result": ("wanted_done", "max"),  # most of those that the goal wanted
}


def _at_least(count: int, episodes: Episodes) -> np.ndarray:
    return episodes["reward"] >= count


FIGURES = Figures(
    figures=(
        Figure(
            "reward",
            "mean over episodes of the number of elements done, whichever they are, at most 4, with which an episode"
            " ends; limits are Student's 95 %",
            ESTIMATE,
            lambda episodes: episodes["reward"],
        ),
        Figure(
            "result",
            "mean over episodes of the number of elements done that the goal wants, of 4; limits are Student's 95 %",
            ESTIMATE,
            lambda episodes: episodes["result"],
        ),
        *(
            Figure(
                f"p{count}",
                f"share of episodes with at least {count} of the seven elements done, with Wilson's 95 % limits",
                SHARE,
                functools.partial(_at_least, count),
            )
            for count in (1, 2, 3, 4)
        ),
    ),
    columns=(
        Column("reward", "done, of 4", (("reward", 1.0, 2),)),
        Column("result", "done and wanted", (("result", 1.0, 2),)),
        Column("p1", "[%]", (("p1", 100.0, 1),)),
        Column("p2", "[%]", (("p2", 100.0, 1),)),
        Column("p3", "[%]", (("p3", 100.0, 1),)),
        Column("p4", "[%]", (("p4", 100.0, 1),)),
        Column("NFE", "per action", (("nfe_per_action", 1.0, 2),)),
    ),
    start_states="A desk's starts: the gripper anywhere in the middle half of its reach each way, the seven elements"
    " within 5 % of their travel of 0; the goal wants four of them at 90 to 105 % of their travel. Both are a pure"
    " function of (seed, episode).",
)
