"""What a scheduler is, the one that lets every trial run to its end, and scores as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from athlete.record.names import TuneError, advice, lookup
from athlete.record.results import is_number
from athlete.tune.space import Path

if TYPE_CHECKING:
    from athlete.tune.trial import Trial

CONTINUE, PAUSE, STOP = "CONTINUE", "PAUSE", "STOP"


class Release(NamedTuple):
    """How a paused trial goes on: it stops, or it trains on, from the state of `donor` and with `changes` if given."""

    trial_id: str
    stops: bool = False
    donor: str | None = None
    changes: Mapping[Path, Any] | None = None


class TrialScheduler:
    """Decides after each result. Subclasses override `on_trial_result`, and with a memory `save` and `restore`.

    `metric` and `mode` default to those of `tune.run`, then to `episode_reward_mean` and `"max"`. `time_attr` is the
    result that counts a trial's progress.
    """

    CONTINUE, PAUSE, STOP = CONTINUE, PAUSE, STOP
    compares: ClassVar[bool] = True  # trials with each other: in one process they then train in turn

    def __init__(self, time_attr: str = "training_iteration", metric: str | None = None, mode: str | None = None):
        if mode not in (None, "min", "max"):
            raise ValueError(f"{type(self).__name__}(mode={mode!r}): 'min' or 'max'")
        self.time_attr, self.metric, self.mode = time_attr, metric, mode
        self.seed = 0

    def set_search_properties(self, metric: str | None, mode: str | None, seed: int = 0) -> None:
        """Take over what `tune.run` was asked for. Raises ValueError where the scheduler was told something else."""
        for name, own, asked in (("metric", self.metric, metric), ("mode", self.mode, mode)):
            if own is not None and asked is not None and own != asked:
                raise ValueError(
                    f"tune.run({name}={asked!r}) and {type(self).__name__}({name}={own!r}) differ: give it once"
                )
        self.metric = self.metric or metric or "episode_reward_mean"
        self.mode = self.mode or mode or "max"
        self.seed = seed

    def on_trial_add(self, trial: Trial) -> None:
        """A trial is part of the experiment; after a resume also one that has trained already."""

    def on_trial_result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        """CONTINUE, PAUSE or STOP. A trial that goes on from a checkpoint shows that result once more."""
        return CONTINUE

    def on_trial_end(self, trial: Trial) -> None:
        """A trial has stopped or failed."""

    def release(self) -> list[Release]:
        """Which of the paused trials go on now, and how; asked after every event."""
        return []

    def save(self) -> dict[str, Any]:
        """What a resume must know, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `save` gave."""

    def _time(self, result: Mapping[str, Any]) -> float:
        return self._number(self.time_attr, result)

    def _score(self, result: Mapping[str, Any]) -> float | None:
        """Higher is better; NaN is the worst; None on an iteration without the evaluation that measures it."""
        key = self.metric or "episode_reward_mean"
        if key.startswith("evaluation/") and not result.get("evaluation"):
            return None
        value = self._number(key, result)
        return -math.inf if math.isnan(value) else value if self.mode != "min" else -value

    def _number(self, key: str, result: Mapping[str, Any]) -> float:
        value = lookup(result, key)
        if value is None or not is_number(value):
            raise TuneError(f"{type(self).__name__}: the results have no number {key!r}; {advice(key, result)}")
        return float(value)


class FIFOScheduler(TrialScheduler):
    """Trials run to their own stops, in the order of their indices."""

    compares = False


def writable(value: Any) -> Any:
    """Scores as JSON has them: the worst, minus infinity, as null."""
    if isinstance(value, dict):
        return {key: writable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [writable(entry) for entry in value]
    return value if math.isfinite(value) else None


def readable(scores: Mapping[str, Any]) -> dict[str, float]:
    """What `writable` made of the scores by trial_id."""
    return {str(name): -math.inf if score is None else float(score) for name, score in scores.items()}
