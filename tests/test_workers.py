"""Workers that act by themselves: the trainings they make, and what happens where one fails, hangs or dies."""

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from hanging import Frail
from test_fault_tolerance import is_alive, wait_for
from toy_agents import DictRoster
from working import Deadly, Deaf, Pair, Pole, Swing, Unmakeable

from athlete import Algorithm
from athlete.algorithms import get_config_class
from athlete.callbacks import DefaultCallbacks
from athlete.env.errors import EnvError

ROWS = 4
WIDE = {"fcnet_hiddens": [300, 300]}


def config(kind, workers=0, env=Pole, rows=ROWS, **training):
    """A small training of `rows` environments, in so many workers that act; without any, in this process."""
    made = get_config_class(kind)().environment(env, disable_env_checking=True).debugging(seed=3)
    made.rollouts(num_rollout_workers=workers, num_envs_per_worker=rows // max(1, workers), workers_act=workers > 0)
    made.training(model={"fcnet_hiddens": [16]})
    if kind in ("DQN", "SAC"):
        made.rollouts(rollout_fragment_length=2)
        made.training(train_batch_size=16, num_steps_sampled_before_learning_starts=32)
        made.training(replay_buffer_config={"capacity": 1000})
        made.reporting(min_sample_timesteps_per_iteration=48)
    else:
        made.training(train_batch_size=16 * rows)
    if kind == "PPO":
        made.training(minibatch_size=32, num_epochs=2)
    return made.training(**training)


CASES = {
    "PPO": lambda workers: config("PPO", workers),
    "PPO with LSTM": lambda workers: config("PPO", workers, model={"use_lstm": True, "max_seq_len": 8}),
    "PPO with a wide network": lambda workers: config("PPO", workers, model=WIDE),
    "A2C": lambda workers: config("A2C", workers),
    "DQN": lambda workers: config("DQN", workers),
    "SAC": lambda workers: config("SAC", workers, Swing).exploration(exploration_config={"random_timesteps": 24}),
    "a team": lambda workers: config("PPO", workers, DictRoster),
    "a joint method": lambda workers: config("MAPPO", workers, Pair),
}


def made(case, workers):
    return CASES[case](workers)


@functools.cache
def trained(case, workers, made=made):
    """The run after three iterations, and their results."""
    with made(case, workers).build() as algorithm:
        results = [algorithm.train() for _ in range(3)]
        return jax.device_get(algorithm.run), results


def assert_equal_to_the_last_bit(one, other):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


def assert_same_training(case, workers, made=made):
    (hosted, told), (worked, told_by_workers) = trained(case, 0), trained(case, workers, made)
    assert_equal_to_the_last_bit(hosted, worked)
    for a, b in zip(told, told_by_workers, strict=True):
        names = ("timesteps_total", "episodes_this_iter", "episode_reward_mean", "episode_len_mean")
        np.testing.assert_equal([a[name] for name in names], [b[name] for name in names])
        assert a["info"]["learner"] == b["info"]["learner"]
    assert sum(result["episodes_this_iter"] for result in told) > 0


@pytest.mark.parametrize("case", ["PPO", "DQN"])
def test_workers_that_act_make_the_training_of_the_hosted_loop_to_the_last_bit(case):
    assert_same_training(case, 2)


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("case", list(CASES))
def test_so_they_do_for_every_kind_of_training_and_number_of_workers(case, workers):
    assert_same_training(case, workers)


def test_what_is_restored_goes_on_alike_with_workers_and_without(tmp_path):
    with config("PPO").build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path)
    runs = []
    for workers in (0, 2):
        settings = {"num_rollout_workers": workers, "num_envs_per_worker": ROWS // max(1, workers)}
        with Algorithm.from_checkpoint(path, **settings, workers_act=workers > 0) as restored:
            restored.train()
            runs.append(jax.device_get(restored.run))
    assert_equal_to_the_last_bit(*runs)


def test_an_interrupt_loses_nothing():
    runs = []
    for interrupted in (False, True):
        with config("PPO", 2).environment(env_config={"slowness": 0.02}).build() as algorithm:
            if interrupted:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                with pytest.raises(KeyboardInterrupt):
                    for _ in range(50):
                        algorithm.train()
                done = int(algorithm.run.iteration)
            while int(algorithm.run.iteration) < 3:
                algorithm.train()
            runs.append(jax.device_get(algorithm.run))
    assert done < 3
    assert_equal_to_the_last_bit(*runs)


# What fails ---------------------------------------------------------------------------------------------------------


def frail(tmp_path, trouble, env=Frail, at=7, **env_config):
    """Two workers of two rows, the last of which does what `trouble` says in its step `at`."""
    made = config("PPO", 2, env)
    return made.environment(
        env_config={"row": 201, "at": at, "trouble": trouble, "lives": str(tmp_path / "life"), **env_config}
    )


def test_an_environment_that_fails_is_an_error_that_names_row_seed_and_step_and_training_goes_on(tmp_path):
    with frail(tmp_path, "raises").build() as algorithm:
        pattern = r"(?s)no such place.*row 3, seeded with \d+, in step 7 of its episode, in step\(.*\d"
        with pytest.raises(EnvError, match=pattern):
            algorithm.train()
        assert algorithm.train()["timesteps_total"] == 64, "with new episodes"


@pytest.mark.parametrize("trouble", ["sleeps", "spins"])
def test_an_environment_that_hangs_is_an_error(trouble, tmp_path):
    with frail(tmp_path, trouble).rollouts(env_timeout=0.3).build() as algorithm:
        pattern = r"(?s)did not come back within 0.3 seconds.*row 3, seeded with \d+.*in step 7 of its episode"
        with pytest.raises(EnvError, match=pattern):
            algorithm.train()


def test_where_nothing_reaches_it_its_worker_ends(tmp_path):
    message = r"(?s)within 0.3 seconds.*row 3.*worker process 1 died with exit code 1"
    made = frail(tmp_path, "sleeps", Deaf).rollouts(env_timeout=0.3)
    with made.build() as algorithm, pytest.raises(EnvError, match=message):
        algorithm.train()


def test_a_row_that_fails_begins_anew_where_that_was_asked_for(tmp_path):
    made = frail(tmp_path, "raises").fault_tolerance(restart_failed_sub_environments=True)
    with made.build() as algorithm:
        result = algorithm.train()
        assert (result["num_faulty_episodes"], result["num_worker_restarts"], result["num_healthy_workers"]) == (
            1,
            0,
            2,
        )
        result = algorithm.train()
        assert result["episode_reward_min"] == result["episode_reward_max"] == 10.0, "the cut episode does not count"


def test_a_worker_that_is_killed_begins_anew_where_that_was_asked_for():
    made = config("DQN", 2).fault_tolerance(recreate_failed_workers=True)
    with made.build() as algorithm:
        algorithm.train()
        for number in (1, 2):
            os.kill(algorithm._training.workers.processes[1].pid, signal.SIGKILL)
            result = algorithm.train()
            assert result["num_worker_restarts"] == number and result["num_healthy_workers"] == 2
            assert result["num_faulty_episodes"] == 2 * number
        assert result["timesteps_total"] == 32 + 3 * 48


def test_a_worker_that_dies_is_an_error_that_names_its_rows(tmp_path):
    message = "worker process 1 died with exit code 3, and with it the rows 2 to 3"
    with frail(tmp_path, "dies").build() as algorithm:
        with pytest.raises(EnvError, match=message):
            algorithm.train()
        assert algorithm.train()["num_healthy_workers"] == 2, "who goes on has it begun anew"


def test_there_is_a_limit_to_new_beginnings(tmp_path):
    made = frail(tmp_path, "dies", at=2, always=True)
    made.fault_tolerance(recreate_failed_workers=True, max_num_worker_restarts=2)
    with made.build() as algorithm, pytest.raises(EnvError, match=r"max_num_worker_restarts=2"):
        algorithm.train()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Unmakeable, "(?s)no room in worker 2.*while a worker made"),
        (Deadly, "process 1 died with exit code 4 while it"),
    ],
)
def test_an_environment_that_cannot_be_made_is_an_error_at_build(env, message):
    with pytest.raises(EnvError, match=message):
        config("PPO", 2, env).build()


