"""A learning curve in text."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = " ...:::##"


def learning_curve(
    steps: Sequence[float], values: Sequence[float], title: str, width: int = 60, height: int = 8
) -> str:
    """`values` over `steps` as a chart of `height` lines, the mean of each column; "" for fewer than two numbers."""
    points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if len(points) < 2 or points[0][0] == points[-1][0]:
        return ""
    columns = _columns(points, width)
    low, high = min(columns), max(columns)
    levels = [round((value - low) / (high - low or 1.0) * (8 * height - 1)) + 1 for value in columns]
    is_unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    blocks, vertical, corner, line = (_BLOCKS, "│", "└", "─") if is_unicode else (_PLAIN, "|", "+", "-")
    lines = [title]
    for row in reversed(range(height)):
        label = f"{high:.6g}" if row == height - 1 else f"{low:.6g}" if row == 0 else ""
        lines.append(f"{label:>9} {vertical}" + "".join(blocks[min(max(level - 8 * row, 0), 8)] for level in levels))
    start, end = f"{points[0][0]:,.0f}", f"{points[-1][0]:,.0f} timesteps"
    return "\n".join([*lines, " " * 10 + corner + line * width, " " * 11 + start + end.rjust(width - len(start))])


def _columns(points: list[tuple[float, float]], width: int) -> list[float]:
    """The mean value of each column; one without a point of its own goes on with the one before."""
    first, last = points[0][0], points[-1][0]
    binned: list[list[float]] = [[] for _ in range(width)]
    for step, value in points:
        binned[min(int((step - first) / (last - first) * width), width - 1)].append(value)
    columns: list[float] = []
    for values in binned:
        columns.append(sum(values) / len(values) if values else columns[-1])
    return columns
