"""Which trials an experiment has: all of them beforehand, or one after another as a searcher suggests them."""

from __future__ import annotations

import datetime
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from athlete.record.names import lookup
from athlete.record.results import is_number, to_json
from athlete.tune.experiment import LARGEST_EXPERIMENT, Experiment
from athlete.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from athlete.tune.space import Categorical, completed, extremes, find, is_search, set_value
from athlete.tune.space import Path as ConfigPath
from athlete.tune.trainable import chosen, config_dict, is_config, run_name, with_chosen, with_picks
from athlete.tune.trial import ERROR, TERMINATED, Trial, custom_name, folder_name, pick_tag, trial_name

SEED: ConfigPath = ("seed",)
_AT_ONCE = 8  # suggestions that a scheduler compares, where nobody says how many

Creators = tuple[Callable[[Trial], str] | None, Callable[[Trial], str] | None]


def with_seeds(config: Any, num_seeds: int) -> tuple[Any, list[int]]:
    """The config with a place for its seed, and the seeds: from the config's, or 0, upwards. None for `num_seeds` 1.

    Raises ValueError where the seed is searched already.
    """
    if num_seeds == 1:
        return config, []
    values = chosen(config)
    first = values.get("seed") or 0
    if is_search(first) or not isinstance(first, int):
        raise ValueError(
            f"tune.run(num_seeds={num_seeds}): the config searches its seed already; leave one of both out"
        )
    return with_chosen(config, set_value(values, SEED, first)), list(range(first, first + num_seeds))


def all_picks(
    searcher: BasicVariantGenerator, config: Any, num_samples: int, seed: int, seeds: Sequence[int]
) -> Iterator[dict[ConfigPath, Any]]:
    """What each trial puts into the config; each choice with all seeds, one after another."""
    for picks in searcher.variants(config_dict(config), num_samples, seed):
        if not seeds:
            yield picks
        for each in seeds:
            yield {**picks, SEED: each}


class Planner:
    """Adds trials to an experiment."""

    def __init__(self, experiment: Experiment, config: Any, creators: Creators):
        self.experiment, self.config, self._creators = experiment, config, creators
        self._date = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        first = experiment.trials[0].trial_id.rpartition("_")[0] if experiment.trials else ""
        self.tag = first or os.urandom(3).hex()[:5]

    def add(self, picks: dict[ConfigPath, Any]) -> Trial:
        """A new trial with its config built. Raises what the algorithm's config raises."""
        experiment = self.experiment
        run, index = experiment.run, len(experiment.trials)
        final = with_picks(run, self.config, picks)
        if is_config(final):  # a slip in a name is an error before anything is written
            from athlete.env.world import require_there  # which imports JAX

            require_there(final["env"], final["env_config"], final["backend"])
        trial_id, recorded, picked = f"{self.tag}_{index:05d}", config_dict(final), pick_tag(picks)
        trial = Trial(
            trial_id=trial_id,
            index=index,
            name=trial_name(run_name(run), recorded.get("env"), trial_id),
            config=recorded,
            folder=experiment.folder,
            picks=picks,
            experiment_tag=f"{index}_{picked}" if picked else str(index),
        )
        trial.name = custom_name(self._creators[0], trial, trial.name)
        own_folder = custom_name(self._creators[1], trial, folder_name(trial.name, index, picked, self._date))
        taken = any(other.folder.name == own_folder for other in experiment.trials)
        trial.folder = experiment.folder / (f"{own_folder}_{index}" if taken else own_folder)
        experiment.trials.append(trial)
        experiment.configs[trial_id] = final
        return trial

    def add_all(self, picks: Iterator[dict[ConfigPath, Any]]) -> None:
        """Raises ValueError for more trials than an experiment may have."""
        every = list(itertools.islice(picks, LARGEST_EXPERIMENT + 1))
        if len(every) > LARGEST_EXPERIMENT:
            raise ValueError(
                f"tune.run: these are more than {LARGEST_EXPERIMENT:,} trials; take smaller grids or samples"
            )
        for each in every:
            self.add(each)


