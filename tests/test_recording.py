"""What `algo.train()` leaves in `algo.logdir`: results, curves and episodes, and where it leaves nothing."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from athlete.algorithm import Algorithm
from athlete.algorithms import get_config_class
from athlete.callbacks import DefaultCallbacks
from athlete.record.names import TuneError
from athlete.record.results import flatten, read_params, read_results

SMALL = {
    "env": "CartPole-v1",
    "num_envs_per_worker": 2,
    "train_batch_size": 64,
    "num_epochs": 1,
    "minibatch_size": 64,
    "seed": 3,
}
FILES = {"about.json", "params.json", "progress.csv", "result.json"}


def small(name: str = "PPO", **settings):
    return get_config_class(name).from_dict({**SMALL, **settings})


def names(folder) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def plain(folder) -> set[str]:
    """The names in a folder but for TensorBoard's, which tell time and process."""
    return {name for name in names(folder) if not name.startswith("events.out.tfevents.")}


def iterations(folder) -> list[int]:
    return [result["training_iteration"] for result in read_results(folder)]


def test_results_are_in_the_files_as_soon_as_train_returns(tmp_path):
    with small(logdir=tmp_path / "run").build() as algo:
        assert algo.logdir == str(tmp_path / "run")
        assert not (tmp_path / "run").exists(), "made when something is put there"
        results = [algo.train() for _ in range(3)]
        recorded = read_results(algo.logdir)
        with (tmp_path / "run" / "progress.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert plain(algo.logdir) == FILES and len(names(algo.logdir)) == 5
        assert [row["timesteps_total"] for row in recorded] == [64, 128, 192]
        assert [int(row["timesteps_total"]) for row in rows] == [64, 128, 192]
        loss = flatten(results[-1])["info/learner/default_policy/learner_stats/policy_loss"]
        assert float(rows[-1]["info/learner/default_policy/learner_stats/policy_loss"]) == pytest.approx(loss)
        params = read_params(algo.logdir)
    assert params["train_batch_size"] == 64 and params["seed"] == 3


def test_a_curve_of_tensorboard_has_every_result(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with small(logdir=tmp_path).build() as algo:
        lengths = [algo.train()["episode_len_mean"] for _ in range(3)]
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    curve = events.Scalars("train/episode_len_mean")
    assert [point.step for point in curve] == [64, 128, 192]
    np.testing.assert_allclose([point.value for point in curve], lengths, rtol=1e-6)


def test_tensorboard_compares_trainings_by_their_settings(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import plugin_data_pb2

    with small(logdir=tmp_path, lr=3e-3, model={"fcnet_hiddens": [8], "vf_share_layers": True}).build() as algo:
        algo.train()
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    told = {
        name.rpartition("/")[2]: plugin_data_pb2.HParamsPluginData.FromString(content)
        for name, content in events.PluginTagToContent("hparams").items()
    }
    settings = told["session_start_info"].session_start_info.hparams
    assert settings["lr"].number_value == 3e-3 and settings["env"].string_value == "CartPole-v1"
    assert settings["model/vf_share_layers"].bool_value and "model/fcnet_hiddens" not in settings
    metrics = [info.name.tag for info in told["experiment"].experiment.metric_infos]
    assert metrics == ["train/episode_reward_mean", "evaluation/episode_reward_mean"]


def test_what_a_callback_adds_to_a_result_is_recorded_and_what_it_says_twice_is_not(tmp_path):
    class Adds(DefaultCallbacks):
        def on_train_result(self, *, algorithm, result, **kwargs):
            result["mine"] = 7

    with small(logdir=tmp_path, callbacks=Adds).build() as algo:
        result = algo.train()
    (recorded,) = read_results(tmp_path)
    assert recorded["mine"] == 7
    assert result.keys() - recorded.keys() == {"config", "sampler_results"}


def test_one_switch_turns_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))
    with small(logdir=False, monitor=True).checkpointing(checkpoint_freq=1).build() as algo:
        algo.train()
    assert names(tmp_path) == set(), "neither results nor episodes nor checkpoints"
    with small().build() as algo:
        assert names(tmp_path) == set(), "building makes no folder"
        algo.train()
        assert plain(algo.logdir) == FILES and Path(algo.logdir).parent == tmp_path


def test_an_empty_folder_of_results_turns_it_off_for_a_process_but_not_where_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with small().build() as algo:
        algo.train()
        assert not Path(algo.logdir).exists()
    with small(logdir=tmp_path / "named").build() as algo:
        algo.train()
    assert plain(tmp_path / "named") == FILES


def test_earlier_results_in_the_folder_step_aside(tmp_path, caplog):
    for _ in range(2):
        with small(logdir=tmp_path).build() as algo:
            algo.train(), algo.train()
    (aside,) = tmp_path.glob("earlier_*")
    assert iterations(tmp_path) == iterations(aside) == [1, 2]
    assert plain(aside) == FILES and len(names(aside)) == 5, "its curve too"
    assert "they are now in" in caplog.text


def test_a_restored_training_goes_on_in_its_folder_and_loses_no_line(tmp_path):
    with small(logdir=tmp_path).build() as algo:
        algo.train()
        checkpoint = algo.save()
    with Algorithm.from_checkpoint(checkpoint, logdir=tmp_path) as algo:
        algo.train()
    assert iterations(tmp_path) == [1, 2] and not list(tmp_path.glob("earlier_*"))
    with small(logdir=tmp_path).build() as algo:
        algo.restore(checkpoint)
        algo.train(), algo.train()
        assert iterations(tmp_path) == [1, 2, 3]
        algo.restore(checkpoint)
        algo.train()
    assert iterations(tmp_path) == [1, 2]
    assert sorted(map(iterations, tmp_path.glob("earlier_*"))) == [[1, 2], [1, 2, 3]]


def test_a_checkpoint_never_says_where_to_write(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "ours"))
    with small(logdir=tmp_path / "theirs").build() as algo:
        checkpoint = algo.save(tmp_path / "sent")
    with Algorithm.from_checkpoint(checkpoint) as algo:
        algo.train()
        assert Path(algo.logdir).parent == tmp_path / "ours"
    assert not (tmp_path / "theirs").exists()


