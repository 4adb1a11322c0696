"""What an experiment found, while it is in memory or later from its folder."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlete.record.names import TuneError, lookup, nearest
from athlete.record.results import PROGRESS, flatten, is_number, to_json
from athlete.tune.experiment import STATE, read_state, read_trials
from athlete.tune.trial import Trial

if TYPE_CHECKING:
    import pandas

    from athlete.tune.report_page import Picture

logger = logging.getLogger("athlete.tune")

_DEFAULT_METRIC = "episode_reward_mean"
_SCOPES = {"last": 1, "last-5-avg": 5, "last-10-avg": 10, "avg": None, "all": None}


class ExperimentAnalysis:
    """The results of an experiment: `ExperimentAnalysis("~/athlete_results/PPO_2026-01-31_12-00-00")`.

    Wherever a `metric` can be given, it defaults to that of `tune.run(metric=...)`, then to `episode_reward_mean`; the
    `mode` likewise, then to `"max"`. Metrics of nested results are written with `/`. With a single trial the best is
    that trial, whatever the metric. Dataframes are pandas', which is imported when the first is asked for.

    Raises TuneError if the folder holds no experiment.
    """

    def __init__(
        self,
        experiment_checkpoint_path: str | os.PathLike[str],
        default_metric: str | None = None,
        default_mode: str | None = None,
        *,
        trials: list[Trial] | None = None,
        interrupted: bool = False,
    ):
        path = Path(experiment_checkpoint_path).expanduser().absolute()
        self.folder = path.parent if path.name == STATE else path
        self._state = read_state(self.folder)
        self.trials = read_trials(self.folder, self._state) if trials is None else trials
        self.default_metric = default_metric or self._state["metric"]
        self.default_mode = default_mode or self._state["mode"]
        self.interrupted = interrupted
        self._dataframes: dict[str, pandas.DataFrame] = {}

    def __repr__(self) -> str:
        counts = Counter(trial.status for trial in self.trials)
        shown = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<ExperimentAnalysis of {len(self.trials)} trials ({shown}) in {self.folder}>"

    @property
    def experiment_path(self) -> str:
        """The experiment's folder."""
        return str(self.folder)

    # All trials

    def stats(self) -> dict[str, Any]:
        """When it began and ended, in seconds since 1970, how long that took, and how many trials ended how."""
        start, end = float(self._state["start_time"]), float(self._state["timestamp"])
        counts = Counter(trial.status for trial in self.trials)
        return {
            "name": self._state["name"],
            "start_time": start,
            "timestamp": end,
            "time_total_s": end - start,
            "num_trials": len(self.trials),
            "trials_by_status": dict(counts),
            "training_iterations": sum(trial.iteration for trial in self.trials),
        }

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The last result of each trial, by trial_id."""
        return {trial.trial_id: trial.last_result for trial in self.trials}

    @property
    def results_df(self) -> pandas.DataFrame:
        """The last results, a row for each trial, with the searched parameters as `config/...`."""
        import pandas

        rows = [_row(trial, flatten(trial.last_result)) for trial in self.trials]
        return pandas.DataFrame(rows, index=pandas.Index([trial.trial_id for trial in self.trials], name="trial_id"))

    def dataframe(self, metric: str | None = None, mode: str | None = None) -> pandas.DataFrame:
        """A row for each trial: its last result, or, where a metric or a mode is given, its best by that."""
        if metric is None and mode is None:
            return self.results_df.reset_index()
        import pandas

        key, best_is_max = self.metric_of(metric), self.is_max(mode)
        rows = []
        for trial in self.trials:
            frame = self.trial_dataframes[trial.logdir]
            if key not in frame or frame[key].isna().all():
                continue
            position = frame[key].idxmax() if best_is_max else frame[key].idxmin()
            best = frame.loc[position]  # type: ignore[call-overload]
            rows.append({"trial_id": trial.trial_id, **_row(trial, best.to_dict())})
        return pandas.DataFrame(rows)

    @property
    def trial_dataframes(self) -> dict[str, pandas.DataFrame]:
        """All results of each trial, by its folder."""
        return {trial.logdir: self._dataframe(trial) for trial in self.trials}

    def fetch_trial_dataframes(self) -> dict[str, pandas.DataFrame]:
        """As `trial_dataframes`, read from disk again."""
        self._dataframes = {}
        return self.trial_dataframes

    def get_all_configs(self, prefix: bool = False) -> dict[str, dict[str, Any]]:
        """The config of each trial, by its folder; with `prefix` the keys begin with `config/`."""
        start = "config/" if prefix else ""
        return {trial.logdir: {start + key: value for key, value in trial.config.items()} for trial in self.trials}

    def results_by_config(self, metric: str | None = None, mode: str | None = None) -> pandas.DataFrame:
        """A row for each config, the best first: what its seeds (`tune.run(num_seeds=5)`) reached in the end.

        `mean` and `iqm`, the interquartile mean, of the metric's last values; from `low` to `high` its 95% bootstrap
        interval (Agarwal et al. 2021), NaN for a single seed; `num_seeds`, how many of the `trial_ids` have a finite
        value. Configs that differ in their `seed` only are one.
        """
        import pandas

        from athlete.ops.statistics import bootstrap_interval, interquartile_mean

        key, best_is_max = self.metric_of(metric), self.is_max(mode)
        rows = []
        for group in self.trials_by_config():
            values = [self._value(trial, key, best_is_max, "last") for trial in group]
            known = [value for value in values if math.isfinite(value)]
            low, high = bootstrap_interval(known) if len(known) > 1 else (math.nan, math.nan)
            rows.append(
                {f"config/{name}": value for name, value in group[0].evaluated_params.items() if name != "seed"}
                | {"num_seeds": len(known), "mean": sum(known) / len(known) if known else math.nan}
                | {"iqm": interquartile_mean(known) if known else math.nan, "low": low, "high": high}
                | {"trial_ids": [trial.trial_id for trial in group]}
            )
        return pandas.DataFrame(rows).sort_values("iqm", ascending=not best_is_max, ignore_index=True)

    def trials_by_config(self) -> list[list[Trial]]:
        """The trials, those together whose configs differ in their `seed` only."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            picks = {name: value for name, value in trial.evaluated_params.items() if name != "seed"}
            groups.setdefault(to_json(picks), []).append(trial)
        return list(groups.values())

    def plot(self, metric: str | None = None, mode: str | None = None, x: str = "timesteps_total") -> Picture:
        """What a notebook shows as learning curves with bands over seeds; `athlete plot` writes them to files.

        Raises TuneError where no trial has two finite values of the metric.
        """
        from athlete.tune.report_page import picture

        return picture(self.folder, self.metric_of(metric), self.is_max(mode), x)

    # The best trial

    @property
    def best_trial(self) -> Trial:
        return self.get_best_trial()

    @property
    def best_config(self) -> dict[str, Any]:
        return self.get_best_config()

    @property
    def best_logdir(self) -> str:
        return self.get_best_logdir()

    @property
    def best_result(self) -> dict[str, Any]:
        """The last result of the best trial."""
        return self.get_best_trial().last_result

    @property
    def best_result_df(self) -> pandas.DataFrame:
        """The row of `results_df` for the best trial."""
        return self.results_df.loc[[self.get_best_trial().trial_id]]

    @property
    def best_dataframe(self) -> pandas.DataFrame:
        """All results of the best trial."""
        return self._dataframe(self.get_best_trial())

    @property
    def best_checkpoint(self) -> str | None:
        """The best checkpoint of the best trial."""
        return self.get_best_checkpoint()

    def get_best_trial(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Trial:
        """The trial with the highest (`mode="min"`: lowest) value.

        `scope` says which value counts: `last`, the mean of the last 5 or 10 (`last-5-avg`, `last-10-avg`), of all
        (`avg`), or the best of all (`all`). Trials whose value is not finite are passed over unless
        `filter_nan_and_inf=False`. Raises TuneError if no trial is left, or none has the metric.
        """
        if len(self.trials) == 1:
            return self.trials[0]
        if scope not in _SCOPES:
            raise ValueError(f"get_best_trial(scope={scope!r}): one of {', '.join(_SCOPES)}")
        key, best_is_max = self.metric_of(metric), self.is_max(mode)
        values = [(self._value(trial, key, best_is_max, scope), trial) for trial in self.trials]
        known = [(value, trial) for value, trial in values if not math.isnan(value)]
        if filter_nan_and_inf:
            known = [(value, trial) for value, trial in known if math.isfinite(value)]
        if not known:
            raise TuneError(f"no trial has a finite {key!r}; their values are {[value for value, _ in values]}")
        return (max if best_is_max else min)(known, key=lambda pair: pair[0])[1]

    def get_best_config(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> dict[str, Any]:
        """The config of the best trial."""
        return self.get_best_trial(metric, mode, scope).config

    def get_best_logdir(self, metric: str | None = None, mode: str | None = None, scope: str = "last") -> str:
        """The folder of the best trial."""
        return self.get_best_trial(metric, mode, scope).logdir

    # Checkpoints

    def get_best_checkpoint(
        self,
        trial: Trial | None = None,
        metric: str | None = None,
        mode: str | None = None,
        return_path: bool = True,
    ) -> str | None:
        """The path of a trial's best checkpoint by the result it was saved after; by default of the best trial.

        With a single checkpoint the best is that one. None, with a warning, if there is none.
        """
        trial = self.get_best_trial(metric, mode) if trial is None else trial
        if len(trial.checkpoints) < 2:
            return self.get_last_checkpoint(trial)
        key, best_is_max = self.metric_of(metric), self.is_max(mode)
        values = {path: value for path, value in self.get_trial_checkpoints_paths(trial, key) if math.isfinite(value)}
        if not values:
            logger.warning("%s: %r is not finite at any checkpoint; taking the newest", trial.name, key)
            return trial.checkpoint
        return (max if best_is_max else min)(values, key=lambda path: values[path])

    def get_last_checkpoint(self, trial: Trial | None = None, **unused: Any) -> str | None:
        """The path of a trial's newest checkpoint; by default of the trial that trained longest."""
        if trial is None:
            trial = max(self.trials, key=lambda each: each.checkpoints[-1].iteration if each.checkpoints else -1)
        if trial.checkpoint is None:
            logger.warning("%s saved no checkpoint: pass checkpoint_freq=... or checkpoint_at_end=True", trial.name)
        return trial.checkpoint

    def get_trial_checkpoints_paths(self, trial: Trial, metric: str | None = None) -> list[tuple[str, float]]:
        """The checkpoints of a trial, oldest first, each with its metric (NaN where that was not measured)."""
        key = self.metric_of(metric)
        frame = self._dataframe(trial)
        if key not in frame:
            raise TuneError(self._unknown(key))
        values = dict(zip(frame["training_iteration"], frame[key], strict=True))
        return [
            (checkpoint.path, float(values.get(checkpoint.iteration, math.nan))) for checkpoint in trial.checkpoints
        ]

    # What is meant

    def metric_of(self, metric: str | None) -> str:
        """The metric that is meant, which at least one trial must have."""
        key = metric or self.default_metric or _DEFAULT_METRIC
        if any(is_number(lookup(trial.last_result, key)) for trial in self.trials):
            return key
        if any(key in self._dataframe(trial) for trial in self.trials):  # evaluation: not on the last iteration
            return key
        raise TuneError(self._unknown(key))

    def is_max(self, mode: str | None) -> bool:
        """Whether higher is better, by the mode that is meant."""
        mode = mode or self.default_mode or "max"
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r}: 'min' or 'max'")
        return mode == "max"

    # Inside

    def _dataframe(self, trial: Trial) -> pandas.DataFrame:
        import pandas

        if trial.logdir not in self._dataframes:
            path = trial.folder / PROGRESS
            self._dataframes[trial.logdir] = pandas.read_csv(path) if path.exists() else pandas.DataFrame()
        return self._dataframes[trial.logdir]

    def _unknown(self, key: str) -> str:
        flat = {
            name: None
            for trial in self.trials
            for name, value in flatten(trial.last_result).items()
            if is_number(value)
        }
        close = nearest(key, flat)
        if close:
            hint = "did you mean " + " or ".join(map(repr, close)) + "?"
        else:
            hint = f"they have {', '.join(flat)}" if flat else "there are no results yet"
        return f"the results have no number {key!r}: {hint}"

    def _value(self, trial: Trial, key: str, best_is_max: bool, scope: str) -> float:
        last = lookup(trial.last_result, key)
        if scope == "last" and is_number(last):
            return float(last)
        frame = self._dataframe(trial)
        if key not in frame or frame[key].isna().all():
            return math.nan
        column = frame[key].dropna()
        if scope == "all":
            return float(column.max() if best_is_max else column.min())
        count = _SCOPES[scope] or len(column)
        return float(column.iloc[-count:].mean())


def _row(trial: Trial, flat: dict[str, Any]) -> dict[str, Any]:
    """A trial's row in a dataframe: numbers and words, what the search chose, and the folder."""
    values = {key: value for key, value in flat.items() if isinstance(value, str) or is_number(value)}
    values.pop("trial_id", None)  # the index has it
    chosen = {f"config/{name}": value for name, value in trial.evaluated_params.items()}
    return {**values, **chosen, "logdir": trial.logdir}
