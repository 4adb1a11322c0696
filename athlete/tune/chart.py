"""Charts as SVG text: they need no library, no script and no other file, and take the colours of their page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from athlete.ops.statistics import interquartile_mean

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 44
COLOURS = 8  # of STYLE: `--c0` to `--c7`
# For what stands in an element of class `chart`, by light and by dark.
STYLE = """
.chart { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --paper: #fff; --rule: #dcdfe3; --shade: #f5f6f7;
  --grey: #b6bbc0; --c0: #0072b2; --c1: #d55e00; --c2: #00875f; --c3: #b8508f; --c4: #b07c00; --c5: #2a9fd6;
  --c6: #8c564b; --c7: #6a4fb3; }
@media (prefers-color-scheme: dark) { .chart { --ink: #e6e8ea; --soft: #a2a9b0; --paper: #16181b; --rule: #34383d;
  --shade: #1f2226; --grey: #565c63; --c0: #4ea9e6; --c1: #ff9248; --c2: #2fc796; --c3: #e88cc2; --c4: #e6b03c;
  --c5: #7ccdf5; --c6: #c89a8e; --c7: #ab96ee; } }
.chart svg { display: block; width: 100%; max-width: 760px; height: auto; }
.chart svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.chart svg .grid { stroke: var(--rule); }
.chart svg .line { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.chart .legend { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px;
  font-size: .875rem; }
.chart .legend i { display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle; }
"""


class Line(NamedTuple):
    """A curve `[P]` over `x` `[P]`, its band, and the seeds that it stands for."""

    name: str
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def line_of(name: str, x: np.ndarray, values: np.ndarray) -> Line:
    """The interquartile mean of `values` `[seeds, P]` and their quartiles; of fewer than four, mean and whole range."""
    enough = len(values) >= 4
    low, high = np.quantile(values, [0.25, 0.75] if enough else [0.0, 1.0], axis=0)
    middle = np.array([interquartile_mean(column) for column in values.T]) if enough else values.mean(axis=0)
    return Line(name, x, middle, low, high, len(values))


def chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """The lines with their bands, as `<svg>`. Of more than eight, the later ones are grey."""
    left, right = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    x_ticks = [value for value in ticks(left, right) if left <= value <= right]
    y_ticks = ticks(min(line.low.min() for line in lines), max(line.high.max() for line in lines))
    scale = _Scale(left, right, y_ticks[0], y_ticks[-1])
    parts = [*_grid(scale, x_ticks, y_ticks)]
    for number, line in reversed(list(enumerate(lines))):
        colour = f"var(--c{number})" if number < COLOURS else "var(--grey)"
        label = f"<title>{html.escape(line.name or y_label)}</title>"
        if line.seeds > 1 and number < COLOURS:
            edge = scale.points(line.x, line.high) + scale.points(line.x[::-1], line.low[::-1])
            parts.append(f'<polygon points="{" ".join(edge)}" fill="{colour}" opacity="0.2">{label}</polygon>')
        points = " ".join(scale.points(line.x, line.middle))
        parts.append(f'<polyline points="{points}" stroke="{colour}" class="line">{label}</polyline>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>')
    name = html.escape(f"{y_label} over {x_label}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def legend(lines: Sequence[Line]) -> str:
    """The names of the lines with their colours; empty where there is one without a name."""
    entries = []
    for number, line in enumerate(lines[:COLOURS]):
        if line.name:
            entries.append(f'<li><i style="background:var(--c{number})"></i>{html.escape(line.name)}</li>')
    if len(lines) > COLOURS:
        entries.append(f'<li><i style="background:var(--grey)"></i>{len(lines) - COLOURS} more</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>' if entries else ""


class _Scale(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float

    def across(self, x: float) -> float:
        return _LEFT + (x - self.left) / (self.right - self.left) * (WIDTH - _LEFT - _RIGHT)

    def up(self, y: float) -> float:
        return HEIGHT - _BOTTOM - (y - self.bottom) / (self.top - self.bottom) * (HEIGHT - _TOP - _BOTTOM)

    def points(self, x: np.ndarray, y: np.ndarray) -> list[str]:
        return [f"{self.across(a):.1f},{self.up(b):.1f}" for a, b in zip(x, y, strict=True)]


def _grid(scale: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for value in y_ticks:
        y = scale.up(value)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in x_ticks:
        x = scale.across(value)
        x = min(x, WIDTH - _RIGHT - 8)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{short(value)}</text>')
    return parts


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers some `about` steps apart that enclose `low` and `high`."""
    span = (high - low) or max(abs(high), 1.0)
    rough = span / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """`12k`, `1.5M`, `0.25`: a number on an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:.6g}"