def test_a_folder_that_cannot_be_written_ends_the_record_and_not_the_training(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with small(logdir=tmp_path / "file").build() as algo:
        assert [algo.train()["training_iteration"] for _ in range(2)] == [1, 2]
    assert caplog.text.count("its results are not kept any more") == 1


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_the_monitor_has_a_line_for_each_episode_as_stable_baselines_reads_it(tmp_path, backend):
    with small(logdir=tmp_path, monitor=True, backend=backend).build() as algo:
        results = [algo.train() for _ in range(3)]
    with (tmp_path / "monitor.csv").open() as file:
        head = json.loads(file.readline().removeprefix("#"))
        rows = list(csv.DictReader(file))
    assert head["env_id"] == "CartPole-v1" and head["t_start"] > 1e9
    assert list(rows[0]) == ["r", "l", "t"]
    returns = results[-1]["hist_stats"]["episode_reward"]
    assert [float(row["r"]) for row in rows] == returns and len(rows) == results[-1]["episodes_total"]
    assert [int(row["l"]) for row in rows] == results[-1]["hist_stats"]["episode_lengths"]
    times = [float(row["t"]) for row in rows]
    assert times == sorted(times) and 0 < times[0] <= times[-1] < 1e4


def test_the_monitor_has_entries_of_info(tmp_path):
    settings = {"env": "MountainCar-v0", "env_config": {"max_episode_steps": 10}, "backend": "gymnasium"}
    settings |= {"info_metrics": ["TimeLimit.truncated"], "monitor": True}
    with small(logdir=tmp_path, **settings).build() as algo:
        algo.train()
    lines = (tmp_path / "monitor.csv").read_text().splitlines()
    assert lines[1] == "r,l,t,TimeLimit.truncated" and len(lines) > 3
    assert {tuple(line.split(",")[:2]) for line in lines[2:]} == {("-10.0", "10")}


def test_a_folder_is_a_path_or_false():
    with pytest.raises(ValueError, match=r"logdir=3.*a folder's path, or False"):
        small(logdir=3)


def test_the_time_of_a_compiled_program_is_until_it_has_ended():
    config = get_config_class("PPO")().environment("CartPole-v1").debugging(seed=0).reporting(logdir=False)
    with config.training(train_batch_size=16384, num_epochs=20).build() as algo:
        algo.train()
        timers = algo.train()["timers"]
    assert timers["learn_time_ms"] > 0.8 * timers["training_iteration_time_ms"], "it is nearly all that happens"


def test_results_have_what_scripts_for_rllib_read():
    with small().build() as algo:
        result = algo.train()
    assert result["config"]["train_batch_size"] == 64 and result["config"]["env"] == "CartPole-v1"
    sampled = result["sampler_results"]
    assert sampled["episode_reward_mean"] == result["episode_reward_mean"]
    assert sampled["hist_stats"] == result["hist_stats"] and len(result["hist_stats"]["episode_reward"]) > 0
    assert np.mean(result["hist_stats"]["episode_reward"]) == pytest.approx(result["episode_reward_mean"])
    assert result["policy_reward_mean"] == {} and result["custom_metrics"] == {}
    assert result["counters"] == {
        "num_env_steps_sampled": 64,
        "num_env_steps_trained": 64,
        "num_agent_steps_sampled": 64,
    }
    assert result["num_steps_trained_this_iter"] == 64
    learning = result["timers"]["learn_time_ms"]
    assert learning == result["timers"]["sample_and_learn_time_ms"], "compiled: one program"
    assert result["timers"]["learn_throughput"] == pytest.approx(64 / learning * 1000)
    perf = result["sampler_perf"]
    assert set(perf) == {"mean_env_wait_ms", "mean_inference_ms"} and all(map(math.isnan, perf.values())), (
        "nobody can tell the environment's part of a program"
    )


def test_a_hosted_training_tells_how_long_a_step_takes():
    with small(backend="gymnasium").build() as algo:
        result = algo.train()
    waited, steps = result["timers"]["env_step_time_ms"], 64 / 2
    assert result["sampler_perf"]["mean_env_wait_ms"] == pytest.approx(waited / steps)
    assert result["sampler_perf"]["mean_inference_ms"] > 0 and math.isfinite(result["timers"]["learn_time_ms"])


def test_a_trial_is_recorded_once_in_its_own_folder(tmp_path, monkeypatch):
    from athlete import tune

    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "direct"))
    analysis = tune.run(
        "PPO", config=SMALL, stop={"training_iteration": 2}, local_dir=str(tmp_path / "trials"), verbose=0
    )
    (trial,) = analysis.trials
    assert iterations(trial.folder) == [1, 2]
    assert not (tmp_path / "direct").exists()
    assert "config" not in trial.last_result, "it is the trial's"


