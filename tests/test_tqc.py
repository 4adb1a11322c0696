"""TQC by hand: pooled and truncated targets across both endings, the quantile loss, the policy's mean."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Table

from athlete.algorithms.tqc import TQC, TQCConfig
from athlete.core import Spec, Transition
from athlete.ops.random import wrap
from athlete.ops.temperature import temperature_init
from athlete.spaces import Box, Discrete

QUICK = {"xla_backend_optimization_level": 0}
KEY = wrap(np.array([0, 1], np.uint32))


# Two states, one-hot, and an action that is 0.5 in both (its standard deviation is next to nothing). Two critics of
# three quantiles: rows for the states and for the action.
SPEC = Spec(Box(0, 1, (2,)), Box(-1, 1, (1,)))
CRITICS = [[[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [2.0, 2.0, 4.0]], [[5.0, 0.5, 1.0], [9.0, 9.5, 9.9], [0.0, 0.0, 0.0]]]
#   state 0: 0 + 1, 1 + 1, 2 + 2 = 1, 2, 4 and 5, 0.5, 1
#   state 1: 11, 12, 14 and 9, 9.5, 9.9


def agent_of(alpha=1e-6, **settings):
    chosen = {"num_quantiles": 3, "top_quantiles_to_drop_per_net": 1, "gamma": 0.5, **settings}
    agent = TQC(policy_model=Table(), q_model=Table(), **chosen).bind(SPEC)
    critics = [{"q": jnp.asarray(table, jnp.float32)} for table in CRITICS]
    actor = {"policy": jnp.asarray([[math.atanh(0.5), -30.0]] * 2, jnp.float32)}
    state = agent.init(KEY)._replace(temperature=temperature_init(alpha))
    return agent, state._replace(actor=actor, critics=critics, targets=jax.tree.map(jnp.copy, critics))


def transitions(state, action, reward, next_state, terminated=False, truncated=False, extras=None):
    one_hot, reward = np.eye(2, dtype=np.float32), np.atleast_2d(np.asarray(reward, np.float32))
    flags = [np.broadcast_to(np.atleast_2d(flag), reward.shape) for flag in (terminated, truncated)]
    first = np.zeros(reward.shape, bool)
    state, next_state, action = (np.atleast_2d(part) for part in (state, next_state, action))
    action = action[..., None].astype(np.float32)
    return Transition(one_hot[state], first, action, reward, one_hot[next_state], *flags, (), extras or {})


@functools.partial(jax.jit, compiler_options=QUICK)
def target(agent, state, batch):
    """The mean of the returns that are learned from, `[B]`: 16, which critics are made to say, less the TD errors."""
    critics = jax.tree.map(lambda table: jnp.full_like(table, 16.0).at[2:].set(0.0), state.critics)
    return 16.0 - agent.update(state._replace(critics=critics), batch, KEY, jnp.zeros(()))[1]["td_error"]


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, jnp.zeros(()))


def test_targets_are_the_pooled_quantiles_without_the_largest():
    batch = transitions([0, 0], [0.0, 0.0], [1.0, 2.0], [0, 1])
    # Two of the six are dropped: 4 and 5 in state 0, both of the first critic in state 1.
    found = target(*agent_of(), batch)
    np.testing.assert_allclose(found, [1 + 0.5 * (0.5 + 1 + 1 + 2) / 4, 2 + 0.5 * (9 + 9.5 + 9.9 + 11) / 4], rtol=1e-4)
    everything = target(*agent_of(top_quantiles_to_drop_per_net=0), batch)
    assert everything[0] == pytest.approx(1 + 0.5 * (0.5 + 1 + 1 + 2 + 4 + 5) / 6, rel=1e-4)


def test_a_terminated_episode_is_worth_its_reward_and_a_truncated_one_goes_on():
    batch = transitions([0, 0], [0.0, 0.0], [3.0, 4.0], [1, 0], terminated=[True, False], truncated=[False, True])
    np.testing.assert_allclose(target(*agent_of(), batch), [3, 4 + 0.5 * 4.5 / 4], rtol=1e-4)


def test_two_steps_discount_twice_and_entropy_once():
    batch = transitions([[0], [0]], [[0.0], [0.0]], [[1.0], [2.0]], [[0], [0]])
    found = target(*agent_of(n_step=2), batch)
    np.testing.assert_allclose(found, [1 + 0.5 * 2 + 0.25 * 4.5 / 4], rtol=1e-4)
    # At temperature 0.25 it moves by -gamma^2 alpha log pi, which is the same for the same key.
    agent, state = agent_of(n_step=2)
    next_key = jax.random.split(KEY)[0]
    _, log_prob = agent._policy(state.actor, jnp.eye(2)[:1]).sample_and_log_prob(next_key)
    shifted = target(*agent_of(alpha=0.25, n_step=2), batch)
    np.testing.assert_allclose(shifted - found, -0.25 * 0.25 * log_prob, rtol=1e-3)


def test_the_loss_is_the_quantile_regression_of_each_critic_in_the_mean_over_its_quantiles():
    # The target is 2 everywhere. In state 0 with action -1 the first critic says -2, -1, -2 and the second 5, 0.5, 1:
    # errors 4, 3, 4 and -3, 1.5, 1; Huber's 3.5, 2.5, 3.5 and 2.5, 1, 0.5; fractions 1/6, 1/2, 5/6.
    batch = transitions([0], [-1.0], [2.0], [0], terminated=True)
    first = (3.5 / 6 + 2.5 / 2 + 3.5 * 5 / 6) / 3
    second = (2.5 * 5 / 6 + 1.0 / 2 + 0.5 * 5 / 6) / 3
    _, found = update(*agent_of(critic_lr=0.0), batch)
    assert found["critic_loss"] == pytest.approx(first + second, rel=1e-5)
    mean = (-2 - 1 - 2 + 5 + 0.5 + 1) / 6
    assert found["mean_q"] == pytest.approx(mean)
    np.testing.assert_allclose(found["td_error"], [2 - mean], rtol=1e-5)
    weighted = batch._replace(extras={"weight": np.float32([[0.5]])})
    _, found = update(*agent_of(critic_lr=0.0), weighted)
    assert found["critic_loss"] == pytest.approx(0.5 * (first + second), rel=1e-5)


def test_the_policy_climbs_the_mean_of_all_quantiles():
    _, found = update(*agent_of(critic_lr=0.0), transitions([0, 1], [0.0, 0.0], [0.0, 0.0], [0, 0]))
    assert found["actor_loss"] == pytest.approx(
        -((1 + 2 + 4 + 5 + 0.5 + 1) + (11 + 12 + 14 + 9 + 9.5 + 9.9)) / 12, rel=1e-4
    )
    agent, state = agent_of(critic_lr=0.0, actor_lr=0.1)
    moved, _ = update(agent, state, transitions([0, 1], [0.0, 0.0], [0.0, 0.0], [0, 0]))
    # The action's slopes are positive: Adam's first step is as long as the learning rate.
    np.testing.assert_allclose(moved.actor["policy"][:, 0] - state.actor["policy"][:, 0], 0.1, rtol=1e-3)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"TQC serves Box .* this one is Discrete"):
        TQC().bind(Spec(SPEC.obs, Discrete(2)))
    with pytest.raises(ValueError, match="top_quantiles_to_drop_per_net=25 leaves nothing of num_quantiles=25"):
        TQC(top_quantiles_to_drop_per_net=25).bind(SPEC)
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        TQCConfig().training(num_critics=0)
    with pytest.raises(ValueError, match="TQC has a learning rate for each of its networks"):
        TQCConfig().training(lr=1e-3)
