"""Callbacks that send results to Weights & Biases, MLflow or Trackio: `tune.run(callbacks=[WandbLoggerCallback(...)])`.

Each trial is a run of theirs, with its config, and every number of its results at its timestep. The packages are
imported when the experiment begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.record.results import flatten, is_number, to_json
from athlete.tune.callbacks import LoggerCallback

if TYPE_CHECKING:
    from athlete.tune.trial import Trial


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a result, with nested names joined by `/`."""
    flat = flatten(dict(result))
    return {name: float(value) for name, value in flat.items() if is_number(value) and math.isfinite(value)}


def step_of(result: Mapping[str, Any]) -> int:
    """Where a result stands: its timesteps, else its iteration."""
    return int(result.get("timesteps_total") or result.get("training_iteration", 0))


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with classes and functions as their names, flat."""
    kept = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, kept) else to_json(value) for name, value in flatten(dict(config)).items()}


class WandbLoggerCallback(LoggerCallback):
    """Results to Weights & Biases, a run for each trial, which a resume goes on with.

    `group` is by default the experiment's name; `settings` go to `wandb.init`.
    """

    def __init__(self, project: str | None = None, group: str | None = None, log_config: bool = True, **settings: Any):
        self.project, self.group, self.log_config, self.settings = project, group, log_config, settings
        self._runs: dict[str, Any] = {}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("WandbLoggerCallback needs wandb: pip install wandb") from error
        self._wandb = wandb

    def log_trial_start(self, trial: Trial) -> None:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._wandb.init(
                project=self.project,
                group=self.group or trial.folder.parent.name,
                name=trial.name,
                id=trial.trial_id,
                resume="allow",
                reinit="create_new",  # several trials may be running
                config=plain(trial.config) if self.log_config else None,
                **self.settings,
            )

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        self._runs[trial.trial_id].log(numbers(result), step=step_of(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            run.finish(exit_code=int(failed))


class TrackioLoggerCallback(LoggerCallback):
    """Results to Trackio, a run for each trial; `settings` go to `trackio.init`."""

    def __init__(self, project: str, **settings: Any):
        self.project, self.settings = project, settings
        self._runs: dict[str, Any] = {}

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        try:
            import trackio
        except ImportError as error:
            raise ImportError("TrackioLoggerCallback needs trackio: pip install trackio") from error
        self._trackio = trackio

    def log_trial_start(self, trial: Trial) -> None:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._trackio.init(
                project=self.project, name=trial.name, config=plain(trial.config), resume="allow", **self.settings
            )

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        self._runs[trial.trial_id].log(numbers(result), step=step_of(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            run.finish()


class MLflowLoggerCallback(LoggerCallback):
    """Results to MLflow, a run for each trial; checkpoints too with `save_artifact=True`.

    `experiment_name` is by default the experiment's name, `tags` go to every run.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        save_artifact: bool = False,
    ):
        self.tracking_uri, self.experiment_name = tracking_uri, experiment_name
        self.tags, self.save_artifact = dict(tags or {}), save_artifact
        self._runs: dict[str, str] = {}  # run_id by trial_id

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ImportError("MLflowLoggerCallback needs mlflow: pip install mlflow") from error
        self._client = MlflowClient(tracking_uri=self.tracking_uri)

    def log_trial_start(self, trial: Trial) -> None:
        if trial.trial_id in self._runs:
            return
        name = self.experiment_name or trial.folder.parent.name
        known = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if known is None else known.experiment_id
        tags = {**self.tags, "trial_name": trial.name, "mlflow.runName": trial.name}
        run_id = self._client.create_run(experiment_id, tags=tags).info.run_id
        for key, value in plain(trial.config).items():
            self._client.log_param(run_id, key, value)
        self._runs[trial.trial_id] = run_id

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        for key, value in numbers(result).items():
            self._client.log_metric(self._runs[trial.trial_id], key, value, step=step_of(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        run_id = self._runs.pop(trial.trial_id, None)
        if run_id is None:
            return
        if self.save_artifact and trial.checkpoint is not None:
            self._client.log_artifacts(run_id, trial.checkpoint, artifact_path="checkpoint")
        self._client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")