def test_no_process_is_left_after_stop():
    algorithm = config("PPO", 2).build()
    processes = algorithm._training.workers.processes
    algorithm.stop()
    assert None not in [process.returncode for process in processes], "each was waited for: no zombie"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_who_forgets_to_stop_leaves_no_process():
    algorithm = config("PPO", 2).build()
    numbers = [process.pid for process in algorithm._training.workers.processes]
    del algorithm
    gc.collect()
    wait_for(lambda: not any(is_alive(number) for number in numbers))


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_workers as tests
made = tests.config("PPO", 2).environment(env_config={"slowness": 0.05}).build()
print(*[process.pid for process in made._training.workers.processes], flush=True)
while True:
    made.train()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_parent_that_is_killed_leaves_nothing_behind():
    arguments = [sys.executable, "-c", PARENT, str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(number) for number in parent.stdout.readline().split()]
        time.sleep(1)  # they act
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert len(workers) == 2
    wait_for(lambda: not any(is_alive(worker) for worker in workers))


# What is told and refused -------------------------------------------------------------------------------------------


def test_entries_of_info_come_from_workers():
    with config("PPO", 2).reporting(info_metrics=["taken"]).build() as algorithm:
        result = algorithm.train()
    assert result["custom_metrics"]["taken_mean"] == pytest.approx(result["episode_len_mean"])


