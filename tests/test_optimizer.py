"""`training(optimizer=...)`: a transformation of optax's takes the place of Adam."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from athlete import Algorithm, Policy
from athlete.algorithms import get_config_class
from athlete.algorithms.ppo import PPOConfig
from athlete.record.checkpoint import CheckpointError

FAMILIES = {
    "PPO": {"train_batch_size": 64, "minibatch_size": 32, "num_epochs": 2},
    "A2C": {"train_batch_size": 64},
    "PG": {"train_batch_size": 64},
    "IMPALA": {"train_batch_size": 64},
    "APPO": {"train_batch_size": 64},
    "PQN": {"train_batch_size": 64, "minibatch_size": 32, "num_epochs": 2},
    "DQN": {"num_steps_sampled_before_learning_starts": 16, "train_batch_size": 16},
}
EPSILON = {"PG": 1e-8, "DQN": 1e-8, "PQN": 1e-8}  # of the others 1e-5


def config(name: str = "PPO", **settings):
    base = get_config_class(name)().environment("CartPole-v1").debugging(seed=3).reporting(logdir=False)
    return base.rollouts(num_envs_per_worker=4).training(**FAMILIES[name], **settings)


def weights(algo: Algorithm):
    return algo.get_policy().get_weights()


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


@pytest.mark.parametrize(
    "name", [name if name == "PPO" else pytest.param(name, marks=pytest.mark.thorough) for name in FAMILIES]
)
def test_optaxs_adam_with_the_same_rate_learns_what_ours_does(name):
    instead = optax.adam(1.0, eps=EPSILON.get(name, 1e-5))
    with config(name, lr=1e-3).build() as ours, config(name, lr=1e-3, optimizer=instead).build() as theirs:
        results = [algo.train() for algo in (ours, ours, theirs, theirs)]
        assert_close(weights(ours), weights(theirs))
    norms = [result["info"]["learner"]["default_policy"]["learner_stats"]["grad_gnorm"] for result in results]
    np.testing.assert_allclose(norms[1], norms[3], rtol=1e-3)


def test_a_rate_of_its_own_holds_unless_lr_multiplies_it():
    assert config(optimizer=optax.sgd(0.1)).lr == 1.0
    assert config(optimizer=optax.sgd(0.1)).training(optimizer=None).lr == config().lr < 1.0
    assert config(optimizer=optax.sgd(0.1), lr=0.5).lr == config(lr=0.5).training(optimizer=optax.sgd(0.1)).lr == 0.5
    with (
        config(optimizer=optax.sgd(0.1)).build() as one,
        config(optimizer=optax.sgd(0.2), lr=[[0, 0.5], [10**9, 0.5]]).build() as other,
    ):
        before = weights(one)
        one.train(), other.train()
        after = weights(one)
        assert_close(after, weights(other))
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after))) > 1e-4


def test_training_goes_on_exactly_where_the_optimizer_is_given_again(tmp_path):
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    with config(optimizer=optimizer).build() as algo:
        algo.train()
        path = algo.save(tmp_path)
        algo.train()
        after = weights(algo)
    with pytest.raises(CheckpointError, match=r"give it again: from_checkpoint\(path, optimizer=\.\.\.\)"):
        Algorithm.from_checkpoint(path)
    with Algorithm.from_checkpoint(path, optimizer=optimizer) as restored:
        restored.train()
        jax.tree.map(np.testing.assert_array_equal, weights(restored), after)
    assert Policy.from_checkpoint(path, optimizer=optimizer).compute_single_action([0.0] * 4)[0] in (0, 1)


def test_what_is_no_transformation_is_answered(caplog):
    with pytest.raises(ValueError, match=r"optimizer=3\): expected an optax transformation such as optax\.adamw"):
        PPOConfig().training(optimizer=3)
    PPOConfig().training(optimizer={"adam_epsilon": 1e-8})  # of RLlib's files
    get_config_class("SAC")().training(optimizer=optax.adamw(1.0))
    assert all("networks learn by Adam" in record.getMessage() for record in caplog.records[-2:])


def test_a_rate_beside_an_optimizer_is_told_of_since_it_multiplies_the_updates(caplog):
    PPOConfig().training(optimizer=optax.adam(3e-4))
    assert not caplog.messages
    PPOConfig().training(optimizer=optax.adam(3e-4), lr=3e-4)
    assert caplog.messages == ["optimizer=...: lr=0.0003 multiplies its updates, beside a rate of its own"]
