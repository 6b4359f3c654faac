"""``report.html``: everything an evaluation measured, on one page that needs no network."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from importlib import resources
from string import Template
from typing import Any

from omnibody.training import figures
from omnibody.training.clips import SPEED, Clip
from omnibody.training.figures import colour_of, text
from omnibody.training.gallery import Map

COLUMNS = {
    "solved": "k/n",
    "SR": "%, 95 % limits",
    "SPL": "",
    "collisions": "per km",
    "falls": "",
    "time-outs": "of them stuck",
    "clearance": "least, mean [cm]",
    "time": "success [s], WTT",
    "heading": "error [deg]",
    "policy": "a call [ms]",
    "seeds": "successes each",
}


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
        table=_table(cells),
        maps=_section("Driven paths", _maps(maps, report["means"])),
        curves=_section("Learning curves", figures.learning_curves(curves) if curves else ""),
        clips=_section(f"Clips, {SPEED:g} times faster than life", _clips(clips)),
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


def _table(cells: Sequence[dict[str, Any]]) -> str:
    names = "".join(f"<th>{name}<small>{words}</small></th>" for name, words in COLUMNS.items())
    rows = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in _row(cell))}</tr>" for cell in cells)
    head = f"<tr><th>policy</th><th>robot</th><th>task</th>{names}</tr>"
    return f'<table class="plain lined numbers">{head}{rows}</table>'


def _row(cell: dict[str, Any]) -> Iterator[str]:
    yield text(cell["policy"])
    yield f"{text(cell['robot'])} <small>{cell['tier']}</small>"
    yield text(cell["task"])
    yield f"{cell['successes']}/{cell['n']}"
    yield f"{100 * cell['sr']:.1f} <small>{100 * cell['lo']:.1f}–{100 * cell['hi']:.1f}</small>"
    yield _number(cell["spl"], 1, 3)
    yield f"{cell['collisions']} <small>{_number(cell['collisions_per_km'], 1, 1)}</small>"
    yield str(cell["falls"])
    yield f"{cell['timeouts']} <small>{cell['stuck']}</small>"
    yield _number(cell["min_clearance"], 100, 1)
    yield f"{_number(cell['travel_time'], 1, 1)} <small>{_number(cell['wtt'], 1, 0)}</small>"
    yield _number(cell["heading_error"], math.degrees(1.0), 1)
    yield _number(cell["policy_ms"], 1, 1)
    yield " ".join(f"<small>{seed['seed']}:</small>{seed['successes']}" for seed in cell["per_seed"])


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
        f"<figcaption>{text(caption)}; {text(clip.outcome)}. Drawn by: {text(clip.drawn)}.</figcaption></figure>"
    )
