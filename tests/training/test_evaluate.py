"""Counting episodes: exactly the numbers asked for, whatever the batch size, and across SIGKILL."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from omnibody.envs import make_env
from omnibody.envs.vec_env import Step
from omnibody.policies.checkpoint import save_pretrained
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.diffusion.config import DiffusionCfg
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNav
from omnibody.sim_tasks.task import World
from omnibody.training.eval_folder import open_folder
from omnibody.training.evaluate import EvalCfg, evaluate, main, picture_rows
from omnibody.training.results import Cell, pairs, summarize
from omnibody.training.rollout import EpisodeRecord, play, rollout

OFFICE = "goal_nav/office"
WALL, LIMIT = 6.0, 80  # a goal behind the wall is never reached; episodes are cut after so many steps


class Corridor:
    """What the evaluation asks of a task; the rest of goal navigation is not needed."""

    name, instruction, max_seconds = "goal_nav/office", "", 0.1 * LIMIT
    folds, path, failures, conclude = GoalNav.folds, GoalNav.path, GoalNav.failures, GoalNav.conclude


class CorridorEnv:
    """N corridors along x. Episode k of a seed has its goal at a drawn distance; most are short, some behind a wall.

    Every fifth episode has no friction: the robot stays where it is until the time limit.
    """

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.dt = num_envs, 0.1
        self.embodiment = load_robot("carrier")
        self.task = Corridor()
        self.spec = IOSpec({"gap": Field((1,), "float32", "m", (-9.0,), (9.0,))}, self.embodiment.action, 10.0)
        self.closed = False

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        self.seed, self.next = seed, first_episode
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self.x, self.steps, self.goal = (np.zeros(self.num_envs) for _ in range(3))
        self._begin(np.ones(self.num_envs, bool))
        return self._obs()

    def step(self, action: Tensor) -> Step:
        self.x = self.x + np.where(self.episode.numpy() % 5 == 4, 0.0, action[:, 0].numpy() * self.dt)
        self.steps += 1
        next_obs, world, episode = self._obs(), self._world(), self.episode.clone()
        success = torch.from_numpy(self.x >= self.goal) & ~world.contact
        terminated = success | world.contact
        truncated = torch.from_numpy(self.steps >= LIMIT) & ~terminated
        gap = torch.from_numpy(self.goal - self.x)
        measures = {"clearance": torch.from_numpy(WALL - self.x), "goal_distance": gap, "heading_error": 0 * gap}
        measures["shortest_way"] = torch.from_numpy(self.goal.copy())
        self._begin((terminated | truncated).numpy())
        zero = torch.zeros(self.num_envs)
        return Step(self._obs(), next_obs, zero, terminated, truncated, success, {}, measures, world, episode)

    def expert(self) -> Tensor:
        return torch.ones(self.num_envs, 3)

    def close(self) -> None:
        self.closed = True

    @property
    def world(self) -> World:
        return self._world()

    def _begin(self, rows: np.ndarray) -> None:
        for row in np.flatnonzero(rows):
            self.episode[row], self.next = self.next, self.next + 1
            rng = np.random.default_rng([self.seed, int(self.episode[row])])
            self.x[row], self.steps[row], self.goal[row] = 0.0, 0, rng.choice([0.5, 1.0, 2.0, 7.0])

    def _obs(self) -> Obs:
        return {"gap": torch.from_numpy(self.goal - self.x)[:, None]}

    def _world(self) -> World:
        zero = torch.zeros(self.num_envs)
        position = torch.stack([torch.from_numpy(self.x), zero, zero], 1)
        still = torch.zeros(self.num_envs, 3)
        contact = torch.from_numpy(self.x > WALL)
        return World(zero, position, torch.zeros(self.num_envs, 4), zero, still, still, still, contact)


class Accelerating(Policy):
    """Its speed grows with the steps since ``begin``, so a state that is not restarted with its env shows."""

    def __init__(self, spec: IOSpec) -> None:
        super().__init__()
        self.spec, self.cfg = spec, "accelerating"
        self.gain = torch.nn.Parameter(torch.tensor(0.1))

    def begin(self, context: Context, batch_size: int) -> State:
        return {"steps": torch.zeros(batch_size, 1)}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        speed = 0.5 + self.gain * state["steps"].clamp(max=10)
        return (speed * torch.tensor([1.0, 0.0, 0.0]))[:, None], {"steps": state["steps"] + 1}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Accelerating(CorridorEnv(1).spec)


def test_exactly_the_episodes_asked_for_are_counted(policy: Policy) -> None:
    records = rollout(policy, CorridorEnv(7), 40, seed=3)
    assert [record.episode for record in records] == list(range(40))
    for record in records:
        assert record.timeout == (record.episode % 5 == 4) == record.measures["stuck"]
        assert (record.outcome == "collision") == (record.measures["shortest"] == 7.0 and not record.timeout)
        assert record.path[0] == (0.0, 0.0, 0.0)
        assert record.measures["path_length"] == pytest.approx(record.path[-1][0], abs=1e-3)


def test_records_do_not_depend_on_the_batch_size(policy: Policy) -> None:
    alone = rollout(policy, CorridorEnv(1), 40, seed=3)
    assert rollout(policy, CorridorEnv(7), 40, seed=3) == alone
    assert rollout(policy, CorridorEnv(64), 40, seed=3) == alone
    assert rollout(policy, CorridorEnv(7), 40, seed=4) != alone


def test_control_a_policy_state_that_outlives_its_episode_is_seen(policy: Policy) -> None:
    class Forgetful(Accelerating):
        """A step count on the module, as specs forbid."""

        def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
            self.count = getattr(self, "count", 0) + 1
            return super().act(obs, {"steps": torch.full_like(state["steps"], float(self.count))})

    forgetful = [Forgetful(policy.spec), Forgetful(policy.spec)]
    assert rollout(forgetful[0], CorridorEnv(1), 40, seed=3) != rollout(forgetful[1], CorridorEnv(7), 40, seed=3)


def test_control_counting_the_first_that_finish_is_biased(policy: Policy) -> None:
    """Of 40 first-finished episodes on 40 envs fewer are long than of the episodes 0..39: SR comes out higher."""
    env = CorridorEnv(40)
    obs, state, finished = env.reset(3), policy.begin(Context(env.embodiment), 40), []
    while len(finished) < 40:
        action, state = policy.act(obs, state)
        step = env.step(action[:, 0].detach())
        state["steps"][step.done] = 0
        finished += step.success[step.done].tolist()
        obs = step.obs
    true = evaluate(policy, CorridorEnv(40), 40, seed=3)["sr"]
    assert np.mean(finished[:40]) > true + 0.1


def test_known_episodes_are_left_out_and_the_rest_is_the_same(policy: Policy) -> None:
    whole = rollout(policy, CorridorEnv(5), 30, seed=0)
    known = {record.episode for record in whole if record.episode % 3 or record.episode < 9}
    rest = sorted(play(policy, CorridorEnv(5), 30, 0, known), key=lambda record: record.episode)
    assert rest == [record for record in whole if record.episode not in known]
    assert list(play(policy, CorridorEnv(5), 30, 0, set(range(30)))) == []


def test_figures_of_a_cell() -> None:
    """SPL, collisions per km and both travel times against their definitions, worked by hand."""
    common = {"stuck": 0.0, "heading_error": 0.1, "goal_distance": 0.2, "min_clearance": 0.3, "shortest": 4.0}

    def record(episode: int, outcome: str, seconds: float, path_length: float) -> EpisodeRecord:
        measures = {**common, "path_length": path_length}
        return EpisodeRecord(1, episode, outcome, seconds, ((0.0, 0.0, 0.0),), measures, policy_ms=1.0)

    records = [record(0, "success", 10.0, 8.0), record(1, "success", 20.0, 3.9), record(2, "collision", 2.0, 0.1)]
    figures = summarize(records, OFFICE)
    assert figures["sr"] == pytest.approx(2 / 3)
    assert figures["spl"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert figures["collisions_per_km"] == pytest.approx(1 / 0.012)
    assert figures["travel_time"] == 15.0
    assert figures["wtt"] == pytest.approx(30.0 / (2 / 3))  # COMPASS's: it doubles when the same episodes run twice
    assert summarize(records * 2, OFFICE)["wtt"] == pytest.approx(2 * figures["wtt"])
    assert summarize(records * 2, OFFICE)["travel_time"] == figures["travel_time"]
    none = summarize(records[2:], OFFICE)
    assert none["travel_time"] is None and none["wtt"] is None and none["heading_error"] is None
    assert json.loads(json.dumps(figures)) == figures


def test_records_survive_json(policy: Policy) -> None:
    for record in rollout(policy, CorridorEnv(3), 10, seed=1):
        again = EpisodeRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert again == record and again.policy_ms == record.policy_ms


def test_pairs_refuse_different_start_states(policy: Policy) -> None:
    records = rollout(policy, CorridorEnv(3), 10, seed=1)
    good = Cell("a", "carrier", "goal_nav/office", "T0", tuple(records))
    assert pairs([good, Cell("b", "carrier", "goal_nav/office", "T0", tuple(records))])[0]["difference"] == 0.0
    moved = EpisodeRecord.from_json(records[0].to_json() | {"path": [[1.0, 0.0, 0.0]]})
    with pytest.raises(ValueError, match="seed 1 episode 0 .* is not paired"):
        pairs([good, Cell("b", "carrier", "goal_nav/office", "T0", (moved, *records[1:]))])


def _records(out: Path) -> list[EpisodeRecord]:
    lines = [line for file in sorted(out.glob("records/*.jsonl")) for line in file.read_text().splitlines()]
    records = [EpisodeRecord.from_json(json.loads(line)) for line in lines]
    assert len({(record.seed, record.episode) for record in records}) == len(records)
    return sorted(records, key=lambda record: (record.seed, record.episode))


def _words(out: Path) -> list[str]:
    task = ["checkpoint=expert", "robots=[carrier]", "tasks=[goal_nav/single_rack]", "tier=T0", "episodes=9"]
    return [*task, "seeds=[1,2]", "num_envs=3", "clips=0", "maps=1", f"out={out}"]


def test_sigkill_then_the_same_command_ends_like_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(_words(whole))
    code = "import sys; from omnibody.training.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, "eval", *_words(killed)], stderr=subprocess.DEVNULL)
    while process.poll() is None and sum(len(f.read_text().splitlines()) for f in killed.glob("records/*")) < 3:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "report.json").exists()
    file = next(killed.glob("records/*seed1*"))
    with file.open("a") as half:
        half.write('{"seed": 1, "episode"')  # killed in the middle of a line
    kept = file.read_text().splitlines()[:-1]
    main(_words(killed))
    assert file.read_text().splitlines()[: len(kept)] == kept
    assert _records(killed) == _records(whole)
    assert len(_records(killed)) == 18
    cells = [json.loads((out / "report.json").read_text())["cells"][0] for out in (whole, killed)]
    assert {k: v for k, v in cells[0].items() if k != "policy_ms"} == {
        k: v for k, v in cells[1].items() if k != "policy_ms"
    }


def test_real_records_do_not_depend_on_the_batch_size() -> None:
    cfg = EvalCfg(out="", robots=["carrier"], tasks=["goal_nav/single_rack"], checkpoint="expert", tier="T0")
    few, many = (cfg.env("carrier", "goal_nav/single_rack", n) for n in (1, 5))
    assert rollout(None, few, 6, seed=1) == rollout(None, many, 6, seed=1)
    few.close(), many.close()


def test_checkpoints_are_named_paired_and_may_lack_a_robot(tmp_path: Path) -> None:
    env = make_env("carrier", "goal_nav/single_rack", num_envs=1, tier="T0", threads=1)
    base = CompassBaseCfg.tiny().build(env.spec)
    env.close()
    for folder in ("base", "specialist-carrier"):
        save_pretrained(base, tmp_path / "run" / folder / "policy", {})
    sources = f"checkpoints=[{tmp_path}/run/base/policy,{tmp_path}/run/specialist-@robot/policy]"
    words = ["robots=[carrier,omni]", "tasks=[goal_nav/single_rack]", "episodes=3", "num_envs=2", "tier=T0", "clips=1"]
    main([sources, *words, f"out={tmp_path}/out"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    cells = [(cell["policy"], cell["robot"], cell["n"]) for cell in report["cells"]]
    assert cells == [("base", "carrier", 3), ("specialist", "carrier", 3), ("base", "omni", 3)]
    (pair,) = report["pairs"]  # equal weights, equal outcomes
    assert (pair["n"], pair["difference"], pair["only_a"], pair["p"]) == (3, 0.0, 0, 1.0)
    assert len(report["runs"]) == 1
    assert "<h2>Clips" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UserError, match="for at least one of omni, found none"):
        main([sources, *words[1:], "robots=[omni]", f"out={tmp_path}/other"])
    assert not (tmp_path / "other").exists()


def test_a_folder_of_another_evaluation_is_refused_with_both_values(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a", {"episodes": 20, "policies": {"x": "1"}}, {}):
        pass
    with pytest.raises(UserError, match="episodes=20, now episodes=30"):
        with open_folder(tmp_path / "a", {"episodes": 30, "policies": {"x": "1"}}, {}):
            pass
    with pytest.raises(UserError, match="policies.x=1, now policies.x=2"):
        with open_folder(tmp_path / "a", {"episodes": 20, "policies": {"x": "2"}}, {}):
            pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match=r"holds thesis.tex but no eval.json"):
        with open_folder(tmp_path / "b", {}, {}):
            pass
    with pytest.raises(UserError, match="wanted a folder, came the file"):
        with open_folder(tmp_path / "b" / "thesis.tex", {}, {}):
            pass
    assert (tmp_path / "b" / "thesis.tex").read_text() == "dear"
    with open_folder(tmp_path / "a", {"episodes": 20, "policies": {"x": "1"}}, {}):
        with pytest.raises(UserError, match="in use by another process"):
            with open_folder(tmp_path / "a", {"episodes": 20, "policies": {"x": "1"}}, {}):
                pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["checkpoint=expert", "checkpoints=[expert]"], "came both"),
        ([], "came neither"),
        (["checkpoint=expert", "robots=[go3]"], r"unknown robot 'go3'; did you mean go2"),
        (["checkpoint=expert", "tasks=[goal_nav/ofice]"], "office"),
        (["checkpoint=nowhere"], "no checkpoint folder nowhere"),
        (["checkpoints=[expert,expert]"], "wanted each policy once"),
        (["checkpoint=expert", "curves=[nowhere]"], "curves: wanted a run folder"),
        (["checkpoint=expert", "episodes=0"], "episodes: wanted at least 1, came 0"),
        (["checkpoint=expert", "tier=T7"], "has no tier 'T7'"),
        (["checkpoint=expert", "robots=[carrier,carrier]"], "none twice"),
        (["checkpoint=expert", "episode=3"], "unknown key 'episode'; did you mean episodes"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, words: list[str], message: str) -> None:
    defaults = {"robots": "[carrier]", "tasks": "[goal_nav/office]", "out": str(tmp_path / "out")}
    given = {word.split("=")[0] for word in words}
    with pytest.raises(UserError, match=message):
        main([*words, *(f"{key}={value}" for key, value in defaults.items() if key not in given)])
    assert not (tmp_path / "out" / "report.json").exists()


def test_only_a_policy_that_sees_colour_gets_pictures_and_of_its_size() -> None:
    """Both were trained on data with pictures."""
    with_pictures = make_env("carrier", "goal_nav/single_rack", 1, "T0", threads=1, rgb=32)
    keys = {"seeing": ["image", "velocity"], "blind": ["velocity"]}
    made = {name: replace(DiffusionCfg.tiny(), obs_keys=own).build(with_pictures.spec) for name, own in keys.items()}
    with_pictures.close()
    cfg = EvalCfg(out="", robots=["carrier"], tasks=["goal_nav/single_rack"], checkpoint="expert", tier="T0")
    dark = cfg.env("carrier", "goal_nav/single_rack", 1, 0)
    for name, rows in (("seeing", 32), ("blind", 0)):
        assert picture_rows({"policy": {"carrier": made[name]}, "expert": {"carrier": None}}) == rows
        env = cfg.env("carrier", "goal_nav/single_rack", 1, rows)
        assert evaluate(made[name], env, 1, 1)["n"] == 1
        env.close()
    assert made["blind"].needs.mismatch(dark.spec) == ""
    assert "'image': wanted, but only" in made["seeing"].needs.mismatch(dark.spec)
    dark.close()
