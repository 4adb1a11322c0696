"""Population based bandits: a population whose new settings a Gaussian process chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from athlete.record.results import is_number
from athlete.tune.schedulers.population import PopulationBasedTraining
from athlete.tune.schedulers.scheduler import Release, readable, writable
from athlete.tune.space import Float, Path, get_value


class PB2(PopulationBasedTraining):
    """Population based bandits (Parker-Holder et al. 2020, arXiv:2002.02518): a population that models what pays.

    As `PopulationBasedTraining`, but a copy's settings are those, within `hyperparam_bounds` (`{"lr": [1e-5, 1e-3]}`),
    of the highest upper confidence bound of the score's increase in an interval: of a Gaussian process over settings,
    the score before, and time. For the first intervals, and until increases differ, they are drawn evenly.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        hyperparam_bounds: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        custom_explore_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ):
        bounds = _bounds(hyperparam_bounds or {})
        super().__init__(
            time_attr, metric, mode, perturbation_interval, bounds, quantile_fraction, 1.0, custom_explore_fn
        )
        self._rows: list[list[float]] = []  # time, score before, the settings in [0, 1], increase of the score
        self._before: dict[str, float] = {}  # each trial's score when the interval began
        self._chosen: list[list[float]] = []  # settings of this generation's copies

    def _note(self, time: float) -> None:
        self._chosen = []
        for name, trial in self._live.items():
            score, before = self._scores.get(name, -math.inf), self._before.get(name, -math.inf)
            if math.isfinite(score) and math.isfinite(before):
                self._rows.append([time, before, *self._scaled(trial.config), score - before])
        self._rows = self._rows[-1_000:]
        self._before = dict(self._scores)

    def _told(self, copies: Sequence[Release]) -> None:
        for copied in copies:
            if copied.donor in self._scores:
                self._before[copied.trial_id] = self._scores[copied.donor]

    def _scaled(self, config: Mapping[str, Any]) -> list[float]:
        return [
            (float(get_value(config, path)) - place.lower) / (place.upper - place.lower)
            for path, place in self.mutations.items()
        ]

    def _new_values(self, config: Mapping[str, Any]) -> dict[Path, Any]:
        increases = {row[-1] for row in self._rows}
        if len(self._rows) < 4 or len(increases) < 2:
            return super()._new_values(config)
        best = self._most_promising()
        self._chosen.append(best)
        return {
            path: place.lower + part * (place.upper - place.lower)
            for part, (path, place) in zip(best, self.mutations.items(), strict=True)
        }

    def _most_promising(self) -> list[float]:
        """The settings of the highest upper confidence bound among a thousand, all in [0, 1]."""
        import numpy as np

        from athlete.ops.gaussian_process import fitted, posterior

        rows = np.array(self._rows)
        spread = rows.std(axis=0)
        y = (rows[:, -1] - rows[:, -1].mean()) / (spread[-1] or 1.0)
        times = (rows[:, 0] - rows[0, 0]) / self.perturbation_interval
        context = (rows[:, 1] - rows[:, 1].mean()) / (spread[1] or 1.0)
        x = np.column_stack([rows[:, 2:-1], context])
        length, drift = fitted(x, times, y)
        draws = np.random.default_rng(self.random.getrandbits(32)).random((1_000, x.shape[1] - 1))
        now, level = float(times[-1]), float(context.max())  # copies go on from the best
        at = np.column_stack([draws, np.full(len(draws), level)])
        for chosen in self._chosen:  # another copy tries that already: as if it gave what is expected
            there = np.array([[*chosen, level]])
            mean, _ = posterior(x, times, y, there, now, length, drift)
            x, times, y = np.vstack([x, there]), np.append(times, now), np.append(y, mean)
        mean, deviation = posterior(x, times, y, at, now, length, drift)
        kappa = math.sqrt(0.2 * math.log(max(2.0, 0.4 * len(rows))))  # as Ray's
        return [float(part) for part in draws[int(np.argmax(mean + kappa * deviation))]]

    def save(self) -> dict[str, Any]:
        return {**super().save(), "rows": self._rows, "before": writable(self._before)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        width = len(self.mutations) + 3
        self._rows = [[float(value) for value in row] for row in state["rows"]]
        if any(len(row) != width or not all(map(math.isfinite, row)) for row in self._rows):
            raise ValueError(f"a row has not {width} finite numbers")
        self._before = readable(state["before"])

    def begin_again(self) -> None:
        super().begin_again()
        self._rows, self._before = [], {}


def _bounds(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges out of `{"lr": [low, high]}`, however deep. Raises ValueError for what is no such pair."""
    ranges: dict[str, Any] = {}
    for name, ends in bounds.items():
        if isinstance(ends, Mapping):
            ranges[name] = _bounds(ends)
        elif isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_number, ends)) and ends[0] < ends[1]:
            ranges[name] = Float(float(ends[0]), float(ends[1]))
        else:
            raise ValueError(f"PB2(hyperparam_bounds={{{name!r}: {ends!r}}}): give [low, high]")
    return ranges
