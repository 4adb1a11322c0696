"""Evaluations that workers play: the same episodes as in this process, beside the training, and failures."""

import os
import signal
import threading

import numpy as np
import pytest
from test_workers import config, frail
from working import Pair, Pole

from athlete.callbacks import DefaultCallbacks
from athlete.core import Health
from athlete.env.errors import EnvError
from athlete.loops.evaluation_workers import EvaluationWorkers, Sharing, Wave, share_out
from athlete.loops.workers import Arrival


def evaluated(workers, env=Pole, **evaluation):
    """What an evaluation finds that so many workers play."""
    made = config("PPO", env=env).evaluation(evaluation_num_workers=workers, **evaluation)
    with made.build() as algorithm:
        return algorithm.evaluate()["evaluation"]


EPISODES = {"evaluation_duration": 11}


@pytest.mark.parametrize("workers", [3, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 2, 8, 9, 20))])
def test_workers_play_the_episodes_of_this_process_to_the_last_bit(workers):
    settings = {**EPISODES, "evaluation_config": {"explore": True}}
    here, there = evaluated(0, **settings), evaluated(workers, **settings)
    assert there["hist_stats"] == here["hist_stats"] and len(here["hist_stats"]["episode_reward"]) == 11
    assert len(set(here["hist_stats"]["episode_reward"])) > 1
    assert "num_healthy_workers" not in here and there["num_healthy_workers"] > 0


@pytest.mark.thorough
@pytest.mark.parametrize("env", [Pole, Pair])
@pytest.mark.parametrize("unit", ["episodes", "timesteps"])
def test_so_they_do_whatever_is_counted_and_where_many_act(env, unit):
    settings = {"evaluation_duration": 70 if unit == "timesteps" else 5, "evaluation_duration_unit": unit}
    assert evaluated(2, env, **settings)["hist_stats"] == evaluated(0, env, **settings)["hist_stats"]


def test_entries_of_info_come_from_them():
    made = config("PPO").evaluation(evaluation_num_workers=2, evaluation_duration=4)
    with made.reporting(info_metrics=["taken"]).build() as algorithm:
        found = algorithm.evaluate()["evaluation"]
    assert found["custom_metrics"]["taken_mean"] == pytest.approx(found["episode_len_mean"])


def test_rows_of_a_wave_are_shared_out_and_waves_among_teams():
    assert share_out(8, 3, whole=False) == Sharing(8, 3, 1), "two play three, one plays two"
    assert share_out(8, 5, whole=False) == Sharing(8, 2, 1) and share_out(8, 5, whole=False).workers == 4
    teams = share_out(2, 5, whole=False)
    assert teams == Sharing(2, 1, 2) and teams.workers == 4
    assert [teams.first_row(worker) for worker in range(4)] == [0, 1, 0, 1]
    assert [[teams.start(worker, wave) for wave in range(2)] for worker in (0, 1, 2)] == [[0, 4], [0, 4], [2, 6]]
    assert share_out(128, 3, whole=True) == Sharing(128, 128, 3)


class Scripted:
    """Workers that answer at once, the one that was asked last first."""

    health = Health()

    def __init__(self):
        self.asked, self.starts = [], []

    def ask(self, worker, task):
        self.asked.append((worker, task))
        self.starts.append((worker, task.start, task.episodes))

    def next(self):
        worker, task = self.asked.pop()
        number = np.full(1, task.start + worker, np.float32)
        return Arrival(worker, task.serial, Wave(task.serial, number, np.ones(1, np.int32), (), self.health))


def test_without_a_number_everyone_plays_for_as_long_as_it_goes_on_and_all_that_was_begun_counts():
    workers, moments = Scripted(), iter([True, True, False, False])
    playing = EvaluationWorkers(workers, share_out(2, 2, whole=False))
    found = playing.play((), np.zeros(2, np.uint32), None, False, lambda: next(moments))
    assert workers.starts == [(0, 0, 2), (1, 0, 2), (1, 2, 2), (1, 4, 2)]
    assert found.returns.tolist() == [0.0, 1.0, 3.0, 5.0], "in the order in which they were seeded"


def test_who_has_no_row_among_the_last_episodes_is_not_asked():
    workers = Scripted()
    EvaluationWorkers(workers, share_out(4, 2, whole=False)).play((), np.zeros(2, np.uint32), 5, False)
    assert sorted(workers.starts) == [(0, 0, 4), (0, 4, 1), (1, 0, 4)]


# Beside the training ------------------------------------------------------------------------------------------------


def beside(made=None, **evaluation):
    settings = {"evaluation_interval": 2, "evaluation_duration": 5, "evaluation_num_workers": 2, **evaluation}
    return (made or config("PPO")).evaluation(evaluation_parallel_to_training=True, **settings)


@pytest.mark.parametrize("env", [Pole, "CartPole-v1"])
def test_it_is_the_evaluation_of_the_policy_that_the_iteration_began_with(env):
    with beside(config("PPO", env=env)).build() as algorithm:
        assert "evaluation" not in algorithm.train()
        expected = algorithm.evaluate()["evaluation"]
        found = algorithm.train()["evaluation"]
        assert found["training_iteration"] == expected["training_iteration"] == 1
        assert found["hist_stats"] == expected["hist_stats"]
        assert algorithm.evaluate()["evaluation"]["hist_stats"] != found["hist_stats"], "the policy has learned since"
    if env is Pole:
        assert expected["hist_stats"] == between()


