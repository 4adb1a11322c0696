"""Schedules and warm-ups count timesteps, whatever the iterations that they came in."""

import jax
import numpy as np
import pytest

from athlete import Algorithm
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.loops.learn import MOST_TIMESTEPS, count
from athlete.record.checkpoint import save_checkpoint


def ppo(backend, batch=64):
    config = PPOConfig().environment("CartPole-v1", backend=backend).rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=batch, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [4]})
    return config.training(lr=[[0, 1e-3], [1000, 0.0]])


def dqn(backend, fragment):
    config = DQNConfig().environment("CartPole-v1", backend=backend).rollouts(num_envs_per_worker=1)
    config.rollouts(rollout_fragment_length=fragment).reporting(min_sample_timesteps_per_iteration=0)
    return config.training(
        train_batch_size=8,
        num_steps_sampled_before_learning_starts=100,
        lr=[[0, 1e-3], [1000, 0.0]],
        model={"fcnet_hiddens": [4]},
        replay_buffer_config={"capacity": 400},
    )


def lr_of(result):
    return result["info"]["learner"]["default_policy"]["learner_stats"]["cur_lr"]


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_a_schedule_goes_on_where_it_was_with_a_batch_of_another_size(backend, tmp_path):
    with ppo(backend).build() as algorithm:
        for _ in range(4):
            algorithm.train()
        path = algorithm.save(tmp_path)
    with Algorithm.from_checkpoint(path, train_batch_size=256, num_envs_per_worker=2) as resumed:
        assert lr_of(resumed.train()) == pytest.approx(1e-3 * (1 - 256 / 1000))
        assert lr_of(resumed.train()) == pytest.approx(1e-3 * (1 - 512 / 1000))
        assert resumed.run.timesteps == 768


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_a_warm_up_is_not_repeated_and_not_cut_with_a_fragment_of_another_length(backend, tmp_path):
    with dqn(backend, 2).build() as algorithm:
        assert algorithm.train()["timesteps_total"] == 102
        path = algorithm.save(tmp_path)
    with Algorithm.from_checkpoint(path, rollout_fragment_length=1) as resumed:
        result = resumed.train()
        assert result["timesteps_total"] == 103
        assert lr_of(result) == pytest.approx(1e-3 * (1 - 102 / 1000))


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
def test_a_checkpoint_that_counts_iterations_alone_is_read_as_what_it_meant(backend, tmp_path):
    with ppo(backend).build() as algorithm:
        for _ in range(4):
            algorithm.train()
        run = jax.device_get(algorithm.run)
        metadata = algorithm._metadata()
    agent = {"state": run.state, "key": run.key, "iteration": run.iteration}
    metadata["counters"]["memory_since"] = metadata["counters"].pop("memory_since_timesteps")
    trees = {"agent": agent, "rows": run.rows} if backend == "jax" else {"agent": agent}
    old = save_checkpoint(tmp_path / "checkpoint_000004", trees, metadata)
    with Algorithm.from_checkpoint(old) as resumed:
        assert lr_of(resumed.train()) == pytest.approx(1e-3 * (1 - 256 / 1000))


def test_no_more_timesteps_are_counted_than_fit():
    assert count(np.uint32(10), 6) == 16
    near = np.uint32(MOST_TIMESTEPS - 3)
    assert count(near, 3) == MOST_TIMESTEPS
    assert count(near, 4) == near == jax.jit(count, static_argnums=1)(near, 4)