# Checkpoints ------------------------------------------------------------------------------------------------------


def checkpoints(folder) -> set[str]:
    return {name for name in names(folder) if name.startswith("checkpoint_")}


class Scores(DefaultCallbacks):
    """Makes the third evaluation the best."""

    def on_train_result(self, *, algorithm, result, **kwargs):
        result["evaluation"] = {"episode_reward_mean": [1.0, 2.0, 9.0, 3.0, 4.0][algorithm.iteration - 1]}


def test_the_best_checkpoint_by_evaluation_stays_beside_the_newest(tmp_path):
    config = small(logdir=tmp_path, callbacks=Scores, evaluation_interval=1, evaluation_duration=1)
    config.checkpointing(
        checkpoint_freq=1, keep_checkpoints_num=1, checkpoint_score_attr="evaluation/episode_reward_mean"
    )
    with config.build() as algo:
        assert algo.best_checkpoint is None
        for _ in range(5):
            algo.train()
        assert algo.best_checkpoint == f"{algo.logdir}/checkpoint_000003"
    assert checkpoints(tmp_path) == {"checkpoint_000003", "checkpoint_000005"}
    with Algorithm.from_checkpoint(tmp_path / "checkpoint_000003", logdir=False) as best:
        assert best.iteration == 3


def test_checkpoints_without_a_score_are_every_so_many_iterations(tmp_path):
    with small(logdir=tmp_path).checkpointing(checkpoint_freq=2).build() as algo:
        for _ in range(5):
            algo.train()
        assert algo.best_checkpoint == f"{algo.logdir}/checkpoint_000004", "the newest"
    assert checkpoints(tmp_path) == {"checkpoint_000002", "checkpoint_000004"}


