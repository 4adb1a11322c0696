"""Schedulers that stop trials which fall behind: ASHA, HyperBand, and the median stopping rule."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from athlete.record.names import TuneError
from athlete.tune.schedulers.scheduler import CONTINUE, PAUSE, STOP, Release, TrialScheduler, readable, writable

if TYPE_CHECKING:
    from athlete.tune.trial import Trial


class AsyncHyperBandScheduler(TrialScheduler):
    """ASHA, asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), in the form that stops.

    At the times `grace_period * reduction_factor**k` (the rungs) a trial stops unless it is among the best
    `1 / reduction_factor` of those that have come so far, itself included, or the best. At `max_t` it stops
    unless `stop_last_trials=False`. `brackets` above 1 start some trials at later rungs, drawn at random.
    """

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 100,
        grace_period: float = 1,
        reduction_factor: float = 4,
        brackets: int = 1,
        stop_last_trials: bool = True,
    ):
        super().__init__(time_attr, metric, mode)
        _check_halving(type(self).__name__, max_t, reduction_factor)
        if not 0 < grace_period <= max_t:
            raise ValueError(f"{type(self).__name__}(grace_period={grace_period}): above 0, at most max_t={max_t}")
        count = int(math.log(max_t / grace_period) / math.log(reduction_factor) + 1 + 1e-9)
        if not 1 <= brackets <= count:
            raise ValueError(f"{type(self).__name__}(brackets={brackets}): 1 to {count}, the number of rungs")
        self.max_t, self.reduction_factor, self.stop_last_trials = max_t, reduction_factor, stop_last_trials
        self._milestones = [grace_period * reduction_factor**k for k in range(count)]
        # rungs[bracket][k]: scores by trial_id, at the milestone `bracket + k`
        self._rungs: list[list[dict[str, float]]] = [[{} for _ in range(count - first)] for first in range(brackets)]
        self._bracket: dict[str, int] = {}

    def on_trial_add(self, trial: Trial) -> None:
        if trial.trial_id not in self._bracket:
            weights = [math.exp(len(rungs) - len(self._rungs[0])) for rungs in self._rungs]  # as Ray's
            draw = random.Random(f"{self.seed} {trial.index}")
            (self._bracket[trial.trial_id],) = draw.choices(range(len(weights)), weights)

    def on_trial_result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        time, score = self._time(result), self._score(result)
        if time >= self.max_t and self.stop_last_trials:
            return STOP
        bracket = self._bracket[trial.trial_id]
        rungs = list(zip(self._milestones[bracket:], self._rungs[bracket], strict=True))
        for milestone, scores in reversed(rungs):
            if time < milestone:
                continue
            if trial.trial_id in scores or score is None:
                return CONTINUE
            scores[trial.trial_id] = score
            ranked = sorted(scores.values(), reverse=True)
            kept = max(1, int(len(ranked) / self.reduction_factor))
            return CONTINUE if score >= ranked[kept - 1] else STOP
        return CONTINUE

    def save(self) -> dict[str, Any]:
        return {"rungs": writable(self._rungs), "bracket": self._bracket}

    def restore(self, state: Mapping[str, Any]) -> None:
        saved = [[readable(scores) for scores in rungs] for rungs in state["rungs"]]
        if [len(rungs) for rungs in saved] != [len(rungs) for rungs in self._rungs]:
            raise TuneError(f"resume: {type(self).__name__} was given other rungs; pass the same settings again")
        self._rungs, self._bracket = saved, {str(key): int(value) for key, value in state["bracket"].items()}


ASHAScheduler = AsyncHyperBandScheduler


class _Bracket(NamedTuple):
    """A bracket of HyperBand: trials that are halved together. `milestone` is where they wait for each other next."""

    size: int
    milestone: float
    live: tuple[str, ...]
    halved: bool = False


class HyperBandScheduler(TrialScheduler):
    """HyperBand (Li et al. 2018, arXiv:1603.06560, algorithm 1), with trials that wait for each other.

    Bracket `s`, from the largest down to 0, takes `ceil((s_max + 1) / (s + 1) * eta**s)` trials, which first train for
    `max_t * eta**-s`; then the best `1 / eta` go on for `eta` times as long, until `max_t`. `eta` is
    `reduction_factor`. With fewer trials than a bracket takes, it is halved as it is.
    """

    def __init__(
        self,
        time_attr: str = "training_iteration",
        metric: str | None = None,
        mode: str | None = None,
        max_t: float = 81,
        reduction_factor: float = 3,
        stop_last_trials: bool = True,
    ):
        super().__init__(time_attr, metric, mode)
        _check_halving(type(self).__name__, max_t, reduction_factor)
        self.max_t, self.reduction_factor, self.stop_last_trials = max_t, reduction_factor, stop_last_trials
        self._largest = int(math.log(max_t) / math.log(reduction_factor) + 1e-9)
        self._brackets: list[_Bracket] = []
        self._scores: dict[str, float] = {}  # the newest
        self._arrived: set[str] = set()

    def _new_bracket(self) -> _Bracket:
        s = self._largest - len(self._brackets) % (self._largest + 1)
        size = math.ceil((self._largest + 1) / (s + 1) * self.reduction_factor**s)
        return _Bracket(size, self.max_t * self.reduction_factor**-s, ())

    def on_trial_add(self, trial: Trial) -> None:
        if any(trial.trial_id in bracket.live for bracket in self._brackets):
            return
        last = self._brackets[-1] if self._brackets else None
        if last is None or last.halved or len(last.live) >= last.size:
            self._brackets.append(self._new_bracket())
        self._brackets[-1] = self._brackets[-1]._replace(live=(*self._brackets[-1].live, trial.trial_id))

    def on_trial_result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        time, score = self._time(result), self._score(result)
        self._scores[trial.trial_id] = self._scores.get(trial.trial_id, -math.inf) if score is None else score
        if time >= self.max_t:
            return STOP if self.stop_last_trials else CONTINUE
        bracket = next(bracket for bracket in self._brackets if trial.trial_id in bracket.live)
        if time < bracket.milestone:
            return CONTINUE
        self._arrived.add(trial.trial_id)
        return PAUSE

    def on_trial_end(self, trial: Trial) -> None:
        self._arrived.discard(trial.trial_id)
        for place, bracket in enumerate(self._brackets):
            live = tuple(name for name in bracket.live if name != trial.trial_id)
            self._brackets[place] = bracket._replace(live=live)

    def release(self) -> list[Release]:
        released: list[Release] = []
        for place, bracket in enumerate(self._brackets):
            if not bracket.live or not self._arrived.issuperset(bracket.live):
                continue
            ranked = sorted(bracket.live, key=lambda name: self._scores[name], reverse=True)
            best = set(ranked[: max(1, int(len(ranked) / self.reduction_factor))])
            released += [Release(name, stops=name not in best) for name in bracket.live]
            self._arrived.difference_update(bracket.live)
            live = tuple(name for name in bracket.live if name in best)
            milestone = bracket.milestone * self.reduction_factor
            self._brackets[place] = _Bracket(bracket.size, milestone, live, halved=True)
        return released

    def save(self) -> dict[str, Any]:
        return {"brackets": [list(bracket) for bracket in self._brackets], "scores": writable(self._scores)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._brackets = [
            _Bracket(int(size), float(milestone), tuple(map(str, live)), bool(halved))
            for size, milestone, live, halved in state["brackets"]
        ]
        self._scores = readable(state["scores"])


class MedianStoppingRule(TrialScheduler):
    """Stops a trial whose best result is below the median of the others' means up to that time.

    Vizier's rule (Golovin et al. 2017, section 3.2.2). It judges from `grace_period` on, and where at least
    `min_samples_required` other trials have come as far.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        grace_period: float = 60.0,
        min_samples_required: int = 3,
    ):
        super().__init__(time_attr, metric, mode)
        self.grace_period, self.min_samples_required = grace_period, min_samples_required
        self._seen: dict[str, list[tuple[float, float]]] = {}  # by trial_id: time and score

    def on_trial_result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        time, score = self._time(result), self._score(result)
        own = self._seen.setdefault(trial.trial_id, [])
        if score is None or (own and time <= own[-1][0]):  # seen before a resume
            return CONTINUE
        own.append((time, score))
        others = [
            statistics.fmean(score for at, score in seen if at <= time)
            for name, seen in self._seen.items()
            if name != trial.trial_id and seen and seen[0][0] <= time <= seen[-1][0]
        ]
        if time < self.grace_period or len(others) < self.min_samples_required:
            return CONTINUE
        return STOP if max(score for _, score in own) < statistics.median(others) else CONTINUE

    def save(self) -> dict[str, Any]:
        return {"seen": writable(self._seen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._seen = {
            str(name): [(float(at), -math.inf if score is None else float(score)) for at, score in seen]
            for name, seen in state["seen"].items()
        }


def _check_halving(title: str, max_t: float, reduction_factor: float) -> None:
    if not max_t >= 1:
        raise ValueError(f"{title}(max_t={max_t}): at least 1")
    if not reduction_factor > 1:
        raise ValueError(f"{title}(reduction_factor={reduction_factor}): above 1")
