"""Callbacks that send results to Weights & Biases, MLflow or Trackio: `tune.run(callbacks=[WandbLoggerCallback(...)])`.

Each trial is a run of theirs, with its config, and every number of its results at its timestep. The packages are
imported when the experiment begins.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from athlete.record.results import flatten, is_number, to_json
from athlete.record.tensorboard import step_of
from athlete.tune.callbacks import LoggerCallback

if TYPE_CHECKING:
    from athlete.tune.trial import Trial


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a result, with nested names joined by `/`."""
    flat = flatten(dict(result))
    return {name: float(value) for name, value in flat.items() if is_number(value) and math.isfinite(value)}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with classes and functions as their names, flat."""
    kept = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, kept) else to_json(value) for name, value in flatten(dict(config)).items()}


def _imported(module: str, title: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{title} needs {package}: pip install {package}") from error


class _Runs(LoggerCallback):
    """A service whose package's `init` gives a run with `log` and `finish`."""

    package: ClassVar[str]

    def __init__(self) -> None:
        self._runs: dict[str, Any] = {}  # by trial_id

    def setup(
        self, stop: Any = None, num_samples: int | None = None, total_num_samples: int | None = None, **info: Any
    ) -> None:
        self._service = _imported(self.package, type(self).__name__)

    def log_trial_start(self, trial: Trial) -> None:
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._begun(trial)

    def _begun(self, trial: Trial) -> Any:
        raise NotImplementedError

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        self._runs[trial.trial_id].log(numbers(result), step=step_of(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        run = self._runs.pop(trial.trial_id, None)
        if run is not None:
            self._end(run, failed)

    def _end(self, run: Any, failed: bool) -> None:
        run.finish()


class WandbLoggerCallback(_Runs):
    """Results to Weights & Biases, a run for each trial, which a resume goes on with.

    `group` is by default the experiment's name; `settings` go to `wandb.init`.
    """

    package = "wandb"

    def __init__(self, project: str | None = None, group: str | None = None, log_config: bool = True, **settings: Any):
        super().__init__()
        self.project, self.group, self.log_config, self.settings = project, group, log_config, settings

    def _begun(self, trial: Trial) -> Any:
        return self._service.init(
            project=self.project,
            group=self.group or trial.folder.parent.name,
            name=trial.name,
            id=trial.trial_id,
            resume="allow",
            reinit="create_new",  # several trials may be running
            config=plain(trial.config) if self.log_config else None,
            **self.settings,
        )

    def _end(self, run: Any, failed: bool) -> None:
        run.finish(exit_code=int(failed))


class TrackioLoggerCallback(_Runs):
    """Results to Trackio, a run for each trial; `settings` go to `trackio.init`."""

    package = "trackio"

    def __init__(self, project: str, **settings: Any):
        super().__init__()
        self.project, self.settings = project, settings

    def _begun(self, trial: Trial) -> Any:
        return self._service.init(
            project=self.project, name=trial.name, config=plain(trial.config), resume="allow", **self.settings
        )


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
        tracking = _imported("mlflow.tracking", type(self).__name__)
        self._client = tracking.MlflowClient(tracking_uri=self.tracking_uri)

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
