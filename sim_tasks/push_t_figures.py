"""What an evaluation of Push-T keeps of each episode, and the figures it makes of them."""

from __future__ import annotations

from omnibody.sim_tasks.figures import ESTIMATE, SHARE, Column, Figure, Figures

FOLDS = {
    "max_coverage": ("coverage", "max"),  # largest share of the goal that the T covered after any step
    "final_coverage": ("coverage", "last"),
    "final_iou": ("iou", "last"),  # intersection over union of T and goal at the end
}

FIGURES = Figures(
    figures=(
        Figure(
            "mean_max_coverage",
            "mean over episodes of the largest share of the goal covered; limits are Student's 95 %",
            ESTIMATE,
            lambda episodes: episodes["max_coverage"],
        ),
        Figure(
            "mean_max_reward",
            "mean over episodes of the largest reward, coverage / 0.95 and at most 1: the score of Diffusion Policy",
            ESTIMATE,
            lambda episodes: (episodes["max_coverage"] / 0.95).clip(max=1.0),
        ),
        Figure(
            "success_90",
            "share of episodes that covered at least 0.90, with Wilson's 95 % limits",
            SHARE,
            lambda episodes: episodes["max_coverage"] >= 0.90,
        ),
        Figure(
            "success_95",
            "the same for more than 0.95, which ends an episode; the human data of the canonical goal never does",
            SHARE,
            lambda episodes: episodes["success"],
        ),
        Figure(
            "final_iou",
            "mean intersection over union of the T and its goal at the end",
            ESTIMATE,
            lambda episodes: episodes["final_iou"],
        ),
    ),
    columns=(
        Column("coverage", "most, mean [%]", (("mean_max_coverage", 100.0, 1),)),
        Column("reward", "most, mean", (("mean_max_reward", 1.0, 3),)),
        Column("90 %", "covered [%]", (("success_90", 100.0, 1),)),
        Column("IoU", "at the end [%]", (("final_iou", 100.0, 1),)),
        Column("NFE", "per action", (("nfe_per_action", 1.0, 2),)),
        Column("jump", "between chunks [px]", (("chunk_jump", 1.0, 1),)),
    ),
    start_states="Push-T's starts are gym-pusht's: tool in 50..449 px, T in 100..399 px each way before its reset turns"
    " it about its centre of mass, at any angle; those of episode k under seed s are a pure function of (s, k)."
    " Of two goals, even episodes have the first.",
)
