"""DDPG by hand: targets across both endings, loss, policy gradient, moving targets; it is settings of TD3."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import Table

from athlete.algorithms.ddpg import DDPGConfig
from athlete.algorithms.deterministic import Networks
from athlete.algorithms.td3 import TD3, TD3Config
from athlete.core import Spec, Transition
from athlete.exploration import OrnsteinUhlenbeckNoise, ParameterNoise
from athlete.ops.random import wrap
from athlete.spaces import Box

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
KEY = wrap(np.array([0, 1], np.uint32))


# Two states, one-hot, and one action: pi(s) = 0.5, -0.5 and Q(s, a) = V(s) + slope a. The target networks:
# pi'(s) = -0.25, 0.75 and V' = 10, 20 with slope 4: Q'(s, pi'(s)) = 9, 23.
SPEC = Spec(Box(0, 1, (2,)), Box(-1, 1, (1,)))


DDPG = DDPGConfig().make_agent(SPEC)


def networks(actions, values, slope):
    actor = {"action": np.arctanh(np.asarray(actions, float))[:, None].astype(np.float32)}
    return jax.tree.map(jnp.asarray, Networks(actor, [{"q": np.array([[*values, slope]], np.float32).T}]))


ONLINE, TARGET = networks([0.5, -0.5], [1.0, 2.0], 2.0), networks([-0.25, 0.75], [10.0, 20.0], 4.0)


def agent_of(**settings):
    tables = {"policy_model": Table(), "q_model": Table()}
    return dataclasses.replace(DDPG, **{**tables, "gamma": 0.5, "l2_reg": None, **settings})


def state_of(agent):
    return agent.init(KEY)._replace(online=ONLINE, target=TARGET)


def transitions(state, action, reward, next_state, terminated, truncated, extras=None):
    """A batch `[T, B, ...]` of numbered states."""
    columns = [np.asarray(part) for part in (state, action, reward, next_state, terminated, truncated)]
    state, action, reward, next_state, terminated, truncated = (np.atleast_2d(column) for column in columns)
    one_hot = np.eye(2, dtype=np.float32)
    first, action, reward = np.zeros(state.shape, bool), action[..., None].astype(np.float32), reward.astype(np.float32)
    return Transition(
        one_hot[state], first, action, reward, one_hot[next_state], terminated, truncated, (), extras or {}
    )


@functools.partial(jax.jit, compiler_options=QUICK)
def update(agent, state, batch):
    return agent.update(state, batch, KEY, jnp.zeros(()))


@functools.partial(jax.jit, compiler_options=QUICK)
def target(agent, state, batch):
    """What the critic should have said, `[B]`: 32, which it is made to say, less its errors."""
    critics = jax.tree.map(lambda table: jnp.full_like(table, 32.0).at[2:].set(0.0), state.online.critics)
    state = state._replace(online=state.online._replace(critics=critics))
    return 32.0 - agent.update(state, batch, KEY, jnp.zeros(()))[1]["td_error"]


def test_a_target_is_of_the_target_networks_and_knows_both_endings():
    batch = transitions(
        [0] * 4, [0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 1, 1], [False, False, True, False], [False, False, False, True]
    )
    agent = agent_of()
    found = target(agent, state_of(agent), batch)
    np.testing.assert_allclose(found, [1 + 0.5 * 9, 2 + 0.5 * 23, 3, 4 + 0.5 * 23], rtol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [(False, False, 1 + 0.5 * 2 + 0.25 * 23), (True, False, 1.0), (False, True, 1 + 0.5 * 9)],
    ids=["runs on", "terminated", "truncated"],
)
def test_two_steps_stop_with_the_episode(terminated, truncated, expected):
    batch = transitions([[0], [1]], [[0.0], [0.0]], [[1.0], [2.0]], [[0], [1]], [[terminated], [0]], [[truncated], [0]])
    batch = batch._replace(terminated=batch.terminated.astype(bool), truncated=batch.truncated.astype(bool))
    agent = agent_of(n_step=2)
    assert target(agent, state_of(agent), batch)[0] == pytest.approx(expected)


# Two steps that end: the target is the reward. Errors 1 + 2 * 0.5 - 1 = 1 and 2 - 2 - 4 = -4.
STEPS = transitions([0, 1], [0.5, -1.0], [1.0, 4.0], [0, 0], [True, True], [False, False])


@pytest.mark.parametrize(("settings", "loss"), [({}, (0.5 + 8.0) / 2), ({"use_huber": True}, (0.5 + 3.5) / 2)])
def test_the_critics_loss(settings, loss):
    agent = agent_of(critic_lr=0.0, **settings)
    _, found = update(agent, state_of(agent), STEPS)
    assert found["critic_loss"] == pytest.approx(loss)
    assert found["mean_q"] == pytest.approx((2 + 0) / 2)
    assert found["mean_td_error"] == pytest.approx((1 - 4) / 2)
    np.testing.assert_allclose(found["td_error"], [1, 4], rtol=1e-6)


def test_weights_of_prioritised_replay_weigh_the_loss():
    agent = agent_of(critic_lr=0.0)
    _, found = update(agent, state_of(agent), STEPS._replace(extras={"weight": np.array([[1.0, 0.25]], np.float32)}))
    assert found["critic_loss"] == pytest.approx((0.5 + 0.25 * 8.0) / 2)


def test_the_actor_climbs_the_critic_by_the_chain_rule():
    agent = agent_of(critic_lr=0.0, actor_lr=0.125)
    state, found = update(agent, state_of(agent), STEPS)
    assert found["actor_loss"] == pytest.approx(-((1 + 1) + (2 - 1)) / 2)
    assert found["actor_gnorm"] == pytest.approx(np.hypot(2 * 0.75 / 2, 2 * 0.75 / 2), rel=1e-5)  # slope (1 - a^2)
    moved = state.online.actor["action"] - ONLINE.actor["action"]
    np.testing.assert_allclose(moved[:, 0], [0.125, 0.125], rtol=1e-4)


def test_the_penalty_on_weights_is_in_both_gradients():
    agent = agent_of(critic_lr=0.0, l2_reg=3.0)
    _, found = update(agent, state_of(agent), STEPS)
    actor = np.array([-0.75, -0.75]) + 3 * np.arctanh([0.5, -0.5])
    critic = np.array([0.5, -2.0, 0.25 + 2.0]) + 3 * np.array([1.0, 2.0, 2.0])
    assert found["actor_gnorm"] == pytest.approx(np.linalg.norm(actor), rel=1e-5)
    assert found["critic_gnorm"] == pytest.approx(np.linalg.norm(critic), rel=1e-5)


def test_targets_follow_both_networks_after_they_moved():
    agent = agent_of(tau=0.25)
    state, _ = update(agent, state_of(agent), STEPS)
    for old, online, new in zip(*map(jax.tree.leaves, (TARGET, state.online, state.target)), strict=True):
        np.testing.assert_allclose(new, 0.75 * old + 0.25 * online, rtol=1e-6)


def test_it_is_td3_with_each_of_its_three_cures_off():
    assert isinstance(DDPG, TD3)
    assert (DDPG.twin_q, DDPG.policy_delay, DDPG.smooth_target_policy) == (False, 1, False)
    assert len(jax.eval_shape(DDPG.init, KEY).online.critics) == 1
    assert DDPGConfig().training(twin_q=True).make_agent(SPEC).twin_q, "as RLlib's, it has them as settings"


# Acting and settings ----------------------------------------------------------------------------------------------


def test_drifting_noise_is_remembered_and_greedy_actions_know_nothing_of_it():
    agent = agent_of(exploration=OrnsteinUhlenbeckNoise(theta=0.0, sigma=0.1, base_scale=0.5))
    view = agent.view(state_of(agent), jnp.zeros(()))
    carry = agent.start(view, 2, KEY)
    obs, running, policy = np.eye(2, dtype=np.float32), np.zeros(2, bool), np.array([[0.5], [-0.5]])
    action, drifted, _ = agent.act(view, carry, obs, running, KEY)
    again, further, _ = agent.act(view, drifted, obs, running, KEY)
    np.testing.assert_allclose(further.exploration, 2 * drifted.exploration, rtol=1e-6)
    np.testing.assert_allclose(action - policy, drifted.exploration, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again - policy, further.exploration, rtol=1e-4, atol=1e-6)
    greedy, kept, _ = agent.act(view, drifted, obs, running, KEY, explore=False)
    np.testing.assert_allclose(greedy, policy, rtol=1e-5)
    np.testing.assert_array_equal(kept.exploration, drifted.exploration)


def test_an_update_adapts_parameter_noise():
    agent = agent_of(exploration=ParameterNoise(0.1, target=100.0))
    state, _ = update(agent, state_of(agent), STEPS)
    assert state.stddev == pytest.approx(0.1 * 1.01)


def test_discrete_actions_are_refused_with_who_serves_them():
    with pytest.raises(ValueError, match=r"^DDPG serves Box action spaces of floats with finite bounds, and this one"):
        DDPGConfig().environment("CartPole-v1").build()


def test_defaults_are_rllibs():
    ddpg, td3 = DDPGConfig(), TD3Config()
    assert [ddpg[name] for name in ("actor_lr", "critic_lr", "tau", "gamma", "n_step")] == [1e-3, 1e-3, 0.002, 0.99, 1]
    assert (ddpg.l2_reg, ddpg.use_huber, ddpg.train_batch_size, ddpg.grad_clip) == (1e-6, False, 256, None)
    assert ddpg.num_steps_sampled_before_learning_starts == 1500
    assert ddpg.exploration_config["type"] == "OrnsteinUhlenbeckNoise"
    assert (td3.tau, td3.policy_delay, td3.twin_q, td3.smooth_target_policy) == (0.005, 2, True, True)
    assert (td3.target_noise, td3.target_noise_clip, td3.train_batch_size) == (0.2, 0.5, 100)
    assert td3.num_steps_sampled_before_learning_starts == 10_000
    assert td3.exploration_config == {
        "type": "GaussianNoise",
        "stddev": 0.1,
        "random_timesteps": 10_000,
        "initial_scale": 1.0,
        "final_scale": 1.0,
        "scale_timesteps": 1,
    }
