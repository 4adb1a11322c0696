"""Environments that hang, fail or die: an error that says where, or a new beginning where that was asked for."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hanging import Frail

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.env.errors import EnvError


def config(kind, tmp_path, trouble, workers=0, rows=2, at=7, row=1, **env_config):
    made = kind().environment(Frail, disable_env_checking=True)
    made.environment(
        env_config={"row": row, "at": at, "trouble": trouble, "lives": str(tmp_path / "life"), **env_config}
    )
    made.rollouts(num_rollout_workers=workers, num_envs_per_worker=rows, rollout_fragment_length=10)
    made.training(model={"fcnet_hiddens": [4]})
    if kind is PPOConfig:
        return made.training(train_batch_size=10 * rows * max(1, workers), minibatch_size=10, num_epochs=1)
    made.rollouts(rollout_fragment_length=2)
    made.training(
        train_batch_size=4, num_steps_sampled_before_learning_starts=4, n_step=1, replay_buffer_config={"capacity": 200}
    )
    return made.reporting(min_sample_timesteps_per_iteration=40)


HANG = r"(?s)did not come back within 0.3 seconds.*env_timeout.*row 1, seeded with \d+.*in step 7 of its episode"


@pytest.mark.parametrize(
    ("kind", "any_thread", "trouble"),
    [(PPOConfig, True, "sleeps"), (PPOConfig, True, "spins"), (DQNConfig, False, "sleeps"), (DQNConfig, True, "spins")],
)
def test_an_environment_that_hangs_is_an_error_that_names_row_seed_and_step(kind, any_thread, trouble, tmp_path):
    made = config(kind, tmp_path, trouble, any_thread=any_thread).rollouts(env_timeout=0.3)
    with made.build() as algorithm, pytest.raises(EnvError, match=HANG):
        algorithm.train()


IN_A_PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_fault_tolerance as tests
made = tests.config(tests.DQNConfig, Path(sys.argv[2]), "sleeps")
made.rollouts(env_timeout=0.3).build().train()
"""


