"""What an evaluation of a Meta-World task keeps of each episode, and the figures it makes of them."""

from __future__ import annotations

from omnibody.sim_tasks.figures import ESTIMATE, SHARE, Column, Figure, Figures

FOLDS = {"max_reward": ("reward", "max"), "final_reward": ("reward", "last")}

FIGURES = Figures(
    figures=(
        Figure(
            "success_rate",
            "share of episodes with success in any step, which ends them; with Wilson's 95 % limits",
            SHARE,
            lambda episodes: episodes["success"],
        ),
        Figure(
            "mean_max_reward",
            "mean over episodes of the largest reward of a step, of 10 (Meta-World's v2 rewards); limits are Student's"
            " 95 %",
            ESTIMATE,
            lambda episodes: episodes["max_reward"],
        ),
        Figure(
            "mean_final_reward",
            "the same for the last step",
            ESTIMATE,
            lambda episodes: episodes["final_reward"],
        ),
    ),
    columns=(
        Column("reward", "most, mean, of 10", (("mean_max_reward", 1.0, 2),)),
        Column("at the end", "mean", (("mean_final_reward", 1.0, 2),)),
        Column("NFE", "per action", (("nfe_per_action", 1.0, 2),)),
    ),
    start_states="Meta-World's starts: objects and goal drawn from the task's own range and the goal shown, as in"
    " its MT benchmarks, but a new start in every episode in place of 50 fixed ones; that of episode k under seed s is"
    " a pure function of (s, k). Success in any step ends the episode, as in Meta-World's own evaluation.",
)
