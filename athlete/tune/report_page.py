"""A report: one HTML page of a training or an experiment, which needs nothing beside itself, by light and by dark."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.ops.statistics import bootstrap_interval, interquartile_mean
from athlete.record.about import read_about
from athlete.record.files import write_beside
from athlete.record.names import TuneError, lookup, nearest
from athlete.record.results import PARAMS, RESULTS, flatten, is_number, read_params, read_results, to_json
from athlete.tune.analysis import ExperimentAnalysis
from athlete.tune.chart import STYLE, Line, chart, legend, line_of
from athlete.tune.experiment import STATE
from athlete.tune.plot import curves_on_grid
from athlete.tune.space import path_name

MOST_LINES, MOST_ROWS, LARGEST_FILM = 40, 100, 32 * 2**20  # bytes
_EVALUATION = "evaluation/episode_reward_mean"
_UNTOLD = ("logdir", "monitor", "log_level", "seed")  # settings that make no training another


@dataclass(frozen=True)
class Run:
    """A training's folder, its configuration, its results, flat, and what was chosen for it."""

    folder: Path
    params: dict[str, Any]
    results: list[dict[str, Any]]
    picks: dict[str, Any]

    def curve(self, x: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """`(x, values)` of the results that have both."""
        pairs = [(row[x], lookup(row, key)) for row in self.results if x in row]
        known = [(float(at), float(value)) for at, value in pairs if is_number(value)]
        return np.array([at for at, _ in known]), np.array([value for _, value in known])

    def last(self, key: str) -> float:
        """The last finite value; NaN where there is none."""
        values = self.curve("training_iteration", key)[1]
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if len(finite) else math.nan


def write_report(
    folder: str | Path, out: str | Path | None = None, metric: str | None = None, mode: str | None = None
) -> Path:
    """Write a report of an experiment's folder, a training's, or one with several of these, by default into it.

    `metric` is what curves and the table are of, else what the experiment was asked for, else `episode_reward_mean`.
    Raises TuneError where the folder holds no results, or none of that name.
    """
    folder = Path(folder).expanduser().absolute()
    groups, asked = _groups_in(folder)
    key = metric or asked[0] or "episode_reward_mean"
    best_is_max = (mode or asked[1] or "max") != "min"
    runs = [run for group in groups for run in group]
    if not any(math.isfinite(run.last(key)) for run in runs):
        numbers = [name for name, value in runs[0].results[-1].items() if is_number(value)]
        near = nearest(key, numbers)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise TuneError(f"{folder}: no training has a finite {key!r}{hint}")
    groups.sort(key=lambda group: _rank(group, key, best_is_max))
    path = folder / "report.html" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, _page(folder, groups, key))
    return path


def _rank(group: Sequence[Run], key: str, best_is_max: bool) -> float:
    values = [value for run in group if math.isfinite(value := run.last(key))]
    if not values:
        return math.inf
    return -interquartile_mean(values) if best_is_max else interquartile_mean(values)


class Picture:
    """Learning curves that a notebook shows."""

    def __init__(self, drawing: str):
        self._drawing = drawing

    def _repr_html_(self) -> str:
        return f'<div class="chart"><style>{STYLE}</style>{self._drawing}</div>'


def picture(folder: Path, key: str, best_is_max: bool, x: str = "timesteps_total") -> Picture:
    """A metric over `x` with bands over seeds. Raises TuneError where no training has two such numbers."""
    groups, _ = _groups_in(folder)
    lines = _lines(sorted(groups, key=lambda group: _rank(group, key, best_is_max)), x, key)
    if not lines:
        raise TuneError(f"{folder}: no training has two finite values of {key!r} over {x!r}")
    return Picture(chart(lines, x, key) + legend(lines))


# What there is in a folder


