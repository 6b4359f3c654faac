"""The pictures and tables of a report as HTML and SVG text; colours can be told apart by the colour-blind."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from omnibody.robots.errors import UserError
from omnibody.sim_tasks.scene import Scene
from omnibody.training.rollout import EpisodeRecord, Pose

# Okabe and Ito's palette: told apart by people with any common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#000000")
MARKS = {"success": "●", "collision": "✕", "fall": "✕", "timeout": "▢"}
CURVES = {"success": "success rate of training episodes", "loss": "training loss"}


def colour_of(index: int) -> str:
    """A policy's colour; they come round again after eight."""
    return PALETTE[index % len(PALETTE)]


def heat_maps(cells: Sequence[dict[str, Any]]) -> str:
    """One table per task: policies down, robots across, each cell coloured by its success rate."""
    return "".join(_heat_map(task, [c for c in cells if c["task"] == task]) for task in _unique(cells, "task"))


def _heat_map(task: str, cells: Sequence[dict[str, Any]]) -> str:
    robots = _unique(cells, "robot")
    by_place = {(cell["policy"], cell["robot"]): cell for cell in cells}
    tiers = {cell["robot"]: cell["tier"] for cell in cells}
    head = "".join(f"<th>{text(robot)}<small>{tiers[robot]}</small></th>" for robot in robots)
    rows = "".join(
        f"<tr><th>{text(policy)}</th>{''.join(_heat_cell(by_place.get((policy, robot))) for robot in robots)}</tr>"
        for policy in _unique(cells, "policy")
    )
    return f'<table class="heat"><caption>{text(task)}</caption><tr><th></th>{head}</tr>{rows}</table>'


def _heat_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "<td>–</td>"
    background, ink = _shade(cell["sr"])
    title = f"{cell['successes']} of {cell['n']}"
    return (
        f'<td style="background:{background};color:{ink}" title="{title}"><b>{_percent(cell["sr"])}</b>'
        f"<small>{_percent(cell['lo'])}–{_percent(cell['hi'])}</small></td>"
    )


def _shade(rate: float) -> tuple[str, str]:
    """Background and ink of a rate: pale to dark blue."""
    low, high = np.array([240, 244, 249]), np.array([8, 64, 120])
    red, green, blue = (low + (high - low) * rate).round().astype(int)
    return f"rgb({red},{green},{blue})", "#fff" if rate > 0.5 else "#1c2733"


def mean_bars(means: Sequence[dict[str, Any]]) -> str:
    """Each policy's mean success rate as a bar with its interval."""
    rows = []
    for index, row in enumerate(means):
        bar = (
            f'<rect y="5" height="12" width="{300 * row["sr"]:.1f}" fill="{colour_of(index)}"/>'
            f'<path d="M{300 * row["lo"]:.1f} 11H{300 * row["hi"]:.1f}" class="whisker"/>'
        )
        rows.append(
            f"<tr><th>{text(row['policy'])}</th>"
            f'<td><svg class="bar" viewBox="-1 0 302 22" width="302" height="22">{bar}</svg></td>'
            f"<td>{_percent(row['sr'])} % <small>{_percent(row['lo'])}–{_percent(row['hi'])}"
            f", {row['cells']} cell{'s' if row['cells'] > 1 else ''}</small></td></tr>"
        )
    return f'<table class="plain">{"".join(rows)}</table>'


def forest(pairs: Sequence[dict[str, Any]], with_place: bool) -> str:
    """Paired differences as a table with a line for each interval; ``with_place`` names robot and task."""
    places = "<th>robot</th><th>task</th>" if with_place else "<th>cells</th>"
    counts = "<th>n</th><th>only a</th><th>only b</th><th>p</th>" if with_place else ""
    head = f"<tr><th>a</th><th>b</th>{places}<th>a − b, points</th><th class=axis>−100 … 0 … +100</th>{counts}</tr>"
    return f'<table class="plain lined">{head}{"".join(_forest_row(pair, with_place) for pair in pairs)}</table>'


