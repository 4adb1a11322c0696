"""Many agents learn: trained to a threshold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.settings.multi_agent import PolicySpec

pytestmark = pytest.mark.learning


def to_the_side_of_the_pole(observations, key):
    return (observations[:, 2] > 0).astype(jnp.int32)


def test_two_algorithms_learn_beside_a_frozen_policy_and_a_heuristic():
    dqn = {
        "lr": 1e-3,
        "training_intensity": 16,
        "train_batch_size": 64,
        "exploration_config": {"epsilon_timesteps": 20_000},
    }
    config = (
        PPOConfig()
        .environment("MultiAgentCartPole-v1", env_config={"num_agents": 4})
        .rollouts(num_envs_per_worker=8)
        .training(lr=1e-3, gamma=0.98, train_batch_size=1024, minibatch_size=128)
        .multi_agent(
            policies={
                "ppo": PolicySpec(),
                "dqn": PolicySpec(algorithm="DQN", config=dqn),
                "frozen": PolicySpec(),
                "rule": to_the_side_of_the_pole,
            },
            policy_mapping_fn=dict(
                zip((f"agent_{i}" for i in range(4)), ("ppo", "dqn", "frozen", "rule"), strict=True)
            ),
            policies_to_train=["ppo", "dqn"],
        )
        .reporting(min_sample_timesteps_per_iteration=10_240)
        .debugging(seed=0)
    )
    with config.build() as algo:
        before = algo.get_weights()["frozen"]
        while algo.train()["num_env_steps_sampled"] < 100_000:
            pass
        means = algo.evaluate(20)["evaluation"]["policy_reward_mean"]
        after = algo.get_weights()["frozen"]
    assert means["ppo"] > 400
    assert means["dqn"] > 300
    assert means["frozen"] < 100 and means["rule"] < 60
    for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