def _groups_in(folder: Path) -> tuple[list[list[Run]], tuple[str | None, str | None]]:
    """Trainings that differ in their seed only together, and the metric and mode that were asked for."""
    if (folder / STATE).is_file():
        analysis = ExperimentAnalysis(folder)
        found = [
            [_run(trial.folder, {**trial.picks, **trial.changes}) for trial in group]
            for group in analysis.trials_by_config()
        ]
        groups = [kept for group in found if (kept := [run for run in group if run.results])]
        asked = analysis.default_metric, analysis.default_mode
    else:
        places = (
            [folder] if (folder / RESULTS).is_file() else sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
        )
        groups, asked = _alike([run for place in places if (run := _run(place, {})).results]), (None, None)
    if not groups:
        raise TuneError(f"there are no results in {folder} (no {RESULTS} with a line in it)")
    return groups, asked


def _run(folder: Path, picks: Mapping[Any, Any]) -> Run:
    params = read_params(folder) if (folder / PARAMS).is_file() else {}
    named = {path_name(path): value for path, value in picks.items()}
    return Run(folder, params, [flatten(result) for result in read_results(folder)], named)


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Trainings by their settings; what is not the same in all of them is what was chosen."""
    settings = [{name: to_json(value) for name, value in run.params.items() if name not in _UNTOLD} for run in runs]
    differing = [name for name in (settings[0] if settings else ()) if len({each.get(name) for each in settings}) > 1]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        picks = {name: run.params.get(name) for name in differing}
        groups.setdefault(to_json(picks), []).append(Run(run.folder, run.params, run.results, picks))
    return list(groups.values())


# The page


def _page(folder: Path, groups: Sequence[Sequence[Run]], key: str) -> str:
    first = groups[0][0]
    about = read_about(first.folder)
    sections = [
        ("Learning", _curves(groups, key)),
        ("Evaluation", "" if key == _EVALUATION else _curves(groups, _EVALUATION)),
        ("Results", _results(groups, key)),
        ("Film", _film(folder)),
        ("Settings that differ from the defaults", _settings(first, str(about.get("algorithm", "")))),
        ("Machine and versions", _table(["", ""], [[name, _text(value)] for name, value in about.items()])),
        ("To repeat it", _again(first, str(about.get("algorithm", "")))),
    ]
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections if content)
    name = html.escape(folder.name)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}{_STYLE}</style>\n</head>\n<body class='chart'>\n<main><h1>{name}</h1>"
        f"<p>{_summary(groups, about)}</p>{body}</main>\n</body>\n</html>\n"
    )


def _summary(groups: Sequence[Sequence[Run]], about: Mapping[str, Any]) -> str:
    runs = [run for group in groups for run in group]
    last = [run.results[-1] for run in runs]
    seconds, steps = (sum(float(row.get(name) or 0) for row in last) for name in ("time_total_s", "timesteps_total"))
    env = runs[0].params.get("env")
    parts = [
        f"{about['algorithm']} in {env}" if "algorithm" in about else str(env),
        f"{len(runs)} training{'s' * (len(runs) > 1)} of {len(groups)} configuration{'s' * (len(groups) > 1)}",
        f"{steps:,.0f} timesteps in {seconds:,.1f} s of training",
        max(str(row.get("date", "")) for row in last).replace("_", " ").rpartition("-")[0],
    ]
    return html.escape(" · ".join(part for part in parts if part))


def _name(group: Sequence[Run]) -> str:
    picks = {name: value for name, value in group[0].picks.items() if name != "seed"}
    return ", ".join(f"{name.rpartition('/')[2]}={_text(value)}" for name, value in picks.items())


def _lines(groups: Sequence[Sequence[Run]], x: str, key: str) -> list[Line]:
    lines = []
    for group in groups:
        curves = [curve for run in group if len((curve := run.curve(x, key))[0])]
        if curves and (grid := curves_on_grid(curves)) is not None:
            lines.append(line_of(_name(group), *grid))
    return lines[:MOST_LINES]


def _curves(groups: Sequence[Sequence[Run]], key: str) -> str:
    lines = _lines(groups, "timesteps_total", key)
    if not lines:
        return ""
    seeds = max(line.seeds for line in lines)
    band = "quartiles and the line the interquartile mean" if seeds >= 4 else "whole range and the line the mean"
    told = f" The band is the {band} of {seeds} seeds." if seeds > 1 else ""
    caption = f"<code>{html.escape(key)}</code> over timesteps.{told}"
    return f"<figure>{chart(lines, 'timesteps', key)}{legend(lines)}<figcaption>{caption}</figcaption></figure>"


def _results(groups: Sequence[Sequence[Run]], key: str) -> str:
    rows = []
    for group in groups[:MOST_ROWS]:
        values = [value for run in group if math.isfinite(value := run.last(key))]
        low, high = bootstrap_interval(values) if len(values) > 1 else (math.nan, math.nan)
        evaluated = [value for run in group if math.isfinite(value := run.last(_EVALUATION))]
        rows.append(
            [
                _name(group) or "all",
                str(len(group)),
                _number(interquartile_mean(values)) if values else "",
                f"{_number(low)} to {_number(high)}" if math.isfinite(low) else "",
                _number(interquartile_mean(evaluated)) if evaluated else "",
                f"{np.mean([float(run.results[-1].get('time_total_s') or 0) for run in group]):,.1f}",
            ]
        )
    head = ["configuration", "seeds", f"{key}, at the end", "95% interval", "evaluated", "seconds"]
    more = f"<p>and {len(groups) - MOST_ROWS} more</p>" if len(groups) > MOST_ROWS else ""
    return _table(head, rows) + more


def _film(folder: Path) -> str:
    films = sorted(folder.rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
    if not films or films[-1].stat().st_size > LARGEST_FILM:
        return ""
    data = base64.b64encode(films[-1].read_bytes()).decode()
    name = html.escape(str(films[-1].relative_to(folder)))
    film = f'<video controls loop muted playsinline src="data:video/mp4;base64,{data}"></video>'
    return f"<figure>{film}<figcaption>{name}</figcaption></figure>"


def _settings(run: Run, algorithm: str) -> str:
    changed = _changed(run, algorithm)
    default = get_config_class(algorithm)().to_dict() if algorithm in ALGORITHMS else {}
    rows = [[name, _text(value), _text(default.get(name, ""))] for name, value in changed.items()]
    return _table(["setting", "value", "default"], rows) if rows else ""


def _changed(run: Run, algorithm: str) -> dict[str, Any]:
    """The settings that are not as by default; all of them where the algorithm is not one of ours."""
    default = get_config_class(algorithm)().to_dict() if algorithm in ALGORITHMS else {}
    told = {name: value for name, value in run.params.items() if name not in _UNTOLD}
    return {name: value for name, value in told.items() if to_json(value) != to_json(default.get(name))}


def _again(run: Run, algorithm: str) -> str:
    if algorithm not in ALGORITHMS:
        return ""
    last = run.results[-1]
    settings = {**_changed(run, algorithm), "seed": last.get("seed", run.params.get("seed"))}
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in settings.items())
    code = (
        f"from athlete.algorithms import get_config_class\n\nconfig = get_config_class({algorithm!r}).from_dict({{\n"
        f"{lines}}})\nalgo = config.build()\nalgo.learn(total_timesteps={int(last.get('timesteps_total', 0))})\n"
    )
    return f"<p>The first of these trainings:</p><pre><code>{html.escape(code)}</code></pre>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    heading = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table>{heading}<tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    return value if isinstance(value, str) else to_json(value)


def _number(value: float) -> str:
    return f"{value:.6g}"


_STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 760px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h1 + p { color: var(--soft); margin: 4px 0 0; }
h2 { font-size: 1.1rem; margin: 32px 0 8px; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: 4px; }
video { display: block; max-width: 100%; background: #000; }
.wide, pre { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td:not(:first-child) { white-space: nowrap; }
@media (max-width: 600px) { td:not(:first-child) { white-space: normal; overflow-wrap: anywhere; } }
pre { background: var(--shade); padding: 12px; margin: 8px 0 0; font-size: .8125rem; }
"""
