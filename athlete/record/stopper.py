"""When a trial has had enough: what `tune.run(stop=...)` takes.

A dictionary of thresholds, a function `(trial_id, result) -> bool`, a `Stopper`, or a list of these: the first that
says so ends the trial. `stop_all` ends the whole experiment. A stopper's memory is that of the process: after a resume
windows fill anew and time budgets begin again.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from athlete.record.names import TuneError, advice, lookup
from athlete.record.results import is_number


class Stopper:
    """Decides after each result. Subclasses override `__call__`, and `stop_all` if they may end the experiment."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial should stop after this result."""
        raise NotImplementedError

    def stop_all(self) -> bool:
        """Whether every trial should stop now."""
        return False

    def progress(self, trial_id: str, result: dict[str, Any]) -> float | None:
        """How much of the way to the stop is done, in [0, 1]; None if that cannot be told."""
        return None


class NoopStopper(Stopper):
    """Never stops."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False


class FunctionStopper(Stopper):
    """Stops where `function(trial_id, result)` is true."""

    def __init__(self, function: Callable[[str, dict[str, Any]], bool]):
        self.function = function

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(self.function(trial_id, result))


class CombinedStopper(Stopper):
    """Stops as soon as one of its stoppers does."""

    def __init__(self, *stoppers: Stopper):
        self.stoppers = stoppers

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        decisions = [stopper(trial_id, result) for stopper in self.stoppers]  # each sees every result
        return any(decisions)

    def stop_all(self) -> bool:
        return any(stopper.stop_all() for stopper in self.stoppers)

    def progress(self, trial_id: str, result: dict[str, Any]) -> float | None:
        known = [part for part in (stopper.progress(trial_id, result) for stopper in self.stoppers) if part is not None]
        return max(known, default=None)


class MaximumIterationStopper(Stopper):
    """Stops a trial at `training_iteration >= max_iter`."""

    def __init__(self, max_iter: int):
        self.max_iter = max_iter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result["training_iteration"] >= self.max_iter

    def progress(self, trial_id: str, result: dict[str, Any]) -> float | None:
        return min(result["training_iteration"] / self.max_iter, 1.0)


class TimeoutStopper(Stopper):
    """Ends the experiment `timeout` seconds (or a `timedelta`) after its first result or check."""

    def __init__(self, timeout: Any):
        self.seconds = float(timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout)
        if not self.seconds > 0:
            raise ValueError(f"TimeoutStopper({timeout}): give a number of seconds above 0")
        self._start: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop_all()

    def _elapsed(self) -> float:
        if self._start is None:
            self._start = time.monotonic()
        return time.monotonic() - self._start

    def stop_all(self) -> bool:
        return self._elapsed() >= self.seconds

    def progress(self, trial_id: str, result: dict[str, Any]) -> float | None:
        return min(self._elapsed() / self.seconds, 1.0)


class TrialPlateauStopper(Stopper):
    """Stops a trial whose metric no longer moves: the standard deviation of its last `num_results` is at most `std`.

    Not before `grace_period` results, and, if `metric_threshold` is given, only where the last value has reached it
    (is at least it for `mode="max"`, at most it for `mode="min"`).
    """

    def __init__(
        self,
        metric: str,
        std: float = 0.01,
        num_results: int = 4,
        grace_period: int = 4,
        metric_threshold: float | None = None,
        mode: str | None = None,
    ):
        if metric_threshold is not None and mode not in ("min", "max"):
            raise ValueError(f"TrialPlateauStopper(metric_threshold=..., mode={mode!r}): mode must be 'min' or 'max'")
        self.metric, self.std, self.grace_period = metric, std, grace_period
        self.metric_threshold, self.mode = metric_threshold, mode
        self._seen: dict[str, int] = defaultdict(int)
        self._windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=num_results))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        value = _number(result, self.metric)
        window = self._windows[trial_id]
        window.append(value)
        self._seen[trial_id] += 1
        if self._seen[trial_id] < self.grace_period or len(window) < (window.maxlen or 0):
            return False
        if self.metric_threshold is not None:
            reached = value >= self.metric_threshold if self.mode == "max" else value <= self.metric_threshold
            if not reached:
                return False
        return all(map(math.isfinite, window)) and _spread(window) <= self.std


class ExperimentPlateauStopper(Stopper):
    """Ends the experiment when the `top` best results of all trials lie within `std` of each other.

    `patience` further results are waited for after that is first seen.
    """

    def __init__(self, metric: str, std: float = 0.001, top: int = 10, mode: str = "min", patience: int = 0):
        if mode not in ("min", "max"):
            raise ValueError(f"ExperimentPlateauStopper(mode={mode!r}): mode must be 'min' or 'max'")
        self.metric, self.std, self.top, self.mode, self.patience = metric, std, top, mode, patience
        self._best: list[float] = []
        self._waited = 0

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        value = _number(result, self.metric)
        if math.isfinite(value):
            self._best = sorted([*self._best, value], reverse=self.mode == "max")[: self.top]
        level = len(self._best) == self.top and _spread(self._best) <= self.std
        self._waited = self._waited + 1 if level else 0
        return self.stop_all()

    def stop_all(self) -> bool:
        return self._waited > self.patience


class DictStopper(Stopper):
    """Stops where any `result[key] >= value`; keys of nested results are written with `/`.

    A key that the results do not have is an error after the first result; one of `evaluation/...` after the first
    result with an evaluation in it, or at once if `evaluates` says that there will be none.
    """

    def __init__(self, thresholds: Mapping[str, float], evaluates: Callable[[str], bool] | None = None):
        for key, value in thresholds.items():
            if isinstance(value, bool) or not is_number(value):
                raise TypeError(f"stop={{{key!r}: {value!r}}}: give the number that the result must reach")
        self.thresholds = {key: float(value) for key, value in thresholds.items()}
        self.evaluates = evaluates or (lambda trial_id: False)
        self._unseen: dict[str, set[str]] = defaultdict(lambda: set(self.thresholds))
        self._first: dict[tuple[str, str], float] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        found = {key: value for key in self.thresholds if (value := lookup(result, key)) is not None}
        if self._unseen[trial_id]:
            self._check(trial_id, result, found)
        return any(float(value) >= self.thresholds[key] for key, value in found.items())

    def _check(self, trial_id: str, result: dict[str, Any], found: dict[str, Any]) -> None:
        for key, value in found.items():
            if not is_number(value):
                raise TuneError(f"stop: result[{key!r}] is {type(value).__name__}, not a number; {advice(key, result)}")
        self._unseen[trial_id] -= found.keys()
        for key in self._unseen[trial_id]:
            expected_later = key.startswith("evaluation/") and not result.get("evaluation")
            if expected_later and self.evaluates(trial_id):
                continue
            reason = " (evaluation is off: set evaluation_interval)" if expected_later else ""
            raise TuneError(f"stop: the results have no {key!r}{reason}; {advice(key, result)}")

    def progress(self, trial_id: str, result: dict[str, Any]) -> float | None:
        parts = []
        for key, target in self.thresholds.items():
            value = lookup(result, key)
            if value is None or not is_number(value) or not math.isfinite(float(value)):
                continue
            # value/target says nothing where the target is not positive: there count from the first value seen
            start = 0.0 if target > 0 else self._first.setdefault((trial_id, key), float(value))
            part = (float(value) - start) / (target - start) if target > start else 1.0
            parts.append(min(max(part, 0.0), 1.0))
        return max(parts, default=None)


def _spread(values: Iterable[float]) -> float:
    """The standard deviation, as of a whole population."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _number(result: dict[str, Any], metric: str) -> float:
    value = lookup(result, metric)
    if value is None or not is_number(value):
        raise TuneError(f"stop: the results have no number {metric!r}; {advice(metric, result)}")
    return float(value)


def make_stopper(stop: Any, evaluates: Callable[[str], bool] | None = None) -> Stopper:
    """A `Stopper` from anything that `tune.run(stop=...)` takes."""
    if stop is None:
        return NoopStopper()
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        return DictStopper(stop, evaluates)
    if isinstance(stop, (list, tuple)):
        return CombinedStopper(*[make_stopper(part, evaluates) for part in stop])
    if callable(stop):
        return FunctionStopper(stop)
    raise TypeError(
        f"stop={stop!r}: give a dictionary such as {{'training_iteration': 10}}, "
        "a function (trial_id, result) -> bool, a Stopper, or a list of these"
    )
