"""Population based training: trials that fall behind go on from the best, with changed settings."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from athlete.record.names import TuneError
from athlete.record.results import is_number
from athlete.tune.schedulers.scheduler import CONTINUE, PAUSE, Release, TrialScheduler, readable, writable
from athlete.tune.space import (
    Domain,
    Float,
    Function,
    Integer,
    Path,
    choice,
    extremes,
    get_value,
    path_name,
    sample_from,
    set_values,
)

if TYPE_CHECKING:
    from athlete.tune.trial import Trial


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
        places = {path: get_value(config, path, _as_domain(place)) for path, place in self.mutations.items()}
        return set_values(config, places)

    def extremes(self, path: Path) -> list[Any]:
        """Values of a mutated setting as far apart as they come; of a function, two draws."""
        mutation = self.mutations[path]
        if isinstance(mutation, list | tuple):
            return list(mutation)
        draw = mutation.sample if isinstance(mutation, Domain) else mutation
        return extremes(mutation) or [draw(), draw()]

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
        places = self._new_values(config)
        return places if self.custom_explore_fn is None else self._mended(config, places)

    def _new_values(self, config: Mapping[str, Any]) -> dict[Path, Any]:
        return {path: self._mutated(mutation, get_value(config, path)) for path, mutation in self.mutations.items()}

    def _mended(self, config: Mapping[str, Any], places: Mapping[Path, Any]) -> dict[Path, Any]:
        """The changed settings as `custom_explore_fn` leaves them."""
        assert self.custom_explore_fn is not None
        changed = set_values(config, places)
        mended = self.custom_explore_fn(copy.deepcopy(changed))
        if not isinstance(mended, Mapping):
            raise TuneError(f"custom_explore_fn returned {mended!r}: it returns the config")
        found = {path: get_value(mended, path) for path in places}
        if set_values(changed, found) != mended:
            raise TuneError(
                "custom_explore_fn left out a setting, or changed one that hyperparam_mutations does not have"
            )
        return found

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
            "scores": writable(self._scores),
            "history": self.history,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.next_time, self.generation = float(state["next_time"]), int(state["generation"])
        if not math.isfinite(self.next_time):
            raise ValueError(f"next_time is {self.next_time}")
        self._scores, self.history = readable(state["scores"]), list(state["history"])

    def begin_again(self) -> None:
        """Of a population without a checkpoint nothing is left: a resume begins at the first interval."""
        self.next_time, self.generation, self.history, self._scores = self.first_time, 0, [], {}


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


def _as_domain(mutation: Any) -> Any:
    if isinstance(mutation, Domain):
        return mutation
    return choice(mutation) if isinstance(mutation, list | tuple) else sample_from(lambda spec: mutation())
