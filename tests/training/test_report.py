"""The page stands alone, says what was measured, and shows the right things in the right places."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnibody.robots.errors import UserError
from omnibody.robots.spec import Footprint
from omnibody.sim_tasks.scene import Box, Scene
from omnibody.training.clips import MAX_BYTES, Clip, encode, film, sketch
from omnibody.training.evaluate import EvalCfg
from omnibody.training.figures import learning_curves, path_map
from omnibody.training.gallery import choose_clips, choose_episodes, draw_maps, make_clips
from omnibody.training.provenance import provenance
from omnibody.training.report import page
from omnibody.training.results import Cell, definitions, means, pair_means, pairs, start_states
from omnibody.training.rollout import EpisodeRecord, rollout

TASKS = ["goal_nav/office"]
VOID = {"meta", "img", "br", "circle", "path", "rect", "polyline"}
SCENE = Scene(
    "room", (Box("rack", 1.0, 2.0, 1.0, 0.4, 2.0, 0.3), Box("wall", -3.0, 0.0, 0.1, 4.0, 2.0)), (-4, -4), (4, 4)
)


def _record(episode: int, outcome: str, seed: int = 1) -> EpisodeRecord:
    path = ((-2.0, -1.0, 0.0), (0.0, 0.5, 0.8), (2.0, 3.0, 1.6))
    measures = {"stuck": 0.0, "path_length": 5.0, "shortest": 4.0, "min_clearance": 0.2}
    measures |= {"goal_distance": 0.1, "heading_error": 0.05}
    return EpisodeRecord(seed, episode, outcome, 7.25, path, measures, policy_ms=1.0)


def _cells() -> list[Cell]:
    outcomes = {
        "base": "collision fall timeout success".split(),
        "<b>new</b>": "success success timeout success".split(),
    }
    return [
        Cell(policy, robot, "goal_nav/office", "T0", tuple(_record(k, outcome) for k, outcome in enumerate(ended)))
        for robot in ("carrier", "omni")
        for policy, ended in outcomes.items()
    ]


def _report(cells: list[Cell]) -> dict:
    rows = pairs(cells)
    figures = {"cells": [cell.to_json() for cell in cells], "means": means(cells), "pairs": rows}
    figures |= {"pair_means": pair_means(rows), "definitions": definitions(TASKS), "start_states": start_states(TASKS)}
    origin = provenance()
    return figures | origin | {"began": "then", "ended": "now", "config": {}, "policies": {}, "runs": [origin]}


class _Balance(HTMLParser):
    """Fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _checked(text: str) -> _Balance:
    parser = _Balance()
    parser.feed(text)
    assert parser.open == []
    return parser


def _page(cells: list[Cell], tmp_path: Path) -> str:
    log = tmp_path / "residual" / "log.jsonl"
    log.parent.mkdir()
    log.write_text("".join(json.dumps({"steps": step, "success": step / 100}) + "\n" for step in range(0, 100, 10)))
    cfg = EvalCfg(out="", robots=["carrier", "omni"], tasks=["goal_nav/office"], checkpoint="expert", tier="T0")
    maps = draw_maps(cells, cfg.bodies, {"goal_nav/office": cfg.task("goal_nav/office")}, 2)
    clip = Clip(encode([Image.new("RGB", (8, 8))] * 2, 0.1), "success", "nobody")
    return page(_report(cells), maps, [("the caption", clip)], [str(log.parent)])


def test_page_nests_stands_alone_and_shows_every_figure(tmp_path: Path) -> None:
    cells = _cells()
    text = _page(cells, tmp_path)
    shown = " ".join(_checked(text).texts)
    for source in re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]+)', text):
        assert source.startswith(("data:", "#")), f"the page asks for {source}"
    assert "<script" not in text and "@import" not in text
    for words in (
        "1/4",
        "3/4",
        "25.0",
        "the caption",
        "nobody",
        "seed 1, episode 2",
        "residual",
        "success rate of training",
    ):
        assert words in shown, words
    for cell in cells:
        assert f"{100 * cell.rate.low:.1f}–{100 * cell.rate.high:.1f}" in shown
    assert text.count('<svg class="map"') == 4  # two episodes for each robot
    assert "<b>new</b>" in shown and "<b>new</b>" not in text  # names are shown, not obeyed


def test_control_the_nesting_check_sees_a_lost_tag(tmp_path: Path) -> None:
    text = _page(_cells(), tmp_path)
    with pytest.raises(AssertionError):
        _checked(text.replace("</table>", "", 1))


def test_page_of_one_policy_has_no_comparison() -> None:
    text = page(_report([cell for cell in _cells() if cell.policy == "base"]), [], [], [])
    _checked(text)
    for title in ("Paired comparisons", "Driven paths", "Learning curves", "Clips"):
        assert f"<h2>{title}" not in text


def test_a_policy_that_lacks_a_robot_leaves_a_gap_and_shared_pairs() -> None:
    cells = _cells()[:-1]
    report = _report(cells)
    assert [row["cells"] for row in report["means"]] == [2, 1]
    assert [row["robot"] for row in report["pairs"]] == ["carrier"]
    assert "<td>–</td>" in page(report, [], [], [])


def test_maps_show_the_most_failed_episodes_first_then_solved_ones() -> None:
    cells = _cells()[:2]
    assert choose_episodes(cells, 4) == [(1, 2), (1, 0), (1, 1), (1, 3)]  # failed by 2, 1, 1 and 0 policies
    assert choose_episodes(cells, 2) == [(1, 2), (1, 3)]
    assert choose_episodes(cells[1:], 3) == [(1, 2), (1, 0), (1, 1)]
    assert choose_episodes(cells, 0) == []


