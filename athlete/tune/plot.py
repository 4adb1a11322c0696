"""Pictures of an experiment: learning curves with bands over seeds, and its search as parallel coordinates."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from athlete.ops.statistics import interquartile_mean
from athlete.record.names import TuneError
from athlete.record.results import is_number
from athlete.tune.analysis import ExperimentAnalysis
from athlete.tune.trial import Trial, pick_tag

POINTS = 200  # of the common grid that all seeds are read at
MOST_NAMED = 8  # configs with a colour and a name; the others are grey


def plot_curves(
    analysis: ExperimentAnalysis,
    path: str | Path,
    metric: str | None = None,
    mode: str | None = None,
    x: str = "timesteps_total",
) -> Path:
    """Draw a metric over timesteps: for each config the interquartile mean of its seeds, and their quartiles as a band.

    Of fewer than four seeds they are the mean and the whole range. The ending of `path` says what is written: .png,
    .svg, .pdf or .html. Of many configs the best eight, by where they end, are coloured. Raises TuneError where no
    trial has two such numbers.
    """
    key, best_is_max = analysis.metric_of(metric), analysis.is_max(mode)
    groups = [(_name(group), curves_on_grid(_curves(analysis, group, x, key))) for group in analysis.trials_by_config()]
    drawn = [(name, *grid) for name, grid in groups if grid is not None]
    if not drawn:
        raise TuneError(f"{analysis.folder}: no trial has two finite values of {key!r}; train longer, or name another")
    drawn.sort(key=lambda entry: float(entry[2][:, -1].mean()), reverse=best_is_max)
    figure, axes = _figure()
    for rank, (name, grid, values) in reversed(list(enumerate(drawn))):
        style: dict[str, Any] = {"color": f"C{rank}", "label": name} if rank < MOST_NAMED else {"color": "0.8"}
        enough = len(values) >= 4
        low, high = np.quantile(values, [0.25, 0.75] if enough else [0.0, 1.0], axis=0)
        middle = [interquartile_mean(column) for column in values.T] if enough else values.mean(axis=0)
        if len(values) > 1 and rank < MOST_NAMED:
            axes.fill_between(grid, low, high, alpha=0.2, linewidth=0, color=style["color"])
        axes.plot(grid, middle, **style)
    axes.set_xlabel(x)
    axes.set_ylabel(key)
    axes.grid(alpha=0.3)
    if any(name for name, *_ in drawn):
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="best", fontsize="small")
    return _write(figure, Path(path), f"{analysis.folder.name}: {key}")


def plot_parallel_coordinates(
    analysis: ExperimentAnalysis, path: str | Path, metric: str | None = None, mode: str | None = None
) -> Path:
    """Draw each config as a line through its searched values to its metric (the mean of its seeds), coloured by that.

    An axis of positive numbers that span more than a factor of 30 is logarithmic. Raises TuneError where nothing was
    searched.
    """
    frame = analysis.results_by_config(metric, mode).dropna(subset=["mean"])
    names = [name for name in frame.columns if name.startswith("config/")]
    if not names or frame.empty:
        raise TuneError(f"{analysis.folder}: nothing was searched there that could be drawn")
    figure, axes = _figure(width=2.0 + 1.6 * len(names))
    columns = [frame[name].tolist() for name in names] + [frame["mean"].tolist()]
    heights = [_axis(axes, position, values) for position, values in enumerate(columns)]
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    for line in range(len(frame)):
        drawn = [height[line] for height in heights]
        axes.plot(range(len(columns)), drawn, color=colours(drawn[-1]), alpha=0.8)
    labels = [name.removeprefix("config/") for name in names] + [analysis.metric_of(metric)]
    axes.set_xticks(range(len(columns)), labels)
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(columns) - 0.4)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    return _write(figure, Path(path), f"{analysis.folder.name}: search")


def curves_on_grid(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
    """A common grid `[POINTS]`, and the curves' values there, `[seeds, POINTS]`; None where they have none in common.

    A curve is `(x, values)`. The grid begins where every curve has a value and ends where the first one ends.
    """
    known = [(x[np.isfinite(values)], values[np.isfinite(values)]) for x, values in curves]
    known = [pair for pair in known if len(pair[0]) > 1]
    if not known:
        return None
    begin, end = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    if not begin < end:
        return None
    grid = np.linspace(begin, end, POINTS)
    return grid, np.stack([np.interp(grid, x, values) for x, values in known])


def _curves(analysis: ExperimentAnalysis, group: list[Trial], x: str, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    frames = [analysis.trial_dataframes[trial.logdir] for trial in group]
    for frame in frames:
        if len(frame) and x not in frame:
            raise TuneError(f"the results have no number {x!r} to draw over: x='training_iteration' is always there")
    return [(frame[x].to_numpy(float), frame[key].to_numpy(float)) for frame in frames if key in frame]


def _name(group: list[Trial]) -> str:
    picks = {path: value for path, value in {**group[0].picks, **group[0].changes}.items() if path != ("seed",)}
    return pick_tag(picks)


def _figure(width: float = 7.0) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    matplotlib.rcParams["svg.hashsalt"] = "athlete"  # the same results give the same bytes
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4), layout="constrained")
    return figure, figure.subplots()


def _axis(axes: Any, position: int, values: list[Any]) -> list[float]:
    """Draw one axis with its ends; where on it each value is, in [0, 1]."""
    numeric = all(is_number(value) for value in values)
    if numeric:
        numbers = [float(value) for value in values]
        is_log = min(numbers) > 0 and max(numbers) > 30 * min(numbers)
        placed = [math.log(value) for value in numbers] if is_log else numbers
        ends = [(0.0, f"{min(numbers):.4g}"), (1.0, f"{max(numbers):.4g}")]
    else:
        words = sorted({str(value) for value in values})
        placed = [float(words.index(str(value))) for value in values]
        ends = [(place / max(len(words) - 1, 1), word) for place, word in enumerate(words)]
    low, span = min(placed), (max(placed) - min(placed)) or 1.0
    axes.axvline(position, color="0.6", linewidth=1)
    for height, text in dict(ends).items():
        axes.annotate(text, (position, height), xytext=(4, 0), textcoords="offset points", fontsize="small")
    return [(value - low) / span for value in placed]


def _write(figure: Any, path: Path, title: str) -> Path:
    """Write a figure as its ending says; HTML holds the picture itself and needs no other file."""
    figure.suptitle(title, fontsize="medium")
    known = (".png", ".svg", ".pdf", ".html")
    if path.suffix not in known:
        raise ValueError(f"{path}: a picture ends in {', '.join(known)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".html":
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata, dpi=150)
        return path
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue().partition("<svg")
    page = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{_escaped(title)}</title>\n'
    path.write_text(f"{page}<body>\n<svg{drawing[2]}</body>\n</html>\n", encoding="utf-8")
    return path


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
