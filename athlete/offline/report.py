"""What a data set holds, as text for people."""

from __future__ import annotations

from typing import Any

import numpy as np

from athlete.offline.dataset import DataError, DataSet, named_leaves, spaces_of

WIDTH = 40  # signs of the longest bar
BINS = 10


def report(data: DataSet) -> str:
    """Sizes, spaces, how episodes end, statistics of returns, lengths and columns, and a histogram of returns."""
    ends = data.ends
    cut = int(data.truncated[ends].sum())
    rows: list[tuple[str, Any]] = [
        ("steps", f"{len(data):,} from {len(data.parts):,} files"),
        ("episodes", f"{len(ends):,}: {len(ends) - cut:,} terminated, {cut:,} cut"),
    ]
    try:
        spaces = spaces_of(data)
        rows += [("observations", spaces.obs), ("actions", spaces.action)]
    except DataError as error:
        rows += [("spaces", error)]
    known = "known" if data.log_prob is not None else "not known: no estimators that weigh by them"
    rows += [
        ("probabilities of actions", known),
        ("returns", _statistics(data.returns)),
        ("lengths", _statistics(data.lengths)),
        ("rewards", _statistics(data.reward)),
    ]
    for name, tree in (("obs", data.obs), ("actions", data.action)):
        rows += [(path, _statistics(leaf)) for path, leaf in named_leaves(tree, name)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    return "\n".join([*lines, "", "Returns of episodes", *histogram(data.returns)])


def histogram(values: np.ndarray) -> list[str]:
    """Lines of a histogram: the lower bound of each bin, a bar, and how many are in it."""
    counts, edges = np.histogram(values, bins=BINS)
    bounds = [f"{edge:.6g}" for edge in edges[:-1]]
    width = max(map(len, bounds))
    bars = ["#" * -(-WIDTH * int(count) // int(counts.max())) for count in counts]
    return [
        f"{bound.rjust(width)}  {bar.ljust(WIDTH)}  {count:,}"
        for bound, bar, count in zip(bounds, bars, counts, strict=True)
    ]


def _statistics(values: np.ndarray) -> str:
    low, middle, high = (float(each) for each in (values.min(), np.median(values), values.max()))
    return f"mean {values.mean(dtype=np.float64):.6g}, from {low:.6g} to {high:.6g}, median {middle:.6g}"
