"""Learning from trajectories of workers as they come, and one policy behind."""

import os
import signal
import threading

import jax
import numpy as np
import pytest
from test_workers import ROWS, assert_equal_to_the_last_bit, config, frail
from working import Pole

from athlete import Algorithm
from athlete.algorithms import get_config_class
from athlete.building import _batch_of_fragments
from athlete.env.errors import EnvError


def waiting_for_none(kind="IMPALA", workers=2, rows=ROWS, **rollouts):
    made = config(kind, workers, rows=rows)
    if kind not in ("DQN", "SAC"):
        made.training(train_batch_size=8 * rows)
    return made.rollouts(sample_async=True, **rollouts)


# One policy behind --------------------------------------------------------------------------------------------------


def run_behind(kind, workers, **changes):
    with config(kind, workers, **changes).rollouts(sample_async="lagged").build() as algorithm:
        results = [algorithm.train() for _ in range(3)]
        return jax.device_get(algorithm.run), results


@pytest.mark.parametrize("kind", ["APPO", pytest.param("DQN", marks=pytest.mark.thorough)])
def test_one_policy_behind_is_the_same_training_whatever_the_number_of_workers(kind):
    (one, told), (two, _) = run_behind(kind, 1), run_behind(kind, 2)
    assert_equal_to_the_last_bit(one, two)
    assert told[2]["policy_lag"] == told[2]["policy_lag_max"] == 1.0


def test_with_nothing_to_learn_being_behind_changes_nothing():
    """Without a learning rate all policies are one: then it is the training of workers in step."""
    still = {"lr": 0.0}
    behind, _ = run_behind("IMPALA", 2, **still)
    with config("IMPALA", 2, **still).rollouts(sample_async=False).build() as algorithm:
        for _ in range(3):
            assert "policy_lag" not in algorithm.train()
        in_step = jax.device_get(algorithm.run)
    assert_equal_to_the_last_bit(behind, in_step)


def test_it_learns_from_the_policy_of_one_iteration_before():
    """Ratios are 1 in step; behind, the policy has moved on since."""
    losses = {}
    for how in (False, "lagged"):
        with config("IMPALA", 1, lr=0.1).rollouts(sample_async=how).build() as algorithm:
            losses[how] = [algorithm.train()["info"]["learner"]["default_policy"]["learner_stats"] for _ in range(2)]
    first, second = zip(*losses.values(), strict=True)
    assert first[0] == first[1], "there is no older policy than the first"
    assert second[0]["policy_loss"] != second[1]["policy_loss"]


# As they come -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["IMPALA", "APPO", "DQN"])
def test_what_comes_is_learned_from_and_its_age_is_told(kind):
    with waiting_for_none(kind).build() as algorithm:
        algorithm.train()  # workers warm up
        results = [algorithm.train() for _ in range(4)]
        # What bounds the age: nobody is asked for more than two trajectories ahead, however slow the other one is.
        assert max(algorithm._training._open) <= 2
    for result in results:
        assert 0.0 <= result["policy_lag"] <= result["policy_lag_max"]
        assert result["num_env_steps_trained_this_iter"] > 0
    assert results[-1]["episodes_total"] > 0 and 1.0 <= results[-1]["episode_reward_mean"] <= 15.0
    assert results[-1]["timesteps_total"] - results[0]["timesteps_total"] == sum(
        result["timesteps_this_iter"] for result in results[1:]
    )


def spied(algorithm):
    """What was learned from: `(worker, first leaf of its trajectory)`, as it goes on."""
    seen, came = [], algorithm._training._collected

    def spy(phase):
        fragments = came(phase)
        seen.extend((worker, fragment.steps[0]) for worker, fragment in fragments)
        return fragments

    algorithm._training._collected = spy
    return seen


def test_rows_of_all_workers_play_episodes_of_their_own():
    with waiting_for_none().reporting(min_sample_timesteps_per_iteration=400).build() as algorithm:
        seen = spied(algorithm)
        while {worker for worker, _ in seen} != {0, 1}:  # one may come to life much later than the other
            algorithm.train()
    starts = dict(reversed(seen))  # of each worker its first
    rows = np.concatenate([steps[0] for steps in starts.values()])
    assert len(np.unique(rows.round(6), axis=0)) == ROWS, "no two rows are twins"


