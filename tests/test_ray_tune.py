"""Trials in a Ray cluster: the results of trials in this process, whose checkpoints come home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from test_fault_tolerance import wait_for
from test_layers import modules_after
from tune_fakes import Counter, Halves

from athlete import Algorithm, tune
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.record.results import read_results

ray = pytest.importorskip("ray")

CPUS = 2  # as Ray counts them
TIMING = {"time_this_iter_s", "time_total_s", "timestamp", "date", "trial_id", "experiment_tag"}


@pytest.fixture(scope="module", autouse=True)
def connected():
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  else they starve where a machine does much besides
    ray.init("local", num_cpus=CPUS, object_store_memory=100_000_000, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


def run(what: Any, **settings: Any) -> tune.ExperimentAnalysis:
    return tune.run(what, **{"ray": True, "verbose": 0, **settings})


def rows_of(analysis: tune.ExperimentAnalysis) -> list[list[dict[str, Any]]]:
    found = [read_results(trial.folder) for trial in analysis.trials]
    return [[{k: v for k, v in row.items() if k not in TIMING} for row in rows] for rows in found]


def test_trials_in_ray_give_the_results_of_those_in_this_process_and_their_checkpoints_are_here() -> None:
    config = {"gain": tune.grid_search([1.0, 2.0, 3.0]), "evaluation_interval": 2}
    settings = {"config": config, "stop": {"episode_reward_mean": 6}, "checkpoint_freq": 2}
    in_ray, here = run(Counter, **settings), tune.run(Counter, verbose=0, **settings)
    assert rows_of(in_ray) == rows_of(here)
    for one, other in zip(in_ray.trials, here.trials, strict=True):
        assert [Path(c.path).name for c in one.checkpoints] == [Path(c.path).name for c in other.checkpoints]
        assert json.loads((Path(one.checkpoint) / "count.json").read_text()) == one.checkpoints[-1].iteration


def test_actors_serve_several_trials_and_no_more_run_than_there_is_room_for() -> None:
    def train(config: dict[str, Any]) -> None:
        tune.report(process=os.getpid())

    analysis = run(train, config={"x": tune.grid_search([1, 2, 3, 4, 5])})
    processes = {trial.last_result["process"] for trial in analysis.trials}
    assert os.getpid() not in processes and len(processes) <= CPUS
    wait_for(lambda: ray.available_resources().get("CPU") == CPUS)


def test_a_trial_whose_actor_dies_is_a_failed_one_that_goes_on_where_that_is_asked_for(tmp_path: Path) -> None:
    stop = {"training_iteration": 4}
    with pytest.raises(tune.TuneError, match="the trial's actor was lost"):
        run(Counter, config={"die_at": 3}, stop=stop)
    config = {"died": str(tmp_path / "died")}
    (trial,) = run(DiesOnce, config=config, stop=stop, checkpoint_freq=2, max_failures=1).trials
    assert (trial.status, trial.failures, trial.last_result["training_iteration"]) == ("TERMINATED", 1, 4)


class DiesOnce(Counter):
    """Its process ends in its third iteration, the first time."""

    def train(self) -> dict[str, Any]:
        if self.iteration == 2 and not Path(self.config["died"]).exists():
            Path(self.config["died"]).touch()
            os._exit(7)
        return super().train()


def test_a_failed_trial_tells_its_traceback_and_is_tried_again_from_its_checkpoint(tmp_path: Path) -> None:
    config = {"fail_at": 3, "fail_once": str(tmp_path / "failed")}
    (trial,) = run(Counter, config=config, stop={"training_iteration": 4}, checkpoint_freq=2, max_failures=1).trials
    assert (trial.status, trial.failures, trial.last_result["training_iteration"]) == ("TERMINATED", 1, 4)
    assert "the environment broke" in Path(trial.error_file or "").read_text()


def test_a_training_comes_home_as_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    config = PPOConfig().environment("CartPole-v1").debugging(seed=0).training(model={"fcnet_hiddens": [8]})
    config.training(train_batch_size=64, minibatch_size=32, num_epochs=1, lr=tune.grid_search([1e-3, 1e-4]))
    settings = {"config": config, "stop": {"training_iteration": 2}, "checkpoint_at_end": True}
    in_ray, here = run("PPO", **settings), tune.run("PPO", verbose=0, **settings)
    for one, other in zip(in_ray.trials, here.trials, strict=True):
        assert one.last_result["episode_reward_mean"] == other.last_result["episode_reward_mean"]
        with Algorithm.from_checkpoint(one.checkpoint) as restored:
            assert restored.train()["training_iteration"] == 3


@pytest.mark.parametrize(
    "scheduler",
    [
        tune.schedulers.ASHAScheduler(metric="episode_reward_mean", mode="max", grace_period=2, max_t=8),
        tune.schedulers.HyperBandScheduler(metric="episode_reward_mean", mode="max", max_t=9),
        tune.schedulers.PopulationBasedTraining(
            metric="episode_reward_mean",
            mode="max",
            perturbation_interval=2,
            hyperparam_mutations={"gain": [1.0, 2.0, 3.0, 4.0]},
            quantile_fraction=0.5,
        ),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_schedulers_decide_as_they_do_here(scheduler: Any) -> None:
    config = {"gain": tune.grid_search([1.0, 2.0, 3.0, 4.0])}
    settings = {"config": config, "stop": {"training_iteration": 8}, "seed": 0, "scheduler": scheduler}
    analysis = run(Counter, **settings)
    assert {trial.status for trial in analysis.trials} == {"TERMINATED"}
    assert max(trial.last_result["episode_reward_mean"] for trial in analysis.trials) == 32.0


def test_searchers_suggest_and_hear_what_they_do_here() -> None:
    settings = {"config": {"gain": tune.uniform(0.0, 10.0)}, "num_samples": 4, "stop": {"training_iteration": 2}}
    searcher = Halves()
    analysis = run(Counter, search_alg=tune.search.ConcurrencyLimiter(searcher, max_concurrent=1), **settings)
    assert [trial.config["gain"] for trial in analysis.trials] == [4.0, 2.0, 1.0, 0.5]
    assert searcher.told == [("0", 8.0), ("1", 4.0), ("2", 2.0), ("3", 1.0)]
    pytest.importorskip("optuna")
    metric = {"metric": "episode_reward_mean", "mode": "max"}
    analysis = run(Counter, search_alg=tune.search.OptunaSearch(), **metric, **settings)
    gains = [trial.config["gain"] for trial in analysis.trials]
    assert len(set(gains)) == 4 and analysis.best_result["episode_reward_mean"] == 2 * max(gains)


def test_without_a_frequency_a_trial_in_ray_saves_by_the_clock_and_keeps_the_newest(monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["athlete.tune.run"], "CHECKPOINT_SECONDS", 0.0)
    (trial,) = run(Counter, stop={"training_iteration": 3}).trials
    assert [checkpoint.iteration for checkpoint in trial.checkpoints] == [3]


PROGRAM = textwrap.dedent("""
    import sys
    sys.path.insert(0, sys.argv[1])
    import ray
    from athlete import tune
    from tune_fakes import Counter, Halves
    ray.init("local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, logging_level="ERROR")
    config = {"gain": tune.grid_search([1.0, 2.0]), "sleep": 0.05}
    stop = {"training_iteration": 1000}
    tune.run(Counter, config=config, stop=stop, name="killed", checkpoint_freq=2, ray=True, verbose=0)
""")


def test_an_experiment_in_ray_goes_on_after_kill_9(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]) as driver:
        while len(list(tmp_path.glob("killed/*/checkpoint_000006"))) < 2 and driver.poll() is None:
            time.sleep(0.01)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    config, stop = {"gain": tune.grid_search([1.0, 2.0]), "sleep": 0.0}, {"training_iteration": 50}
    analysis = run(Counter, config=config, stop=stop, name="killed", checkpoint_freq=2, resume=True)
    for rows in rows_of(analysis):
        assert [row["training_iteration"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 50


def test_tuner_is_the_same() -> None:
    configured = {"tune_config": tune.TuneConfig(ray=True, resources_per_trial={"cpu": 2})}
    stop = tune.RunConfig(stop={"training_iteration": 2}, verbose=0)
    grid = tune.Tuner(Counter, param_space={"gain": tune.grid_search([1.0, 2.0])}, run_config=stop, **configured).fit()
    assert [result.metrics["episode_reward_mean"] for result in grid] == [2.0, 4.0]


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_concurrent_trials": 3},
            r"ray=True\), 3 trials at a time: 1 CPU each, and the cluster, of 2 CPUs, has room",
        ),
        ({"resources_per_trial": {"cpu": 3}}, "1 trials at a time: 3 CPU each.*has room for 0; take fewer"),
        ({"resources_per_trial": {"gpu": 1}}, "1 CPU, 1 GPU each"),
        ({"resources_per_trial": {"cpu": "two"}}, "cpu is a number of at least 0"),
        (
            {"config": {"ray": True, "num_rollout_workers": 2}},
            "with its workers in Ray a trial takes 3 CPUs, and the cluster has 2",
        ),
    ],
)
def test_more_than_the_cluster_has_is_refused_before_anything_starts(settings, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(Counter, **settings)
    assert not list(tmp_path.iterdir())


def test_checkpoints_too_large_to_travel_are_refused_before_anything_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("athlete.tune.ray_slots.LARGEST_PARCEL", 1_000_000)
    config = DQNConfig().environment("CartPole-v1").training(replay_buffer_config={"capacity": 1_000_000})
    with pytest.raises(
        ValueError, match=r"its full replay memory takes \d+.\d MB, and checkpoints travel as bytes, 1.0 MB"
    ):
        run("DQN", config=config, name="large")
    assert not list(tmp_path.glob("large/*/"))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "large").write_bytes(bytes(1_000_001))
    with pytest.raises(ValueError, match=r"restore=...\): .*checkpoint takes 1.0 MB"):
        run(Counter, restore=tmp_path / "checkpoint")


def test_a_file_may_ask_for_ray_and_not_name_an_address(tmp_path: Path) -> None:
    from athlete.tuned_examples.experiment_file import read_experiments

    text = "one: {{run: PPO, env: CartPole-v1, ray: {}, stop: {{training_iteration: 1}}}}"
    (tmp_path / "file.yaml").write_text(text.format("true"))
    assert read_experiments(tmp_path / "file.yaml")[0].settings["ray"] is True
    (tmp_path / "file.yaml").write_text(text.format("'ray://elsewhere:10001'"))
    with pytest.raises(
        ValueError, match="ray asks for a connection to the cluster at 'ray://elsewhere:10001', which a file"
    ):
        read_experiments(tmp_path / "file.yaml")


def test_neither_ray_nor_jax_is_loaded_by_importing_tune() -> None:
    assert not {"ray", "jax", "optuna"} & modules_after("import athlete.tune")
