"""`tune.run` with a real algorithm: every way to name it, searches in its config, evaluation, exact resumes."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from athlete import tune
from athlete.algorithm import Algorithm
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.record.results import read_params, read_results
from athlete.tune.space import variants
from athlete.tune.trainable import with_picks

run = functools.partial(tune.run, verbose=0)
SMALL = {
    "env": "CartPole-v1",
    "num_envs_per_worker": 2,
    "train_batch_size": 32,
    "minibatch_size": 16,
    "num_epochs": 1,
    "model": {"fcnet_hiddens": [8]},
    "seed": 0,
}
ONCE = {"training_iteration": 1}


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


def config(**settings: Any) -> PPOConfig:
    return PPOConfig.from_dict(SMALL | settings)


@pytest.mark.parametrize(
    ("what", "settings"),
    [("PPO", SMALL), (PPOConfig, SMALL), (PPO, SMALL), ("PPO", config()), (Algorithm, config()), (config(), None)],
    ids=[
        "name and dictionary",
        "config class",
        "agent class",
        "name and config",
        "Algorithm and config",
        "config alone",
    ],
)
def test_every_way_to_name_an_algorithm_trains_the_same(what: Any, settings: Any) -> None:
    (trial,) = run(what, config=settings, stop=ONCE).trials
    assert trial.last_result["info"]["learner"]["default_policy"]["learner_stats"]["total_loss"] == LOSS()
    params = read_params(trial.folder)
    assert (params["lr"], params["train_batch_size"]) == (0.0003, 32), "defaults are recorded too"


@functools.cache
def LOSS() -> float:
    algorithm = config().build()
    result = algorithm.train()
    algorithm.stop()
    return result["info"]["learner"]["default_policy"]["learner_stats"]["total_loss"]


def test_searches_in_sections_and_nested_ones_reach_the_algorithm() -> None:
    searched = config().training(lr=tune.grid_search([1e-3, 1e-4]), model={"fcnet_hiddens": [tune.choice([8])]})
    trials = run("PPO", config=searched, stop=ONCE).trials
    assert [trial.config["lr"] for trial in trials] == [1e-3, 1e-4]
    assert [trial.config["model"]["fcnet_hiddens"] for trial in trials] == [[8]] * 2
    assert all(trial.name.startswith("PPO_CartPole-v1_") for trial in trials)
    assert trials[0].last_result["info"] != trials[1].last_result["info"]


def test_a_search_may_stand_for_a_whole_dictionary() -> None:
    models = [{"fcnet_hiddens": [8]}, {"fcnet_activation": "relu"}]
    whole = config().training(model=tune.grid_search(models))
    found = [with_picks(PPOConfig, whole, picks).to_dict()["model"] for picks in variants(whole.to_dict(), 1, seed=0)]
    assert found == models


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gama": 0.9}, "PPO has no 'gama'; did you mean 'gamma'"),
        ({"gamma": tune.grid_search([0.9, 1.5])}, r"gamma=1\.5: expected a number between 0 and 1"),
        ({"env": None}, "no environment"),
    ],
)
def test_a_wrong_config_is_an_error_before_anything_begins(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run("PPO", config=SMALL | settings)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_there_and_configs_of_others() -> None:
    with pytest.raises(ValueError, match="there is no algorithm 'PP'; did you mean 'PPO'"):
        run("PP")
    with pytest.raises(TypeError, match="another algorithm's"):

        class OtherConfig(PPOConfig):
            pass

        run(OtherConfig, config=config())


def test_evaluation_is_recorded_and_may_stop(tmp_path: Path) -> None:
    settings = SMALL | {"evaluation_interval": 2, "evaluation_duration": 2}
    analysis = run("PPO", config=settings, stop={"evaluation/episode_reward_mean": 1, "training_iteration": 9})
    (trial,) = analysis.trials
    assert trial.iteration == 2
    assert ["evaluation" in row for row in read_results(trial.folder)] == [False, True]
    assert "evaluation/episode_reward_mean" in analysis.best_dataframe


def test_a_checkpoint_of_a_trial_is_an_algorithm() -> None:
    analysis = run("PPO", config=SMALL, stop={"training_iteration": 2}, checkpoint_at_end=True)
    algorithm = Algorithm.from_checkpoint(analysis.best_checkpoint)
    assert algorithm.iteration == 2
    algorithm.stop()
    again = tune.ExperimentAnalysis(analysis.experiment_path).best_config
    assert PPOConfig.from_dict(again).to_dict() == config().to_dict()


def weights(path: str | None) -> list[np.ndarray]:
    import jax

    algorithm = Algorithm.from_checkpoint(str(path))
    leaves = jax.tree.leaves(algorithm.get_weights())
    algorithm.stop()
    return leaves


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process on Windows")
def test_an_interrupted_and_resumed_trial_equals_one_at_a_stretch() -> None:
    class Interrupt(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["training_iteration"] == 2:
                os.kill(os.getpid(), signal.SIGINT)

    settings = {"config": SMALL, "stop": {"training_iteration": 4}, "checkpoint_at_end": True}
    assert run("PPO", name="mine", callbacks=[Interrupt()], **settings).interrupted
    resumed = run("PPO", name="mine", resume=True, **settings | {"config": None})
    straight = run("PPO", **settings)
    for one, other in zip(weights(resumed.best_checkpoint), weights(straight.best_checkpoint), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [read_results(analysis.trials[0].folder) for analysis in (resumed, straight)]
    rewards = [[row["episode_reward_mean"] for row in part] for part in rows]
    assert len(rewards[0]) == 4 and str(rewards[0]) == str(rewards[1])  # as text, where NaN equals NaN


def test_parallel_trials_of_an_algorithm() -> None:
    searched = SMALL | {"lr": tune.grid_search([1e-3, 1e-4])}
    analysis = run(
        "PPO", config=searched, stop={"training_iteration": 2}, max_concurrent_trials=2, checkpoint_at_end=True
    )
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 2
    assert len({trial.last_result["pid"] for trial in analysis.trials}) == 2
    serial = run("PPO", config=searched, stop={"training_iteration": 2})
    for one, other in zip(analysis.trials, serial.trials, strict=True):
        assert one.last_result["info"] == other.last_result["info"]


def test_an_environment_defined_in_a_script_trains_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
from gymnasium.envs.classic_control import CartPoleEnv
from athlete import tune
class Mine(CartPoleEnv):
    def __init__(self, env_config): super().__init__()
settings = {SMALL!r} | {{"env": Mine}}
analysis = tune.run("PPO", config=settings, stop={{"training_iteration": 1}}, max_concurrent_trials=2, verbose=0)
print([trial.status for trial in analysis.trials], analysis.trials[0].name.startswith("PPO_Mine_"))
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "['TERMINATED'] True\n", done.stderr