def test_who_is_slow_is_not_waited_for():
    with waiting_for_none(rows=2).environment(Uneven, env_config={"slow": 0.03}).build() as algorithm:
        algorithm.train()
        seen = spied(algorithm)
        for _ in range(20):
            algorithm.train()
    senders = [worker for worker, _ in seen]
    assert senders.count(1) > 2 * senders.count(0)


class Uneven(Pole):
    def __init__(self, env_config):
        super().__init__({"slowness": env_config["slow"] if env_config.worker_index == 1 else 0.0})


def test_a_failing_environment_is_an_error_and_training_goes_on(tmp_path):
    made = frail(tmp_path, "raises")
    with (
        get_config_class("IMPALA")
        .from_dict(
            {name: value for name, value in made.chosen().items() if name not in ("minibatch_size", "num_epochs")}
        )
        .build() as algorithm
    ):
        with pytest.raises(EnvError, match=r"(?s)no such place.*row 3, seeded with \d+, in step 7 of its episode"):
            for _ in range(5):
                algorithm.train()
        before = algorithm.train()["timesteps_total"]
        assert algorithm.train()["timesteps_total"] > before


def test_a_worker_that_is_killed_begins_anew_where_that_was_asked_for():
    with waiting_for_none().fault_tolerance(recreate_failed_workers=True).build() as algorithm:
        algorithm.train()
        os.kill(algorithm._training.workers.processes[1].pid, signal.SIGKILL)
        while (result := algorithm.train())["num_worker_restarts"] == 0:
            pass
        assert result["num_healthy_workers"] == 2 and result["num_faulty_episodes"] == 2
        assert algorithm.train()["num_worker_restarts"] == 1


def test_an_interrupt_leaves_it_able_to_go_on():
    with waiting_for_none().environment(env_config={"slowness": 0.02}).build() as algorithm:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(50):
                algorithm.train()
        done = int(algorithm.run.iteration)
        algorithm.train()
        assert int(algorithm.run.iteration) == done + 1


def test_it_is_saved_and_restored(tmp_path):
    with waiting_for_none("DQN").build() as algorithm:
        total = algorithm.train()["timesteps_total"]
        path = algorithm.save(tmp_path)
        with Algorithm.from_checkpoint(path) as restored:
            result = restored.train()
    assert result["timesteps_total"] > total and np.isfinite(
        result["info"]["learner"]["default_policy"]["learner_stats"]["loss"]
    )


# What is chosen and refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "each", "length", "batch", "expected"),
    [
        (4, 2, "auto", 160, (40, 2)),  # half of the workers make a batch
        (4, 2, 20, 120, (20, 3)),  # lengths that are given are kept
        (2, 2, 10, 160, (40, 2)),  # and made longer where there are not enough workers
        (1, 4, "auto", 100, (25, 1)),
    ],
)
def test_how_many_trajectories_make_a_batch(workers, each, length, batch, expected):
    made = get_config_class("IMPALA")().environment("CartPole-v1").training(train_batch_size=batch)
    made.rollouts(num_rollout_workers=workers, num_envs_per_worker=each, rollout_fragment_length=length)
    assert _batch_of_fragments(made, made.fragment_length()) == expected


def test_sequences_of_replay_are_not_taken_as_they_come():
    made = (
        get_config_class("R2D2")()
        .environment(Pole)
        .rollouts(num_rollout_workers=2, workers_act=True, sample_async=True)
    )
    with pytest.raises(ValueError, match=r"R2D2: sample_async=True .* set sample_async='lagged', or False"):
        made.build()


def test_impala_needs_no_workers_and_asks_for_none_where_it_is_compiled():
    for backend in ("auto", "gymnasium"):
        made = get_config_class("IMPALA")().environment("CartPole-v1", backend=backend)
        with made.training(train_batch_size=80).build() as algorithm:
            assert algorithm.train()["num_healthy_workers"] == 0
