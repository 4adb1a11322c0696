"""Learning from trajectories of workers as they come, and one policy behind."""

import os
import signal
import threading

import jax
import numpy as np
import pytest
from test_workers import ROWS, assert_equal_to_the_last_bit, config, frail
from toy_agents import DictRoster
from working import Pole

from athlete import Algorithm
from athlete.algorithms import get_config_class
from athlete.building import _batch_of_fragments
from athlete.env.errors import EnvError
from athlete.ops.random import wrap


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


def test_policies_of_many_agents_are_one_behind_where_one_policy_would_not_wait():
    with config("IMPALA", 2, DictRoster).build() as algorithm:
        told = [algorithm.train() for _ in range(3)]
    assert told[2]["policy_lag"] == 1.0
    with config("IMPALA", 0, DictRoster).build() as algorithm:
        assert algorithm.train()["timesteps_total"], "without workers nobody waits"
    sentence = r"rollouts\(sample_async=True\) does not fit many agents.*set it to 'lagged' or False"
    for workers, kind in [(2, "IMPALA"), (0, "DQN")]:
        with pytest.raises(ValueError, match=sentence):
            config(kind, workers, DictRoster).rollouts(sample_async=True, rollout_fragment_length="auto").build()


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

    def spy(*arguments):
        fragments = came(*arguments)
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


def test_nothing_is_learned_from_that_is_older_than_it_may_be():
    made = waiting_for_none(rows=2, max_policy_lag=1).environment(Uneven, env_config={"slow": 0.03})
    with made.build() as algorithm:
        results = [algorithm.train() for _ in range(30)]
    assert max(result["policy_lag_max"] for result in results) <= 1.0
    assert sum(result["num_trajectories_dropped"] for result in results) > 0


def test_policies_that_come_too_seldom_are_refused():
    made = waiting_for_none(max_policy_lag=2).training(broadcast_interval=4)
    with pytest.raises(ValueError, match=r"max_policy_lag=2\): .*broadcast_interval=4 .*make it 3 or more"):
        made.build()


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


def distributed_r2d2(length=8):
    made = get_config_class("R2D2")().environment(Pole, disable_env_checking=True).debugging(seed=3)
    made.rollouts(num_rollout_workers=2, num_envs_per_worker=2, rollout_fragment_length=length)
    made.rollouts(workers_act=True, sample_async=True)
    made.training(model={"use_lstm": True, "lstm_cell_size": 4, "fcnet_hiddens": [4], "max_seq_len": 4})
    made.training(train_batch_size=16, training_intensity=2, num_steps_sampled_before_learning_starts=32)
    made.training(replay_buffer_config={"capacity": 200, "replay_burn_in": 2}, n_step=2)
    made.exploration(exploration_config={"type": "PerWorkerEpsilonGreedy"})
    return made.reporting(min_sample_timesteps_per_iteration=32)


def test_sequences_of_replay_lie_within_the_trajectories_that_came():
    """Every step of a sample follows from the one before, and the stored states are those that acted."""
    with distributed_r2d2().build() as algorithm:
        for _ in range(3):
            result = algorithm.train()
        run, agent = jax.device_get(algorithm.run), algorithm.agent
        batch = jax.jit(agent.memory.sample)(run.store, None, wrap(np.array([0, 5], np.uint32)), 0.0)
    assert agent.memory.apart and batch.reward.shape[0] == 2 + 4 + 1
    for t in range(1, 7):
        goes_on = ~np.asarray(batch.terminated[t - 1] | batch.truncated[t - 1])
        np.testing.assert_array_equal(batch.obs[t][goes_on], batch.next_obs[t - 1][goes_on])
        np.testing.assert_array_equal(batch.first[t], ~goes_on)
    rungs = np.unique(np.asarray(batch.carry.exploration[0]))
    assert set(rungs.round(5)) <= set((0.4 ** (1 + 7 * np.arange(4) / 3)).astype(np.float32).round(5)), "of all rows"
    assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["loss"])


def test_a_sequence_that_no_trajectory_holds_is_refused():
    with pytest.raises(ValueError, match=r"R2D2: sample_async=True keeps .*steps=7 is longer than .*=4; make that 7"):
        distributed_r2d2(length=4).build()


def test_impala_needs_no_workers_and_asks_for_none_where_it_is_compiled():
    for backend in ("auto", "gymnasium"):
        made = get_config_class("IMPALA")().environment("CartPole-v1", backend=backend)
        with made.training(train_batch_size=80).build() as algorithm:
            assert algorithm.train()["num_healthy_workers"] == 0