def between():
    with config("PPO").evaluation(evaluation_duration=5).build() as algorithm:
        algorithm.train()
        return algorithm.evaluate()["evaluation"]["hist_stats"]


def test_auto_plays_at_least_a_wave_beside_and_ten_episodes_otherwise():
    with beside(evaluation_interval=1, evaluation_duration="auto").build() as algorithm:
        assert algorithm.train()["evaluation"]["episodes_this_iter"] >= 8
        assert algorithm.evaluate()["evaluation"]["episodes_this_iter"] == 10


def test_an_evaluation_on_another_environment_and_exploring_is_played_there():
    changes = {"env_config": {"slowness": 0.001}, "explore": True}
    with beside(evaluation_interval=1, evaluation_config=changes).build() as algorithm:
        found = algorithm.train()["evaluation"]
    assert (
        found["explore"]
        and found["hist_stats"] == evaluated(0, evaluation_duration=5, evaluation_config=changes)["hist_stats"]
    )


def test_what_was_begun_survives_an_interrupt_and_not_a_restore(tmp_path):
    made = beside(config("PPO").environment(env_config={"slowness": 0.01}), evaluation_interval=1)
    with made.build() as algorithm:
        path = algorithm.save(tmp_path)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(50):
                algorithm.train()
        found = algorithm.train()["evaluation"]
        assert found["training_iteration"] == algorithm.iteration - 1
        algorithm.restore(path)
        assert algorithm.train()["evaluation"]["training_iteration"] == 0


def test_the_training_is_the_same_with_an_evaluation_beside_it():
    results = []
    for made in (config("PPO"), beside(evaluation_interval=1)):
        with made.build() as algorithm:
            results.append([algorithm.train()["episode_reward_mean"] for _ in range(2)])
    assert results[0] == results[1]


# What fails ---------------------------------------------------------------------------------------------------------


def in_trouble(tmp_path, trouble, **env_config):
    """A sound training, and an evaluation of which the last row, worker 2's, fails."""
    frailty = frail(tmp_path, trouble, **env_config).env_config
    made = (
        frail(tmp_path, trouble).environment(env_config={"row": -1}).rollouts(num_rollout_workers=0, workers_act=False)
    )
    changes = {"env_config": {**frailty, "row": 201}}
    return beside(made, evaluation_interval=1, evaluation_duration=4, evaluation_config=changes)


def test_one_that_is_killed_begins_anew_and_plays_what_it_was_asked(tmp_path):
    made = in_trouble(tmp_path, "dies").fault_tolerance(recreate_failed_workers=True)
    with made.build() as algorithm:
        found = algorithm.train()["evaluation"]
    assert found["episodes_this_iter"] == 4 and found["hist_stats"]["episode_reward"] == [10.0] * 4
    assert found["num_worker_restarts"] == 1 and found["num_healthy_workers"] == 2


def test_one_that_dies_is_an_error_after_the_iteration_and_is_begun_for_the_next(tmp_path):
    with in_trouble(tmp_path, "dies").build() as algorithm:
        with pytest.raises(EnvError, match="worker process 1 died with exit code 3"):
            algorithm.train()
        assert algorithm.iteration == 1
        assert algorithm.train()["evaluation"]["episodes_this_iter"] == 4


@pytest.mark.parametrize("trouble", ["raises", "sleeps"])
def test_an_environment_that_fails_or_hangs_is_an_error_that_names_it(trouble, tmp_path):
    with in_trouble(tmp_path, trouble).rollouts(env_timeout=0.5).build() as algorithm:
        with pytest.raises(EnvError, match=r"(?s)row 3, seeded with \d+.*in step 7 of its episode"):
            algorithm.train()
        assert algorithm.train()["evaluation"]["episodes_this_iter"] == 4


def test_one_that_fails_is_played_again_where_that_was_asked_for(tmp_path):
    made = in_trouble(tmp_path, "raises").fault_tolerance(restart_failed_sub_environments=True)
    with made.build() as algorithm:
        assert algorithm.train()["evaluation"]["hist_stats"]["episode_reward"] == [10.0] * 4


def test_no_process_is_left_after_stop_while_one_plays(tmp_path):
    algorithm = in_trouble(tmp_path, "sleeps").build()
    evaluator = algorithm._evaluator
    evaluator.begin(algorithm.get_policy(), 0, 0)
    while not evaluator._workers.workers.processes or len(evaluator._workers.workers.processes) < 2:
        pass
    processes = evaluator._workers.workers.processes
    algorithm.stop()
    assert None not in [process.returncode for process in processes]
    with pytest.raises(EnvError):
        evaluator.end()


# What is told and refused -------------------------------------------------------------------------------------------


class Steps(DefaultCallbacks):
    def on_episode_step(self, **_):
        pass


def test_hooks_of_steps_are_not_called_in_workers():
    with pytest.raises(ValueError, match=r"evaluation_parallel_to_training=True\): .*on_episode_step cannot be called"):
        beside(config("PPO").callbacks(Steps)).build()


def test_without_workers_it_runs_between_iterations(caplog):
    with beside(evaluation_num_workers=0, evaluation_interval=1).build() as algorithm:
        assert algorithm.train()["evaluation"]["training_iteration"] == 1
    assert "evaluation_num_workers=0" in caplog.text