def _forest_row(pair: dict[str, Any], with_place: bool) -> str:
    middle, low, high = (110 + 100 * pair[key] for key in ("difference", "lo", "hi"))
    clear = "clear" if pair["lo"] > 0 or pair["hi"] < 0 else "open"
    svg = (
        '<svg viewBox="0 0 220 18" width="220" height="18"><path d="M110 1V17" class="zero"/>'
        f'<path d="M{low:.1f} 9H{high:.1f}" class="whisker {clear}"/>'
        f'<circle cx="{middle:.1f}" cy="9" r="3.5" class="{clear}"/></svg>'
    )
    difference = f"{_signed(pair['difference'])} <small>{_signed(pair['lo'])} … {_signed(pair['hi'])}</small>"
    cells = [text(pair["a"]), text(pair["b"])]
    cells += [text(pair["robot"]), text(pair["task"])] if with_place else [str(pair["cells"])]
    cells += [difference, svg]
    if with_place:
        cells += [str(pair["n"]), str(pair["only_a"]), str(pair["only_b"]), f"{pair['p']:.2g}"]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def path_map(scene: Scene, goal: Pose, reach: float, drives: Sequence[tuple[str, EpisodeRecord]]) -> str:
    """SVG of a scene from above with driven paths in their colours; x to the right, y up.

    Ends are marked: dot success, cross collision or fall, square time-out. The goal is a ring of radius ``reach`` [m].
    """
    (left, bottom), (right, top) = scene.low, scene.high
    boxes = "".join(
        f'<rect class="{box.kind}" x="{-box.length / 2:.3f}" y="{-box.width / 2:.3f}" width="{box.length:.3f}"'
        f' height="{box.width:.3f}" transform="{_at((box.x, box.y, box.yaw))}"/>'
        for box in scene.boxes
    )
    arrow = '<path d="M0 0H.75M.5 .2L.75 0L.5 -.2"/>'
    target = f'<g transform="{_at(goal)}" class="goal"><circle r="{reach}"/>{arrow}</g>'
    start = f'<path class="start" transform="{_at(drives[0][1].path[0])}" d="M.38 0L-.22 .22V-.22Z"/>'
    lines = "".join(_drive(colour, record) for colour, record in drives)
    return (
        f'<svg class="map" viewBox="{left} {-top} {right - left} {top - bottom}"><g transform="scale(1 -1)">'
        f'<rect class="floor" x="{left}" y="{bottom}" width="{right - left}" height="{top - bottom}"/>'
        f"{boxes}{target}{start}{lines}</g></svg>"
    )


def _at(pose: Pose) -> str:
    x, y, yaw = pose
    return f"translate({x:.3f} {y:.3f}) rotate({math.degrees(yaw):.1f})"


def _drive(colour: str, record: EpisodeRecord) -> str:
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y, _ in record.path)
    x, y = record.path[-1][:2]
    shape = {
        "success": '<circle r=".17"/>',
        "timeout": '<rect class="hollow" x="-.2" y="-.2" width=".4" height=".4"/>',
    }.get(record.outcome, '<path class="cross" d="M-.24 -.24L.24 .24M-.24 .24L.24 -.24"/>')
    line = f'<polyline class="drive" points="{points}" stroke="{colour}"/>'
    return f'{line}<g transform="translate({x:.2f} {y:.2f})" fill="{colour}" stroke="{colour}" class="end">{shape}</g>'


def learning_curves(logs: Sequence[str]) -> str:
    """SVG of training logs (JSON lines with ``step`` or ``steps``), a panel for each key of CURVES that they hold."""
    runs = [(_run_name(log), read_log(log)) for log in logs]
    keys = [key for key in CURVES if any(key in row for _, rows in runs for row in rows)]
    if not keys:
        return ""
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(5.6 * len(keys), 3.4), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
            for index, (name, rows) in enumerate(runs):
                _curve(axes, [row for row in rows if key in row], key, name, colour_of(index))
            axes.set(title=CURVES[key], xlabel="steps")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg")
    return out.getvalue()[out.getvalue().index("<svg") :]


def _curve(axes: Any, rows: Sequence[dict[str, Any]], key: str, name: str, colour: str) -> None:
    """Each logged value pale, and their running mean over a twentieth of the run."""
    if not rows:
        return
    steps = np.array([row.get("step", row.get("steps")) for row in rows], float)
    values = np.array([row[key] for row in rows], float)
    window = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) + 1 - window, 0)
    smooth = (total[1:] - total[first]) / (np.arange(len(values)) + 1 - first)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
    axes.plot(steps, smooth, color=colour, label=name)


def _run_name(log: str) -> str:
    path = Path(log)
    return path.name if path.is_dir() else path.parent.name if path.name == "log.jsonl" else path.stem


def read_log(log: str) -> list[dict[str, Any]]:
    """The rows of a training log, given as the JSONL file or its run folder; raises ``UserError`` if it is not one."""
    path = Path(log) / "log.jsonl" if Path(log).is_dir() else Path(log)
    if not path.is_file():
        raise UserError(f"curves: wanted a run folder with log.jsonl or a JSONL file, came {log}")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    except ValueError as error:
        raise UserError(f"curves: {path} is not JSON lines: {error}") from error
    bad = [row for row in rows if not isinstance(row, dict) or not {"step", "steps"} & row.keys()]
    if bad:
        raise UserError(f"curves: {path}: wanted step or steps in every line, came {bad[0]}")
    return rows


def _unique(rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _percent(rate: float) -> str:
    return f"{100 * rate:.0f}"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.0f}".replace("-", "−")


def text(value: object) -> str:
    """``value`` as text that HTML shows as it is."""
    return html.escape(str(value))
