"""NaN and infinity that learning makes are an error that names them, or a warning where that was asked for."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete import tune
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Env, Step, hyper
from athlete.env.baseline import baseline
from athlete.env.errors import EnvError
from athlete.ops.finite import NonFiniteError
from athlete.spaces import Box, Discrete


def ppo(backend="jax", **settings):
    config = PPOConfig().environment("CartPole-v1", backend=backend).rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=64, minibatch_size=16, num_epochs=2, model={"fcnet_hiddens": [4]})
    return config.training(**settings)


def dqn(backend="jax", **settings):
    config = DQNConfig().environment("CartPole-v1", backend=backend).rollouts(num_envs_per_worker=1)
    config.reporting(min_sample_timesteps_per_iteration=40)
    return config.training(
        train_batch_size=8,
        num_steps_sampled_before_learning_starts=16,
        model={"fcnet_hiddens": [4]},
        replay_buffer_config={"capacity": 400},
        **settings,
    )


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
@pytest.mark.parametrize("make", [ppo, dqn])
def test_a_training_that_falls_apart_says_so_where_and_what_to_do(make, backend):
    with make(backend, lr=3e38).build() as algorithm:
        with pytest.raises(NonFiniteError) as caught:
            for _ in range(20):
                algorithm.train()
        message = str(caught.value)
        assert f"iteration {algorithm.iteration}" in message
        assert "NaN or infinity" in message and "'" in message
        assert "on_nonfinite='warn'" in message
        with pytest.raises(NonFiniteError):
            algorithm.train()


@pytest.mark.parametrize("backend", ["jax", "gymnasium"])
@pytest.mark.parametrize("make", [ppo, dqn])
def test_parameters_are_looked_at_where_metrics_look_healthy(make, backend):
    with make(backend).build() as algorithm:
        algorithm.train()
        run = jax.device_get(algorithm.run)
        leaves, structure = jax.tree.flatten(jax.tree.map(np.array, run.state))
        floating = [leaf for leaf in leaves if np.issubdtype(leaf.dtype, np.floating) and leaf.size > 10]
        floating[-1].reshape(-1)[-1] = np.nan
        algorithm._training.run = run._replace(state=jax.tree.unflatten(structure, leaves))
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            algorithm.train()


def test_a_warning_in_its_place_is_given_once(caplog):
    with ppo(lr=1e30).debugging(on_nonfinite="warn").build() as algorithm, caplog.at_level(logging.WARNING):
        for _ in range(4):
            result = algorithm.train()
    assert result["training_iteration"] == 4
    assert len([record for record in caplog.records if "NaN or infinity" in record.message]) == 1


def test_a_policy_of_no_numbers_does_not_act():
    with ppo(lr=1e30).debugging(on_nonfinite="warn").build() as algorithm:
        for _ in range(3):
            algorithm.train()
        with pytest.raises(NonFiniteError, match=r"policy.*NaN or infinity"):
            algorithm.compute_single_action(np.zeros(4, np.float32))


def test_an_evaluation_of_a_broken_policy_is_refused():
    with ppo(lr=1e30).build() as algorithm:
        with pytest.raises(NonFiniteError):
            for _ in range(5):
                algorithm.train()
        with pytest.raises(NonFiniteError, match=r"policy.*NaN or infinity"):
            algorithm.evaluate()


def test_a_healthy_training_is_left_alone():
    with ppo(lr=1e-3).build() as algorithm:
        algorithm.train()
        algorithm.compute_single_action(np.zeros(4, np.float32))
        assert algorithm.evaluate(2)["evaluation"]["episodes_this_iter"] == 2
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(algorithm.run.state))


def test_a_trial_so_ended_is_an_error(tmp_path):
    analysis = tune.run(
        "PPO",
        config={"env": "CartPole-v1", "lr": 1e30, "train_batch_size": 64, "minibatch_size": 16},
        stop={"training_iteration": 10},
        local_dir=str(tmp_path),
        verbose=0,
        raise_on_failed_trial=False,
    )
    assert analysis.trials[0].status == "ERROR"


@hyper
class Unpaid(Env):
    """Compiled; pays `reward` at the third of five steps."""

    reward: float = np.nan

    observation_space = Box(-1.0, 1.0, (2,))
    action_space = Discrete(2)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(2)

    def step(self, state, action, key):
        state = state + 1
        reward = jnp.where(state == 3, self.reward, 1.0)
        return state, Step(jnp.zeros(2), reward, state == 5, jnp.zeros((), bool), {})


@pytest.mark.parametrize("reward", [np.nan, -np.inf])
def test_rewards_of_a_compiled_environment_that_are_none_are_said_to_be_its_own(reward):
    """Before there is anything to learn from, and where learning would hide it."""
    env = Unpaid(reward)
    made = dqn().environment(env, disable_env_checking=True, backend="auto")
    made.training(num_steps_sampled_before_learning_starts=100)
    with made.build() as algorithm, pytest.raises(NonFiniteError, match=rf"return .* was {reward}.*environment pays"):
        algorithm.train()
    with pytest.raises(EnvError, match="baseline: Unpaid pays rewards that are no finite numbers"):
        baseline(env, episodes=3)


def test_an_evaluation_does_not_report_a_mean_of_what_is_no_number():
    made = ppo().environment(Unpaid(1.0), disable_env_checking=True, backend="auto")
    made.evaluation(evaluation_config={"env": Unpaid()}, evaluation_duration=2)
    with (
        made.build() as algorithm,
        pytest.raises(EnvError, match=r"evaluate\(\): the return of an episode was nan: Unpaid pays"),
    ):
        algorithm.evaluate()
    with made.debugging(on_nonfinite="warn").build() as algorithm:
        assert np.isnan(algorithm.evaluate()["evaluation"]["episode_reward_mean"])
