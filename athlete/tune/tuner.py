"""The newer face of experiments: `Tuner(trainable, param_space=...).fit()`. All of it is `tune.run`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlete.record.names import TuneError
from athlete.record.results import flatten
from athlete.tune.analysis import ExperimentAnalysis
from athlete.tune.experiment import STATE, read_state
from athlete.tune.run import run
from athlete.tune.trial import ERROR, TERMINATED, Trial

if TYPE_CHECKING:
    import pandas


@dataclass
class CheckpointConfig:
    """When checkpoints are saved and which are kept, as `tune.run`'s settings in brackets."""

    num_to_keep: int | None = None  # keep_checkpoints_num
    checkpoint_score_attribute: str | None = None  # checkpoint_score_attr
    checkpoint_score_order: str = "max"  # "min": lower is better
    checkpoint_frequency: int = 0  # checkpoint_freq
    checkpoint_at_end: bool = False

    def settings(self) -> dict[str, Any]:
        """The same as arguments of `tune.run`. Raises ValueError for an order that is neither."""
        if self.checkpoint_score_order not in ("min", "max"):
            raise ValueError(
                f"CheckpointConfig(checkpoint_score_order={self.checkpoint_score_order!r}): 'min' or 'max'"
            )
        attribute = self.checkpoint_score_attribute
        if attribute is not None and self.checkpoint_score_order == "min":
            attribute = f"min-{attribute}"
        return {
            "keep_checkpoints_num": self.num_to_keep,
            "checkpoint_score_attr": attribute,
            "checkpoint_freq": self.checkpoint_frequency,
            "checkpoint_at_end": self.checkpoint_at_end,
        }


@dataclass
class FailureConfig:
    """What happens when a trial fails, as `tune.run`'s settings of the same names."""

    max_failures: int = 0
    fail_fast: bool | str = False


@dataclass
class TuneConfig:
    """What is searched, as `tune.run`'s settings of the same names."""

    metric: str | None = None
    mode: str | None = None
    num_samples: int = 1
    num_seeds: int = 1
    mapped: bool = False
    max_concurrent_trials: int | None = None
    ray: bool | str = False
    resources_per_trial: Any = None
    time_budget_s: Any = None
    seed: int | None = None
    trial_name_creator: Any = None
    trial_dirname_creator: Any = None
    search_alg: Any = None
    scheduler: Any = None
    reuse_actors: Any = None


@dataclass
class RunConfig:
    """How trials run and where they are kept, as `tune.run`'s settings of the same names."""

    name: str | None = None
    storage_path: str | os.PathLike[str] | None = None
    local_dir: str | os.PathLike[str] | None = None
    stop: Any = None
    callbacks: Any = None
    checkpoint_config: CheckpointConfig = field(default_factory=CheckpointConfig)
    failure_config: FailureConfig = field(default_factory=FailureConfig)
    progress_reporter: Any = None
    verbose: int = 1
    sync_config: Any = None
    log_to_file: Any = None