def test_clips_alternate_successes_of_the_last_policy_with_failures() -> None:
    chosen = choose_clips(_cells(), 6)
    assert [(cell.policy, cell.robot, record.outcome, record.episode) for cell, record in chosen] == [
        ("<b>new</b>", "omni", "success", 0),
        ("<b>new</b>", "omni", "timeout", 2),
        ("<b>new</b>", "carrier", "success", 0),
        ("base", "omni", "collision", 0),
        ("<b>new</b>", "omni", "success", 1),  # a second of a robot only after all had one
        ("<b>new</b>", "carrier", "timeout", 2),
    ]
    solved = [dataclasses.replace(cell, records=cell.records[:2]) for cell in _cells() if cell.policy != "base"]
    assert len(choose_clips(solved[:1], 3)) == 2
    assert choose_clips(solved, 0) == []


def test_path_map_puts_paths_and_marks_in_world_coordinates() -> None:
    svg = path_map(
        SCENE, (2.0, 3.0, 0.0), 0.5, [("#112233", _record(0, "success")), ("#445566", _record(0, "collision"))]
    )
    _checked(svg)
    assert 'viewBox="-4 -4 8 8"' in svg and 'transform="scale(1 -1)"' in svg
    assert 'points="-2.00,-1.00 0.00,0.50 2.00,3.00" stroke="#112233"' in svg
    assert svg.count('class="cross"') == 1 and svg.count("translate(2.00 3.00)") == 2
    assert 'transform="translate(1.000 2.000) rotate(17.2)"' in svg


def test_sketch_moves_the_robot_along_its_path() -> None:
    """8 m are 360 pixels: the footprint's dark pixels centre on the pose, x right and y up."""
    clip = sketch(_record(0, "success"), SCENE, (2.0, 3.0, 0.0), Footprint(0.6, 0.4, 0.3))
    picture = Image.open(io.BytesIO(clip.webp))
    assert picture.n_frames == 3 and clip.outcome == "success"
    for index, (x, y, _) in enumerate(_record(0, "success").path):
        picture.seek(index)
        dark = np.argwhere(np.asarray(picture.convert("RGB")).max(-1) < 70)
        assert dark.mean(0) == pytest.approx([(4 - y) * 45, (4 + x) * 45], abs=3)


def test_clips_fit_their_limit_and_keep_their_length() -> None:
    """Noise is what compresses worst; frames are dropped, and the others shown for longer."""
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (240, 560, 3), np.uint8)) for _ in range(22)]
    data = encode(frames, 0.1)
    assert len(data) <= MAX_BYTES
    picture = Image.open(io.BytesIO(data))
    milliseconds = 0
    for index in range(picture.n_frames):
        picture.seek(index)
        picture.load()
        milliseconds += picture.info["duration"]
    assert picture.n_frames < 22 and milliseconds == pytest.approx(2200, rel=0.35)


def test_film_repeats_the_episode_that_was_counted(tmp_path: Path) -> None:
    cfg = EvalCfg(out="", robots=["carrier"], tasks=["goal_nav/single_rack"], checkpoint="expert", tier="T0")
    env = cfg.env("carrier", "goal_nav/single_rack", 2)
    records = rollout(None, env, 3, seed=1)
    env.close()
    alone = cfg.env("carrier", "goal_nav/single_rack", 1)
    clip = film(None, alone, 1, 2)
    alone.close()
    picture = Image.open(io.BytesIO(clip.webp))
    assert clip.outcome == records[2].outcome
    assert picture.n_frames == pytest.approx(records[2].seconds / 0.3, abs=2)
    assert len({frame.tobytes() for frame in _frames(picture)}) > picture.n_frames / 2
    cell = Cell(
        "expert", "carrier", "goal_nav/single_rack", "T0", (dataclasses.replace(records[2], outcome="success"),)
    )
    policies = {"expert": {"carrier": None}}
    made = make_clips([cell], policies, cfg.env, tmp_path, 1)
    (tmp_path / "expert__carrier__goal_nav-single_rack__T0__1__2.webp").write_bytes(b"kept")
    assert make_clips([cell], policies, cfg.env, tmp_path, 1)[0][1] == dataclasses.replace(made[0][1], webp=b"kept")


def _frames(picture: Image.Image) -> list[Image.Image]:
    frames = []
    for index in range(picture.n_frames):
        picture.seek(index)
        frames.append(picture.convert("RGB"))
    return frames


def test_without_opengl_clips_are_drawn_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnibody.envs.render import graphics_backend

    cfg = EvalCfg(out="", robots=["carrier"], tasks=["goal_nav/single_rack"], checkpoint="expert", tier="T0")
    cell = Cell("expert", "carrier", "goal_nav/single_rack", "T0", (_record(0, "success"),))
    graphics_backend.cache_clear()
    monkeypatch.setenv("MUJOCO_GL", "none")
    ((_, clip),) = make_clips([cell], {"expert": {"carrier": None}}, cfg.env, tmp_path, 1)
    graphics_backend.cache_clear()
    assert clip.drawn == "a drawing of the recorded path" and clip.webp.startswith(b"RIFF")


def test_curves_name_what_is_wrong_with_a_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wanted a run folder with log.jsonl or a JSONL file, came .*nowhere"):
        learning_curves([str(tmp_path / "nowhere")])
    (tmp_path / "log.jsonl").write_text('{"success": 1}\n')
    with pytest.raises(UserError, match="wanted step or steps in every line"):
        learning_curves([str(tmp_path)])
    (tmp_path / "log.jsonl").write_text("dear diary\n")
    with pytest.raises(UserError, match="is not JSON lines"):
        learning_curves([str(tmp_path)])
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')  # still being written
    assert "training loss" in learning_curves([str(tmp_path)])
