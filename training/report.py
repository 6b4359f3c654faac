"""``report.html``: everything an evaluation measured, on one page that needs no network."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from string import Template
from typing import Any

from omnibody.sim_tasks.figures import Column
from omnibody.sim_tasks.table import figures_of
from omnibody.training import figures
from omnibody.training.clips import Clip
from omnibody.training.figures import colour_of, text
from omnibody.training.gallery import Map


def page(report: dict[str, Any], maps: Sequence[Map], clips: Sequence[tuple[str, Clip]], curves: Sequence[str]) -> str:
    """The page, from what report.json holds, maps, clips with their captions, and training logs."""
    cells = report["cells"]
    origin = {key: report[key] for key in ("hardware", "versions", "policies", "config")}
    words = [*report["definitions"].items(), ("start states", report["start_states"])]
    template = Template((resources.files("omnibody.training") / "report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=", ".join(_count(cells, key) for key in ("policy", "robot", "task")),
        facts=_facts(report),
        heat=figures.heat_maps(cells),
        means=figures.mean_bars(report["means"]),
        pairs=_pairs(report),
        table=_tables(cells),
        maps=_section("Driven paths", _maps(maps, report["means"])),
        curves=_section("Learning curves", figures.learning_curves(curves) if curves else ""),
        clips=_section("Clips", _clips(clips)),
        definitions="".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in words),
        origin=text(json.dumps(origin, indent=1)),
    )


def _count(cells: Sequence[dict[str, Any]], key: str) -> str:
    number = len({cell[key] for cell in cells})
    plural = {"policy": "policies"}.get(key, f"{key}s")
    return f"{number} {key if number == 1 else plural}"


def _facts(report: dict[str, Any]) -> str:
    hardware, cells = report["hardware"], report["cells"]
    machine = [hardware["processor"], f"{hardware['cores']} cores", f"{hardware['memory_gib']} GiB", hardware["gpu"]]
    seeds = ", ".join(str(seed) for seed in cells[0]["seeds"])
    revisions = dict.fromkeys(str(run["git"] or "unknown") for run in report["runs"])
    facts = {
        "when": f"{report['began']} to {report['ended']}",
        "where": ", ".join(part for part in machine if part),
        "what": f"{sum(cell['n'] for cell in cells)} episodes, {cells[0]['n']} a cell, seeds {seeds}",
        "code": f"omnibody {report['versions']['omnibody']}, revision {', then '.join(revisions)}",
        "command": report["command"],
    }
    return "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in facts.items())


def _pairs(report: dict[str, Any]) -> str:
    if not report["pairs"]:
        return ""
    overall, single = figures.forest(report["pair_means"], False), figures.forest(report["pairs"], True)
    hint = "<p>Both met the same start states. Intervals that leave out zero are blue.</p>"
    details = f"<details><summary>by robot and task</summary>{single}</details>"
    return _section("Paired comparisons", hint + overall + details)


def _tables(cells: Sequence[dict[str, Any]]) -> str:
    """A table for each kind of task, as each has columns of its own."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        kinds.setdefault(cell["task"].partition("/")[0], []).append(cell)
    return "".join(_table(group, figures_of(group[0]["task"]).columns) for group in kinds.values())


def _table(cells: Sequence[dict[str, Any]], own: Sequence[Column]) -> str:
    titles = [("solved", "k/n"), ("SR", "%, 95 % limits"), *((column.title, column.words) for column in own)]
    titles += [("policy", "a call [ms]"), ("seeds", "successes each")]
    names = "".join(f"<th>{name}<small>{words}</small></th>" for name, words in titles)
    rows = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in _row(cell, own))}</tr>" for cell in cells)
    head = f"<tr><th>policy</th><th>robot</th><th>task</th>{names}</tr>"
    return f'<table class="plain lined numbers">{head}{rows}</table>'


def _row(cell: dict[str, Any], own: Sequence[Column]) -> Iterator[str]:
    yield text(cell["policy"])
    yield f"{text(cell['robot'])} <small>{cell['tier']}</small>"
    yield text(cell["task"])
    yield f"{cell['successes']}/{cell['n']}"
    yield f"{100 * cell['sr']:.1f} <small>{100 * cell['lo']:.1f}–{100 * cell['hi']:.1f}</small>"
    for column in own:
        yield " ".join(_shown(cell, column))
    yield _number(cell["policy_ms"], 1, 1)
    yield " ".join(f"<small>{seed['seed']}:</small>{seed['successes']}" for seed in cell["per_seed"])


def _shown(cell: dict[str, Any], column: Column) -> Iterator[str]:
    """The first figure of a column with its limits, if it has any, and the others, small."""
    for place, (name, factor, digits) in enumerate(column.figures):
        value = _number(cell.get(name), factor, digits)  # experts have no figures of a network
        yield f"<small>{value}</small>" if place else value
        if f"{name}_lo" in cell:
            low, high = (_number(cell[f"{name}_{end}"], factor, digits) for end in ("lo", "hi"))
            yield f"<small>{low}–{high}</small>"


def _number(value: float | None, factor: float, digits: int) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _maps(maps: Sequence[Map], means: Sequence[dict[str, Any]]) -> str:
    if not maps:
        return ""
    legend = "".join(
        f'<span><i style="background:{colour_of(index)}"></i>{text(row["policy"])}</span>'
        for index, row in enumerate(means)
    )
    marks = "<span>● success</span><span>✕ collision or fall</span><span>▢ time-out</span><span>◯→ goal</span>"
    groups = []
    for number, (place, group) in enumerate(itertools.groupby(maps, key=lambda m: m.place)):
        shown = "".join(f"<figure>{m.picture}<figcaption>{m.caption}</figcaption></figure>" for m in group)
        is_open = " open" if number < 4 else ""
        groups.append(f'<details{is_open}><summary>{text(place)}</summary><div class="maps">{shown}</div></details>')
    hint = "<p>Of each robot and task: the episodes that most policies failed, then the first that all solved.</p>"
    return f'<p class="legend">{legend}{marks}</p>{hint}{"".join(groups)}'


def _clips(clips: Sequence[tuple[str, Clip]]) -> str:
    return f'<div class="clips">{"".join(_clip(*clip) for clip in clips)}</div>' if clips else ""


def _clip(caption: str, clip: Clip) -> str:
    data = base64.b64encode(clip.webp).decode()
    return (
        f'<figure class="clip"><img alt="" src="data:image/webp;base64,{data}">'
        f"<figcaption>{text(caption)}; {text(clip.outcome)}; shown at {clip.speed:g} times its speed."
        f" Drawn by: {text(clip.drawn)}.</figcaption></figure>"
    )
