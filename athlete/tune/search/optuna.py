"""Optuna's samplers over our search spaces. The one module that imports optuna, when a search begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from athlete.tune.search.searcher import Searcher, hash_of, point_paths
from athlete.tune.space import Categorical, Domain, Float, Function, Integer, Path, find, is_search, path_name

_PLAIN = (str, int, float, bool, type(None))


class OptunaSearch(Searcher):
    """Suggestions of Optuna (Akiba et al. 2019): `pip install optuna`.

    `sampler` is one of Optuna's, by default its tree of Parzen estimators (Bergstra et al. 2011) with `seed`, or the
    experiment's. `points_to_evaluate` come first. `space` adds values to the config's. A resume rebuilds the study from
    the experiment's own trials. `study` is Optuna's, for its plots and importances.
    """

    def __init__(
        self,
        space: Mapping[str, Any] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        sampler: Any = None,
        seed: int | None = None,
    ):
        super().__init__(metric, mode)
        self.space, self.points_to_evaluate = dict(space or {}), list(points_to_evaluate or ())
        self.sampler, self.seed = sampler, seed
        self.study: Any = None
        self._domains: dict[str, tuple[Path, Domain]] = {}
        self._distributions: dict[str, Any] = {}
        self._points: list[dict[Path, Any]] = []
        self._numbers: dict[str, int] = {}  # of Optuna's trials, by trial_id

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], seed: int = 0
    ) -> None:
        super().set_search_properties(metric, mode, config, seed)
        optuna = _optuna()
        self._domains = {path_name(path): (path, domain) for path, domain in _searched(config)}
        self._distributions = {name: _distribution(optuna, name, domain) for name, (_, domain) in self._domains.items()}
        if not self._domains:
            raise ValueError("OptunaSearch: the config has nothing to search, such as tune.loguniform(1e-5, 1e-3)")
        self._points = [point_paths("OptunaSearch", config, point) for point in self.points_to_evaluate]
        self._begin(seed if self.seed is None else self.seed)

    def _begin(self, seed: int) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)
        self._seed = seed
        self.study = optuna.create_study(direction="minimize" if self.mode == "min" else "maximize", sampler=sampler)

    def suggest(self, trial_id: str) -> dict[Path, Any] | None:
        if self._points:
            self._enqueue(self._points.pop(0))
        asked = self.study.ask(self._distributions)
        self._numbers[trial_id] = asked.number
        return {path: _value(domain, asked.params[name]) for name, (path, domain) in self._domains.items()}

    def on_trial_complete(self, trial_id: str, score: float | None) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        if score is None or not math.isfinite(score):
            self.study.tell(number, state=_optuna().trial.TrialState.FAIL)
        else:
            self.study.tell(number, score)

    def resume(self, trials: Iterable[tuple[str, Mapping[Path, Any], float | None, bool]]) -> None:
        trials = list(trials)
        self._points = self._points[len(trials) :]
        self._begin(hash_of(self._seed, len(trials)))  # with the same seed it would draw the same again
        for trial_id, picks, score, has_ended in trials:
            self._enqueue(picks)
            self._numbers[trial_id] = self.study.ask(self._distributions).number
            if has_ended:
                self.on_trial_complete(trial_id, score)

    def _enqueue(self, picks: Mapping[Path, Any]) -> None:
        params = {
            name: _parameter(domain, picks[path]) for name, (path, domain) in self._domains.items() if path in picks
        }
        self.study.enqueue_trial(params)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("OptunaSearch needs Optuna: pip install optuna") from error
    return optuna


def _searched(config: Mapping[str, Any]) -> list[tuple[Path, Domain]]:
    """The distributions of a config; functions are called when the others are known."""
    found = []
    for path, place in find(config):
        if not isinstance(place, Domain):
            raise ValueError(
                f"config {path_name(path)}: OptunaSearch chooses values itself and goes through no grid; make it "
                "tune.choice([...]), or leave search_alg out"
            )
        if not isinstance(place, Function):
            found.append((path, place))
    return found


def _distribution(optuna: Any, name: str, domain: Domain) -> Any:
    kinds = optuna.distributions
    if isinstance(domain, Float):
        return kinds.FloatDistribution(domain.lower, domain.upper, log=domain.log)
    if isinstance(domain, Integer):
        return kinds.IntDistribution(domain.lower, domain.last, log=domain.log)
    if isinstance(domain, Categorical):
        if any(is_search(category) for category in domain.categories):
            raise ValueError(f"config {name}: OptunaSearch takes no search within the choices of another")
        return kinds.CategoricalDistribution(
            domain.categories if _is_plain(domain) else tuple(range(len(domain.categories)))
        )
    raise ValueError(f"config {name}: OptunaSearch knows no {type(domain).__name__}; give it a range or a choice")


def _is_plain(domain: Categorical) -> bool:
    return all(isinstance(category, _PLAIN) for category in domain.categories)


def _value(domain: Domain, parameter: Any) -> Any:
    """What an Optuna parameter means; choices that it could not hold are numbered."""
    if isinstance(domain, Categorical):
        return parameter if _is_plain(domain) else domain.categories[parameter]
    assert isinstance(domain, Float | Integer)
    return domain.within(parameter)


def _parameter(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Categorical) and not _is_plain(domain):
        return domain.categories.index(value)
    return value
