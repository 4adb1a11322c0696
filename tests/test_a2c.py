"""A2C by hand: the loss and its gradient, advantages across both endings, one step, values with known answers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from chain import Chain, transitions
from tables import Table

from athlete.algorithms import A2CConfig, get_config_class
from athlete.algorithms.a2c import A2C
from athlete.algorithms.on_policy import ActorCriticState, Batch
from athlete.core import Spec
from athlete.loops.learn import init_run, iterate_many
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete, OneOf

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))  # three states, one-hot

# In three states: the probability of action 0, which is taken, and the value.
PROBABILITY, VALUE = np.array([0.6, 0.25, 0.8]), np.array([1.0, 2.0, 4.0])
PARAMS = {
    "network": {
        "policy": np.log(np.stack([PROBABILITY, 1 - PROBABILITY], axis=1)).astype(np.float32),
        "value": VALUE[:, None].astype(np.float32),
    }
}
ADVANTAGE, TARGET = np.array([2.0, -1.0, 0.5], np.float32), np.array([0.0, 3.0, 6.0], np.float32)
SAMPLES = Batch(
    obs=np.eye(3, dtype=np.float32)[None],
    first=np.zeros((1, 3), bool),
    carry=(),
    action=np.zeros((1, 3), np.int32),
    advantage=ADVANTAGE[None],
    value=VALUE[None],
    target=TARGET[None],
)


def agent_of(**settings):
    return A2C(**{"model": Table(), **settings}).bind(SPEC)


def test_the_loss_is_policy_gradient_squared_error_and_entropy():
    total, measured = jax.jit(agent_of(vf_loss_coeff=0.25, entropy_coeff=0.1)._loss)(PARAMS, SAMPLES, 0.0)
    policy_loss = -(np.log(PROBABILITY) * ADVANTAGE).mean()
    vf_loss = (1 + 1 + 4) / 3
    entropy = -(PROBABILITY * np.log(PROBABILITY) + (1 - PROBABILITY) * np.log(1 - PROBABILITY)).mean()
    expected = policy_loss + 0.25 * vf_loss - 0.1 * entropy
    np.testing.assert_allclose(measured, [policy_loss, vf_loss, entropy, expected], rtol=1e-5)
    assert total == pytest.approx(expected, rel=1e-5)


def test_its_gradient_is_that_of_the_paper_and_advantages_carry_none():
    agent = agent_of(vf_loss_coeff=0.5, entropy_coeff=0.0)
    gradient = jax.jit(jax.grad(agent._loss, has_aux=True))(PARAMS, SAMPLES, 0.0)[0]["network"]
    # d log p / d logit of the action taken is 1 - p; d .5 (V - R)^2 / dV is V - R; each a mean over three.
    np.testing.assert_allclose(gradient["policy"][:, 0], -(1 - PROBABILITY) * ADVANTAGE / 3, rtol=1e-5)
    np.testing.assert_allclose(gradient["value"][:, 0], (VALUE - TARGET) / 3, rtol=1e-5)


@pytest.mark.parametrize("lambda_", [1.0, 0.5])
def test_advantages_are_right_for_both_endings_and_for_the_end_of_the_trajectory(lambda_):
    """On the way to a truncation in state 2, that, on the way to a termination, that, a last step; values 1, 2, 4."""
    batch = transitions(
        states=[0, 1, 0, 1, 0],
        next_states=[1, 2, 1, 2, 1],
        reward=[1, 2, 3, 4, 5],
        terminated=[False, False, False, True, False],
        truncated=[False, True, False, False, False],
    )
    found = jax.jit(agent_of(gamma=0.5, lambda_=lambda_)._prepare)(PARAMS, batch)
    truncated, terminated, last = 2 + 0.5 * 4 - 2, 4 - 2, 5 + 0.5 * 2 - 1
    on_the_way = [1 + 0.5 * 2 - 1 + 0.5 * lambda_ * truncated, 3 + 0.5 * 2 - 1 + 0.5 * lambda_ * terminated]
    advantage = np.array([on_the_way[0], truncated, on_the_way[1], terminated, last])
    np.testing.assert_allclose(found.advantage[0], advantage, rtol=1e-6)
    np.testing.assert_allclose(found.target[0], advantage + np.array([1, 2, 1, 2, 1]), rtol=1e-6)


def test_an_update_is_one_step_that_follows_the_schedules():
    never = np.zeros(4, bool)
    batch = transitions(never * 0, never * 0, [1.0, 2.0, 3.0, 4.0], never, never)
    falling = Schedule((0.0, 1.0), (0.4, 0.0))
    agent = agent_of(lr=falling, entropy_coeff=falling)
    for progress, lr in [(0.0, 0.4), (0.75, 0.1), (1.0, 0.0)]:
        state = ActorCriticState(PARAMS, adam_init(PARAMS))
        state, metrics = jax.jit(agent.update, compiler_options=QUICK)(state, batch, KEY, progress)
        assert metrics["cur_lr"] == pytest.approx(lr)
        assert int(state.optimizer.count) == 1
        # Adam's first step is the learning rate itself: upwards, for what was earned is more than expected.
        moved = state.params["network"]["policy"][0, 0] - PARAMS["network"]["policy"][0, 0]
        assert moved == pytest.approx(lr, rel=1e-3, abs=1e-7)
        expected = metrics["policy_loss"] + 0.5 * metrics["vf_loss"] - lr * metrics["entropy"]
        assert metrics["total_loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("terminates", "values"),
    [(1.0, [1 + 0.9 + 0.81, 1 + 0.9, 1]), (0.0, [10, 10, 10])],
    ids=["terminated: the finite sum", "truncated: 1 / (1 - gamma)"],
)
def test_values_know_what_an_ending_means(terminates, values):
    env = Chain(terminates)
    lr = Schedule((0.0, 1.0), (0.3, 0.003))
    agent = A2C(model=Table(), gamma=0.9, lr=lr, grad_clip=None).bind(Spec(env.observation_space, env.action_space))

    @jax.jit
    def train(agent, env):
        run = init_run(agent, env, 4, np.array([0, 1], np.uint32), 8)
        return iterate_many(agent, env, 8, 400, 400.0 * 8 * 4, run)

    run, _ = train(agent, env)
    np.testing.assert_allclose(run.state.params["network"]["value"][:, 0], values, rtol=0.01)


def test_actions_without_a_distribution_are_refused_when_the_spaces_become_known():
    with pytest.raises(ValueError, match=r"no distribution over actions of OneOf\(.*there is one for Discrete"):
        A2C().bind(Spec(SPEC.obs, OneOf((Discrete(2),))))


def test_the_settings_of_a3c_are_taken_for_a2c():
    from athlete.algorithms import A3CConfig

    assert get_config_class("a3c") is A3CConfig is A2CConfig
    config = A3CConfig().rollouts(sample_async=True).training(use_gae=True, use_critic=True, microbatch_size=20)
    agent = config.training(**{"lambda": 0.9}, grad_clip=40.0, entropy_coeff=0.02).make_agent(SPEC).agent
    assert isinstance(agent, A2C)
    assert (agent.lambda_, agent.grad_clip, agent.entropy_coeff) == (0.9, 40.0, 0.02)


def test_small_batches_have_fewer_environments_of_at_least_five_steps():
    assert A2CConfig().num_envs_per_worker == 16
    small = A2CConfig().training(train_batch_size=20)
    assert (small.num_envs_per_worker, small.fragment_length()) == (4, 5)
    assert A2CConfig().training(train_batch_size=3).num_envs_per_worker == 1
    assert small.training(train_batch_size=200).num_envs_per_worker == 16
    assert A2CConfig().rollouts(num_envs_per_worker=10).training(train_batch_size=20).num_envs_per_worker == 10