class Tuner:
    """An experiment to run: `Tuner("PPO", param_space={...}, run_config=RunConfig(stop={...})).fit()`.

    `trainable` is what `tune.run` takes, `param_space` its `config`. A failed trial raises nothing: the grid has it.
    """

    def __init__(
        self,
        trainable: Any,
        *,
        param_space: Any = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
    ):
        self._trainable, self._param_space = trainable, param_space
        self._tune_config, self._run_config = tune_config or TuneConfig(), run_config or RunConfig()
        self._resume: str | bool = False
        self._results: ResultGrid | None = None

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        trainable: Any = None,
        *,
        param_space: Any = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        restart_errored: bool = False,
    ) -> Tuner:
        """The experiment in a folder, ready to go on with `fit()`.

        An algorithm is known by its recorded name; classes and functions must be given. Stops are not recorded: they
        are those of `run_config`. Raises TuneError if the folder holds no experiment.
        """
        folder = Path(path).expanduser().absolute()
        state = read_state(folder)
        tuner = cls(
            trainable or state["run"],
            param_space=param_space,
            tune_config=tune_config or TuneConfig(metric=state["metric"], mode=state["mode"]),
            run_config=run_config or RunConfig(),
        )
        tuner._run_config.name, tuner._run_config.local_dir = folder.name, folder.parent
        errored = "RESTART_ERRORED" if restart_errored else "ERRORED" if resume_errored else ""
        tuner._resume = "+".join(["LOCAL", *([errored + ("" if resume_unfinished else "_ONLY")] if errored else [])])
        return tuner

    @classmethod
    def can_restore(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a folder holds an experiment."""
        return (Path(path).expanduser() / STATE).is_file()

    def fit(self) -> ResultGrid:
        """Run the experiment to its end."""
        searched, ran = self._tune_config, self._run_config
        analysis = run(
            self._trainable,
            config=self._param_space,
            **vars(searched),
            name=ran.name,
            local_dir=ran.storage_path or ran.local_dir,
            stop=ran.stop,
            callbacks=ran.callbacks,
            progress_reporter=ran.progress_reporter,
            verbose=ran.verbose,
            sync_config=ran.sync_config,
            log_to_file=ran.log_to_file,
            resume=self._resume,
            raise_on_failed_trial=False,
            **vars(ran.failure_config),
            **ran.checkpoint_config.settings(),
        )
        self._results = ResultGrid(analysis)
        return self._results

    def get_results(self) -> ResultGrid:
        """What `fit()` returned. Raises TuneError before it was called."""
        if self._results is None:
            raise TuneError("Tuner.get_results(): there are none yet; call fit() first")
        return self._results


class Result:
    """One trial's outcome: `metrics`, `config`, `checkpoint` (a path), `error`, `path`, `metrics_dataframe`."""

    def __init__(self, analysis: ExperimentAnalysis, trial: Trial):
        self._analysis, self._trial = analysis, trial
        self.metrics = trial.last_result
        self.config = trial.config
        self.path = self.log_dir = trial.logdir
        self.checkpoint = trial.checkpoint
        self.error: TuneError | None = None
        if trial.status == ERROR and trial.error_file:
            self.error = TuneError(Path(trial.error_file).read_text(encoding="utf-8"))

    @property
    def metrics_dataframe(self) -> pandas.DataFrame:
        """All results of the trial."""
        return self._analysis.trial_dataframes[self._trial.logdir]

    @property
    def best_checkpoints(self) -> list[tuple[str, dict[str, Any]]]:
        """The checkpoints that were kept, oldest first, each with the result it was saved after."""
        frame = self.metrics_dataframe
        kept: list[tuple[str, dict[str, Any]]] = []
        for checkpoint in self._trial.checkpoints:
            rows = frame[frame["training_iteration"] == checkpoint.iteration]
            kept.append((checkpoint.path, dict(rows.iloc[-1]) if len(rows) else {}))
        return kept

    def __repr__(self) -> str:
        return f"<Result of {self._trial.name}: {len(flatten(self.metrics))} metrics in {self.path}>"


class ResultGrid:
    """The outcomes of all trials: `len(grid)`, `grid[0]`, `grid.get_best_result(metric, mode)`, `grid.errors`."""

    def __init__(self, analysis: ExperimentAnalysis):
        self.experiment_analysis = analysis
        self._results = [Result(analysis, trial) for trial in analysis.trials]

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, index: int) -> Result:
        return self._results[index]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    @property
    def experiment_path(self) -> str:
        """The experiment's folder."""
        return self.experiment_analysis.experiment_path

    @property
    def errors(self) -> list[TuneError]:
        return [result.error for result in self._results if result.error is not None]

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    @property
    def num_terminated(self) -> int:
        return sum(trial.status == TERMINATED for trial in self.experiment_analysis.trials)

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """The best trial's outcome, by the rules of `ExperimentAnalysis.get_best_trial`."""
        best = self.experiment_analysis.get_best_trial(metric, mode, scope, filter_nan_and_inf)
        return self._results[self.experiment_analysis.trials.index(best)]

    def get_dataframe(self, filter_metric: str | None = None, filter_mode: str | None = None) -> pandas.DataFrame:
        """A row for each trial: its last result, or its best by a metric."""
        return self.experiment_analysis.dataframe(filter_metric, filter_mode)
