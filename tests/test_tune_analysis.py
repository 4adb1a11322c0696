"""What an experiment's analysis answers, in memory and later from the folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tune_fakes import Counter

from athlete import tune

ENTROPY = "info/learner/default_policy/learner_stats/entropy"


class Waves(Counter):
    """A reward that goes up and down: its best is not its last."""

    def train(self) -> dict[str, Any]:
        result = super().train()
        reward = self.config["rewards"][self.iteration - 1]
        return {**result, "episode_reward_mean": reward, "done": self.iteration == len(self.config["rewards"])}


CONFIG = {
    "rewards": tune.grid_search([[1.0, 9.0, 2.0], [4.0, 5.0, 3.0], [0.0, 0.0, math.nan], [8.0, 6.0, math.inf]]),
    "evaluation_interval": 2,
}


@pytest.fixture(scope="module", params=["in memory", "from the folder", "from the state file"])
def analysis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tune.ExperimentAnalysis:
    folder = tmp_path_factory.mktemp("results")
    found = tune.run(Waves, config=CONFIG, local_dir=folder, name="mine", checkpoint_freq=1, verbose=0)
    if request.param == "in memory":
        return found
    return tune.ExperimentAnalysis(folder / "mine" / ("experiment_state.json" if "state" in request.param else ""))


def test_all_trials_at_a_glance(analysis: tune.ExperimentAnalysis) -> None:
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 4
    stats = analysis.stats()
    assert (stats["num_trials"], stats["trials_by_status"], stats["training_iterations"]) == (4, {"TERMINATED": 4}, 12)
    assert 0 <= stats["time_total_s"] == stats["timestamp"] - stats["start_time"]
    assert "4 trials (4 TERMINATED)" in repr(analysis)
    assert [result["training_iteration"] for result in analysis.results.values()] == [3] * 4


def test_frames(analysis: tune.ExperimentAnalysis) -> None:
    last = analysis.results_df
    assert list(last.index) == [trial.trial_id for trial in analysis.trials]
    assert last["episode_reward_mean"].tolist()[:2] == [2.0, 3.0]
    assert last[ENTROPY].tolist() == pytest.approx([1 / 3] * 4)
    assert {"config/rewards", "logdir"} <= set(last.columns)
    assert analysis.dataframe()["trial_id"].tolist() == list(last.index)
    best = analysis.dataframe("episode_reward_mean", "max")
    assert best["training_iteration"].tolist()[:2] == [2, 2] and best["episode_reward_mean"].tolist()[:2] == [9.0, 5.0]
    assert analysis.dataframe(mode="min")["training_iteration"].tolist()[:2] == [1, 3]
    assert [len(frame) for frame in analysis.trial_dataframes.values()] == [3] * 4
    assert analysis.fetch_trial_dataframes().keys() == {trial.logdir for trial in analysis.trials}


@pytest.mark.parametrize(
    ("settings", "index"),
    [
        ({}, 1),
        ({"mode": "min"}, 0),
        ({"filter_nan_and_inf": False}, 3),
        ({"scope": "all"}, 0),
        ({"scope": "all", "mode": "min"}, 2),
        ({"scope": "avg"}, 0),
        ({"scope": "last-5-avg"}, 0),
        ({"metric": ENTROPY}, 0),
        ({"metric": "evaluation/episode_reward_mean"}, 0),
    ],
)
def test_the_best_trial(analysis: tune.ExperimentAnalysis, settings: dict[str, Any], index: int) -> None:
    assert analysis.get_best_trial(**settings) is analysis.trials[index]


def test_everything_about_the_best(analysis: tune.ExperimentAnalysis) -> None:
    best = analysis.trials[1]
    assert analysis.best_trial is best
    assert analysis.best_config == analysis.get_best_config() == best.config
    assert analysis.best_config["rewards"] == [4.0, 5.0, 3.0]
    assert analysis.best_logdir == analysis.get_best_logdir() == str(best.folder)
    assert analysis.best_result["episode_reward_mean"] == 3.0
    assert analysis.best_result_df.index.tolist() == [best.trial_id]
    assert analysis.best_dataframe["episode_reward_mean"].tolist() == [4.0, 5.0, 3.0]
    assert analysis.get_all_configs()[best.logdir] == best.config
    assert analysis.get_all_configs(prefix=True)[best.logdir]["config/evaluation_interval"] == 2


def test_checkpoints(analysis: tune.ExperimentAnalysis) -> None:
    best = analysis.trials[1]
    paths = [str(best.folder / f"checkpoint_00000{i}") for i in (1, 2, 3)]
    assert analysis.get_trial_checkpoints_paths(best) == list(zip(paths, [4.0, 5.0, 3.0], strict=True))
    assert analysis.best_checkpoint == paths[1]
    assert analysis.get_best_checkpoint(best, "episode_reward_mean", "min") == paths[2]
    assert analysis.get_best_checkpoint(best, metric=ENTROPY) == paths[0]
    assert analysis.get_last_checkpoint(best) == paths[2]
    evaluated = analysis.get_trial_checkpoints_paths(best, "evaluation/episode_reward_mean")
    assert [math.isnan(value) for _, value in evaluated] == [True, False, True]


def test_unknown_names_are_errors_with_the_nearest(analysis: tune.ExperimentAnalysis) -> None:
    with pytest.raises(tune.TuneError, match="no number 'episode_reward': did you mean 'episode_reward_mean'"):
        analysis.get_best_trial("episode_reward")
    with pytest.raises(tune.TuneError, match=f"did you mean '{ENTROPY}'"):
        analysis.dataframe("entropy")
    with pytest.raises(tune.TuneError, match="did you mean"):
        analysis.get_best_checkpoint(analysis.trials[0], metric="reward_mean")
    with pytest.raises(ValueError, match=r"mode='biggest': 'min' or 'max'"):
        analysis.get_best_trial(mode="biggest")
    with pytest.raises(ValueError, match=r"scope='first'\): one of last, "):
        analysis.get_best_trial(scope="first")


def test_a_single_trial_is_the_best_whatever_is_asked(tmp_path: Path) -> None:
    analysis = tune.run(Counter, stop={"training_iteration": 2}, checkpoint_at_end=True, local_dir=tmp_path, verbose=0)
    assert analysis.get_best_trial("nonsense") is analysis.best_trial is analysis.trials[0]
    assert analysis.get_best_checkpoint(metric="nonsense") == analysis.trials[0].checkpoint


def test_the_metric_of_the_run_is_the_default_later_too(tmp_path: Path) -> None:
    config = {"gain": tune.grid_search([1.0, -1.0])}
    settings = {"metric": "episode_reward_mean", "mode": "min", "local_dir": tmp_path, "name": "mine"}
    tune.run(Counter, config=config, stop={"training_iteration": 2}, verbose=0, **settings)
    assert tune.ExperimentAnalysis(tmp_path / "mine").best_config == {"gain": -1.0}


def test_trials_without_finite_values_have_no_best(tmp_path: Path) -> None:
    config = {"gain": tune.grid_search([math.nan, math.inf])}
    analysis = tune.run(Counter, config=config, stop={"training_iteration": 1}, local_dir=tmp_path, verbose=0)
    with pytest.raises(tune.TuneError, match="no trial has a finite 'episode_reward_mean'; their values are"):
        analysis.get_best_trial()


def test_no_checkpoint_is_none_with_a_word_about_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    analysis = tune.run(Counter, stop={"training_iteration": 1}, local_dir=tmp_path, verbose=0)
    assert analysis.best_checkpoint is None
    assert "saved no checkpoint: pass checkpoint_freq=... or checkpoint_at_end=True" in caplog.text


def test_a_moved_experiment_is_read_where_it_is_now(tmp_path: Path) -> None:
    tune.run(Counter, stop={"training_iteration": 2}, checkpoint_at_end=True, local_dir=tmp_path, name="old", verbose=0)
    (tmp_path / "old").rename(tmp_path / "new")
    analysis = tune.ExperimentAnalysis(tmp_path / "new")
    assert Path(analysis.best_checkpoint or "").is_dir() and len(analysis.best_dataframe) == 2


def test_folders_without_an_experiment(tmp_path: Path) -> None:
    (trial,) = tune.run(Counter, stop={"training_iteration": 1}, local_dir=tmp_path, name="mine", verbose=0).trials
    with pytest.raises(tune.TuneError, match=r"there is no experiment in .*; in .* there are mine"):
        tune.ExperimentAnalysis(tmp_path)
    with pytest.raises(tune.TuneError, match=r"it is one of the trials of .*mine"):
        tune.ExperimentAnalysis(trial.folder)