def test_what_workers_collect_is_written_as_what_this_process_collects(tmp_path):
    written = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        with config("PPO", workers).offline_data(output=str(folder)).build() as algorithm:
            algorithm.train()
        files = [path.read_bytes() for path in sorted(folder.iterdir())]
        written.append([file[8 + int.from_bytes(file[:8], "little") :] for file in files])  # behind the header
    assert written[0] == written[1] and written[0]


class Steps(DefaultCallbacks):
    def on_episode_step(self, **_):
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.rollouts(num_rollout_workers=0), "needs workers: set num_rollout_workers"),
        (lambda made: made.callbacks(Steps), "on_episode_step cannot be called"),
        (lambda made: made.environment(gymnasium.make("CartPole-v1")), "is one instance; pass its class"),
        (lambda made: made.environment("CartPole-v1", backend="envpool"), "EnvPool's are not"),
    ],
)
def test_what_cannot_be_in_workers_is_refused(change, message):
    if "EnvPool" in message:
        pytest.importorskip("envpool")
    with pytest.raises(ValueError, match=rf"rollouts\(workers_act=True\): it .*{message}"):
        change(config("PPO", 2)).build()


def test_a_compiled_environment_needs_no_workers():
    with config("PPO", 2, "CartPole-v1").build() as algorithm:
        assert algorithm.train()["num_healthy_workers"] == 0


def test_without_ray_its_name_is_in_the_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ImportError, match=r"resources\(ray=True\): Ray is not installed: pip install ray, or .*\[ray\]"
    ):
        config("PPO", 2).resources(ray=True).build()


@pytest.mark.parametrize(
    "settings",
    [
        {"ray": 3},
        {"ray": ""},
        {"num_cpus_per_worker": -1},
        {"custom_resources_per_worker": {"big": 0}},
        {"placement_strategy": "SOMEWHERE"},
    ],
)
def test_where_workers_are_placed_is_checked_at_the_call(settings):
    with pytest.raises(ValueError, match=rf"resources\({next(iter(settings))}=.*: expected "):
        config("PPO", 2).resources(**settings)
