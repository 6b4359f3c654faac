"""What an evaluation of goal navigation keeps of each episode, and the figures it makes of them."""

from __future__ import annotations

import math

import numpy as np

from omnibody.sim_tasks.figures import COUNT, MEAN, NUMBER, Column, Episodes, Figure, Figures

STUCK_SECONDS, STUCK_METRES = 10.0, 0.5  # an episode that timed out, having kept within so far for so long, was stuck
FOLDS = {
    "min_clearance": ("clearance", "min"),  # least distance between footprint and scene [m]
    "goal_distance": ("goal_distance", "last"),  # [m]
    "heading_error": ("heading_error", "last"),  # [rad]
    "shortest": ("shortest_way", "last"),  # possible from the start to the goal around obstacles [m]
}


def stood_still(positions: np.ndarray, dt: float) -> bool:
    """Whether the last STUCK_SECONDS of a path (T, 2) stayed within STUCK_METRES of its end."""
    last = positions[-round(STUCK_SECONDS / dt) :]
    return bool((np.linalg.norm(last - last[-1], axis=1) < STUCK_METRES).all())


def spl(episodes: Episodes) -> np.ndarray:
    """Success weighted by path length (Anderson et al., arXiv 1807.06757), in [0, 1]."""
    shortest = episodes["shortest"]
    longest = np.maximum(np.maximum(shortest, episodes["path_length"]), 1e-9)
    return np.where(episodes["success"], shortest / longest, 0.0)


def _won(episodes: Episodes, name: str) -> np.ndarray:
    return np.where(episodes["success"], episodes[name], np.nan)


def _kilometres(episodes: Episodes) -> float:
    return sum(episodes["path_length"].tolist()) / 1000.0


def _collisions(episodes: Episodes) -> np.ndarray:
    return episodes["outcome"] == "collision"


def _per_kilometre(episodes: Episodes) -> float:
    driven = _kilometres(episodes)
    return float(_collisions(episodes).sum()) / driven if driven > 0 else math.nan


def _weighted_time(episodes: Episodes) -> float:
    times = episodes["seconds"][episodes["success"]]
    return sum(times.tolist()) / (len(times) / len(episodes["success"])) if len(times) else math.nan


FIGURES = Figures(
    figures=(
        Figure("spl", "success weighted by path length: mean of success * shortest / max(shortest, driven)", MEAN, spl),
        Figure(
            "collisions",
            "episodes ended by touching the scene; collisions_per_km divides them by all kilometres driven",
            COUNT,
            _collisions,
        ),
        Figure("collisions_per_km", "collisions / kilometres", NUMBER, _per_kilometre),
        Figure("kilometres", "driven in all episodes [km]", NUMBER, _kilometres),
        Figure(
            "falls",
            "episodes that failed without a contact (tilted or sank)",
            COUNT,
            lambda episodes: episodes["outcome"] == "fall",
        ),
        Figure(
            "stuck",
            f"time-outs that stayed within {STUCK_METRES} m for their last {STUCK_SECONDS:.0f} s",
            COUNT,
            lambda episodes: episodes["stuck"] > 0,
        ),
        Figure(
            "min_clearance",
            "mean over episodes of the least distance between footprint and scene [m]",
            MEAN,
            lambda episodes: episodes["min_clearance"],
        ),
        Figure(
            "travel_time",
            "mean time of the successful episodes [s]",
            MEAN,
            lambda episodes: _won(episodes, "seconds"),
        ),
        Figure(
            "wtt",
            "COMPASS's weighted travel time: SUM of the successful episodes' times / SR [s]; it grows with n, so"
            " compare it at equal n only, or use travel_time",
            NUMBER,
            _weighted_time,
        ),
        Figure(
            "heading_error",
            "mean heading error of the successful episodes at their end [rad]",
            MEAN,
            lambda episodes: _won(episodes, "heading_error"),
        ),
        Figure(
            "goal_distance",
            "mean distance to the goal of all episodes at their end [m]",
            MEAN,
            lambda episodes: episodes["goal_distance"],
        ),
    ),
    columns=(
        Column("SPL", "", (("spl", 1.0, 3),)),
        Column("collisions", "per km", (("collisions", 1.0, 0), ("collisions_per_km", 1.0, 1))),
        Column("falls", "", (("falls", 1.0, 0),)),
        Column("time-outs", "of them stuck", (("timeouts", 1.0, 0), ("stuck", 1.0, 0))),
        Column("clearance", "least, mean [cm]", (("min_clearance", 100.0, 1),)),
        Column("time", "success [s], WTT", (("travel_time", 1.0, 1), ("wtt", 1.0, 0))),
        Column("heading", "error [deg]", (("heading_error", math.degrees(1.0), 1),)),
    ),
    start_states="Scene, start pose and goal pose of episode k under seed s are a pure function of (s, k), the task and"
    " the body; all policies of a robot and task meet the same ones. Scenes come from the split named in the config.",
)