def test_an_environment_that_sleeps_inside_a_program_is_an_error_and_the_process_ends(tmp_path):
    arguments = [sys.executable, "-c", IN_A_PROGRAM, str(Path(__file__).parent), str(tmp_path)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1 and re.search(HANG, ended.stderr)


def test_a_worker_that_hangs_is_an_error_that_names_row_seed_and_step(tmp_path):
    made = config(PPOConfig, tmp_path, "sleeps", workers=2, row=201).rollouts(env_timeout=0.3)
    with made.build() as algorithm:
        pattern = r"(?s)worker process 1 did not come back within 0.3 seconds.*row 3, seeded with \d+.*in step 7"
        with pytest.raises(EnvError, match=pattern):
            algorithm.train()


def test_an_environment_may_take_its_time_where_there_is_no_limit(tmp_path):
    made = config(PPOConfig, tmp_path, "raises", at=1000).rollouts(env_timeout=None)
    with made.build() as algorithm:
        assert algorithm.train()["timesteps_total"] == 20


@pytest.mark.parametrize("trouble", ["raises", "sleeps"])
@pytest.mark.parametrize(("kind", "workers", "row"), [(PPOConfig, 0, 1), (PPOConfig, 2, 201), (DQNConfig, 0, 1)])
def test_a_row_that_fails_begins_anew_where_that_was_asked_for(kind, workers, row, trouble, tmp_path):
    made = config(kind, tmp_path, trouble, workers, row=row, any_thread=False).rollouts(env_timeout=0.3)
    made.fault_tolerance(restart_failed_sub_environments=trouble == "raises" or not workers)
    made.fault_tolerance(recreate_failed_workers=True)
    with made.build() as algorithm:
        result = algorithm.train()
        assert result["num_faulty_episodes"] == (1 if trouble == "raises" or not workers else 2)
        assert result["num_worker_restarts"] == (1 if trouble == "sleeps" and workers else 0)
        assert result["num_healthy_workers"] == workers
        result = algorithm.train()
        assert result["episode_reward_min"] == result["episode_reward_max"] == 10.0, "the cut episode does not count"


def test_a_process_that_dies_begins_anew_and_its_rows_are_cut_off_there(tmp_path):
    made = config(PPOConfig, tmp_path, "dies", workers=2, row=201)
    made.fault_tolerance(recreate_failed_workers=True)
    with made.build() as algorithm:
        seen = []
        step = algorithm._training.source.step

        def spy(action, key):
            came = step(action, key)
            seen.append((came.obs.copy(), came.reward.copy(), came.truncated.copy()))
            return came

        algorithm._training.source.step = spy
        result = algorithm.train()
    assert result["num_worker_restarts"] == 1 and result["num_faulty_episodes"] == 2
    obs, reward, truncated = seen[6]
    np.testing.assert_array_equal(truncated, [False, False, True, True])
    np.testing.assert_array_equal(reward, [1, 1, 0, 0])
    np.testing.assert_allclose(obs[:, 0], [0.7, 0.7, 0.6, 0.6], atol=1e-6)
    np.testing.assert_allclose(seen[7][0][:, 0], [0.8, 0.8, 0.1, 0.1], atol=1e-6)


@pytest.mark.parametrize(("trouble", "workers", "row"), [("raises", 0, 1), ("dies", 2, 201)])
def test_without_being_asked_for_it_is_an_error(trouble, workers, row, tmp_path):
    with config(PPOConfig, tmp_path, trouble, workers, row=row).build() as algorithm, pytest.raises(EnvError):
        algorithm.train()


@pytest.mark.parametrize(("trouble", "workers", "row"), [("raises", 0, 1), ("dies", 2, 201)])
def test_there_is_a_limit_to_new_beginnings(trouble, workers, row, tmp_path):
    made = config(PPOConfig, tmp_path, trouble, workers, row=row, at=2, always=True)
    made.fault_tolerance(restart_failed_sub_environments=True, recreate_failed_workers=True, max_worker_restarts=2)
    with made.build() as algorithm, pytest.raises(EnvError):
        algorithm.train()


def test_workers_that_are_no_more_are_not_called_healthy(tmp_path):
    with config(PPOConfig, tmp_path, "raises", workers=2, at=1000).build() as algorithm:
        assert algorithm.train()["num_healthy_workers"] == 2
        assert algorithm._training.health.workers == 2
        process = algorithm._training.source.vector.processes[0]
        process.kill()
        process.join()
        assert algorithm._training.health.workers == 1


HOST = """
import sys, time
sys.path.insert(0, sys.argv[1])
from hanging import Frail
from athlete.algorithms.ppo import PPOConfig
config = PPOConfig().environment(Frail, env_config={"row": 101, "at": 3, "trouble": "sleeps", "lives": sys.argv[2]})
config.environment(disable_env_checking=True).rollouts(num_rollout_workers=2, num_envs_per_worker=2)
algorithm = config.training(model={"fcnet_hiddens": [4]}).build()
print(*[process.pid for process in algorithm._training.source.vector.processes], flush=True)
algorithm.train()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_parent_that_is_killed_leaves_nothing_behind(tmp_path):
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    arguments = [sys.executable, "-c", HOST, str(Path(__file__).parent), str(tmp_path / "life")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(number) for number in parent.stdout.readline().split()]
        wait_for(lambda: (tmp_path / "life").exists())  # one of them sleeps in a step
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert len(workers) == 2
        wait_for(lambda: not any(is_alive(worker) for worker in workers))
    assert not (set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()) - before


def is_alive(process_id):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("method", ["train", "evaluate", "save", "get_policy"])
def test_a_second_thread_is_refused_with_a_sentence(method, tmp_path):
    entered, leave = threading.Event(), threading.Event()
    made = PPOConfig().environment("CartPole-v1").training(train_batch_size=32, minibatch_size=32)
    with made.build() as algorithm:
        advance = algorithm._training.advance

        def slow(iterations):
            entered.set()
            leave.wait()
            return advance(iterations)

        algorithm._training.advance = slow
        thread = threading.Thread(target=algorithm.train)
        thread.start()
        entered.wait()
        with pytest.raises(RuntimeError, match=rf"{method}\(\): another thread is in train\(\)"):
            getattr(algorithm, method)(*([tmp_path] if method == "save" else []))
        leave.set()
        thread.join()
        algorithm._training.advance = advance
        assert algorithm.train()["training_iteration"] == 2