def test_a_lower_result_is_better_where_it_says_so(tmp_path):
    config = small(logdir=tmp_path, callbacks=Scores, evaluation_interval=1, evaluation_duration=1)
    config.checkpointing(checkpoint_freq=1, checkpoint_score_attr="min-evaluation/episode_reward_mean")
    with config.build() as algo:
        for _ in range(3):
            algo.train()
        assert algo.best_checkpoint == f"{algo.logdir}/checkpoint_000001"


@pytest.mark.parametrize("interval", [None, 2])
def test_checkpoints_that_would_never_have_a_score_are_an_error(interval):
    config = small(evaluation_interval=interval)
    config.checkpointing(checkpoint_freq=3, checkpoint_score_attr="evaluation/episode_reward_mean")
    with pytest.raises(ValueError, match=f"every checkpoint_freq=3 iterations with evaluation_interval={interval}"):
        config.build()


def test_a_score_that_results_do_not_have_is_an_error_at_the_first_result(tmp_path):
    config = small(logdir=tmp_path).checkpointing(checkpoint_freq=5, checkpoint_score_attr="episode_reward_main")
    with config.build() as algo, pytest.raises(TuneError, match=r"did you mean .*'episode_reward_mean'"):
        algo.train()


# learn() ----------------------------------------------------------------------------------------------------------


def test_learning_ends_after_so_many_timesteps_more():
    with small(logdir=False).build() as algo:
        assert algo.learn(total_timesteps=100)["timesteps_total"] == 128, "whole iterations of 64"
        assert algo.learn(total_timesteps=1)["timesteps_total"] == 192


def test_learning_ends_with_the_first_of_its_stops():
    with small(logdir=False).build() as algo:
        assert algo.learn(10_000, stop={"training_iteration": 2})["training_iteration"] == 2
        seen = []
        algo.learn(
            stop=lambda trial_id, result: seen.append((trial_id, result["training_iteration"])) or len(seen) == 2
        )
        assert seen == [(Path(algo.logdir).name, 3), (Path(algo.logdir).name, 4)]


def test_the_last_result_of_learning_is_done_in_the_files_too(tmp_path):
    with small(logdir=tmp_path).build() as algo:
        assert algo.learn(stop={"training_iteration": 2})["done"] is True
        assert algo.train()["done"] is False, "a loop of one's own has its own end"
    assert [result["done"] for result in read_results(tmp_path)] == [False, True, False]


def test_tensorboard_shows_films_as_moving_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with small(logdir=tmp_path).build() as algo:
        algo.record_video(tmp_path / "films")
        algo.train()
        (path,) = algo.record_video(tmp_path / "films")
    (events,) = tmp_path.glob("events.out.tfevents.*")
    values = [(event.step, value) for event in EventFileLoader(str(events)).Load() for value in event.summary.value]
    ((step, film),) = [(step, value) for step, value in values if value.tag.startswith("films/")]
    assert (step, film.tag) == (64, f"films/{Path(path).stem}"), "the first was filmed before there was a record"
    (data,) = film.tensor.string_val[2:] if film.HasField("tensor") else (film.image.encoded_image_string,)
    frames = imageio.imread(data, extension=".gif")
    assert len(frames) > 1 and max(frames.shape[1:3]) <= 240


def test_what_learning_cannot_end_by_is_an_error():
    with small(logdir=False).build() as algo:
        with pytest.raises(ValueError, match="say when to end"):
            algo.learn()
        with pytest.raises(ValueError, match=r"total_timesteps=0\): expected a whole number"):
            algo.learn(0)
        with pytest.raises(TuneError, match=r"did you mean .*'episode_reward_mean'"):
            algo.learn(stop={"episode_reward_main": 10})
        with pytest.raises(TuneError, match="evaluation is off"):
            algo.learn(stop={"evaluation/episode_reward_mean": 10})


def test_a_progress_bar_says_how_far_it_is(capsys):
    with small(logdir=False).build() as algo:
        algo.learn(128)
        assert capsys.readouterr().out == ""
        algo.learn(128, progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("PPO CartPole-v1 TERMINATED iter=4") and "ts=256" in lines[-2]
    assert lines[-1].startswith("PPO CartPole-v1: ")


def test_stable_baselines_learn_shows_its_progress_too(capsys):
    from athlete.sb3 import PPO

    PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, n_epochs=1).learn(64, progress_bar=True)
    assert "PPO CartPole-v1 TERMINATED iter=1" in capsys.readouterr().out