class Suggestions:
    """The trials of an experiment as its searcher suggests them. A suggestion is `num_seeds` trials in a row.

    The searcher is told the mean of a suggestion's last results, when all of its trials have ended.
    """

    def __init__(self, planner: Planner, searcher: Searcher, num_samples: int, seeds: Sequence[int]):
        self._planner, self.searcher, self._seeds = planner, searcher, list(seeds)
        self._each = max(1, len(self._seeds))
        self.total = num_samples * self._each
        self._told: set[int] = set()
        self._picks: dict[ConfigPath, Any] = {}  # of the suggestion whose seeds are being handed out

    @property
    def at_once(self) -> int:
        """How many trials a scheduler compares at a time in one process."""
        limited = isinstance(self.searcher, ConcurrencyLimiter)
        return self.total if limited else min(self.total, _AT_ONCE * self._each)

    def begin(self, metric: str | None, mode: str | None, seed: int) -> None:
        """Raises ValueError where the config cannot be searched, or a value at an end of a range is impossible."""
        values, experiment = config_dict(self._planner.config), self._planner.experiment
        self.searcher.set_search_properties(metric, mode, values, seed)
        for path, domain in find(values):
            for end in extremes(domain):
                middle = {other: extremes(place)[0] for other, place in find(values) if extremes(place)}
                with_picks(experiment.run, self._planner.config, completed(values, {**middle, path: end}))

    def resume(self) -> None:
        """Tell the searcher what an experiment has that goes on."""
        experiment, values = self._planner.experiment, config_dict(self._planner.config)
        groups = [experiment.trials[at : at + self._each] for at in range(0, len(experiment.trials), self._each)]
        searched = {path for path, _ in find(values)}
        told = []
        for index, group in enumerate(groups):
            picks = {path: value for path, value in group[0].picks.items() if path in searched}
            has_ended = len(group) == self._each and all(trial.status in (TERMINATED, ERROR) for trial in group)
            if has_ended:
                self._told.add(index)
            told.append((str(index), picks, self._score(group), has_ended))
            self._picks = picks
        self.searcher.resume(told)

    def next(self) -> Trial | None:
        """The next trial; None where there is none (any more, or until another has ended)."""
        count = len(self._planner.experiment.trials)
        if count >= self.total:
            return None
        index, position = divmod(count, self._each)
        if position == 0:
            picks = self.searcher.suggest(str(index))
            if picks is None:
                return None
            self._picks = completed(config_dict(self._planner.config), picks)
        return self._planner.add({**self._picks, SEED: self._seeds[position]} if self._seeds else self._picks)

    def ended(self, trial: Trial) -> None:
        """A trial has stopped or failed."""
        index = trial.index // self._each
        group = self._planner.experiment.trials[index * self._each : (index + 1) * self._each]
        complete = len(group) == self._each and all(each.status in (TERMINATED, ERROR) for each in group)
        if complete and index not in self._told:
            self._told.add(index)
            self.searcher.on_trial_complete(str(index), self._score(group))

    def _score(self, group: Sequence[Trial]) -> float | None:
        key = self.searcher.metric or "episode_reward_mean"
        values = [lookup(trial.last_result, key) for trial in group if trial.status == TERMINATED]
        known = [float(value) for value in values if is_number(value) and math.isfinite(value)]
        return sum(known) / len(known) if known else None


def recalled(config: Any, picks: Mapping[ConfigPath, Any]) -> dict[ConfigPath, Any]:
    """Picks out of a state file: a class among the choices is but its name there."""
    places = dict(find(config_dict(config)))
    found = dict(picks)
    for path, value in picks.items():
        place = places.get(path)
        if isinstance(place, Categorical):
            found[path] = next((each for each in place.categories if to_json(each) == to_json(value)), value)
    return found
