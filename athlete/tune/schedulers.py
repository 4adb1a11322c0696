"""Which trials go on, which stop and which copy another: `tune.run(scheduler=ASHAScheduler(...))`, Ray Tune's names.

A scheduler sees every result in the process that called `tune.run`. It answers with CONTINUE, STOP or PAUSE; a paused
trial waits, in memory where that is possible, until `release` says how it goes on. What a scheduler knows is in
`experiment_state.json`, so that a resume goes on with the same rungs, brackets and populations.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from athlete.record.results import is_number
from athlete.tune.names import TuneError, advice, lookup, nearest
from athlete.tune.space import Domain, Float, Function, Integer, Path, choice, path_name, sample_from, set_value

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


# Successive halving


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
        return {"rungs": _writable(self._rungs), "bracket": self._bracket}

    def restore(self, state: Mapping[str, Any]) -> None:
        saved = [[_readable(scores) for scores in rungs] for rungs in state["rungs"]]
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
        return {"brackets": [list(bracket) for bracket in self._brackets], "scores": _writable(self._scores)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._brackets = [
            _Bracket(int(size), float(milestone), tuple(map(str, live)), bool(halved))
            for size, milestone, live, halved in state["brackets"]
        ]
        self._scores = _readable(state["scores"])


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
        return {"seen": {name: [[at, _finite(score)] for at, score in seen] for name, seen in self._seen.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._seen = {
            str(name): [(float(at), -math.inf if score is None else float(score)) for at, score in seen]
            for name, seen in state["seen"].items()
        }


# Populations


class PopulationBasedTraining(TrialScheduler):
    """Population based training (Jaderberg et al. 2017, arXiv:1711.09846): truncation selection and perturbation.

    Every `perturbation_interval` of `time_attr` the trials wait for each other. Each of the worst `quantile_fraction`
    then goes on from the state of one of the best, drawn at random, with changed settings: of every entry of
    `hyperparam_mutations` (a list, a range such as `tune.loguniform(1e-5, 1e-3)`, or a function without arguments),
    with `resample_probability` a new draw, else the donor's value times one of `perturbation_factors`, within the
    range; of a list the neighbour. `custom_explore_fn(config)` sees the result and may mend it. Entries that the
    config does not set are drawn for the first time when the trial begins. In one process the state is copied in
    memory, else through a checkpoint. Trials always wait (Ray's `synch=True`): so a seed repeats the experiment.
    """

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        custom_explore_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        *,
        burn_in_period: float = 0.0,
        perturbation_factors: Sequence[float] = (1.2, 0.8),
    ):
        super().__init__(time_attr, metric, mode)
        title = type(self).__name__
        if not perturbation_interval > 0:
            raise ValueError(f"{title}(perturbation_interval={perturbation_interval}): above 0")
        if not 0.0 <= quantile_fraction <= 0.5:
            raise ValueError(f"{title}(quantile_fraction={quantile_fraction}): from 0 to 0.5")
        if not 0.0 <= resample_probability <= 1.0:
            raise ValueError(f"{title}(resample_probability={resample_probability}): a probability")
        self.perturbation_interval, self.quantile_fraction = perturbation_interval, quantile_fraction
        self.resample_probability, self.perturbation_factors = resample_probability, tuple(perturbation_factors)
        self.custom_explore_fn = custom_explore_fn
        self.mutations = dict(_mutations(title, hyperparam_mutations or {}))
        if not self.mutations:
            raise ValueError(
                f"{title}(hyperparam_mutations={{}}): give it at least one, such as {{'lr': [1e-3, 1e-4]}}"
            )
        self.first_time = burn_in_period + perturbation_interval
        self.next_time, self.generation = self.first_time, 0
        self.history: list[dict[str, Any]] = []  # who copied whom, when, and what changed
        self.random = random.Random()  # of the generation
        self._live: dict[str, Trial] = {}  # the live trials
        self._scores: dict[str, float] = {}
        self._arrived: dict[str, float] = {}

    def searched(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config, where a mutated setting that it does not have is drawn when a trial begins."""
        full = dict(config)
        for path, mutation in self.mutations.items():
            if not _has(full, path):
                full = set_value(full, path, _as_domain(mutation))
        return full

    def extremes(self, path: Path) -> list[Any]:
        """Values of a mutated setting as far apart as they come; of a function, two draws."""
        mutation = self.mutations[path]
        if isinstance(mutation, list | tuple):
            return list(mutation)
        if isinstance(mutation, Float):
            return [float(mutation.lower), float(mutation.upper)]
        if isinstance(mutation, Integer):
            return [mutation.lower, mutation.last]
        draw = mutation.sample if isinstance(mutation, Domain) else mutation
        return [draw(), draw()]

    def on_trial_add(self, trial: Trial) -> None:
        self._live[trial.trial_id] = trial

    def on_trial_result(self, trial: Trial, result: Mapping[str, Any]) -> str:
        time, score = self._time(result), self._score(result)
        if score is not None:
            self._scores[trial.trial_id] = score
        if time < self.next_time:
            return CONTINUE
        self._arrived[trial.trial_id] = time
        return PAUSE

    def on_trial_end(self, trial: Trial) -> None:
        for known in (self._live, self._scores, self._arrived):
            known.pop(trial.trial_id, None)

    def release(self) -> list[Release]:
        if not self._live or self._arrived.keys() != self._live.keys():
            return []
        latest = max(self._arrived.values())
        self.generation += 1
        self.random = random.Random(f"{self.seed} {self.generation}")
        self._arrived = {}
        passed = math.floor((latest - self.next_time) / self.perturbation_interval) + 1
        self.next_time += passed * self.perturbation_interval
        self._note(latest)
        ranked = sorted(self._live, key=lambda name: self._scores.get(name, -math.inf))
        count = min(math.ceil(len(ranked) * self.quantile_fraction), len(ranked) // 2)
        worst, best = ranked[:count], ranked[len(ranked) - count :]
        copies = [self._copy(name, self.random.choice(best), latest) for name in worst]
        self._told(copies)
        return copies + [Release(name) for name in self._live if name not in worst]

    def _note(self, time: float) -> None:
        """Every trial has come to `time`; nothing has been copied yet."""

    def _told(self, copies: Sequence[Release]) -> None:
        """The copies of a generation have been chosen."""

    def _copy(self, name: str, donor: str, time: float) -> Release:
        changes = self._explored(self._live[donor].config)
        named = {path_name(path): value for path, value in changes.items()}
        when = int(time) if time.is_integer() else time
        self.history.append({self.time_attr: when, "trial_id": name, "donor": donor, "config": named})
        return Release(name, donor=donor, changes=changes)

    def _explored(self, config: Mapping[str, Any]) -> dict[Path, Any]:
        """What the copy's config has in place of the donor's."""
        places = {path: self._mutated(mutation, _get(config, path)) for path, mutation in self.mutations.items()}
        return places if self.custom_explore_fn is None else self._mended(config, places)

    def _mended(self, config: Mapping[str, Any], places: Mapping[Path, Any]) -> dict[Path, Any]:
        """The changed settings as `custom_explore_fn` leaves them."""
        assert self.custom_explore_fn is not None
        changed = dict(config)
        for path, value in places.items():
            changed = set_value(changed, path, value)
        mended = self.custom_explore_fn(copy.deepcopy(changed))
        if not isinstance(mended, Mapping):
            raise TuneError(f"custom_explore_fn returned {mended!r}: it returns the config")
        expected = dict(mended)
        for path in places:
            expected = set_value(expected, path, _get(changed, path))
        if expected != changed:
            raise TuneError("custom_explore_fn changed a setting that hyperparam_mutations does not have")
        return {path: _get(mended, path) for path in places}

    def _mutated(self, mutation: Any, value: Any) -> Any:
        draws_anew = self.random.random() < self.resample_probability
        if isinstance(mutation, list | tuple):
            if draws_anew or value not in mutation:
                return self.random.choice(mutation)
            place = list(mutation).index(value) + self.random.choice((-1, 1))
            return mutation[min(max(place, 0), len(mutation) - 1)]
        if draws_anew or not is_number(value):
            return mutation.draw(self.random) if isinstance(mutation, Domain) else mutation()
        moved = value * self.random.choice(self.perturbation_factors)
        if isinstance(mutation, Float | Integer):
            return mutation.within(moved)
        return round(moved) if isinstance(value, int) else moved

    def save(self) -> dict[str, Any]:
        return {
            "next_time": self.next_time,
            "generation": self.generation,
            "scores": _writable(self._scores),
            "history": self.history,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.next_time, self.generation = float(state["next_time"]), int(state["generation"])
        if not math.isfinite(self.next_time):
            raise ValueError(f"next_time is {self.next_time}")
        self._scores, self.history = _readable(state["scores"]), list(state["history"])

    def begin_again(self) -> None:
        """Of a population without a checkpoint nothing is left: a resume begins at the first interval."""
        self.next_time, self.generation, self.history, self._scores = self.first_time, 0, [], {}


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
        ranges = [self.extremes(path) for path in self.mutations]
        values = [float(_get(config, path)) for path in self.mutations]
        return [(value - low) / (high - low) for value, (low, high) in zip(values, ranges, strict=True)]

    def _explored(self, config: Mapping[str, Any]) -> dict[Path, Any]:
        increases = {row[-1] for row in self._rows}
        if len(self._rows) < 4 or len(increases) < 2:
            return super()._explored(config)
        best = self._most_promising()
        self._chosen.append(best)
        places = {path: low + part * (high - low) for part, (path, (low, high)) in zip(best, self._ends(), strict=True)}
        return places if self.custom_explore_fn is None else self._mended(config, places)

    def _ends(self) -> list[tuple[Path, list[Any]]]:
        return [(path, self.extremes(path)) for path in self.mutations]

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
        return {**super().save(), "rows": self._rows, "before": _writable(self._before)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        width = len(self.mutations) + 3
        self._rows = [[float(value) for value in row] for row in state["rows"]]
        if any(len(row) != width or not all(map(math.isfinite, row)) for row in self._rows):
            raise ValueError(f"a row has not {width} finite numbers")
        self._before = _readable(state["before"])

    def begin_again(self) -> None:
        super().begin_again()
        self._rows, self._before = [], {}


# From a name


SCHEDULERS: dict[str, type[TrialScheduler]] = {
    "fifo": FIFOScheduler,
    "asha": AsyncHyperBandScheduler,
    "async_hyperband": AsyncHyperBandScheduler,
    "asynchyperband": AsyncHyperBandScheduler,
    "hyperband": HyperBandScheduler,
    "median_stopping_rule": MedianStoppingRule,
    "medianstopping": MedianStoppingRule,
    "pbt": PopulationBasedTraining,
    "pb2": PB2,
}


def create_scheduler(scheduler: str, **settings: Any) -> TrialScheduler:
    """A scheduler by its name: `create_scheduler("asha", max_t=50)`. Raises ValueError for an unknown name."""
    kind = SCHEDULERS.get(scheduler.lower().removesuffix("scheduler"))
    if kind is None:
        close = nearest(scheduler.lower(), SCHEDULERS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(SCHEDULERS)}"
        raise ValueError(f"there is no scheduler {scheduler!r}: {hint}")
    return kind(**settings)


def find_scheduler(scheduler: Any) -> TrialScheduler:
    """What `tune.run(scheduler=...)` means: None, a name, or an object. Raises TypeError for anything else."""
    if scheduler is None:
        return FIFOScheduler()
    if isinstance(scheduler, str):
        return create_scheduler(scheduler)
    if not isinstance(scheduler, TrialScheduler):
        raise TypeError(
            f"tune.run(scheduler={scheduler!r}): give a name such as 'asha', or an object of athlete.tune.schedulers"
        )
    return scheduler


# Inside


def _check_halving(title: str, max_t: float, reduction_factor: float) -> None:
    if not max_t >= 1:
        raise ValueError(f"{title}(max_t={max_t}): at least 1")
    if not reduction_factor > 1:
        raise ValueError(f"{title}(reduction_factor={reduction_factor}): above 1")


def _mutations(title: str, mutations: Mapping[str, Any], path: Path = ()) -> list[tuple[Path, Any]]:
    """The mutated settings by their paths. Raises TypeError for what no value can be drawn from."""
    found: list[tuple[Path, Any]] = []
    for key, value in mutations.items():
        if isinstance(value, Mapping) and "grid_search" not in value:
            found += _mutations(title, value, (*path, key))
        elif (
            (isinstance(value, list | tuple) and value)
            or (isinstance(value, Domain) and not isinstance(value, Function))
            or callable(value)
        ):
            found.append(((*path, key), getattr(value, "categories", value)))
        else:
            raise TypeError(
                f"{title}(hyperparam_mutations={{{path_name((*path, key))!r}: {value!r}}}): give a list of values, a "
                "range such as tune.uniform(0.9, 1.0), or a function without arguments"
            )
    return found


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


def _as_domain(mutation: Any) -> Any:
    if isinstance(mutation, Domain):
        return mutation
    return choice(mutation) if isinstance(mutation, list | tuple) else sample_from(lambda spec: mutation())


def _has(config: Mapping[str, Any], path: Path) -> bool:
    inner: Any = config
    for key in path:
        if not isinstance(inner, Mapping) or key not in inner:
            return False
        inner = inner[key]
    return True


def _get(config: Any, path: Path) -> Any:
    for key in path:
        config = config[key]
    return config


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _writable(value: Any) -> Any:
    """Scores as JSON has them: the worst, minus infinity, as null."""
    if isinstance(value, dict):
        return {key: _writable(entry) for key, entry in value.items()}
    return [_writable(entry) for entry in value] if isinstance(value, list) else _finite(value)


def _readable(scores: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): -math.inf if score is None else float(score) for name, score in scores.items()}
