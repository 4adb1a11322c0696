"""Callbacks for wandb, MLflow and Trackio, with stand-ins that write down what they are told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from tune_fakes import Counter

from athlete import tune
from athlete.tune.integrations import MLflowLoggerCallback, TrackioLoggerCallback, WandbLoggerCallback


class Runs:
    """What wandb and trackio have in common: `init` gives a run with `log` and `finish`."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def init(self, **settings: Any) -> Any:
        run = SimpleNamespace(settings=settings, logged=[], ended=None)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda exit_code=0: setattr(run, "ended", exit_code)
        self.runs.append(run)
        return run


CONFIG = {"gain": tune.grid_search([1.0, 2.0]), "kind": Counter, "fail_at": None}


def run(callback: tune.Callback, tmp_path: Path, **settings: Any) -> tune.ExperimentAnalysis:
    arguments: dict[str, Any] = {"config": CONFIG, "stop": {"training_iteration": 2}, "name": "mine", **settings}
    return tune.run(
        Counter, callbacks=[callback], local_dir=tmp_path, verbose=0, raise_on_failed_trial=False, **arguments
    )


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_every_trial_is_a_run_with_its_config_and_numbers(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, service := Runs())  # type: ignore[arg-type]
    kind: Any = WandbLoggerCallback if package == "wandb" else TrackioLoggerCallback
    analysis = run(kind("project"), tmp_path)
    assert [each.settings["name"] for each in service.runs] == [trial.name for trial in analysis.trials]
    first = service.runs[0]
    assert first.settings["project"] == "project" and first.settings["config"]["gain"] == 1.0
    assert isinstance(first.settings["config"]["kind"], str) and first.ended == 0
    assert [step for step, _ in first.logged] == [100, 200]
    assert first.logged[1][1]["episode_reward_mean"] == 2.0
    assert first.logged[1][1]["info/learner/default_policy/learner_stats/entropy"] == 0.5


def test_wandb_hears_of_failures_and_of_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", service := Runs())  # type: ignore[arg-type]
    run(WandbLoggerCallback("project", entity="us"), tmp_path, config={"fail_at": 2})
    assert (service.runs[0].ended, service.runs[0].settings["group"]) == (1, "mine")
    assert service.runs[0].settings["entity"] == "us"


class Client:
    """MLflow's client."""

    made: ClassVar[list[Client]] = []

    def __init__(self, tracking_uri: str | None = None):
        self.uri, self.experiments, self.runs = tracking_uri, {}, {}
        Client.made.append(self)

    def get_experiment_by_name(self, name: str) -> Any:
        known = self.experiments.get(name)
        return None if known is None else SimpleNamespace(experiment_id=known)

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id: str, tags: dict[str, str]) -> Any:
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = SimpleNamespace(tags=tags, params={}, metrics=[], status=None, artifacts=[])
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        self.runs[run_id].params[key] = value

    def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
        self.runs[run_id].metrics.append((step, key, value))

    def log_artifacts(self, run_id: str, folder: str, artifact_path: str) -> None:
        self.runs[run_id].artifacts.append(Path(folder).name)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status


def test_mlflow_has_a_run_for_each_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    callback = MLflowLoggerCallback("file:here", tags={"team": "a"}, save_artifact=True)
    run(callback, tmp_path, checkpoint_at_end=True)
    client = Client.made[-1]
    assert client.uri == "file:here" and list(client.experiments) == ["mine"]
    first, second = client.runs.values()
    assert (first.status, first.tags["team"], second.params["gain"]) == ("FINISHED", "a", 2.0)
    assert (200, "episode_reward_mean", 2.0) in first.metrics and first.artifacts == ["checkpoint_000002"]


@pytest.mark.parametrize(
    ("callback", "package"),
    [
        (WandbLoggerCallback("p"), "wandb"),
        (TrackioLoggerCallback("p"), "trackio"),
        (MLflowLoggerCallback(), "mlflow"),
    ],
)
def test_without_the_package_the_error_says_what_to_install(
    callback: tune.Callback, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.tracking", None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        run(callback, tmp_path)


def test_a_run_that_was_interrupted_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", service := Runs())  # type: ignore[arg-type]

    class Stops(tune.Callback):
        def on_trial_result(self, iteration: int, trial: tune.Trial, **info: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.run(
            Counter, callbacks=[WandbLoggerCallback("p"), Stops()], local_dir=tmp_path, verbose=0, config={"gain": 1.0}
        )
    assert service.runs[0].ended == 0
